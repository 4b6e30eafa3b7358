//! What an account's quota is worth when it is wanted three times over: how much of it is used, whether the upstream ever
//! sees more, who gets which share, how long a quiet client waits, and what a `Retry-After` is worth. A minute of
//! simulated time, ten seconds of real time, what the ledger costs a call, and the same load through the program, nginx and
//! HAProxy (installed by apt-get where they are missing). Prints `kept` or `MISSED` for each bound.
//!
//! ```text
//! cargo bench --bench quota
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench: a mistake ends it"
)]

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use tollgate::config::{self, Environment, WithoutSecrets};
use tollgate::lasting::Lasting;
use tollgate::model::cache_status::CacheStatus;
use tollgate::model::exchange::{Answer, Arrival, Content, Known, Notes, Passed, RequestId, Signed, Timing};
use tollgate::model::urgency::{Class, Urgency};
use tollgate::model::{Body, Fault, Moment};
use tollgate::pipeline::pipeline;
use tollgate::provision::provision;
use tollgate::rules::fairness::Payer;
use tollgate::rules::ledger::QuotaRule;
use tollgate::stages::Stage;
use tollgate::stages::observe::{Reported, Respond};
use tollgate::stages::steps::OwnPages;
use tollgate::state::clock::Clock;
use tollgate::state::grant::Grant;
use tollgate::state::quota::{Ceiling, Terms, Want};

#[path = "support/beside.rs"]
mod beside;

/// Calls in any second, and how long an answer takes: a fiftieth of that second.
const QUOTA: usize = 50;
const LATENCY: Duration = Duration::from_millis(20);
const WEIGHTS: [u32; 10] = [1, 1, 2, 2, 3, 1, 1, 2, 2, 5];
/// Loops of each client: together they ask for three times the quota.
const LOOPS: usize = 15;

struct NoPages;

impl OwnPages for NoPages {
    fn answer(&self, _: &Known) -> Option<Result<Answer, Fault>> {
        None
    }
}

/// An upstream that remembers when each call reached it, and when it answered.
struct Upstream {
    clock: Clock,
    calls: Mutex<Vec<(Moment, Moment)>>,
}

