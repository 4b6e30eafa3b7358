//! cache: `Ask → Fetch`, or answered from memory. Above it is what clients see, below it what is stored.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tower_layer::Layer;

use super::Stage;
use crate::model::cache_status::{CacheStatus, Stale, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, Content, Fetch, Sharing, Timing};
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
    looked: Moment,
    /// How long its lifetime was over when it was looked at.
    over: Duration,
    if_error: Duration,
    if_unreachable: Duration,
}

impl<S: Stage<Fetch> + 'static> Stage<Ask> for Cache<S> {
    async fn call(&self, mut ask: Ask) -> Result<Answer, Fault> {
        let Some(rules) = self.given.routes.get(ask.route.place()) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        if !rules.policy.enabled || !matches!(ask.method, Method::GET | Method::HEAD) || !ask.body.is_empty()
        {
            let why = if rules.policy.enabled { Why::Method } else { Why::Bypass };
            return self.forward(ask, rules, why, Sharing::Alone { keep: false }).await;
        }
        one_line_each(&mut ask.headers);
        let said = Directives::from_headers(&ask.headers, &header::CACHE_CONTROL);
        let may_refresh = self.given.may_refresh.get(ask.client.place()).is_some_and(|may| *may);
        let found =
            self.given.store.find(&ask.question.key, |name| rules.forwarding.sent(&ask.headers, name));
        let (fallback, why) = match found {
            Found::Nothing => (None, Why::UriMiss),
            Found::OtherVariant => (None, Why::VaryMiss),
            // Who is somebody to the upstream is not given what only the operator's word shares.
            Found::Entry(entry) if own_credentials(&ask, rules) && !is_shared_by_upstream(&entry) => {
                (None, Why::VaryMiss)
            }
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
                        return Ok(hit(entry, now, seconds_over(over), Some(reason)));
                    }
                    Verdict::Fetch { over, if_error, if_unreachable } => {
                        // At the very end of its lifetime it is over by nothing, and stale nevertheless.
                        let wished =
                            policy.honour_request_directives && (said.no_cache || said.max_age.is_some());
                        let why = if over.is_zero() && wished { Why::Request } else { Why::Stale };
                        (Some(Fallback { entry, looked: now, over, if_error, if_unreachable }), why)
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
            // "a cache MUST NOT store any part of either this request or any response to it" (RFC 9111 §5.2.1.5).
            _ if said.no_store && may_refresh && rules.policy.honour_request_directives => {
                Sharing::Alone { keep: false }
            }
            (_, true) => Sharing::Alone { keep: true },
            _ => Sharing::Shared { held: fallback.as_ref().map(|fallback| fallback.entry.arrived) },
        };
        let fetched = self.forward(ask, rules, why, sharing).await;
        match fallback {
            Some(fallback) => self.or_stale(fetched, &fallback),
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
            hurried: false,
            sharing: Sharing::Shared { held: Some(entry.arrived) },
            why: Why::Stale,
        };
        let (below, clock, store) = (self.below.clone(), self.given.clock.clone(), self.given.store.clone());
        let forwarded = refresh.headers.clone();
        self.given.tasks.spawn(async move {
            let fetched = Box::pin(below.call(refresh)).await;
            if let Some(reason) = failure(&fetched)
                && speaks_for_others(&fetched)
                && let Found::Entry(entry) = store.find(&key, |name| forwarded.get(name))
            {
                entry.refresh_failed(reason, clock.now() + FAILURE_SPEAKS_FOR);
            }
        });
    }

    /// The stale entry in place of a failure, for as long as it may serve.
    fn or_stale(&self, fetched: Result<Answer, Fault>, fallback: &Fallback) -> Result<Answer, Fault> {
        let Some(reason) = failure(&fetched) else { return fetched };
        let now = self.given.clock.now();
        if speaks_for_others(&fetched) {
            fallback.entry.refresh_failed(reason, now + FAILURE_SPEAKS_FOR);
        }
        fallback.answer(now, reason).map_or(fetched, Ok)
    }
}

impl Fallback {
    fn answer(&self, now: Moment, reason: Stale) -> Option<Answer> {
        let allowed = match reason {
            Stale::Unreachable | Stale::Breaker => self.if_unreachable,
            _ => self.if_error,
        };
        // The call that failed took its time.
        let over = self.over + now.since(self.looked);
        (over < allowed).then(|| hit(self.entry.clone(), now, seconds_over(over), Some(reason)))
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
            FaultKind::UpstreamUnreachable | FaultKind::UpstreamTimeout | FaultKind::ClientTimeout => {
                Some(Stale::Unreachable)
            }
            FaultKind::UpstreamBroken | FaultKind::Internal => Some(Stale::UpstreamError),
            FaultKind::BreakerOpen => Some(Stale::Breaker),
            // A limit of the gate's own is told as a quota too: what matters is that nobody was asked.
            FaultKind::QuotaExceeded
            | FaultKind::BudgetSpent
            | FaultKind::QueueFull
            | FaultKind::Overloaded => Some(Stale::Quota),
            FaultKind::UpstreamRefusedCredentials => Some(Stale::Paused),
            _ => None,
        },
    }
}

/// Whether a failure would have met anybody: a client whose patience or budget ended says nothing of the upstream.
fn speaks_for_others(fetched: &Result<Answer, Fault>) -> bool {
    !matches!(fetched, Err(fault) if matches!(fault.kind, FaultKind::ClientTimeout | FaultKind::BudgetSpent))
}

fn fetch(ask: Ask, rules: &CacheRules, why: Why, sharing: Sharing) -> Fetch {
    let Ask { client, route, method, question, headers, body, deadline, hurried, .. } = ask;
    let forwarding = &rules.forwarding;
    let headers = if method.is_safe() { forwarding.of(&headers) } else { forwarding.of_unsafe(&headers) };
    Fetch { client, route, method, question, headers, body, deadline, hurried, sharing, why }
}

fn own_credentials(ask: &Ask, rules: &CacheRules) -> bool {
    [header::AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| rules.forwarding.sent(&ask.headers, name).is_some())
}

/// Whether the upstream's own words let an entry be given to a request with credentials (RFC 9111 §3.5): a lifetime
/// of its own, and nothing that a route has to set aside.
fn is_shared_by_upstream(entry: &Entry) -> bool {
    let facts = &entry.facts;
    facts.lifetime.is_some_and(|lifetime| !lifetime.is_zero()) && !facts.private && !facts.no_cache
}

/// Several lines of a field are one list (RFC 9110 §5.3), so that comparing the one line compares them all.
fn one_line_each(headers: &mut HeaderMap) {
    if headers.len() == headers.keys_len() {
        return;
    }
    let names: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in names {
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if lines.len() < 2 {
            continue;
        }
        // "if there are multiple Cookie header fields … concatenated using … `; `" (RFC 9113 §8.2.3).
        let comma: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
        if let Ok(line) = HeaderValue::from_bytes(&lines.join(comma)) {
            headers.insert(name, line);
        }
    }
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

/// Seconds by which a lifetime is over, begun ones counted: what is stale never shows `ttl=0`.
fn seconds_over(duration: Duration) -> i64 {
    -seconds(duration + Duration::from_nanos(999_999_999)).max(1)
}
