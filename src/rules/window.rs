//! One window of an account's quota, as a state machine without a clock: never more than `requests` in any interval
//! of length `per`, as the upstream counts them.
//!
//! The upstream counts a call at some moment between its sending and its answer. A slot is therefore held from the
//! sending until `per` after the answer's first byte: whichever moment the upstream chose, it lies at least `per`
//! before the slot's next use. Where the operator says `count_until = "sent"`, the slot comes free `per` and a margin
//! after the sending: more of the quota can be used, and a wire that holds a call up by more than the margin can break it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::moment::Moment;

/// `{ requests = 10, per = "1s" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRule {
    /// How many calls.
    pub requests: u32,
    /// In any interval of this length.
    pub per: Duration,
    /// Until when a call holds its slot.
    pub counted: Counted,
}

/// `count_until`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// Until `per` after its answer's first byte.
    #[default]
    Answer,
    /// Until `per` and this margin after its sending.
    Sent(Duration),
}

impl WindowRule {
    /// `requests` in any interval of length `per`, whenever the upstream counts.
    pub const fn new(requests: u32, per: Duration) -> Self {
        Self { requests, per, counted: Counted::Answer }
    }
}

impl Counted {
    /// How long after its end a call holds its slot in a window of length `per`: its answer's, or its sending's.
    fn held(self, per: Duration) -> Duration {
        match self {
            Self::Answer => per,
            Self::Sent(margin) => per + margin,
        }
    }
}

/// A window's state: how many calls are under way, and when the finished ones give their slots back.
#[derive(Debug)]
pub struct Window {
    rule: WindowRule,
    under_way: u32,
    /// When each finished call's slot is free again, earliest first.
    free_at: VecDeque<Moment>,
}

impl Window {
    /// A window nothing was spent of.
    pub fn new(rule: WindowRule) -> Self {
        Self { rule, under_way: 0, free_at: VecDeque::new() }
    }

    /// Its rule.
    pub fn rule(&self) -> WindowRule {
        self.rule
    }

    /// A window of this rule that the same calls are spent of, as far as this one remembers them.
    pub fn heir(&self, rule: WindowRule, now: Moment) -> Self {
        let mut heir = Self::new(rule);
        let (before, held) = (self.rule.counted.held(self.rule.per), rule.counted.held(rule.per));
        self.free_at.iter().for_each(|free| heir.hold(free.before(before) + held));
        match rule.counted {
            Counted::Answer => heir.under_way = self.under_way,
            // When they were sent is not known any more: not after now.
            Counted::Sent(_) => (0..self.under_way).for_each(|_| heir.hold(now + held)),
        }
        heir
    }

    /// How many calls it admits at `now`.
    pub fn remaining(&mut self, now: Moment) -> u32 {
        while self.free_at.front().is_some_and(|free| *free <= now) {
            self.free_at.pop_front();
        }
        let held = self.under_way + u32::try_from(self.free_at.len()).unwrap_or(u32::MAX);
        self.rule.requests.saturating_sub(held)
    }

    /// A call is sent at `now`: its slot is held until [`Window::end`].
    pub fn begin(&mut self, now: Moment) {
        match self.rule.counted {
            Counted::Answer => self.under_way += 1,
            counted @ Counted::Sent(_) => self.hold(now + counted.held(self.rule.per)),
        }
    }

    /// The call was answered, or given up, at `now`.
    pub fn end(&mut self, now: Moment) {
        if self.rule.counted == Counted::Answer {
            self.under_way = self.under_way.saturating_sub(1);
            self.hold(now + self.rule.per);
        }
    }

    /// The call that began at `began` was never sent: its slot is as if it had not been.
    pub fn give_back(&mut self, began: Moment) {
        match self.rule.counted {
            Counted::Answer => self.under_way = self.under_way.saturating_sub(1),
            counted @ Counted::Sent(_) => {
                let free = began + counted.held(self.rule.per);
                let at = self.free_at.partition_point(|held| *held < free);
                if self.free_at.get(at) == Some(&free) {
                    self.free_at.remove(at);
                }
            }
        }
    }

