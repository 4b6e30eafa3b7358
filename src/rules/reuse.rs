//! Whether a response may be kept ([`admit`]) and whether a kept one may be reused ([`decide`]): RFC 9111 as a shared
//! cache, with the words of the route's operator where the route has some. Each condition stands under the sentence
//! it implements.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

pub use self::policy::{Overrides, Policy};
use crate::model::entry::{Entry, Facts, Seconds, Selectors};
use crate::model::moment::Moment;
use crate::rules::cache_control::Directives;
use crate::rules::{freshness, heuristics, targeted, validators, vary};

mod policy;

/// A response and what it answers, as far as it decides whether the response is kept.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The fields that went upstream.
    pub sent: &'a HeaderMap,
    /// The response's status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Whether its `Content-Location` names the request's own target.
    pub is_of_target: bool,
    /// How long the call took until its head arrived.
    pub delay: Duration,
    /// When it arrived.
    pub wall: SystemTime,
}

/// What [`admit`] found.
#[derive(Debug)]
pub enum Admission {
    /// To be kept, with these facts.
    Keep(Kept),
    /// A failure that says nothing of its own requester: to be told to everyone who waits and would select it, and kept
    /// for nobody.
    Share(Selectors),
    /// Not to be kept, and nobody else's.
    Refuse(Refusal),
}

/// What is known of a response that is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// What the upstream said of its reuse.
    pub facts: Facts,
    /// How old it was on arrival.
    pub initial_age: Duration,
    /// The request's values of the fields its `Vary` names.
    pub selectors: Selectors,
    /// Fields that are for its first requester alone.
    pub without: Vec<HeaderName>,
}

/// Why a response is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The route does not cache.
    Disabled,
    /// Not an answer to GET, nor one to POST that says it is.
    Method,
    /// A status that is never kept, or an error or unknown one without a lifetime.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`, and nobody set the word aside.
    Private,
    /// `Vary: *`, or a `Vary` that cannot be read.
    VaryStar,
    /// The request carried credentials of the client's own, and the response does not allow sharing.
    Credentials,
    /// `Set-Cookie` under an operator's `ttl`.
    Cookie,
    /// Nothing says how long it is fresh, and it cannot be validated.
    NoLifetime,
}

/// Whether a response may be kept, or at least shared.
pub fn admit(policy: &Policy, exchange: Exchange<'_>) -> Admission {
    match judge(policy, exchange) {
        Admission::Refuse(refusal) if is_shared_failure(policy, refusal, exchange) => {
            // Told to those who would have been told the same.
            vary::selectors(exchange.headers, exchange.sent)
                .map_or(Admission::Refuse(Refusal::VaryStar), Admission::Share)
        }
        admission => admission,
    }
}

/// Whether an error that is not kept may be told to everyone who waits for it: each would only make the same call again
/// to learn the same. Not what speaks of one requester; and `no-store` sets aside only for an upstream that fails,
/// which a herd would otherwise finish off.
fn is_shared_failure(policy: &Policy, refusal: Refusal, exchange: Exchange<'_>) -> bool {
    let Exchange { method, sent, status, headers, .. } = exchange;
    let failing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let about_the_question =
        status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 406 | 407 | 412 | 416 | 428 | 431);
    let about_one = headers.contains_key(header::SET_COOKIE) || policy.identifies(sent);
    *method == Method::GET
        && !about_one
        && match refusal {
            Refusal::NoLifetime | Refusal::Status => failing || about_the_question,
            Refusal::NoStore => failing,
            _ => false,
        }
}

