//! keep: `Call = Call`. What may be shared is collected whole, and what may be kept is stored: inside the flight, so
//! that an answer is kept even if every client has left. Everything else streams on, unshared.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tower_layer::Layer;

use super::Stage;
use crate::model::body::{Body, BodyError};
use crate::model::cache_status::CacheStatus;
use crate::model::entry::{Entry, Selectors};
use crate::model::exchange::{Answer, Call, Content, Passed, Question, RouteId};
use crate::model::fault::Called;
use crate::model::{Fault, FaultKind, Moment};
use crate::rules::addresses::{self, Addresses};
use crate::rules::reuse::{self, Admission, Exchange, Kept, Policy, Refusal};
use crate::rules::{codings, groups, headers, ranges, serving, targeted, validators, vary};
use crate::state::clock::Clock;
use crate::state::collecting::{Arriving, Collected, collect};
use crate::state::compression::Compression;
use crate::state::store::{Found, Store};

/// The layer.
#[derive(Debug, Clone)]
pub struct KeepLayer {
    /// The routes' policies, by place.
    pub policies: Arc<[Policy]>,
    /// The entries.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The largest body that is collected.
    pub max_entry_bytes: usize,
    /// What all bodies that are being collected may take.
    pub arriving: Arriving,
    /// Which keys an unsafe request concerns.
    pub addresses: Arc<Addresses>,
    /// Where what is stored is compressed.
    pub compression: Compression,
}

/// The stage.
#[derive(Debug)]
pub struct Keep<S> {
    given: KeepLayer,
    inner: S,
}

impl<S> Layer<S> for KeepLayer {
    type Service = Keep<S>;

    fn layer(&self, inner: S) -> Keep<S> {
        Keep { given: self.clone(), inner }
    }
}

/// What an answer is judged by: what was asked, and when.
struct Asked {
    route: RouteId,
    method: Method,
    question: Arc<Question>,
    sent: Arc<HeaderMap>,
    began: Moment,
}

impl<S: Stage<Call>> Stage<Call> for Keep<S> {
    async fn call(&self, call: Call) -> Result<Answer, Fault> {
        let mut answer = self.kept(call).await?;
        if let Content::Passed(passed) = &mut answer.content {
            passed.headers.remove(targeted::OWN);
        }
        Ok(answer)
    }
}

impl<S: Stage<Call>> Keep<S> {
    /// A call's answer, and what is kept of it.
    async fn kept(&self, call: Call) -> Result<Answer, Fault> {
        let writes = addresses::is_unsafe(&call.method);
        let Some(policy) = self.given.policies.get(call.route.place()).filter(|_| call.keep || writes) else {
            return self.inner.call(call).await;
        };
        let mut asked = Asked {
            route: call.route,
            method: call.method.clone(),
            question: call.question.clone(),
            sent: call.headers.clone(),
            began: self.given.clock.now(),
        };
        let held = call.validates.clone();
        // A part is asked about by what it lacks. Should that not come, the whole is asked for.
        let whole = held.as_ref().filter(|held| held.part.is_some()).and_then(|_| call.again());
        let answer = self.inner.call(call).await?;
        match (answer.status(), held) {
            (status, _) if writes => {
                // "A cache MUST invalidate the target URI … when it receives a non-error status code in response to an
                // unsafe request method", non-error being 2xx and 3xx (RFC 9111 §4.4).
                if status.is_success() || status.is_redirection() {
                    self.invalidate(&asked, &answer);
                    asked.began = self.given.clock.now();
                }
                self.keep(policy, &asked, answer).await
            }
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(held))
                if let Some(whole) = whole =>
            {
                self.complete(policy, &mut asked, &held, answer, whole).await
            }
            (StatusCode::NOT_MODIFIED, Some(held)) if held.part.is_none() => {
                Ok(self.freshen(policy, &asked, &held, answer))
            }
            (_, Some(held)) if asked.method == Method::HEAD => {
                Ok(self.learn_from_head(policy, &asked, &held, answer))
            }
            _ => self.keep(policy, &asked, answer).await,
        }
    }
}

impl<S: Stage<Call>> Keep<S> {
    /// `held` and the part that answered for the rest, as one; else what the call for the `whole` brings.
    async fn complete(
        &self,
        policy: &Policy,
        asked: &mut Asked,
        held: &Entry,
        answer: Answer,
        mut whole: Call,
    ) -> Result<Answer, Fault> {
        let made = match self.keep(policy, asked, answer).await? {
            Answer { content: Content::Held(part, age), cache, timing } => ranges::combined(held, &part)
                .filter(|made| made.part.is_none())
                .map(|made| Answer { content: Content::Held(Arc::new(made), age), cache, timing }),
            _ => None,
        };
        if let Some(answer) = made {
            return Ok(answer);
        }
        serving::without_conditions(Arc::make_mut(&mut whole.headers));
        asked.sent = whole.headers.clone();
        let answer = self.inner.call(whole).await?;
        self.keep(policy, asked, answer).await
    }
}

