//! The gate's clock: the only place that reads one. Durations come from a monotonic clock, dates from the wall.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::model::moment::Moment;

/// Tells the time. Under tokio's paused time (tests) it stands still with the timers.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// Set where the date follows the timers instead of the wall.
    dated: Option<SystemTime>,
}

impl Clock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn system() -> Self {
        // A moment of zero means "never yet" in atomics; the clock begins a second later than that.
        Self {
            origin: Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now),
            dated: None,
        }
    }

    /// A clock whose date begins at `date` and moves with tokio's timers: for tests on paused time.
    pub fn dated(date: SystemTime) -> Self {
        Self { dated: Some(date), ..Self::system() }
    }

    /// Now, for durations.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn now(&self) -> Moment {
        let elapsed = Instant::now().saturating_duration_since(self.origin);
        Moment::ORIGIN + elapsed
    }

    /// Now, for HTTP's dates.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn wall(&self) -> SystemTime {
        match self.dated {
            None => SystemTime::now(),
            Some(date) => date + self.now().since(Moment::ORIGIN),
        }
    }
}
