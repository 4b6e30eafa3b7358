//! keep: `Call = Call`. What may be shared is collected whole, and what may be kept is stored: inside the flight, so
//! that an answer is kept even if every client has left. Everything else streams on, unshared.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap};
use http_body::Body as _;
use tower_layer::Layer;

use super::Stage;
use crate::model::body::{Body, BodyError};
use crate::model::cache_status::CacheStatus;
use crate::model::entry::{Entry, Facts};
use crate::model::exchange::{Answer, Call, Content, Passed};
use crate::model::fault::Called;
use crate::model::{Fault, FaultKind, Fields, Key};
use crate::rules::reuse::{self, Admission, Policy};
use crate::state::clock::Clock;
use crate::state::store::{Found, Store};

/// The layer.
#[derive(Debug, Clone)]
pub struct KeepLayer {
    /// The routes' policies, by place.
    pub policies: Arc<[Policy]>,
    /// The entries.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The largest body that is collected.
    pub max_entry_bytes: usize,
    /// What all bodies that are being collected may take.
    pub arriving: Arriving,
}

/// Bytes of bodies that are being collected, under one limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Arriving {
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

/// The stage.
#[derive(Debug)]
pub struct Keep<S> {
    given: KeepLayer,
    inner: S,
}

impl<S> Layer<S> for KeepLayer {
    type Service = Keep<S>;

    fn layer(&self, inner: S) -> Keep<S> {
        Keep { given: self.clone(), inner }
    }
}

impl<S: Stage<Call>> Stage<Call> for Keep<S> {
    async fn call(&self, call: Call) -> Result<Answer, Fault> {
        if !call.keep {
            return self.inner.call(call).await;
        }
        let (route, question, sent) = (call.route, call.question.clone(), call.headers.clone());
        let mut answer = self.inner.call(call).await?;
        let (Content::Passed(passed), Some(policy)) =
            (&mut answer.content, self.given.policies.get(route.place()))
        else {
            return Ok(answer);
        };
        let wall = self.given.clock.wall();
        let admission = reuse::admit(policy, (&Method::GET, &sent), (passed.status, &passed.headers), wall);
        let (facts, initial_age, selectors, kept) = match admission {
            Admission::Keep { facts, initial_age, selectors } => {
                let kept =
                    !(passed.status.is_server_error() && self.holds_better(policy, &question.key, &sent));
                (facts, initial_age, selectors, kept)
            }
            Admission::Share => (Facts::default(), Duration::ZERO, Box::default(), false),
            Admission::Refuse(_) => return Ok(answer),
        };
        let bytes =
            match collect(std::mem::take(&mut passed.body), self.given.max_entry_bytes, &self.given.arriving)
                .await
            {
                Ok(Collected::Whole(bytes)) => bytes,
                Ok(Collected::Larger(body)) => {
                    passed.body = body;
                    return Ok(answer);
                }
                Err(error) => return Err(broken(error)),
            };
        let Passed { status, headers, arrived, .. } = passed;
        // What belongs to one delivery is made anew for each; the body's length is known by the body.
        headers.remove(header::AGE);
        headers.remove(header::CONTENT_LENGTH);
        // Under the operator's `ttl` every client of the account shares the answer; a cookie is about one.
        if policy.ttl.is_some() {
            headers.remove(header::SET_COOKIE);
        }
        let parts = (*status, Fields::from_map(headers), bytes);
        let entry = Arc::new(Entry::new(parts, *arrived, initial_age, facts, selectors));
        if kept {
            self.given.store.insert(&question.key, &entry);
        }
        if let CacheStatus::Forwarded { stored, .. } = &mut answer.cache {
            *stored = kept;
        }
        answer.content = Content::Held(entry, initial_age);
        Ok(answer)
    }
}

impl<S> Keep<S> {
    /// Whether an answer is held that an error must not replace.
    fn holds_better(&self, policy: &Policy, key: &Key, sent: &HeaderMap) -> bool {
        let found = self.given.store.find(key, |name| sent.get(name));
        matches!(found, Found::Entry(held) if reuse::outlives_an_error(policy, &held, self.given.clock.now()))
    }
}

fn broken(error: BodyError) -> Fault {
    let kind = match error {
        BodyError::TimedOut => FaultKind::UpstreamTimeout,
        BodyError::Truncated | BodyError::TooLarge => FaultKind::UpstreamBroken,
    };
    Fault::new(kind).called(Called::Yes)
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
enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than may be collected: the same body again, nothing lost, still arriving.
    Larger(Body),
}

async fn collect(mut body: Body, limit: usize, arriving: &Arriving) -> Result<Collected, BodyError> {
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
