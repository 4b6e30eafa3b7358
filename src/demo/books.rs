//! What the simulated Octopush remembers of its calls.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::sync::watch;

use super::dice::Dice;
use super::limit::Window;

/// How many requests are remembered.
pub const REMEMBERED: usize = 2_000;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, still encoded.
    pub path: String,
    /// What followed the `?`, still encoded; empty without one.
    pub query: String,
    /// All its headers, credentials included.
    pub headers: HeaderMap,
}

/// What happened so far.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) window: Window,
    pub(super) refused: u64,
    pub(super) violations: u64,
    /// Calls that got past every refusal.
    pub(super) admitted: u64,
    pub(super) peak: u64,
    pub(super) seen: VecDeque<Seen>,
    pub(super) dice: Dice,
    present: u64,
}

impl Books {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            window: Window::default(),
            refused: 0,
            violations: 0,
            admitted: 0,
            peak: 0,
            seen: VecDeque::new(),
            dice: Dice::new(seed),
            present: 0,
        }
    }
}

/// A request in progress: it is counted and remembered when it arrives, and no longer present when it is answered or
/// its connection is gone.
pub(super) struct Present<'a>(&'a Mutex<Books>);

impl<'a> Present<'a> {
    pub(super) fn enter(books: &'a Mutex<Books>, calls: &watch::Sender<u64>, request: &Parts) -> Self {
        let seen = Seen {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: request.headers.clone(),
        };
        {
            let mut books = lock(books);
            if books.seen.len() == REMEMBERED {
                books.seen.pop_front();
            }
            books.seen.push_back(seen);
            books.present += 1;
            books.peak = books.peak.max(books.present);
        }
        // After the books, so that whoever waited for this call finds it there.
        calls.send_modify(|calls| *calls += 1);
        Self(books)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        lock(self.0).present -= 1;
    }
}

/// A test that panicked elsewhere is no reason to fail here too.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
