//! A paged route as it runs: its rules, what is believed of its upstream, and what is counted of it.

use std::io::Read as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::StatusCode;
use http::header::{self, HeaderName};
use prometheus::{IntCounter, IntGauge};

use super::collections::Collection;
use super::metrics::Metrics;
use super::shapes::Shapes;
use crate::model::Fields;
use crate::model::cache_status::CacheStatus;
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Window};
use crate::model::fault::{Called, Fault};
use crate::model::moment::Moment;
use crate::rules::beliefs::{Belief, Beliefs, PastEnd};
use crate::rules::collection::{Asked, Held, Paging, Restart, Taken};
use crate::rules::headers::Forwarding;
use crate::rules::params::Rule;
use crate::rules::slices::Unsliceable;
use crate::rules::walks::Standing;

/// Which paged route of which plan: none has another's, so that what was cut by the rules of one is answered by no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteNumber(u64);

impl RouteNumber {
    /// One that none had before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A paged route.
#[derive(Debug)]
pub struct PagedRoute {
    /// Which it is.
    pub number: RouteNumber,
    /// How it is paged.
    pub paging: Paging,
    /// Which request fields the upstream sees.
    pub forwarding: Forwarding,
    /// Those of them that say who asks.
    pub identifying: Vec<HeaderName>,
    /// How long a refresh that nobody waits for may take.
    pub patience: Duration,
    /// The largest body that is kept, decoded too.
    pub max_entry_bytes: usize,
    /// What is believed of its upstream.
    pub beliefs: Arc<Mutex<Beliefs>>,
    /// What the fields of windows have in common with others.
    pub shapes: Arc<Shapes>,
    /// What is counted.
    pub meters: PagesMeters,
}

/// Why a request of a paged route was forwarded as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// It needs more blocks than one request may cause.
    TooWide,
    /// Its window is none: of no items, or before the first.
    Odd,
    /// It lies past the end, and the upstream's own word is wanted.
    PastEnd,
    /// It is larger than any answer the upstream was seen to give.
    Unproven,
    /// Nothing is known beside it, nor whether what it asks for lies past the end.
    Apart,
    /// The upstream refuses a block's size.
    Refused,
    /// The answers cannot be cut.
    Unsliceable,
}

impl Forwarded {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::TooWide,
        Self::Odd,
        Self::PastEnd,
        Self::Unproven,
        Self::Apart,
        Self::Refused,
        Self::Unsliceable,
    ];

    /// Its word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooWide => "too_wide",
            Self::Odd => "odd_window",
            Self::PastEnd => "past_end",
            Self::Unproven => "unproven",
            Self::Apart => "apart",
            Self::Refused => "refused",
            Self::Unsliceable => "unsliceable",
        }
    }
}

/// Why windows cannot be cut from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Its coding is none that is decoded here, or broken.
    Coding,
    /// Decoded, it is larger than what is kept.
    TooLarge,
    /// Its items cannot be found.
    Shape(Unsliceable),
}

impl Unread {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coding => "coding",
            Self::TooLarge => "too_large",
            Self::Shape(reason) => reason.as_str(),
        }
    }
}

impl PagedRoute {
    /// What is believed of the upstream, for a look.
    pub fn beliefs(&self) -> MutexGuard<'_, Beliefs> {
        // What is believed is right after every statement.
        self.beliefs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the items of an answer as it `came` to what was `asked`, decoding it first.
    ///
    /// # Errors
    /// Why windows cannot be cut from it.
    pub fn read(&self, came: &Arc<Entry>, asked: Asked) -> Result<Held, Unread> {
        let entry = came;
        let entry = match entry.fields.first(&header::CONTENT_ENCODING) {
            None => entry.clone(),
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => entry.clone(),
            Some(coding)
                if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
            {
                let decoded = decoded(entry, self.max_entry_bytes)?;
                let items = self.paging.reading.item_groups(&decoded.body);
                Arc::new(decoded.with_groups([entry.groups(), &items].concat()))
            }
            Some(_) => return Err(Unread::Coding),
        };
        let held =
            Held::read(entry, asked, &self.paging.shape, &self.paging.headers).map_err(Unread::Shape)?;
        Ok(held.decoded_from(came))
    }

    /// Counts and tells what a block taught.
    pub fn note(&self, taken: &Taken) {
        if taken.arrived > 0 {
            self.meters.shifts.inc();
        }
        if let Some(reason) = taken.restarted {
            self.meters.restarted(reason);
        }
        if let Some(belief) = taken.learned {
            self.believe(belief);
        }
    }

    fn believe(&self, belief: Belief) {
        self.meters.beliefs(belief.as_str());
        let size = match belief {
            Belief::Capped(size) | Belief::Refuses(size) => Some(size),
            Belief::PastEnd(_) => None,
        };
        tracing::info!(
            route = self.meters.route,
            belief = belief.as_str(),
            size,
            "learned of an upstream's pages"
        );
    }

