//! Hits at a steady rate, and how long the slowest take: `benches/tail` runs it.
//!
//! Every request has a moment at which it is due, whatever became of those before it, and is timed from that moment: a
//! server that stands still for a while is charged for everyone who would have asked meanwhile. With a rate for a storm,
//! so many misses and so many requests that the origin answers with 429 go on beside the hits each second.
//!
//! ```text
//! tail HOST:PORT RATE SECONDS TARGET [STORM_RATE]
//! p50 p99 p99.9 worst requests reconnections
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a helper of a script: a mistake ends it, and it measures with the system's clock"
)]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 16;
/// Connections for what disturbs, of each kind.
const DISTURBERS: u32 = 2;

/// Makes every key of a run another one than those of the runs before it.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, rate, seconds, target, rest @ ..] = words.as_slice() else {
        panic!("tail HOST:PORT RATE SECONDS TARGET [STORM_RATE]")
    };
    let (rate, seconds): (f64, f64) = (rate.parse().unwrap(), seconds.parse().unwrap());
    NEXT.store(std::process::id().into(), Ordering::Relaxed);
    let begin = Instant::now() + Duration::from_millis(50);
    let of = |rate: f64, connections: u32| Pace {
        begin,
        every: Duration::from_secs_f64(f64::from(connections) / rate),
        until: begin + Duration::from_secs_f64(seconds),
    };
    let storm: Option<f64> = rest.first().map(|rate| rate.parse().unwrap());
    let (mut times, reconnected) = thread::scope(|scope| {
        if let Some(storm) = storm {
            for at in 0..DISTURBERS {
                let pace = of(storm, DISTURBERS);
                scope.spawn(move || {
                    run(address, &pace, (at, DISTURBERS), || unique("/messages?per_page=16&page="))
                });
                scope.spawn(move || run(address, &pace, (at, DISTURBERS), || unique("/storm?page=")));
            }
        }
        let hits: Vec<_> = (0..CONNECTIONS)
            .map(|at| {
                let pace = of(rate, CONNECTIONS);
                scope.spawn(move || run(address, &pace, (at, CONNECTIONS), || target.clone()))
            })
            .collect();
        let mut all = (Vec::new(), 0);
        for (times, reconnected) in hits.into_iter().map(|hits| hits.join().unwrap()) {
            all.0.extend(times);
            all.1 += reconnected;
        }
        all
    });
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!("{} {} {} {} {} {reconnected}", at(0.5), at(0.99), at(0.999), at(1.0), times.len());
}

fn unique(before: &str) -> String {
    // The process and a count, far apart, so that no two runs ask the same.
    format!("{before}{}", NEXT.fetch_add(100_000, Ordering::Relaxed) + 1_000_000)
}

/// When requests are due on one connection.
#[derive(Clone, Copy)]
struct Pace {
    begin: Instant,
    every: Duration,
    until: Instant,
}

/// Asks at `pace` over a connection, the `at`-th of several; how long each answer took, and how often it reconnected.
fn run(
    address: &str,
    pace: &Pace,
    (at, of): (u32, u32),
    target: impl Fn() -> String,
) -> (Vec<Duration>, u32) {
    let (mut times, mut reconnected) = (Vec::new(), 0);
    let mut due = pace.begin + pace.every.mul_f64(f64::from(at) / f64::from(of));
    let mut connection = open(address);
    while due < pace.until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let target = target();
        // A server that reloads may end a connection between two requests.
        while ask(&mut connection, &target).is_err() {
            reconnected += 1;
            connection = open(address);
        }
        times.push(due.elapsed());
        due += pace.every;
    }
    (times, reconnected)
}

fn open(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    BufReader::with_capacity(64 << 10, stream)
}

fn ask(stream: &mut BufReader<TcpStream>, target: &str) -> io::Result<()> {
    let request = format!("GET {target} HTTP/1.1\r\nhost: gate\r\naccept: */*\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut line, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        chunked |= lower.starts_with("transfer-encoding: chunked");
        if line == "\r\n" {
            break;
        }
    }
    while chunked {
        line.clear();
        stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        skip(stream, size + 2)?;
        chunked = size > 0;
    }
    skip(stream, length)
}

fn skip(stream: &mut BufReader<TcpStream>, bytes: usize) -> io::Result<()> {
    let skipped = io::copy(&mut stream.by_ref().take(bytes as u64), &mut io::sink())?;
    if skipped == bytes as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
