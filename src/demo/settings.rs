//! How the simulated Octopush behaves. Everything may change while it runs.
//!
//! What Octopush's page leaves open (limits, the largest page, what lies past the end) is a setting here, so that the
//! gate is tested with each answer and relies on none.

use std::time::Duration;

pub use super::limit::{Enforcement, Limit};

/// The behaviour of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What `api-key` must be.
    pub api_key: String,
    /// What `api-login` must be.
    pub api_login: String,
    /// How long an answer takes, at least. Refusals come at once.
    pub latency: Duration,
    /// How much longer it may take, evenly spread.
    pub latency_jitter: Duration,
    /// How many calls the account may make. Only calls that get past the credentials count.
    pub limit: Option<Limit>,
    /// What becomes of calls beyond the limit.
    pub enforcement: Enforcement,
    /// When a call counts.
    pub counted: Counted,
    /// How a refusal names the time to come back.
    pub retry_after: RetryAfter,
    /// Which calls fail.
    pub failing: Failing,
    /// How they fail.
    pub failure: Failure,
    /// The largest page, if there is a largest one.
    pub max_per_page: Option<usize>,
    /// What becomes of a `per_page` above it.
    pub oversize: Oversize,
    /// What a page past the end answers.
    pub past_end: PastEnd,
    /// Which messages come first.
    pub order: Order,
}

impl Settings {
    /// A server that answers at once, without limit or failure: where a test starts from.
    #[must_use]
    pub fn plain() -> Self {
        Self { latency: Duration::ZERO, latency_jitter: Duration::ZERO, limit: None, ..Self::default() }
    }
}

impl Default for Settings {
    /// The server of `tollgate demo`: 10 calls a second, 50 to 80 ms each.
    fn default() -> Self {
        Self {
            api_key: "demo-key".to_owned(),
            api_login: "demo@example.com".to_owned(),
            latency: Duration::from_millis(50),
            latency_jitter: Duration::from_millis(30),
            limit: Some(Limit { requests: 10, per: Duration::from_secs(1) }),
            enforcement: Enforcement::default(),
            counted: Counted::default(),
            retry_after: RetryAfter::default(),
            failing: Failing::default(),
            failure: Failure::Status(500),
            max_per_page: None,
            oversize: Oversize::default(),
            past_end: PastEnd::default(),
            order: Order::default(),
        }
    }
}

/// The moment at which a call takes its place in the interval. A caller cannot know, so it must be right with both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// When its head was read.
    #[default]
    OnArrival,
    /// After its latency, just before it is answered: as if the wire had held it up by so much.
    OnAnswer,
}

/// The `Retry-After` of a 429.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds, rounded up.
    #[default]
    Seconds,
    /// A date, rounded up to the second.
    Date,
    /// None at all.
    Absent,
    /// These words, true or not. Characters that no header may hold leave it absent.
    Text(String),
}

/// Which calls fail. Refused calls are none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failing {
    /// None.
    #[default]
    Never,
    /// Every n-th, counted from the start; 1 is every call, 0 is none.
    Every(u64),
    /// So many of a hundred, at random.
    Percent(u64),
    /// So many from now on, then none.
    Next(u64),
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this status and a JSON body, as 500 or 503. A number that is no status becomes 500.
    Status(u16),
    /// The connection is reset without an answer.
    Reset,
    /// There is never an answer; the connection stays open.
    Hang,
    /// The answer ends halfway through its body.
    Truncate,
}

/// What becomes of a `per_page` above the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// The largest is served, and nothing says so.
    #[default]
    Clamp,
    /// 422.
    Refuse,
}

/// What a page past the end answers. The first page of an empty list is not past its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PastEnd {
    /// An empty list.
    #[default]
    Empty,
    /// The last page again.
    LastPage,
    /// 404.
    NotFound,
    /// 400.
    BadRequest,
}

/// Which messages come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The latest.
    #[default]
    NewestFirst,
    /// The earliest.
    OldestFirst,
}
