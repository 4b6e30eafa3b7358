//! What an account is decided by, under its lock: ledger, line, standing, promises.

use std::time::Duration;

use prometheus::IntGauge;

use super::clock::Clock;
use super::journal::Journal;
use super::line::Waiting;
use super::tasks::Tasks;
use super::terms::{Refused, Terms, Want, Windows};
use crate::model::moment::Moment;
use crate::model::urgency::Class;
use crate::rules::calendar::Steady;
use crate::rules::fairness::{Line, Number};
use crate::rules::ledger::{Ledger, Now};
use crate::rules::pause::{FIRST_GAP, Gate, Pause};
use crate::rules::promises::{Promise, Promises};
use crate::rules::records::{Record, Spending};
use crate::rules::rest::Rest;

/// One part in so many is added to what is expected to be served before somebody comes back: a little late is served at once,
/// a little early may be in vain.
const MARGIN: usize = 5;

/// What is decided by.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) ledger: Ledger,
    pub(super) line: Line<Waiting>,
    pub(super) rest: Rest,
    pub(super) pause: Pause,
    pub(super) promises: Promises,
    /// Whether the task that grants runs.
    pub(super) dispatched: bool,
    /// Where long windows are written down.
    pub(super) journal: Option<Journal>,
    pub(super) steady: Steady,
    /// What each window still admits.
    pub(super) remaining: Vec<IntGauge>,
}

impl Books {
    /// Begins a ledger of these windows with what was spent of them: as far as the one before it knows, or the journal.
    pub(super) fn open(&mut self, now: Now, windows: Windows<'_>) {
        let mut ledger = Ledger::new(windows.rules, windows.instances, now);
        let go_on = ledger.inherit(&self.ledger, now);
        if let Some(journal) = &self.journal {
            let kept = journal.kept();
            let long = windows.rules.iter().enumerate().filter(|(_, rule)| rule.is_long());
            for (place, rule) in long.filter(|(place, _)| !go_on.contains(place)) {
                ledger.keep(place);
                for (calls, last) in kept.spent(&rule.per.to_string(), now.date) {
                    ledger.restore(now, place, calls, last);
                }
            }
        }
        (self.ledger, self.remaining) = (ledger, windows.remaining);
    }

    pub(super) fn now(&mut self, clock: &Clock) -> Now {
        let at = clock.now();
        Now { at, date: self.steady.date(at, clock.wall()) }
    }

    /// Writes down what the next call may spend, where nothing is left of what was.
    pub(super) fn write_leases(&mut self, now: Now, tasks: &Tasks) -> Result<(), Refused> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let due: Vec<(usize, u32)> = self.ledger.leases_due().collect();
        for (place, calls) in due {
            let window = self.ledger.rules().nth(place).map(|rule| rule.per.to_string()).unwrap_or_default();
            let lease = Record::Lease(Spending { window, calls, at: now.date });
            if let Err(error) = journal.write(&lease) {
                tracing::error!(%error, "what is spent cannot be written down; calls stop");
                return Err(Refused::Unwritable);
            }
            journal.sync_behind(tasks);
            self.ledger.lease(place, calls);
        }
        Ok(())
    }

    /// Whether a call of `class` may pass now, the pace and the ceiling aside.
    pub(super) fn admits(&mut self, now: Now, class: Class) -> bool {
        matches!(self.pause.admit(now.at), Gate::Open | Gate::OneProbe) && self.ledger.admits(now, class)
    }

    /// Whether the account rests, without taking the place of the next probe.
    pub(super) fn may_be_asked(&self, now: Now) -> Result<(), Refused> {
        let mut rest = self.rest;
        rest.admit(now.at).map_err(|retry_after| Refused::Resting { retry_after })
    }

    /// Whether nothing but the upstream's ceiling stands in the way.
    pub(super) fn waits_for_place(&mut self, now: Now, class: Class, terms: &Terms) -> bool {
        self.admits(now, class) && terms.ceiling.is_full()
    }

    /// When whoever stands behind `ahead` others is served at the earliest, and why not before.
    pub(super) fn served_at(&mut self, now: Now, ahead: usize, class: Class) -> (Moment, Refused) {
        let (at, window) = self.ledger.next_free(now, ahead, class);
        let opens = match self.pause.admit(now.at) {
            Gate::Until(until) => until,
            Gate::Open | Gate::OneProbe | Gate::Probing => now.at,
        };
        if opens >= at && opens > now.at {
            return (opens, Refused::Paused { retry_after: opens.since(now.at) });
        }
        let window = window.and_then(|place| self.ledger.rules().nth(place)).cloned();
        let retry_after = at.since(now.at);
        // No window, and no ceiling, which is looked at before: the account opens just now.
        let opening = Refused::Paused { retry_after: FIRST_GAP };
        (at, window.map_or(opening, |window| Refused::Spent { retry_after, window }))
    }

    /// Whether a call with this number that waits `until` then is served in time. Whoever comes anew does not push out those who
    /// wait beyond its share; who `came_back` when it was told to has its share in what was told.
    pub(super) fn is_worth_waiting(
        &mut self,
        now: Now,
        want: &Want,
        until: Moment,
        (number, came_back): (Number, bool),
    ) -> bool {
        let (class, payer) = (want.urgency.class(), want.payer);
        let line = self.line.ahead_of(class, (payer, want.weight), number);
        self.served_at(now, line, class).0 <= until
            && (came_back
                || self.line.is_below_share(class, payer, want.weight)
                || self.served_at(now, self.line.whole(class), class).0 <= until)
    }

    /// A call is granted: what its payer wants is learnt from it.
    pub(super) fn expect(&mut self, now: Now, want: &Want) {
        let (class, gap) = (want.urgency.class(), self.ledger.gap());
        self.promises.served(class, (want.payer, want.weight), now.at, gap);
    }

    /// Why a call with this number is sent away, and when it should come back; it is expected then, unless `most` others are.
    pub(super) fn send_away(&mut self, now: Now, want: &Want, number: Number, most: usize) -> Refused {
        let (class, gap) = (want.urgency.class(), self.ledger.gap());
        let whose = (want.payer, want.weight, number);
        let ahead = self.promises.ahead_of(&self.line, class, whose, (now.at, gap));
        let (at, refused) = self.served_at(now, ahead + ahead / MARGIN, class);
        if want.comes_back {
            // As the client will be told: in whole seconds.
            let at = now.at + Duration::from_secs(at.since(now.at + Duration::from_nanos(1)).as_secs() + 1);
            let promise = Promise { at, question: want.question, number };
            self.promises.make(class, (want.payer, want.weight), promise, now.at, most);
        }
        refused
    }
}
