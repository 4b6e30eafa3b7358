//! What an account may still spend, and who waits for it: the decisions of `rules::ledger`, `fairness`, `pause` and `rest`
//! under one lock, and one task that grants while anyone waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::books::Books;
use super::clock::Clock;
use super::grant::{Grant, Probe};
use super::journal::Journal;
use super::line::{InLine, Waiting};
use super::tasks::Tasks;
use super::terms::until;
pub use super::terms::{AccountMeters, Ceiling, Refused, Terms, Want, Windows};
use crate::model::moment::Moment;
use crate::model::urgency::{Class, Urgency};
use crate::rules::calendar::Steady;
use crate::rules::fairness::Line;
use crate::rules::ledger::{Ledger, Now, Standing};
use crate::rules::pause::{Gate, Pause};
use crate::rules::promises::Promises;
use crate::rules::records::{Record, Spending};
use crate::rules::rest::Rest;
use crate::rules::told::Told;

/// One account's quota, shared by every route that uses it.
#[derive(Debug)]
pub struct Account {
    pub(super) terms: ArcSwap<Terms>,
    books: Mutex<Books>,
    /// Something changed that may let somebody through, or end the line.
    pub(super) changed: Notify,
    pub(super) tasks: Tasks,
    pub(super) clock: Clock,
    pub(super) meters: AccountMeters,
    name: String,
}

/// What happens to a call that wants a grant.
enum Entered<'a> {
    Granted(Grant),
    Waits(InLine<'a>),
}

impl Account {
    /// An account of these windows, of which was spent what its journal says.
    pub fn new(
        windows: Windows<'_>,
        terms: Terms,
        (clock, tasks, journal): (Clock, Tasks, Option<Journal>),
        (name, meters): (&str, AccountMeters),
    ) -> Arc<Self> {
        let (at, date) = (clock.now(), clock.wall());
        let now = Now { at, date };
        let mut pause = Pause::default();
        let closed = journal.as_ref().and_then(|journal| journal.kept().closed);
        if let Some(left) = closed.and_then(|until| until.duration_since(date).ok()) {
            pause.close(at + left);
        }
        let mut books = Books {
            ledger: Ledger::new(&[], 1, now),
            line: Line::default(),
            rest: Rest::default(),
            pause,
            promises: Promises::default(),
            dispatched: false,
            journal,
            steady: Steady::new(at, date),
            remaining: Vec::new(),
        };
        books.open(now, windows);
        books.ledger.nobody_waits_beyond(terms.max_wait);
        let account = Self {
            terms: ArcSwap::from_pointee(terms),
            books: Mutex::new(books),
            changed: Notify::new(),
            tasks,
            clock,
            meters,
            name: name.to_owned(),
        };
        account.refresh();
        Arc::new(account)
    }

    /// From now on calls are counted by these windows and wait by these terms. What was spent, and who waits, stays.
    pub fn adapt(&self, windows: Windows<'_>, terms: Terms) {
        self.change(|books, now| {
            if !books.ledger.is_of(windows.rules, windows.instances) {
                books.open(now, windows);
            }
            books.ledger.nobody_waits_beyond(terms.max_wait);
            self.terms.store(Arc::new(terms));
        });
    }

    /// Waits for a grant as long as its urgency says, and no longer than the account allows.
    ///
    /// # Errors
    /// Why there is none, at once where waiting cannot help.
    pub async fn acquire(self: &Arc<Self>, want: Want) -> Result<Grant, Refused> {
        let began = self.clock.now();
        let (result, waited) = match self.enter(want, began)? {
            Entered::Granted(grant) => (Ok(grant), Duration::ZERO),
            Entered::Waits(place) => (place.wait().await, self.clock.now().since(began)),
        };
        self.meters.waits.observe(waited.as_secs_f64());
        result
    }

