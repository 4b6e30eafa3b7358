//! What an account may still spend, and who waits for it: the windows of its quota, its standing with the upstream,
//! and the ceiling on calls at once.
//!
//! Waiting is first come, first served. The decision itself is `rules::window`; this file owns the lock, the line and
//! the grants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntGauge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::clock::Clock;
use crate::model::moment::Moment;
use crate::rules::rest::Rest;
use crate::rules::window::{Window, WindowRule};

/// The most calls an upstream bears at once. Clones share it.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<Semaphore>);

impl PartialEq for Ceiling {
    /// The same ceiling, not merely the same number.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Ceiling {
    /// At most `calls` at once.
    pub fn new(calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))))
    }
}

/// How calls may wait for an account; may change while it is used.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The longest a call may wait.
    pub max_wait: Duration,
    /// The most calls that may wait at once.
    pub max_waiting: usize,
    /// What the upstream bears at once.
    pub ceiling: Ceiling,
}

/// What an account reports.
#[derive(Debug, Clone)]
pub struct AccountMeters {
    /// Grants that are held.
    pub permits: IntGauge,
    /// Calls that wait.
    pub waiting: IntGauge,
    /// How long calls waited, in seconds.
    pub waits: Histogram,
    /// What each window still admits.
    pub remaining: Vec<IntGauge>,
    /// 1 while the account rests.
    pub paused: IntGauge,
}

/// One account's quota, shared by every route that uses it.
#[derive(Debug)]
pub struct Account {
    terms: ArcSwap<Terms>,
    windows: Mutex<Vec<Window>>,
    rest: Mutex<Rest>,
    /// Whoever holds it is next; tokio's semaphores are first come, first served.
    turn: Semaphore,
    waiting: AtomicUsize,
    /// A slot may have come free sooner than its window said.
    freed: Notify,
    clock: Clock,
    meters: AccountMeters,
}

/// Why no grant was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No slot comes free in time.
    Spent {
        /// When one does, from now.
        retry_after: Duration,
        /// The window that admits last.
        window: WindowRule,
    },
    /// As many calls wait as may.
    Full,
    /// The upstream's ceiling is reached, and stayed so for as long as could be waited.
    Busy,
    /// The upstream refused the account's credentials; so long until the next probe.
    Resting {
        /// How long.
        retry_after: Duration,
    },
}

/// A call's place in every window and under the ceiling. Dropping it gives the place back as truthfully as is known:
/// a call that was sent is spent.
#[derive(Debug)]
pub struct Grant {
    account: Arc<Account>,
    state: GrantState,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrantState {
    Unsent,
    Sent,
    Ended,
}

impl Account {
    /// An account nothing was spent of; all `windows` must admit a call.
    pub fn new(windows: &[WindowRule], terms: Terms, clock: Clock, meters: AccountMeters) -> Arc<Self> {
        let windows = windows.iter().map(|rule| Window::new(*rule)).collect();
        let account = Self {
            terms: ArcSwap::from_pointee(terms),
            windows: Mutex::new(windows),
            rest: Mutex::default(),
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            clock,
            meters,
        };
        account.report(&mut account.windows());
        Arc::new(account)
    }

    /// From now on calls wait by these terms. What was spent, and who waits, stays.
    pub fn adapt(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
    }

    /// Waits for a grant until `deadline`, and no longer than the account allows.
    ///
    /// # Errors
    /// Why there is none, at once where waiting cannot help.
    pub async fn acquire(self: &Arc<Self>, deadline: Moment) -> Result<Grant, Refused> {
        let began = self.clock.now();
        let terms = self.terms.load_full();
        let deadline = deadline.min(began + terms.max_wait);
        self.may_be_asked(began)?;
        let line = self.join_line(terms.max_waiting)?;
        if line.ahead == 0
            && let Ok(permit) = terms.ceiling.0.clone().try_acquire_owned()
            && let Some(grant) = self.try_spend(permit)?
        {
            self.meters.waits.observe(0.0);
            return Ok(grant);
        }
        self.is_worth_waiting(line.ahead, deadline)?;
        let left = deadline.since(self.clock.now());
        let grant = match tokio::time::timeout(left, self.wait_in_line(deadline, &terms.ceiling)).await {
            Ok(grant) => grant,
            // Whoever comes back stands behind everybody who still waits.
            Err(_) => Err(self.is_worth_waiting(self.others(), deadline).err().unwrap_or(Refused::Busy)),
        };
        self.meters.waits.observe(self.clock.now().since(began).as_secs_f64());
        grant
    }

    /// Brings the gauges up to date: slots come free with time alone.
    pub fn refresh(&self) {
        self.report(&mut self.windows());
    }

