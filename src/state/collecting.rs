//! Bodies on their way into memory: collected whole, each under a limit and all under one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body::Body as _;

use crate::model::body::{Body, BodyError};

/// Bytes of bodies that are being collected, under one limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Arriving {
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

impl Arriving {
    /// Nothing arriving, at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// How many bytes arrive now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A body's share of what is arriving; given back when dropped.
struct Share<'a> {
    arriving: &'a Arriving,
    bytes: usize,
}

impl Share<'_> {
    /// Takes `bytes` more, or says that there is no room.
    fn grow(&mut self, bytes: usize) -> bool {
        let before = self.arriving.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.arriving.limit
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.arriving.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What became of collecting a body.
#[derive(Debug)]
pub enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than may be collected: the same body again, nothing lost, still arriving.
    Larger(Body),
}

/// Collects `body` if it is no longer than `limit`, and if what is arriving leaves room for it.
///
/// # Errors
/// Why the body ended before its end.
pub async fn collect(mut body: Body, limit: usize, arriving: &Arriving) -> Result<Collected, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Ok(Collected::Larger(body));
    }
    let mut share = Share { arriving, bytes: 0 };
    // Copied, once, into an allocation of its own size: a chunk as it comes keeps the whole read buffer alive.
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(chunk) = frame?.into_data() else { continue };
        let fits = share.grow(chunk.len());
        bytes.extend_from_slice(&chunk);
        if !fits || bytes.len() > limit {
            return Ok(Collected::Larger(body.resumed(bytes.into())));
        }
    }
    Ok(Collected::Whole(bytes.into_boxed_slice().into()))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use proptest::prelude::*;

    use super::*;

    struct Pieces(VecDeque<Result<Bytes, BodyError>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| piece.map(Frame::data)))
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("these bodies never wait"),
        }
    }

    proptest! {
        #[test]
        fn collecting_loses_nothing_and_keeps_its_limits(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            limit in 0usize..40, room in 0usize..40, breaks in any::<bool>(),
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut frames: VecDeque<_> = pieces.into_iter().map(|piece| Ok(Bytes::from(piece))).collect();
            if breaks {
                frames.push_back(Err(BodyError::Truncated));
            }
            let arriving = Arriving::new(room);
            match run(collect(Body::stream(Pieces(frames)), limit, &arriving)) {
                Ok(Collected::Whole(bytes)) => {
                    prop_assert!(!breaks && bytes.len() <= limit.min(room));
                    prop_assert_eq!(&bytes[..], &whole[..]);
                }
                Ok(Collected::Larger(body)) => {
                    prop_assert!(whole.len() > limit.min(room));
                    let again = run(collect(body, usize::MAX, &Arriving::new(usize::MAX)));
                    match again {
                        Ok(Collected::Whole(bytes)) => prop_assert!(!breaks && bytes[..] == whole[..]),
                        Ok(Collected::Larger(_)) => prop_assert!(false, "nothing is larger than everything"),
                        Err(error) => prop_assert!(breaks && error == BodyError::Truncated),
                    }
                }
                Err(error) => prop_assert!(breaks && error == BodyError::Truncated),
            }
            prop_assert_eq!(arriving.bytes(), 0);
        }
    }
}
