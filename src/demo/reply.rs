//! The answers of the simulated Octopush, the broken ones included.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

/// Why a connection ends in the middle of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nothing of the answer was sent.
    Reset,
    /// Half of its body was.
    Truncated,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the simulated upstream breaks the connection, as it was told to")
    }
}

impl Error for Broken {}

/// A body that declares its length, and may not live up to it.
#[derive(Debug)]
pub(super) struct Reply {
    json: Bytes,
    rest: Rest,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    Whole,
    Half,
    /// The first half is on its way out: an error now could overtake it.
    Pause,
    Break,
    Nothing,
}

impl Reply {
    /// Makes it end halfway.
    pub(super) fn truncate(&mut self) {
        self.rest = Rest::Half;
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.rest {
            Rest::Whole => {
                self.rest = Rest::Nothing;
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.json)))))
            }
            Rest::Half => {
                self.rest = Rest::Pause;
                let half = self.json.len() / 2;
                Poll::Ready(Some(Ok(Frame::data(self.json.split_to(half)))))
            }
            Rest::Pause => {
                self.rest = Rest::Break;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Rest::Break => Poll::Ready(Some(Err(Broken::Truncated))),
            Rest::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.json.len()).unwrap_or(u64::MAX))
    }
}

/// A JSON answer. No validator, no `Cache-Control`, no total: whether the real one sends any is not known.
pub(super) fn json(status: StatusCode, json: Bytes) -> Response<Reply> {
    let mut response = Response::new(Reply { json, rest: Rest::Whole });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// An error as Octopush words it: `{"code":401,"message":"unauthorized"}`.
pub(super) fn problem(status: StatusCode, message: &str) -> Response<Reply> {
    json(status, format!("{{\"code\":{},\"message\":\"{message}\"}}", status.as_u16()).into())
}
