//! What a route's operator says of reuse.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use crate::model::coding::Coding;

/// A route's rules of reuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// `false`: everything is forwarded, nothing kept.
    pub enabled: bool,
    /// How long a 200 to GET without a lifetime of its own is fresh.
    pub ttl: Option<Duration>,
    /// The same for further statuses.
    pub ttl_for: Vec<(StatusCode, Duration)>,
    /// Words of the upstream that `ttl` sets aside.
    pub overrides: Overrides,
    /// Whether a lifetime may be guessed from `Last-Modified` where nobody states one.
    pub heuristics: bool,
    /// The longest lifetime an upstream may grant.
    pub max_ttl: Option<Duration>,
    /// How long after its lifetime an answer may be given while it is refreshed.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its lifetime an answer may be given when the upstream fails.
    pub stale_if_error: Option<Duration>,
    /// The same when it cannot be reached and neither the route nor the upstream said how long.
    pub stale_if_unreachable: Duration,
    /// Request fields that say who asks: what answers a request with one is shared only by the upstream's own word.
    pub identifying: Vec<HeaderName>,
    /// Whether request directives that cost calls are obeyed, for clients that may refresh.
    pub honour_request_directives: bool,
    /// The codings in which answers are kept beside themselves, the favourite first.
    pub compress: Vec<Coding>,
}

/// Words of the upstream that an operator's `ttl` sets aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `private`: every client of the account shares these answers.
    pub private: bool,
    /// `no-cache`.
    pub no_cache: bool,
    /// `max-age=0` and its equivalents.
    pub max_age_0: bool,
}

impl Default for Policy {
    /// RFC 9111 alone.
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: None,
            ttl_for: Vec::new(),
            overrides: Overrides::default(),
            heuristics: true,
            max_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_unreachable: Duration::from_secs(30),
            identifying: vec![header::AUTHORIZATION, header::COOKIE],
            honour_request_directives: false,
            compress: Vec::new(),
        }
    }
}

impl Policy {
    /// Whether a request that sends these fields says who asks.
    pub(super) fn identifies(&self, sent: &HeaderMap) -> bool {
        self.identifying.iter().any(|name| sent.contains_key(name))
    }

    /// The operator's lifetime for `status`.
    pub(super) fn ttl_of(&self, status: StatusCode) -> Option<Duration> {
        let stated = self.ttl_for.iter().find(|(of, _)| *of == status).map(|(_, ttl)| *ttl);
        stated.or(self.ttl.filter(|_| status == StatusCode::OK))
    }
}
