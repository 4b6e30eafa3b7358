//! An upstream in the test's hands: it records every request and answers as its script says, the wrong ways
//! included. What has to be late waits for a [`Signal`] or for [`Upstream::release`], never for time to pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::wire::{self, Headers};
use super::within;

/// A request as it came: names and values spelled as they were sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// 1 for the first request this upstream ever read.
    pub number: usize,
    /// Which connection it came on, from 1.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub headers: Headers,
    /// The head's bytes.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// What the upstream does with one request.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framing: Framing,
    before_head: Option<Signal>,
    before_body: Option<Signal>,
    sent: Option<usize>,
    close: bool,
}

#[derive(Clone)]
enum Framing {
    ContentLength,
    Chunked,
    UntilClose,
    /// The reply's body is all that is written, head included.
    Verbatim,
    Silence,
}

/// Something that happens once, and that any number of tasks can wait for.
#[derive(Clone)]
pub struct Signal(Arc<watch::Sender<bool>>);

/// The upstream itself: its listener, and what it has seen.
pub struct Upstream {
    address: SocketAddr,
    world: Arc<World>,
    running: Option<Running>,
}

struct World {
    script: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    tls: Option<TlsAcceptor>,
    seen: watch::Sender<Vec<Request>>,
    held: watch::Sender<bool>,
    connections: AtomicUsize,
    refused_handshakes: watch::Sender<usize>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Upstream {
    /// Listens on a port of the system's choice and answers each request as `script` says.
    pub async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(script), None).await
    }

    /// The same behind TLS.
    pub async fn start_tls(
        config: Arc<ServerConfig>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Box::new(script), Some(TlsAcceptor::from(config))).await
    }

    async fn listen(script: Box<dyn Fn(&Request) -> Reply + Send + Sync>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let world = Arc::new(World {
            script,
            tls,
            seen: watch::Sender::new(Vec::new()),
            held: watch::Sender::new(false),
            connections: AtomicUsize::new(0),
            refused_handshakes: watch::Sender::new(0),
        });
        let running = Some(Running::start(listener, Arc::clone(&world)));
        Self { address, world, running }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT` behind TLS.
    pub fn url(&self) -> String {
        match self.world.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// Every request read so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.world.seen.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.world.seen.borrow().len()
    }

    /// Waits until `count` requests have been read, and returns all there are.
    pub async fn seen(&self, count: usize) -> Vec<Request> {
        let mut seen = self.world.seen.subscribe();
        let what = format!("{count} requests at the upstream");
        within(&what, seen.wait_for(|requests| requests.len() >= count)).await.unwrap().clone()
    }

    /// From now on requests are read and recorded, and their replies wait.
    pub fn hold(&self) {
        self.world.held.send_replace(true);
    }

    /// Lets go all replies that wait, and those to come.
    pub fn release(&self) {
        self.world.held.send_replace(false);
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.world.connections.load(Ordering::SeqCst)
    }

    /// Waits until a peer has broken off a TLS handshake, as one that does not trust us does.
    pub async fn handshake_refused(&self) {
        let mut refused = self.world.refused_handshakes.subscribe();
        within("a refused handshake", refused.wait_for(|count| *count > 0)).await.unwrap();
    }

    /// Closes the listener and drops every connection, whatever was going on there; the port refuses from now on.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.send_replace(true);
            within("the upstream to end", running.task).await.unwrap();
        }
    }

    /// Listens again on the same port, with the same script and the same record.
    pub async fn restart(&mut self) {
        self.kill().await;
        let listener = TcpListener::bind(self.address).await.expect("the same port again");
        self.running = Some(Running::start(listener, Arc::clone(&self.world)));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// What stands after the first `?`; empty without one.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether these bytes stand anywhere in the request.
    pub fn contains(&self, text: &str) -> bool {
        [&self.head, &self.body].iter().any(|bytes| String::from_utf8_lossy(bytes).contains(text))
    }
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::ContentLength,
            before_head: None,
            before_body: None,
            sent: None,
            close: false,
        }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::ok(body).header("Content-Type", "application/json")
    }

    /// Writes these bytes and nothing else, then closes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { framing: Framing::Verbatim, ..Self::ok(bytes) }.close()
    }

    /// Closes without a word.
    pub fn silence() -> Self {
        Self { framing: Framing::Silence, ..Self::ok(Vec::new()) }.close()
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks, in place of a `Content-Length`.
    #[must_use]
    pub fn chunked(self) -> Self {
        Self { framing: Framing::Chunked, ..self }
    }

    /// Sends the body without any length; it ends when the connection does.
    #[must_use]
    pub fn until_close(self) -> Self {
        Self { framing: Framing::UntilClose, ..self }.close()
    }

    /// Promises the whole body, sends its first `bytes` bytes and closes.
    #[must_use]
    pub fn truncate(self, bytes: usize) -> Self {
        Self { sent: Some(bytes), ..self }.close()
    }

    /// Waits for `signal` before the first byte.
    #[must_use]
    pub fn after(self, signal: &Signal) -> Self {
        Self { before_head: Some(signal.clone()), ..self }
    }

    /// Sends the head, then waits for `signal` before the body.
    #[must_use]
    pub fn body_after(self, signal: &Signal) -> Self {
        Self { before_body: Some(signal.clone()), ..self }
    }

    /// Closes the connection once the reply is sent.
    #[must_use]
    pub fn close(self) -> Self {
        Self { close: true, ..self }
    }

    async fn write(&self, stream: &mut dyn Stream, method: &str) -> std::io::Result<()> {
        if let Some(signal) = &self.before_head {
            signal.wait().await;
        }
        let mut message = Vec::new();
        match self.framing {
            Framing::Silence => return Ok(()),
            Framing::Verbatim => {}
            _ => message = self.head(),
        }
        let truncated = self.sent.unwrap_or(self.body.len()).min(self.body.len());
        let sent = &self.body[..truncated];
        let mut body = Vec::new();
        if method != "HEAD" || matches!(self.framing, Framing::Verbatim) {
            match self.framing {
                Framing::Chunked => {
                    for chunk in sent.chunks(1024) {
                        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        body.extend_from_slice(chunk);
                        body.extend_from_slice(b"\r\n");
                    }
                    if self.sent.is_none() {
                        body.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                _ => body.extend_from_slice(sent),
            }
        }
        if let Some(signal) = &self.before_body {
            stream.write_all(&message).await?;
            stream.flush().await?;
            signal.wait().await;
            message.clear();
        }
        message.extend_from_slice(&body);
        stream.write_all(&message).await?;
        stream.flush().await
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        match self.framing {
            Framing::ContentLength if !bodiless => {
                head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
            }
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        // Who breaks off in the middle does not announce it.
        if self.close && self.sent.is_none() {
            head.push_str("Connection: close\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Signal {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn fire(&self) {
        self.0.send_replace(true);
    }

    /// Returns at once if it has happened already. Has no deadline: what waits here is the scenery.
    pub async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|happened| *happened).await;
    }
}

impl Running {
    fn start(listener: TcpListener, world: Arc<World>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => break,
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let number = world.connections.fetch_add(1, Ordering::SeqCst) + 1;
                        connections.spawn(converse(stream, number, Arc::clone(&world)));
                    }
                }
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self { stop, task }
    }
}

async fn converse(stream: TcpStream, connection: usize, world: Arc<World>) {
    let _ = stream.set_nodelay(true);
    let mut stream: Box<dyn Stream> = match &world.tls {
        None => Box::new(stream),
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => {
                world.refused_handshakes.send_modify(|count| *count += 1);
                return;
            }
        },
    };
    let mut buffer = Vec::new();
    while let Ok(Some(head)) = wire::read_head(&mut stream, &mut buffer).await {
        let body = wire::read_body(&mut stream, &mut buffer, &head.headers, false).await;
        let mut words = head.first.split(' ').map(str::to_owned);
        let mut request = Request {
            number: 0,
            connection,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers: head.headers,
            head: head.raw,
            body: body.bytes,
        };
        world.seen.send_modify(|seen| {
            request.number = seen.len() + 1;
            seen.push(request.clone());
        });
        let _ = world.held.subscribe().wait_for(|held| !held).await;
        let reply = (world.script)(&request);
        if reply.write(stream.as_mut(), &request.method).await.is_err() || reply.close {
            break;
        }
    }
    let _ = stream.shutdown().await;
}
