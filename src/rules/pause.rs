//! When an account that the upstream sent away may be asked again, as a state machine without a clock.
//!
//! The upstream's own figure is believed, up to a limit. Without a figure nothing is known, and probes ask again with
//! growing gaps. Either way one probe at a time goes first, and only its answer opens the account for everybody: calls
//! that were under way when it closed say nothing new.

use std::time::Duration;

use crate::model::moment::Moment;

/// The gap before the first probe where the upstream gave no figure.
pub const FIRST_GAP: Duration = Duration::from_secs(1);
/// The longest gap between probes.
pub const LONGEST_GAP: Duration = Duration::from_secs(60);

/// An account's standing with its upstream's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// Calls pass.
    #[default]
    Open,
    /// Nothing passes until `until`, then one probe.
    Closed {
        /// When.
        until: Moment,
        /// How far apart probes without a figure are by now.
        gap: Duration,
        /// Whether an operator closed it: only an operator, or the time, opens it.
        by_hand: bool,
    },
    /// A probe is under way; nothing else passes.
    Probing {
        /// How far apart probes without a figure are by now.
        gap: Duration,
    },
}

/// What [`Pause::admit`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Calls pass.
    Open,
    /// One call may pass, as a probe: [`Pause::probe`].
    OneProbe,
    /// None before this moment.
    Until(Moment),
    /// None before the probe under way has been answered.
    Probing,
}

impl Pause {
    /// Whether a call may pass at `now`.
    pub fn admit(&self, now: Moment) -> Gate {
        match *self {
            Self::Open => Gate::Open,
            Self::Closed { until, .. } if until > now => Gate::Until(until),
            // What a hand closed for a time is simply over with it.
            Self::Closed { by_hand: true, .. } => Gate::Open,
            Self::Closed { .. } => Gate::OneProbe,
            Self::Probing { .. } => Gate::Probing,
        }
    }

    /// Whether it is open for everybody at `now`.
    pub fn is_open(&self, now: Moment) -> bool {
        self.admit(now) == Gate::Open
    }

    /// A call passes as the probe.
    pub fn probe(&mut self) {
        if let Self::Closed { gap, .. } = *self {
            *self = Self::Probing { gap };
        }
    }

    /// The upstream sent a call away at `now`, for `figure` if it said so, which counts up to `longest`. `probe`: it was
    /// the probe.
    pub fn sent_away(&mut self, now: Moment, figure: Option<Duration>, longest: Duration, probe: bool) {
        let figure = figure.filter(|figure| !figure.is_zero()).map(|figure| now + figure.min(longest));
        let first = FIRST_GAP.min(longest);
        *self = match (*self, figure) {
            (Self::Closed { by_hand: true, .. }, _) => return,
            (Self::Open, until) => {
                Self::Closed { until: until.unwrap_or(now + first), gap: first, by_hand: false }
            }
            (Self::Closed { until: held, gap, .. }, Some(until)) => {
                Self::Closed { until: until.max(held), gap, by_hand: false }
            }
            (Self::Probing { gap }, until) if probe => {
                let gap = (gap * 2).min(LONGEST_GAP).min(longest);
                Self::Closed { until: until.unwrap_or(now + gap), gap, by_hand: false }
            }
            // Calls that were under way say nothing new.
            (Self::Closed { .. }, None) | (Self::Probing { .. }, _) => return,
        };
    }

    /// The probe was answered like any call.
    pub fn answered(&mut self) {
        if matches!(self, Self::Probing { .. }) {
            *self = Self::Open;
        }
    }

    /// The probe ended at `now` without an answer that says anything.
    pub fn lost(&mut self, now: Moment) {
        if let Self::Probing { gap } = *self {
            *self = Self::Closed { until: now + gap, gap, by_hand: false };
        }
    }

    /// An operator closes it.
    pub fn close(&mut self, until: Moment) {
        *self = Self::Closed { until, gap: FIRST_GAP, by_hand: true };
    }

    /// An operator opens it.
    pub fn open(&mut self) {
        *self = Self::Open;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn a_figure_is_believed_up_to_the_limit_and_one_probe_reopens() {
        for (figure, until) in [(30, 30), (7200, 300)] {
            let mut pause = Pause::default();
            pause.sent_away(at(0), Some(Duration::from_secs(figure)), LONGEST, false);
            assert_eq!(pause.admit(at(until - 1)), Gate::Until(at(until)));
            assert_eq!(pause.admit(at(until)), Gate::OneProbe);
            pause.probe();
            assert_eq!(pause.admit(at(until)), Gate::Probing);
            pause.answered();
            assert_eq!(pause, Pause::Open);
        }
    }

    #[test]
    fn without_a_figure_the_gaps_between_probes_grow() {
        let mut pause = Pause::default();
        let (mut now, mut gaps) = (0, Vec::new());
        for figure in [None, Some(Duration::ZERO)].into_iter().cycle().take(9) {
            pause.sent_away(at(now), figure, LONGEST, true);
            let Gate::Until(until) = pause.admit(at(now)) else { panic!("{pause:?}") };
            gaps.push(until.since(at(now)).as_secs());
            now += until.since(at(now)).as_secs();
            assert_eq!(pause.admit(at(now)), Gate::OneProbe);
            pause.probe();
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        pause.lost(at(now));
        assert_eq!(pause.admit(at(now)), Gate::Until(at(now + 60)));
    }

    #[test]
    fn calls_that_were_under_way_say_nothing_new() {
        let mut pause = Pause::default();
        pause.sent_away(at(0), Some(Duration::from_secs(10)), LONGEST, false);
        pause.answered();
        pause.sent_away(at(1), None, LONGEST, false);
        assert_eq!(pause.admit(at(1)), Gate::Until(at(10)));
        pause.sent_away(at(2), Some(Duration::from_secs(20)), LONGEST, false);
        assert_eq!(pause.admit(at(2)), Gate::Until(at(22)), "a later figure counts");
    }

    #[test]
    fn what_a_hand_closed_the_upstream_does_not_open() {
        let mut pause = Pause::default();
        pause.close(at(100));
        pause.sent_away(at(1), Some(Duration::from_secs(5)), LONGEST, false);
        assert_eq!((pause.admit(at(50)), pause.admit(at(100))), (Gate::Until(at(100)), Gate::Open));
        pause.close(at(200));
        pause.open();
        assert!(pause.is_open(at(101)));
    }

    proptest! {
        /// Never two probes at once, whatever happens.
        #[test]
        fn one_probe_at_a_time(steps in prop::collection::vec((0u8..5, 0u64..40, 0u64..50), 0..200)) {
            let (mut pause, mut now, mut probing) = (Pause::default(), 0, false);
            for (what, passed, figure) in steps {
                now += passed;
                match what {
                    0 | 1 => match pause.admit(at(now)) {
                        Gate::OneProbe => {
                            prop_assert!(!probing);
                            pause.probe();
                            probing = true;
                        }
                        Gate::Open | Gate::Probing => prop_assert!(probing || pause.is_open(at(now))),
                        Gate::Until(until) => prop_assert!(until > at(now)),
                    },
                    2 => {
                        let figure = (figure % 3 > 0).then(|| Duration::from_secs(figure));
                        pause.sent_away(at(now), figure, LONGEST, probing);
                        probing = false;
                    }
                    3 if probing => {
                        pause.answered();
                        probing = false;
                    }
                    _ if probing => {
                        pause.lost(at(now));
                        probing = false;
                    }
                    _ => {}
                }
            }
        }
    }
}
