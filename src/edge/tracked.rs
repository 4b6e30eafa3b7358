//! A connection's bytes, watched: what tells an idle connection from one whose request has begun, and a slow client
//! from one that does not read at all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::model::Moment;
use crate::rules::framing::Framing;
use crate::state::clock::Clock;

/// How far a connection is. Written by its I/O and its service, read by whoever watches its deadlines.
#[derive(Debug)]
pub struct Progress {
    clock: Clock,
    /// When the first byte of a head was read that is not complete yet; zero: there is none.
    head_since: AtomicU64,
    /// When writing began to block; zero: it does not.
    blocked_since: AtomicU64,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// A request is being answered.
    busy: AtomicBool,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing since then.
    Idle(Moment),
    /// Reading a head since then.
    Reading(Moment),
    /// Answering.
    Answering,
    /// Answering, but the client has taken nothing since then.
    Blocked(Moment),
}

impl Progress {
    /// A connection that has just begun.
    pub fn new(clock: Clock) -> Arc<Self> {
        let now = clock.now().as_nanos();
        Arc::new(Self {
            clock,
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now),
            busy: AtomicBool::new(false),
        })
    }

    /// What it is doing.
    pub fn doing(&self) -> Doing {
        let since = |cell: &AtomicU64| {
            Some(cell.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Moment::from_nanos)
        };
        if let Some(blocked) = since(&self.blocked_since) {
            return Doing::Blocked(blocked);
        }
        if self.busy.load(Ordering::Relaxed) {
            return Doing::Answering;
        }
        match since(&self.head_since) {
            Some(reading) => Doing::Reading(reading),
            None => Doing::Idle(Moment::from_nanos(self.idle_since.load(Ordering::Relaxed))),
        }
    }

    /// A head is complete: its request is being answered.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// The answer's last byte was handed over.
    pub fn end(&self) {
        self.idle_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// What was read ends within a head, or does not.
    fn read(&self, within_head: bool) {
        let since = self.head_since.load(Ordering::Relaxed);
        if within_head && since == 0 {
            self.head_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        } else if !within_head && since > 0 {
            self.head_since.store(0, Ordering::Relaxed);
        }
    }

    fn wrote<T>(&self, polled: &Poll<T>) {
        let blocked = self.blocked_since.load(Ordering::Relaxed) > 0;
        match polled {
            Poll::Pending if !blocked => {
                self.blocked_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
            }
            Poll::Ready(_) if blocked => self.blocked_since.store(0, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// How long a client that has said that it will send nothing more is still answered. It may have left.
const FAREWELL: Duration = Duration::from_secs(1);
/// No request, and the end of a head: what hyper reads in place of a request that is refused. It answers 400, in its
/// turn, and closes.
const NO_REQUEST: &[u8] = b"\0\r\n\r\n";

/// A client's HTTP/1.1 stream that reports its [`Progress`], and ends before a request that must not be read.
#[derive(Debug)]
pub struct Tracked<T> {
    io: T,
    progress: Arc<Progress>,
    framing: Framing,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    On,
    /// Past a request that is refused.
    Refused,
    /// The client sends nothing more; told to whoever reads when a request under way has had its time.
    Ended(Pin<Box<Sleep>>),
    Over,
}

impl<T> Tracked<T> {
    /// `io`, reporting to `progress`.
    pub fn new(io: T, progress: Arc<Progress>) -> Self {
        Self { io, progress, framing: Framing::default(), reading: Reading::On }
    }

    /// The stream itself.
    pub fn into_io(self) -> T {
        self.io
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            // A closed connection looks like one that was only finished on its way in.
            let may_wait = self.framing.is_between() && self.progress.busy.load(Ordering::Relaxed);
            self.reading = match may_wait {
                true => Reading::Ended(Box::pin(tokio::time::sleep(FAREWELL))),
                false => Reading::Over,
            };
        } else if let Err(refused) = self.framing.read(bytes) {
            buffer.set_filled(before + refused.before);
            self.reading = Reading::Refused;
        }
        self.progress.read(self.framing.is_within_head() && matches!(self.reading, Reading::On));
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tracked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.as_mut().get_mut();
        let before = buffer.filled().len();
        if matches!(this.reading, Reading::On) {
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            this.read(buffer, before);
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        match &mut this.reading {
            Reading::Refused => {
                // The smallest buffer that hyper reads into is larger.
                buffer.put_slice(NO_REQUEST.get(..buffer.remaining()).unwrap_or(NO_REQUEST));
                this.reading = Reading::Over;
            }
            Reading::Ended(farewell) if this.progress.busy.load(Ordering::Relaxed) => {
                ready!(farewell.as_mut().poll(cx));
            }
            Reading::On | Reading::Ended(_) | Reading::Over => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tracked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.progress.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.progress.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
