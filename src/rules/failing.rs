//! What counts as a failure that something stale may stand in for, and what it says to others.

use std::time::Duration;

use crate::model::cache_status::Stale;
use crate::model::exchange::Answer;
use crate::model::{Fault, FaultKind};

/// How long a failed refresh speaks for the next ones: a failing upstream is not asked on every request.
pub const FAILURE_SPEAKS_FOR: Duration = Duration::from_secs(1);

/// Why a fetch counts as failed where something stale could serve instead (RFC 5861 §4, design §7).
pub fn failure(fetched: &Result<Answer, Fault>) -> Option<Stale> {
    match fetched {
        Ok(answer) => match answer.status().as_u16() {
            500 | 502 | 503 | 504 => Some(Stale::UpstreamError),
            429 => Some(Stale::Paused),
            _ => None,
        },
        Err(fault) => match fault.kind {
            // "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly permitted"
            // (RFC 9111 §4.2.4): a connection that closed without a whole answer is disconnected too.
            FaultKind::UpstreamUnreachable
            | FaultKind::UpstreamTimeout
            | FaultKind::ClientTimeout
            | FaultKind::UpstreamBroken => Some(Stale::Unreachable),
            FaultKind::Internal => Some(Stale::UpstreamError),
            FaultKind::BreakerOpen => Some(Stale::Breaker),
            // A limit of the gate's own is told as a quota too: what matters is that nobody was asked.
            FaultKind::QuotaExceeded
            | FaultKind::BudgetSpent
            | FaultKind::QueueFull
            | FaultKind::LedgerUnwritable
            | FaultKind::Overloaded => Some(Stale::Quota),
            FaultKind::UpstreamRefusedCredentials | FaultKind::AccountPaused => Some(Stale::Paused),
            _ => None,
        },
    }
}

/// Whether a failure would have met anybody: a client whose patience or budget ended says nothing of the upstream.
pub fn speaks_for_others(fetched: &Result<Answer, Fault>) -> bool {
    !matches!(fetched, Err(fault) if matches!(fault.kind, FaultKind::ClientTimeout | FaultKind::BudgetSpent))
}

/// How long over its lifetime something may be that stands in for what failed for `reason`.
pub fn allowance(reason: Stale, if_error: Duration, if_unreachable: Duration) -> Duration {
    match reason {
        Stale::Unreachable | Stale::Breaker => if_unreachable,
        _ => if_error,
    }
}
