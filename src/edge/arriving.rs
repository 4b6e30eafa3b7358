//! A body as it arrives from a socket, of either side: under a limit, and never silent for long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::model::body::BodyError;

/// hyper's incoming body with deadlines. Holds `held` until its end: a call is under way until its last byte.
pub struct Arriving<T> {
    incoming: Incoming,
    silence: Duration,
    /// Runs while nothing arrives.
    timer: Option<Pin<Box<Sleep>>>,
    /// How many bytes may still come.
    left: Option<u64>,
    _held: T,
}

impl<T> Arriving<T> {
    /// `incoming`, never silent for longer than `silence`, of at most `limit` bytes.
    pub fn new(incoming: Incoming, silence: Duration, held: T, limit: Option<u64>) -> Self {
        Self { incoming, silence, timer: None, left: limit, _held: held }
    }
}

impl<T: Unpin> HttpBody for Arriving<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let silence = self.silence;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        };
        self.timer = None;
        let Some(frame) = frame else { return Poll::Ready(None) };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(BodyError::Truncated))) };
        if let (Some(left), Some(bytes)) = (&mut self.left, frame.data_ref()) {
            match left.checked_sub(bytes.len() as u64) {
                Some(rest) => *left = rest,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
