//! What a hit costs as everything around it grows: `benches/scale` runs it.
//!
//! For each thing that can be many, gates with few and with many of it answer the same number of hits in turns; a point is
//! the median over the turns of its ratio to the first of its curve. Everything runs in this process over in-memory I/O, so
//! that what is timed is the gate's own code and the memory it touches. Prints Markdown, and writes the curves as SVG.
//!
//! ```text
//! scale FILE.svg [MOST_ENTRIES]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program for people at a terminal: a mistake ends it, and it measures with the system's clock"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, Uri};
use tokio::runtime::Runtime;
use tollgate::config::plan::{Plan, RateLimit};
use tollgate::config::{self, WithoutSecrets};
use tollgate::model::Body;
use tollgate::model::exchange::{Arrival, Notes, RequestId};
use tollgate::model::fields::CACHE_STATUS;
use tollgate::stages::observe::{Reported, Respond};
use tollgate::state::clock::Clock;
use world::{peer, way};

mod world;

/// The gate's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hits a turn.
const HITS: usize = 20_000;
/// How many turns the points of a curve take.
const TURNS: usize = 15;
/// A body small enough for a million.
const BYTES: usize = 256;

/// How many, the ratio to the first point, and nanoseconds.
type Point = (usize, f64, f64);

/// One curve.
struct Curve {
    name: &'static str,
    /// What there is more and more of.
    counts: Vec<usize>,
    /// A gate with so many.
    plan: fn(usize) -> String,
    /// What is asked once, before everything else.
    first: fn(usize) -> Vec<String>,
    /// What is asked before it is timed, and in turns while it is.
    asked: fn(usize) -> Vec<String>,
    /// From which client the `at`-th request comes.
    client: fn(usize, usize) -> Option<String>,
}

