//! Plays one trace of eight services through several gates at once, each before a simulated upstream of its own, and
//! counts what it cost: calls beside the fewest possible, and what walks repeated and missed. Started by
//! `benches/frugality`; the traffic is synthetic.
//!
//! ```text
//! frugality SECONDS TTL_SECONDS NAME=GATE_PORT:UPSTREAM_PORT…
//! ```
//!
//! The upstreams hold the same conversations, and the same happens to each at the same time. A service asks from an
//! address of its own (127.0.0.11 and on), writes its queries its own way, always such that the API itself understands
//! them, and walks through lists page after page: some services find the next page by adding one, others carry the
//! walk's token where the answer has one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a helper of a script: a mistake ends it, and no drain or clock is owed"
)]

#[path = "frugality/ledger.rs"]
mod ledger;
#[path = "frugality/player.rs"]
mod player;
#[path = "frugality/trace.rs"]
mod trace;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tollgate::demo::conversations::{Conversations, Size};
use tollgate::demo::dice::Dice;
use tollgate::demo::octopush::Octopush;
use tollgate::demo::settings::Settings;

use ledger::{Ledger, World};
use player::Player;
use trace::{Session, services};

/// What is generated, and in which order everything happens.
const SEED: u64 = 20;
/// The fewer contacts, the more often a question comes back within its `ttl`, and the more there is to save.
const SIZE: Size = Size { contacts: 150, messages: 12_000 };
/// New messages a second, where any arrive.
const ARRIVALS: f64 = 1.5;
/// Messages erased a second, where any are, among this many of the newest.
const DELETIONS: f64 = 0.3;
const ERASED_AMONG: usize = 600;

/// A part of the run.
struct Phase {
    name: &'static str,
    /// Of the seconds given.
    share: f64,
    arrivals: f64,
    deletions: f64,
}

const PHASES: [Phase; 3] = [
    Phase { name: "static", share: 0.35, arrivals: 0.0, deletions: 0.0 },
    Phase { name: "arrivals", share: 0.4, arrivals: ARRIVALS, deletions: 0.0 },
    Phase { name: "arrivals and deletions", share: 0.25, arrivals: ARRIVALS, deletions: DELETIONS },
];

/// A gate and what stands behind it.
struct Contender {
    name: String,
    gate: SocketAddr,
    upstream: Arc<Octopush>,
    ledger: Arc<Mutex<Ledger>>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let usage = "frugality SECONDS TTL_SECONDS NAME=GATE_PORT:UPSTREAM_PORT…";
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().expect(usage).parse::<f64>().expect(usage);
    let (seconds, ttl) = (number(), Duration::from_secs_f64(number()));
    let mut serving = JoinSet::new();
    let mut contenders = Vec::new();
    for argument in arguments {
        let (name, ports) = argument.split_once('=').expect(usage);
        let (gate, upstream) = ports.split_once(':').expect(usage);
        let at = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse::<u16>().expect(usage)));
        let listener = TcpListener::bind(at(upstream)).await.expect("the upstream's port is free");
        let latency = Duration::from_millis(20);
        let settings = Settings { latency, latency_jitter: latency, ..Settings::plain() };
        let octopush = Octopush::new(settings, Conversations::generate(SEED, SIZE));
        serving.spawn(Arc::clone(&octopush).serve(listener, std::future::pending()));
        let ledger = Arc::new(Mutex::new(Ledger::new(ttl)));
        contenders.push(Contender { name: name.to_owned(), gate: at(gate), upstream: octopush, ledger });
    }
    for contender in &contenders {
        reachable(contender).await;
    }
    let world = Arc::new(Mutex::new(World::new(Conversations::generate(SEED, SIZE))));
    let contacts = world.lock().unwrap().contacts();
    println!(
        "| trace | gate | requests | calls per 1,000 | of the fewest possible | walks | torn | items repeated | items missed | later than upstream, at most | `Age` in walks, at most | failed |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut marks = Vec::new();
    for (number, phase) in PHASES.iter().enumerate() {
        let length = Duration::from_secs_f64(seconds * phase.share);
        let sessions: Vec<Vec<Session>> = services()
            .iter()
            .enumerate()
            .map(|(place, service)| {
                let mut dice = Dice::new(SEED + 100 * (number as u64 + 1) + place as u64);
                service.sessions(&contacts, length, &mut dice)
            })
            .collect();
        let before: Vec<u64> = contenders.iter().map(|contender| contender.upstream.calls()).collect();
        play(&contenders, &sessions, &world, phase, length).await;
        let mut rows = Vec::new();
        for (contender, before) in contenders.iter().zip(before) {
            let mut ledger = contender.ledger.lock().unwrap();
            let row = ledger.row(contender.upstream.calls() - before, &world.lock().unwrap());
            println!("| {} | {} | {row} |", phase.name, contender.name);
            rows.push((contender.name.clone(), row));
        }
        marks.extend(marks_of(phase, &rows));
    }
    println!();
    for (kept, text) in marks {
        println!("{} {text}", if kept { "kept  " } else { "MISSED" });
    }
}

