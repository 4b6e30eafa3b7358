//! Who was told to come back, and when: so that a `Retry-After` that is obeyed succeeds although others were told to come
//! back too.
//!
//! A promise holds no slot: a slot that is free goes to whoever is there. It only counts when others are told how long
//! they would wait. A payer who asks again and again without waiting piles promises up; they count before another
//! payer's call only as far as that payer has been promised as much itself.

use std::collections::{HashMap, VecDeque, vec_deque};
use std::time::Duration;

use super::fairness::Payer;
use crate::model::moment::Moment;

/// How long after its moment a promise is still expected to be taken up.
pub const GRACE: Duration = Duration::from_secs(1);

/// One of them: when to come back, until when whoever does can be served, and with which question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promise {
    /// When.
    pub at: Moment,
    /// Until when.
    pub until: Moment,
    /// What is asked again: tells those who come back from others of the same payer.
    pub question: u64,
}

/// The promises not taken up yet.
#[derive(Debug, Default)]
pub struct Promises {
    by_payer: HashMap<Payer, VecDeque<Promise>>,
    count: usize,
}

impl Promises {
    /// How many count before one more call of `payer`.
    pub fn ahead_of(&mut self, payer: Payer, now: Moment) -> usize {
        self.forget(now);
        self.before(payer).map(Iterator::count).sum()
    }

    /// Whether all who were told to come back will be served in time although one more call of `payer` joins `line` others
    /// now: grants are `gap` apart. Looks at each promise once.
    pub fn bear(&mut self, payer: Payer, now: Moment, line: usize, gap: Duration) -> bool {
        self.forget(now);
        let mut told: Vec<Promise> = self.before(payer).flatten().copied().collect();
        told.sort_unstable();
        let served = |ahead: usize| now + gap.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        told.iter().enumerate().all(|(before, promise)| served(line + 1 + before) <= promise.until)
    }

    /// A call of `payer` was told to come back. Of more than `most` the rest are not kept.
    pub fn make(&mut self, payer: Payer, promise: Promise, most: usize) {
        if self.count < most {
            let told = self.by_payer.entry(payer).or_default();
            told.insert(told.partition_point(|held| *held <= promise), promise);
            self.count += 1;
        }
    }

    /// Whether a call of `payer` at `now` is one that was told to come back; its promise is taken up.
    pub fn take_up(&mut self, payer: Payer, question: u64, now: Moment) -> bool {
        let Some(told) = self.by_payer.get_mut(&payer) else { return false };
        let mut due = told.iter().take_while(|promise| promise.at <= now);
        let Some(place) = due.position(|promise| promise.question == question) else { return false };
        told.remove(place);
        self.count -= 1;
        if told.is_empty() {
            self.by_payer.remove(&payer);
        }
        true
    }

    /// Somebody asks `question` again before it was told to: one promise is enough.
    pub fn withdraw(&mut self, payer: Payer, question: u64) {
        if let Some(told) = self.by_payer.get_mut(&payer)
            && let Some(place) = told.iter().position(|promise| promise.question == question)
        {
            told.remove(place);
            self.count -= 1;
        }
    }

    /// The promises that count before a call of `payer`.
    fn before(&self, payer: Payer) -> impl Iterator<Item = vec_deque::Iter<'_, Promise>> {
        let own = self.by_payer.get(&payer).map_or(0, VecDeque::len);
        self.by_payer.iter().map(move |(other, told)| {
            let counts = if *other == payer { told.len() } else { told.len().min(own + 1) };
            told.range(..counts)
        })
    }

    /// Forgets promises that nobody came for.
    fn forget(&mut self, now: Moment) {
        let mut left = 0;
        self.by_payer.retain(|_, told| {
            while told.front().is_some_and(|promise| promise.at + GRACE < now) {
                told.pop_front();
            }
            left += told.len();
            !told.is_empty()
        });
        self.count = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn a_promise_counts_until_it_is_taken_up_or_missed() {
        let (noisy, quiet) = (Payer(1), Payer(2));
        let mut promises = Promises::default();
        for second in [3, 1, 2] {
            promises.make(noisy, Promise { at: at(second), until: at(second + 2), question: second }, 4);
        }
        assert_eq!(promises.ahead_of(noisy, at(0)), 3);
        assert_eq!(promises.ahead_of(quiet, at(0)), 1, "of another payer's pile as much as one's own");
        let gap = Duration::from_secs(1);
        assert!(promises.bear(noisy, at(0), 2, gap), "served at 3, 4, 5 who come at 1, 2, 3");
        assert!(!promises.bear(noisy, at(0), 3, gap) && promises.bear(quiet, at(0), 2, gap));
        assert!(
            !promises.take_up(noisy, 1, at(0))
                && !promises.take_up(noisy, 2, at(1))
                && promises.take_up(noisy, 1, at(1))
        );
        assert_eq!(promises.ahead_of(noisy, at(1)), 2);
        assert_eq!(promises.ahead_of(noisy, at(5)), 0, "nobody came");
        promises.make(quiet, Promise { at: at(6), until: at(6), question: 7 }, 4);
        promises.withdraw(quiet, 7);
        assert_eq!(promises.ahead_of(quiet, at(5)), 0);
        for _ in 0..9 {
            promises.make(quiet, Promise { at: at(6), until: at(6), question: 0 }, 4);
        }
        assert_eq!(promises.ahead_of(quiet, at(5)), 4);
    }
}
