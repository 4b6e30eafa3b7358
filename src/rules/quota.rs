//! What a quota is made of: windows, as configuration writes them, and what is said of them.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::calendar::{Resets, Unit};
use super::window::Counted;
use crate::model::moment::Moment;

/// Sliding windows from this length on are kept on disk where there is a place for it.
pub const LONG: Duration = Duration::from_secs(3600);
/// A lease is at most one part in so many of a window.
const LEASES: u32 = 1000;

/// `{ requests, per, resets, reserve, count_until, shadow }`
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaRule {
    /// How many calls.
    pub requests: u32,
    /// In how long.
    pub per: Per,
    /// Until when a call holds its slot.
    pub counted: Counted,
    /// How many percent of it are kept for interactive calls.
    pub reserve: u32,
    /// Whether it only counts what it would refuse.
    pub shadow: bool,
}

/// `per`
#[derive(Debug, Clone, PartialEq)]
pub enum Per {
    /// Any interval of this length.
    Sliding(Duration),
    /// From reset to reset.
    Calendar(Resets),
}

/// What time it is: on the monotonic clock, and by the date as `calendar::Steady` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub at: Moment,
    /// For resets.
    pub date: SystemTime,
}

/// What the upstream said of one of its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// How many calls it admits in all.
    pub limit: Option<u64>,
    /// How many it still admits.
    pub remaining: u64,
    /// How long until it admits more.
    pub reset: Option<Duration>,
    /// How long it is.
    pub window: Option<Duration>,
}

/// One window as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name: `1s`, `day`.
    pub name: String,
    /// How many calls it admits in all.
    pub requests: u32,
    /// How many seconds long it is, about.
    pub seconds: u64,
    /// How many it still admits.
    pub remaining: u32,
    /// How long until it admits more, where it does not admit all.
    pub reset: Option<Duration>,
}

impl QuotaRule {
    /// `requests` in any interval of length `per`.
    pub const fn sliding(requests: u32, per: Duration) -> Self {
        Self { requests, per: Per::Sliding(per), counted: Counted::Answer, reserve: 0, shadow: false }
    }

    /// What one of so many gates on the account may spend of it.
    pub fn share(&self, instances: u32) -> u32 {
        self.requests / instances.max(1)
    }

    /// About how long it is, in seconds: for `w` of `RateLimit-Policy`.
    pub fn seconds(&self) -> u64 {
        match &self.per {
            Per::Sliding(per) => per.as_secs().max(1),
            Per::Calendar(Resets { unit: Unit::Day, .. }) => 86_400,
            Per::Calendar(Resets { unit: Unit::Month, .. }) => 31 * 86_400,
        }
    }

    /// Whether what was spent of it must outlive the process.
    pub fn is_long(&self) -> bool {
        !self.shadow && !matches!(self.per, Per::Sliding(per) if per < LONG)
    }

    /// How much of it is written down at once.
    pub fn lease(&self, instances: u32) -> u32 {
        (self.share(instances) / LEASES).max(1)
    }
}

impl fmt::Display for Per {
    /// As in configuration: `1s`, `day`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding(per) => write!(f, "{per:?}"),
            Self::Calendar(resets) => f.write_str(if resets.unit == Unit::Day { "day" } else { "month" }),
        }
    }
}