/// The marks of our own that a phase keeps or misses.
fn marks_of(phase: &Phase, rows: &[(String, ledger::Row)]) -> Vec<(bool, String)> {
    let find = |name: &str| rows.iter().find(|(found, _)| found == name).map(|(_, row)| row);
    let Some(own) = find("Tollgate") else { return Vec::new() };
    let mut marks = Vec::new();
    if phase.arrivals == 0.0 {
        let ratio = own.calls_of_floor();
        let text = format!("static: {ratio:.3} of the fewest calls possible, to be at most 1.05");
        marks.push((ratio <= 1.05, text));
    } else if phase.deletions == 0.0 {
        for (what, torn) in [("single", &own.single), ("token-carrying", &own.carried)] {
            let text = format!(
                "arrivals: {} {what} walks, {} items repeated and {} missed, to be none",
                torn.walks, torn.repeated, torn.missed
            );
            marks.push((torn.walks > 0 && torn.repeated + torn.missed == 0, text));
        }
        if let Some(nginx) = find("nginx") {
            let ratio = own.calls_per_request() / nginx.calls_per_request();
            let text = format!("arrivals: {ratio:.3} of nginx's calls, to be fewer than a quarter");
            marks.push((ratio < 0.25, text));
        }
    }
    let text = format!("{}: {} requests of {} failed, to be none", phase.name, own.failed, own.requests);
    marks.push((own.failed == 0, text));
    marks
}

async fn reachable(contender: &Contender) {
    for _ in 0..100 {
        if TcpStream::connect(contender.gate).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not answer at {}", contender.name, contender.gate);
}

/// Every service asks every gate, and meanwhile what happens in the phase happens to every upstream.
async fn play(
    contenders: &[Contender],
    sessions: &[Vec<Session>],
    world: &Arc<Mutex<World>>,
    phase: &Phase,
    length: Duration,
) {
    let mut players = JoinSet::new();
    let start = tokio::time::Instant::now();
    for contender in contenders {
        for (place, (service, sessions)) in services().into_iter().zip(sessions).enumerate() {
            let player =
                Player::new(service, place, contender.gate, Arc::clone(&contender.ledger), Arc::clone(world));
            players.spawn(player.play(start, sessions.clone()));
        }
    }
    let mut dice = Dice::new(SEED + 7);
    let (mut arrived, mut erased) = (0, 0);
    while !players.is_empty() {
        tokio::select! {
            Some(ended) = players.join_next() => ended.expect("a player does not fail"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        let elapsed = start.elapsed().min(length).as_secs_f64();
        while f64::from(arrived) < elapsed * phase.arrivals {
            arrived += 1;
            // First where nobody asks: what a gate knows of is never newer than the world.
            world.lock().unwrap().arrive();
            for contender in contenders {
                contender.upstream.arrive(1);
            }
        }
        while f64::from(erased) < elapsed * phase.deletions {
            erased += 1;
            let id = world.lock().unwrap().erase(dice.position(ERASED_AMONG));
            for contender in contenders {
                contender.upstream.conversations(|conversations| conversations.remove(&id));
            }
        }
    }
}
