//! ★ A request, and what it turns into: each type is what the next stage may rely on.
//!
//! ```text
//! Arrival → Known → Routed → Ask → Block → Fetch → Call → Granted → Signed
//!    who?     where?   what?   which items?   from memory?  now?    with which secret?
//! ```
//!
//! A stage takes one of these and hands on the next, so a stage in the wrong place does not compile. What comes
//! back is an [`Answer`] or a [`Fault`](super::Fault).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Uri, Version};

pub use super::answer::{Answer, Content, Passed, Sliced, Timing};
use super::body::Body;
use super::cache_status::Why;
use super::entry::Entry;
pub use super::ids::{ClientId, RouteId};
use super::interim::Interim;
use super::key::Key;
use super::moment::Moment;
pub use super::notes::Notes;
use super::secret::Secret;
use super::sent::Sent;
use super::short::Short;
use super::urgency::{Class, Urgency};

/// A request as it came in: a head that parsed, a body that may still arrive, and from where.
#[derive(Debug)]
pub struct Arrival {
    /// The method.
    pub method: Method,
    /// The target, in origin or absolute form.
    pub uri: Uri,
    /// The version it was sent in.
    pub version: Version,
    /// Every field the client sent.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// Who is at the other end of the connection.
    pub peer: SocketAddr,
    /// What it showed of itself when the connection began, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// When the head was complete.
    pub at: Moment,
    /// What is found out about it, for whoever reports on it.
    pub notes: Arc<Notes>,
    /// Where its interim responses go.
    pub interim: Option<Interim>,
}

/// What a client's certificate says of it, once verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The DNS names in it, lower-case.
    pub names: Vec<String>,
}

/// A request's id, written out where it is shown: on the answer, in the log, in a problem.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// The client's: visible ASCII, at most 128 characters.
    Given(HeaderValue),
    /// One made here: a random word of the process, and a count.
    Made {
        /// The same for all requests of a process.
        process: u32,
        /// Another one for each.
        count: u64,
    },
}

/// A request whose sender is known. The client's key is gone from its headers.
#[derive(Debug)]
pub struct Known {
    /// The request.
    pub arrival: Box<Arrival>,
    /// Who asks.
    pub client: ClientId,
}

/// A request that a route serves, by a method the route allows.
#[derive(Debug)]
pub struct Routed {
    /// The request.
    pub arrival: Box<Arrival>,
    /// Who asks.
    pub client: ClientId,
    /// Which route.
    pub route: RouteId,
}

/// What a request means, apart from who asks and when: shared by everyone who spells it the same way.
#[derive(Debug)]
pub struct Question {
    /// Equal exactly when two questions have the same answer. Its last part is the target.
    pub key: Key,
    /// What was changed of how it was spelt, if anything was.
    pub changes: Option<Box<Changes>>,
    /// Which part of a collection is asked for, where the route declares pages.
    pub window: Option<Window>,
    /// The collection: the key of all its windows alike.
    pub collection: Option<Key>,
    /// What it was read from, where that is to be known again.
    pub spelling: Option<Spelling>,
}

/// How a question was put.
pub struct Spelling {
    /// Path and query as they came.
    pub target: Box<str>,
    /// Which route.
    pub route: RouteId,
    /// Nothing was ignored, defaulted or clamped that strictness would refuse.
    pub exact: bool,
}

/// What understanding changed of a request's parameters.
#[derive(Debug)]
pub struct Changes {
    /// The value of `Tollgate-Understood`.
    pub told: Option<HeaderValue>,
    /// Each as (parameter, rule), for the counters.
    pub counted: Vec<(u16, &'static str)>,
}

/// What a client asks of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The page, counted as the route counts them.
    pub page: u64,
    /// Items on a page.
    pub size: u64,
}

/// A request after it was understood.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub client: ClientId,
    /// Which route.
    pub route: RouteId,
    /// The method.
    pub method: Method,
    /// The version it was sent in.
    pub version: Version,
    /// What it means.
    pub question: Arc<Question>,
    /// The client's fields that may go upstream, or that say how it may be answered.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// When its head was complete: the moment a kept answer is judged by.
    pub at: Moment,
    /// When the client's patience ends.
    pub deadline: Moment,
    /// Whether the client itself said so, and not its route.
    pub hurried: bool,
    /// From where, for the limit per address.
    pub peer: SocketAddr,
    /// Where its interim responses go.
    pub interim: Option<Interim>,
    /// The token of the walk it goes on with, as it came.
    pub walk: Option<HeaderValue>,
}

/// An ask for a block of a collection, or for whatever was asked.
#[derive(Debug)]
pub struct Block {
    /// What is asked.
    pub ask: Box<Ask>,
    /// How new the answer must be.
    pub demand: Demand,
}

/// How new an answer must be. Only `pages` asks for blocks that are newer than others: what is below it never mixes the
/// states of a list.
#[derive(Debug)]
pub enum Demand {
    /// What was asked, as it was asked.
    AsAsked,
    /// A block nothing is held of, as new as the rules of its route want it.
    Fresh,
    /// A block that arrived after this moment.
    Newer {
        /// When the block that is held arrived.
        than: Moment,
        /// The answer it came as, where it answered the same question: a 304 says that it still holds.
        validates: Option<Arc<Entry>>,
    },
}