    /// The upstream refused the account's credentials, which are still the same when read again or are `renewed`.
    pub fn refused(&self, renewed: bool) {
        let mut rest = self.rest();
        if renewed {
            rest.renewed();
        } else {
            rest.refused(self.clock.now());
        }
        self.meters.paused.set(i64::from(matches!(*rest, Rest::Resting { .. })));
    }

    /// The upstream accepted the account's credentials.
    pub fn accepted(&self) {
        let mut rest = self.rest();
        if *rest != Rest::Working {
            rest.accepted();
            self.meters.paused.set(0);
        }
    }

    async fn wait_in_line(self: &Arc<Self>, deadline: Moment, ceiling: &Ceiling) -> Result<Grant, Refused> {
        let Ok(_turn) = self.turn.acquire().await else { return Err(Refused::Busy) };
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before looking, so that a slot freed between the two is not missed.
            freed.as_mut().enable();
            let Ok(permit) = ceiling.0.clone().acquire_owned().await else { return Err(Refused::Busy) };
            if let Some(grant) = self.try_spend(permit)? {
                return Ok(grant);
            }
            self.is_worth_waiting(0, deadline)?;
            let now = self.clock.now();
            let next = self.windows().iter_mut().map(|window| window.next_free(now, 0)).max().unwrap_or(now);
            // The timer's grain is a millisecond; a slot is never taken early, only found a little late.
            tokio::select! {
                () = tokio::time::sleep(next.since(now)) => {}
                () = freed => {}
            }
        }
    }

    fn is_worth_waiting(&self, ahead: usize, deadline: Moment) -> Result<(), Refused> {
        let now = self.clock.now();
        let mut windows = self.windows();
        let last = windows
            .iter_mut()
            .map(|window| (window.next_free(now, ahead), window.rule()))
            .max_by_key(|(at, _)| *at);
        match last {
            Some((at, window)) if at > deadline => Err(Refused::Spent { retry_after: at.since(now), window }),
            _ => Ok(()),
        }
    }

    /// Whether the account rests, without taking the place of the next probe.
    fn may_be_asked(&self, now: Moment) -> Result<(), Refused> {
        let mut rest = *self.rest();
        rest.admit(now).map_err(|retry_after| Refused::Resting { retry_after })
    }

    /// A grant if every window has a slot; nothing for those who wait once the account has come to rest.
    fn try_spend(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Option<Grant>, Refused> {
        let now = self.clock.now();
        let mut windows = self.windows();
        if windows.iter_mut().any(|window| window.remaining(now) == 0) {
            self.may_be_asked(now)?;
            return Ok(None);
        }
        // Last, because whoever passes here while the account rests is its one probe.
        self.rest().admit(now).map_err(|retry_after| Refused::Resting { retry_after })?;
        windows.iter_mut().for_each(Window::begin);
        self.report(&mut windows);
        self.meters.permits.inc();
        Ok(Some(Grant { account: self.clone(), state: GrantState::Unsent, _permit: permit }))
    }

    /// How many wait beside the one who asks.
    fn others(&self) -> usize {
        self.waiting.load(Ordering::Acquire).saturating_sub(1)
    }

    fn join_line(&self, max_waiting: usize) -> Result<InLine<'_>, Refused> {
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        self.meters.waiting.inc();
        let line = InLine { account: self, ahead };
        if ahead >= max_waiting.max(1) { Err(Refused::Full) } else { Ok(line) }
    }

    fn end(&self, how: impl Fn(&mut Window)) {
        let mut windows = self.windows();
        windows.iter_mut().for_each(how);
        self.report(&mut windows);
    }

    fn report(&self, windows: &mut [Window]) {
        let now = self.clock.now();
        for (window, gauge) in windows.iter_mut().zip(&self.meters.remaining) {
            gauge.set(window.remaining(now).into());
        }
    }

    // A panic elsewhere must not stop the account: the counts are consistent after every statement.
    fn windows(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line, given up when dropped: a client that leaves leaves it at once.
struct InLine<'a> {
    account: &'a Account,
    ahead: usize,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.account.waiting.fetch_sub(1, Ordering::AcqRel);
        self.account.meters.waiting.dec();
    }
}

impl Grant {
    /// The account that gave it.
    pub fn shared_account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// The call goes out now: from here on it is spent.
    pub fn sent(&mut self) {
        self.state = GrantState::Sent;
    }

    /// The call did not go out after all: no connection could be made.
    pub fn unsent(&mut self) {
        self.state = GrantState::Unsent;
    }

    /// The first byte of the answer is here: the slot is free again one period from now.
    pub fn answered(&mut self) {
        if self.state == GrantState::Sent {
            self.state = GrantState::Ended;
            let now = self.account.clock.now();
            self.account.end(|window| window.end(now));
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        match self.state {
            GrantState::Sent => self.answered(),
            GrantState::Unsent => {
                self.account.end(Window::give_back);
                self.account.freed.notify_one();
            }
            GrantState::Ended => {}
        }
        self.account.meters.permits.dec();
    }
}
