//! One kind of request, many times, for callgrind to count: `benches/instructions` runs it and divides.
//!
//! A connection of the gate's own listener, hyper and the whole way of a request included, is served from a script in
//! memory: its client costs nothing, so that what is counted is the server's. [`measured`] is the part that counts; what
//! comes before it warms up. Everything runs on one thread.
//!
//! ```text
//! instructions KIND REQUESTS
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a helper of a script: a mistake ends it"
)]

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tollgate::config::plan::Plan;
use tollgate::edge::http1::serve;
use tollgate::edge::listener::{Drain, Listener, Peer, Stream};
use tollgate::edge::tracked::{Progress, Tracked};
use tollgate::handler::Gate;
use tollgate::lasting::Lasting;
use tollgate::provision::limits_of;
use world::{PATH, cut_pages, peer, plan, way};

mod world;

/// The gate's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The defaults of the gate's `[server]`.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Small, since a large copy counts an instruction a byte.
const BYTES: usize = 1 << 10;
/// Requests before those that count.
const WARM: usize = 200;
const HIT: &str = "page=2&per_page=20&phone_number=%2B33612345678";

/// What is asked.
struct Kind {
    name: &'static str,
    /// The query of the `at`-th request.
    query: fn(usize) -> String,
    /// Further header lines.
    lines: &'static str,
    /// How the answer begins.
    status: &'static str,
    /// What is different about the plan.
    with: fn(&mut Plan),
    /// How many clients ask the same at once.
    clients: usize,
}

/// Every kind but `bare`. A row in `benches/instructions.txt` belongs to each.
const KINDS: [Kind; 8] = [
    // The same request again: an answer from memory.
    Kind { name: "hit", query: |_| HIT.into(), lines: "", status: OK, with: |_| {}, clients: 1 },
    // The same where the account has no quota: a hit has nothing to do with one.
    Kind {
        name: "unmetered",
        query: |_| HIT.into(),
        lines: "",
        status: OK,
        with: |plan| plan.accounts.iter_mut().for_each(|account| account.quota.clear()),
        clients: 1,
    },
    // From a client that has the answer.
    Kind {
        name: "304",
        query: |_| HIT.into(),
        lines: "if-none-match: \"5f3a9c1e\"\r\n",
        status: "HTTP/1.1 304",
        with: |_| {},
        clients: 1,
    },
    // A page of twenty, cut from blocks of a hundred in memory.
    Kind {
        name: "slice",
        // A page of the second block comes first: by it the gate learns that this upstream gives no `Link`.
        query: |at| if at == 10 { HIT.replacen("page=2", "page=6", 1) } else { HIT.into() },
        lines: "",
        status: OK,
        with: cut_pages,
        clients: 1,
    },
    // The same question, spelt as never before.
    Kind {
        name: "understanding",
        query: |at| format!("utm_source={at}&PAGE=2.0&per-page=+20&phone_number=06+12+34+56+78&email="),
        lines: "",
        status: OK,
        with: |_| {},
        clients: 1,
    },
    // A question never asked before: collected, stored, sent.
    Kind {
        name: "miss",
        query: |at| format!("page={at}&per_page=20&phone_number=%2B33612345678"),
        lines: "",
        status: OK,
        with: |_| {},
        clients: 1,
    },
    // A route that keeps nothing.
    Kind {
        name: "uncached",
        query: |_| HIT.into(),
        lines: "",
        status: OK,
        with: |plan| plan.routes[0].cache.enabled = false,
        clients: 1,
    },
    // A question that several ask at once for the first time: one call, and an answer for each.
    Kind {
        name: "shared",
        query: |at| format!("page={at}&per_page=20&phone_number=%2B33612345678"),
        lines: "",
        status: OK,
        with: |_| {},
        clients: 8,
    },
];

const OK: &str = "HTTP/1.1 200";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "instructions KIND REQUESTS, or no words for the kinds";
    let Some(name) = arguments.next() else {
        println!("bare");
        KINDS.iter().for_each(|kind| println!("{}", kind.name));
        return;
    };
    let requests = arguments.next().expect(usage).parse().expect(usage);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match KINDS.iter().find(|kind| kind.name == name) {
        Some(kind) => gate(&runtime, kind, requests),
        None => bare(&runtime, requests),
    }
}

