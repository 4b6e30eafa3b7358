//! Plays one case: a gate and an upstream of its own, the client's steps in order, then what the upstream saw.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::form::{Case, Seen, Step};
use super::origin::Origin;
use super::support::gate::Setup;
use super::support::wire::{self, Body, Head};

/// How long anything may take that should happen at once; only failures meet it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A case that does not go as written: which step, and what happened instead.
type Went = Result<(), String>;

/// Plays `case` from its beginning to its end.
pub async fn play(case: &Case) -> Went {
    let origin = Origin::start(case.origin.clone()).await;
    let lines = |section: &str| {
        let lines = case.settings.iter().filter(|(name, _)| name == section);
        lines.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let config = CONFIG.replace("{origin}", &origin.address.to_string());
    let config = config.replace("{upstream}\n", &lines("upstream")) + &lines("config");
    let gate = Setup::new(config).server(&lines("server")).start().await;
    let mut client = Client::connect(gate.addr()).await?;
    for (number, step) in (1..).zip(&case.steps) {
        client.take(step, &origin).await.map_err(|why| {
            let seen: Vec<_> = origin.seen.borrow().iter().map(|(head, _)| head.first.clone()).collect();
            let answer = client.last.as_ref().map(|answer| {
                let body = String::from_utf8_lossy(&answer.body.bytes);
                format!("\n  the last answer: {}\n  {:.400}", String::from_utf8_lossy(&answer.head.raw), body)
            });
            let answer = answer.unwrap_or_default();
            format!("  step {number}, {step:.200?}:\n  {why}\n  the upstream saw {seen:?}{answer}")
        })?;
    }
    for expected in &case.seen {
        check(expected, &origin).map_err(|why| format!("  {expected:?}: {why}"))?;
    }
    Ok(())
}

/// `/plain` is cached, `/read` has parameters, `/tree/*` is below a path, `/open` passes everything, and behind
/// `/refused` nobody listens.
const CONFIG: &str = r#"
[upstreams.origin]
url = "http://{origin}/base"
{upstream}

[upstreams.origin.accounts.main]
headers.api-key = "sesame"
query.token = "mellon"
quota = "none"

[upstreams.nobody]
url = "http://127.0.0.1:1"

[upstreams.nobody.accounts.main]
headers.api-key = "sesame"
quota = "none"

[[routes]]
name = "plain"
path = "/plain"
upstream = "origin"
account = "main"
cache = { ttl = "60s" }

[[routes]]
name = "alive"
path = "/alive"
upstream = "origin"
account = "main"

[[routes]]
name = "read"
path = "/read"
upstream = "origin"
account = "main"
cache = { ttl = "60s" }
params = { q = "string", page = { type = "integer", default = 1 } }

[[routes]]
name = "tree"
path = "/tree/*"
upstream = "origin"
account = "main"
methods = ["GET", "HEAD", "POST"]

[[routes]]
name = "open"
path = "/open"
upstream = "origin"
account = "main"
methods = "all"
forward_headers = "all"
cache = { enabled = false }

[[routes]]
name = "refused"
path = "/refused"
upstream = "nobody"
account = "main"
methods = "all"
"#;

/// The client's side: one connection at a time, and the last answer it got.
struct Client {
    gate: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    last: Option<Answer>,
}

struct Answer {
    head: Head,
    body: Body,
}

impl Client {
    async fn connect(gate: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(gate).await.map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { gate, stream, buffer: Vec::new(), last: None })
    }

    async fn take(&mut self, step: &Step, origin: &Origin) -> Went {
        match step {
            // A gate that has refused need not read on.
            Step::Send(bytes) => drop(self.stream.write_all(bytes).await),
            Step::Dribble(pause, bytes) => {
                for byte in bytes {
                    if self.stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(*pause).await;
                }
            }
            Step::Pause(pause) => tokio::time::sleep(*pause).await,
            Step::Finish => drop(self.stream.shutdown().await),
            Step::Reset => {
                let _ = self.stream.set_zero_linger();
                *self = Self::connect(self.gate).await?;
            }
            Step::Connect => *self = Self::connect(self.gate).await?,
            Step::Await(count) => {
                let mut seen = origin.seen.clone();
                let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.len() >= *count)).await;
                waited.map_err(|_| format!("the upstream did not see {count} requests"))?.unwrap();
            }
            Step::Settle(count) => {
                let mut done = origin.done.clone();
                let waited = tokio::time::timeout(PATIENCE, done.wait_for(|done| done >= count)).await;
                waited.map_err(|_| format!("the upstream is not done with {count} requests"))?.unwrap();
            }
            Step::Answer { statuses, bodiless, broken } => {
                let (status, answer) = self.read(*bodiless, statuses.contains(&100)).await?;
                if let Some(answer) = answer {
                    let complete = answer.body.complete;
                    self.last = Some(answer);
                    if complete == *broken {
                        return Err(format!("the body came to its end: {complete}"));
                    }
                }
                if !statuses.contains(&status) {
                    return Err(format!("answered {status}"));
                }
            }
            Step::Closes => {
                let mut rest = std::mem::take(&mut self.buffer);
                let closed = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
                closed.map_err(|_| "the connection stays open".to_owned())?.ok();
                if !rest.is_empty() {
                    return Err(format!("before closing it said {:?}", String::from_utf8_lossy(&rest)));
                }
            }
            Step::Open => {
                let ask = b"GET /alive HTTP/1.1\r\nHost: gate.example\r\n\r\n";
                let written = self.stream.write_all(ask).await;
                written.map_err(|error| format!("the connection is closed: {error}"))?;
                let (status, answer) = self.read(false, false).await?;
                if status != 200 || answer.is_none_or(|answer| answer.body.bytes != b"ok") {
                    return Err(format!("the next request on the connection is answered {status}"));
                }
            }
            Step::Header(..) | Step::NoHeader(_) | Step::Body(_) | Step::Has(_) | Step::HasNot(_) => {
                return self.last.as_ref().ok_or("no answer was read yet")?.shows(step);
            }
        }
        Ok(())
    }

    /// The next answer and its status, 0 if the connection closes instead. Interim ones count only if asked for.
    async fn read(&mut self, bodiless: bool, interim: bool) -> Result<(u16, Option<Answer>), String> {
        let reading = async {
            loop {
                let head = match wire::read_head(&mut self.stream, &mut self.buffer).await {
                    Ok(Some(head)) => head,
                    Ok(None) => return Ok((0, None)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok((0, None)),
                    Err(error) => return Err(format!("an answer's head broke off: {error}")),
                };
                let status = head.first.strip_prefix("HTTP/1.1 ").or(head.first.strip_prefix("HTTP/1.0 "));
                let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
                let status: u16 = status.ok_or_else(|| format!("not a status line: {:?}", head.first))?;
                if status / 100 == 1 && !interim {
                    continue;
                }
                let bodiless = bodiless || matches!(status, 100..=199 | 204 | 304);
                let body = if bodiless {
                    Body { bytes: Vec::new(), complete: true }
                } else {
                    wire::read_body(&mut self.stream, &mut self.buffer, &head.headers, true).await
                };
                return Ok((status, Some(Answer { head, body })));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.map_err(|_| "no answer comes".to_owned())?
    }
}

impl Answer {
    fn shows(&self, step: &Step) -> Went {
        let everything = [self.head.raw.as_slice(), &self.body.bytes].concat();
        let contains = |bytes: &Vec<u8>| everything.windows(bytes.len().max(1)).any(|window| window == bytes);
        let right = match step {
            Step::Header(name, None) => self.head.headers.first(name).is_some(),
            Step::Header(name, Some(value)) => self.head.headers.all(name) == [value],
            Step::NoHeader(name) => self.head.headers.first(name).is_none(),
            Step::Body(bytes) => self.body.bytes == *bytes,
            Step::Has(bytes) => contains(bytes),
            Step::HasNot(bytes) => !contains(bytes),
            _ => true,
        };
        if right { Ok(()) } else { Err("it is otherwise".into()) }
    }
}

fn check(expected: &Seen, origin: &Origin) -> Went {
    let seen = origin.seen.borrow();
    let heads = || seen.iter().map(|(head, _)| head);
    let told = || heads().map(|head| String::from_utf8_lossy(&head.raw).into_owned()).collect::<String>();
    let right = match expected {
        Seen::Count(count) => seen.len() == *count,
        Seen::Connections(count) => origin.connections() == *count,
        Seen::Line(line) => heads().any(|head| head.first == *line),
        Seen::Header(name, None) => heads().all(|head| head.headers.first(name).is_some()),
        Seen::Header(name, Some(value)) => heads().all(|head| head.headers.all(name) == [value]),
        Seen::NoHeader(name) => heads().all(|head| head.headers.first(name).is_none()),
        Seen::Body(bytes) => seen.last().is_some_and(|(_, body)| body == bytes),
        Seen::Nowhere(bytes) => {
            !heads().any(|head| head.raw.windows(bytes.len().max(1)).any(|window| window == bytes))
        }
    };
    if right {
        return Ok(());
    }
    Err(format!("over {} connections the upstream saw\n{}", origin.connections(), told()))
}