    /// One slot is taken until `free`: by a call somebody else made, or one made before a restart.
    pub fn hold(&mut self, free: Moment) {
        // Moments come from one clock, but from several tasks: keep the queue sorted.
        let at = self.free_at.partition_point(|held| *held <= free);
        self.free_at.insert(at, free);
        // Beyond a whole window only the latest say anything: the others are free before any of those matters.
        if self.free_at.len() > self.rule.requests as usize {
            self.free_at.pop_front();
        }
    }

    /// How many calls are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// When the first slot that is taken by a finished call comes free.
    pub fn first_free(&self) -> Option<Moment> {
        self.free_at.front().copied()
    }

    /// Forgets what was spent, calls under way aside.
    pub fn forget(&mut self) {
        self.free_at.clear();
    }

    /// The earliest moment at which a slot can be free for whoever stands behind `ahead` others; `now` if one is. A
    /// call under way cannot give its slot back sooner than `per` from now.
    pub fn next_free(&mut self, now: Moment, ahead: usize) -> Moment {
        let remaining = self.remaining(now) as usize;
        if ahead < remaining {
            return now;
        }
        // Every slot in the order in which it comes free; whoever takes one holds it for at least a period.
        let requests = self.rule.requests.max(1) as usize;
        let slot = (ahead % requests).checked_sub(remaining);
        let first = slot.map_or(now, |slot| self.free_at.get(slot).copied().unwrap_or(now + self.rule.per));
        let turns = u32::try_from(ahead / requests).unwrap_or(u32::MAX);
        first + self.rule.per.saturating_mul(turns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The window law: whatever the moments of sending and answering, and wherever between them the upstream
        /// counts, no interval of length `per` holds more than `requests` calls.
        #[test]
        fn no_interval_holds_more_than_the_window_admits(
            requests in 1u32..5,
            steps in prop::collection::vec((0u64..40, 0u64..60, 0u64..=100), 1..120),
        ) {
            let per = Duration::from_nanos(50);
            let mut window = Window::new(WindowRule::new(requests, per));
            let mut now = Moment::ORIGIN;
            let mut answers: Vec<Moment> = Vec::new();
            let mut counted: Vec<Moment> = Vec::new();
            for (pause, latency, percent) in steps {
                now = now + Duration::from_nanos(pause);
                answers.sort();
                while answers.first().is_some_and(|at| *at <= now) {
                    window.end(answers.remove(0));
                }
                if window.remaining(now) > 0 {
                    window.begin(now);
                    answers.push(now + Duration::from_nanos(latency));
                    counted.push(now + Duration::from_nanos(latency * percent / 100));
                }
            }
            counted.sort();
            for run in counted.windows(requests as usize + 1) {
                prop_assert!(run[requests as usize].since(run[0]) >= per);
            }
        }

        /// Whoever comes back at the moment named finds a slot, if nobody else came meanwhile.
        #[test]
        fn the_next_free_moment_is_true(ends in prop::collection::vec(0u64..100, 1..8), requests in 1u32..8) {
            let mut window = Window::new(WindowRule::new(requests, Duration::from_nanos(50)));
            let now = Moment::from_nanos(100);
            for end in ends.iter().take(requests as usize) {
                window.begin(Moment::from_nanos(*end));
                window.end(Moment::from_nanos(*end));
            }
            let free = window.next_free(now, 0);
            // A window only ever looks ahead, so the earlier moment is asked about first.
            if free > now {
                prop_assert_eq!(window.remaining(free.before(Duration::from_nanos(1))), 0);
            }
            prop_assert!(window.remaining(free) > 0);
        }

        /// The moment named for a place in line is the one at which that place is served, if calls take no time.
        #[test]
        fn a_line_is_served_when_it_was_told(
            ends in prop::collection::vec(0u64..100, 0..8), requests in 1u32..8, line in 1usize..30,
        ) {
            let mut window = Window::new(WindowRule::new(requests, Duration::from_nanos(50)));
            let mut now = Moment::from_nanos(100);
            for end in ends.iter().take(requests as usize) {
                window.begin(Moment::from_nanos(*end));
                window.end(Moment::from_nanos(*end));
            }
            let told: Vec<Moment> = (0..line).map(|ahead| window.next_free(now, ahead)).collect();
            for told in told {
                now = window.next_free(now, 0);
                prop_assert_eq!(told, now);
                prop_assert!(window.remaining(now) > 0);
                window.begin(now);
                window.end(now);
            }
        }
    }
}
