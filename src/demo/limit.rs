//! A limit over every sliding interval, counted exactly.
//!
//! Many real limiters are kinder: fixed windows let twice as much through at their border, token buckets add their
//! burst. A gate that never offends this one offends none of those.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At most `requests` calls in any interval of length `per`, its start not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many calls.
    pub requests: usize,
    /// In how long.
    pub per: Duration,
}

/// What a limit says about one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There was room.
    Within,
    /// The call is a violation: the interval that ends with it was full already.
    Beyond {
        /// How long until there is room, if no call is counted meanwhile.
        wait: Duration,
    },
}

/// What becomes of a call beyond the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is refused, and takes no room from later ones.
    #[default]
    Refuse,
    /// It is served and counted like any other: only the number of violations tells.
    CountOnly,
}

/// The calls that count at this moment.
#[derive(Debug, Default)]
pub struct Window {
    counted: VecDeque<Instant>,
}

impl Window {
    /// Counts a call that arrives `now`. Calls are told in the order of their arrival.
    ///
    /// A limit made longer at run time sees only the calls that the shorter one still remembered.
    pub fn count(&mut self, limit: Limit, enforcement: Enforcement, now: Instant) -> Place {
        while self.counted.front().is_some_and(|&first| now.duration_since(first) >= limit.per) {
            self.counted.pop_front();
        }
        let place = match self.counted.len().checked_sub(limit.requests) {
            None => Place::Within,
            Some(surplus) => {
                // The call that has to age out before another one fits.
                let blocking = self.counted.get(surplus).copied().unwrap_or(now);
                Place::Beyond { wait: limit.per.saturating_sub(now.duration_since(blocking)) }
            }
        };
        if place == Place::Within || enforcement == Enforcement::CountOnly {
            self.counted.push_back(now);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any instant will do as the zero of these tests.
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other source, and only differences are used"
    )]
    fn zero() -> Instant {
        Instant::now()
    }

    /// Arrival times in milliseconds, in order, from the gaps between them.
    fn times(gaps: &[u64]) -> Vec<u64> {
        gaps.iter()
            .scan(0, |now, gap| {
                *now += gap;
                Some(*now)
            })
            .collect()
    }

    fn places(limit: Limit, enforcement: Enforcement, times: &[u64]) -> Vec<Place> {
        let (start, mut window) = (zero(), Window::default());
        times
            .iter()
            .map(|&time| window.count(limit, enforcement, start + Duration::from_millis(time)))
            .collect()
    }

    #[test]
    fn a_slot_is_free_again_when_its_call_is_one_period_old() {
        let limit = Limit { requests: 2, per: Duration::from_millis(100) };
        let beyond = |wait| Place::Beyond { wait: Duration::from_millis(wait) };
        assert_eq!(
            places(limit, Enforcement::Refuse, &[0, 60, 99, 100, 101, 160]),
            [Place::Within, Place::Within, beyond(1), Place::Within, beyond(59), Place::Within]
        );
    }

    #[test]
    fn a_limit_of_nothing_admits_nothing() {
        let limit = Limit { requests: 0, per: Duration::from_secs(1) };
        assert_eq!(places(limit, Enforcement::Refuse, &[0]), [Place::Beyond { wait: limit.per }]);
    }

    proptest! {
        #[test]
        fn violations_are_exact(
            gaps in prop::collection::vec(0_u64..60, 0..80),
            requests in 0_usize..6,
            per in 1_u64..200,
        ) {
            let times = times(&gaps);
            let limit = Limit { requests, per: Duration::from_millis(per) };
            for (nth, place) in places(limit, Enforcement::CountOnly, &times).into_iter().enumerate() {
                let in_interval = times[..=nth].iter().filter(|&&time| time + per > times[nth]).count();
                prop_assert_eq!(place != Place::Within, in_interval > requests);
            }
        }

        #[test]
        fn no_interval_holds_more_than_the_limit(
            gaps in prop::collection::vec(0_u64..60, 0..80),
            requests in 0_usize..6,
            per in 1_u64..200,
        ) {
            let times = times(&gaps);
            let limit = Limit { requests, per: Duration::from_millis(per) };
            let mut served: Vec<u64> = Vec::new();
            for (&time, place) in times.iter().zip(places(limit, Enforcement::Refuse, &times)) {
                let before = served.iter().filter(|&&earlier| earlier + per > time).count();
                match place {
                    Place::Within => {
                        prop_assert!(before < requests);
                        served.push(time);
                    }
                    Place::Beyond { wait } => {
                        // Refused only when full, and the wait it names is long enough and no longer.
                        prop_assert!(before >= requests);
                        if requests > 0 {
                            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                            let then = |at: u64| served.iter().filter(|&&earlier| earlier + per > at).count();
                            prop_assert!(then(time + wait) < requests);
                            prop_assert!(wait > 0 && then(time + wait - 1) >= requests);
                        }
                    }
                }
            }
        }
    }
}
