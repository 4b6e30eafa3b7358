//! When an account whose credentials the upstream refused may be tried again, as a state machine without a clock.
//!
//! One refusal may be an accident of the upstream's; two in a row are about the credentials, and every further call
//! with them is waste, or worse, a lock-out. Then the account rests, and one probe at a time asks again, 1 s to 60 s
//! apart.

use std::time::Duration;

use crate::model::moment::Moment;

/// The gap before the first probe.
pub const FIRST_GAP: Duration = Duration::from_secs(1);
/// The longest gap between probes.
pub const LONGEST_GAP: Duration = Duration::from_secs(60);

/// An account's standing with its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rest {
    /// Calls pass.
    #[default]
    Working,
    /// The last call was refused; the next decides.
    Doubted,
    /// Refused twice in a row: nothing passes until `until`, then one probe.
    Resting {
        /// When the next probe may pass.
        until: Moment,
        /// How far apart probes are by now.
        gap: Duration,
    },
}

impl Rest {
    /// Whether a call may pass at `now`; else how long the account still rests. A probe that passes postpones the
    /// next one, so that there is one at a time even if it is never answered.
    pub fn admit(&mut self, now: Moment) -> Result<(), Duration> {
        match self {
            Self::Resting { until, .. } if *until > now => Err(until.since(now)),
            Self::Resting { until, gap } => {
                *gap = (*gap * 2).min(LONGEST_GAP);
                *until = now + *gap;
                Ok(())
            }
            Self::Working | Self::Doubted => Ok(()),
        }
    }

    /// The upstream refused the credentials at `now`.
    pub fn refused(&mut self, now: Moment) {
        match self {
            Self::Working => *self = Self::Doubted,
            Self::Doubted => *self = Self::Resting { until: now + FIRST_GAP, gap: FIRST_GAP },
            // Calls that were already under way say nothing new, and a refused probe has moved `until` itself.
            Self::Resting { .. } => {}
        }
    }

    /// The upstream accepted the credentials.
    pub fn accepted(&mut self) {
        *self = Self::Working;
    }

    /// The credentials were read again and are others: what was refused says nothing of them.
    pub fn renewed(&mut self) {
        *self = Self::Working;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_refusals_rest_the_account_and_probes_go_one_at_a_time() {
        let at = |seconds| Moment::ORIGIN + Duration::from_secs(seconds);
        let mut rest = Rest::default();
        rest.refused(at(0));
        assert_eq!(rest.admit(at(0)), Ok(()));
        rest.refused(at(0));
        assert_eq!(rest.admit(at(0)), Err(Duration::from_secs(1)));
        // The probe passes, its neighbour does not, and the gaps grow to a minute.
        let mut now = 1;
        for gap in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(rest.admit(at(now)), Ok(()));
            assert_eq!(rest.admit(at(now)), Err(Duration::from_secs(gap)));
            rest.refused(at(now));
            now += gap;
        }
        rest.accepted();
        assert_eq!(rest, Rest::Working);
    }

    #[test]
    fn an_accepted_call_between_two_refusals_clears_the_doubt() {
        let mut rest = Rest::default();
        rest.refused(Moment::ORIGIN);
        rest.accepted();
        rest.refused(Moment::ORIGIN);
        assert_eq!(rest, Rest::Doubted);
    }
}
