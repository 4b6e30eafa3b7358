//! flight: `Fetch → Call`. One upstream call per key, however many wait: the call is a task of its own, so that
//! clients come and go without harming it, and every failure is told to each of them once.

use std::collections::HashMap;
use std::collections::hash_map;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::HeaderMap;
use prometheus::IntGauge;
use tokio::sync::{oneshot, watch};
use tower_layer::Layer;

use super::Stage;
use crate::model::cache_status::{CacheStatus, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Call, ClientId, Content, Fetch, Sharing, Timing};
use crate::model::fault::Called;
use crate::model::key::{BuildKeyHasher, Key};
use crate::model::urgency::{Aboard, Urgency};
use crate::model::{Fault, FaultKind, Interim, Moment};
use crate::rules::vary;
use crate::state::clock::Clock;
use crate::state::relay::Relay;
use crate::state::store::{Found, Store};
use crate::state::tasks::Tasks;

/// How often a client joins another flight because the one it waited for gave up sooner than the client would have.
const MOST_FLIGHTS: usize = 3;

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
    aloft: Arc<Aloft>,
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
        let aloft = self.aloft.0.clone();
        let way = aloft.ways.fetch_add(1, Ordering::Relaxed);
        Flight { given: self.clone(), aloft, way, inner: Arc::new(inner) }
    }
}

/// Every flight under way. Clones share them; a reload keeps them, so that what was asked before it is not asked twice.
#[derive(Debug, Clone)]
pub struct Flights(Arc<Aloft>);

impl Flights {
    /// None yet; how many there are shows on `active`.
    pub fn new(active: IntGauge) -> Self {
        let aloft = Aloft {
            flights: Mutex::default(),
            waiting: AtomicUsize::new(0),
            ways: AtomicUsize::new(0),
            active,
        };
        Self(Arc::new(aloft))
    }
}

#[derive(Debug)]
struct Aloft {
    flights: Mutex<HashMap<Key, Waiting, BuildKeyHasher>>,
    /// How many clients wait in all.
    waiting: AtomicUsize,
    /// How many ways of requests there have been.
    ways: AtomicUsize,
    active: IntGauge,
}

/// How to wait for a flight.
#[derive(Debug, Clone)]
struct Waiting {
    landing: watch::Receiver<Option<Landing>>,
    /// How urgently its call waits for a grant: those who join raise it.
    urgency: Arc<Urgency>,
    /// Until when whoever began it waits.
    deadline: Moment,
    /// Whose call it is, and by which way it came.
    client: (usize, ClientId),
    /// Tells them what is said before the answer.
    relay: Arc<Relay>,
}

/// How a flight ended.
#[derive(Debug, Clone)]
enum Landing {
    /// With an answer for everyone whose fields select it.
    Shared(Arc<Entry>, Duration, CacheStatus, Timing),
    /// With an answer that is nobody else's: the others go on their own, all at once.
    Unshared,
    /// With a failure.
    Failed(Fault),
}

/// What a client does about its key.
enum Joined {
    /// Waits for somebody else's flight.
    Passenger(Waiting, Aboard),
    /// Waits for its own, which may also bring what cannot be shared.
    Pilot(Waiting, Aboard, oneshot::Receiver<Answer>),
    /// Somebody landed between the look at the store and the look at the flights.
    Landed(Arc<Entry>),
}

impl<S: Stage<Call> + 'static> Stage<Fetch> for Flight<S> {
    async fn call(&self, fetch: Fetch) -> Result<Answer, Fault> {
        let _counted = self.count()?;
        let Sharing::Shared { held } = fetch.sharing else {
            let (deadline, hurried) = (fetch.deadline, fetch.hurried);
            return self
                .in_time(deadline, self.inner.call(fetch.into()))
                .await
                .unwrap_or_else(|| Err(out_of_patience(hurried)));
        };
        let began = self.given.clock.now();
        for _ in 0..MOST_FLIGHTS {
            let (mut waiting, _aboard, own) = match self.join(&fetch, held)? {
                Joined::Landed(entry) => return Ok(self.collapsed(entry, began, fetch.why)),
                Joined::Pilot(waiting, aboard, own) => (waiting, aboard, Some(own)),
                Joined::Passenger(waiting, aboard) => (waiting, aboard, None),
            };
            let passenger = own.is_none();
            // Cloned at once: what is lent holds a lock.
            let landed =
                async { waiting.landing.wait_for(Option::is_some).await.map(|landing| landing.clone()) };
            let landing = match self.in_time(fetch.deadline, landed).await {
                None => return Err(out_of_patience(fetch.hurried)),
                // The flight's task ended without landing: a panic, counted where it happened.
                Some(Err(_)) => return Err(FaultKind::Internal.into()),
                Some(Ok(landing)) => landing,
            };
            match landing {
                Some(Landing::Shared(entry, age, cache, timing)) if selects(&entry, &fetch.headers) => {
                    if passenger {
                        return Ok(self.collapsed(entry, began, fetch.why));
                    }
                    return Ok(Answer { content: Content::Held(entry, age), cache, timing });
                }
                // A call that says something of its own client alone: its patience, or its empty budget.
                Some(Landing::Failed(fault))
                    if passenger && self.is_about_the_pilot(&fault, &waiting, &fetch) => {}
                Some(Landing::Failed(fault)) => return Err(fault),
                Some(Landing::Shared(..) | Landing::Unshared) | None => match own {
                    Some(own) => return own.await.map_err(|_| FaultKind::Internal.into()),
                    None => break,
                },
            }
        }
        let (deadline, hurried) = (fetch.deadline, fetch.hurried);
        let alone = Fetch { sharing: Sharing::Alone { keep: true }, ..fetch };
        self.in_time(deadline, self.inner.call(alone.into()))
            .await
            .unwrap_or_else(|| Err(out_of_patience(hurried)))
    }
}

