//! What is written down of an account, a line each, and what the lines mean together.
//!
//! ```text
//! lease day 50 1764212345678 .      fifty calls of the day's window may be spent from now on
//! unspent day 12 1764212399999 .    of those, twelve were not
//! spent day 900 1764212400000 .     an operator knows better: so many are spent of this window in all
//! closed 1764213000000 .            an operator closed the account until then
//! opened .                          and opened it
//! ```
//!
//! A line is written before what it allows is done. One that has no full stop was never finished, so that nothing was
//! done by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much later than its lease's end a call may have been counted.
const LATE: Duration = Duration::from_secs(60);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// So many calls of a window may be spent.
    Lease(Spending),
    /// So many of the last lease were not.
    Unspent(Spending),
    /// So many are spent of a window in all.
    Spent(Spending),
    /// The account is closed until then.
    Closed(SystemTime),
    /// The account is open.
    Opened,
}

/// Calls of a window, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// The window, by its length: `day`, `7200s`.
    pub window: String,
    /// How many calls.
    pub calls: u32,
    /// When it was written.
    pub at: SystemTime,
}

/// What all lines mean together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    spendings: Vec<Held>,
    /// Until when an operator closed the account.
    pub closed: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    spending: Spending,
    /// When the last of it can have been counted; `None` while more may be.
    ended: Option<SystemTime>,
}

impl Record {
    /// The line, its end included.
    pub fn to_line(&self) -> String {
        let spending = |word: &str, Spending { window, calls, at }: &Spending| {
            format!("{word} {window} {calls} {} .\n", millis(*at))
        };
        match self {
            Self::Lease(lease) => spending("lease", lease),
            Self::Unspent(rest) => spending("unspent", rest),
            Self::Spent(all) => spending("spent", all),
            Self::Closed(until) => format!("closed {} .\n", millis(*until)),
            Self::Opened => "opened .\n".into(),
        }
    }

