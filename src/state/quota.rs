//! What an account may still spend, and who waits for it: the decisions of `rules::ledger`, `fairness`, `pause` and `rest`
//! under one lock, and one task that grants while anyone waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::clock::Clock;
use super::grant::{Grant, Probe};
use super::line::{InLine, Waiting};
use super::tasks::Tasks;
use crate::model::moment::Moment;
use crate::model::urgency::{Class, Urgency};
use crate::rules::calendar::Steady;
use crate::rules::fairness::{Line, Payer};
use crate::rules::ledger::{Ledger, Now, QuotaRule};
use crate::rules::pause::{Gate, Pause};
use crate::rules::promises::{Promise, Promises};
use crate::rules::rest::Rest;

/// The most calls an upstream bears at once. Clones share it.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<Semaphore>);

impl PartialEq for Ceiling {
    /// The same ceiling, not merely the same number.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Ceiling {
    /// At most `calls` at once.
    pub fn new(calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))))
    }

    /// A place under it, once there is one. It is never closed, so there always will be.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }

    /// Whether there is none.
    pub(super) fn is_full(&self) -> bool {
        self.0.available_permits() == 0
    }

    fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// How calls may wait for an account; may change while it is used.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The longest a call may wait.
    pub max_wait: Duration,
    /// The most calls that may wait at once.
    pub max_waiting: usize,
    /// The longest the upstream's word closes the account.
    pub max_pause: Duration,
    /// What the upstream bears at once.
    pub ceiling: Ceiling,
}

/// What an account reports.
#[derive(Debug, Clone)]
pub struct AccountMeters {
    /// Grants that are held.
    pub permits: IntGauge,
    /// Calls that wait, by class.
    pub waiting: [IntGauge; Class::ALL.len()],
    /// How long calls waited, in seconds.
    pub waits: Histogram,
    /// What each window still admits.
    pub remaining: Vec<IntGauge>,
    /// 1 while the account rests or is paused.
    pub paused: IntGauge,
    /// Calls that a window in the shadow would have refused.
    pub shadow: IntCounter,
}

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
}

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
    steady: Steady,
}

/// Who wants a grant.
#[derive(Debug, Clone)]
pub struct Want {
    /// Whose share it takes.
    pub payer: Payer,
    /// How large that share is, at least 1.
    pub weight: u32,
    /// How urgently, and until when.
    pub urgency: Arc<Urgency>,
    /// What is asked, as a word.
    pub question: u64,
    /// Whether somebody comes back who is told to: not where something stale stands in.
    pub comes_back: bool,
}

/// Why no grant was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// No slot comes free in time.
    Spent {
        /// When one does, from now.
        retry_after: Duration,
        /// The window that admits last.
        window: QuotaRule,
    },
    /// As many calls wait as may.
    Full,
    /// The upstream's ceiling is reached, and stayed so for as long as could be waited.
    Busy,
    /// The upstream refused the account's credentials; so long until the next probe.
    Resting {
        /// How long.
        retry_after: Duration,
    },
    /// The upstream, or an operator, closed the account; so long until it is asked again.
    Paused {
        /// How long.
        retry_after: Duration,
    },
}

/// A grant that comes so shortly before a deadline cannot be answered in time; refusing it then still can be told.
const LAST_MOMENT: Duration = Duration::from_millis(10);

/// Until when a call waits that waits as urgently as this, and no longer than `longest`.
pub(super) fn until(urgency: &Urgency, longest: Moment) -> Moment {
    urgency.deadline().before(LAST_MOMENT).min(longest)
}

/// What happens to a call that wants a grant.
enum Entered<'a> {
    Granted(Grant),
    Waits(InLine<'a>),
}

impl Account {
    /// An account nothing was spent of, by one of `instances` gates on it.
    pub fn new(
        rules: &[QuotaRule],
        instances: u32,
        terms: Terms,
        (clock, tasks): (Clock, Tasks),
        meters: AccountMeters,
    ) -> Arc<Self> {
        let (at, date) = (clock.now(), clock.wall());
        let books = Books {
            ledger: Ledger::new(rules, instances, Now { at, date }),
            line: Line::default(),
            rest: Rest::default(),
            pause: Pause::default(),
            promises: Promises::default(),
            dispatched: false,
            steady: Steady::new(at, date),
        };
        let account = Self {
            terms: ArcSwap::from_pointee(terms),
            books: Mutex::new(books),
            changed: Notify::new(),
            tasks,
            clock,
            meters,
        };
        account.refresh();
        Arc::new(account)
    }

