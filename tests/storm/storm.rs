//! The storm: everything that is hard on a gate at once, for a minute, on loopback alone. `tests/storm/run` says how.
//!
//! What clients and upstream counted stands beside what the gate counted; the process ends well only if all of it is
//! equal, everything hard was refused in time, memory stayed in its bounds, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the storm fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its table")]
#![allow(clippy::disallowed_methods, reason = "it is not the gate: it starts tasks and reads the clock")]

mod crowd;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crowd::{HIT_KEYS, Sea, Tally};
use support::gate::{Gate, Setup, sample};
use support::upstream::{Reply, Request, Signal, Upstream};

/// How much of it.
#[derive(Debug, Clone, Copy)]
struct Scale {
    seconds: u64,
    idle: usize,
    stampede: usize,
    loris: usize,
    /// How long the gate waits for a head.
    header_timeout: Duration,
}

const WHOLE: Scale = Scale {
    seconds: 60,
    idle: 10_000,
    stampede: 5_000,
    loris: 1_000,
    header_timeout: Duration::from_secs(5),
};
const QUICK: Scale =
    Scale { seconds: 10, idle: 1_000, stampede: 500, loris: 100, header_timeout: Duration::from_secs(2) };
/// The most of everything: this is for one machine's loopback.
const MOST: Scale = Scale { seconds: 600, idle: 20_000, stampede: 10_000, loris: 10_000, ..WHOLE };

const MIB: u64 = 1 << 20;
const MAX_BYTES: u64 = 64 * MIB;
/// Beside the entries, whoever connects.
const FIXED: u64 = 64 * MIB;
/// A connection between two requests keeps its buffer.
const PER_CONNECTION: u64 = 24 << 10;
/// Clients that are neither idle, nor in a stampede, nor slow.
const OTHERS: usize = 64;
/// How long everything the gate holds may take to go once its clients have.
const CALM: Duration = Duration::from_secs(15);
/// How much later than its deadline a slow head may be refused, in a storm.
const LATE: Duration = Duration::from_secs(3);
/// More stampedes than there is time for.
const STAMPEDES: usize = 1_000;
const MAX_CONCURRENT: u64 = 64;

fn main() -> ExitCode {
    let scale = match scale(std::env::args().skip(1)) {
        Ok(scale) => scale,
        Err(mistake) => {
            eprintln!("{mistake}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let longest = Duration::from_secs(scale.seconds) + Duration::from_secs(120);
        match tokio::time::timeout(longest, storm(scale)).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(_) => {
                eprintln!("the storm did not end within {longest:?}");
                ExitCode::FAILURE
            }
        }
    })
}

fn scale(mut words: impl Iterator<Item = String>) -> Result<Scale, String> {
    let mut scale = WHOLE;
    while let Some(word) = words.next() {
        let mut number = |most: usize| match words.next().and_then(|word| word.parse().ok()) {
            Some(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!("{word} takes a number from 1 to {most}")),
        };
        match word.as_str() {
            // Said by cargo.
            "--bench" => {}
            "--quick" => scale = QUICK,
            "--seconds" => scale.seconds = number(600)? as u64,
            "--idle" => scale.idle = number(MOST.idle)?,
            "--stampede" => scale.stampede = number(MOST.stampede)?,
            "--loris" => scale.loris = number(MOST.loris)?,
            _ => {
                return Err(
                    "usage: tests/storm/run [--quick] [--seconds N] [--idle N] [--stampede N] [--loris N]"
                        .into(),
                );
            }
        }
    }
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("Linux tells");
    let may = line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX);
    let needed = connections(scale) + 500;
    if may < needed {
        return Err(format!(
            "{needed} descriptors are needed, {may} are allowed: raise `ulimit -Hn`, or ask for less"
        ));
    }
    Ok(scale)
}

fn connections(scale: Scale) -> usize {
    // A slow head that was refused may come back before its old connection has quite gone.
    scale.idle + scale.stampede + 2 * scale.loris + OTHERS
}

