//! The flights under way: upstream calls that several clients wait for, by what they ask, and how each ends. Who waits
//! boards under one lock, so that nobody misses a landing; a flight that nobody waits for leaves, unless it was sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;

use super::relay::Relay;
use crate::model::cache_status::CacheStatus;
use crate::model::entry::Entry;
use crate::model::exchange::{ClientId, Timing};
use crate::model::fault::Called;
use crate::model::key::{BuildKeyHasher, Key};
use crate::model::urgency::Urgency;
use crate::model::{Fault, FaultKind, Moment, Sent};

/// Every flight under way. Clones share them; a reload keeps them, so that what was asked before it is not asked twice.
#[derive(Debug, Clone)]
pub struct Flights(Arc<Aloft>);

/// Which flight a question is aboard.
pub type Table = HashMap<Key, Arc<Underway>, BuildKeyHasher>;

#[derive(Debug)]
struct Aloft {
    table: Mutex<Table>,
    /// How many clients wait in all.
    waiting: AtomicUsize,
    /// How many ways of requests there have been.
    ways: AtomicUsize,
    active: IntGauge,
}

/// A flight that has not landed.
#[derive(Debug)]
pub struct Underway {
    /// Who waits listens here.
    pub land: watch::Sender<Option<Landing>>,
    /// What is erased after this moment is not brought to whoever asks later.
    pub began: Moment,
    /// How urgently its call waits for a grant: those who join raise it.
    pub urgency: Arc<Urgency>,
    /// Until when whoever began it waits.
    pub deadline: Moment,
    /// Whose call it is, and by which way it came.
    pub client: (usize, ClientId),
    /// Tells those who wait what is said before the answer.
    pub relay: Arc<Relay>,
    /// Whether the call was sent.
    pub sent: Sent,
}

/// How a flight ended.
#[derive(Debug, Clone)]
pub enum Landing {
    /// With an answer for everyone whose fields select it.
    Shared(Arc<Entry>, Duration, CacheStatus, Timing),
    /// With an answer that is nobody else's, but of which something was stored for the others.
    Stored,
    /// With an answer that is nobody else's: the others go on their own, all at once.
    Unshared,
    /// With a failure.
    Failed(Fault),
}

impl Flights {
    /// None yet; how many there are shows on `active`.
    pub fn new(active: IntGauge) -> Self {
        Self(Arc::new(Aloft {
            table: Mutex::default(),
            waiting: AtomicUsize::new(0),
            ways: AtomicUsize::new(0),
            active,
        }))
    }

    /// A number for one more way of requests.
    pub fn next_way(&self) -> usize {
        self.0.ways.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts one more client that waits; how many did before it.
    pub fn wait(&self) -> (Waits<'_>, usize) {
        let before = self.0.waiting.fetch_add(1, Ordering::Relaxed);
        (Waits(&self.0.waiting), before)
    }

    /// The table, held. A panic elsewhere must not end all flights: it is consistent after every statement.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place that `flight` has under `course`.
    pub fn place(&self, course: Key, flight: Arc<Underway>) -> Place {
        self.0.active.inc();
        Place { flights: self.clone(), course, flight }
    }
}

/// Counts a client for as long as it waits.
#[derive(Debug)]
pub struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's seat aboard.
#[derive(Debug)]
pub struct Seat {
    /// The flight.
    pub flight: Arc<Underway>,
    landing: watch::Receiver<Option<Landing>>,
}

impl Seat {
    /// One more aboard; the table is held meanwhile.
    pub fn aboard(flight: &Arc<Underway>) -> Self {
        Self { flight: flight.clone(), landing: flight.land.subscribe() }
    }

    /// Waits for the landing.
    pub async fn landed(&mut self) -> Landing {
        // Cloned at once: what is lent holds a lock. The flight, hence its sender, is held by the seat itself.
        let landing = self.landing.wait_for(Option::is_some).await.map(|landing| landing.clone());
        landing.ok().flatten().unwrap_or_else(lost)
    }
}

/// A flight's place in the table; given up when the flight ends, however it ends.
#[derive(Debug)]
pub struct Place {
    flights: Flights,
    course: Key,
    flight: Arc<Underway>,
}

impl Place {
    /// Tells everyone who waits. Out of the table first: whoever comes now looks at the store, or begins anew.
    pub fn land(&self, landing: Landing) {
        self.leave(&mut self.flights.table());
        self.flight.land.send_replace(Some(landing));
    }

    /// Waits until nobody waits for a call that was not sent. One that was sent goes on: it is paid for, and kept.
    pub async fn deserted(&self) {
        loop {
            self.flight.land.closed().await;
            // Nobody boards while the table is held.
            let mut table = self.flights.table();
            if self.flight.sent.is_marked() {
                break;
            }
            if self.flight.land.receiver_count() == 0 {
                return self.leave(&mut table);
            }
        }
        std::future::pending::<()>().await;
    }

    fn leave(&self, table: &mut Table) {
        // Another may have taken its place, if what it brings was erased.
        if table.get(&self.course).is_some_and(|held| Arc::ptr_eq(held, &self.flight)) {
            table.remove(&self.course);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Ended without landing: a panic, counted where it happened, or nobody is left who could hear it.
        if self.flight.land.borrow().is_none() {
            self.land(lost());
        }
        self.flights.0.active.dec();
    }
}

fn lost() -> Landing {
    Landing::Failed(Fault::new(FaultKind::Internal).called(Called::Maybe))
}