fn gate(runtime: &Runtime, kind: &Kind, requests: usize) {
    let mut plan = plan();
    (kind.with)(&mut plan);
    let (way, lasting, _) = way(&plan, BYTES);
    let gate = Arc::new(Gate::new(way, lasting.clock.clone()));
    let (listener, _undrained) = listener(&plan, &lasting);
    let serve = |script: Script| {
        let (gate, progress) = (gate.clone(), Progress::new(lasting.clock.clone()));
        let peer = Peer { address: peer(), certificate: None, interim: None };
        let io = Tracked::new(script, progress.clone());
        serve(listener.clone(), io, progress, peer, gate)
    };
    // Held from here on, whoever asks for it differently.
    runtime.block_on(serve(Script::new(vec![request(HIT, "")], OK).0));
    let asked = |at: Range<usize>| at.map(|at| request(&(kind.query)(at + 10), kind.lines)).collect();
    runtime.block_on(serve(Script::new(asked(0..WARM), kind.status).0));
    let each = WARM..WARM + requests / kind.clients;
    let clients = (0..kind.clients).map(|_| Script::new(asked(each.clone()), kind.status));
    let (scripts, answers): (Vec<_>, Vec<_>) = clients.unzip();
    measured(runtime, scripts.into_iter().map(serve).collect::<FuturesUnordered<_>>().collect());
    let answers: usize = answers.iter().map(|answers| answers.load(Ordering::Relaxed)).sum();
    assert_eq!(answers, requests);
}

/// The floor: hyper with the gate's options, and an answer whose header lines are a cloned map.
fn bare(runtime: &Runtime, requests: usize) {
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (header::DATE, HeaderValue::from_static("Fri, 01 Jan 2100 00:00:00 GMT")),
        (header::ETAG, HeaderValue::from_static("\"5f3a9c1e\"")),
        (header::VARY, HeaderValue::from_static("accept")),
        (header::SERVER, HeaderValue::from_static("origin")),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
        (header::AGE, HeaderValue::from_static("12")),
        (header::VIA, HeaderValue::from_static("1.1 tollgate")),
        (HeaderName::from_static("cache-status"), HeaderValue::from_static("tollgate; hit; ttl=3588")),
        (HeaderName::from_static("x-request-id"), HeaderValue::from_static("5f3a9c1e-1")),
        (HeaderName::from_static("server-timing"), HeaderValue::from_static("gate;dur=0.012")),
    ]);
    let body = Bytes::from(vec![b'x'; BYTES]);
    let service = service_fn(|_: Request<Incoming>| {
        let mut response = Response::new(Full::new(body.clone()));
        *response.headers_mut() = headers.clone();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let serve = |script: Script| async {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(script), service)
            .await
            .unwrap();
    };
    let asked = |count| vec![request(HIT, ""); count];
    runtime.block_on(serve(Script::new(asked(WARM), OK).0));
    let (script, answers) = Script::new(asked(requests), OK);
    measured(runtime, serve(script));
    assert_eq!(answers.load(Ordering::Relaxed), requests);
}

/// What callgrind counts, by this name.
#[inline(never)]
fn measured(runtime: &Runtime, future: impl Future<Output = ()>) {
    runtime.block_on(future);
}

/// The gate's listener, and what keeps it from draining.
fn listener(plan: &Plan, lasting: &Lasting) -> (Arc<Listener>, watch::Sender<Drain>) {
    let (undrained, drain) = watch::channel(Drain::Not);
    let listener = Listener {
        limits: Arc::new(ArcSwap::from_pointee(limits_of(&plan.server))),
        tls: Arc::new(ArcSwapOption::empty()),
        clock: lasting.clock.clone(),
        tasks: lasting.tasks.clone(),
        connections: lasting.metrics.connections.clone(),
        refused: lasting.metrics.refused_connections.clone(),
        outlived: false,
        drain,
    };
    (Arc::new(listener), undrained)
}

fn request(query: &str, lines: &str) -> Bytes {
    format!(
        "GET {PATH}?{query} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n{lines}\r\n"
    )
    .into()
}

/// A connection whose client follows a script: it sends a request when the answer to the one before has begun, and leaves
/// after the last one.
struct Script {
    requests: std::vec::IntoIter<Bytes>,
    status: &'static str,
    /// The request before was answered.
    may_send: bool,
    server: Option<Waker>,
    answers: Arc<AtomicUsize>,
}

impl Script {
    /// A client of these requests that wants each answer to begin with `status`; how many did.
    fn new(requests: Vec<Bytes>, status: &'static str) -> (Self, Arc<AtomicUsize>) {
        let answers = Arc::<AtomicUsize>::default();
        let requests = requests.into_iter();
        (Self { requests, status, may_send: true, server: None, answers: answers.clone() }, answers)
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if bytes.starts_with(b"HTTP/1.1") {
            assert!(bytes.starts_with(self.status.as_bytes()), "{}", String::from_utf8_lossy(bytes));
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.may_send = true;
            if let Some(server) = self.server.take() {
                server.wake();
            }
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.may_send) {
            self.server = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(request) = self.requests.next() {
            buffer.put_slice(&request);
        } else {
            self.may_send = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        slices.iter().for_each(|slice| self.wrote(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Script {
    fn abort(self) {}
}
