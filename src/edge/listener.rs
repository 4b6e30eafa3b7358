//! A listener: accepts connections under a limit, TLS or not, and tells which HTTP they speak. `http1` and `http2`
//! serve them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use prometheus::{IntCounterVec, IntGauge};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::arriving::{Arriving, Pace};
use super::tls::certificate_of;
use super::tracked::{Overdue, Patience, Progress, Tracked};
use super::{http1, http2};
use crate::model::body::{Body, BodyError};
use crate::model::exchange::Certificate;
use crate::model::interim::TakesInterim;
use crate::state::clock::Clock;
use crate::state::tasks::Tasks;

/// A listener's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's head may take, from its first byte.
    pub header_timeout: Duration,
    /// How long a body may fall silent, in either direction.
    pub body_timeout: Duration,
    /// How long a request's body may take in all.
    pub body_total_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_head_bytes: usize,
    /// The most header fields of a request.
    pub max_headers: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: u64,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
}

/// What a listener works with.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its limits; replaced by a reload, for connections that begin after it.
    pub limits: Arc<ArcSwap<Limits>>,
    /// TLS; replaced by a reload. `None`: clear text.
    pub tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    /// The time.
    pub clock: Clock,
    /// Where connections are served.
    pub tasks: Tasks,
    /// How many connections there are.
    pub connections: IntGauge,
    /// Connections that ended before a request was understood, by reason.
    pub refused: IntCounterVec,
    /// Whether the socket outlives this process: what waits in it then is the next one's to answer.
    pub outlived: bool,
    /// How far its end is.
    pub drain: watch::Receiver<Drain>,
}

