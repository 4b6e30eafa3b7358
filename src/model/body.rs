//! A message's body: nothing, bytes that are all here, or bytes that still arrive.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// What the gate sends and receives. `Full` costs no allocation beyond its bytes: the way of a hit.
#[derive(Default)]
pub enum Body {
    /// No body at all.
    #[default]
    Empty,
    /// Bytes that are all here; shared, never copied.
    Full(Bytes),
    /// Several runs of such bytes, one after the other; the count says how many are sent.
    Pieces(Arc<[Bytes]>, usize),
    /// Bytes that still arrive.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

/// Why a body ended before its end. Whoever reads it must not take what came before for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The sender stopped before the end it had announced.
    Truncated,
    /// The sender fell silent for longer than is allowed.
    TimedOut,
    /// More bytes than the limit.
    TooLarge,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the body ended before its announced end",
            Self::TimedOut => "the body stalled",
            Self::TooLarge => "the body is larger than allowed",
        })
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// A body that still arrives.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }

    /// `head`, then what is left of `self`: for a body that was read ahead.
    #[must_use]
    pub fn resumed(self, head: Bytes) -> Self {
        if head.is_empty() { self } else { Self::stream(Resumed { head, rest: self }) }
    }

    /// Whether there is nothing to send, known before asking for it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces, sent) => rest(pieces, *sent).iter().all(Bytes::is_empty),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Pieces(pieces, _) => write!(f, "Pieces({})", pieces.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Pieces(pieces, sent) => {
                let next = rest(pieces, *sent).iter().find(|piece| !piece.is_empty()).cloned();
                let skipped = rest(pieces, *sent).iter().take_while(|piece| piece.is_empty()).count();
                *sent = sent.saturating_add(skipped + 1);
                Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces, sent) => {
                SizeHint::with_exact(rest(pieces, *sent).iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// The pieces that are not sent yet.
fn rest(pieces: &[Bytes], sent: usize) -> &[Bytes] {
    pieces.get(sent..).unwrap_or_default()
}

/// A body whose beginning was read ahead: the beginning again, then the rest.
struct Resumed {
    head: Bytes,
    rest: Body,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + self.head.len() as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.head.len() as u64);
        }
        hint
    }
}
