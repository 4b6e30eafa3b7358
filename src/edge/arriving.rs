//! A body as it arrives from a socket, of either side: under a limit, never silent for long, and over in time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::model::Moment;
use crate::model::body::BodyError;
use crate::state::clock::Clock;

/// How a body may come.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long it may fall silent.
    pub silence: Duration,
    /// How long it may take in all, however steadily it drips.
    pub total: Duration,
    /// The time.
    pub clock: Clock,
}

/// hyper's incoming body with deadlines. Holds `held` until its end: a call is under way until its last byte.
pub struct Arriving<T> {
    incoming: Incoming,
    pace: Pace,
    until: Moment,
    /// Runs while nothing arrives.
    timer: Option<Pin<Box<Sleep>>>,
    /// How many bytes may still come.
    left: Option<u64>,
    _held: T,
}

impl<T> Arriving<T> {
    /// `incoming` at this pace, of at most `limit` bytes.
    pub fn new(incoming: Incoming, pace: Pace, held: T, limit: Option<u64>) -> Self {
        let until = pace.clock.now() + pace.total;
        Self { incoming, pace, until, timer: None, left: limit, _held: held }
    }
}

impl<T: Unpin> HttpBody for Arriving<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.as_mut().get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            let timer = this.timer.get_or_insert_with(|| {
                let left = this.until.since(this.pace.clock.now());
                Box::pin(tokio::time::sleep(left.min(this.pace.silence)))
            });
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(BodyError::Truncated))) };
        // Only a body that once had to be waited for can be late.
        if this.timer.take().is_some() && this.pace.clock.now() >= this.until {
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        if let (Some(left), Some(bytes)) = (&mut this.left, frame.data_ref()) {
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
