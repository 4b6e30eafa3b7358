//! cache: `Ask → Fetch`, or answered from memory. Above it is what clients see, below it what is stored.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header;
use tower_layer::Layer;

use super::Stage;
use super::steps::place;
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, CacheStatus, Content, Fetch, Sharing, Stale, Timing, Why};
use crate::model::{Fault, FaultKind, Moment};
use crate::rules::cache_control::Directives;
use crate::rules::headers::Forwarding;
use crate::rules::reuse::{self, Policy, Verdict};
use crate::state::clock::Clock;
use crate::state::store::{Found, Store};
use crate::state::tasks::Tasks;

/// How long a failed refresh speaks for the next ones: a failing upstream is not asked on every request.
const FAILURE_SPEAKS_FOR: Duration = Duration::from_secs(1);

/// What the cache knows of a route.
#[derive(Debug, Clone)]
pub struct CacheRules {
    /// When answers are reused.
    pub policy: Policy,
    /// Which request fields the upstream sees, and so can vary by.
    pub forwarding: Forwarding,
    /// How long a refresh that nobody waits for may wait for a grant.
    pub patience: Duration,
}

/// The layer.
#[derive(Debug, Clone)]
pub struct CacheLayer {
    /// The routes, by place.
    pub routes: Arc<[CacheRules]>,
    /// Which clients' refresh directives count, by place.
    pub may_refresh: Arc<[bool]>,
    /// The entries.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// For refreshes that nobody waits for.
    pub tasks: Tasks,
}

/// The stage.
#[derive(Debug)]
pub struct Cache<S> {
    given: CacheLayer,
    /// Shared with refreshes that go on after their client was answered.
    below: Arc<S>,
}

impl<S> Layer<S> for CacheLayer {
    type Service = Cache<S>;

    fn layer(&self, below: S) -> Cache<S> {
        Cache { given: self.clone(), below: Arc::new(below) }
    }
}

/// An entry that is too old, and how long it may still serve when the upstream fails.
struct Fallback {
    entry: Arc<Entry>,
    over: Duration,
    if_error: Duration,
    if_unreachable: Duration,
}

impl<S: Stage<Fetch> + 'static> Stage<Ask> for Cache<S> {
    async fn call(&self, ask: Ask) -> Result<Answer, Fault> {
        let Some(rules) = self.given.routes.get(place(ask.route)) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        if !rules.policy.enabled || !matches!(ask.method, Method::GET | Method::HEAD) || !ask.body.is_empty()
        {
            let why = if rules.policy.enabled { Why::Method } else { Why::Bypass };
            return self.forward(ask, rules, why, Sharing::Alone { keep: false }).await;
        }
        let said = Directives::from_headers(&ask.headers, &header::CACHE_CONTROL);
        let may_refresh = self.given.may_refresh.get(usize::from(ask.client.0)).is_some_and(|may| *may);
        let found =
            self.given.store.find(&ask.question.key, |name| rules.forwarding.sent(&ask.headers, name));
        let (fallback, why) = match found {
            Found::Nothing => (None, Why::UriMiss),
            Found::OtherVariant => (None, Why::VaryMiss),
            Found::Entry(entry) => {
                let now = ask.at;
                let mut policy = &rules.policy;
                let obeying;
                if policy.honour_request_directives && !may_refresh {
                    obeying = Policy { honour_request_directives: false, ..policy.clone() };
                    policy = &obeying;
                }
                match reuse::decide(policy, &entry, Some(&said), now) {
                    Verdict::Fresh { left } => return Ok(hit(entry, now, seconds(left), None)),
                    Verdict::FreshenMeanwhile { over } => {
                        let reason = entry.failing(now).unwrap_or(Stale::Revalidating);
                        self.freshen(&ask, rules, &entry, now);
                        return Ok(hit(entry, now, -seconds(over), Some(reason)));
                    }
                    Verdict::Fetch { over, if_error, if_unreachable } => {
                        let why = if over.is_zero() { Why::Request } else { Why::Stale };
                        (Some(Fallback { entry, over, if_error, if_unreachable }), why)
                    }
                }
            }
        };
        // "only-if-cached … SHOULD respond with either a stored response or a 504" (RFC 9111 §5.2.1.7).
        if said.only_if_cached {
            return Err(FaultKind::OnlyIfCached.into());
        }
        let now = self.given.clock.now();
        if let Some(fallback) = &fallback
            && let Some(reason) = fallback.entry.failing(now)
            && let Some(answer) = fallback.answer(now, reason)
        {
            return Ok(answer);
        }
        let sharing = match (&ask.method, own_credentials(&ask, rules)) {
            (&Method::HEAD, _) => Sharing::Alone { keep: false },
            (_, true) => Sharing::Alone { keep: true },
            _ => Sharing::Shared { held: fallback.as_ref().map(|fallback| fallback.entry.arrived) },
        };
        let deadline = ask.deadline;
        let fetched = self.forward(ask, rules, why, sharing).await;
        match fallback {
            Some(fallback) => self.or_stale(fetched, &fallback, deadline),
            None => fetched,
        }
    }
}

