//! A message's body: nothing, bytes that are all here, in one piece or several, or bytes that still arrive.

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
    /// Bytes that are all here in several pieces, sent one after the other: shared, never copied together.
    Pieces(Pieces),
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
            Self::Pieces(pieces) => pieces.rest().is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

/// The pieces of a body, and how many of them were sent. All stay until the last was.
pub struct Pieces {
    /// None of them empty.
    all: Arc<[Bytes]>,
    sent: usize,
}

impl Pieces {
    /// What is left to send.
    fn rest(&self) -> &[Bytes] {
        self.all.get(self.sent..).unwrap_or_default()
    }

    /// How many bytes that are.
    fn left(&self) -> u64 {
        self.rest().iter().map(|piece| piece.len() as u64).sum()
    }
}

impl From<Arc<[Bytes]>> for Body {
    /// `pieces`, one after the other; none of them is empty.
    fn from(pieces: Arc<[Bytes]>) -> Self {
        match &*pieces {
            [all] => Self::Full(all.clone()),
            _ => Self::Pieces(Pieces { all: pieces, sent: 0 }),
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
            Self::Pieces(pieces) => write!(f, "Pieces({} bytes)", pieces.left()),
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
            Self::Pieces(pieces) => {
                let piece = pieces.rest().first().cloned();
                pieces.sent += 1;
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
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
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.left()),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_sent_in_order_and_their_length_is_known() {
        let pieces = |list: &[&'static str]| -> Body {
            list.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect::<Arc<_>>().into()
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (list, bytes) in [(&["[", "1,2", "]"][..], "[1,2]"), (&["all"], "all"), (&[], "")] {
            let (mut body, mut sent) = (pieces(list), Vec::new());
            assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
            while !body.is_end_stream() {
                let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
                    panic!("waits")
                };
                let piece = frame.into_data().expect("is data");
                assert!(!piece.is_empty());
                sent.extend_from_slice(&piece);
                assert_eq!(body.size_hint().exact(), Some((bytes.len() - sent.len()) as u64));
            }
            assert_eq!(sent, bytes.as_bytes());
            assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
        }
        assert!(matches!(pieces(&["a"]), Body::Full(_)));
    }
}
