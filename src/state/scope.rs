//! Part of an upstream that closes by itself: a route whose 429 says nothing of the account's other routes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;
use crate::model::moment::Moment;
use crate::rules::pause::{FIRST_GAP, Gate, Pause};

/// One route's standing. Clones share it.
#[derive(Debug, Clone)]
pub struct Scope(Arc<Held>);

#[derive(Debug)]
struct Held {
    pause: Mutex<Pause>,
    /// A probe has ended.
    changed: Notify,
    clock: Clock,
}

/// A call that may pass.
#[derive(Debug)]
pub struct Passed {
    scope: Scope,
    probe: bool,
}

impl Scope {
    /// Open.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Held { pause: Mutex::default(), changed: Notify::new(), clock }))
    }

    /// Waits until it is open, or this call may be its probe; at most until `deadline`.
    ///
    /// # Errors
    /// How long it stays closed.
    pub async fn pass(&self, deadline: Moment) -> Result<Passed, Duration> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = self.0.clock.now();
            let gate = {
                let mut pause = self.pause();
                let gate = pause.admit(now);
                if gate == Gate::OneProbe {
                    pause.probe();
                }
                gate
            };
            let left = match gate {
                Gate::Open | Gate::OneProbe => {
                    return Ok(Passed { scope: self.clone(), probe: gate == Gate::OneProbe });
                }
                Gate::Until(until) if until > deadline => return Err(until.since(now)),
                Gate::Until(until) => until.since(now),
                Gate::Probing if deadline <= now => return Err(FIRST_GAP),
                Gate::Probing => deadline.since(now),
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.0.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may pass at `deadline`, as far as is known.
    pub fn opens_by(&self, deadline: Moment) -> bool {
        !matches!(self.pause().admit(self.0.clock.now()), Gate::Until(until) if until > deadline)
    }
}

impl Passed {
    /// The upstream sent the call away, for `figure` if it said so, which counts up to `longest`.
    pub fn sent_away(mut self, figure: Option<Duration>, longest: Duration) {
        let (now, probe) = (self.scope.0.clock.now(), std::mem::take(&mut self.probe));
        self.scope.pause().sent_away(now, figure, longest, probe);
        self.scope.0.changed.notify_waiters();
    }

    /// The upstream answered it.
    pub fn answered(mut self) {
        if std::mem::take(&mut self.probe) {
            self.scope.pause().answered();
            self.scope.0.changed.notify_waiters();
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.probe {
            self.scope.pause().lost(self.scope.0.clock.now());
            self.scope.0.changed.notify_waiters();
        }
    }
}
