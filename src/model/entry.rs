//! A stored response, and what was read from it once so that nothing is parsed again on the way of a hit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::fields::Fields;
use super::moment::Moment;

/// What the upstream said of its response's reuse (RFC 9111 §4.2, §5.2.2; RFC 5861), before any rule of a route.
/// Durations are as given; `None` is silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// `s-maxage`, else `max-age`, else `Expires` minus `Date`.
    pub lifetime: Option<Duration>,
    /// `no-cache`: to be validated before every reuse.
    pub no_cache: bool,
    /// `private`: not for a shared cache, unless the route sets the word aside.
    pub private: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: never stale, unless the route itself says how long.
    pub never_stale: bool,
    /// `stale-while-revalidate`.
    pub while_revalidating: Option<Duration>,
    /// `stale-if-error`.
    pub if_error: Option<Duration>,
}

/// A stored response. Immutable but for the moment before which nobody need try to refresh it again.
#[derive(Debug)]
pub struct Entry {
    /// The response's status.
    pub status: StatusCode,
    /// Its fields, without those that belong to one connection or one delivery.
    pub fields: Fields,
    /// Its whole body.
    pub body: Bytes,
    /// When its head arrived.
    pub arrived: Moment,
    /// How old it was on arrival: the larger of `Age` and `Date`'s word (RFC 9111 §4.2.3).
    pub initial_age: Duration,
    /// What the upstream said of its reuse.
    pub facts: Facts,
    /// The request's values of the fields its `Vary` names (RFC 9111 §4.1).
    pub selectors: Box<[(HeaderName, Option<HeaderValue>)]>,
    /// No refresh starts before this moment: set while one is under way and for a while after one failed.
    next_refresh: AtomicU64,
}

impl Entry {
    /// An entry of these parts that may be refreshed at once.
    pub fn new(
        (status, fields, body): (StatusCode, Fields, Bytes),
        arrived: Moment,
        initial_age: Duration,
        facts: Facts,
        selectors: Box<[(HeaderName, Option<HeaderValue>)]>,
    ) -> Self {
        Self { status, fields, body, arrived, initial_age, facts, selectors, next_refresh: AtomicU64::new(0) }
    }

    /// How old the response is at `now` (RFC 9111 §4.2.3).
    pub fn age(&self, now: Moment) -> Duration {
        self.initial_age + now.since(self.arrived)
    }

    /// Whether a request with `headers` selects this response (RFC 9111 §4.1).
    pub fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        self.selectors.iter().all(|(name, value)| headers.get(name) == value.as_ref())
    }

    /// Claims the next refresh until `until`; `false` if somebody else has it or the last one failed lately.
    pub fn claim_refresh(&self, now: Moment, until: Moment) -> bool {
        let next = self.next_refresh.load(Ordering::Relaxed);
        next <= now.as_nanos()
            && self
                .next_refresh
                .compare_exchange(next, until.as_nanos(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Nobody need try to refresh it before `until`.
    pub fn postpone_refresh(&self, until: Moment) {
        self.next_refresh.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// Whether a refresh is under way or failed so lately that another is not worth a call.
    pub fn is_refresh_postponed(&self, now: Moment) -> bool {
        self.next_refresh.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// How many bytes it keeps, its own overhead included.
    pub fn size(&self) -> usize {
        self.body.len()
            + self.fields.size()
            + size_of::<Self>()
            + self.selectors.iter().map(|(_, value)| 80 + value.as_ref().map_or(0, HeaderValue::len)).sum::<usize>()
    }
}
