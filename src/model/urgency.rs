//! How urgently a call waits for a grant: whose class, until when, for how many. Whoever joins a call that is under way
//! raises it; whoever leaves it last makes it pointless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
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

/// The best class, the latest deadline and the number of those who wait for one call. Shared by all of them.
#[derive(Debug)]
pub struct Urgency {
    class: AtomicU8,
    deadline: AtomicU64,
    aboard: AtomicUsize,
    /// Everybody who was aboard has left.
    left: AtomicBool,
    /// Who queues for the call: told when anything here changes.
    queued: AtomicWaker,
}

impl Urgency {
    /// A call of `class` that may wait until `deadline`. Nobody is aboard yet.
    pub fn new(class: Class, deadline: Moment) -> Arc<Self> {
        Arc::new(Self {
            class: AtomicU8::new(class as u8),
            deadline: AtomicU64::new(deadline.as_nanos()),
            aboard: AtomicUsize::new(0),
            left: AtomicBool::new(false),
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

    /// One more waits for the call, until the returned value is dropped.
    pub fn board(self: &Arc<Self>, class: Class, deadline: Moment) -> Aboard {
        self.aboard.fetch_add(1, Ordering::AcqRel);
        self.left.store(false, Ordering::Release);
        let class = self.class.fetch_min(class as u8, Ordering::AcqRel) > class as u8;
        let deadline = self.deadline.fetch_max(deadline.as_nanos(), Ordering::AcqRel) < deadline.as_nanos();
        if class || deadline {
            self.queued.wake();
        }
        Aboard(self.clone())
    }

    /// How many are aboard.
    pub fn aboard(&self) -> usize {
        self.aboard.load(Ordering::Acquire)
    }

    /// Whether everybody who was aboard has left: nobody waits for the call any longer.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Has `waker` told of the next change; look again afterwards, so that none is missed.
    pub fn watch(&self, waker: &Waker) {
        self.queued.register(waker);
    }
}

/// One who waits for a call.
#[derive(Debug)]
pub struct Aboard(Arc<Urgency>);

impl Drop for Aboard {
    fn drop(&mut self) {
        if self.0.aboard.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.store(true, Ordering::Release);
            self.0.queued.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_join_only_raise_it() {
        let at = Moment::from_nanos;
        let urgency = Urgency::new(Class::Refresh, at(5));
        let first = urgency.board(Class::Batch, at(3));
        assert_eq!((urgency.class(), urgency.deadline(), urgency.aboard()), (Class::Batch, at(5), 1));
        let second = urgency.board(Class::Interactive, at(9));
        drop(first);
        let third = urgency.board(Class::Refresh, at(1));
        assert_eq!((urgency.class(), urgency.deadline(), urgency.aboard()), (Class::Interactive, at(9), 2));
        assert!(!urgency.is_left());
        drop((second, third));
        assert!(urgency.is_left() && urgency.aboard() == 0);
        let _fourth = urgency.board(Class::Batch, at(1));
        assert!(!urgency.is_left());
    }
}