async fn storm(scale: Scale) -> bool {
    let Scale { seconds, idle, stampede, loris, header_timeout } = scale;
    println!(
        "{seconds} s: {idle} idle connections, stampedes of {stampede}, {loris} slow heads, 429s, a reload a second"
    );
    let landings: Arc<Vec<Signal>> = Arc::new((0..STAMPEDES).map(|_| Signal::new()).collect());
    let gone = Arc::clone(&landings);
    let upstream = Upstream::start(move |request| script(request, &gone)).await;
    let gate = start(&upstream, scale).await;
    let sea = Sea::new(gate.addr());
    let mut seen = Tally::default();

    // Fair weather: what the hits ask for is held, and the idle connections stand, every other one after an answer.
    let warm = sea.connections(1, WARM).await;
    for key in 0..HIT_KEYS {
        let target: &'static str = Box::leak(hit(key).into_boxed_str());
        seen.add(sea.ask_each(sea.connections(1, WARM).await, target).await.1);
    }
    drop(warm);
    gate.metric_becomes("tollgate_connections", &[], |open| open == 0.0).await;
    let (fair, descriptors) = (gate.memory("VmRSS"), gate.open_files());
    let mut standing = sea.connections(idle - idle / 2, IDLE).await;
    gate.metric_becomes("tollgate_connections", &[], |open| whole(open) == standing.len() as u64).await;
    let silent = gate.memory("VmRSS");
    let (answered, tally) = sea.ask_each(standing, "/page/hit-0").await;
    let answered_each = gate.memory("VmRSS").saturating_sub(fair) / answered.len() as u64;
    let silent_each = silent.saturating_sub(fair) / answered.len() as u64;
    standing = answered;
    standing.extend(sea.connections(idle / 2, IDLE).await);
    seen.add(tally);
    let crowd = sea.connections(stampede, STAMPEDE).await;

    // The storm.
    let sea = Sea::new(gate.addr());
    let is_over = Arc::new(AtomicBool::new(false));
    let clock = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        is_over.store(true, Ordering::Relaxed);
        sea.calm();
    };
    let (mut hits, misses, throttled, mut slow, (stampedes, crowd, rounds), reloads, most_open, ()) = tokio::join!(
        sea.ask_often(8, HITS, Duration::from_millis(2), |number| hit(number % HIT_KEYS)),
        sea.ask_often(4, MISSES, Duration::from_millis(5), |number| format!("/page/miss-{number}")),
        sea.ask_often(4, THROTTLED, Duration::from_millis(5), |number| format!("/throttled/{number}")),
        sea.dribble(loris, LORIS),
        stampedes(crowd, &landings, &is_over),
        reload(&gate, &is_over),
        most_open(&gate, &is_over),
        clock,
    );
    let stormed = sea.began.elapsed();

    // Afterwards everybody who stood idle is still served; then all of them leave.
    let (standing, idlers) = sea.ask_each(standing, "/page/hit-0").await;
    drop((standing, crowd));
    let peak = gate.memory("VmHWM");
    let left = Instant::now();
    let mut remains;
    loop {
        remains = Remains::of(&gate).await;
        if remains.is_nothing(descriptors) || left.elapsed() > CALM {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left = left.elapsed();

    let metrics = gate.metrics().await;
    let counted = |name: &str, labels: &[&str]| whole(sample(&metrics, name, labels));
    let requests = upstream.requests();
    let calls_for = |path: String| requests.iter().filter(|request| request.target == path).count();
    let single = (0..rounds).filter(|round| calls_for(stampede_key(*round)) == 1).count();

    let mut table = Table::default();
    let each = rounds > 0 && single == rounds;
    table.row("stampedes", [Some(rounds as u64), None, Some(single as u64)], each, "one call each");
    let all = stampedes.is_only(&[200]) && stampedes.total() == (rounds * stampede) as u64;
    table.row("  answered 200", [Some(stampedes.of(200)), None, None], all, "everybody in them");
    let throughout = (0..seconds).map(|second| hits.seconds.get(&second).copied().unwrap_or_default()).min();
    let throughout = throughout.unwrap_or_default();
    let (middle, most, longest) = (hits.within(0.5), hits.within(0.99), hits.within(1.0));
    let note = format!(
        "at least {throughout} a second; half within {middle:.1?}, 99 % {most:.1?}, all {longest:.1?}"
    );
    let all = hits.is_only(&[200]) && throughout > 0;
    table.row("hits answered 200", [Some(hits.of(200)), None, None], all, &note);
    table.row("misses answered 200", [Some(misses.of(200)), None, None], misses.is_only(&[200]), "");
    let note = format!("{} answered 200 in between", throttled.of(200));
    let all = throttled.is_only(&[200, 429]);
    table.row("storm of 429", [Some(throttled.of(429)), None, None], all, &note);
    let all = idlers.of(200) == idle as u64;
    table.row("idle answered 200", [Some(idlers.of(200)), None, None], all, "each once more at the end");
    for tally in [hits, misses, throttled, stampedes, idlers] {
        seen.add(tally);
    }
    for (code, count) in &seen.codes {
        let gate = counted("tollgate_requests_total", &[&format!("code=\"{code}\"")]);
        table.row(&format!("requests, {code}"), [Some(*count), Some(gate), None], gate == *count, "equal");
    }
    let (total, gate_total) = (seen.total(), counted("tollgate_requests_total", &[]));
    let all = gate_total == total && seen.broken == 0;
    table.row("requests in all", [Some(total), Some(gate_total), None], all, "equal");
    let (calls, received) = (counted("tollgate_upstream_requests_total", &[]), upstream.count() as u64);
    table.row("upstream calls", [None, Some(calls), Some(received)], calls == received, "equal");
    let latest = slow.within(1.0);
    let refused = counted("tollgate_refused_connections_total", &["reason=\"slow-head\""]);
    let in_time = slow.is_only(&[408]) && latest <= header_timeout + LATE;
    let all = in_time && slow.of(408) == refused && refused >= loris as u64;
    let note = match slow.is_only(&[408]) {
        true => format!("equal; the last one after {latest:.1?} of {header_timeout:?}"),
        false => format!("otherwise: {:?}, {} closed without a word", slow.codes, slow.broken),
    };
    table.row("slow heads, 408", [Some(slow.of(408)), Some(refused), None], all, &note);
    let reloaded = counted("tollgate_config_reloads_total", &["result=\"ok\""]);
    table.row("reloads", [Some(reloads), Some(reloaded), None], reloads == reloaded && reloads > 0, "equal");
    let panics = counted("tollgate_faults_total", &["kind=\"internal\""]);
    table.row("internal faults", [None, Some(panics), None], panics == 0, "none");
    table.print();

    let connections = connections(scale) as u64;
    let bound = MAX_BYTES / 4 * 5 + FIXED + PER_CONNECTION * connections;
    println!();
    let mut held = table.held;
    held &= verdict(
        peak <= bound,
        &format!(
            "peak memory {} MiB of {} MiB: 1.25 × {} MiB of cache, {} MiB, and {} KiB for each of {connections} connections\n  \
             ({:.1} KiB resident for a silent one, {:.1} KiB for one that was answered; {} entries held at the end in {} MiB)",
            peak / MIB,
            bound / MIB,
            MAX_BYTES / MIB,
            FIXED / MIB,
            PER_CONNECTION >> 10,
            silent_each as f64 / 1024.0,
            answered_each as f64 / 1024.0,
            counted("tollgate_cache_entries", &[]),
            counted("tollgate_cache_bytes", &[]) / MIB,
        ),
    );
    held &= verdict(
        remains.is_nothing(descriptors),
        &format!(
            "left after {:.1} s: {remains}; {descriptors} descriptors before it, {most_open} at most",
            left.as_secs_f64()
        ),
    );
    println!(
        "{} {:.0} s of storm, {:.0} s of the gate's CPU time",
        if held { "held:" } else { "BROKEN:" },
        stormed.as_secs_f64(),
        gate.cpu().as_secs_f64()
    );
    if !held {
        let lines = gate.lines().all();
        let told = lines.iter().filter(|line| !line.contains("tollgate::gateway"));
        told.take(20).for_each(|line| eprintln!("{line}"));
    }
    held
}

// The last part of the first of four addresses that each kind of client comes from.
const WARM: u8 = 2;
const IDLE: u8 = 10;
const STAMPEDE: u8 = 20;
const LORIS: u8 = 30;
const HITS: u8 = 40;
const MISSES: u8 = 50;
const THROTTLED: u8 = 60;

fn hit(key: u64) -> String {
    format!("/page/hit-{key}")
}

fn stampede_key(round: usize) -> String {
    format!("/page/stampede-{round}")
}

/// What the upstream answers: pages, late ones for stampedes, and mostly 429 where it is throttled.
fn script(request: &Request, landings: &[Signal]) -> Reply {
    let path = request.path();
    if let Some(round) = path.strip_prefix("/page/stampede-") {
        let round: usize = round.parse().unwrap();
        return Reply::json(vec![b'5'; 1 << 10]).after(&landings[round]);
    }
    let Some(number) = path.strip_prefix("/throttled/") else {
        let bytes = if path.starts_with("/page/miss-") { 16 << 10 } else { 4 << 10 };
        return Reply::json(vec![b'7'; bytes]);
    };
    let soon = SystemTime::now() + Duration::from_secs(1);
    let retry_after = match number.parse::<u64>().unwrap() % 12 {
        0 | 1 => return Reply::json("[]"),
        2 => Some("0".to_owned()),
        3 => Some("1".to_owned()),
        4 => Some("2".to_owned()),
        5 => Some(httpdate::fmt_http_date(soon)),
        6 => Some(httpdate::fmt_http_date(SystemTime::UNIX_EPOCH)),
        7 => Some("-1".to_owned()),
        8 => Some("soon".to_owned()),
        9 => Some("1.5".to_owned()),
        10 => Some("1, 2".to_owned()),
        _ => None,
    };
    let reply = Reply::new(429, "{\"error\":\"too many requests\"}");
    match retry_after {
        Some(value) => reply.header("Retry-After", &value),
        None => reply,
    }
}

async fn start(upstream: &Upstream, scale: Scale) -> Gate {
    let config = format!(
        r#"
[cache]
max_bytes = "{MAX_BYTES}B"
[upstreams.pages]
url = "{url}"
timeout = "60s"
max_concurrent = {MAX_CONCURRENT}
[upstreams.throttled]
url = "{url}"
max_concurrent = {MAX_CONCURRENT}
[upstreams.throttled.accounts.metered]
headers.api-key = "of-the-storm"
quota = "none"
[[routes]]
name = "page"
path = "/page/*"
upstream = "pages"
[routes.cache]
ttl = "1h"
[[routes]]
name = "throttled"
path = "/throttled/*"
upstream = "throttled"
account = "metered"
"#,
        url = upstream.url()
    );
    let server = format!(
        "max_connections = {}\nheader_timeout = \"{}ms\"\nidle_timeout = \"15m\"\n{FIRST}",
        connections(scale),
        scale.header_timeout.as_millis()
    );
    // A line for each request would be a storm of its own.
    Setup::new(config).server(&server).env("TOLLGATE_LOG", "tollgate::gateway=info,error").start().await
}

/// Two configurations in turn, so that every reload changes something.
const FIRST: &str = "max_streams = 100";
const SECOND: &str = "max_streams = 101";

/// Has the gate read its configuration every second; how often.
async fn reload(gate: &Gate, is_over: &AtomicBool) -> u64 {
    let path = gate.path("config.toml");
    let first = std::fs::read_to_string(&path).unwrap();
    let second = first.replace(FIRST, SECOND);
    assert_ne!(first, second);
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        std::fs::write(gate.path("next.toml"), if count % 2 == 0 { &second } else { &first }).unwrap();
        std::fs::rename(gate.path("next.toml"), &path).unwrap();
        gate.signal("HUP");
        count += 1;
        // Two signals at once are one.
        let label = ["result=\"ok\""];
        gate.metric_becomes("tollgate_config_reloads_total", &label, |done| whole(done) >= count).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    count
}

/// One stampede after another, each on a key nobody asked for before; the answer comes when a reload has passed.
async fn stampedes(
    mut crowd: Vec<crowd::Connection>,
    landings: &Arc<Vec<Signal>>,
    is_over: &AtomicBool,
) -> (Tally, Vec<crowd::Connection>, usize) {
    let (mut whole, mut round) = (Tally::default(), 0);
    while !is_over.load(Ordering::Relaxed) && round < STAMPEDES {
        let landings = Arc::clone(landings);
        let land = move || {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                landings[round].fire();
            });
        };
        let (back, tally) = Sea::stampede(crowd, &stampede_key(round), land).await;
        crowd = back;
        whole.add(tally);
        round += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    (whole, crowd, round)
}

