//! flight: `Fetch → Call`. One upstream call per key, however many wait: the call is a task of its own, so that
//! clients come and go without harming it, and every failure is told to each of them once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use tokio::sync::{oneshot, watch};
use tower_layer::Layer;

use super::Stage;
use crate::model::cache_status::{CacheStatus, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Call, Content, Fetch, Sharing, Timing};
use crate::model::fault::Called;
use crate::model::urgency::Urgency;
use crate::model::{Fault, FaultKind, Interim, Key, Moment, Sent};
use crate::rules::vary;
use crate::state::clock::Clock;
use crate::state::flights::{Flights, Landing, Seat, Underway, Waits};
use crate::state::relay::Relay;
use crate::state::store::{Found, Store};
use crate::state::tasks::Tasks;

/// How often a client joins another flight because the one it waited for was not for it after all.
const MOST_FLIGHTS: usize = 3;

/// What is refused at once takes a moment to be told, however short a client's patience is.
const TO_BE_TOLD: Duration = Duration::from_millis(20);

/// The layer.
#[derive(Debug, Clone)]
pub struct FlightLayer {
    /// The entries: looked at once more before a flight begins.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Where flights run.
    pub tasks: Tasks,
    /// Those under way.
    pub aloft: Flights,
    /// The most clients that may wait for one flight.
    pub max_waiters_per_key: usize,
    /// The most clients that may wait in all; hits go on being served beside them.
    pub max_waiters: usize,
}

/// The stage.
pub struct Flight<S> {
    given: FlightLayer,
    /// Which way of requests this is: clients of different ways cannot be told apart by their places.
    way: usize,
    /// Shared with the flights.
    inner: Arc<S>,
}

impl<S> fmt::Debug for Flight<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("given", &self.given).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for FlightLayer {
    type Service = Flight<S>;

    fn layer(&self, inner: S) -> Flight<S> {
        Flight { given: self.clone(), way: self.aloft.next_way(), inner: Arc::new(inner) }
    }
}

/// What a client does about its key.
enum Joined {
    /// Waits for somebody else's flight.
    Passenger(Seat),
    /// Waits for its own, which may also bring what cannot be shared.
    Pilot(Seat, oneshot::Receiver<Answer>),
    /// Somebody landed between the look at the store and the look at the flights.
    Landed(Arc<Entry>),
}

impl<S: Stage<Call> + 'static> Stage<Fetch> for Flight<S> {
    async fn call(&self, fetch: Fetch) -> Result<Answer, Fault> {
        let _counted = self.count()?;
        let Sharing::Shared { held } = fetch.sharing else {
            return self.alone(fetch).await;
        };
        let began = self.given.clock.now();
        for _ in 0..MOST_FLIGHTS {
            let joined = self.given.clock.now();
            let (mut seat, own) = match self.join(&fetch, held)? {
                Joined::Landed(entry) => {
                    let status = entry.status.as_u16();
                    return Ok(self.collapsed(entry, began, (fetch.why, status, true)));
                }
                Joined::Pilot(seat, own) => (seat, Some(own)),
                Joined::Passenger(seat) => (seat, None),
            };
            let Some(landing) = self.in_time(fetch.deadline, seat.landed()).await else {
                return Err(out_of_patience(fetch.hurried));
            };
            match (landing, own) {
                (Landing::Shared(entry, age, cache, timing), Some(_)) => {
                    return Ok(Answer { content: Content::Held(entry, age), cache, timing });
                }
                // Another variant, or erased before this client came: the next flight is for those who want what it wants.
                (Landing::Shared(entry, _, cache, _), None) => {
                    let erased =
                        self.given.store.erased(&fetch.question.key, entry.groups(), seat.flight.began);
                    if selects(&entry, &fetch.headers) && erased.is_none_or(|at| at > joined) {
                        let (status, stored) = match cache {
                            CacheStatus::Forwarded { status, stored, .. } => (status, stored),
                            _ => (entry.status.as_u16(), false),
                        };
                        return Ok(self.collapsed(entry, began, (fetch.why, status, stored)));
                    }
                }
                // A call that says something of its own client alone: its patience, or its empty budget.
                (Landing::Failed(fault), None) if self.is_about_the_pilot(&fault, &seat.flight, &fetch) => {}
                (Landing::Failed(fault), _) => return Err(fault),
                (Landing::Stored | Landing::Unshared, Some(own)) => {
                    return own.await.map_err(|_| FaultKind::Internal.into());
                }
                (Landing::Stored, None) => {}
                (Landing::Unshared, None) => break,
            }
        }
        self.alone(Fetch { sharing: Sharing::Alone { keep: true }, ..fetch }).await
    }
}

