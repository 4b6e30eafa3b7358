//! From a listener's request to the pipeline and back: gives each request its id, and turns a panic into one 500.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use arc_swap::ArcSwap;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::edge::listener::{Handler, Peer};
use crate::model::exchange::{Arrival, Notes, RequestId};
use crate::model::fields::{REQUEST_ID, named};
use crate::model::{Body, Fault, FaultKind, Interim};
use crate::stages::observe::{Reported, Respond};
use crate::state::clock::Clock;

/// The handler of the gate's listener: a way of requests that a reload replaces.
#[derive(Debug)]
pub struct Gate<P> {
    way: ArcSwap<P>,
    clock: Clock,
    ids: Ids,
}

impl<P> Gate<P> {
    /// A gate that requests pass by this way.
    pub fn new(way: P, clock: Clock) -> Self {
        Self { way: ArcSwap::from_pointee(way), clock, ids: Ids::new() }
    }

    /// New requests pass by another way; those under way end on theirs.
    pub fn take(&self, way: P) {
        self.way.store(Arc::new(way));
    }
}

impl<P: Respond + 'static> Handler for Gate<P> {
    type Body = Reported;

    // Not an `async fn`: a request is put where it stays before there is a future that would carry it.
    fn handle(&self, request: Request<Body>, peer: &Peer) -> impl Future<Output = Response<Reported>> + Send {
        let (head, body) = request.into_parts();
        let notes = Notes::new(self.ids.of(&head.headers));
        let id = notes.id.clone();
        let arrival = Box::new(Arrival {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body,
            peer: peer.address,
            certificate: peer.certificate.clone(),
            at: self.clock.now(),
            notes,
            interim: peer.interim.clone().map(Interim::to),
        });
        let response = self.way.load_full().respond(arrival);
        async move {
            let mut response = std::pin::pin!(response);
            std::future::poll_fn(|cx| {
                // A panic is this program's mistake: one request pays for it, counted by its report, and the process lives.
                match catch_unwind(AssertUnwindSafe(|| response.as_mut().poll(cx))) {
                    Ok(polled) => polled,
                    Err(panic) => Poll::Ready(panicked(panic.as_ref(), &id)),
                }
            })
            .await
        }
    }
}

fn panicked(panic: &(dyn Any + Send), id: &RequestId) -> Response<Reported> {
    let message =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(id = id.text(), message = message.unwrap_or("no message"), "a request met a panic");
    let problem = Fault::new(FaultKind::Internal).to_problem(&id.text());
    let mut response = Response::new(Reported::unreported(Body::Full(problem.into())));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(REQUEST_ID, id.to_value());
    response
}

/// Makes request ids: a random word of the process, then a count.
#[derive(Debug)]
struct Ids {
    process: u32,
}

/// The first of the counts that no thread has taken.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// How many a thread takes at once: workers that write the same memory wait for each other.
const TAKEN_AT_ONCE: u64 = 256;

thread_local! {
    /// The counts that this thread took and has not given to a request: the next one, and how many.
    static TAKEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The longest request id of a client's that is kept.
const LONGEST_ID: usize = 128;

impl Ids {
    fn new() -> Self {
        let mut word = [0; 4];
        // Without randomness ids repeat after a restart, which nobody depends on.
        let _ = SystemRandom::new().fill(&mut word);
        Self { process: u32::from_be_bytes(word) }
    }

    /// The client's own id if it is visible ASCII of at most 128 characters, else a new one.
    fn of(&self, headers: &HeaderMap) -> RequestId {
        let own = named(headers, REQUEST_ID).next().filter(|id| {
            let id = id.as_bytes();
            (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
        });
        if let Some(id) = own {
            return RequestId::Given(id.clone());
        }
        let (next, left) = match TAKEN.get() {
            (_, 0) => (NEXT.fetch_add(TAKEN_AT_ONCE, Ordering::Relaxed), TAKEN_AT_ONCE),
            taken => taken,
        };
        TAKEN.set((next + 1, left - 1));
        RequestId::Made { process: self.process, count: next }
    }
}
