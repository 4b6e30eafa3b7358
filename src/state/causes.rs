//! How calls are counted: by how they end, and by why they were sent.

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::model::exchange::Call;
use crate::model::urgency::Class;

/// Counts the calls of one account at one upstream.
#[derive(Debug, Clone)]
pub struct CallMeters {
    outcomes: [(&'static str, IntCounter); OUTCOMES.len()],
    /// From a call's sending to its answer's head.
    pub duration: Histogram,
}

/// Why a call was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody wants what nobody knows.
    First,
    /// The same call was sent before, in vain.
    Retry,
    /// Something is held, and may still hold.
    Revalidation,
    /// Something stale was given, and is made fresh behind it.
    Refresh,
    /// It asks whether a closed account is open again.
    Probe,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::First, Self::Retry, Self::Revalidation, Self::Refresh, Self::Probe];

    /// The word in metrics and on the page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Revalidation => "revalidation",
            Self::Refresh => "refresh",
            Self::Probe => "probe",
        }
    }

    /// Why `call` is sent.
    pub fn of(call: &Call, is_probe: bool) -> Self {
        match call {
            _ if is_probe => Self::Probe,
            Call { again: true, .. } => Self::Retry,
            call if call.urgency.class() == Class::Refresh => Self::Refresh,
            Call { validates: Some(_), .. } => Self::Revalidation,
            _ => Self::First,
        }
    }
}

/// Counts the calls of one client on one route, by why.
#[derive(Debug, Clone)]
pub struct Causes([IntCounter; Reason::ALL.len()]);

impl Causes {
    /// The counter of calls that are sent for this reason.
    pub fn of(&self, reason: Reason) -> &IntCounter {
        &self.0[reason as usize]
    }

    /// The handles for these labels.
    pub fn new(calls: &IntCounterVec, client: &str, route: &str) -> Self {
        Self(Reason::ALL.map(|reason| calls.with_label_values(&[client, route, reason.as_str()])))
    }
}

const OUTCOMES: [&str; 9] =
    ["2xx", "3xx", "4xx", "429", "5xx", "unreachable", "broken", "timeout", "abandoned"];

impl CallMeters {
    /// The handles for these labels.
    pub fn new(requests: &IntCounterVec, duration: Histogram, upstream: &str, account: &str) -> Self {
        let outcomes =
            OUTCOMES.map(|outcome| (outcome, requests.with_label_values(&[upstream, account, outcome])));
        Self { outcomes, duration }
    }

    /// One call ended so.
    pub fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(held, _)| *held == outcome) {
            counter.inc();
        }
    }
}