/// How far the end of a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Far.
    Not,
    /// Near: requests are served, and whoever may ask again is told to ask elsewhere.
    Soon,
    /// Here: the listener closes and its connections end.
    Now,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What it showed of itself, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// Where interim responses go, on connections that take them.
    pub interim: Option<Arc<dyn TakesInterim>>,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// An answer's body.
    type Body: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static;

    /// Answers one request; always.
    fn handle(
        &self,
        request: Request<Body>,
        peer: &Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A connection that has said which HTTP it speaks, served to its end.
type Serving = BoxFuture<'static, ()>;

/// How long accepting pauses when it fails, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a new connection that met a drain has for the first byte of a request.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Said to a client that is one too many (RFC 9110 §15.6.4).
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Listener {
    /// Serves `tcp` until told to drain; then closes it and leaves its connections to end by themselves.
    pub async fn serve<H: Handler>(self, tcp: TcpListener, handler: Arc<H>) {
        let listener = Arc::new(self);
        let mut drain = listener.drain.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            if listener.outlived && *drain.borrow() == Drain::Now {
                return;
            }
            // What waits in a socket that closes with this process would be reset: it is accepted first.
            let accepted = tokio::select! {
                biased;
                accepted = tcp.accept() => accepted,
                () = draining(&mut drain) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    listener.admit(stream, peer, &handler);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: accepting again at once would spin until some come free.
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "accepting failed");
                    listener.refused("accept");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = draining(&mut drain) => return,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn admit<H: Handler>(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, handler: &Arc<H>) {
        if usize::try_from(self.connections.get())
            .is_ok_and(|open| open >= self.limits.load().max_connections)
        {
            self.refused("too-many");
            if self.tls.load().is_none() {
                // Into an empty send buffer it fits at once, or not at all.
                let _ = stream.try_write(TOO_MANY);
            }
            return;
        }
        // Answers are written whole; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        self.connections.inc();
        let open = Open(self.connections.clone());
        // Two futures, the second made by the first, and each boxed: one that is awaited within another keeps room there for as
        // long as that one lasts, and thousands of connections that say nothing would each keep room for how they began.
        let opening: BoxFuture<'static, Option<Serving>> = match self.tls.load_full() {
            None => Box::pin(self.clone().in_clear(stream, peer, handler.clone())),
            Some(tls) => Box::pin(self.clone().over_tls(tls, stream, peer, handler.clone())),
        };
        self.tasks.spawn(async move {
            if let Some(serving) = opening.await {
                serving.await;
            }
            drop(open);
        });
    }

    async fn in_clear<H: Handler>(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        handler: Arc<H>,
    ) -> Option<Serving> {
        let progress = Progress::new(self.clock.clone());
        let io = Tracked::new(stream, progress.clone());
        let (io, is_http2) = self.sniff(io, &progress).await?;
        let peer = Peer { address, certificate: None, interim: None };
        Some(self.serving(is_http2, io, progress, peer, handler))
    }

    async fn over_tls<H: Handler>(
        self: Arc<Self>,
        tls: Arc<rustls::ServerConfig>,
        stream: TcpStream,
        address: SocketAddr,
        handler: Arc<H>,
    ) -> Option<Serving> {
        let progress = Progress::new(self.clock.clone());
        let accepting = TlsAcceptor::from(tls).accept(stream);
        let Ok(Ok(stream)) = tokio::time::timeout(self.limits.load().header_timeout, accepting).await else {
            self.refused("tls");
            return None;
        };
        let connection = stream.get_ref().1;
        let peer = Peer { address, certificate: certificate_of(connection), interim: None };
        let is_http2 = connection.alpn_protocol() == Some(b"h2");
        progress.rest();
        let io = Tracked::new(stream, progress.clone());
        Some(self.serving(is_http2, io, progress, peer, handler))
    }

    fn serving<T: Stream, H: Handler>(
        self: Arc<Self>,
        is_http2: bool,
        io: Tracked<T>,
        progress: Arc<Progress>,
        peer: Peer,
        handler: Arc<H>,
    ) -> Serving {
        match is_http2 {
            true => Box::pin(http2::serve(self, io, progress, peer, handler)),
            false => Box::pin(http1::serve(self, io, progress, peer, handler)),
        }
    }

    /// Tells HTTP/2 with prior knowledge from HTTP/1.1 by its first bytes, under the deadlines of a head: the stream from its
    /// beginning, and whether it is HTTP/2. `None` where nothing was said, or too slowly.
    async fn sniff(
        &self,
        mut io: Tracked<TcpStream>,
        progress: &Progress,
    ) -> Option<(Tracked<TcpStream>, bool)> {
        let mut drain = self.drain.clone();
        let mut ahead = [0; PREFACE.len()];
        let mut read = 0;
        let mut leaving = false;
        while read < PREFACE.len() && ahead[..read] == PREFACE[..read] {
            let left = match self.patience().check(progress) {
                Ok(left) => left,
                Err(Overdue::Head) => {
                    http1::refuse_slow(self, io.into_io()).await;
                    return None;
                }
                Err(_) => return None,
            };
            let left = if leaving { left.min(FIRST_WORD) } else { left };
            let bytes = tokio::select! {
                biased;
                bytes = io.read(&mut ahead[read..]) => bytes,
                () = tokio::time::sleep(left) => match leaving && read == 0 {
                    true => return None,
                    false => continue,
                },
                // A client that has just connected is about to ask.
                () = draining(&mut drain), if !leaving => {
                    leaving = true;
                    continue;
                }
            };
            match bytes {
                Ok(0) | Err(_) => break,
                Ok(bytes) => read += bytes,
            }
            progress.within_head(true);
        }
        let is_http2 = ahead[..read] == *PREFACE;
        if is_http2 {
            progress.rest();
        }
        (read > 0).then(|| (io.again(&ahead[..read]), is_http2))
    }

    /// How long each state of a connection may last.
    pub fn patience(&self) -> Patience {
        let Limits { header_timeout, body_timeout, idle_timeout, .. } = **self.limits.load();
        Patience { head: header_timeout, blocked: body_timeout, idle: idle_timeout }
    }

    /// Counts a connection that ended for `reason` before a request was understood.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A request as hyper gives it, its body under limits.
    pub fn received(&self, request: Request<Incoming>) -> Request<Body> {
        request.map(|incoming| match incoming.is_end_stream() {
            true => Body::Empty,
            false => {
                let Limits { body_timeout, body_total_timeout, max_body_bytes, .. } = **self.limits.load();
                let pace =
                    Pace { silence: body_timeout, total: body_total_timeout, clock: self.clock.clone() };
                Body::stream(Arriving::new(incoming, pace, (), Some(max_body_bytes)))
            }
        })
    }
}

/// A connection that can be served.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Ends it so that nobody can take what was sent for the whole.
    fn abort(self);
}

impl Stream for TcpStream {
    fn abort(self) {
        // A reset in place of an end in good order.
        let _ = self.set_zero_linger();
    }
}

impl Stream for TlsStream<TcpStream> {
    fn abort(self) {
        self.into_inner().0.abort();
    }
}

/// Waits until draining begins; a sender that is gone means that nobody will ever drain.
pub async fn draining(drain: &mut watch::Receiver<Drain>) {
    if drain.wait_for(|drain| *drain == Drain::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Errors that speak of the connection that was being accepted, which is gone.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts a connection for as long as it lives.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
