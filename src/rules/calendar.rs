//! A window that begins anew with the calendar: `per = "day"` or `"month"`, `resets = "00:00 Europe/Paris"`.
//!
//! Nobody's clock agrees with the upstream's to the second, so near a reset a call may be counted on either side of it.
//! A period therefore ends [`MARGIN`] late, and what was under way or answered within [`MARGIN`] of the reset counts in
//! both. The date comes from [`Steady`]: a clock that jumps begins no period.

use std::time::{Duration, SystemTime};

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::model::moment::Moment;

/// How far the upstream's clock may be from ours around a reset.
pub const MARGIN: Duration = Duration::from_secs(2);

/// How long a period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// From one reset to the next day's.
    Day,
    /// From the first day of a month to the first of the next.
    Month,
}

/// When a period ends and the next begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Resets {
    /// How long it is.
    pub unit: Unit,
    /// The time of day.
    pub at: Time,
    /// Whose.
    pub zone: TimeZone,
}

impl Resets {
    /// The first reset after `date`. A time of day that a zone skips or repeats is read as it reads best (RFC 5545).
    pub fn next(&self, date: SystemTime) -> SystemTime {
        self.search(date).unwrap_or(date + Duration::from_secs(86_400))
    }

    /// The last reset at or before `date`.
    pub fn last(&self, date: SystemTime) -> SystemTime {
        let before = match self.unit {
            Unit::Day => Duration::from_secs(50 * 3600),
            Unit::Month => Duration::from_secs(63 * 86_400),
        };
        let mut last = date.checked_sub(before).map_or(date, |before| self.next(before));
        loop {
            let next = self.next(last);
            if next > date || next <= last {
                return last;
            }
            last = next;
        }
    }

    fn search(&self, date: SystemTime) -> Option<SystemTime> {
        let now = Zoned::new(Timestamp::try_from(date).ok()?, self.zone.clone());
        let today = now.date();
        let first = match self.unit {
            Unit::Day => today,
            Unit::Month => today.first_of_month(),
        };
        // One period back as well, for a zone that moves its clocks around midnight.
        (-1..=2_i64).find_map(|step| {
            let span = if self.unit == Unit::Day { step.days() } else { step.months() };
            let reset =
                first.checked_add(span).ok()?.to_datetime(self.at).to_zoned(self.zone.clone()).ok()?;
            let reset = SystemTime::from(reset.timestamp());
            (reset > date).then_some(reset)
        })
    }
}

/// A window's state.
#[derive(Debug)]
pub struct Period {
    requests: u32,
    resets: Resets,
    /// In this period, calls under way included.
    spent: u32,
    under_way: u32,
    /// Answered so near the period's end that the next may be charged for it.
    carried: u32,
    ends: SystemTime,
}

impl Period {
    /// The period that holds `date`, nothing spent.
    pub fn new(requests: u32, resets: Resets, date: SystemTime) -> Self {
        let ends = resets.next(date);
        Self { requests, resets, spent: 0, under_way: 0, carried: 0, ends }
    }

    /// The same period, of which so many may be spent.
    pub fn heir(&self, requests: u32) -> Self {
        Self { requests, resets: self.resets.clone(), ..*self }
    }

    /// How many calls it admits at `date`.
    pub fn remaining(&mut self, date: SystemTime) -> u32 {
        if date >= self.ends + MARGIN {
            self.spent = self.carried + self.under_way;
            self.carried = 0;
            self.ends = self.resets.next(date);
        }
        self.requests.saturating_sub(self.spent)
    }

    /// A call is sent.
    pub fn begin(&mut self) {
        self.spent = self.spent.saturating_add(1);
        self.under_way += 1;
    }

    /// It was answered, or given up, at `date`.
    pub fn end(&mut self, date: SystemTime) {
        let _ = self.remaining(date);
        self.under_way = self.under_way.saturating_sub(1);
        if date + MARGIN >= self.ends {
            self.carried += 1;
        }
    }

    /// It was never sent.
    pub fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.spent = self.spent.saturating_sub(1);
    }

    /// So many calls that others made count too.
    pub fn add(&mut self, calls: u32) {
        self.spent = self.spent.saturating_add(calls);
    }

    /// From now on so many count as spent in this period, those under way at least.
    pub fn set_spent(&mut self, calls: u32) {
        self.spent = calls.max(self.under_way);
        self.carried = self.carried.min(self.spent);
    }

    /// How long until whoever stands behind `ahead` others is admitted; nothing if that is now.
    pub fn wait(&mut self, date: SystemTime, ahead: usize) -> Duration {
        let remaining = self.remaining(date) as usize;
        if ahead < remaining {
            return Duration::ZERO;
        }
        let periods = (ahead - remaining) / (self.requests.max(1) as usize);
        // Nobody waits for years: more periods than these are told as these.
        let reset = (0..periods.min(12)).fold(self.ends, |ends, _| self.resets.next(ends));
        (reset + MARGIN).duration_since(date).unwrap_or_default()
    }

    /// How long until it ends.
    pub fn left(&self, date: SystemTime) -> Duration {
        (self.ends + MARGIN).duration_since(date).unwrap_or_default()
    }

    /// When it began.
    pub fn began(&self, date: SystemTime) -> SystemTime {
        self.resets.last(date)
    }
}

/// The date as it goes on by the monotonic clock: it follows the wall clock, but never faster than a thousandth of the
/// time that has passed, so that a jump mints nothing and a clock that drifts is followed all the same.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    at: Moment,
    date: SystemTime,
}

impl Steady {
    /// Begins at the wall clock's date.
    pub fn new(at: Moment, wall: SystemTime) -> Self {
        Self { at, date: wall }
    }

