//! A stored response, and what was read from it once so that nothing is parsed again on the way of a hit.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::cache_status::Stale;
use super::coding::Coded;
use super::fields::Fields;
use super::moment::Moment;

/// What the upstream said of its response's reuse (RFC 9111 §4.2, §5.2.2; RFC 5861), before any rule of a route.
/// Durations are as given; `None` is silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// `s-maxage`, else `max-age`, else `Expires` minus `Date`.
    pub lifetime: Option<Seconds>,
    /// What may be guessed where that is silent (RFC 9111 §4.2.2).
    pub heuristic: Option<Seconds>,
    /// `no-cache`: to be validated before every reuse.
    pub no_cache: bool,
    /// `private`: not for a shared cache, unless the route sets the word aside.
    pub private: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: never stale, unless the route itself says how long.
    pub never_stale: bool,
    /// `stale-while-revalidate`.
    pub while_revalidating: Option<Seconds>,
    /// `stale-if-error`.
    pub if_error: Option<Seconds>,
}

/// The request's values of the fields that a response's `Vary` names. Entries that have the same ones share them.
pub type Selectors = Arc<[(HeaderName, Option<HeaderValue>)]>;

/// A group of responses that are erased together, known by a hash of its name: of some 2³² groups that are kept, two are
/// taken for one another, and erased with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// Whole seconds, as HTTP writes them. What is longer than 136 years counts as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(NonZeroU32);

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        // One more than they are, so that an `Option` of them takes no more room.
        Self(NonZeroU32::MIN.saturating_add(seconds))
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(u64::from(seconds.0.get() - 1))
    }
}

/// Which part of a representation a 206 holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The `Range` it answered: whatever it holds, it answers that again.
    pub asked: Bytes,
    /// Where its body lies in the whole; `None` where its `Content-Range` says too little or less than the body holds.
    pub span: Option<Span>,
}

/// Where a part begins, and how long the whole is. It ends with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The place of its first byte.
    pub first: u64,
    /// The length of the whole.
    pub complete: u64,
    /// Its body is shorter than its `Content-Range` announced: it answers what lies within it, and completes nothing.
    pub short: bool,
}

/// A stored response. Immutable but for how its refresh stands.
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
    /// When the call that brought it began: what was erased since must not come back with it.
    pub asked: Moment,
    /// How old it was on arrival: the larger of `Age` and `Date`'s word (RFC 9111 §4.2.3).
    pub initial_age: Duration,
    /// What the upstream said of its reuse.
    pub facts: Facts,
    /// The request's values of the fields its `Vary` names (RFC 9111 §4.1), as `rules::vary` compares them.
    pub selectors: Selectors,
    /// Which part it is; `None`: the whole.
    pub part: Option<Box<Part>>,
    /// The groups that it is erased with (RFC 9875), or an item of it, in order.
    groups: Box<[Group]>,
    /// As it is answered, once it was compressed.
    pub coded: OnceLock<Box<Coded>>,
    /// Somebody refreshes it until this moment.
    refreshing_until: AtomicU64,
    /// The last refresh failed, and until this moment another is not worth a call.
    failing_until: AtomicU64,
    /// Since when it is not fresh by an operator's word, whatever its lifetime; zero: it is.
    expired_at: AtomicU64,
    /// Why it failed, as a place in [`Stale::ALL`].
    failing_for: AtomicU8,
}

impl Entry {
    /// An entry of these parts that may be refreshed at once.
    pub fn new(
        (status, fields, body): (StatusCode, Fields, Bytes),
        arrived: Moment,
        initial_age: Duration,
        facts: Facts,
        selectors: Selectors,
    ) -> Self {
        Self {
            status,
            fields,
            body,
            arrived,
            asked: arrived,
            initial_age,
            facts,
            selectors,
            part: None,
            groups: Box::default(),
            coded: OnceLock::new(),
            refreshing_until: AtomicU64::new(0),
            failing_until: AtomicU64::new(0),
            expired_at: AtomicU64::new(0),
            failing_for: AtomicU8::new(0),
        }
    }

