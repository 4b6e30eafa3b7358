//! From a listener's request to the pipeline and back: gives each request its id, and turns a panic into one 500.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    stopped: AtomicBool,
}

impl<P> Gate<P> {
    /// A gate that requests pass by this way.
    pub fn new(way: P, clock: Clock) -> Self {
        Self { way: ArcSwap::from_pointee(way), clock, ids: Ids::new(), stopped: AtomicBool::new(false) }
    }

    /// New requests pass by another way; those under way end on theirs.
    pub fn take(&self, way: P) {
        self.way.store(Arc::new(way));
    }

    /// Nothing is answered from now on, since the program ends: its tasks end in no order, and whoever waits for one that
    /// ended first would be told of a failure that is none.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
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
                if self.is_stopped() {
                    return Poll::Pending;
                }
                // A panic is this program's mistake: one request pays for it, counted by its report, and the process lives.
                let polled = catch_unwind(AssertUnwindSafe(|| response.as_mut().poll(cx)));
                // What came to its end meanwhile may have done so by the program's.
                if self.is_stopped() {
                    return Poll::Pending;
                }
                match polled {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::OnceLock;
    use std::task::{Context, Waker};

    use super::*;

    /// A way that answers everything at once, and stops the gate before it does, if it knows one.
    #[derive(Debug, Default)]
    struct AtOnce(OnceLock<Arc<Gate<AtOnce>>>);

    impl Respond for AtOnce {
        async fn respond(self: Arc<Self>, _: Box<Arrival>) -> Response<Reported> {
            if let Some(gate) = self.0.get() {
                gate.stop();
            }
            Response::new(Reported::unreported(Body::Empty))
        }
    }

    /// Whether a request that is begun before `between` is answered after it.
    fn is_answered(gate: &Gate<AtOnce>, between: impl FnOnce()) -> bool {
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None, interim: None };
        let mut answer = std::pin::pin!(gate.handle(Request::new(Body::Empty), &peer));
        between();
        let mut cx = Context::from_waker(Waker::noop());
        let is_answered = answer.as_mut().poll(&mut cx).is_ready();
        // Whoever is woken once more learns no more.
        assert!(is_answered || answer.as_mut().poll(&mut cx).is_pending());
        is_answered
    }

    #[test]
    fn who_has_stopped_answers_nothing_more() {
        let gate = Arc::new(Gate::new(AtOnce::default(), Clock::system()));
        assert!(is_answered(&gate, || {}));
        assert!(!is_answered(&gate, || gate.stop()));

        let gate = Arc::new(Gate::new(AtOnce::default(), Clock::system()));
        gate.way.load().0.set(gate.clone()).unwrap();
        assert!(!is_answered(&gate, || {}), "it stops while it answers");
    }
}
