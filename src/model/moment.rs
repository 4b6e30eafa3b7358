//! A moment on the gate's own monotonic clock: what freshness, deadlines and windows are computed with.
//!
//! It says nothing about the date; wall time ([`std::time::SystemTime`]) appears only where HTTP's dates need it.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since the gate's clock began. Ordered, copied freely, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The clock's own beginning.
    pub const ORIGIN: Self = Self(0);

    /// The moment `nanos` nanoseconds after the clock began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock began.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` before this one, or the clock's beginning.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a lifetime of centuries is "for ever", not an overflow.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let start = Moment::from_nanos(5);
        assert_eq!(Moment::ORIGIN.since(start), Duration::ZERO);
        assert_eq!((start + Duration::from_nanos(7)).since(start), Duration::from_nanos(7));
        assert_eq!((start + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(start.before(Duration::from_secs(1)), Moment::ORIGIN);
    }
}
