//! The clients of the storm. Each kind does one thing until it is told to stop, and tells what it saw.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::wire;

/// How many connections are opened at the same time: fewer than may wait to be accepted.
const OPENERS: usize = 64;
/// How often a slow head grows by a byte.
const DRIBBLE: Duration = Duration::from_millis(400);
/// How many keys the hits ask for.
pub(crate) const HIT_KEYS: u64 = 64;

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers by status.
    pub(crate) codes: BTreeMap<u16, u64>,
    /// Connections that ended without the answer that was asked for.
    pub(crate) broken: u64,
    /// How long each answer took.
    pub(crate) took: Vec<Duration>,
    /// Answers in each second since the storm began.
    pub(crate) seconds: BTreeMap<u64, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        for (second, count) in other.seconds {
            *self.seconds.entry(second).or_default() += count;
        }
        self.broken += other.broken;
        self.took.extend(other.took);
    }

    pub(crate) fn total(&self) -> u64 {
        self.codes.values().sum()
    }

    pub(crate) fn of(&self, code: u16) -> u64 {
        self.codes.get(&code).copied().unwrap_or_default()
    }

    /// Whether all answers had one of these statuses, and none is missing.
    pub(crate) fn is_only(&self, codes: &[u16]) -> bool {
        self.broken == 0 && self.codes.keys().all(|code| codes.contains(code))
    }

    /// The time that this share of answers did not exceed.
    pub(crate) fn within(&mut self, share: f64) -> Duration {
        self.took.sort_unstable();
        let last = self.took.len().saturating_sub(1);
        let at = ((last as f64) * share).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let at = at as usize;
        self.took.get(at).copied().unwrap_or_default()
    }

    fn count(&mut self, code: Option<u16>) {
        match code {
            Some(code) => *self.codes.entry(code).or_default() += 1,
            None => self.broken += 1,
        }
    }
}

/// Where the storm takes place.
#[derive(Clone)]
pub(crate) struct Sea {
    pub(crate) gate: SocketAddr,
    pub(crate) began: Instant,
    stop: Arc<AtomicBool>,
}

impl Sea {
    pub(crate) fn new(gate: SocketAddr) -> Self {
        Self { gate, began: Instant::now(), stop: Arc::default() }
    }