/// What the cache could not answer: to be fetched.
#[derive(Debug)]
pub struct Fetch {
    /// Who caused it.
    pub client: ClientId,
    /// Which route's rules apply.
    pub route: RouteId,
    /// The method.
    pub method: Method,
    /// What is asked.
    pub question: Arc<Question>,
    /// Exactly the fields that go upstream, credentials aside; shared by every try, and by who judges the answer.
    pub headers: Arc<HeaderMap>,
    /// The body.
    pub body: Body,
    /// Whose calls go first.
    pub class: Class,
    /// When whoever waits stops waiting.
    pub deadline: Moment,
    /// Whether the client itself said so, and not its route.
    pub hurried: bool,
    /// Whether one call may serve everyone who asks the same.
    pub sharing: Sharing,
    /// What the call asks about: a 304 says that this still holds, a 206 completes it where it is a part.
    pub validates: Option<Arc<Entry>>,
    /// Where its interim responses go.
    pub interim: Option<Interim>,
    /// Why it is forwarded.
    pub why: Why,
}

/// Whether a fetch may be shared and its answer kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// One call for everyone who asks now; the answer is kept if it may be.
    Shared {
        /// The arrival of the entry that was found wanting, so that a newer one is recognised.
        held: Option<Moment>,
    },
    /// A call of its own; whether the answer may be kept nevertheless.
    Alone {
        /// Whether it may be kept.
        keep: bool,
    },
}

/// One upstream call: what every try sends.
#[derive(Debug)]
pub struct Call {
    /// Whom it is charged to.
    pub client: ClientId,
    /// Which route's rules apply.
    pub route: RouteId,
    /// The method.
    pub method: Method,
    /// What is asked.
    pub question: Arc<Question>,
    /// Exactly the fields that go upstream, credentials aside; shared by every try, and by who judges the answer.
    pub headers: Arc<HeaderMap>,
    /// The body.
    pub body: Body,
    /// How urgently and until when it waits for a grant; once sent, the upstream's own timeout counts.
    pub urgency: Arc<Urgency>,
    /// Whether it was sent before and is sent again.
    pub again: bool,
    /// Whether the answer may be kept.
    pub keep: bool,
    /// What the call asks about: a 304 says that this still holds, a 206 completes it where it is a part.
    pub validates: Option<Arc<Entry>>,
    /// Where its interim responses go.
    pub interim: Option<Interim>,
    /// Whether it was sent: marked by whoever grants it.
    pub sent: Sent,
    /// Why it is forwarded.
    pub why: Why,
}

/// A call that the account's quota and the upstream's ceiling admit. Holds its place until the answer has ended.
#[derive(Debug)]
pub struct Granted<G> {
    /// The call.
    pub call: Call,
    /// Its place; given back when dropped.
    pub grant: G,
}

/// A call with its credentials: complete, and the first thing that must never be shown.
pub struct Signed<G> {
    /// The method.
    pub method: Method,
    /// Path and query, credentials included.
    pub target: Secret,
    /// All fields, credentials included.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// Which route, hence which upstream.
    pub route: RouteId,
    /// Where its interim responses go.
    pub interim: Option<Interim>,
    /// Why it is forwarded.
    pub why: Why,
    /// Its place; given back when the answer has ended.
    pub grant: G,
}

impl fmt::Debug for Spelling {
    /// Without the target: it is a caller's own text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spelling")
            .field("route", &self.route)
            .field("exact", &self.exact)
            .finish_non_exhaustive()
    }
}

impl Question {
    /// The path and query the upstream receives, credentials aside.
    pub fn target(&self) -> &str {
        // A key was made of text; one that was not asks for nothing.
        std::str::from_utf8(self.key.last_part()).unwrap_or_default()
    }
}

impl RequestId {
    /// As it is shown.
    pub fn text(&self) -> String {
        match self {
            Self::Given(id) => id.to_str().unwrap_or_default().to_owned(),
            Self::Made { process, count } => format!("{process:08x}-{count:x}"),
        }
    }

    /// As a field shows it.
    pub fn to_value(&self) -> HeaderValue {
        match self {
            Self::Given(id) => id.clone(),
            Self::Made { process, count } => {
                let mut id = Short::<32>::new();
                id.push_hex((*process).into(), 8);
                id.push("-");
                id.push_hex(*count, 1);
                id.into_value("-")
            }
        }
    }
}

impl From<Box<Ask>> for Block {
    /// What was asked, as it was asked.
    fn from(ask: Box<Ask>) -> Self {
        Self { ask, demand: Demand::AsAsked }
    }
}

impl From<Fetch> for Call {
    /// The call that a fetch needs; its answer may be kept unless the fetch says otherwise.
    fn from(fetch: Fetch) -> Self {
        let keep = !matches!(fetch.sharing, Sharing::Alone { keep: false });
        Self {
            keep,
            urgency: Urgency::new(fetch.class, fetch.deadline),
            again: false,
            sent: Sent::default(),
            client: fetch.client,
            route: fetch.route,
            method: fetch.method,
            question: fetch.question,
            headers: fetch.headers,
            body: fetch.body,
            validates: fetch.validates,
            interim: fetch.interim,
            why: fetch.why,
        }
    }
}

impl Call {
    /// The same call once more, if its body can be sent twice.
    pub fn again(&self) -> Option<Self> {
        self.body.is_empty().then(|| Self {
            client: self.client,
            route: self.route,
            method: self.method.clone(),
            question: self.question.clone(),
            headers: self.headers.clone(),
            body: Body::Empty,
            urgency: self.urgency.clone(),
            again: true,
            keep: self.keep,
            validates: self.validates.clone(),
            interim: self.interim.clone(),
            sent: self.sent.clone(),
            why: self.why,
        })
    }
}
