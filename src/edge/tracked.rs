//! A connection, watched: what tells an idle one from one whose request has begun, and a slow client from one that
//! does not read at all.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::Moment;
use crate::model::body::BodyError;
use crate::state::clock::Clock;

/// How far a connection is. Written by its I/O and its service, read by whoever watches its deadlines.
#[derive(Debug)]
pub struct Progress {
    clock: Clock,
    /// When the first byte of a head was read that is not complete yet; zero: there is none.
    head_since: AtomicU64,
    /// Whether what was read so far ends within a request, head or body, as HTTP/1.1's framing tells.
    within_request: AtomicBool,
    /// When writing began to block; zero: it does not.
    blocked_since: AtomicU64,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// Requests that are being answered; on HTTP/1.1 at most one.
    busy: AtomicUsize,
    /// When each answer under way was last asked for more, on connections that carry several.
    beats: Mutex<Vec<Weak<AtomicU64>>>,
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
            within_request: AtomicBool::new(false),
            blocked_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now),
            busy: AtomicUsize::new(0),
            beats: Mutex::default(),
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
        if self.busy.load(Ordering::Relaxed) > 0 {
            return self.slowest().map_or(Doing::Answering, Doing::Blocked);
        }
        match since(&self.head_since) {
            Some(reading) => Doing::Reading(reading),
            None => Doing::Idle(Moment::from_nanos(self.idle_since.load(Ordering::Relaxed))),
        }
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// What was read so far ends within a request, or does not.
    pub fn within_request(&self, is_within: bool) {
        self.within_request.store(is_within, Ordering::Relaxed);
    }

    /// Whether every request that was begun is over, and nothing has been said for so long.
    pub fn is_silent_for(&self, long: Duration) -> bool {
        let silent = |since| self.clock.now().since(since) >= long;
        let within = self.within_request.load(Ordering::Relaxed);
        !within && matches!(self.doing(), Doing::Idle(since) if silent(since))
    }

    /// What was read so far ends within a head, or does not: as HTTP/1.1's framing tells.
    pub fn within_head(&self, is_within: bool) {
        let since = self.head_since.load(Ordering::Relaxed);
        if is_within && since == 0 {
            self.head_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        } else if !is_within && since > 0 {
            self.head_since.store(0, Ordering::Relaxed);
        }
    }

    fn begin(&self, is_alone: bool) {
        match is_alone {
            // By one task after the other: nothing is locked for it.
            true => self.busy.store(1, Ordering::Relaxed),
            false => _ = self.busy.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What took place so far was no request: the connection is idle from now on.
    pub fn rest(&self) {
        self.head_since.store(0, Ordering::Relaxed);
        self.idle_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    fn end(&self, is_alone: bool) {
        self.idle_since.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        match is_alone {
            true => self.busy.store(0, Ordering::Relaxed),
            false => _ = self.busy.fetch_sub(1, Ordering::Relaxed),
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

    /// Since when the answer that was asked for more the longest ago has not been.
    fn slowest(&self) -> Option<Moment> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|beat| beat.strong_count() > 0);
        let waiting = beats.iter().filter_map(Weak::upgrade).map(|beat| beat.load(Ordering::Relaxed));
        waiting.filter(|at| *at > 0).min().map(Moment::from_nanos)
    }

    fn beat(&self) -> Arc<AtomicU64> {
        let beat = Arc::default();
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&beat));
        beat
    }
}

/// A stream that reports its [`Progress`], and gives again what was read ahead of it.
#[derive(Debug)]
pub struct Tracked<T> {
    ahead: Bytes,
    io: T,
    progress: Arc<Progress>,
}

impl<T> Tracked<T> {
    /// `io`, reporting to `progress`.
    pub fn new(io: T, progress: Arc<Progress>) -> Self {
        Self { ahead: Bytes::new(), io, progress }
    }

    /// The stream itself.
    pub fn into_io(self) -> T {
        self.io
    }

