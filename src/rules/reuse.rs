//! Whether a response may be kept ([`admit`]) and whether a kept one may be reused ([`decide`]): RFC 9111 as a shared
//! cache, with the words of the route's operator where the route has some. Each condition stands under the sentence
//! it implements.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::model::entry::{Entry, Facts, Selectors};
use crate::model::moment::Moment;
use crate::rules::cache_control::Directives;

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
    /// The longest lifetime an upstream may grant.
    pub max_ttl: Option<Duration>,
    /// How long after its lifetime an answer may be given while it is refreshed.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its lifetime an answer may be given when the upstream fails.
    pub stale_if_error: Option<Duration>,
    /// The same when it cannot be reached and neither the route nor the upstream said how long.
    pub stale_if_unreachable: Duration,
    /// Whether request directives that cost calls are obeyed, for clients that may refresh.
    pub honour_request_directives: bool,
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
            max_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_unreachable: Duration::from_secs(30),
            honour_request_directives: false,
        }
    }
}

impl Policy {
    /// The operator's lifetime for `status`.
    fn ttl_of(&self, status: StatusCode) -> Option<Duration> {
        let stated = self.ttl_for.iter().find(|(of, _)| *of == status).map(|(_, ttl)| *ttl);
        stated.or(self.ttl.filter(|_| status == StatusCode::OK))
    }
}

/// What [`admit`] found.
#[derive(Debug)]
pub enum Admission {
    /// To be kept, with these facts.
    Keep {
        /// What the upstream said of its reuse.
        facts: Facts,
        /// How old it was on arrival.
        initial_age: Duration,
        /// The request's values of the fields its `Vary` names.
        selectors: Selectors,
    },
    /// A failure that says nothing of its own requester: to be told to everyone who waits, and kept for nobody.
    Share,
    /// Not to be kept, and nobody else's.
    Refuse(Refusal),
}

/// Why a response is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The route does not cache.
    Disabled,
    /// Not an answer to GET.
    Method,
    /// A status that is never kept, or an error or unknown one without a lifetime.
    Status,
    /// `no-store`, of either side.
    NoStore,
    /// `private`, and nobody set the word aside.
    Private,
    /// `Vary: *`, or a `Vary` that cannot be read.
    VaryStar,
    /// The request carried credentials of the client's own, and the response does not allow sharing.
    Credentials,
    /// `Set-Cookie` beside a `private` that the operator set aside.
    Cookie,
    /// Nothing says how long it is fresh, and it cannot be validated.
    NoLifetime,
}

/// Whether a response with `status` and `headers` to `method` with `sent` may be kept, or at least shared.
pub fn admit(
    policy: &Policy,
    (method, sent): (&Method, &HeaderMap),
    (status, headers): (StatusCode, &HeaderMap),
    wall: SystemTime,
) -> Admission {
    match judge(policy, (method, sent), (status, headers), wall) {
        Admission::Refuse(refusal) if is_shared_failure(refusal, sent, (status, headers)) => Admission::Share,
        admission => admission,
    }
}

/// Whether an error that is not kept may be told to everyone who waits for it: each would only make the same call again
/// to learn the same. Not what speaks of one requester; and `no-store` sets aside only for an upstream that fails,
/// which a herd would otherwise finish off.
fn is_shared_failure(
    refusal: Refusal,
    sent: &HeaderMap,
    (status, headers): (StatusCode, &HeaderMap),
) -> bool {
    let failing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let about_the_question =
        status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407 | 428 | 431);
    let about_one = headers.contains_key(header::SET_COOKIE) || own_credentials(sent);
    !about_one
        && match refusal {
            Refusal::NoLifetime | Refusal::Status => failing || about_the_question,
            Refusal::NoStore => failing,
            _ => false,
        }
}

fn own_credentials(sent: &HeaderMap) -> bool {
    sent.contains_key(header::AUTHORIZATION) || sent.contains_key(header::COOKIE)
}