impl<S: Stage<Call> + 'static> Flight<S> {
    /// A call of its own, which ends with its client's patience.
    async fn alone(&self, fetch: Fetch) -> Result<Answer, Fault> {
        let (deadline, hurried) = (fetch.deadline, fetch.hurried);
        // Boxed: moved into a timeout it would be copied several times, with room for every stage below.
        let called = self.in_time(deadline, Box::pin(self.inner.call(fetch.into()))).await;
        called.unwrap_or_else(|| Err(out_of_patience(hurried)))
    }

    fn count(&self) -> Result<Waits<'_>, Fault> {
        let (waits, before) = self.given.aloft.wait();
        if before < self.given.max_waiters { Ok(waits) } else { Err(overloaded()) }
    }

    fn join(&self, fetch: &Fetch, held: Option<Moment>) -> Result<Joined, Fault> {
        let key = &fetch.question.key;
        let sent = |name: &HeaderName| vary::combined(&fetch.headers, name);
        let course = self.given.store.variant(key, sent);
        let mut table = self.given.aloft.table();
        // One that began before its key was erased is for those who wait for it already.
        let aloft =
            table.get(&course).filter(|flight| self.given.store.erased(key, &[], flight.began).is_none());
        if let Some(flight) = aloft {
            if flight.land.receiver_count() >= self.given.max_waiters_per_key {
                return Err(overloaded());
            }
            board(&flight.relay, fetch);
            flight.urgency.raise(fetch.class, fetch.deadline);
            return Ok(Joined::Passenger(Seat::aboard(flight)));
        }
        // A flight stores before it leaves the table, so whoever finds the table empty may find its answer here.
        if let Found::Entry(entry) = self.given.store.find(key, sent)
            && held.is_none_or(|held| entry.arrived > held)
        {
            return Ok(Joined::Landed(entry));
        }
        let flight = Arc::new(Underway {
            land: watch::Sender::new(None),
            began: self.given.clock.now(),
            urgency: Urgency::new(fetch.class, fetch.deadline),
            deadline: fetch.deadline,
            client: (self.way, fetch.client),
            relay: Arc::default(),
            sent: Sent::default(),
        });
        board(&flight.relay, fetch);
        table.insert(course.clone(), flight.clone());
        let seat = Seat::aboard(&flight);
        drop(table);
        Ok(Joined::Pilot(seat, self.take_off(fetch, course, flight)))
    }

    /// Begins a flight; what it brings that cannot be shared comes by the receiver.
    fn take_off(&self, fetch: &Fetch, course: Key, flight: Arc<Underway>) -> oneshot::Receiver<Answer> {
        let call = Call {
            client: fetch.client,
            route: fetch.route,
            method: fetch.method.clone(),
            question: fetch.question.clone(),
            headers: fetch.headers.clone(),
            body: crate::model::Body::Empty,
            urgency: flight.urgency.clone(),
            again: false,
            keep: true,
            validates: fetch.validates.clone(),
            interim: Some(Interim::to(flight.relay.clone())),
            sent: flight.sent.clone(),
            why: fetch.why,
        };
        let place = self.given.aloft.place(course, flight);
        let inner = self.inner.clone();
        let (store, key) = (self.given.store.clone(), fetch.question.key.clone());
        let (give, own) = oneshot::channel();
        self.given.tasks.spawn(async move {
            let result = tokio::select! {
                result = Box::pin(inner.call(call)) => result,
                () = place.deserted() => return,
            };
            let landing = match result {
                Err(fault) => Landing::Failed(fault),
                Ok(Answer { content: Content::Held(entry, age), cache, timing }) => {
                    Landing::Shared(entry, age, cache, timing)
                }
                Ok(answer) => {
                    let stored = matches!(answer.cache, CacheStatus::Forwarded { stored: true, .. });
                    if !stored {
                        store.remember_unshared(&key);
                    }
                    // If its client has left, the answer is dropped here, and its connection with it.
                    let _ = give.send(answer);
                    if stored { Landing::Stored } else { Landing::Unshared }
                }
            };
            place.land(landing);
        });
        own
    }

    /// The answer for a client that waited for somebody else's call, which was answered with this status and stored or not.
    fn collapsed(&self, entry: Arc<Entry>, began: Moment, (why, status, stored): (Why, u16, bool)) -> Answer {
        let now = self.given.clock.now();
        let age = entry.age(now);
        Answer {
            content: Content::Held(entry, age),
            cache: CacheStatus::Forwarded { why, status, stored, collapsed: true },
            timing: Timing { wait: now.since(began), upstream: None },
        }
    }

    /// Whether a failure speaks of the client whose call it was and not of this one: its patience was shorter, or its budget
    /// is spent.
    fn is_about_the_pilot(&self, fault: &Fault, flight: &Underway, fetch: &Fetch) -> bool {
        match fault.kind {
            FaultKind::QuotaExceeded => flight.deadline < fetch.deadline,
            FaultKind::BudgetSpent => flight.client != (self.way, fetch.client),
            _ => false,
        }
    }

    async fn in_time<T>(&self, deadline: Moment, future: impl Future<Output = T>) -> Option<T> {
        let left = deadline.since(self.given.clock.now()).max(TO_BE_TOLD);
        tokio::time::timeout(left, future).await.ok()
    }
}

fn board(relay: &Relay, fetch: &Fetch) {
    if let Some(client) = &fetch.interim {
        relay.board(client);
    }
}

fn overloaded() -> Fault {
    Fault::new(FaultKind::Overloaded).retry_after(Duration::from_secs(1))
}

fn selects(entry: &Entry, sent: &HeaderMap) -> bool {
    vary::selects(entry, |name| vary::combined(sent, name))
}

/// The client's patience ended, its own or its route's; its flight goes on for the others.
fn out_of_patience(hurried: bool) -> Fault {
    let kind = if hurried { FaultKind::ClientTimeout } else { FaultKind::UpstreamTimeout };
    Fault::new(kind).called(Called::Maybe).detail("the answer did not come in time")
}
