//! Connecting to an upstream: within a time, TLS included, and with a note on each connection of how often it served.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connector to one place, whatever it is called, that gives up after `limit` and marks what it connects.
#[derive(Clone, Debug)]
pub struct Timed<C> {
    connector: C,
    to: Uri,
    limit: Duration,
}

/// Connecting took too long.
#[derive(Debug)]
pub struct TimedOut;

impl<C> Timed<C> {
    /// `connector` to the scheme and authority of `to`, within `limit`.
    pub fn new(connector: C, to: Uri, limit: Duration) -> Self {
        Self { connector, to, limit }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connecting took too long")
    }
}

impl std::error::Error for TimedOut {}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send + 'static> + Send,
{
    type Response = Marked<C::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Marked<C::Response>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (connecting, limit) = (self.connector.call(self.to.clone()), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => Ok(Marked { io: connected.map_err(Into::into)?, served: Served::default() }),
                Err(_) => Err(TimedOut.into()),
            }
        })
    }
}

/// How many requests a connection was given. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<AtomicU64>);

impl Served {
    /// Counts one more request; whether there was one before it.
    pub fn again(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 0
    }
}

/// A connection with its mark.
#[derive(Debug)]
pub struct Marked<T> {
    io: T,
    served: Served,
}

impl<T: Connection> Connection for Marked<T> {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.served.clone())
    }
}

impl<T: Read + Unpin> Read for Marked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for Marked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