fn judge(
    policy: &Policy,
    (method, sent): (&Method, &HeaderMap),
    (status, headers): (StatusCode, &HeaderMap),
    wall: SystemTime,
) -> Admission {
    use Admission::Refuse;
    if !policy.enabled {
        return Refuse(Refusal::Disabled);
    }
    // "the request method is understood by the cache" (§3): understood, and worth keeping.
    if method != Method::GET {
        return Refuse(Refusal::Method);
    }
    // Statuses that speak of one moment or one requester; 206 and 304 are parts, not wholes.
    if status.is_informational() || matches!(status.as_u16(), 206 | 304 | 428 | 429 | 431 | 511) {
        return Refuse(Refusal::Status);
    }
    let said = Directives::from_headers(headers, &header::CACHE_CONTROL);
    // "the no-store cache directive is not present in the response" (§3); of the request, §5.2.1.5.
    let asked = Directives::from_headers(sent, &header::CACHE_CONTROL);
    if said.no_store || (policy.honour_request_directives && asked.no_store) {
        return Refuse(Refusal::NoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache" (§3).
    if said.private && !policy.overrides.private {
        return Refuse(Refusal::Private);
    }
    // "if the cache is shared: the Authorization header field is not present in the request … or a response directive
    // is present that explicitly allows shared caching" (§3, §3.5). A forwarded Cookie is treated alike.
    let own_credentials = own_credentials(sent);
    if own_credentials && !(said.public || said.must_revalidate || said.s_maxage.is_some()) {
        return Refuse(Refusal::Credentials);
    }
    // Neither does a `ttl`, nor a word set aside, ever answer for such a request: only a lifetime of the upstream's own.
    if own_credentials && (said.no_cache || said.private) {
        return Refuse(Refusal::Credentials);
    }
    let Some(selectors) = selectors(headers, sent) else { return Refuse(Refusal::VaryStar) };
    let lifetime = explicit_lifetime(&said, headers, wall);
    let ttl = policy.ttl_of(status).filter(|_| !own_credentials && may_extend(status));
    // The operator may share what is marked private; a response that also sets a cookie is about one client indeed.
    if said.private && headers.contains_key(header::SET_COOKIE) {
        return Refuse(Refusal::Cookie);
    }
    if own_credentials && lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
        return Refuse(Refusal::Credentials);
    }
    let facts = Facts {
        lifetime,
        no_cache: said.no_cache,
        private: said.private,
        never_stale: said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some(),
        while_revalidating: said.stale_while_revalidate,
        if_error: said.stale_if_error,
    };
    // Kept only where it could be given out at least once.
    let stated = lifetime.is_some() || ttl.is_some();
    let useful = lifetime_of(policy, status, &facts, ttl) + stale_allowance(policy, &facts);
    if !stated || useful.is_zero() {
        return Refuse(Refusal::NoLifetime);
    }
    Admission::Keep { facts, initial_age: initial_age(headers, wall), selectors }
}

/// Whether `held` is worth more than an error that came in its place: it may still be given out stale.
pub fn outlives_an_error(policy: &Policy, held: &Entry, now: Moment) -> bool {
    !held.status.is_server_error()
        && match decide(policy, held, None, now) {
            Verdict::Fresh { .. } | Verdict::FreshenMeanwhile { .. } => true,
            Verdict::Fetch { over, if_error, .. } => over < if_error,
        }
}

/// What to do with a held response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Give it out; so much freshness is left.
    Fresh {
        /// What is left of its lifetime.
        left: Duration,
    },
    /// Give it out, and fetch a newer one meanwhile.
    FreshenMeanwhile {
        /// How long its lifetime has been over.
        over: Duration,
    },
    /// Fetch; if that fails, it may be given out while `over` is less than what is allowed.
    Fetch {
        /// How long its lifetime has been over.
        over: Duration,
        /// How long over it may be when the upstream answers with an error.
        if_error: Duration,
        /// How long over it may be when the upstream cannot be reached.
        if_unreachable: Duration,
    },
}

/// Whether `entry` answers a request with `asked` directives at `now`.
pub fn decide(policy: &Policy, entry: &Entry, asked: Option<&Directives>, now: Moment) -> Verdict {
    let age = entry.age(now);
    let ttl = policy.ttl_of(entry.status).filter(|_| may_extend(entry.status));
    let lifetime = lifetime_of(policy, entry.status, &entry.facts, ttl);
    let fetch = |over: Duration| {
        let allowed = stale_if_error(policy, &entry.facts);
        // "indicating that the client … accepts a stale response" for errors: the client may only lower it.
        let lower = |allowed: Duration| {
            asked.and_then(|asked| asked.stale_if_error).map_or(allowed, |wish| allowed.min(wish))
        };
        Verdict::Fetch {
            over,
            if_error: lower(allowed),
            if_unreachable: lower(if stale_is_unstated(policy, &entry.facts) && !entry.facts.never_stale {
                policy.stale_if_unreachable
            } else {
                allowed
            }),
        }
    };
    if let Some(asked) = asked.filter(|_| policy.honour_request_directives) {
        // "the client is unwilling to accept a response whose age is greater than the specified number" (§5.2.1.1);
        // "no-cache … the client prefers that a stored response not be used … without successful validation" (§5.2.1.4).
        if asked.no_cache || asked.max_age.is_some_and(|most| age > most) {
            return fetch(age.saturating_sub(lifetime));
        }
    }
    // "response_is_fresh = (freshness_lifetime > current_age)" (§4.2).
    if lifetime > age {
        return Verdict::Fresh { left: lifetime - age };
    }
    let over = age - lifetime;
    if is_refused(policy, &entry.facts) {
        return Verdict::Fetch { over, if_error: Duration::ZERO, if_unreachable: Duration::ZERO };
    }
    if over < stale_while_revalidate(policy, &entry.facts) {
        return Verdict::FreshenMeanwhile { over };
    }
    fetch(over)
}