/// The most descriptors that the gate had open.
async fn most_open(gate: &Gate, is_over: &AtomicBool) -> usize {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(gate.open_files());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    most
}

/// What the gate still holds.
struct Remains {
    connections: u64,
    flights: u64,
    permits: u64,
    tasks: u64,
    descriptors: usize,
}

impl Remains {
    async fn of(gate: &Gate) -> Self {
        let metrics = gate.metrics().await;
        let gauge = |name| whole(sample(&metrics, name, &[]));
        Self {
            connections: gauge("tollgate_connections"),
            flights: gauge("tollgate_flights_active"),
            permits: gauge("tollgate_permits"),
            tasks: gauge("tollgate_tasks"),
            descriptors: gate.open_files(),
        }
    }

    /// Nothing but descriptors that there were before, and idle connections to the upstreams.
    fn is_nothing(&self, before: usize) -> bool {
        let idle = usize::try_from(2 * MAX_CONCURRENT).unwrap();
        self.connections + self.flights + self.permits + self.tasks == 0 && self.descriptors <= before + idle
    }
}

impl std::fmt::Display for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connections, flights, permits, tasks, descriptors } = self;
        write!(
            f,
            "{connections} connections, {flights} flights, {permits} permits, {tasks} tasks, {descriptors} descriptors"
        )
    }
}

/// What was counted, by whom.
#[derive(Default)]
struct Table {
    rows: Vec<[String; 6]>,
    held: bool,
}

impl Table {
    /// What clients, gate and upstream counted.
    fn row(&mut self, what: &str, counted: [Option<u64>; 3], held: bool, note: &str) {
        self.held = held && (self.held || self.rows.is_empty());
        let [clients, gate, upstream] =
            counted.map(|count| count.map(|count| count.to_string()).unwrap_or_default());
        let verdict = if held { "held" } else { "BROKEN" };
        self.rows.push([what.into(), clients, gate, upstream, verdict.into(), note.into()]);
    }

    fn print(&self) {
        println!("\n{:<22}{:>10}{:>10}{:>10}", "", "clients", "gate", "upstream");
        for [what, clients, gate, upstream, verdict, note] in &self.rows {
            println!("{what:<22}{clients:>10}{gate:>10}{upstream:>10}  {verdict:<7} {note}");
        }
    }
}

fn verdict(held: bool, what: &str) -> bool {
    println!("{} {what}", if held { "held  " } else { "BROKEN" });
    held
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
fn whole(value: f64) -> u64 {
    value as u64
}