impl<S: Stage<Fetch> + 'static> Cache<S> {
    async fn forward(
        &self,
        ask: Ask,
        rules: &CacheRules,
        why: Why,
        sharing: Sharing,
    ) -> Result<Answer, Fault> {
        // Boxed here, so that a hit does not carry the size of the whole way below.
        Box::pin(self.below.call(fetch(ask, rules, why, sharing))).await
    }

    /// Fetches a newer answer that nobody waits for.
    fn freshen(&self, ask: &Ask, rules: &CacheRules, entry: &Entry, now: Moment) {
        if !entry.claim_refresh(now, now + rules.patience) {
            return;
        }
        let question = ask.question.clone();
        let key = question.key.clone();
        let refresh = Fetch {
            client: ask.client,
            route: ask.route,
            method: Method::GET,
            question,
            headers: rules.forwarding.of(&ask.headers),
            body: crate::model::Body::Empty,
            deadline: now + rules.patience,
            sharing: Sharing::Shared { held: Some(entry.arrived) },
            why: Why::Stale,
        };
        let (below, clock, store) = (self.below.clone(), self.given.clock.clone(), self.given.store.clone());
        let forwarded = refresh.headers.clone();
        self.given.tasks.spawn(async move {
            let fetched = Box::pin(below.call(refresh)).await;
            if let Some(reason) = failure(&fetched)
                && let Found::Entry(entry) = store.find(&key, |name| forwarded.get(name))
            {
                entry.refresh_failed(reason, clock.now() + FAILURE_SPEAKS_FOR);
            }
        });
    }

    /// The stale entry in place of a failure, for as long as it may serve.
    fn or_stale(
        &self,
        fetched: Result<Answer, Fault>,
        fallback: &Fallback,
        deadline: Moment,
    ) -> Result<Answer, Fault> {
        let Some(reason) = failure(&fetched) else { return fetched };
        let now = self.given.clock.now();
        // A client that ran out of patience says nothing of the upstream.
        let upstream_failed =
            !matches!(&fetched, Err(fault) if fault.kind == FaultKind::UpstreamTimeout && now >= deadline);
        if upstream_failed {
            fallback.entry.refresh_failed(reason, now + FAILURE_SPEAKS_FOR);
        }
        fallback.answer(now, reason).map_or(fetched, Ok)
    }
}

impl Fallback {
    fn answer(&self, now: Moment, reason: Stale) -> Option<Answer> {
        let allowed = match reason {
            Stale::Unreachable => self.if_unreachable,
            _ => self.if_error,
        };
        (self.over < allowed).then(|| hit(self.entry.clone(), now, -seconds(self.over), Some(reason)))
    }
}

/// Why a fetch counts as failed where something stale could serve instead (RFC 5861 §4, design §7).
fn failure(fetched: &Result<Answer, Fault>) -> Option<Stale> {
    match fetched {
        Ok(answer) => match answer.status().as_u16() {
            500 | 502 | 503 | 504 => Some(Stale::UpstreamError),
            429 => Some(Stale::Paused),
            _ => None,
        },
        Err(fault) => match fault.kind {
            FaultKind::UpstreamUnreachable | FaultKind::UpstreamTimeout => Some(Stale::Unreachable),
            FaultKind::UpstreamBroken | FaultKind::Internal => Some(Stale::UpstreamError),
            FaultKind::QuotaExceeded | FaultKind::QueueFull => Some(Stale::Quota),
            FaultKind::UpstreamRefusedCredentials => Some(Stale::Paused),
            _ => None,
        },
    }
}

fn fetch(ask: Ask, rules: &CacheRules, why: Why, sharing: Sharing) -> Fetch {
    let Ask { client, route, method, question, headers, body, deadline, .. } = ask;
    let headers = rules.forwarding.of(&headers);
    Fetch { client, route, method, question, headers, body, deadline, sharing, why }
}

fn own_credentials(ask: &Ask, rules: &CacheRules) -> bool {
    [header::AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| rules.forwarding.sent(&ask.headers, name).is_some())
}

fn hit(entry: Arc<Entry>, now: Moment, ttl: i64, stale: Option<Stale>) -> Answer {
    let age = entry.age(now);
    Answer {
        content: Content::Held(entry, age),
        cache: CacheStatus::Hit { ttl, stale },
        timing: Timing::default(),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
