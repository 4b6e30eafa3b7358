//! Interim responses on an HTTP/1.1 connection, for which hyper's server has no call: heads that are written before the
//! final one, beneath hyper.
//!
//! What keeps them apart from hyper's own bytes: hyper flushes only when its buffer is empty, a head is begun in a flush
//! alone, a head that was begun is finished before anything else is written, and a request's queue is closed and empty
//! before hyper gets its response.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::interim::TakesInterim;

/// What may wait to be written, in bytes; what is more is dropped, as any relay may (RFC 9110 §15.2).
const MOST_WAITING: usize = 16 << 10;
/// How many one request is passed; an upstream that says more does not flood its client.
const MOST_PASSED: usize = 64;

/// A connection's interim responses.
#[derive(Debug, Default)]
pub struct Interims {
    /// The request under way, counted from 1; zero: none takes any.
    open: AtomicU64,
    /// How many requests there were.
    begun: AtomicU64,
    /// Whether anything waits.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: BytesMut,
    /// How many were passed to which request.
    passed: (u64, usize),
    /// The connection's task.
    task: Option<Waker>,
}

impl Interims {
    /// A request begins that takes them.
    pub fn open(&self) {
        // Only the connection's own task begins requests: nothing is locked for it.
        let begun = self.begun.load(Ordering::Relaxed) + 1;
        self.begun.store(begun, Ordering::Relaxed);
        self.open.store(begun, Ordering::Release);
    }

    /// The request was answered at once: it asked nobody who could have said something before.
    pub fn close(&self) {
        self.open.store(0, Ordering::Release);
    }

    /// Runs a request to its response, which is held back until all that waits before it is written.
    pub async fn before<T>(&self, mut response: Pin<Box<impl Future<Output = T>>>) -> T {
        let response = std::future::poll_fn(|cx| {
            let polled = response.as_mut().poll(cx);
            if polled.is_pending() {
                self.queue().task = Some(cx.waker().clone());
            }
            polled
        })
        .await;
        self.close();
        std::future::poll_fn(|cx| self.poll_empty(cx)).await;
        response
    }

    fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        // Whoever saw the request open adds under the lock, so that nothing is added behind this look.
        let mut queue = self.queue();
        if !self.waiting.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        queue.task = Some(cx.waker().clone());
        Poll::Pending
    }

    // A panic elsewhere must not end a connection: the queue is consistent after every statement.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakesInterim for Interims {
    fn take(&self, request: u64, status: StatusCode, headers: &HeaderMap) {
        let head = head(status, headers);
        let mut queue = self.queue();
        if request == 0
            || self.open.load(Ordering::Acquire) != request
            || queue.bytes.len() + head.len() > MOST_WAITING
        {
            return;
        }
        let before = if queue.passed.0 == request { queue.passed.1 } else { 0 };
        if before == MOST_PASSED {
            return;
        }
        queue.passed = (request, before + 1);
        queue.bytes.extend_from_slice(&head);
        self.waiting.store(true, Ordering::Release);
        if let Some(task) = queue.task.take() {
            task.wake();
        }
    }

    fn current(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A stream that writes interim responses where hyper's own bytes leave room.
#[derive(Debug)]
pub struct Interleaved<T> {
    io: T,
    interims: Arc<Interims>,
    /// What was begun and is not finished.
    begun: BytesMut,
}

impl<T> Interleaved<T> {
    /// `io`, with what `interims` take.
    pub fn new(io: T, interims: Arc<Interims>) -> Self {
        Self { io, interims, begun: BytesMut::new() }
    }

    /// The stream itself.
    pub fn into_io(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> Interleaved<T> {
    /// Finishes what was begun.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.begun))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Interleaved<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Interleaved<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.interims.waiting.load(Ordering::Acquire) || !self.begun.is_empty() {
            if self.begun.is_empty() {
                let waiting = std::mem::take(&mut self.interims.queue().bytes);
                self.begun = waiting;
            }
            ready!(self.poll_finish(cx))?;
            let interims = self.interims.clone();
            let mut queue = interims.queue();
            if queue.bytes.is_empty() {
                self.interims.waiting.store(false, Ordering::Release);
                // The response may be held back for this.
                if let Some(task) = queue.task.take() {
                    task.wake();
                }
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_is_passed_so_many_and_the_next_its_own() {
        let interims = Interims::default();
        let heads = |interims: &Interims| {
            let bytes = std::mem::take(&mut interims.queue().bytes);
            bytes.windows(4).filter(|end| *end == b"\r\n\r\n").count()
        };
        interims.take(1, StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(heads(&interims), 0, "nobody asked");
        for _ in 0..2 {
            interims.open();
            let request = interims.current();
            for _ in 0..2 * MOST_PASSED {
                interims.take(request, StatusCode::PROCESSING, &HeaderMap::new());
            }
            interims.take(request - 1, StatusCode::PROCESSING, &HeaderMap::new());
            assert_eq!(heads(&interims), MOST_PASSED);
        }
    }
}