    /// From now on calls wait by these terms. What was spent, and who waits, stays.
    pub fn adapt(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.changed.notify_one();
    }

    /// Waits for a grant as long as its urgency says, and no longer than the account allows.
    ///
    /// # Errors
    /// Why there is none, at once where waiting cannot help.
    pub async fn acquire(self: &Arc<Self>, want: Want) -> Result<Grant, Refused> {
        let began = self.clock.now();
        let result = match self.enter(want, began)? {
            Entered::Granted(grant) => Ok(grant),
            Entered::Waits(place) => place.wait().await,
        };
        self.meters.waits.observe(self.clock.now().since(began).as_secs_f64());
        result
    }

    fn enter(self: &Arc<Self>, want: Want, began: Moment) -> Result<Entered<'_>, Refused> {
        let terms = self.terms.load();
        let mut books = self.books();
        let now = books.now(&self.clock);
        let class = want.urgency.class();
        books.may_be_asked(now)?;
        let came_back = books.promises.take_up(want.payer, want.question, now.at);
        // Whoever comes while nobody waits need not be paced. A lower class is all the same, where a whole window of it fits
        // into its wait: a burst that filled the window could not be taken back when somebody comes who is in a hurry.
        let is_paced = class > Class::Interactive && books.ledger.shortest() <= terms.max_wait;
        if books.line.is_empty()
            && (!is_paced || books.ledger.is_due(now))
            && books.admits(now, class)
            && let Some(permit) = terms.ceiling.try_place()
        {
            return self.grant(&mut books, now, permit).map(Entered::Granted);
        }
        // Whoever comes back when told is not sent away again for a little.
        let patience = if came_back { terms.max_wait.mul_f64(1.5) } else { terms.max_wait };
        let longest = began + patience;
        let until = until(&want.urgency, longest);
        books.is_worth_waiting(now, &want, until, (came_back, terms.max_waiting))?;
        if books.line.len() >= terms.max_waiting {
            return Err(Refused::Full);
        }
        let (give, given) = oneshot::channel();
        let waiting = Waiting { want: want.clone(), longest, give };
        let ticket = books.line.join(class, want.payer, want.weight, waiting);
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
        for (remaining, gauge) in books.ledger.remaining(now).zip(&self.meters.remaining) {
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

impl Books {
    pub(super) fn now(&mut self, clock: &Clock) -> Now {
        let at = clock.now();
        Now { at, date: self.steady.date(at, clock.wall()) }
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
        (at, window.map_or(Refused::Busy, |window| Refused::Spent { retry_after, window }))
    }

    /// Whether a newcomer that waits `until` then is served in time. Who `came_back` when it was told to is not made to wait for others
    /// who were told so; who is sent away is told when to come, at most `most` of them.
    fn is_worth_waiting(
        &mut self,
        now: Now,
        want: &Want,
        until: Moment,
        (came_back, most): (bool, usize),
    ) -> Result<(), Refused> {
        let (class, payer) = (want.urgency.class(), want.payer);
        let line = self.line.ahead_of(class, payer, want.weight);
        let at = self.served_at(now, line, class).0;
        // Whoever comes anew does not push out those who wait and those who were told to come, beyond its share.
        let bears = came_back
            || self.promises.bear(payer, now.at, line, self.ledger.gap())
                && (self.line.is_below_share(class, payer, want.weight)
                    || self.served_at(now, self.line.whole(class), class).0 <= until);
        if at <= until && bears {
            return Ok(());
        }
        Err(self.send_away(now, want, line, (until.since(now.at), most)))
    }

    /// Why a call that stands behind `ahead` others and would `wait` so long is sent away, and when it should come back; it
    /// is expected then, unless `most` others are.
    pub(super) fn send_away(
        &mut self,
        now: Now,
        want: &Want,
        ahead: usize,
        (wait, most): (Duration, usize),
    ) -> Refused {
        self.promises.withdraw(want.payer, want.question);
        let promised = self.promises.ahead_of(want.payer, now.at);
        let (at, refused) = self.served_at(now, ahead + promised, want.urgency.class());
        // As the client will be told: in whole seconds.
        let told = now.at + Duration::from_secs(at.since(now.at + Duration::from_nanos(1)).as_secs() + 1);
        if want.comes_back {
            // Half of the wait is left to what cannot be foreseen.
            let promise = Promise { at: told, until: told + wait / 2, question: want.question };
            self.promises.make(want.payer, promise, most);
        }
        refused
    }
}
