//! One call's interim responses for everyone who waits for it, those who come late included.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use http::header::HeaderMap;

use crate::model::interim::{Interim, TakesInterim};

/// How many are kept for those who come late.
const MOST_KEPT: usize = 8;

/// Passes interim responses on to whoever is aboard.
#[derive(Debug, Default)]
pub struct Relay(Mutex<Aboard>);

#[derive(Debug, Default)]
struct Aboard {
    said: Vec<(StatusCode, HeaderMap)>,
    clients: Vec<Interim>,
}

impl Relay {
    /// One more client waits, and hears what was said before.
    pub fn board(&self, client: &Interim) {
        let mut aboard = self.aboard();
        for (status, headers) in &aboard.said {
            client.take(*status, headers);
        }
        aboard.clients.push(client.clone());
    }

    // A panic elsewhere must not silence a flight: the lists are consistent after every statement.
    fn aboard(&self) -> MutexGuard<'_, Aboard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakesInterim for Relay {
    fn take(&self, _: u64, status: StatusCode, headers: &HeaderMap) {
        let mut aboard = self.aboard();
        for client in &aboard.clients {
            client.take(status, headers);
        }
        if aboard.said.len() < MOST_KEPT {
            aboard.said.push((status, headers.clone()));
        }
    }

    fn current(&self) -> u64 {
        0
    }
}
