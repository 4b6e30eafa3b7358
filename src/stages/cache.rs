//! cache: `Block → Fetch`, or answered from memory. Above it is what clients see, below it what is stored.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use tower_layer::Layer;

use super::{Stage, at_once, below};
use crate::model::cache_status::{CacheStatus, Stale, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, Block, Content, Demand, Fetch, Sharing, Timing};
use crate::model::fault::Called;
use crate::model::urgency::Class;
use crate::model::{Fault, FaultKind, Moment};
use crate::rules::failing::{FAILURE_SPEAKS_FOR, allowance, failure, speaks_for_others};
use crate::rules::headers::Forwarding;
use crate::rules::reuse::{self, Policy, Verdict};
use crate::rules::serving::{self, Wishes};
use crate::rules::{codings, ranges, validators, vary};
use crate::state::clock::Clock;
use crate::state::store::{Found, Store};
use crate::state::tasks::Tasks;

/// What the cache knows of a route.
#[derive(Debug, Clone)]
pub struct CacheRules {
    /// When answers are reused.
    pub policy: Policy,
    /// Which request fields the upstream sees, and so can vary by.
    pub forwarding: Forwarding,
    /// Those of them that say who asks (RFC 9111 §3.5), as far as they may cross.
    pub identifying: Vec<HeaderName>,
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
    /// Whose calls go first, by client.
    pub classes: Arc<[Class]>,
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
    /// Why it did not do.
    why: Why,
}

impl<S: Stage<Fetch> + 'static> Stage<Block> for Cache<S> {
    // Not an `async fn`: what is in memory is answered at once, without carrying the size of the way below.
    fn call(&self, Block { ask, demand }: Block) -> impl Future<Output = Result<Answer, Fault>> + Send {
        let Some(rules) = self.given.routes.get(ask.route.place()) else {
            return at_once(Err(FaultKind::NoSuchRoute.into()));
        };
        if !rules.policy.enabled || !matches!(ask.method, Method::GET | Method::HEAD) || !ask.body.is_empty()
        {
            // A body would be part of the question, and no key holds it.
            let about_method = rules.policy.enabled && !matches!(ask.method, Method::GET | Method::HEAD);
            let why = if about_method { Why::Method } else { Why::Bypass };
            return below(self.forward(ask, rules, why, Sharing::Alone { keep: false }, None));
        }
        // What is held of a block was found wanting above; what stands in for a failure is found there too.
        if let Demand::Newer { than, validates } = demand {
            let sharing = Sharing::Shared { held: Some(than) };
            return below(self.forward(ask, rules, Why::Stale, sharing, validates));
        }
        let wishes = Wishes::from_headers(&ask.headers);
        let may_refresh = self.given.may_refresh.get(ask.client.place()).is_some_and(|may| *may);
        let honoured = may_refresh && rules.policy.honour_request_directives;
        let now = ask.at;
        let sent = |name: &HeaderName| rules.forwarding.sent(&ask.headers, name);
        let (fallback, why) = match self.given.store.find(&ask.question.key, sent) {
            Found::Nothing => (None, Why::UriMiss),
            Found::OtherVariant => (None, Why::VaryMiss),
            Found::Parts => (None, Why::Partial),
            // Who is somebody to the upstream is not given what only the operator's word shares.
            Found::Entry(entry) if own_credentials(&ask, rules) && !reuse::is_shared_by_upstream(&entry) => {
                (None, Why::Request)
            }
            Found::Entry(entry) => {
                match reuse::decide(&rules.policy, &entry, &wishes.directives, honoured, now) {
                    Verdict::Fresh { left } => {
                        let fresh = Answer::held(entry, CacheStatus::fresh(left), now);
                        return at_once(Ok(self.fitted(fresh, &ask.method, &wishes)));
                    }
                    Verdict::Accepted { over } => {
                        let accepted = Answer::held(entry, CacheStatus::over(over, None), now);
                        return at_once(Ok(self.fitted(accepted, &ask.method, &wishes)));
                    }
                    Verdict::FreshenMeanwhile { over } => {
                        let reason = entry.failing(now).unwrap_or(Stale::Revalidating);
                        self.freshen(&ask, rules, &entry, now);
                        let stale = Answer::held(entry, CacheStatus::over(over, Some(reason)), now);
                        return at_once(Ok(self.fitted(stale, &ask.method, &wishes)));
                    }
                    Verdict::Fetch { over, if_error, if_unreachable } => {
                        // At the very end of its lifetime it is over by nothing, and stale nevertheless.
                        let wished = honoured && wishes.directives.wants_newer();
                        let why = if over.is_zero() && wished { Why::Request } else { Why::Stale };
                        (Some(Fallback { entry, looked: now, over, if_error, if_unreachable, why }), why)
                    }
                }
            }
        };
        if fallback.is_none()
            && let Some(answer) = self.part_of(&ask, rules, &wishes, honoured)
        {
            return at_once(Ok(answer));
        }
        // "only-if-cached … SHOULD respond with either a stored response or a 504" (RFC 9111 §5.2.1.7).
        if wishes.directives.only_if_cached {
            return at_once(Err(FaultKind::OnlyIfCached.into()));
        }
        if let Some(fallback) = &fallback
            && let Some(reason) = fallback.entry.failing(now)
            && let Some(answer) = fallback.answer(now, reason, None)
        {
            return at_once(Ok(self.fitted(answer, &ask.method, &wishes)));
        }
        let held = match &fallback {
            Some(fallback) => Some(fallback.entry.clone()),
            None => self.incomplete(&ask, rules, &wishes, why),
        };
        let sharing = self.sharing(&ask, rules, &wishes, honoured, held.as_deref());
        below(async move {
            let method = ask.method.clone();
            let fetched = self.forward(ask, rules, why, sharing, held).await;
            let answer = match fallback {
                Some(fallback) => self.or_stale(fetched, &fallback),
                None => fetched,
            };
            answer.map(|answer| self.fitted(answer, &method, &wishes))
        })
    }
}