impl<S: Stage<Call> + 'static> Flight<S> {
    fn count(&self) -> Result<Waits<'_>, Fault> {
        let before = self.aloft.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.aloft.waiting);
        if before < self.given.max_waiters { Ok(waits) } else { Err(overloaded()) }
    }

    fn join(&self, fetch: &Fetch, held: Option<Moment>) -> Result<Joined, Fault> {
        let key = &fetch.question.key;
        let mut flights = self.aloft.flights();
        let vacant = match flights.entry(key.clone()) {
            hash_map::Entry::Occupied(waiting)
                if waiting.get().urgency.aboard() >= self.given.max_waiters_per_key =>
            {
                return Err(overloaded());
            }
            hash_map::Entry::Occupied(waiting) => {
                board(&waiting.get().relay, fetch);
                let aboard = waiting.get().urgency.board(fetch.class, fetch.deadline);
                return Ok(Joined::Passenger(waiting.get().clone(), aboard));
            }
            hash_map::Entry::Vacant(vacant) => vacant,
        };
        // A flight stores before it leaves the table, so whoever finds the table empty may find its answer here.
        if let Found::Entry(entry) = self.given.store.find(key, |name| vary::combined(&fetch.headers, name))
            && held.is_none_or(|held| entry.arrived > held)
        {
            return Ok(Joined::Landed(entry));
        }
        let (land, landing) = watch::channel(None);
        let (give, own) = oneshot::channel();
        let relay = Arc::<Relay>::default();
        board(&relay, fetch);
        let urgency = Urgency::new(fetch.class, fetch.deadline);
        let aboard = urgency.board(fetch.class, fetch.deadline);
        let client = (self.way, fetch.client);
        let waiting = Waiting { landing, urgency, deadline: fetch.deadline, client, relay };
        vacant.insert(waiting.clone());
        drop(flights);
        self.take_off(fetch, &waiting, land, give);
        Ok(Joined::Pilot(waiting, aboard, own))
    }

    fn take_off(
        &self,
        fetch: &Fetch,
        waiting: &Waiting,
        land: watch::Sender<Option<Landing>>,
        give: oneshot::Sender<Answer>,
    ) {
        let call = Call {
            client: fetch.client,
            route: fetch.route,
            method: fetch.method.clone(),
            question: fetch.question.clone(),
            headers: fetch.headers.clone(),
            body: crate::model::Body::Empty,
            urgency: waiting.urgency.clone(),
            again: false,
            keep: true,
            validates: fetch.validates.clone(),
            interim: Some(Interim::to(waiting.relay.clone())),
            why: fetch.why,
        };
        self.aloft.active.inc();
        let entered = Entered { aloft: self.aloft.clone(), key: fetch.question.key.clone() };
        let inner = self.inner.clone();
        let (store, key) = (self.given.store.clone(), fetch.question.key.clone());
        self.given.tasks.spawn(async move {
            let result = Box::pin(inner.call(call)).await;
            let landing = match result {
                Err(fault) => Landing::Failed(fault),
                Ok(Answer { content: Content::Held(entry, age), cache, timing }) => {
                    Landing::Shared(entry, age, cache, timing)
                }
                Ok(answer) => {
                    if !matches!(answer.cache, CacheStatus::Forwarded { stored: true, .. }) {
                        store.remember_unshared(&key);
                    }
                    // If its client has left, the answer is dropped here, and its connection with it.
                    let _ = give.send(answer);
                    Landing::Unshared
                }
            };
            // Out of the table first: whoever comes now looks at the store, or begins anew.
            drop(entered);
            let _ = land.send(Some(landing));
        });
    }

    /// The answer for a client that waited for somebody else's call.
    fn collapsed(&self, entry: Arc<Entry>, began: Moment, why: Why) -> Answer {
        let now = self.given.clock.now();
        let age = entry.age(now);
        let cache =
            CacheStatus::Forwarded { why, status: entry.status.as_u16(), stored: false, collapsed: true };
        Answer {
            content: Content::Held(entry, age),
            cache,
            timing: Timing { wait: now.since(began), upstream: None },
        }
    }

    /// Whether a failure speaks of the client whose call it was and not of this one: its patience was shorter, its budget
    /// is spent, or it left, and everybody with it, just before this one came.
    fn is_about_the_pilot(&self, fault: &Fault, waiting: &Waiting, fetch: &Fetch) -> bool {
        match fault.kind {
            FaultKind::QuotaExceeded => waiting.deadline < fetch.deadline,
            FaultKind::ClientTimeout => true,
            FaultKind::BudgetSpent => waiting.client != (self.way, fetch.client),
            _ => false,
        }
    }

    async fn in_time<T>(&self, deadline: Moment, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(deadline.since(self.given.clock.now()), future).await.ok()
    }
}

/// A flight's place in the table; given up when the flight ends, however it ends.
struct Entered {
    aloft: Arc<Aloft>,
    key: Key,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.aloft.flights().remove(&self.key);
        self.aloft.active.dec();
    }
}

impl Aloft {
    // A panic elsewhere must not end all flights: the table is consistent after every statement.
    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Waiting, BuildKeyHasher>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a client for as long as it waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
