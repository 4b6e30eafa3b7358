//! What an account has spent, as a state machine without a clock: several windows, all of which must admit a call, and
//! the pace of grants while anyone waits.
//!
//! The shortest window sets the pace: grants to those who wait are `per / requests` apart, so that a newcomer of a better
//! class never finds the whole window taken by one burst. Longer windows only admit or refuse; so does one that is longer
//! than anybody waits, for those who wait then wait for something else.

use std::time::{Duration, SystemTime};

use super::calendar::{Period, Resets, Unit};
pub use super::quota::{Now, Per, QuotaRule, Standing, Word};
use super::window::{Window, WindowRule};
use crate::model::moment::Moment;
use crate::model::urgency::Class;

/// How late a grant may come without the pace being lost: timers have a grain.
const GRAIN: Duration = Duration::from_millis(2);

/// An account's windows. An empty ledger admits everything.
#[derive(Debug)]
pub struct Ledger {
    books: Vec<Book>,
    /// The shortest window's length, and how far apart grants are while anyone waits.
    shortest: Duration,
    gap: Duration,
    /// Whether they are: whether that window fits into a wait.
    paced: bool,
    /// When the next grant is due by that.
    due: Moment,
    /// A limit of the upstream's that no window knows is reached until then.
    blocked: Moment,
    instances: u32,
}

#[derive(Debug)]
struct Book {
    rule: QuotaRule,
    /// How many are kept for interactive calls.
    kept: u32,
    state: State,
    /// What may be spent before more is written down; `None` where nothing is.
    lease: Option<u32>,
}

#[derive(Debug)]
enum State {
    Sliding(Window),
    Calendar(Period),
}

impl Ledger {
    /// Nothing spent, by one of `instances` gates on the account.
    pub fn new(rules: &[QuotaRule], instances: u32, now: Now) -> Self {
        let book = |rule: &QuotaRule| {
            let requests = rule.share(instances);
            let kept = u64::from(requests) * u64::from(rule.reserve.min(100)) / 100;
            let state = match &rule.per {
                Per::Sliding(per) => {
                    State::Sliding(Window::new(WindowRule { requests, per: *per, counted: rule.counted }))
                }
                Per::Calendar(resets) => State::Calendar(Period::new(requests, resets.clone(), now.date)),
            };
            Book { rule: rule.clone(), kept: u32::try_from(kept).unwrap_or(u32::MAX), state, lease: None }
        };
        let shortest = rules.iter().filter(|rule| !rule.shadow).filter_map(|rule| match rule.per {
            Per::Sliding(per) => Some((per, rule.share(instances).max(1))),
            Per::Calendar(_) => None,
        });
        let (shortest, gap) =
            shortest.min().map_or_else(Default::default, |(per, requests)| (per, per / requests));
        let (due, blocked) = (Moment::ORIGIN, Moment::ORIGIN);
        let instances = instances.max(1);
        let books = rules.iter().map(book).collect();
        Self { books, shortest, gap, paced: true, due, blocked, instances }
    }

    /// Whether it is made of these.
    pub fn is_of(&self, rules: &[QuotaRule], instances: u32) -> bool {
        self.rules().eq(rules) && self.instances == instances.max(1)
    }

    /// What an `old` ledger of the account knows was spent, of windows that an operator has changed since. A window that is
    /// longer than any before it knows no more than the longest did. The places of those that go on as they were, what is
    /// written down of them included.
    pub fn inherit(&mut self, old: &Self, now: Now) -> Vec<usize> {
        self.blocked = old.blocked;
        let mut go_on = Vec::new();
        for (place, book) in self.books.iter_mut().enumerate() {
            let same = old.books.iter().find(|held| held.rule.per == book.rule.per);
            if let Some(same) = same {
                book.lease = same.lease;
                go_on.push(place);
            }
            match (&mut book.state, same.map(|same| &same.state)) {
                (State::Calendar(period), Some(State::Calendar(held))) => {
                    *period = held.heir(book.rule.share(self.instances));
                }
                (State::Calendar(_), _) => {}
                (State::Sliding(window), _) => {
                    let per = window.rule().per;
                    let held = old.books.iter().filter_map(|held| match &held.state {
                        State::Sliding(window) => Some(window),
                        State::Calendar(_) => None,
                    });
                    // The shortest that is long enough, else the longest.
                    let nearest = held.min_by_key(|held| {
                        let held = held.rule().per;
                        (held < per, if held < per { Duration::MAX - held } else { held })
                    });
                    if let Some(nearest) = nearest {
                        *window = nearest.heir(window.rule(), now.at);
                    }
                }
            }
        }
        go_on
    }

    /// Nobody waits for more than `longest` from now on.
    pub fn nobody_waits_beyond(&mut self, longest: Duration) {
        self.paced = self.shortest <= longest;
    }