impl<S: Stage<Fetch> + 'static> Cache<S> {
    /// Whether a call may serve others too, and its answer be kept.
    fn sharing(
        &self,
        ask: &Ask,
        rules: &CacheRules,
        wishes: &Wishes,
        honoured: bool,
        held: Option<&Entry>,
    ) -> Sharing {
        // "A cache MUST NOT store any part of either this request or any response to it" (RFC 9111 §5.2.1.5).
        if honoured && wishes.directives.no_store {
            return Sharing::Alone { keep: false };
        }
        let a_part = held.is_none() && wishes.conditions.contains_key(header::RANGE);
        match ask.method {
            // Kept is only what a HEAD says of a response that is held already (RFC 9111 §4.3.5).
            Method::HEAD => Sharing::Alone { keep: held.is_some() },
            _ if a_part || own_credentials(ask, rules) || self.given.store.is_unshared(&ask.question.key) => {
                Sharing::Alone { keep: true }
            }
            _ => Sharing::Shared { held: held.map(|entry| entry.arrived) },
        }
    }

    async fn forward(
        &self,
        ask: Box<Ask>,
        rules: &CacheRules,
        why: Why,
        sharing: Sharing,
        held: Option<Arc<Entry>>,
    ) -> Result<Answer, Fault> {
        let headers = Arc::new(asking(rules, &ask, &ask.method, &sharing, held.as_deref()));
        let Ask { client, route, method, question, body, deadline, hurried, interim, .. } = *ask;
        let fetch = Fetch {
            client,
            route,
            method,
            question,
            headers,
            body,
            class: self.given.classes.get(client.place()).copied().unwrap_or(Class::Interactive),
            deadline,
            hurried,
            sharing,
            validates: held,
            interim,
            why,
        };
        self.below.call(fetch).await
    }

    /// What a client gets of an answer that everyone may have: its own conditions and ranges are answered here.
    fn fitted(&self, mut answer: Answer, method: &Method, wishes: &Wishes) -> Answer {
        let Content::Held(entry, age) = &mut answer.content else { return answer };
        if let Some(coded) = entry.coded.get() {
            *entry = codings::chosen(coded, wishes.codings.as_ref()).clone();
        }
        if wishes.conditions.is_empty() {
            return answer;
        }
        match serving::shape(&wishes.conditions, method, entry, self.given.clock.wall()) {
            Some(shaped) => Answer { content: Content::cut(entry, *age, answer.cache, shaped), ..answer },
            None => answer,
        }
    }

    /// A range that lies within a stored part (RFC 9111 §3.3).
    fn part_of(&self, ask: &Ask, rules: &CacheRules, wishes: &Wishes, honoured: bool) -> Option<Answer> {
        let range = wishes.conditions.get(header::RANGE).filter(|_| ask.method == Method::GET)?;
        let sent = |name: &HeaderName| rules.forwarding.sent(&ask.headers, name);
        let (entry, within) = self.given.store.find_part(&ask.question.key, range.as_bytes(), sent)?;
        let (now, wall) = (self.given.clock.now(), self.given.clock.wall());
        let Verdict::Fresh { left } = reuse::decide(&rules.policy, &entry, &wishes.directives, honoured, now)
        else {
            return None;
        };
        if own_credentials(ask, rules) && !reuse::is_shared_by_upstream(&entry) {
            return None;
        }
        let others = validators::CONDITIONS.iter().any(|name| wishes.conditions.contains_key(name));
        if others || !validators::allows_range(&wishes.conditions, &entry, wall) {
            return None;
        }
        let cache = CacheStatus::fresh(left);
        let content = Content::cut(&entry, entry.age(now), cache, ranges::of_part(&entry, &within));
        Some(Answer { content, cache, timing: Timing::default() })
    }

    /// The part of what is asked for whole that is held, if the rest can be asked for.
    fn incomplete(&self, ask: &Ask, rules: &CacheRules, wishes: &Wishes, why: Why) -> Option<Arc<Entry>> {
        let whole = ask.method == Method::GET && !wishes.conditions.contains_key(header::RANGE);
        if why != Why::Partial || !whole || own_credentials(ask, rules) {
            return None;
        }
        let sent = |name: &HeaderName| rules.forwarding.sent(&ask.headers, name);
        self.given.store.find_completable(&ask.question.key, sent)
    }

    /// Fetches a newer answer that nobody waits for.
    fn freshen(&self, ask: &Ask, rules: &CacheRules, entry: &Arc<Entry>, now: Moment) {
        if !entry.claim_refresh(now, now + rules.patience) {
            return;
        }
        let question = ask.question.clone();
        let key = question.key.clone();
        let sharing = Sharing::Shared { held: Some(entry.arrived) };
        let refresh = Fetch {
            client: ask.client,
            route: ask.route,
            method: Method::GET,
            question,
            headers: Arc::new(asking(rules, ask, &Method::GET, &sharing, Some(entry))),
            body: crate::model::Body::Empty,
            class: Class::Refresh,
            deadline: now + rules.patience,
            hurried: false,
            sharing,
            validates: Some(entry.clone()),
            interim: None,
            why: Why::Stale,
        };
        let (below, clock, store) = (self.below.clone(), self.given.clock.clone(), self.given.store.clone());
        let forwarded = refresh.headers.clone();
        self.given.tasks.spawn(async move {
            let fetched = Box::pin(below.call(refresh)).await;
            if let Some(reason) = failure(&fetched)
                && speaks_for_others(&fetched)
                && let Found::Entry(entry) = store.find(&key, |name| vary::combined(&forwarded, name))
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
        let asked = match &fetched {
            Ok(answer) => Some(Some(answer.status().as_u16())),
            Err(fault) => (fault.called != Called::No).then_some(None),
        };
        fallback.answer(now, reason, asked).map_or(fetched, Ok)
    }
}

impl Fallback {
    /// The entry, if it may stand in for what failed for `reason`, and with which status if it was `asked` at all.
    fn answer(&self, now: Moment, reason: Stale, asked: Option<Option<u16>>) -> Option<Answer> {
        let allowed = allowance(reason, self.if_error, self.if_unreachable);
        // The call that failed took its time.
        let over = self.over + now.since(self.looked);
        let cache = match asked {
            None => CacheStatus::over(over, Some(reason)),
            Some(status) => CacheStatus::fallback(self.why, status, over, reason),
        };
        (over < allowed).then(|| Answer::held(self.entry.clone(), cache, now))
    }
}

/// The fields of a call. One that serves everyone asks for the whole, on nobody's conditions but the gate's own.
fn asking(
    rules: &CacheRules,
    ask: &Ask,
    method: &Method,
    sharing: &Sharing,
    held: Option<&Entry>,
) -> HeaderMap {
    let mut headers = rules.forwarding.of_request(method, ask.version, &ask.headers);
    if !method.is_safe() {
        return headers;
    }
    if held.is_some() || matches!(sharing, Sharing::Shared { .. }) {
        serving::without_conditions(&mut headers);
    }
    if let Some(held) = held.filter(|_| *method == Method::GET) {
        match held.part {
            None => drop(validators::ask_whether_changed(&mut headers, held)),
            Some(_) => ranges::ask_for_rest(&mut headers, held),
        }
    }
    headers
}

fn own_credentials(ask: &Ask, rules: &CacheRules) -> bool {
    rules.identifying.iter().any(|name| rules.forwarding.sent(&ask.headers, name).is_some())
}