/// The lifetime that counts (§4.2.1): the upstream's, capped by the route; where it is silent, or where the route sets
/// its words aside, the operator's `ttl`.
fn lifetime_of(policy: &Policy, status: StatusCode, facts: &Facts, ttl: Option<Duration>) -> Duration {
    let aside = policy.overrides;
    let capped = |lifetime: Duration| policy.max_ttl.map_or(lifetime, |most| lifetime.min(most));
    // An answer stored while the word was set aside is not fresh under a plan that no longer does.
    if is_refused(policy, facts) {
        return Duration::ZERO;
    }
    // "no-cache … MUST NOT be used to satisfy any other request without … successful validation" (§5.2.2.4).
    if facts.no_cache {
        return if aside.no_cache && may_extend(status) { ttl.unwrap_or_default() } else { Duration::ZERO };
    }
    match facts.lifetime {
        Some(Duration::ZERO) if aside.max_age_0 && may_extend(status) => ttl.unwrap_or_default(),
        Some(lifetime) => capped(lifetime),
        None => ttl.unwrap_or_default(),
    }
}

/// Whether `admit` would not keep it today: it was stored under a plan that set `private` aside.
fn is_refused(policy: &Policy, facts: &Facts) -> bool {
    facts.private && !policy.overrides.private
}

/// `ttl` never extends these: they speak of one requester or of a passing failure.
fn may_extend(status: StatusCode) -> bool {
    !(status.is_server_error() || matches!(status.as_u16(), 401 | 403))
}

/// The route's word, else the upstream's unless it forbids stale answers (RFC 5861 §3).
fn stale_while_revalidate(policy: &Policy, facts: &Facts) -> Duration {
    // "no-cache … MUST NOT be used … without … successful validation" (§5.2.2.4): meanwhile is without.
    if facts.no_cache && !policy.overrides.no_cache {
        return Duration::ZERO;
    }
    stated(policy.stale_while_revalidate, facts.while_revalidating, facts)
}

/// The route's word, else the upstream's unless it forbids stale answers (RFC 5861 §4).
fn stale_if_error(policy: &Policy, facts: &Facts) -> Duration {
    stated(policy.stale_if_error, facts.if_error, facts)
}

/// "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive" (§4.2.4).
fn stated(route: Option<Duration>, upstream: Option<Duration>, facts: &Facts) -> Duration {
    route.unwrap_or(if facts.never_stale || facts.no_cache {
        Duration::ZERO
    } else {
        upstream.unwrap_or_default()
    })
}

fn stale_is_unstated(policy: &Policy, facts: &Facts) -> bool {
    policy.stale_if_error.is_none() && facts.if_error.is_none() && !facts.no_cache
}

/// The longest a response may outlive its lifetime, for whatever reason.
fn stale_allowance(policy: &Policy, facts: &Facts) -> Duration {
    stale_while_revalidate(policy, facts).max(stale_if_error(policy, facts))
}

/// `s-maxage`, else `max-age`, else `Expires` minus `Date` (§4.2.1). An `Expires` that is no date means "already
/// expired" (§5.3).
fn explicit_lifetime(said: &Directives, headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    said.s_maxage.or(said.max_age).or_else(|| {
        let expires = headers.get(header::EXPIRES)?;
        let expires = date(expires).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(expires.duration_since(date_of(headers, wall)).unwrap_or_default())
    })
}

/// "corrected_initial_age" (§4.2.3), the response delay being nothing beside a second.
fn initial_age(headers: &HeaderMap, wall: SystemTime) -> Duration {
    // Dates count whole seconds: a part of one is no age.
    let apparent = wall.duration_since(date_of(headers, wall)).unwrap_or_default();
    let apparent = Duration::from_secs(apparent.as_secs());
    let stated = headers
        .get(header::AGE)
        .and_then(|value| value.to_str().ok()?.split(',').next()?.trim().parse().ok())
        .map_or(Duration::ZERO, |seconds: u64| Duration::from_secs(seconds.min(1 << 31)));
    apparent.max(stated)
}

fn date_of(headers: &HeaderMap, wall: SystemTime) -> SystemTime {
    headers.get(header::DATE).and_then(date).unwrap_or(wall)
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// The request's values of the fields that `Vary` names; `None` for `*` (§4.1: "always fails to match").
fn selectors(headers: &HeaderMap, sent: &HeaderMap) -> Option<Selectors> {
    let mut selectors = Vec::new();
    for value in headers.get_all(header::VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is no field name either, so it ends here too.
            let name = HeaderName::try_from(name).ok().filter(|name| name.as_str() != "*")?;
            if !selectors.iter().any(|(held, _)| *held == name) {
                // Copied: the request's own bytes lie in a read buffer that an entry must not keep alive.
                let value = sent.get(&name).map(|value| HeaderValue::from_bytes(value.as_bytes()));
                selectors.push((name, value.transpose().ok()?));
            }
        }
    }
    Some(selectors.into())
}

#[cfg(test)]
mod tests;
