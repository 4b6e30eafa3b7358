//! Waiting for an account: a place in its line, and the task that grants while anyone is there.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::books::Books;
use super::grant::Grant;
use super::quota::Account;
use super::terms::{Refused, Want, until};
use crate::model::moment::Moment;
use crate::model::urgency::{Class, Urgency};
use crate::rules::fairness::{Number, Ticket};
use crate::rules::ledger::Now;
use crate::rules::pause::{FIRST_GAP, Gate};

/// One who waits, as the line holds it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) want: Want,
    pub(super) number: Number,
    /// How long the account lets it wait at most.
    pub(super) longest: Moment,
    pub(super) give: oneshot::Sender<Result<Grant, Refused>>,
}

impl Waiting {
    /// Until when it waits.
    pub(super) fn until(&self) -> Moment {
        until(&self.want.urgency, self.longest)
    }

    fn tell(self, result: Result<Grant, Refused>) {
        // Whoever has left meanwhile gives its grant back by dropping it.
        let _ = self.give.send(result);
    }
}

/// A place in the line, given up when dropped: a client that leaves leaves it at once.
pub(super) struct InLine<'a> {
    account: &'a Arc<Account>,
    want: Want,
    class: Class,
    ticket: Ticket,
    given: oneshot::Receiver<Result<Grant, Refused>>,
    longest: Moment,
}

impl<'a> InLine<'a> {
    pub(super) fn new(
        account: &'a Arc<Account>,
        want: Want,
        ticket: Ticket,
        given: oneshot::Receiver<Result<Grant, Refused>>,
        longest: Moment,
    ) -> Self {
        Self { account, want, class: ticket.class(), ticket, given, longest }
    }

    /// Until it is granted, refused, or out of time.
    pub(super) async fn wait(mut self) -> Result<Grant, Refused> {
        loop {
            let until = self.until();
            let left = until.since(self.account.clock.now());
            tokio::select! {
                biased;
                given = &mut self.given => return given.unwrap_or(Err(Refused::Busy)),
                () = better(&self.want.urgency, self.class) => self.promote(),
                () = tokio::time::sleep(left) => {
                    // Somebody more patient may have joined.
                    if self.until() <= until {
                        return Err(self.account.out_of_time(&self.want, self.ticket.number()));
                    }
                }
            }
        }
    }

    fn until(&self) -> Moment {
        until(&self.want.urgency, self.longest)
    }

    fn promote(&mut self) {
        let class = self.want.urgency.class();
        if class < self.class {
            let mut books = self.account.books();
            self.ticket = books.line.promote(self.ticket, class);
            drop(books);
            let waiting = &self.account.meters.waiting;
            waiting[self.class.place()].dec();
            waiting[class.place()].inc();
            self.class = class;
            self.account.changed.notify_one();
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let left = self.account.books().line.leave(self.ticket);
        self.account.meters.waiting[self.class.place()].dec();
        if left.is_some() {
            self.account.changed.notify_one();
        }
    }
}

/// Until a call is of a better class than `class`.
async fn better(urgency: &Urgency, class: Class) {
    poll_fn(|cx| {
        urgency.watch(cx.waker());
        if urgency.class() < class { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What the task that grants does next.
enum Step {
    /// Nobody waits.
    End,
    /// Nothing before this moment.
    Sleep(Duration),
    /// Nothing before something changes.
    Change,
    /// Somebody may be granted who finds a place under the ceiling.
    Grant,
    /// These cannot be granted in time.
    Refuse(Waiting, Refused),
}

impl Account {
    /// Grants while anyone waits.
    pub(super) async fn dispatch(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that nothing between the two is missed.
            changed.as_mut().enable();
            match self.step() {
                Step::End => return,
                Step::Refuse(waiting, refused) => waiting.tell(Err(refused)),
                Step::Change => changed.await,
                Step::Sleep(time) => {
                    // The timer's grain is a millisecond; a slot is never taken early, only found a little late.
                    tokio::select! {
                        () = tokio::time::sleep(time) => {}
                        () = changed => {}
                    }
                }
                Step::Grant => {
                    let ceiling = self.terms.load().ceiling.clone();
                    tokio::select! {
                        biased;
                        permit = ceiling.place() => {
                            if let Some((waiting, result)) = permit.and_then(|permit| self.serve(permit)) {
                                waiting.tell(result);
                            }
                        }
                        () = changed => {}
                    }
                }
            }
        }
    }

    fn step(&self) -> Step {
        let mut books = self.books();
        let now = books.now(&self.clock);
        if books.line.is_empty() {
            books.dispatched = false;
            return Step::End;
        }
        let rests = books.may_be_asked(now).err();
        if rests.is_none() && books.ledger.is_due(now) && admitted(&mut books, now).contains(&true) {
            return Step::Grant;
        }
        let mut next: Option<Moment> = None;
        for class in Class::ALL {
            let Some(until) = books.line.first(class).map(Waiting::until) else { continue };
            let (at, refused) = books.served_at(now, 0, class);
            let refused = match rests.clone() {
                Some(rests) => Some(rests),
                None => (at > until).then_some(refused),
            };
            if let Some(refused) = refused {
                let only = Class::ALL.map(|other| other == class);
                if let Some(waiting) = books.line.serve(only) {
                    let terms = self.terms.load();
                    let refused = match refused {
                        Refused::Spent { .. } => {
                            books.send_away(now, &waiting.want, waiting.number, terms.max_waiting)
                        }
                        other => other,
                    };
                    return Step::Refuse(waiting, refused);
                }
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        match next {
            Some(at) if at > now.at => Step::Sleep(at.since(now.at)),
            // A probe is under way: its end is told.
            _ => Step::Change,
        }
    }

    /// Grants whoever is next, if anybody still is.
    fn serve(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Option<(Waiting, Result<Grant, Refused>)> {
        let mut books = self.books();
        let now = books.now(&self.clock);
        if !books.ledger.is_due(now) || books.may_be_asked(now).is_err() {
            return None;
        }
        let admitted = admitted(&mut books, now);
        let waiting = books.line.serve(admitted)?;
        books.expect(now, &waiting.want);
        let result = self.grant(&mut books, now, permit);
        Some((waiting, result))
    }

    /// What is said to whoever has waited in vain: its number is kept.
    fn out_of_time(&self, want: &Want, number: Number) -> Refused {
        let terms = self.terms.load();
        let mut books = self.books();
        let now = books.now(&self.clock);
        let class = want.urgency.class();
        if books.waits_for_place(now, class, &terms) {
            return Refused::Busy;
        }
        if matches!(books.pause.admit(now.at), Gate::Probing | Gate::OneProbe) {
            return Refused::Paused { retry_after: FIRST_GAP };
        }
        books.send_away(now, want, number, terms.max_waiting)
    }
}

/// Which classes somebody waits in whom the windows admit.
fn admitted(books: &mut Books, now: Now) -> [bool; Class::ALL.len()] {
    Class::ALL.map(|class| books.line.waiting(class) > 0 && books.admits(now, class))
}