    /// How old the response is at `now` (RFC 9111 §4.2.3).
    pub fn age(&self, now: Moment) -> Duration {
        self.initial_age + now.since(self.arrived)
    }

    /// The same, as a part of a representation.
    #[must_use]
    pub fn with_part(mut self, part: Option<Part>) -> Self {
        self.part = part.map(Box::new);
        self
    }

    /// The same, brought by a call that began at `asked`.
    #[must_use]
    pub fn asked_at(mut self, asked: Moment) -> Self {
        self.asked = asked;
        self
    }

    /// A response that is as old and says the same, with another body.
    #[must_use]
    pub fn with_body(&self, body: Bytes) -> Self {
        let parts = (self.status, self.fields.clone(), body);
        let selectors = self.selectors.clone();
        Self::new(parts, self.arrived, self.initial_age, self.facts, selectors)
            .asked_at(self.asked)
            .with_groups(self.groups.to_vec())
    }

    /// The groups that it, or an item of it, belongs to.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether it, or an item of it, belongs to `group`.
    pub fn belongs(&self, group: Group) -> bool {
        self.groups.binary_search(&group).is_ok()
    }

    /// The same, a member of these groups.
    #[must_use]
    pub fn with_groups(mut self, mut groups: Vec<Group>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        self.groups = groups.into();
        self
    }

    /// Ends its freshness at `now`: it may still be given stale, and asked about.
    pub fn expire(&self, now: Moment) {
        // What was ended before stays ended since then.
        let _ =
            self.expired_at.compare_exchange(0, now.as_nanos().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How old it was when its freshness was ended, if it was.
    pub fn expired_age(&self) -> Option<Duration> {
        let at = self.expired_at.load(Ordering::Relaxed);
        (at > 0).then(|| self.age(Moment::from_nanos(at)))
    }

    /// Claims its refresh until `until`; `false` if somebody else has it.
    pub fn claim_refresh(&self, now: Moment, until: Moment) -> bool {
        let held = self.refreshing_until.load(Ordering::Relaxed);
        let claim = || {
            self.refreshing_until.compare_exchange(
                held,
                until.as_nanos(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
        };
        held <= now.as_nanos() && claim().is_ok()
    }

    /// A refresh failed for `reason`: until `until` another is not worth a call.
    pub fn refresh_failed(&self, reason: Stale, until: Moment) {
        let place = Stale::ALL.iter().position(|held| *held == reason).unwrap_or_default();
        self.failing_for.store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
        self.failing_until.store(until.as_nanos(), Ordering::Relaxed);
        self.refreshing_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// Why a refresh is not worth a call at `now`, if it is not.
    pub fn failing(&self, now: Moment) -> Option<Stale> {
        let failing = self.failing_until.load(Ordering::Relaxed) > now.as_nanos();
        let reason = || Stale::ALL.get(usize::from(self.failing_for.load(Ordering::Relaxed))).copied();
        failing.then(reason).flatten()
    }

    /// How many bytes it keeps, its own overhead included.
    pub fn size(&self) -> usize {
        self.body.len()
            + self.fields.size()
            + size_of::<Self>()
            + self.part.as_ref().map_or(0, |part| size_of::<Part>() + part.asked.len())
            + size_of_val(&*self.groups)
            + self.coded.get().map_or(0, |coded| {
                let others: usize = coded.others.iter().map(|(_, entry)| entry.size()).sum();
                // The plain one's body is this one's.
                others + coded.plain.size() - self.body.len()
            })
            + match Arc::strong_count(&self.selectors) {
                1 => selectors_size(&self.selectors),
                // Shared by those that have the same.
                _ => 0,
            }
    }
}

/// How many bytes `selectors` keep.
pub fn selectors_size(selectors: &Selectors) -> usize {
    let values = selectors.iter().filter_map(|(_, value)| value.as_ref());
    size_of_val(&**selectors) + values.map(HeaderValue::len).sum::<usize>()
}
