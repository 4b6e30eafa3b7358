//! `cargo bench --bench memory`: how much memory the gate takes while a million distinct keys pass through it.
//!
//! The built gate runs as a process of its own; an upstream and clients in this one talk to it over sockets. For small
//! answers and for a mix of sizes its peak (`VmHWM`) must stay within 1.25 × `cache.max_bytes` + 64 MiB; if it does
//! not, this ends with 1. It also measures what an entry keeps beside its body, which is what `OVERHEAD` in
//! `src/state/store.rs` stands on. Linux only: it reads `/proc`.
//!
//! `cargo bench --bench memory -- 200000` sends fewer keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program for people at a terminal: a mistake ends it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// How many distinct keys pass.
const KEYS: u64 = 1_000_000;
/// How many connections send them, each waiting for its answer.
const CONNECTIONS: u64 = 16;
/// The bound's two parts beside `cache.max_bytes`.
const PERCENT: u64 = 125;
const ALLOWANCE: u64 = 64 << 20;

fn main() -> ExitCode {
    let keys = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(KEYS);
    println!("what an entry keeps beside its body, nothing being evicted:");
    overhead();
    println!("\npeak resident memory while {keys} distinct keys pass:");
    let mut held = true;
    for (name, max_bytes, size) in [
        ("1 KiB answers", 256 << 20, (|_| 1 << 10) as fn(u64) -> usize),
        ("64 B to 64 KiB", 256 << 20, mixed),
    ] {
        held &= peak(name, keys, max_bytes, size);
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sizes whose logarithms are spread evenly: most answers are small, most bytes are in large ones.
fn mixed(key: u64) -> usize {
    let scrambled = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let size = 64usize << ((scrambled >> 60) % 11);
    size - (scrambled >> 20) as usize % (size / 2)
}

fn peak(name: &str, keys: u64, max_bytes: u64, size: fn(u64) -> usize) -> bool {
    let gate = Gate::start(max_bytes, size);
    let began = Instant::now();
    gate.ask(0..keys);
    let (peak, bound) = (gate.memory("VmHWM"), max_bytes / 100 * PERCENT + ALLOWANCE);
    println!(
        "  {name:<28} peak {:>6.1} MiB, bound {:>6.1} MiB (max_bytes {:>5.1} MiB): {}   {:.0} s, {:.0} entries held",
        mib(peak),
        mib(bound),
        mib(max_bytes),
        if peak <= bound { "kept" } else { "BROKEN" },
        began.elapsed().as_secs_f64(),
        gate.metric("tollgate_cache_entries"),
    );
    peak <= bound
}

fn overhead() {
    for (name, size) in [("64 B", 64), ("1 KiB", 1 << 10), ("4 KiB", 4 << 10)] {
        let gate = Gate::start(
            1 << 30,
            match size {
                64 => |_| 64,
                1024 => |_| 1 << 10,
                _ => |_| 4 << 10,
            },
        );
        // Buffers, tables and arenas are warm before it is measured what one more entry takes.
        let (warm, more) = (20_000, 60_000);
        gate.ask(0..warm);
        let before = (gate.metric("tollgate_cache_bytes"), gate.memory("VmRSS"));
        gate.ask(warm..warm + more);
        let after = (gate.metric("tollgate_cache_bytes"), gate.memory("VmRSS"));
        let entry = |bytes: f64| bytes / more as f64 - f64::from(size);
        println!(
            "  {name:<6} bodies: {:>5.0} bytes resident, {:>5.0} accounted for by the store",
            entry((after.1 as f64) - (before.1 as f64)),
            entry(after.0 - before.0),
        );
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A gate that runs, with the upstream it asks. Ended when dropped.
struct Gate {
    child: Child,
    config: PathBuf,
    gate: SocketAddr,
    admin: SocketAddr,
}

impl Gate {
    fn start(max_bytes: u64, size: fn(u64) -> usize) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let upstream = upstream(size);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let config =
            std::env::temp_dir().join(format!("tollgate-memory-{}-{number}.toml", std::process::id()));
        std::fs::write(&config, configuration(max_bytes, upstream)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("TOLLGATE_LOG", "tollgate::gateway=info,warn")
            .env("TOLLGATE_LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |listener: &str| {
            let line = lines
                .by_ref()
                .map(Result::unwrap)
                .find(|line| line.contains(&format!("\"listener\":\"{listener}\"")))
                .expect("the gate listens");
            let (_, rest) = line.split_once("\"address\":\"").unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let (gate, admin) = (address("gate"), address("admin"));
        thread::spawn(move || lines.for_each(drop));
        Self { child, config, gate, admin }
    }

    /// Asks once for each of `keys`, over a few connections at the same time.
    fn ask(&self, keys: std::ops::Range<u64>) {
        let next = AtomicU64::new(keys.start);
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut connection = Connection::open(self.gate);
                    loop {
                        let key = next.fetch_add(1, Ordering::Relaxed);
                        if key >= keys.end {
                            return;
                        }
                        let target = format!("/messages?page={}&phone_number=%2B336{key:08}", key + 1);
                        connection.get(&target);
                    }
                });
            }
        });
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux tells");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    fn metric(&self, name: &str) -> f64 {
        let text = Connection::open(self.admin).get("/metrics");
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).expect("the gate counts it");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

fn configuration(max_bytes: u64, upstream: SocketAddr) -> String {
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        [admin]
        listen = "127.0.0.1:0"
        [cache]
        max_bytes = "{max_bytes}B"
        [upstreams.constant]
        url = "http://{upstream}"
        max_concurrent = 64
        [upstreams.constant.accounts.main]
        headers.api-key = "secret"
        quota = "none"
        [[routes]]
        name = "messages"
        path = "/messages"
        upstream = "constant"
        account = "main"
        [routes.params]
        page = {{ type = "integer", min = 1 }}
        phone_number = "phone"
        [routes.cache]
        ttl = "1h"
        "#
    )
}

/// A connection that asks and reads answers with a `Content-Length`.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn get(&mut self, target: &str) -> Vec<u8> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: gate\r\naccept: application/json\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let head = head(&mut self.0).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.trim().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}

/// A message's head, or `None` at the connection's end.
fn head(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Starts an upstream whose answer to `?page=N` has `size(N)` bytes. It lives as long as this process.
fn upstream(size: fn(u64) -> usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap(), size));
        }
    });
    address
}

fn serve(stream: TcpStream, size: fn(u64) -> usize) {
    let body = [b'x'; 64 << 10];
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    while let Some(head) = head(&mut stream) {
        let (_, rest) = head.split_once("page=").expect("a page");
        let page = rest.split(['&', ' ']).next().unwrap().parse().unwrap();
        let length = size(page);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Fri, 01 Jan 2100 00:00:00 GMT\r\n\
             server: constant\r\netag: \"{page}\"\r\nx-frame-options: DENY\r\nvary: accept\r\n\
             content-length: {length}\r\n\r\n"
        )
        .into_bytes();
        answer.extend_from_slice(&body[..length]);
        if stream.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}