    fn enter(self: &Arc<Self>, want: Want, began: Moment) -> Result<Entered<'_>, Refused> {
        let terms = self.terms.load();
        let mut books = self.books();
        let now = books.now(&self.clock);
        let class = want.urgency.class();
        books.may_be_asked(now)?;
        let told = books.promises.take_up(class, want.payer, want.question);
        let came_back = told.is_some_and(|told| told.at <= now.at);
        // Whoever comes while nobody waits need not be paced. A lower class is all the same, where a whole window of it fits
        // into its wait: a burst that filled the window could not be taken back when somebody comes who is in a hurry.
        let is_paced = class > Class::Interactive && books.ledger.is_paced();
        if books.line.is_empty()
            && (!is_paced || books.ledger.is_due(now))
            && books.admits(now, class)
            && let Some(permit) = terms.ceiling.try_place()
        {
            books.expect(now, &want);
            return self.grant(&mut books, now, permit).map(Entered::Granted);
        }
        // Whoever comes back when told is not sent away again for a little.
        let patience = if came_back { terms.max_wait.mul_f64(1.5) } else { terms.max_wait };
        let longest = began + patience;
        let until = until(&want.urgency, longest);
        let number = told.map_or_else(|| books.line.draw(), |told| told.number);
        if !books.is_worth_waiting(now, &want, until, (number, came_back)) {
            return Err(match books.waits_for_place(now, class, &terms) {
                true => Refused::Busy,
                false => books.send_away(now, &want, number, terms.max_waiting),
            });
        }
        if books.line.len() >= terms.max_waiting {
            return Err(Refused::Full);
        }
        let (give, given) = oneshot::channel();
        let waiting = Waiting { want: want.clone(), number, longest, give };
        let ticket = books.line.join(class, want.payer, want.weight, number, waiting);
        self.meters.waiting[class.place()].inc();
        if !std::mem::replace(&mut books.dispatched, true) {
            self.tasks.spawn(self.clone().dispatch());
        }
        drop(books);
        self.changed.notify_one();
        Ok(Entered::Waits(InLine::new(self, want, ticket, given, longest)))
    }

    /// Spends: what must be true has been looked at, under the same lock.
    pub(super) fn grant(
        self: &Arc<Self>,
        books: &mut Books,
        now: Now,
        permit: OwnedSemaphorePermit,
    ) -> Result<Grant, Refused> {
        books.write_leases(now, &self.tasks)?;
        // Whoever passes here while the account rests is its one probe.
        books.rest.admit(now.at).map_err(|retry_after| Refused::Resting { retry_after })?;
        let probe = (books.pause.admit(now.at) == Gate::OneProbe).then(|| {
            books.pause.probe();
            Probe::new(self.clone())
        });
        let over = books.ledger.begin(now);
        self.meters.shadow.inc_by(over as u64);
        self.report(books, now);
        self.meters.permits.inc();
        Ok(Grant::new(self.clone(), now.at, probe, permit))
    }

    /// Writes down what was leased and not spent, so that it is not lost: the last thing done with an account.
    pub fn settle(&self) {
        self.change(|books, now| {
            let Some(journal) = books.journal.take() else { return };
            let rules: Vec<String> = books.ledger.rules().map(|rule| rule.per.to_string()).collect();
            for (place, calls) in books.ledger.unspent() {
                let window = rules.get(place).cloned().unwrap_or_default();
                // Where it cannot be written it counts as spent, which is safe.
                let _ = journal.write(&Record::Unspent(Spending { window, calls, at: now.date }));
            }
            journal.sync();
        });
    }

    /// Brings the gauges up to date: slots come free with time alone.
    pub fn refresh(&self) {
        let mut books = self.books();
        let now = books.now(&self.clock);
        self.report(&mut books, now);
    }

    /// The upstream refused the account's credentials, which are still the same when read again or are `renewed`.
    pub fn refused(&self, renewed: bool) {
        self.change(|books, now| if renewed { books.rest.renewed() } else { books.rest.refused(now.at) });
    }

    /// The upstream accepted the account's credentials.
    pub fn accepted(&self) {
        if self.books().rest != Rest::Working {
            self.change(|books, _| books.rest.accepted());
        }
    }

    /// The upstream answered a call, which was the probe of a closed account or not, and may have sent it away: what it says
    /// of its limits counts.
    pub fn hear(&self, told: &Told, sent_away: bool, probe: Option<Probe>) {
        if told.words.is_empty() && !sent_away && probe.is_none() {
            return;
        }
        let longest = self.terms.load().max_pause;
        let closed = self.change(|books, now| {
            let was_open = books.pause.is_open(now.at);
            if sent_away {
                books.pause.sent_away(now.at, told.comes_back(), longest, probe.is_some());
            } else if probe.is_some() {
                books.pause.answered();
            }
            for word in &told.words {
                books.ledger.hear(now, *word, longest);
            }
            was_open && !books.pause.is_open(now.at)
        });
        if let Some(probe) = probe {
            probe.told();
        }
        if closed {
            tracing::warn!(account = self.name, figure = ?told.comes_back(), "the upstream closed an account");
        }
    }

    /// Whether a call that waits as urgently as this may pass in time, as far as the upstream's word goes.
    pub fn opens_for(&self, urgency: &Urgency) -> bool {
        let now = self.clock.now();
        let until = until(urgency, now + self.terms.load().max_wait);
        !matches!(self.books().pause.admit(now), Gate::Until(opens) if opens > until)
    }

    /// When a call of `class` could be granted at the earliest, and how much is then left for others, in millionths of the
    /// window with least: by these the accounts of a pool are chosen.
    pub fn prospect(&self, class: Class) -> (Moment, u64) {
        let mut books = self.books();
        let now = books.now(&self.clock);
        let rests = match books.may_be_asked(now) {
            Err(Refused::Resting { retry_after }) => now.at + retry_after,
            _ => now.at,
        };
        let waiting = books.line.whole(class);
        let (at, _) = books.served_at(now, waiting, class);
        // Nobody waits: the pace is not asked.
        let at = if waiting == 0 && books.admits(now, class) { now.at } else { at };
        let share =
            |window: Standing| u64::from(window.remaining) * 1_000_000 / u64::from(window.requests.max(1));
        (at.max(rests), books.ledger.standing(now).into_iter().map(share).min().unwrap_or(u64::MAX))
    }

    /// Its name in metrics and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How each window stands.
    pub fn standing(&self) -> Vec<Standing> {
        let mut books = self.books();
        let now = books.now(&self.clock);
        books.ledger.standing(now)
    }

    /// Something about the account changed: whoever waits may be concerned.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Books, Now) -> T) -> T {
        let mut books = self.books();
        let now = books.now(&self.clock);
        let changed = change(&mut books, now);
        self.report(&mut books, now);
        drop(books);
        self.changed.notify_one();
        changed
    }

    fn report(&self, books: &mut Books, now: Now) {
        for (remaining, gauge) in books.ledger.remaining(now).zip(&books.remaining) {
            gauge.set(remaining.into());
        }
        let rests = matches!(books.rest, Rest::Resting { .. });
        self.meters.paused.set((rests || !books.pause.is_open(now.at)).into());
    }

    // A panic elsewhere must not stop the account: the counts are consistent after every statement.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