    /// The same, giving `ahead` first.
    #[must_use]
    pub fn again(self, ahead: &[u8]) -> Self {
        // Copied: a slice of somebody's buffer, an empty one too, keeps the whole of it.
        let ahead = [ahead, &self.ahead[..]].concat().into();
        Self { ahead, ..self }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tracked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let bytes = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..bytes]);
            self.ahead.advance(bytes);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
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
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.progress.wrote(&polled);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A request under way, from its complete head until its answer's last byte was handed over, or nobody wants it.
#[derive(Debug)]
pub struct UnderWay {
    /// Kept where one connection carries several answers, of which one may stall while others move.
    beat: Option<Arc<AtomicU64>>,
    progress: Arc<Progress>,
}

impl UnderWay {
    /// The only request on its connection.
    pub fn alone(progress: &Arc<Progress>) -> Self {
        progress.begin(true);
        Self { beat: None, progress: progress.clone() }
    }

    /// One of several.
    pub fn among(progress: &Arc<Progress>) -> Self {
        progress.begin(false);
        Self { beat: Some(progress.beat()), progress: progress.clone() }
    }

    /// `body`, as this request's answer.
    pub fn answer<B>(self, body: B) -> Sent<B> {
        self.mark(true);
        Sent { body, rest: Bytes::new(), under_way: self }
    }

    /// The answer waits for its client from now on, or its client for it.
    fn mark(&self, for_client: bool) {
        if let Some(beat) = &self.beat {
            let now = if for_client { self.progress.clock.now().as_nanos() } else { 0 };
            beat.store(now, Ordering::Relaxed);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.progress.end(self.beat.is_none());
    }
}

/// An answer's body, watched.
#[derive(Debug)]
pub struct Sent<B> {
    body: B,
    /// Of the body's last frame, what was not asked for yet.
    rest: Bytes,
    under_way: UnderWay,
}

/// The most bytes that are handed over at once where several answers share a connection: HTTP/2 is asked for a frame as
/// soon as its window is open at all, and keeps the rest, so that a body of one frame would be over before its client
/// had taken any of it.
const PIECE: usize = 64 << 10;

impl<B: HttpBody<Data = Bytes, Error = BodyError> + Unpin> HttpBody for Sent<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.rest.is_empty() {
            self.under_way.mark(true);
            let at = self.rest.len().min(PIECE);
            let piece = self.rest.split_to(at);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        self.under_way.mark(polled.is_ready());
        if let (Poll::Ready(Some(Ok(frame))), true) = (&mut polled, self.under_way.beat.is_some())
            && let Some(bytes) = frame.data_mut().filter(|bytes| bytes.len() > PIECE)
        {
            self.rest = bytes.split_off(PIECE);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut left = SizeHint::new();
        left.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            left.set_upper(upper + rest);
        }
        left
    }
}

/// What took too long on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing was asked.
    Idle,
    /// A head did not arrive.
    Head,
    /// An answer was not taken.
    Blocked,
}

/// How long each state of a connection may last.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A head, from its first byte.
    pub head: Duration,
    /// An answer that is not taken.
    pub blocked: Duration,
    /// No request at all.
    pub idle: Duration,
}

impl Patience {
    /// How often a connection is looked at: no state can begin and be overdue unseen for longer.
    pub fn shortest(&self) -> Duration {
        self.head.min(self.idle).min(self.blocked)
    }

    /// How long until the present state, or one that may begin meanwhile, could be overdue.
    ///
    /// # Errors
    /// What is overdue.
    pub fn check(&self, progress: &Progress) -> Result<Duration, Overdue> {
        let (since, limit, overdue) = match progress.doing() {
            Doing::Answering => return Ok(self.shortest()),
            Doing::Idle(since) => (since, self.idle, Overdue::Idle),
            Doing::Reading(since) => (since, self.head, Overdue::Head),
            Doing::Blocked(since) => (since, self.blocked, Overdue::Blocked),
        };
        let left = limit.saturating_sub(progress.clock.now().since(since));
        if left.is_zero() { Err(overdue) } else { Ok(left.min(self.shortest())) }
    }
}