    /// Everybody finishes what they began.
    pub(crate) fn calm(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_calm(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// So many connections, from addresses of this machine beginning with `127.0.0.{first}`: each has only so many ports.
    pub(crate) async fn connections(&self, count: usize, first: u8) -> Vec<Connection> {
        let (mut opening, mut opened) = (JoinSet::new(), Vec::with_capacity(count));
        for number in 0..count {
            if opening.len() >= OPENERS {
                opened.extend(opening.join_next().await.map(Result::unwrap));
            }
            let from = Ipv4Addr::new(127, 0, 0, first + u8::try_from(number % 4).unwrap());
            opening.spawn(Connection::open(from, self.gate));
        }
        opened.extend(opening.join_all().await);
        opened
    }

    /// Each connection asks for `target` in its turn.
    pub(crate) async fn ask_each(
        &self,
        connections: Vec<Connection>,
        target: &'static str,
    ) -> (Vec<Connection>, Tally) {
        let (mut asking, mut tally, mut kept) = (JoinSet::new(), Tally::default(), Vec::new());
        for mut connection in connections {
            if asking.len() >= OPENERS {
                let (connection, code) = asking.join_next().await.unwrap().unwrap();
                kept.push(connection);
                tally.count(code);
            }
            asking.spawn(async move {
                let code = connection.get(target).await;
                (connection, code)
            });
        }
        for (connection, code) in asking.join_all().await {
            kept.push(connection);
            tally.count(code);
        }
        (kept, tally)
    }

    /// Asks again and again, `pause` apart, for what `target` says for a number that is never given twice.
    pub(crate) async fn ask_often(
        &self,
        clients: usize,
        first: u8,
        pause: Duration,
        target: impl Fn(u64) -> String + Clone + Send + 'static,
    ) -> Tally {
        let number = Arc::new(AtomicU64::new(0));
        let mut asking = JoinSet::new();
        for mut connection in self.connections(clients, first).await {
            let (sea, number, target) = (self.clone(), Arc::clone(&number), target.clone());
            asking.spawn(async move {
                let mut tally = Tally::default();
                while !sea.is_calm() {
                    let asked = Instant::now();
                    let code = connection.get(&target(number.fetch_add(1, Ordering::Relaxed))).await;
                    tally.count(code);
                    if code.is_none() {
                        connection = Connection::open(connection.from, sea.gate).await;
                    }
                    tally.took.push(asked.elapsed());
                    *tally.seconds.entry(sea.began.elapsed().as_secs()).or_default() += 1;
                    tokio::time::sleep(pause).await;
                }
                tally
            });
        }
        let mut whole = Tally::default();
        asking.join_all().await.into_iter().for_each(|tally| whole.add(tally));
        whole
    }

    /// Everybody asks for `target` at once; `asked` is told when the last of them has.
    pub(crate) async fn stampede(
        connections: Vec<Connection>,
        target: &str,
        asked: impl FnOnce() + Send + 'static,
    ) -> (Vec<Connection>, Tally) {
        let left = Arc::new(AtomicUsize::new(connections.len()));
        let asked = Arc::new(std::sync::Mutex::new(Some(asked)));
        let mut asking = JoinSet::new();
        for mut connection in connections {
            let (left, asked, target) = (Arc::clone(&left), Arc::clone(&asked), target.to_owned());
            asking.spawn(async move {
                let sent = connection.ask(&target).await;
                if left.fetch_sub(1, Ordering::SeqCst) == 1
                    && let Some(asked) = asked.lock().unwrap().take()
                {
                    asked();
                }
                let code = if sent { connection.answer().await } else { None };
                (connection, code)
            });
        }
        let (mut tally, mut kept) = (Tally::default(), Vec::new());
        for (connection, code) in asking.join_all().await {
            kept.push(connection);
            tally.count(code);
        }
        (kept, tally)
    }

    /// Sends heads that never end, a byte at a time; begins anew whenever one is refused.
    pub(crate) async fn dribble(&self, clients: usize, first: u8) -> Tally {
        let mut dribbling = JoinSet::new();
        for number in 0..clients {
            let (sea, from) =
                (self.clone(), Ipv4Addr::new(127, 0, 0, first + u8::try_from(number % 4).unwrap()));
            dribbling.spawn(async move {
                let mut tally = Tally::default();
                while !sea.is_calm() {
                    let connection = Connection::open(from, sea.gate).await;
                    let began = Instant::now();
                    tally.count(connection.dribble().await);
                    tally.took.push(began.elapsed());
                }
                tally
            });
        }
        let mut whole = Tally::default();
        dribbling.join_all().await.into_iter().for_each(|tally| whole.add(tally));
        whole
    }
}

/// One connection to the gate.
pub(crate) struct Connection {
    from: Ipv4Addr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(from: Ipv4Addr, gate: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(gate).await.unwrap_or_else(|error| panic!("from {from}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self { from, stream, buffer: Vec::new() }
    }

    /// The status of the answer, if there is a whole one.
    async fn get(&mut self, target: &str) -> Option<u16> {
        if self.ask(target).await { self.answer().await } else { None }
    }

    async fn ask(&mut self, target: &str) -> bool {
        let request = format!("GET {target} HTTP/1.1\r\nhost: gate.example\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.is_ok()
    }

    async fn answer(&mut self) -> Option<u16> {
        let head = wire::read_head(&mut self.stream, &mut self.buffer).await.ok()??;
        let code = head.first.split(' ').nth(1)?.parse().ok()?;
        let body = wire::read_body(&mut self.stream, &mut self.buffer, &head.headers, true).await;
        // Thousands of these stand idle: they need not keep what they read into.
        self.buffer = Vec::new();
        body.complete.then_some(code)
    }

    /// What a head that never ends is answered with.
    async fn dribble(mut self) -> Option<u16> {
        self.stream.write_all(b"GET /page/slow HTTP/1.1\r\nhost: gate.example\r\nx-slow: ").await.ok()?;
        let mut answer = Vec::new();
        loop {
            let stream = &mut self.stream;
            tokio::select! {
                read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
                // What is refused meanwhile is seen by reading.
                () = tokio::time::sleep(DRIBBLE) => drop(self.stream.write_all(b"x").await),
            }
        }
        let line = String::from_utf8_lossy(&answer).into_owned();
        line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }
}
