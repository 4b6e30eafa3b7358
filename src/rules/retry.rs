//! What may be sent again, and how often: retries help against an accident and feed an outage, so they are rationed.

use std::time::Duration;

use http::Method;

use crate::model::Fault;

/// One retry for so many calls.
pub const CALLS_PER_RETRY: u32 = 10;
/// The most retries that calls without one can save up.
pub const MOST_SAVED: u32 = 10;
/// The longest pause before a retry of a connection that could not be made.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Retries stay under a tenth of calls: each call earns a tenth of one, each retry spends a whole one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ration {
    tenths: u32,
}

impl Ration {
    /// A call was made.
    pub fn earn(&mut self) {
        self.tenths = (self.tenths + 1).min(MOST_SAVED * CALLS_PER_RETRY);
    }

    /// Spends one retry, if one was earned.
    pub fn spend(&mut self) -> bool {
        let earned = self.tenths.checked_sub(CALLS_PER_RETRY);
        self.tenths = earned.unwrap_or(self.tenths);
        earned.is_some()
    }
}

/// What to do about a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nothing: it failed.
    No,
    /// Send it again at once, whatever the ration says: what refused it has changed since.
    Renewed,
    /// Send it again at once.
    AtOnce,
    /// Send it again after a random part of this pause (full jitter: callers that failed together do not come back
    /// together).
    After(Duration),
}

/// Whether a call with `method` that ended with `fault` may be sent again.
///
/// "A user agent MUST NOT automatically retry a request with a non-idempotent method unless …" (RFC 9110 §9.2.2): here
/// only safe methods are. "… when an inbound connection is closed prematurely … if the request … method is idempotent"
/// (RFC 9112 §9.3.1): only on a connection that had served before, where closing it was likely to cross the request.
pub fn decide(method: &Method, fault: &Fault) -> Again {
    if !method.is_safe() || !fault.resendable || !fault.kind.row().retry {
        return Again::No;
    }
    match fault.kind {
        crate::model::FaultKind::UpstreamUnreachable => Again::After(LONGEST_PAUSE),
        crate::model::FaultKind::UpstreamRefusedCredentials => Again::Renewed,
        _ => Again::AtOnce,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FaultKind;

    proptest! {
        #[test]
        fn retries_stay_under_a_tenth_of_calls(wishes in prop::collection::vec(any::<bool>(), 0..500)) {
            let (mut ration, mut calls, mut retries) = (Ration::default(), 0u32, 0u32);
            for wish in wishes {
                ration.earn();
                calls += 1;
                if wish && ration.spend() {
                    retries += 1;
                }
                prop_assert!(retries * CALLS_PER_RETRY <= calls);
            }
        }
    }

    #[test]
    fn only_what_is_safe_and_was_not_answered_is_sent_again() {
        let resendable = |kind| Fault::new(kind).resendable();
        for (method, fault, again) in [
            (Method::GET, resendable(FaultKind::UpstreamUnreachable), Again::After(LONGEST_PAUSE)),
            (Method::GET, resendable(FaultKind::UpstreamBroken), Again::AtOnce),
            (Method::GET, resendable(FaultKind::UpstreamRefusedCredentials), Again::Renewed),
            (Method::GET, Fault::new(FaultKind::UpstreamBroken), Again::No),
            (Method::GET, resendable(FaultKind::UpstreamTimeout), Again::No),
            (Method::GET, resendable(FaultKind::QuotaExceeded), Again::No),
            (Method::POST, resendable(FaultKind::UpstreamUnreachable), Again::No),
        ] {
            assert_eq!(decide(&method, &fault), again, "{method} {fault:?}");
        }
    }
}
