//! `cargo bench --bench pipeline`: what the gate's own code costs, without sockets: understanding, keys, a hit and a
//! miss through the whole way of a request, and a hit through hyper over in-memory I/O beside a bare hyper server that
//! answers the same bytes and header lines. The last one is the guard: a hit may cost [`MARGIN`] more than bare.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people at a terminal: a mistake ends it, and it measures with the system's clock"
)]

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use futures_util::FutureExt as _;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tollgate::model::Body;
use tollgate::model::exchange::{Arrival, Notes, RequestId};
use tollgate::model::key::Key;
use tollgate::provision::reading;
use tollgate::stages::observe::{Reported, Respond};
use tollgate::state::clock::Clock;
use world::{PATH, peer, plan, way};

#[path = "support/world.rs"]
mod world;

const CANONICAL: &str = "page=2&per_page=20&phone_number=%2B33612345678";
const MESSY: &str = "utm_source=x&PAGE=2.0&per-page=+20&phone_number=06+12+34+56+78&phoneNumber=&email=";
/// What a hit may cost more than a bare hyper server.
const MARGIN: Duration = Duration::from_nanos(1200);
/// How many times the two are measured in turn; a verdict is the median.
const ROUNDS: usize = 31;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    understanding(&mut criterion);
    whole_way(&mut criterion, &runtime);
    through_hyper(&runtime);
    criterion.final_summary();
}

fn understanding(criterion: &mut Criterion) {
    let plan = plan();
    let reading = reading(&plan, &plan.routes[0]);
    let mut group = criterion.benchmark_group("understand");
    for (name, query) in [("canonical", CANONICAL), ("messy", MESSY)] {
        group
            .bench_function(name, |bencher| bencher.iter(|| reading.read(black_box(PATH), black_box(query))));
    }
    group.bench_function("key", |bencher| {
        let parts = [&b"octopush"[..], b"main", &[7; 32], PATH.as_bytes(), CANONICAL.as_bytes()];
        bencher.iter(|| Key::from_parts(black_box(parts)));
    });
    group.finish();
}

fn whole_way(criterion: &mut Criterion, runtime: &Runtime) {
    let world = World::new(24 << 10);
    let respond = world.way.clone().respond(world.arrival(Uri::from_static(PATH), HeaderMap::new()));
    println!("whole way: a future of {} bytes", size_of_val(&respond));
    drop(respond);
    let mut group = criterion.benchmark_group("whole way");
    for (name, query) in [("hit, canonical", CANONICAL), ("hit, messy", MESSY)] {
        runtime.block_on(world.respond(&format!("{PATH}?{query}")));
        let uri: Uri = format!("{PATH}?{query}").parse().unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let arrival = world.arrival(uri.clone(), request_headers());
                world.way.clone().respond(arrival).now_or_never().expect("a hit never waits")
            });
        });
    }
    let next = AtomicU64::new(1_000_000);
    group.bench_function("miss", |bencher| {
        bencher.iter(|| {
            let page = next.fetch_add(1, Ordering::Relaxed);
            runtime.block_on(world.respond(&format!("{PATH}?page={page}&per_page=20")))
        });
    });
    group.finish();
}

/// Measures both servers in turn, a round at a time, and judges by the median of the rounds' differences.
fn through_hyper(runtime: &Runtime) {
    const REQUESTS: u32 = 4000;
    for kib in [1, 24] {
        let world = World::new(kib << 10);
        let target = format!("{PATH}?{CANONICAL}");
        runtime.block_on(world.respond(&target));
        let (headers, body) = runtime.block_on(async {
            let response = world.respond(&target).await;
            (response.headers().clone(), world.body.clone())
        });
        let gate = service_fn(|request: Request<Incoming>| {
            let (head, _) = request.into_parts();
            let arrival = world.arrival(head.uri, head.headers);
            world.way.clone().respond(arrival).map(Ok::<_, Infallible>)
        });
        let bare = service_fn(|_: Request<Incoming>| {
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = headers.clone();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let rounds: Vec<(f64, f64)> = (0..=ROUNDS)
            .map(|_| {
                let one = runtime.block_on(time(gate, &target, REQUESTS));
                (one, runtime.block_on(time(bare, &target, REQUESTS)))
            })
            .skip(1)
            .collect();
        let of = |number: fn(&(f64, f64)) -> f64| median(rounds.iter().map(number).collect());
        let over = Duration::from_secs_f64(of(|(gate, bare)| gate - bare).max(0.0));
        println!(
            "through hyper, {kib} KiB: hit {:.2} µs, bare {:.2} µs, ratio {:.2}, hit = bare + {:.2} µs (may be {:.1}): {}",
            of(|(gate, _)| *gate) * 1e6,
            of(|(_, bare)| *bare) * 1e6,
            of(|(gate, bare)| gate / bare),
            over.as_secs_f64() * 1e6,
            MARGIN.as_secs_f64() * 1e6,
            if over <= MARGIN { "kept" } else { "MISSED" },
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds a request to `service` takes over in-memory I/O, on a connection that stays open.
async fn time<S, F, B>(service: S, target: &str, requests: u32) -> f64
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + 'static,
{
    let (client, server) = tokio::io::duplex(64 << 10);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(100)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(server), service);
    tokio::select! {
        ended = connection => panic!("the server ended: {ended:?}"),
        seconds = ask(client, target, requests) => seconds / f64::from(requests),
    }
}

async fn ask(mut stream: DuplexStream, target: &str, requests: u32) -> f64 {
    let request =
        format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
    let mut buffer = vec![0; 64 << 10];
    let mut began = Instant::now();
    for at in 0..=requests {
        if at == 1 {
            began = Instant::now();
        }
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut filled, mut whole) = (0, usize::MAX);
        while filled < whole {
            filled += stream.read(&mut buffer[filled..]).await.unwrap();
            if whole == usize::MAX
                && let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&buffer[..end]).unwrap();
                let length = head.split("content-length: ").nth(1).expect("a length");
                whole = end + 4 + length.split('\r').next().unwrap().parse::<usize>().unwrap();
            }
        }
    }
    began.elapsed().as_secs_f64()
}

/// A gate without sockets: the whole way of a request, and in the place of the upstream a constant.
struct World<R> {
    way: Arc<R>,
    clock: Clock,
    body: Bytes,
    next: AtomicU64,
}

impl World<()> {
    fn new(bytes: usize) -> World<impl Respond> {
        let (way, lasting, body) = way(&plan(), bytes);
        World { way: Arc::new(way), clock: lasting.clock, body, next: AtomicU64::new(0) }
    }
}

impl<R: Respond> World<R> {
    fn arrival(&self, uri: Uri, headers: HeaderMap) -> Box<Arrival> {
        let id = RequestId::Made { process: 0x5f3a_9c1e, count: self.next.fetch_add(1, Ordering::Relaxed) };
        Box::new(Arrival {
            method: Method::GET,
            uri,
            headers,
            body: Body::Empty,
            certificate: None,
            version: http::Version::HTTP_11,
            peer: peer(),
            at: self.clock.now(),
            notes: Notes::new(id),
            interim: None,
        })
    }

    async fn respond(&self, target: &str) -> Response<Reported> {
        let response =
            self.way.clone().respond(self.arrival(target.parse().unwrap(), request_headers())).await;
        assert_eq!(response.status(), StatusCode::OK);
        response
    }
}

fn request_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::HOST, HeaderValue::from_static("127.0.0.1")),
        (header::USER_AGENT, HeaderValue::from_static("bench")),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
    ])
}
