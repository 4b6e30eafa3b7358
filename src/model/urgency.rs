//! How urgently a call waits for a grant: in which class and until when. Whoever joins a call that waits raises it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::moment::Moment;

/// Whose calls go first, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it.
    Interactive,
    /// Whenever there is room.
    Batch,
    /// Nobody waits for it: something stale was given already.
    Refresh,
}

impl Class {
    /// Every class, best first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Batch, Self::Refresh];

    /// Its place in [`Class::ALL`].
    pub const fn place(self) -> usize {
        self as usize
    }

    /// The word in configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::Refresh => "refresh",
        }
    }
}

/// The best class and the latest deadline of those who wait for one call. Shared by all of them.
#[derive(Debug)]
pub struct Urgency {
    class: AtomicU8,
    deadline: AtomicU64,
    /// Who queues for the call: told when anything here changes.
    queued: AtomicWaker,
}

impl Urgency {
    /// A call of `class` that may wait until `deadline`.
    pub fn new(class: Class, deadline: Moment) -> Arc<Self> {
        Arc::new(Self {
            class: AtomicU8::new(class as u8),
            deadline: AtomicU64::new(deadline.as_nanos()),
            queued: AtomicWaker::new(),
        })
    }

    /// The best class of those who wait.
    pub fn class(&self) -> Class {
        let held = usize::from(self.class.load(Ordering::Acquire));
        Class::ALL.get(held).copied().unwrap_or(Class::Refresh)
    }

    /// The latest deadline of those who wait.
    pub fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// One more waits for the call.
    pub fn raise(&self, class: Class, deadline: Moment) {
        let better = self.class.fetch_min(class as u8, Ordering::AcqRel) > class as u8;
        let later = self.deadline.fetch_max(deadline.as_nanos(), Ordering::AcqRel) < deadline.as_nanos();
        if better || later {
            self.queued.wake();
        }
    }

    /// Has `waker` told of the next change; look again afterwards, so that none is missed.
    pub fn watch(&self, waker: &Waker) {
        self.queued.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_join_only_raise_it() {
        let at = Moment::from_nanos;
        let urgency = Urgency::new(Class::Batch, at(5));
        for (class, deadline, raised) in [
            (Class::Refresh, at(3), (Class::Batch, at(5))),
            (Class::Interactive, at(4), (Class::Interactive, at(5))),
            (Class::Batch, at(9), (Class::Interactive, at(9))),
        ] {
            urgency.raise(class, deadline);
            assert_eq!((urgency.class(), urgency.deadline()), raised);
        }
    }
}
