//! What comes back on the way of a request: an upstream's answer or one from memory, with how the cache took part and
//! where the time went.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::body::Body;
use super::cache_status::CacheStatus;
use super::entry::Entry;
use super::fields::Told;
use super::moment::Moment;

/// What a client gets when nothing went wrong at the gate: an upstream's own error is an answer too.
#[derive(Debug)]
pub struct Answer {
    /// What is answered.
    pub content: Content,
    /// How the cache took part (RFC 9211).
    pub cache: CacheStatus,
    /// Where the time went.
    pub timing: Timing,
}

/// What is answered.
#[derive(Debug)]
pub enum Content {
    /// A response that is all here and may be shared, of this age.
    Held(Arc<Entry>, Duration),
    /// A window of a collection, cut from what is held of that.
    Sliced(Box<Sliced>),
    /// A response that is nobody else's.
    Passed(Box<Passed>),
}

/// A window of a collection that is all here.
#[derive(Debug)]
pub struct Sliced {
    /// Its status and fields. What is told to its client alone has its place among them, and no value.
    pub like: Arc<Entry>,
    /// How old it is.
    pub age: Duration,
    /// Its items, and what stands around them.
    pub body: Body,
    /// What is told to its client alone.
    pub told: Told,
}

/// A response that is passed on as it comes.
#[derive(Debug)]
pub struct Passed {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of the upstream's connection.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
    /// When its head arrived.
    pub arrived: Moment,
}

/// Where an answer's time went, the gate's own aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a grant or for somebody else's call.
    pub wait: Duration,
    /// From the call's first byte to its answer's head.
    pub upstream: Option<Duration>,
}

impl Content {
    /// The same as a response that is nobody else's.
    pub fn into_passed(self, cache: CacheStatus) -> Passed {
        let (entry, age, body, told) = match self {
            Self::Passed(passed) => return *passed,
            Self::Sliced(sliced) => (sliced.like, sliced.age, sliced.body, Some(sliced.told)),
            Self::Held(entry, age) => {
                let body = Body::Full(entry.body.clone());
                (entry, age, body, None)
            }
        };
        let mut headers = entry.fields.to_map(9);
        if let Some(told) = told {
            told.write(&mut headers);
        }
        push_age(&mut headers, age, cache);
        Passed { status: entry.status, headers, body, arrived: entry.arrived }
    }

    /// What one client gets of an entry of this age: a status, fields and a body made for it.
    pub fn cut(
        entry: &Entry,
        age: Duration,
        cache: CacheStatus,
        (status, mut headers, body): (StatusCode, HeaderMap, Bytes),
    ) -> Self {
        push_age(&mut headers, age, cache);
        Self::Passed(Box::new(Passed { status, headers, body: body.into(), arrived: entry.arrived }))
    }
}

impl Answer {
    /// The same, with one more field for this client alone.
    #[must_use]
    pub fn with_field(self, name: HeaderName, value: HeaderValue) -> Self {
        let mut passed = self.content.into_passed(self.cache);
        passed.headers.append(name, value);
        Self { content: Content::Passed(Box::new(passed)), ..self }
    }

    /// The gate's own answer.
    pub fn own(status: StatusCode, headers: HeaderMap, body: Body, now: Moment) -> Self {
        Self {
            content: Content::Passed(Box::new(Passed { status, headers, body, arrived: now })),
            cache: CacheStatus::Own,
            timing: Timing::default(),
        }
    }

    /// What is held, as it stands at `now`.
    pub fn held(entry: Arc<Entry>, cache: CacheStatus, now: Moment) -> Self {
        let age = entry.age(now);
        Self { content: Content::Held(entry, age), cache, timing: Timing::default() }
    }

    /// The status, held or passed.
    pub fn status(&self) -> StatusCode {
        match &self.content {
            Content::Held(entry, _) => entry.status,
            Content::Sliced(sliced) => sliced.like.status,
            Content::Passed(passed) => passed.status,
        }
    }
}

/// "The presence of an Age header field implies that the response was not generated or validated by the origin server for
/// this request" (RFC 9111 §5.1).
fn push_age(headers: &mut HeaderMap, age: Duration, cache: CacheStatus) {
    if cache.is_from_memory() || age >= Duration::from_secs(1) {
        headers.insert(header::AGE, age.as_secs().into());
    }
}