impl<S> Keep<S> {
    /// Collects what may be shared, and stores what may be kept.
    async fn keep(&self, policy: &Policy, asked: &Asked, mut answer: Answer) -> Result<Answer, Fault> {
        let delay = answer.timing.upstream.unwrap_or_default();
        let Content::Passed(passed) = &mut answer.content else { return Ok(answer) };
        let admission = reuse::admit(policy, self.exchange(asked, passed.status, &passed.headers, delay));
        let mut shared = Selectors::default();
        let kept = match admission {
            Admission::Keep(kept) => Some(kept),
            Admission::Share(selectors) => {
                shared = selectors;
                None
            }
            Admission::Refuse(_) => return Ok(answer),
        };
        let kept = kept.filter(|_| !(passed.status.is_server_error() && self.holds_better(policy, asked)));
        let limits = (self.given.max_entry_bytes, &self.given.arriving);
        let bytes = match collect(std::mem::take(&mut passed.body), limits.0, limits.1).await {
            Ok(Collected::Whole(bytes)) => bytes,
            Ok(Collected::Larger(body)) => {
                passed.body = body;
                return Ok(answer);
            }
            Err(error) => return Err(broken(error)),
        };
        let is_kept = kept.is_some();
        let mut kept = kept.unwrap_or_else(|| Kept { selectors: shared, ..Kept::default() });
        let without = std::mem::take(&mut kept.without);
        let initial_age = kept.initial_age;
        if !without.is_empty() {
            // The first requester gets every field; nobody else gets these.
            let mut fields = passed.headers.clone();
            headers::strip_limits(&mut fields);
            for name in &without {
                fields.remove(name);
            }
            let entry =
                self.entry(policy, asked, (passed.status, fields, bytes.clone()), passed.arrived, kept);
            note(&mut answer.cache, self.store(asked, &Arc::new(entry)));
            if let Content::Passed(passed) = &mut answer.content {
                passed.body = Body::Full(bytes);
            }
            return Ok(answer);
        }
        let mut fields = std::mem::take(&mut passed.headers);
        if is_kept {
            headers::strip_limits(&mut fields);
        }
        let entry = self.entry(policy, asked, (passed.status, fields, bytes), passed.arrived, kept);
        let entry = Arc::new(entry);
        let stored = is_kept && self.store(asked, &entry);
        note(&mut answer.cache, stored);
        answer.content = Content::Held(entry, initial_age);
        Ok(answer)
    }

    /// "A 304 (Not Modified) response status code indicates that the stored response can be updated and reused" (RFC
    /// 9111 §4.3.3).
    fn freshen(&self, policy: &Policy, asked: &Asked, held: &Arc<Entry>, mut answer: Answer) -> Answer {
        let delay = answer.timing.upstream.unwrap_or_default();
        let Content::Passed(said) = &answer.content else { return answer };
        let (entry, stored) = match self.updated(policy, asked, held, said, delay) {
            Some(new) => {
                // The same content, so its codings are the same too, under other fields.
                if let Some(held) = held.coded.get()
                    && let Some(coded) = codings::coded(&new, codings::bodies(held))
                {
                    let _ = new.coded.set(Box::new(coded));
                }
                let new = Arc::new(new);
                let stored = self.store(asked, &new);
                (new, stored)
            }
            None => (held.clone(), false),
        };
        note(&mut answer.cache, stored);
        let age = entry.age(self.given.clock.now());
        answer.content = Content::Held(entry, age);
        answer
    }

    /// The cache "SHOULD update the stored response" by a HEAD's answer whose validators and length match it (RFC 9111
    /// §4.3.5). Where they do not, what is held is not what is there.
    fn learn_from_head(&self, policy: &Policy, asked: &Asked, held: &Arc<Entry>, answer: Answer) -> Answer {
        match &answer.content {
            Content::Passed(said) if said.status != held.status => answer,
            Content::Passed(said) if !validators::is_of_same(held, &said.headers) => {
                self.given.store.remove(&asked.question.key, self.given.clock.now());
                answer
            }
            _ => self.freshen(policy, asked, held, answer),
        }
    }

    /// `held` with the fields that were `said` of it; `None` where they are about another response, or say that it may
    /// not be kept any longer.
    fn updated(
        &self,
        policy: &Policy,
        asked: &Asked,
        held: &Entry,
        said: &Passed,
        delay: Duration,
    ) -> Option<Entry> {
        let mut fields = validators::freshened(held, &said.headers)?;
        headers::strip_limits(&mut fields);
        if !said.headers.contains_key(header::DATE) {
            fields.remove(header::DATE);
        }
        let exchange = Exchange { method: &Method::GET, ..self.exchange(asked, held.status, &fields, delay) };
        match reuse::admit(policy, exchange) {
            Admission::Keep(kept) => {
                for name in &kept.without {
                    fields.remove(name);
                }
                let parts = (held.status, fields, held.body.clone());
                Some(self.entry(policy, asked, parts, said.arrived, kept))
            }
            // This requester's credentials say nothing of what was stored without them.
            Admission::Refuse(Refusal::Credentials) => None,
            Admission::Share(_) | Admission::Refuse(_) => {
                self.given.store.remove(&asked.question.key, self.given.clock.now());
                None
            }
        }
    }

