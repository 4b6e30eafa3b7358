//! A listener: accepts connections, speaks HTTP/1.1 on them under limits and deadlines, and drains.
//!
//! What hyper leaves to its user is done here: how long a head may take, how long a connection may stand idle or
//! refuse to be written to, how many there may be, and that draining answers every request whose first byte was read.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{IntCounterVec, IntGauge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::arriving::Arriving;
use super::tracked::{Doing, Progress, Tracked};
use crate::model::body::{Body, BodyError};
use crate::state::clock::Clock;
use crate::state::tasks::Tasks;

/// A listener's limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request's head may take, from its first byte.
    pub header_timeout: Duration,
    /// How long a body may fall silent, in either direction.
    pub body_timeout: Duration,
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
}

/// What a listener works with.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its limits.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// Where connections are served.
    pub tasks: Tasks,
    /// How many connections there are.
    pub connections: IntGauge,
    /// Connections that ended before a request was understood, by reason.
    pub refused: IntCounterVec,
    /// Becomes true when the listener is to close and its connections are to end.
    pub drain: watch::Receiver<bool>,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// An answer's body.
    type Body: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static;

    /// Answers one request; always.
    fn handle(
        &self,
        request: Request<Body>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

impl Listener {
    /// Serves `tcp` until told to drain; then closes it and leaves its connections to end by themselves.
    pub async fn serve<H: Handler>(mut self, tcp: TcpListener, handler: Arc<H>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = tcp.accept() => accepted,
                () = draining(&mut self.drain) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.admit(stream, peer, &handler);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: accepting again at once would spin until some come free.
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "accepting failed");
                    self.refused.with_label_values(&["accept"]).inc();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn admit<H: Handler>(&self, stream: TcpStream, peer: SocketAddr, handler: &Arc<H>) {
        if usize::try_from(self.connections.get()).is_ok_and(|open| open >= self.limits.max_connections) {
            self.refused.with_label_values(&["too-many"]).inc();
            return;
        }
        // Answers are written whole; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        self.connections.inc();
        let open = Open(self.connections.clone());
        let connection = self.clone().connection(stream, peer, handler.clone());
        self.tasks.spawn(async move {
            connection.await;
            drop(open);
        });
    }

    async fn connection<H: Handler>(self, stream: TcpStream, peer: SocketAddr, handler: Arc<H>) {
        let progress = Progress::new(self.clock.clone());
        let io = TokioIo::new(Tracked::new(stream, progress.clone()));
        let service = service_fn(|request: Request<Incoming>| {
            progress.begin();
            let (request, handler, progress, drain) =
                (self.received(request), handler.clone(), progress.clone(), self.drain.clone());
            async move {
                let mut response = handler.handle(request, peer).await.map(|body| Sent { body, progress });
                if *drain.borrow() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(self.limits.max_headers)
            .max_header_size(self.limits.max_head_bytes)
            .max_buf_size(self.limits.max_head_bytes.max(MIN_BUFFER))
            .serve_connection(io, service);
        let mut drain = self.drain.clone();
        let ended = {
            let mut draining = std::pin::pin!(draining(&mut drain));
            let mut timer = std::pin::pin!(tokio::time::sleep(self.limits.shortest()));
            let mut told = false;
            std::future::poll_fn(|cx| {
                loop {
                    if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                        return Poll::Ready(Ended::By(result));
                    }
                    // Only now is it known that what the client has sent so far was read.
                    if !told && draining.as_mut().poll(cx).is_ready() {
                        told = true;
                    }
                    if told && matches!(progress.doing(), Doing::Idle(_)) {
                        Pin::new(&mut connection).graceful_shutdown();
                        told = false;
                        continue;
                    }
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // The timer is not moved with every request: it looks again when the present state could end.
                    match self.limits.overdue(progress.doing(), &self.clock) {
                        Ok(left) => timer.set(tokio::time::sleep(left)),
                        Err(overdue) => return Poll::Ready(Ended::Overdue(overdue)),
                    }
                }
            })
            .await
        };
        let mut stream = connection.into_parts().io.into_inner().into_io();
        match ended {
            Ended::By(Ok(())) => say_goodbye(stream).await,
            Ended::By(Err(error)) => {
                let reason = reason(&error);
                self.refused.with_label_values(&[reason]).inc();
                match reason {
                    // An answer that ends when its connection does would look whole if it were closed in good order.
                    BROKEN_OFF => drop(stream.set_zero_linger()),
                    _ => say_goodbye(stream).await,
                }
            }
            Ended::Overdue(Overdue::Idle) => {}
            Ended::Overdue(Overdue::Head) => {
                self.refused.with_label_values(&["slow-head"]).inc();
                let _ = tokio::time::timeout(FAREWELL, stream.write_all(SLOW_HEAD)).await;
                say_goodbye(stream).await;
            }
            Ended::Overdue(Overdue::Blocked) => self.refused.with_label_values(&["blocked"]).inc(),
        }
    }

    fn received(&self, request: Request<Incoming>) -> Request<Body> {
        let limits = &self.limits;
        request.map(|incoming| match incoming.is_end_stream() {
            true => Body::Empty,
            false => {
                Body::stream(Arriving::new(incoming, limits.body_timeout, (), Some(limits.max_body_bytes)))
            }
        })
    }
}

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8 << 10;
/// How long accepting pauses when it fails, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long saying goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what a client still sends is read and thrown away, so that it reads why it was refused.
const MOST_UNREAD: usize = 1 << 20;
/// Why a connection ended whose answer did not come to its own end.
const BROKEN_OFF: &str = "answer-broken-off";
/// Said to a client whose head did not arrive in time (RFC 9110 §15.5.9).
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How a connection ended.
enum Ended {
    By(hyper::Result<()>),
    Overdue(Overdue),
}

/// What took too long.
enum Overdue {
    Idle,
    Head,
    Blocked,
}

impl Limits {
    fn shortest(&self) -> Duration {
        self.header_timeout.min(self.idle_timeout).min(self.body_timeout)
    }

    /// How long until the present state, or one that may begin meanwhile, could be overdue; or that it is.
    fn overdue(&self, doing: Doing, clock: &Clock) -> Result<Duration, Overdue> {
        let (since, limit, overdue) = match doing {
            Doing::Answering => return Ok(self.shortest()),
            Doing::Idle(since) => (since, self.idle_timeout, Overdue::Idle),
            Doing::Reading(since) => (since, self.header_timeout, Overdue::Head),
            Doing::Blocked(since) => (since, self.body_timeout, Overdue::Blocked),
        };
        let left = limit.saturating_sub(clock.now().since(since));
        if left.is_zero() { Err(overdue) } else { Ok(left.min(self.shortest())) }
    }
}

/// Waits until draining begins; a sender that is gone means that nobody will ever drain.
async fn draining(drain: &mut watch::Receiver<bool>) {
    if drain.wait_for(|drain| *drain).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Errors that speak of the connection that was being accepted, which is gone.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will not
/// be able to read the last HTTP response": it "first performs a half-close by closing only the write side", and then
/// reads on for a while (RFC 9112 §9.6).
async fn say_goodbye(mut stream: TcpStream) {
    let leaving = async {
        stream.shutdown().await?;
        let (mut unread, mut left) = ([0; 4096], MOST_UNREAD);
        while left > 0 {
            match stream.read(&mut unread).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(FAREWELL, leaving).await;
}

fn reason(error: &hyper::Error) -> &'static str {
    if error.is_parse_too_large() {
        "head-too-large"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_user() {
        BROKEN_OFF
    } else {
        "client-left"
    }
}

/// Counts a connection for as long as it lives.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An answer's body that says when its last byte was handed over, or when nobody wants it.
struct Sent<B> {
    body: B,
    progress: Arc<Progress>,
}

impl<B> Drop for Sent<B> {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl<B: HttpBody<Data = Bytes, Error = BodyError> + Unpin> HttpBody for Sent<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