fn judge(policy: &Policy, exchange: Exchange<'_>) -> Admission {
    use Admission::Refuse;
    let Exchange { method, sent, status, headers, wall, .. } = exchange;
    if !policy.enabled {
        return Refuse(Refusal::Disabled);
    }
    let targeted::Said { directives: said, targeted } = targeted::said(headers);
    let lifetime = freshness::explicit_lifetime(&said, targeted, headers, wall);
    // "the request method is understood by the cache" (§3). "Responses to POST requests are only cacheable when they
    // include explicit freshness information … and a Content-Location header field that has the same value as the
    // POST's target URI" (RFC 9110 §9.3.3).
    let posted =
        *method == Method::POST && exchange.is_of_target && lifetime.is_some() && status.is_success();
    if *method != Method::GET && !posted {
        return Refuse(Refusal::Method);
    }
    // "the response status code is final" (§3). These speak of one moment or one requester; a 304 is about another
    // response, and a 206 that nobody asked for is about nothing.
    let unasked = status == StatusCode::PARTIAL_CONTENT && !sent.contains_key(header::RANGE);
    if status.is_informational() || unasked || matches!(status.as_u16(), 304 | 416 | 428 | 429 | 431 | 511) {
        return Refuse(Refusal::Status);
    }
    // "if the response status code is 206 or 304, or the must-understand cache directive … is present: the cache
    // understands the response status code" (§3); then it "SHOULD ignore the no-store directive" (§5.2.2.3).
    if said.must_understand && !heuristics::is_understood(status) {
        return Refuse(Refusal::Status);
    }
    // "the no-store cache directive is not present in the response" (§3).
    if said.no_store && !said.must_understand {
        return Refuse(Refusal::NoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache" (§3).
    if said.private && !policy.overrides.private {
        return Refuse(Refusal::Private);
    }
    // "if the cache is shared: the Authorization header field is not present in the request … or a response directive
    // is present that explicitly allows shared caching" (§3, §3.5). A forwarded Cookie is treated alike, and so are the
    // fields that the route declares.
    let own_credentials = policy.identifies(sent);
    if own_credentials && !(said.public || said.must_revalidate || said.s_maxage.is_some()) {
        return Refuse(Refusal::Credentials);
    }
    // Neither does a `ttl`, nor a guess, nor a word set aside ever answer for such a request: only a lifetime of the
    // upstream's own.
    if own_credentials
        && (said.no_cache || said.private || lifetime.is_none_or(|lifetime| lifetime.is_zero()))
    {
        return Refuse(Refusal::Credentials);
    }
    let Some(selectors) = vary::selectors(headers, sent) else { return Refuse(Refusal::VaryStar) };
    let ttl = policy.ttl_of(status).filter(|_| !own_credentials && may_extend(status));
    // The operator may share what is marked private; a response that also sets a cookie is about one client indeed.
    if said.private && headers.contains_key(header::SET_COOKIE) {
        return Refuse(Refusal::Cookie);
    }
    // "A cache MUST NOT use heuristics to determine freshness when an explicit expiration time is present"; it may on
    // "responses … that are defined as heuristically cacheable", or "marked as explicitly cacheable (e.g., with a
    // public response directive)" (§4.2.2).
    let guessable = heuristics::is_heuristically_cacheable(status) || said.public;
    let heuristic = || freshness::heuristic_lifetime(headers, wall);
    let facts = Facts {
        lifetime: lifetime.map(Seconds::from),
        heuristic: (lifetime.is_none() && guessable && policy.heuristics)
            .then(heuristic)
            .flatten()
            .map(Seconds::from),
        no_cache: said.no_cache,
        private: said.private,
        never_stale: said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some(),
        while_revalidating: said.stale_while_revalidate.map(Seconds::from),
        if_error: said.stale_if_error.map(Seconds::from),
    };
    let stated = lifetime.is_some() || facts.heuristic.is_some();
    if !stated && ttl.is_none() && status.is_server_error() {
        return Refuse(Refusal::NoLifetime);
    }
    // Kept only where it could be given out at least once, if only after asking whether it still holds.
    let validatable = validators::has_validator(headers) && (stated || guessable);
    let useful = lifetime_of(policy, status, &facts, ttl) + stale_allowance(policy, &facts);
    if !(validatable || ((stated || ttl.is_some()) && !useful.is_zero())) {
        return Refuse(Refusal::NoLifetime);
    }
    // So is one that only a guess would share. Under a `ttl` the cookie itself is not kept.
    if lifetime.is_none() && ttl.is_none() && headers.contains_key(header::SET_COOKIE) {
        return Refuse(Refusal::Cookie);
    }
    Admission::Keep(Kept {
        facts,
        initial_age: freshness::initial_age(headers, exchange.delay, wall),
        selectors,
        // The fields that `no-cache="…"` lists are not used without validation (§5.2.2.4), those of `private="…"` not stored
        // (§5.2.2.7).
        without: said.no_cache_fields.into_iter().chain(said.private_fields).collect(),
    })
}

/// Whether the upstream's own words let an entry be given to a request with credentials (RFC 9111 §3.5): a lifetime
/// of its own, and nothing that a route has to set aside.
pub fn is_shared_by_upstream(entry: &Entry) -> bool {
    let facts = &entry.facts;
    facts.lifetime.map(Duration::from).is_some_and(|lifetime| !lifetime.is_zero())
        && !facts.private
        && !facts.no_cache
}

/// Whether `held` is worth more than an error that came in its place: it may still be given out stale.
pub fn outlives_an_error(policy: &Policy, held: &Entry, now: Moment) -> bool {
    !held.status.is_server_error()
        && match decide(policy, held, &Directives::default(), false, now) {
            Verdict::Fetch { over, if_error, .. } => over < if_error,
            _ => true,
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
    /// Give it out although its lifetime is over: the client said that it takes that.
    Accepted {
        /// How long its lifetime has been over.
        over: Duration,
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

/// Whether `entry` answers a request with `asked` directives at `now`; `honoured`: those count that cost calls.
pub fn decide(policy: &Policy, entry: &Entry, asked: &Directives, honoured: bool, now: Moment) -> Verdict {
    let age = entry.age(now);
    let facts = &entry.facts;
    let ttl = policy.ttl_of(entry.status).filter(|_| may_extend(entry.status));
    let lifetime = lifetime_of(policy, entry.status, facts, ttl);
    // What an operator ended is over since then.
    let lifetime = entry.expired_age().map_or(lifetime, |ended| lifetime.min(ended));
    let over = age.saturating_sub(lifetime);
    if is_refused(policy, facts) {
        return Verdict::Fetch { over, if_error: Duration::ZERO, if_unreachable: Duration::ZERO };
    }
    let fetch = || {
        let allowed = stale_if_error(policy, facts);
        // "indicating that the client … accepts a stale response" for errors: the client may only lower it.
        let lower = |allowed: Duration| asked.stale_if_error.map_or(allowed, |wish| allowed.min(wish));
        Verdict::Fetch {
            over,
            if_error: lower(allowed),
            if_unreachable: lower(if stale_is_unstated(policy, facts) && !facts.never_stale {
                policy.stale_if_unreachable
            } else {
                allowed
            }),
        }
    };
    // "no-cache … the client prefers that a stored response not be used … without successful validation" (§5.2.1.4);
    // "the client prefers a response whose age is less than or equal to the specified number of seconds" (§5.2.1.1);
    // "… whose freshness lifetime is no less than its current age plus the specified time" (§5.2.1.3).
    let too_old = asked.max_age.is_some_and(|most| age > most);
    let too_stale = asked.min_fresh.is_some_and(|least| lifetime < age.saturating_add(least));
    if honoured && (asked.no_cache || too_old || too_stale) {
        return fetch();
    }
    // "response_is_fresh = (freshness_lifetime > current_age)" (§4.2).
    if lifetime > age {
        return Verdict::Fresh { left: lifetime - age };
    }
    // "the client will accept a response that has exceeded its freshness lifetime" by no more than so much (§5.2.1.2),
    // unless "prohibited by an explicit in-protocol directive" (§4.2.4).
    let prohibited = facts.never_stale || facts.no_cache;
    if honoured && !prohibited && asked.max_stale.is_some_and(|most| over <= most) {
        return Verdict::Accepted { over };
    }
    if over < stale_while_revalidate(policy, facts) {
        return Verdict::FreshenMeanwhile { over };
    }
    fetch()
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
    match facts.lifetime.map(Duration::from) {
        Some(Duration::ZERO) if aside.max_age_0 && may_extend(status) => ttl.unwrap_or_default(),
        Some(lifetime) => capped(lifetime),
        // The operator knows better than a guess.
        None => ttl
            .or(facts.heuristic.filter(|_| policy.heuristics).map(Duration::from).map(capped))
            .unwrap_or_default(),
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
    if facts.no_cache && !policy.overrides.no_cache {
        return Duration::ZERO;
    }
    stated(policy.stale_if_error, facts.if_error, facts)
}

/// "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive" (§4.2.4).
fn stated(route: Option<Duration>, upstream: Option<Seconds>, facts: &Facts) -> Duration {
    route.unwrap_or(if facts.never_stale || facts.no_cache {
        Duration::ZERO
    } else {
        upstream.map(Duration::from).unwrap_or_default()
    })
}

fn stale_is_unstated(policy: &Policy, facts: &Facts) -> bool {
    policy.stale_if_error.is_none() && facts.if_error.is_none() && !facts.no_cache
}

/// The longest a response may outlive its lifetime, for whatever reason.
fn stale_allowance(policy: &Policy, facts: &Facts) -> Duration {
    stale_while_revalidate(policy, facts).max(stale_if_error(policy, facts))
}

#[cfg(test)]
mod tests;