    /// Whether an answer is held that an error must not replace.
    fn holds_better(&self, policy: &Policy, asked: &Asked) -> bool {
        let found = self.given.store.find(&asked.question.key, |name| vary::combined(&asked.sent, name));
        matches!(found, Found::Entry(held) if reuse::outlives_an_error(policy, &held, self.given.clock.now()))
    }

    fn exchange<'a>(
        &self,
        asked: &'a Asked,
        status: StatusCode,
        headers: &'a HeaderMap,
        delay: Duration,
    ) -> Exchange<'a> {
        let location = headers.get(header::CONTENT_LOCATION).and_then(|value| value.to_str().ok());
        let is_target =
            |location| self.given.addresses.is_same(asked.route, asked.question.target(), location);
        Exchange {
            method: &asked.method,
            sent: &asked.sent,
            status,
            headers,
            is_of_target: asked.method == Method::POST && location.is_some_and(is_target),
            delay,
            wall: self.given.clock.wall(),
        }
    }

    /// An entry of these parts. What belongs to one delivery is made anew for each; the body's length is known by the
    /// body.
    fn entry(
        &self,
        policy: &Policy,
        asked: &Asked,
        (status, mut fields, body): (StatusCode, HeaderMap, Bytes),
        arrived: Moment,
        kept: Kept,
    ) -> Entry {
        for name in [header::AGE, header::CONTENT_LENGTH, targeted::OWN] {
            fields.remove(name);
        }
        // Under the operator's `ttl` every client of the account shares the answer; a cookie is about one.
        if policy.ttl.is_some() {
            fields.remove(header::SET_COOKIE);
        }
        // "A recipient with a clock that receives a response message without a Date header field MUST record the time it
        // was received and append a corresponding Date" (RFC 9110 §6.6.1).
        if !fields.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(self.given.clock.wall()))
        {
            fields.insert(header::DATE, date);
        }
        let asked_range = asked.sent.get(header::RANGE).filter(|_| status == StatusCode::PARTIAL_CONTENT);
        let part = ranges::part(asked_range, &fields, body.len());
        let addresses = &self.given.addresses;
        let mut groups = groups::of(&fields, addresses.origin(asked.route));
        groups.extend(addresses.groups(asked.route, asked.question.target()));
        if status.is_success() {
            groups.extend(addresses.item_groups(asked.route, &body));
        }
        let (fields, selectors) = self.given.store.packed(&fields, kept.selectors);
        Entry::new((status, fields, body), arrived, kept.initial_age, kept.facts, selectors)
            .asked_at(asked.began)
            .with_part(part)
            .with_groups(groups)
    }

    /// Stores an entry, and where it is a part, what it makes together with the others; whether it was stored.
    fn store(&self, asked: &Asked, entry: &Arc<Entry>) -> bool {
        let key = &asked.question.key;
        let parts = entry.part.as_ref().map_or(Vec::new(), |_| self.given.store.parts(key));
        let same = parts.iter().filter(|held| held.selectors == entry.selectors);
        let joined = same.filter_map(|held| ranges::combined(held, entry));
        let made: Vec<_> = joined.filter(|made| made.body.len() <= self.given.max_entry_bytes).collect();
        if made.is_empty() {
            let stored = self.given.store.insert(key, entry, &asked.sent, asked.began);
            if let Some(policy) = self.given.policies.get(asked.route.place()).filter(|_| stored) {
                self.given.compression.begin(&self.given.store, key, entry, &policy.compress);
            }
            return stored;
        }
        // A larger one answers whatever the part would.
        let mut stored = true;
        for larger in made {
            stored &= self.given.store.insert(key, &Arc::new(larger), &asked.sent, asked.began);
        }
        stored
    }

    fn invalidate(&self, asked: &Asked, answer: &Answer) {
        let Content::Passed(said) = &answer.content else { return };
        let (given, now) = (&self.given, self.given.clock.now());
        for key in given.addresses.invalidated(asked.route, asked.question.target(), &said.headers) {
            given.store.remove(&key, now);
        }
        for group in groups::invalidated(&said.headers, given.addresses.origin(asked.route)) {
            given.store.remove_group(group, now);
        }
    }
}

fn note(cache: &mut CacheStatus, kept: bool) {
    if let CacheStatus::Forwarded { stored, .. } = cache {
        *stored = kept;
    }
}

fn broken(error: BodyError) -> Fault {
    let kind = match error {
        BodyError::TimedOut => FaultKind::UpstreamTimeout,
        BodyError::Truncated | BodyError::TooLarge => FaultKind::UpstreamBroken,
    };
    Fault::new(kind).called(Called::Yes)
}
