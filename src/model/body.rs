//! A message's body: nothing, bytes that are all here, or bytes that still arrive.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

/// What the gate sends and receives. `Full` costs no allocation beyond its bytes: the way of a hit.
#[derive(Default)]
pub enum Body {
    /// No body at all.
    #[default]
    Empty,
    /// Bytes that are all here; shared, never copied.
    Full(Bytes),
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

    /// Whether there is nothing to send, known before asking for it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
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
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// What became of collecting a body under a limit.
#[derive(Debug)]
pub enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than the limit: the same body again, nothing lost, still arriving.
    Larger(Body),
}

/// Reads `body` whole if it has at most `limit` bytes. Trailers are dropped.
///
/// # Errors
/// What ended the body before its end.
pub async fn collect(body: Body, limit: usize) -> Result<Collected, BodyError> {
    let mut stream = match body {
        Body::Empty => return Ok(Collected::Whole(Bytes::new())),
        Body::Full(bytes) if bytes.len() <= limit => return Ok(Collected::Whole(bytes)),
        Body::Full(bytes) => return Ok(Collected::Larger(Body::Full(bytes))),
        Body::Stream(stream) => stream,
    };
    let announced = stream.size_hint().lower();
    if announced > limit as u64 {
        return Ok(Collected::Larger(Body::Stream(stream)));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| stream.as_mut().poll_frame(cx)).await {
        let Ok(chunk) = frame?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            // A body that comes in one piece is kept as it came, without a copy.
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.reserve(usize::try_from(announced).unwrap_or(0).clamp(first.len() + chunk.len(), limit.max(1)));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
        if first.len().max(rest.len()) > limit {
            let head = if rest.is_empty() { first } else { rest.freeze() };
            return Ok(Collected::Larger(Body::stream(Resumed { head, stream })));
        }
    }
    Ok(Collected::Whole(if rest.is_empty() { first } else { rest.freeze() }))
}

/// A body whose beginning was read ahead.
struct Resumed {
    head: Bytes,
    stream: Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.head.is_empty() {
            return self.stream.as_mut().poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.stream.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + self.head.len() as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.head.len() as u64);
        }
        hint
    }
}