    /// Learns from `entry`, the answer to a `window` that was forwarded as it was asked for `reason`.
    /// `known`: its collection, and the positions of the window, if anything is known of it.
    pub fn learn(
        &self,
        entry: &Arc<Entry>,
        window: Window,
        reason: Forwarded,
        known: Option<(&Collection, &Range<u64>)>,
        now: Moment,
    ) {
        if entry.status != StatusCode::OK || matches!(reason, Forwarded::Odd | Forwarded::PastEnd) {
            return;
        }
        let Some(span) = self.paging.counting.span(window) else { return };
        let (position, size) = (span.start, window.size);
        let Ok(held) = self.read(entry, Asked { position, size }) else { return };
        let len = held.len() as u64;
        // A collection is never looked into while beliefs are.
        let asked = self.beliefs().short_since(len)..entry.asked;
        let (shown, has_items) = known.map_or((0, false), |(collection, span)| {
            let book = &collection.known().book;
            (book.shown(span, &asked), book.has_items())
        });
        let mut beliefs = self.beliefs();
        beliefs.saw_link(held.is_linked(), held.leads());
        beliefs.saw_members(&held.seen);
        if beliefs.saw_own(size, len, now) {
            tracing::info!(route = self.meters.route, size = len, "an upstream gives more than was believed");
        }
        let learned = match reason {
            Forwarded::Apart if len == 0 && has_items => beliefs.ends_with(PastEnd::Empty),
            Forwarded::Refused => beliefs.refused(size.min(len.max(1)), now),
            Forwarded::Unproven if len < size => beliefs.came_short(len, entry.asked, shown, now),
            _ => None,
        };
        drop(beliefs);
        if let Some(belief) = learned {
            self.believe(belief);
        }
    }
}

/// `entry` without its coding, at most `most` bytes of it.
fn decoded(entry: &Entry, most: usize) -> Result<Entry, Unread> {
    let mut body = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(&entry.body[..]).take(limit).read_to_end(&mut body).map_err(|_| Unread::Coding)?;
    if body.len() > most {
        return Err(Unread::TooLarge);
    }
    let mut decoded = entry.with_body(Bytes::from(body.into_boxed_slice()));
    let mut fields = decoded.fields.to_map(0);
    fields.remove(header::CONTENT_ENCODING);
    decoded.fields = Fields::from_map(&fields);
    Ok(decoded)
}

/// What is counted of a paged route.
#[derive(Debug)]
pub struct PagesMeters {
    route: String,
    metrics: Metrics,
    shifts: IntCounter,
    walks: [IntCounter; 4],
    blocks: IntCounter,
    saved: IntGauge,
    /// Sizes that were cut to what the upstream gives at once.
    pub capped: IntCounter,
}

impl PagesMeters {
    /// The handles of the route called `route`, whose parameter `size` says how many items a page has.
    pub fn new(metrics: &Metrics, route: &str, size: &str) -> Self {
        for belief in Belief::ALL {
            metrics.beliefs.with_label_values(&[route, belief]);
        }
        for reason in Restart::ALL {
            metrics.restarts.with_label_values(&[route, reason.as_str()]);
        }
        for reason in Forwarded::ALL {
            metrics.forwarded.with_label_values(&[route, reason.as_str()]);
        }
        Self {
            route: route.to_owned(),
            metrics: metrics.clone(),
            shifts: metrics.shifts.with_label_values(&[route]),
            walks: ["pinned", "guessed", "torn", "ended"]
                .map(|state| metrics.walks.with_label_values(&[route, state])),
            blocks: metrics.blocks.with_label_values(&[route]),
            saved: metrics.calls_saved.with_label_values(&[route]),
            capped: metrics.params.with_label_values(&[route, size, Rule::Capped.as_str()]),
        }
    }

    /// A request was forwarded as it was asked.
    pub fn forwarded(&self, reason: Forwarded) {
        self.metrics.forwarded.with_label_values(&[self.route.as_str(), reason.as_str()]).inc();
    }

    /// An answer could not be cut.
    pub fn unsliceable(&self, reason: &str) {
        self.metrics.unsliceable.with_label_values(&[self.route.as_str(), reason]).inc();
    }

    /// A window was answered, cut from so many `blocks`.
    pub fn answered(&self, standing: Standing, blocks: usize) {
        self.walk(standing);
        self.blocks.inc_by(blocks as u64);
        self.saved.inc();
    }

    /// A block was asked for.
    pub fn called(&self, fetched: &Result<Answer, Fault>) {
        let sent = match fetched {
            Ok(answer) => matches!(answer.cache, CacheStatus::Forwarded { collapsed: false, .. }),
            Err(fault) => fault.called != Called::No,
        };
        if sent {
            self.saved.dec();
        }
    }

    /// It was found how the generation of a window stands to its walk.
    pub fn walk(&self, standing: Standing) {
        let place = Standing::ALL.iter().position(|held| *held == standing);
        if let Some(counter) = place.and_then(|place| self.walks.get(place)) {
            counter.inc();
        }
    }

    /// A token's walk had ended.
    pub fn walk_ended(&self) {
        if let Some(counter) = self.walks.last() {
            counter.inc();
        }
    }

    fn restarted(&self, reason: Restart) {
        self.metrics.restarts.with_label_values(&[self.route.as_str(), reason.as_str()]).inc();
    }

    fn beliefs(&self, belief: &str) {
        self.metrics.beliefs.with_label_values(&[self.route.as_str(), belief]).inc();
    }
}