    /// The date at `at`, when the wall clock says `wall`. Never earlier than it was.
    pub fn date(&mut self, at: Moment, wall: SystemTime) -> SystemTime {
        let passed = at.since(self.at);
        let date = self.date + passed;
        let most = passed / 1000;
        let date = match wall.duration_since(date) {
            Ok(behind) => date + behind.min(most),
            Err(ahead) => date - ahead.duration().min(most),
        };
        // A step too small to be followed is added up, not lost.
        if most > Duration::ZERO {
            *self = Self { at, date };
        }
        date
    }

    /// How far the wall clock is from this date.
    pub fn apart(&self, wall: SystemTime) -> Duration {
        wall.duration_since(self.date).unwrap_or_else(|ahead| ahead.duration())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resets(unit: Unit, at: &str, zone: &str) -> Resets {
        let at = at.parse().expect("is a time");
        Resets { unit, at, zone: TimeZone::get(zone).expect("is a zone") }
    }

    fn date(text: &str) -> SystemTime {
        text.parse::<Timestamp>().expect("is a date").into()
    }

    #[test]
    fn the_next_reset_is_where_the_zone_has_it() {
        for (unit, at, zone, now, next, last) in [
            (
                Unit::Day,
                "00:00",
                "UTC",
                "2026-03-01T12:00:00Z",
                "2026-03-02T00:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                Unit::Day,
                "00:00",
                "UTC",
                "2026-03-01T00:00:00Z",
                "2026-03-02T00:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                Unit::Day,
                "09:30",
                "UTC",
                "2026-03-01T09:29:59Z",
                "2026-03-01T09:30:00Z",
                "2026-02-28T09:30:00Z",
            ),
            (
                Unit::Day,
                "00:00",
                "Europe/Paris",
                "2026-03-28T23:30:00Z",
                "2026-03-29T22:00:00Z",
                "2026-03-28T23:00:00Z",
            ),
            (
                Unit::Day,
                "02:30",
                "Europe/Paris",
                "2026-03-29T00:00:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-28T01:30:00Z",
            ),
            (
                Unit::Day,
                "00:00",
                "Asia/Kolkata",
                "2026-03-01T19:00:00Z",
                "2026-03-02T18:30:00Z",
                "2026-03-01T18:30:00Z",
            ),
            (
                Unit::Month,
                "00:00",
                "Europe/Paris",
                "2026-02-10T00:00:00Z",
                "2026-02-28T23:00:00Z",
                "2026-01-31T23:00:00Z",
            ),
            (
                Unit::Month,
                "00:00",
                "UTC",
                "2026-12-31T23:59:59Z",
                "2027-01-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                Unit::Month,
                "12:00",
                "UTC",
                "2026-05-01T11:00:00Z",
                "2026-05-01T12:00:00Z",
                "2026-04-01T12:00:00Z",
            ),
        ] {
            let resets = resets(unit, at, zone);
            assert_eq!(
                (resets.next(date(now)), resets.last(date(now))),
                (date(next), date(last)),
                "{now} {zone}"
            );
        }
    }

    #[test]
    fn what_happens_near_a_reset_counts_on_both_sides() {
        let mut day = Period::new(10, resets(Unit::Day, "00:00", "UTC"), date("2026-03-01T23:00:00Z"));
        for ends in ["2026-03-01T23:30:00Z", "2026-03-01T23:59:59Z"] {
            day.begin();
            day.end(date(ends));
        }
        day.begin();
        assert_eq!(day.remaining(date("2026-03-02T00:00:01Z")), 7, "the old day goes on for a margin");
        assert_eq!(
            day.remaining(date("2026-03-02T00:00:02Z")),
            8,
            "one under way, one that ended near the reset"
        );
        day.end(date("2026-03-02T00:10:00Z"));
        assert_eq!(day.remaining(date("2026-03-02T01:00:00Z")), 8);
        assert_eq!(day.remaining(date("2026-03-03T01:00:00Z")), 10);
    }

    #[test]
    fn whoever_waits_is_told_the_reset() {
        let now = date("2026-03-01T23:00:00Z");
        let mut day = Period::new(2, resets(Unit::Day, "00:00", "UTC"), now);
        assert_eq!((day.wait(now, 1), day.wait(now, 2)), (Duration::ZERO, Duration::from_secs(3602)));
        assert_eq!(
            (day.wait(now, 3), day.wait(now, 4)),
            (Duration::from_secs(3602), Duration::from_secs(90_002))
        );
    }

    proptest! {
        /// Whatever the wall clock does, the date goes on, and no faster than a thousandth more than time does.
        #[test]
        fn jumps_mint_nothing(steps in prop::collection::vec((1u64..5_000, -200_000i64..200_000), 1..100)) {
            let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let (mut steady, mut at, mut before) = (Steady::new(Moment::ORIGIN, begin), Moment::ORIGIN, begin);
            for (passed, jump) in steps {
                at = at + Duration::from_millis(passed);
                let wall = begin + at.since(Moment::ORIGIN);
                let wall = if jump < 0 {
                    wall - Duration::from_secs(jump.unsigned_abs())
                } else {
                    wall + Duration::from_secs(jump.unsigned_abs())
                };
                let now = steady.date(at, wall);
                let (least, most) = (Duration::from_millis(passed) * 999 / 1000, Duration::from_millis(passed) * 1001 / 1000);
                let went = now.duration_since(before);
                prop_assert!(went.clone().is_ok_and(|went| (least..=most).contains(&went)), "{went:?} in {passed} ms");
                before = now;
            }
        }
    }
}
