//! When an upstream that fails is left alone, as a state machine without a clock.
//!
//! ```text
//! passing ──enough failures in a row──▶ refusing ──its time is over──▶ probing
//!    ▲                                     ▲                             │
//!    └───────────── an answer ─────────────┼──────── fails again ────────┤
//!    └─────────────────────────────────────┴─────────────────────────────┘
//! ```
//!
//! A connection that cannot be made counts at once. A timeout, or a 502, 503 or 504, may be about one poisonous
//! question, or a short burst; those count once two questions met them, and nobody has been answered for a while.

use std::time::Duration;

use crate::model::moment::Moment;

/// How many failures in a row open the breaker, where nobody says otherwise.
pub const FAILURES: u32 = 5;
/// How long nobody must have been answered for timeouts and errors to count.
pub const WHILE: Duration = Duration::from_secs(1);
/// How long it refuses, at first.
pub const FIRST_GAP: Duration = Duration::from_secs(1);
/// How long it refuses at most.
pub const LONGEST_GAP: Duration = Duration::from_secs(30);

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The question with this hash was not answered in time, or with 502, 503 or 504.
    Question(u64),
}

/// Whether calls pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Calls pass.
    Passing(Run),
    /// None passes until `until`.
    Refusing {
        /// When the next probe passes.
        until: Moment,
        /// How long it refuses this time.
        gap: Duration,
    },
    /// One call is under way to find out. Should it never come back, another passes at `until`.
    Probing {
        /// When another probe passes.
        until: Moment,
        /// How long it refused before.
        gap: Duration,
    },
}

/// The failures since the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    connects: u32,
    questions: u32,
    only: Option<u64>,
    several: bool,
    since: Option<Moment>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Passing(Run::default())
    }
}

impl Run {
    fn add(&mut self, failure: Failure, now: Moment) {
        self.since.get_or_insert(now);
        match failure {
            Failure::Connect => self.connects += 1,
            Failure::Question(question) => {
                self.questions += 1;
                self.several |= self.only.is_some_and(|only| only != question);
                self.only = Some(question);
            }
        }
    }

    fn counts(&self, now: Moment) -> u32 {
        let lasting = self.since.is_some_and(|since| now.since(since) >= WHILE);
        self.connects + if self.several && lasting { self.questions } else { 0 }
    }
}

impl Breaker {
    /// Whether a call may pass at `now`.
    ///
    /// # Errors
    /// How long until the next probe.
    pub fn admit(&mut self, now: Moment) -> Result<(), Duration> {
        match *self {
            Self::Passing(_) => Ok(()),
            Self::Refusing { until, .. } | Self::Probing { until, .. } if until > now => {
                Err(until.since(now))
            }
            Self::Refusing { gap, .. } | Self::Probing { gap, .. } => {
                *self = Self::Probing { until: now + gap, gap };
                Ok(())
            }
        }
    }

    /// The upstream answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// A call failed at `now`; `most` in a row are too many, zero of them never.
    pub fn failed(&mut self, failure: Failure, most: u32, now: Moment) {
        match self {
            Self::Passing(run) => {
                run.add(failure, now);
                if most > 0 && run.counts(now) >= most {
                    *self = Self::Refusing { until: now + FIRST_GAP, gap: FIRST_GAP };
                }
            }
            Self::Probing { gap, .. } => {
                let gap = (*gap * 2).min(LONGEST_GAP);
                *self = Self::Refusing { until: now + gap, gap };
            }
            // Calls that were under way before it opened say nothing new.
            Self::Refusing { .. } => {}
        }
    }

    /// Whether it refuses calls: what the metric shows.
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Passing(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn an_upstream_that_cannot_be_reached_is_left_alone_then_probed_one_call_at_a_time() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(at(0)), Ok(()));
            breaker.failed(Failure::Connect, FAILURES, at(0));
        }
        assert_eq!(breaker.admit(at(0)), Err(FIRST_GAP));
        let mut now = 1;
        for gap in [2, 4, 8, 16, 30, 30] {
            assert_eq!(breaker.admit(at(now)), Ok(()), "one probe passes");
            assert!(breaker.admit(at(now)).is_err(), "its neighbour does not");
            breaker.failed(Failure::Connect, FAILURES, at(now));
            assert_eq!(breaker.admit(at(now)), Err(Duration::from_secs(gap)));
            now += gap;
        }
        assert_eq!(breaker.admit(at(now)), Ok(()));
        breaker.answered();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_poisonous_question_does_not_open_it_but_two_do() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(Failure::Question(1), FAILURES, at(0));
        }
        breaker.failed(Failure::Question(2), FAILURES, at(0));
        assert!(!breaker.is_open(), "a burst is no outage");
        breaker.failed(Failure::Question(1), FAILURES, at(1));
        assert!(breaker.is_open());
    }

    #[test]
    fn an_answer_between_failures_begins_a_new_run() {
        let mut breaker = Breaker::default();
        for question in 0..100 {
            breaker.failed(Failure::Question(question), FAILURES, at(0));
            breaker.failed(Failure::Connect, FAILURES, at(0));
            breaker.answered();
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let mut breaker = Breaker::Refusing { until: at(1), gap: FIRST_GAP };
        assert_eq!(breaker.admit(at(1)), Ok(()));
        assert_eq!(breaker.admit(at(1)), Err(FIRST_GAP));
        assert_eq!(breaker.admit(at(2)), Ok(()));
    }

    #[test]
    fn none_means_never() {
        let mut breaker = Breaker::default();
        for question in 0..100 {
            breaker.failed(Failure::Question(question), 0, at(0));
            breaker.failed(Failure::Connect, 0, at(0));
        }
        assert!(!breaker.is_open());
    }
}