    /// The rules it was made from, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &QuotaRule> {
        self.books.iter().map(|book| &book.rule)
    }

    /// How far apart grants are while anyone waits.
    pub fn gap(&self) -> Duration {
        self.gap
    }

    /// Whether grants to those who wait are apart.
    pub fn is_paced(&self) -> bool {
        self.paced
    }

    /// What each window still admits at `now`.
    pub fn remaining(&mut self, now: Now) -> impl Iterator<Item = u32> {
        self.books.iter_mut().map(move |book| book.state.remaining(now))
    }

    /// How each window stands at `now`.
    pub fn standing(&mut self, now: Now) -> Vec<Standing> {
        let instances = self.instances;
        let stands = |book: &mut Book| {
            let (requests, remaining) = (book.rule.share(instances), book.state.remaining(now));
            let reset = match &book.state {
                State::Sliding(window) => window.first_free().map(|free| free.since(now.at)),
                State::Calendar(period) => Some(period.left(now.date)),
            };
            Standing {
                name: book.rule.per.to_string(),
                requests,
                seconds: book.rule.seconds(),
                remaining,
                reset: reset.filter(|_| remaining < requests),
            }
        };
        self.books.iter_mut().filter(|book| !book.rule.shadow).map(stands).collect()
    }

    /// Whether every window admits a call of `class` at `now`.
    pub fn admits(&mut self, now: Now, class: Class) -> bool {
        self.blocked <= now.at
            && self.books.iter_mut().filter(|book| !book.rule.shadow).all(|book| {
                let kept = book.kept_from(class);
                book.state.remaining(now) > kept
            })
    }

    /// Whether the pace allows a grant at `now`.
    pub fn is_due(&self, now: Now) -> bool {
        !self.paced || self.due <= now.at
    }

    /// A call is sent at `now`; how many windows that only count would have refused it.
    pub fn begin(&mut self, now: Now) -> usize {
        // A grant that comes late does not put off the next, as long as the two stay half a gap apart.
        let slack = (self.gap / 2).max(GRAIN);
        let (due, at) = (self.due, now.at);
        self.due = if due <= at && at.since(due) <= slack { due } else { at } + self.gap;
        let mut over = 0;
        for book in &mut self.books {
            over += usize::from(book.rule.shadow && book.state.remaining(now) == 0);
            if let Some(lease) = &mut book.lease {
                *lease = lease.saturating_sub(1);
            }
            match &mut book.state {
                State::Sliding(window) => window.begin(now.at),
                State::Calendar(period) => period.begin(),
            }
        }
        over
    }

    /// It was answered, or given up, at `now`.
    pub fn end(&mut self, now: Now) {
        for book in &mut self.books {
            match &mut book.state {
                State::Sliding(window) => window.end(now.at),
                State::Calendar(period) => period.end(now.date),
            }
        }
    }

    /// The call that began at `began` was never sent.
    pub fn give_back(&mut self, began: Moment) {
        self.due = self.due.before(self.gap);
        for book in &mut self.books {
            if let Some(lease) = &mut book.lease {
                *lease += 1;
            }
            match &mut book.state {
                State::Sliding(window) => window.give_back(began),
                State::Calendar(period) => period.give_back(),
            }
        }
    }

    /// The earliest moment at which whoever stands behind `ahead` others of those who wait can be granted, and the place
    /// of the window that admits last.
    pub fn next_free(&mut self, now: Now, ahead: usize, class: Class) -> (Moment, Option<usize>) {
        let turns = u32::try_from(ahead).unwrap_or(u32::MAX);
        let paced = if self.paced { self.due + self.gap.saturating_mul(turns) } else { now.at };
        let mut last = (self.blocked.max(now.at), None);
        for (place, book) in self.books.iter_mut().enumerate().filter(|(_, book)| !book.rule.shadow) {
            let ahead = ahead + book.kept_from(class) as usize;
            let free = match &mut book.state {
                State::Sliding(window) => window.next_free(now.at, ahead),
                State::Calendar(period) => now.at + period.wait(now.date, ahead),
            };
            if free > last.0 || last.1.is_none() {
                last = (free.max(last.0), Some(place));
            }
        }
        (last.0.max(paced), last.1)
    }

    /// The upstream said what it still admits: it can only lower what is left here. A window that is known here neither by
    /// length nor by size closes the account until its reset, `longest` at most, once nothing is left in it.
    pub fn hear(&mut self, now: Now, word: Word, longest: Duration) {
        let instances = u64::from(self.instances);
        let Some(place) = self.known(word) else {
            if let Some(reset) = word.reset.filter(|_| word.remaining == 0) {
                self.blocked = self.blocked.max(now.at + reset.min(longest));
            }
            return;
        };
        let book = &mut self.books[place];
        let theirs = u32::try_from(word.remaining / instances).unwrap_or(u32::MAX);
        let surplus = book.state.remaining(now).saturating_sub(theirs);
        match &mut book.state {
            State::Sliding(window) => {
                let per = window.rule().per;
                let free = now.at + word.reset.map_or(per, |reset| reset.min(per));
                (0..surplus).for_each(|_| window.hold(free));
            }
            State::Calendar(period) => period.add(surplus),
        }
    }

    fn known(&self, word: Word) -> Option<usize> {
        let only = |mut places: Vec<usize>| if places.len() == 1 { places.pop() } else { None };
        let places = |is: &dyn Fn(&QuotaRule) -> bool| -> Vec<usize> {
            self.books.iter().enumerate().filter(|(_, book)| is(&book.rule)).map(|(place, _)| place).collect()
        };
        if let Some(window) = word.window {
            let close = |rule: &QuotaRule| match &rule.per {
                Per::Sliding(per) => *per == window,
                Per::Calendar(Resets { unit: Unit::Day, .. }) => window.as_secs() == 86_400,
                Per::Calendar(_) => (28..=31).contains(&(window.as_secs() / 86_400)),
            };
            return only(places(&close));
        }
        match word.limit {
            Some(limit) => only(places(&|rule| u64::from(rule.requests) == limit)),
            None => only(places(&|_| true)).filter(|place| match &self.books[*place].rule.per {
                Per::Sliding(per) => word.reset.is_none_or(|reset| reset <= *per),
                Per::Calendar(_) => false,
            }),
        }
    }

    /// From now on what is spent of the window at `place` is written down first.
    pub fn keep(&mut self, place: usize) {
        if let Some(book) = self.books.get_mut(place) {
            book.lease = Some(0);
        }
    }

    /// The windows that need another lease before a call, as (place, calls).
    pub fn leases_due(&self) -> impl Iterator<Item = (usize, u32)> {
        let due = self.books.iter().enumerate().filter(|(_, book)| book.lease == Some(0));
        due.map(|(place, book)| (place, book.rule.lease(self.instances)))
    }

    /// So many calls of the window at `place` are written down.
    pub fn lease(&mut self, place: usize, calls: u32) {
        if let Some(lease) = self.books.get_mut(place).and_then(|book| book.lease.as_mut()) {
            *lease += calls;
        }
    }

    /// Whatever was written down of the window at `place` has been accounted for otherwise.
    pub fn end_lease(&mut self, place: usize) {
        if let Some(lease) = self.books.get_mut(place).and_then(|book| book.lease.as_mut()) {
            *lease = 0;
        }
    }

    /// A limit that no window knows no longer blocks.
    pub fn unblock(&mut self) {
        self.blocked = Moment::ORIGIN;
    }

    /// What is written down of each kept window and not spent, as (place, calls).
    pub fn unspent(&self) -> impl Iterator<Item = (usize, u32)> {
        self.books.iter().enumerate().filter_map(|(place, book)| Some((place, book.lease?)))
    }

    /// So many calls of the window at `place`, the last of them at `date`, were made before a restart.
    pub fn restore(&mut self, now: Now, place: usize, calls: u32, date: SystemTime) {
        match self.books.get_mut(place).map(|book| &mut book.state) {
            Some(State::Sliding(window)) => {
                let per = window.rule().per;
                let ago = now.date.duration_since(date).unwrap_or_default();
                if ago < per {
                    let free = now.at + (per - ago);
                    // More than the window holds say no more.
                    (0..calls.min(window.rule().requests)).for_each(|_| window.hold(free));
                }
            }
            // A date that lies ahead is a clock that went back: it counts.
            Some(State::Calendar(period)) if date >= period.began(now.date) => period.add(calls),
            _ => {}
        }
    }

    /// An operator knows better: so many are spent of the window at `place` at `now`.
    pub fn correct(&mut self, now: Now, place: usize, spent: u32) {
        match self.books.get_mut(place).map(|book| &mut book.state) {
            Some(State::Sliding(window)) => {
                window.forget();
                let (free, under_way) = (now.at + window.rule().per, window.under_way());
                (under_way..spent.min(window.rule().requests)).for_each(|_| window.hold(free));
            }
            Some(State::Calendar(period)) => period.set_spent(spent),
            None => {}
        }
    }
}

impl Book {
    fn kept_from(&self, class: Class) -> u32 {
        if class == Class::Interactive { 0 } else { self.kept }
    }
}

impl State {
    fn remaining(&mut self, now: Now) -> u32 {
        match self {
            Self::Sliding(window) => window.remaining(now.at),
            Self::Calendar(period) => period.remaining(now.date),
        }
    }
}

#[cfg(test)]
mod tests;