    /// Reads a line without its end.
    fn of_line(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let date = |text: &str| Some(UNIX_EPOCH + Duration::from_millis(text.parse().ok()?));
        match words[..] {
            ["closed", until, "."] => Some(Self::Closed(date(until)?)),
            ["opened", "."] => Some(Self::Opened),
            [word, window, calls, at, "."] => {
                let spending = Spending { window: window.into(), calls: calls.parse().ok()?, at: date(at)? };
                match word {
                    "lease" => Some(Self::Lease(spending)),
                    "unspent" => Some(Self::Unspent(spending)),
                    "spent" => Some(Self::Spent(spending)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Kept {
    /// Reads everything that was written.
    ///
    /// # Errors
    /// The number of the first line, from 1, that was finished and means nothing.
    pub fn of_text(text: &str) -> Result<Self, usize> {
        let mut kept = Self::default();
        for (number, line) in (1usize..).zip(text.lines()) {
            if line.is_empty() || !line.ends_with(" .") {
                continue;
            }
            kept.take(&Record::of_line(line).ok_or(number)?);
        }
        Ok(kept)
    }

    /// One more line was written.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::Lease(lease) => {
                self.end_last(&lease.window, lease.at);
                self.spendings.push(Held { spending: lease.clone(), ended: None });
            }
            Record::Unspent(rest) => {
                if let Some(last) = self.end_last(&rest.window, rest.at) {
                    last.spending.calls = last.spending.calls.saturating_sub(rest.calls);
                }
            }
            Record::Spent(all) => {
                self.spendings.retain(|held| held.spending.window != all.window);
                self.spendings.push(Held { spending: all.clone(), ended: Some(all.at) });
            }
            Record::Closed(until) => self.closed = Some(*until),
            Record::Opened => self.closed = None,
        }
    }

    /// The calls of a window, each number with the moment at which the last of them can have been counted; `now` for those
    /// of a lease that is still open, for nobody knows.
    pub fn spent(&self, window: &str, now: SystemTime) -> impl Iterator<Item = (u32, SystemTime)> {
        let of_it = self.spendings.iter().filter(move |held| held.spending.window == window);
        of_it.map(move |held| {
            (held.spending.calls, held.ended.map_or(now, |ended| now.min(ended + LATE).max(ended)))
        })
    }

    /// Forgets what was spent more than `length` before `now`, by window.
    pub fn forget(&mut self, now: SystemTime, length: impl Fn(&str) -> Duration) {
        self.spendings.retain(|held| {
            let over = held.ended.and_then(|ended| now.duration_since(ended + LATE).ok());
            held.spending.calls > 0 && over.is_none_or(|over| over <= length(&held.spending.window))
        });
        self.closed = self.closed.filter(|until| *until > now);
    }

    /// The shortest text that means the same.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for held in &self.spendings {
            text.push_str(&Record::Lease(held.spending.clone()).to_line());
            if let Some(at) = held.ended {
                let end = Spending { calls: 0, at, ..held.spending.clone() };
                text.push_str(&Record::Unspent(end).to_line());
            }
        }
        if let Some(until) = self.closed {
            text.push_str(&Record::Closed(until).to_line());
        }
        text
    }

    fn end_last(&mut self, window: &str, at: SystemTime) -> Option<&mut Held> {
        let last = self.spendings.iter_mut().rev().find(|held| held.spending.window == window)?;
        if last.ended.is_some() {
            return None;
        }
        last.ended = Some(at);
        Some(last)
    }
}

fn millis(date: SystemTime) -> u128 {
    date.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_000 + seconds)
    }

    fn spending(window: &str, calls: u32, seconds: u64) -> Spending {
        Spending { window: window.into(), calls, at: at(seconds) }
    }

    #[test]
    fn an_open_lease_counts_whole_and_a_closed_one_as_it_was_spent() {
        let text = "lease day 5 1764000000000 .\nlease day 5 1764000010000 .\nlease 7200s 1 1764000011000 .\n\
                    unspent day 3 1764000020000 .\nlease day 5 1764000030000 .\nlease day 9 17640";
        let kept = Kept::of_text(text).expect("every finished line means something");
        let spent: Vec<_> = kept.spent("day", at(100)).collect();
        assert_eq!(spent, [(5, at(70)), (2, at(80)), (5, at(100))], "the last line was never finished");
        assert_eq!(kept.spent("7200s", at(100)).collect::<Vec<_>>(), [(1, at(100))]);
        assert_eq!(Kept::of_text("lease day 5 1764000000000 .\nlease day x 1 ."), Err(2));
    }

    #[test]
    fn an_operators_word_replaces_what_was_counted() {
        let mut kept = Kept::default();
        kept.take(&Record::Lease(spending("day", 50, 0)));
        kept.take(&Record::Spent(spending("day", 7, 1)));
        kept.take(&Record::Closed(at(500)));
        assert_eq!(
            (kept.spent("day", at(9)).collect::<Vec<_>>(), kept.closed),
            (vec![(7, at(9))], Some(at(500)))
        );
        kept.take(&Record::Opened);
        assert_eq!(kept.closed, None);
    }

    proptest! {
        /// What is rewritten shorter means the same, and whatever a text says, reading it ends.
        #[test]
        fn a_shorter_text_means_the_same(
            steps in prop::collection::vec((0u8..5, 0usize..2, 0u32..9, 0u64..50), 0..40), noise in any::<String>(),
        ) {
            let (mut kept, mut now) = (Kept::default(), 0);
            let mut text = String::new();
            for (what, window, calls, passed) in steps {
                now += passed;
                let spending = spending(["day", "3600s"][window], calls, now);
                let record = match what {
                    0 | 1 => Record::Lease(spending),
                    2 => Record::Unspent(spending),
                    3 => Record::Spent(spending),
                    _ => Record::Closed(at(now + 100)),
                };
                text.push_str(&record.to_line());
                kept.take(&record);
            }
            prop_assert_eq!(&Kept::of_text(&text).expect("is well formed"), &kept);
            let again = Kept::of_text(&kept.to_text()).expect("is well formed");
            for window in ["day", "3600s"] {
                let spent = |kept: &Kept| kept.spent(window, at(now + 5)).collect::<Vec<_>>();
                prop_assert_eq!(spent(&again), spent(&kept));
            }
            prop_assert_eq!(again.closed, kept.closed);
            let _ = Kept::of_text(&noise);
        }
    }
}