impl Stage<Signed<Grant>> for Upstream {
    async fn call(&self, signed: Signed<Grant>) -> Result<Answer, Fault> {
        let Signed { why, mut grant, .. } = signed;
        let arrived = self.clock.now();
        grant.sent();
        tokio::time::sleep(LATENCY).await;
        let answered = self.clock.now();
        self.calls.lock().unwrap().push((arrived, answered));
        grant.answered();
        let passed = Passed {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Body::Empty,
            arrived: answered,
        };
        Ok(Answer {
            content: Content::Passed(Box::new(passed)),
            cache: CacheStatus::Forwarded { why, status: 200, stored: false, collapsed: false },
            timing: Timing::default(),
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = Response<Reported>> + Send>>;

struct World {
    clock: Clock,
    upstream: Arc<Upstream>,
    gate: Box<dyn Fn(Box<Arrival>) -> Answering + Send + Sync>,
}

impl World {
    fn new(max_wait: &str, priorities: impl Fn(usize) -> &'static str) -> Arc<Self> {
        let clients = WEIGHTS.iter().enumerate().map(|(n, weight)| {
            format!(
                "[clients.c{n}]\nkey = \"key-of-client-{n:08}\"\nweight = {weight}\npriority = \"{}\"\n",
                priorities(n)
            )
        });
        let text = format!(
            "[upstreams.u]\nurl = \"http://127.0.0.1:1\"\nmax_concurrent = 1000\n[upstreams.u.accounts.a]\n\
             quota = [{{ requests = {QUOTA}, per = \"1s\" }}]\nmax_wait = \"{max_wait}\"\n{}\
             [[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\naccount = \"a\"\n[routes.cache]\nenabled = false\n",
            clients.collect::<String>()
        );
        // Only `[clients]` has secrets here, and they are literals.
        let plan = config::load(&text, "bench.toml", &config::System).unwrap();
        let environment: Arc<dyn Environment> = Arc::new(WithoutSecrets);
        let lasting = Lasting::new(&plan).unwrap();
        let clock = lasting.clock.clone();
        let (stages, _) = provision(&plan, &lasting, Arc::new(NoPages), &environment).unwrap();
        let upstream = Arc::new(Upstream { clock: clock.clone(), calls: Mutex::default() });
        let way = Arc::new(pipeline(stages, upstream.clone()));
        let gate = Box::new(move |arrival| {
            let way = way.clone();
            Box::pin(async move { way.respond(arrival).await }) as Answering
        });
        Arc::new(Self { clock, upstream, gate })
    }

    async fn ask(&self, client: usize, target: &str) -> (StatusCode, Option<u64>, Duration) {
        let began = self.clock.now();
        let headers = HeaderMap::from_iter([
            (header::HOST, HeaderValue::from_static("gate")),
            ("x-tollgate-key".parse().unwrap(), format!("key-of-client-{client:08}").parse().unwrap()),
            ("tollgate-timeout".parse().unwrap(), HeaderValue::from_static("60")),
        ]);
        let arrival = Arrival {
            method: Method::GET,
            uri: target.parse().unwrap(),
            headers,
            body: Body::Empty,
            certificate: None,
            version: http::Version::HTTP_11,
            peer: "127.0.0.1:1".parse().unwrap(),
            at: began,
            notes: Notes::new(RequestId::Given(HeaderValue::from_static("id"))),
            interim: None,
        };
        let response = (self.gate)(Box::new(arrival)).await;
        let retry = response.headers().get(header::RETRY_AFTER);
        let retry = retry.and_then(|value| value.to_str().ok()?.parse().ok());
        (response.status(), retry, self.clock.now().since(began))
    }
}

/// What the loops of one client lived through.
#[derive(Default)]
struct Lived {
    waits: Vec<Duration>,
    told: Vec<Duration>,
    served_at_return: usize,
    returns: usize,
}

async fn lives(world: Arc<World>, client: usize, at: usize, pause: Duration, end: Moment) -> Lived {
    let (mut lived, mut n, mut returning) = (Lived::default(), 0, false);
    while world.clock.now() < end {
        let (status, retry, took) = world.ask(client, &format!("/r?q={client}.{at}.{n}")).await;
        let served = status == StatusCode::OK;
        if returning {
            lived.returns += 1;
            lived.served_at_return += usize::from(served);
        }
        returning = !served;
        if served {
            n += 1;
            lived.waits.push(took.saturating_sub(LATENCY));
            tokio::time::sleep(pause).await;
        } else {
            let wait = Duration::from_secs(retry.unwrap_or(1));
            lived.told.push(wait);
            tokio::time::sleep(wait).await;
        }
    }
    lived
}

/// All loops of all clients for so long: what each client lived through, and the calls.
async fn crowd(world: Arc<World>, time: Duration) -> Vec<Lived> {
    let end = world.clock.now() + time;
    let living: Vec<_> = (0..WEIGHTS.len() * LOOPS)
        .map(|at| {
            (
                at % WEIGHTS.len(),
                tokio::spawn(lives(world.clone(), at % WEIGHTS.len(), at, Duration::ZERO, end)),
            )
        })
        .collect();
    let mut clients: Vec<Lived> = WEIGHTS.iter().map(|_| Lived::default()).collect();
    for (client, one) in living {
        let one = one.await.unwrap();
        let all = &mut clients[client];
        all.waits.extend(one.waits);
        all.told.extend(one.told);
        all.returns += one.returns;
        all.served_at_return += one.served_at_return;
    }
    clients
}

/// How many calls came when any second that ends with them held the whole quota already, counted at the worse of both ends.
fn violations(upstream: &Upstream) -> usize {
    let calls = upstream.calls.lock().unwrap().clone();
    let count = |mut moments: Vec<Moment>| {
        moments.sort_unstable();
        moments.windows(QUOTA + 1).filter(|run| run[QUOTA].since(run[0]) < Duration::from_secs(1)).count()
    };
    count(calls.iter().map(|(arrived, _)| *arrived).collect())
        .max(count(calls.iter().map(|(_, at)| *at).collect()))
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

fn verdict(what: &str, value: f64, bound: &str, kept: bool) {
    println!("{:>6}  {what}: {value:.4} (bound: {bound})", if kept { "kept" } else { "MISSED" });
}

fn shares(world: &World, clients: &[Lived], (name, time): (&str, Duration)) {
    let calls = world.upstream.calls.lock().unwrap().clone();
    let first = calls.iter().map(|(arrived, _)| *arrived).min().unwrap();
    // While they ask: afterwards the last of them are only waited for.
    let asked = calls.iter().filter(|(arrived, _)| *arrived < first + time).count();
    let used = asked as f64 / (QUOTA as f64 * time.as_secs_f64());
    verdict(&format!("{name}: share of the quota used"), used, ">= 0.97", used >= 0.97);
    let beyond = violations(&world.upstream);
    verdict(&format!("{name}: violations seen by the upstream"), beyond as f64, "0", beyond == 0);
    let by_weight: Vec<f64> = clients
        .iter()
        .zip(WEIGHTS)
        .map(|(lived, weight)| lived.waits.len() as f64 / f64::from(weight))
        .collect();
    let jain = jain(&by_weight);
    let least = by_weight.iter().copied().fold(f64::MAX, f64::min);
    if least >= 100.0 {
        verdict(&format!("{name}: Jain's index by weight"), jain, ">= 0.99", jain >= 0.99);
    } else {
        println!("        {name}: Jain's index by weight: {jain:.4}, of too few grants for its bound");
    }
    println!("        least grants per unit of weight: {least:.0}");
}

fn simulated<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run)
}

fn fair_shares() {
    let time = Duration::from_secs(60);
    let (world, clients) = simulated(async {
        let world = World::new("60s", |_| "interactive");
        (world.clone(), crowd(world, time).await)
    });
    shares(&world, &clients, ("simulated minute", time));
}

fn real_time() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let time = Duration::from_secs(10);
    let (world, clients) = runtime.block_on(async {
        let world = World::new("60s", |_| "interactive");
        (world.clone(), crowd(world, time).await)
    });
    shares(&world, &clients, ("ten real seconds", time));
}

fn quiet_client() {
    let waits = simulated(async {
        let world = World::new("2s", |client| if client == 0 { "interactive" } else { "batch" });
        let end = world.clock.now() + Duration::from_secs(60);
        let noisy: Vec<_> =
            (0..3 * QUOTA).map(|at| tokio::spawn(lives(world.clone(), 1, at, Duration::ZERO, end))).collect();
        tokio::time::sleep(Duration::from_secs(1) + LATENCY).await;
        let quiet = lives(world, 0, 0, Duration::from_millis(131), end).await;
        for one in noisy {
            one.await.unwrap();
        }
        quiet.waits
    });
    let mut waits = waits;
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100].as_secs_f64() * QUOTA as f64;
    verdict(
        "p99 wait of a quiet interactive client beside a noisy batch, in grants",
        p99,
        "<= 2",
        p99 <= 2.0,
    );
}

fn coming_back() {
    let clients =
        simulated(async { crowd(World::new("1s", |_| "interactive"), Duration::from_secs(60)).await });
    let returns: usize = clients.iter().map(|lived| lived.returns).sum();
    let served: usize = clients.iter().map(|lived| lived.served_at_return).sum();
    let share = served as f64 / returns.max(1) as f64;
    verdict("obeyed Retry-After: served at the first return", share, ">= 0.99", share >= 0.99);
    // The oracle knows when a call's turn comes, had it waited for as long as that takes.
    let patient =
        simulated(async { crowd(World::new("60s", |_| "interactive"), Duration::from_secs(60)).await });
    let told = median(clients.into_iter().flat_map(|lived| lived.told).collect());
    let oracle = median(patient.into_iter().flat_map(|lived| lived.waits).collect());
    let ratio = told.as_secs_f64() / oracle.as_secs_f64();
    verdict("obeyed Retry-After: its median over an oracle's", ratio, "<= 1.5", ratio <= 1.5);
    println!("        told {told:?}, the oracle {oracle:?}, {returns} returns");
}

fn ledger_cost() {
    const CALLS: u32 = 200_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let cost = |rules: &[QuotaRule]| {
        runtime.block_on(async {
            let plan = config::load(
                "[upstreams.u]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\nname = \"r\"\npath = \"/\"\nupstream = \"u\"",
                "bench.toml",
                &WithoutSecrets,
            );
            let lasting = Lasting::new(&plan.unwrap()).unwrap();
            let (max_wait, max_pause) = (Duration::from_secs(1), Duration::from_secs(1));
            let terms = Terms { max_wait, max_pause, max_waiting: 10, ceiling: Ceiling::new(10) };
            let account = lasting.account(("u".into(), "a".into()), (rules, 1), terms, "a").unwrap();
            let urgency = Urgency::new(Class::Interactive, Moment::from_nanos(u64::MAX));
            let began = Instant::now();
            for question in 0..u64::from(CALLS) {
                let want =
                    Want { payer: Payer(0), weight: 1, urgency: urgency.clone(), question, comes_back: true };
                let mut grant = account.acquire(want).await.unwrap();
                grant.sent();
                grant.answered();
            }
            began.elapsed() / CALLS
        })
    };
    let windows = [
        QuotaRule::sliding(9_000_000, Duration::from_secs(60)),
        QuotaRule::sliding(9_000_000, Duration::from_secs(3600)),
    ];
    let (mut with, mut without) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        without = without.min(cost(&[]));
        with = with.min(cost(&windows));
    }
    let nanos = with.saturating_sub(without).as_nanos() as f64;
    verdict("nanoseconds that two windows add to a call", nanos, "< 1000", nanos < 1000.0);
    println!("        a grant without windows {without:?}, with two {with:?}");
}

fn main() {
    fair_shares();
    quiet_client();
    coming_back();
    real_time();
    ledger_cost();
    beside::measure();
}