fn main() {
    let mut words = std::env::args().skip(1);
    let into = words.next().expect("scale FILE.svg [MOST_ENTRIES]");
    let most = words.next().map_or(1_000_000, |most| most.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut drawn = Vec::new();
    for curve in curves(most) {
        let points = measure(&runtime, &curve);
        println!("| {} | {} |", curve.name, row(&points));
        drawn.push((curve.name, points));
    }
    std::fs::write(into, svg(&drawn)).unwrap();
}

fn curves(most: usize) -> Vec<Curve> {
    let tens = |to: usize| (3..).map(|power| 10usize.pow(power)).take_while(|count| *count <= to).collect();
    let one = |_: usize, _: usize| None;
    let nothing = |_: usize| Vec::new();
    vec![
        Curve {
            name: "entries, any of them asked for",
            counts: tens(most),
            plan: |_| plan(1, 2, 0),
            first: nothing,
            asked: |count| (0..count).map(|at| format!("/r0?p0={}", at + 1)).collect(),
            client: one,
        },
        Curve {
            name: "entries, a thousand of them asked for",
            counts: tens(most),
            plan: |_| plan(1, 2, 0),
            first: nothing,
            // The last thousand are asked for in turns; see `hits`.
            asked: |count| (0..count).map(|at| format!("/r0?p0={}&p1=1", at + 1)).collect(),
            client: one,
        },
        Curve {
            name: "collections, a page of any of them asked for",
            counts: vec![10, 100, 1000, 10_000],
            plan: |_| paged(),
            // By a page of the second block the gate learns that this upstream gives no `Link`.
            first: |count| (0..count).map(|at| format!("/r0?q={at}&page=6&per_page=20")).collect(),
            asked: |count| (0..count).map(|at| format!("/r0?q={at}&page=2&per_page=20")).collect(),
            client: one,
        },
        Curve {
            name: "routes, sixteen of them asked for",
            counts: vec![1, 10, 100, 1000, 5000],
            plan: |count| plan(count, 1, 0),
            first: nothing,
            // A few of them, spread out: what grows is where they are looked for.
            asked: |count| (0..16).map(|at| format!("/r{}?p0=1", at * count / 16)).collect(),
            client: one,
        },
        Curve {
            name: "clients",
            counts: vec![1, 10, 100, 1000],
            plan: |count| plan(1, 1, count),
            first: nothing,
            asked: |_| vec!["/r0?p0=1".into()],
            client: |count, at| Some(format!("key-of-client-{}", at % count)),
        },
        Curve {
            name: "declared parameters",
            counts: vec![1, 4, 16, 64],
            plan: |count| plan(1, count, 0),
            first: nothing,
            asked: |_| vec!["/r0?p0=1".into()],
            client: one,
        },
    ]
}

/// A configuration with so many routes, each with so many parameters, and so many clients, each allowed on every route.
fn plan(routes: usize, params: usize, clients: usize) -> String {
    let mut text = String::from(
        "[cache]\nmax_bytes = \"8GiB\"\n[upstreams.u]\nurl = \"http://upstream.test\"\n\
         [upstreams.u.accounts.a]\nheaders.x-key = \"secret\"\nquota = \"none\"\n",
    );
    for client in 0..clients {
        writeln!(text, "[clients.c{client}]\nkey = \"key-of-client-{client}\"\nroutes = [\"r0\"]").unwrap();
    }
    for route in 0..routes {
        writeln!(
            text,
            "[[routes]]\nname = \"r{route}\"\npath = \"/r{route}\"\nupstream = \"u\"\naccount = \"a\""
        )
        .unwrap();
        writeln!(text, "[routes.params]").unwrap();
        for param in 0..params {
            writeln!(text, "p{param} = {{ type = \"integer\", min = 0 }}").unwrap();
        }
        writeln!(text, "[routes.cache]\nttl = \"1h\"").unwrap();
    }
    text
}

/// A configuration whose route cuts pages from blocks of a hundred.
fn paged() -> String {
    let pages = "page = \"page\"\nsize = \"per_page\"\nblock = 100\nid = \"/message_id\"";
    let window = "type = \"integer\", min = 1";
    let params = format!("page = {{ {window}, default = 1 }}\nper_page = {{ {window}, default = 50 }}");
    plan(1, 0, 0)
        .replace("[routes.params]\n", &format!("[routes.params]\n{params}\nq = {{ type = \"integer\" }}\n"))
        .replace("[routes.cache]", &format!("[routes.pages]\n{pages}\n[routes.cache]"))
}

/// The median of each point's ratio to the first, in nanoseconds for the first.
fn measure(runtime: &Runtime, curve: &Curve) -> Vec<Point> {
    let gates: Vec<_> = curve.counts.iter().map(|count| Gate::new(runtime, curve, *count)).collect();
    let mut turns = vec![Vec::new(); gates.len()];
    for turn in 0..TURNS {
        for step in 0..gates.len() {
            let at = (turn + step) % gates.len();
            turns[at].push(gates[at].hits(turn));
        }
    }
    let first = turns[0].clone();
    curve
        .counts
        .iter()
        .zip(&turns)
        .map(|(count, times)| {
            let ratios = times.iter().zip(&first).map(|(time, first)| time / first).collect();
            (*count, median(ratios), median(times.clone()))
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A gate that holds what it will be asked for.
struct Gate {
    respond: Box<dyn Fn(Box<Arrival>) -> bool>,
    clock: Clock,
    asked: Vec<Uri>,
    keys: Vec<Option<HeaderValue>>,
}

impl Gate {
    fn new(runtime: &Runtime, curve: &Curve, count: usize) -> Self {
        let mut plan: Plan = config::load(&(curve.plan)(count), "scale.toml", &WithoutSecrets).unwrap();
        let limit = RateLimit {
            requests: 1_000_000_000,
            per: Duration::from_secs(1),
            burst: 1_000_000_000,
            shadow: false,
        };
        plan.server.rate_limit = Some(limit);
        let (way, lasting, _) = way(&plan, BYTES);
        let way = Arc::new(way);
        let clock = lasting.clock.clone();
        let keys = (0..count)
            .map(|at| (curve.client)(count, at).map(|key| HeaderValue::try_from(key).unwrap()))
            .collect();
        let mut gate = Self { respond: Box::new(|_| true), clock, asked: Vec::new(), keys };
        let is_hit = |response: &Response<Reported>| {
            let status = response.headers().get(CACHE_STATUS).and_then(|status| status.to_str().ok());
            status.is_some_and(|status| status.starts_with("tollgate; hit"))
        };
        for (asked, hits) in
            [((curve.first)(count), false), ((curve.asked)(count), false), ((curve.asked)(count), true)]
        {
            gate.asked = asked.iter().map(|target| target.parse().unwrap()).collect();
            for at in 0..gate.asked.len() {
                let response = runtime.block_on(way.clone().respond(gate.arrival(at, at)));
                assert!(
                    response.status().is_success() && (!hits || is_hit(&response)),
                    "{:?}",
                    response.headers()
                );
            }
        }
        gate.respond = Box::new(move |arrival| {
            let _lasts = &lasting;
            way.clone().respond(arrival).now_or_never().expect("a hit never waits").status().is_success()
        });
        if curve.name.contains("a thousand") {
            gate.asked.drain(..gate.asked.len() - 1000);
        }
        gate
    }

    fn arrival(&self, at: usize, client: usize) -> Box<Arrival> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(key) = &self.keys[client % self.keys.len()] {
            headers.insert("x-tollgate-key", key.clone());
        }
        Box::new(Arrival {
            method: Method::GET,
            uri: self.asked[at % self.asked.len()].clone(),
            headers,
            body: Body::Empty,
            certificate: None,
            version: http::Version::HTTP_11,
            peer: peer(),
            at: self.clock.now(),
            notes: Notes::new(RequestId::Made { process: 1, count: at as u64 }),
            interim: None,
        })
    }

    /// Nanoseconds a hit, over hits that are scattered over all that is held.
    fn hits(&self, turn: usize) -> f64 {
        let scattered = |at: usize| (turn * HITS + at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        // What is asked is put together outside of what is timed, a few at a time as they would arrive.
        let mut spent = Duration::ZERO;
        for batch in 0..HITS / 100 {
            let arrivals: Vec<_> =
                (0..100).map(|at| scattered(batch * 100 + at)).map(|at| self.arrival(at, at)).collect();
            let began = Instant::now();
            let all = arrivals.into_iter().all(|arrival| (self.respond)(arrival));
            spent += began.elapsed();
            assert!(all);
        }
        spent.as_secs_f64() * 1e9 / HITS as f64
    }
}

/// `1.00 at 1 (812 ns) · …`
fn row(points: &[Point]) -> String {
    let points: Vec<_> =
        points.iter().map(|(count, ratio, nanos)| format!("{count}: {ratio:.2} ({nanos:.0} ns)")).collect();
    points.join(" · ")
}

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 150.0;
/// The largest ratio that is drawn.
const TOP: f64 = 3.0;

/// The curves, each in a panel of its own: how many there are, on a logarithmic axis, and the ratio to the first point.
fn svg(curves: &[(&str, Vec<Point>)]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * (WIDTH + 60.0),
        curves.len().div_ceil(2) as f64 * (HEIGHT + 70.0),
    );
    for (at, (name, points)) in curves.iter().enumerate() {
        let (left, top) = ((at % 2) as f64 * (WIDTH + 60.0) + 40.0, (at / 2) as f64 * (HEIGHT + 70.0) + 30.0);
        let log = |count: usize| (count as f64).log10();
        let (from, to) = (log(points[0].0), log(points[points.len() - 1].0));
        let x = |count: usize| left + (log(count) - from) / (to - from) * WIDTH;
        let y = |ratio: f64| top + HEIGHT - ratio.min(TOP) / TOP * HEIGHT;
        writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">a hit, by {name}</text>", top - 10.0)
            .unwrap();
        for ratio in [0.0, 1.0, 2.0, TOP] {
            let at = y(ratio);
            writeln!(
                svg,
                "<path d=\"M{left} {at}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{ratio}</text>",
                left - 5.0,
                at + 4.0,
            )
            .unwrap();
        }
        let line: Vec<_> =
            points.iter().map(|(count, ratio, _)| format!("{:.1},{:.1}", x(*count), y(*ratio))).collect();
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>",
            line.join(" ")
        )
        .unwrap();
        for (count, ratio, _) in points {
            let (x, y) = (x(*count), y(*ratio));
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#06c\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{ratio:.2}</text><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text>",
                y - 8.0,
                top + HEIGHT + 15.0,
            )
            .unwrap();
        }
    }
    svg.push_str("</svg>\n");
    svg
}
