//! pages: `Ask → Block`, or answered from blocks in memory. Below it only aligned blocks of collections exist, or whole
//! asks; it alone asks for newer ones.

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::{Either, ready};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use tower_layer::Layer;

use super::Stage;
use crate::model::cache_status::{CacheStatus, Stale, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, Block, Content, Demand, Passed, Question, Timing, Window};
use crate::model::{Body, Fault, FaultKind, Moment, Short};
use crate::rules::beliefs::PastEnd;
use crate::rules::collection::{self, Asked, Course, Cut, Fallback, Judged, Step, View, Wish};
use crate::rules::reuse::Verdict;
use crate::rules::serving::{self, Wishes};
use crate::rules::stale::{self, FAILURE_SPEAKS_FOR, seconds, seconds_over};
use crate::rules::validators::{self, Conditions};
use crate::rules::walks::{self, Generation, Owner, Standing, Walk};
use crate::state::clock::Clock;
use crate::state::collections::{Collection, Known, SHUNNED_FOR};
use crate::state::paged::{Forwarded, PagedRoute};
use crate::state::store::Store;
use crate::state::tasks::Tasks;

/// The codings in which a block is asked for.
const CODINGS: &str = "identity, gzip";

/// The layer.
#[derive(Debug, Clone)]
pub struct PagesLayer {
    /// The routes, by place; `None`: not paged.
    pub routes: Arc<[Option<Arc<PagedRoute>>]>,
    /// Which clients' refresh directives count, by place.
    pub may_refresh: Arc<[bool]>,
    /// The collections.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// For refreshes that nobody waits for.
    pub tasks: Tasks,
}

/// The stage.
#[derive(Debug)]
pub struct Pages<S> {
    given: PagesLayer,
    /// Shared with refreshes that go on after their client was answered.
    below: Arc<S>,
}

impl<S> Layer<S> for PagesLayer {
    type Service = Pages<S>;

    fn layer(&self, below: S) -> Pages<S> {
        Pages { given: self.clone(), below: Arc::new(below) }
    }
}

/// A request on its way through this stage.
struct Going {
    wishes: Wishes,
    honoured: bool,
    /// The window, cut to what the upstream gives at once.
    window: Window,
    span: Range<u64>,
    course: Option<Course>,
    collection: Option<Arc<Collection>>,
    /// How many blocks were asked for.
    asked: u64,
    /// Whether something of the window was known before.
    partly: bool,
    /// How the last of them came.
    fetched: Option<CacheStatus>,
    timing: Timing,
}

/// What happens next to a request.
enum Next {
    Answer(Answer),
    Forward(Forwarded),
    Ask { block: u64, demand: Demand, fallback: Option<Box<Fallback>> },
    Fail(Fault),
}

/// What a block's answer leads to.
enum Outcome {
    /// More is known than before.
    Known,
    /// An answer for everybody.
    Answer(Answer),
    /// Windows are not cut from it: only who asked for this very block has his answer.
    Useless(Forwarded, Answer),
}

impl<S: Stage<Block> + 'static> Stage<Ask> for Pages<S> {
    // Not an `async fn`: what is answered from memory needs no future of its own.
    fn call(&self, ask: Ask) -> impl Future<Output = Result<Answer, Fault>> + Send {
        let Some((route, mut going)) = self.paged(&ask) else {
            return Either::Left(self.below.call(ask.into()));
        };
        Either::Right(match self.next(route, &ask, &mut going, ask.at) {
            Next::Answer(answer) => Either::Left(ready(Ok(answer))),
            Next::Fail(fault) => Either::Left(ready(Err(fault))),
            // Boxed, so that a hit does not carry its size.
            next => Either::Right(Box::pin(self.go_on(route, ask, going, next))),
        })
    }
}

impl<S: Stage<Block> + 'static> Pages<S> {
    /// The route, and what is to be found out, where windows may be cut for `ask`.
    fn paged(&self, ask: &Ask) -> Option<(&Arc<PagedRoute>, Going)> {
        let route = self.given.routes.get(ask.route.place())?.as_ref()?;
        let (window, _) = (ask.question.window?, ask.question.collection.as_ref()?);
        let readable = matches!(ask.method, Method::GET | Method::HEAD) && ask.body.is_empty();
        // Who is somebody to the upstream has a list of their own.
        let own = [header::AUTHORIZATION, header::COOKIE];
        if !readable || own.iter().any(|name| route.forwarding.sent(&ask.headers, name).is_some()) {
            return None;
        }
        let wishes = Wishes::from_headers(&ask.headers);
        let may_refresh = self.given.may_refresh.get(ask.client.place()).is_some_and(|may| *may);
        let honoured = may_refresh && route.paging.edges.honour_request_directives;
        if honoured && wishes.directives.no_store {
            return None;
        }
        let going = Going {
            wishes,
            honoured,
            window,
            span: 0..0,
            course: None,
            collection: None,
            asked: 0,
            partly: false,
            fetched: None,
            timing: Timing::default(),
        };
        Some((route, going))
    }

    /// What happens next, as far as is known at `now`.
    fn next(&self, route: &Arc<PagedRoute>, ask: &Ask, going: &mut Going, now: Moment) -> Next {
        let paging = &route.paging;
        let Some(window) = ask.question.window else { return Next::Forward(Forwarded::Odd) };
        let (size, given) = {
            let beliefs = route.beliefs();
            let size = beliefs.size(now).filter(|_| !beliefs.may_refuse(window.size, now));
            (size, beliefs.cut(window.size, now))
        };
        going.window = Window { size: given, ..window };
        let Some(span) = paging.counting.span(going.window) else { return Next::Forward(Forwarded::Odd) };
        let Some(size) = size else { return Next::Forward(Forwarded::Refused) };
        if span.end - span.start > paging.max_blocks.saturating_mul(size) {
            return Next::Forward(Forwarded::TooWide);
        }
        going.span = span;
        let Some(key) = &ask.question.collection else { return Next::Forward(Forwarded::Odd) };
        if going.collection.is_none() {
            going.collection = self.given.store.collection(key, |name| match name {
                &header::ACCEPT_ENCODING => Some(CODINGS.as_bytes().into()),
                _ => route.forwarding.sent(&ask.headers, name),
            });
        }
        let wish = Wish {
            span: going.span.clone(),
            directives: &going.wishes.directives,
            honoured: going.honoured && going.asked == 0,
            now,
            owner: Owner { client: ask.client, route: ask.route, collection: key },
            peer: ask.peer.ip(),
            token: ask.walk.as_ref().map(walks::token_in),
        };
        let Some(collection) = going.collection.clone() else {
            if wish.token.is_some() {
                route.meters.walk_ended();
                return Next::Fail(walk_ended());
            }
            return self.ask_for(ask, going, going.span.start / size, None, None);
        };
        let mut known = collection.known();
        if known.book.block_size() != size {
            known.book.resize(size, now);
            known.changed();
        }
        if known.shunned_until > now {
            return Next::Forward(Forwarded::Unsliceable);
        }
        known.book.forget_past(now, paging.walk_total);
        if going.course.is_none() {
            going.course = collection::course(&mut known.guesses, paging, &wish);
        }
        let Some(course) = &mut going.course else {
            route.meters.walk_ended();
            return Next::Fail(walk_ended());
        };
        match collection::next_step(&mut known.book, paging, &wish, course) {
            Step::Ended => {
                route.meters.walk_ended();
                Next::Fail(walk_ended())
            }
            Step::Ask { block, newer, partly, fallback } => {
                going.partly |= partly;
                if let Some(fallback) = &fallback
                    && let Some(reason) = fallback.entry.failing(now)
                    && let Some(over) = lasting(fallback, reason, now)
                {
                    let Fallback { view, generation, .. } = fallback.as_ref();
                    let status = CacheStatus::Hit { ttl: seconds_over(over), stale: Some(reason) };
                    return cut(route, ask, going, &mut known, (view.clone(), *generation), status, now);
                }
                drop(known);
                self.ask_for(ask, going, block, newer, fallback)
            }
            Step::Behind { generation, view } => {
                self.behind(route, ask, going, &mut known, (view, generation), now)
            }
            Step::Answer { view, generation, judged } => {
                let status = self.status(route, ask, &known, judged.as_ref(), generation, now);
                cut(route, ask, going, &mut known, (view, generation), status, now)
            }
        }
    }

    /// The list ends before the window: what the upstream would say of that.
    fn behind(
        &self,
        route: &Arc<PagedRoute>,
        ask: &Ask,
        going: &mut Going,
        known: &mut Known,
        (view, generation): (View, Generation),
        now: Moment,
    ) -> Next {
        let size = going.window.size;
        let habit = route.beliefs().past_end();
        let last = match habit {
            Some(PastEnd::Empty) => {
                let status = CacheStatus::Sliced { ttl: 0 };
                return cut(route, ask, going, known, (view, generation), status, now);
            }
            Some(PastEnd::Again) => known.book.last_page(generation, size).filter(|last| *last != going.span.start),
            Some(PastEnd::Refused) | None => None,
        };
        // Once more the last page; it is a window like others.
        let Some(last) = last else { return Next::Forward(Forwarded::PastEnd) };
        let window = route.paging.counting.window(last, size);
        let span = last..last.saturating_add(size);
        match known.book.look(&span, Some(generation), route.paging.shape.id.as_ref()) {
            collection::Sight::Seen(generation, collection::Look::Whole(view)) => {
                (going.window, going.span) = (window, span);
                let status = CacheStatus::Sliced { ttl: 0 };
                cut(route, ask, going, known, (view, generation), status, now)
            }
            _ => Next::Forward(Forwarded::PastEnd),
        }
    }

    fn ask_for(
        &self,
        _: &Ask,
        going: &Going,
        block: u64,
        newer: Option<(Moment, Option<Arc<Entry>>)>,
        fallback: Option<Box<Fallback>>,
    ) -> Next {
        // "only-if-cached … SHOULD respond with either a stored response or a 504" (RFC 9111 §5.2.1.7).
        if going.wishes.directives.only_if_cached {
            return Next::Fail(FaultKind::OnlyIfCached.into());
        }
        let demand = newer.map_or(Demand::Fresh, |(than, validates)| Demand::Newer { than, validates });
        Next::Ask { block, demand, fallback }
    }

    /// How an answer from memory takes part, by the worst of its blocks; a refresh is begun where one is due.
    fn status(
        &self,
        route: &Arc<PagedRoute>,
        ask: &Ask,
        known: &Known,
        judged: Option<&Judged>,
        generation: Generation,
        now: Moment,
    ) -> CacheStatus {
        let Some(judged) = judged else { return CacheStatus::Sliced { ttl: 0 } };
        match judged.verdict {
            Verdict::Fresh { left } => CacheStatus::Sliced { ttl: seconds(left) },
            Verdict::Accepted { over } | Verdict::Fetch { over, .. } => {
                CacheStatus::Sliced { ttl: seconds_over(over) }
            }
            Verdict::FreshenMeanwhile { over } => {
                let reason = judged.entry.failing(now).unwrap_or(Stale::Revalidating);
                if let Some(block) = known.book.block_at(generation.serial, judged.place)
                    && judged.entry.claim_refresh(now, now + route.patience)
                {
                    self.freshen(route, ask, (block, known.book.block_size()), judged, now);
                }
                CacheStatus::Hit { ttl: seconds_over(over), stale: Some(reason) }
            }
        }
    }

    /// Asks for a newer block that nobody waits for.
    fn freshen(
        &self,
        route: &Arc<PagedRoute>,
        ask: &Ask,
        (block, size): (u64, u64),
        judged: &Judged,
        now: Moment,
    ) {
        let Some(mut asking) = block_ask(route, ask, (block, size)) else { return };
        (asking.deadline, asking.hurried, asking.interim) = (now + route.patience, false, None);
        let same = judged.held.as_ref().filter(|held| held.asked.position == block.saturating_mul(size));
        let validates = same.map(|held| held.entry.clone());
        let demand = Demand::Newer { than: judged.entry.arrived, validates };
        let (entry, below, given) = (judged.entry.clone(), self.below.clone(), self.given.clone());
        let (route, key) = (route.clone(), ask.question.collection.clone());
        let asked = Asked { position: block.saturating_mul(size), size };
        self.given.tasks.spawn(async move {
            let question = asking.question.clone();
            let fetched = Box::pin(below.call(Block { ask: asking, demand })).await;
            if let Some(reason) = stale::failure(&fetched)
                && stale::speaks_for_others(&fetched)
            {
                entry.refresh_failed(reason, given.clock.now() + FAILURE_SPEAKS_FOR);
                return;
            }
            if let (Ok(Answer { content: Content::Held(entry, _), .. }), Some(key)) = (&fetched, &key) {
                take(&given, &route, key, asked, entry);
                given.store.forget(&question.key, entry);
            }
        });
    }

    /// Asks for blocks until the window is whole, or it is clear that it will not be.
    async fn go_on(
        &self,
        route: &Arc<PagedRoute>,
        ask: Ask,
        mut going: Going,
        mut next: Next,
    ) -> Result<Answer, Fault> {
        loop {
            let (block, demand, fallback) = match next {
                Next::Answer(answer) => return Ok(answer),
                Next::Fail(fault) => return Err(fault),
                Next::Forward(reason) => return self.as_asked(route, ask, going, reason).await,
                Next::Ask { .. } if going.asked >= route.paging.max_blocks => {
                    return self.as_asked(route, ask, going, Forwarded::TooWide).await;
                }
                Next::Ask { block, demand, fallback } => (block, demand, fallback),
            };
            let size = going.collection.as_ref().map(|held| held.known().book.block_size());
            let size = size.or_else(|| route.beliefs().size(self.given.clock.now()));
            let Some(size) = size else { return self.as_asked(route, ask, going, Forwarded::Refused).await };
            let Some(asking) = block_ask(route, &ask, (block, size)) else {
                return self.as_asked(route, ask, going, Forwarded::Odd).await;
            };
            let question = asking.question.clone();
            going.asked += 1;
            let fetched = self.below.call(Block { ask: asking, demand }).await;
            let now = self.given.clock.now();
            if let Some(reason) = stale::failure(&fetched) {
                if let Some(fallback) = &fallback {
                    if stale::speaks_for_others(&fetched) {
                        fallback.entry.refresh_failed(reason, now + FAILURE_SPEAKS_FOR);
                    }
                    if let (Some(over), Some(held)) = (lasting(fallback, reason, now), going.collection.clone()) {
                        let status = CacheStatus::Hit { ttl: seconds_over(over), stale: Some(reason) };
                        going.fetched = None;
                        let seen = (fallback.view.clone(), fallback.generation);
                        next = cut(route, &ask, &mut going, &mut held.known(), seen, status, now);
                        continue;
                    }
                }
                return fetched;
            }
            let answer = fetched?;
            going.timing.wait += answer.timing.wait;
            going.timing.upstream = match (going.timing.upstream, answer.timing.upstream) {
                (Some(before), Some(more)) => Some(before + more),
                (before, more) => before.or(more),
            };
            let asked = Asked { position: block.saturating_mul(size), size };
            let own = question.key == ask.question.key;
            next = match self.outcome(route, &mut going, (&question, &ask), asked, answer) {
                Outcome::Known => self.next(route, &ask, &mut going, now),
                Outcome::Useless(reason, _) if !own => Next::Forward(reason),
                Outcome::Answer(answer) | Outcome::Useless(_, answer) => return Ok(answer),
            };
        }
    }

    /// What a block's answer leads to.
    fn outcome(
        &self,
        route: &PagedRoute,
        going: &mut Going,
        (question, ask): (&Question, &Ask),
        asked: Asked,
        answer: Answer,
    ) -> Outcome {
        let Some(key) = &ask.question.collection else { return Outcome::Useless(Forwarded::Odd, answer) };
        match &answer.content {
            Content::Held(entry, _) if entry.status == StatusCode::OK => {
                let taken = take(&self.given, route, key, asked, entry);
                self.given.store.forget(&question.key, entry);
                let Some(held) = taken else { return Outcome::Useless(Forwarded::Unsliceable, answer) };
                (going.collection, going.fetched) = (Some(held), Some(answer.cache));
                Outcome::Known
            }
            // Past the end some answer with an error; before the end it is the size that they refuse.
            Content::Held(entry, _) if is_refusal(entry.status) => {
                let answered = asked.position > 0 && route.beliefs().has_answered();
                match &going.collection {
                    Some(collection) if answered => {
                        stops(route, collection, asked, entry, self.given.clock.now());
                        Outcome::Known
                    }
                    _ => Outcome::Useless(Forwarded::Refused, answer),
                }
            }
            Content::Passed(passed) if is_refusal(passed.status) => Outcome::Useless(Forwarded::Refused, answer),
            // What speaks of credentials speaks of every window.
            content if !is_success(content) => Outcome::Answer(answer),
            // What is not kept cannot be cut.
            _ => {
                if let Some(collection) = &going.collection {
                    collection.known().shunned_until = self.given.clock.now() + SHUNNED_FOR;
                }
                Outcome::Useless(Forwarded::Unsliceable, answer)
            }
        }
    }

    /// Forwards the request as it was asked, and learns from the answer.
    async fn as_asked(
        &self,
        route: &Arc<PagedRoute>,
        mut ask: Ask,
        going: Going,
        reason: Forwarded,
    ) -> Result<Answer, Fault> {
        route.meters.forwarded(reason);
        let window = ask.question.window;
        if route.forwarding.sent(&ask.headers, &header::ACCEPT_ENCODING).is_none() {
            ask.headers.remove(header::ACCEPT_ENCODING);
        }
        let mut answer = self.below.call(ask.into()).await?;
        answer.timing.wait += going.timing.wait;
        if let (Content::Held(entry, _), Some(window)) = (&answer.content, window) {
            let now = self.given.clock.now();
            route.learn(entry, window.size, reason, (going.collection.as_deref(), &going.span), now);
        }
        Ok(answer)
    }
}

/// Takes a block into its collection, which is returned; `None`: it cannot be cut, or is of no use there.
fn take(
    given: &PagesLayer,
    route: &PagedRoute,
    key: &crate::model::Key,
    asked: Asked,
    entry: &Arc<Entry>,
) -> Option<Arc<Collection>> {
    let (store, now) = (&given.store, given.clock.now());
    // What was erased meanwhile answers those who asked before, and is kept for nobody else.
    let erased = store.is_erased(key, entry, entry.asked);
    let collection = match erased {
        true => Arc::new(Collection::new(entry, asked.size)),
        false => store.collection_of(key, entry, asked.size),
    };
    let held = {
        let known = collection.known();
        let before = known.book.block_of(asked).cloned();
        drop(known);
        match before {
            // Somebody who waited for the same call was faster.
            Some(before) if before.came_as(entry) => return Some(collection),
            Some(before) if before.entry.body.as_ptr() == entry.body.as_ptr() => {
                Ok(before.again(entry.clone(), &route.paging.shape, &route.paging.headers))
            }
            _ => route.read(entry, asked),
        }
    };
    let mut known = collection.known();
    let used = match held {
        Ok(held) => {
            if known.book.block_size() != asked.size {
                known.book.resize(asked.size, now);
            }
            let id = route.paging.shape.id.as_ref();
            let taken = known.book.take(&Arc::new(held), &mut route.beliefs(), id, now);
            known.changed();
            route.note(&taken);
            taken.used
        }
        Err(reason) => {
            route.meters.unsliceable(reason.as_str());
            known.shunned_until = now + SHUNNED_FOR;
            false
        }
    };
    drop(known);
    if !erased {
        store.account(key, &collection);
    }
    used.then_some(collection)
}

/// Nothing lies at what was `asked`, as the error in `shown` says.
fn stops(route: &PagedRoute, collection: &Collection, asked: Asked, shown: &Arc<Entry>, now: Moment) {
    let mut known = collection.known();
    let taken = known.book.stops(asked, shown, PastEnd::Refused, &mut route.beliefs(), now);
    known.changed();
    route.note(&taken);
}

/// Whether an answer refuses what was asked, and not who asks or how often.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407 | 408 | 429)
}

fn is_success(content: &Content) -> bool {
    match content {
        Content::Held(entry, _) => entry.status.is_success(),
        Content::Passed(passed) => passed.status.is_success(),
    }
}

/// How long over its lifetime a fallback is, if it may serve for `reason`.
fn lasting(fallback: &Fallback, reason: Stale, now: Moment) -> Option<std::time::Duration> {
    let over = fallback.over + now.since(fallback.looked);
    (over < stale::allowed(reason, fallback.if_error, fallback.if_unreachable)).then_some(over)
}

/// The ask for a block of `size` items.
fn block_ask(route: &PagedRoute, ask: &Ask, (block, size): (u64, u64)) -> Option<Ask> {
    let window = route.paging.counting.window(block.checked_mul(size)?, size);
    let question = route.paging.reading.with_window(&ask.question, window)?;
    let mut headers = ask.headers.clone();
    serving::without_conditions(&mut headers);
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
    Some(Ask {
        client: ask.client,
        route: ask.route,
        method: Method::GET,
        question: Arc::new(question),
        headers,
        body: Body::Empty,
        at: ask.at,
        deadline: ask.deadline,
        hurried: ask.hurried,
        peer: ask.peer,
        interim: ask.interim.clone(),
        walk: None,
    })
}

/// Cuts the window out of what was `seen` of it and answers with it.
fn cut(
    route: &PagedRoute,
    ask: &Ask,
    going: &Going,
    known: &mut Known,
    (view, generation): (View, Generation),
    status: CacheStatus,
    now: Moment,
) -> Next {
    let Some(key) = &ask.question.collection else { return Next::Forward(Forwarded::Odd) };
    let course = going.course.unwrap_or(Course { walk: None, standing: Standing::Pinned });
    let walk = course.walk.unwrap_or_else(|| Walk::begun(generation, now));
    let owner = Owner { client: ask.client, route: ask.route, collection: key };
    let token = walk.token(&owner);
    let text = std::str::from_utf8(token.as_bytes()).ok();
    let (from, size) = (going.span.start, going.window.size);
    let cut = match known.find_cut(generation, from, size) {
        Some(cut) => cut.clone(),
        None => {
            let Some(cut) = route.paging.cut(view, going.window, &ask.question.target, text) else {
                return Next::Forward(Forwarded::Unsliceable);
            };
            let cut = Arc::new(cut);
            if !route.paging.names_addresses() {
                known.keep_cut(generation, from, size, &cut);
            }
            cut
        }
    };
    let wish = Wish {
        span: going.span.clone(),
        directives: &going.wishes.directives,
        honoured: going.honoured,
        now,
        owner,
        peer: ask.peer.ip(),
        token: None,
    };
    collection::answered(&mut known.guesses, &route.paging, &wish, walk, cut.place.more);
    route.meters.walk(course.standing);
    let status = match going.fetched {
        Some(CacheStatus::Forwarded { why, status, stored, collapsed }) => {
            let why = if going.partly { Why::Partial } else { why };
            CacheStatus::Forwarded { why, status, stored, collapsed }
        }
        _ => status,
    };
    let mut named = Short::<80>::new();
    if let Some(text) = text {
        named.push(text);
        named.push(";state=");
        named.push(course.standing.as_str());
    }
    let link = cut.links.then(|| route.paging.link(&cut.place, &ask.question.target, text)).flatten();
    Next::Answer(answer(&cut, going, status, (named, link), now))
}

/// The answer with `cut`, or what its conditions make of it.
fn answer(
    cut: &Cut,
    going: &Going,
    status: CacheStatus,
    (walk, link): (Short<80>, Option<HeaderValue>),
    now: Moment,
) -> Answer {
    let wishes = &going.wishes.conditions;
    let (code, mut headers, body) = match judge(wishes, &cut.entry) {
        Conditions::NotModified => {
            (StatusCode::NOT_MODIFIED, validators::of_not_modified(&cut.entry), Body::Empty)
        }
        Conditions::Failed => {
            (StatusCode::PRECONDITION_FAILED, validators::of_not_modified(&cut.entry), Body::Empty)
        }
        Conditions::Hold => (cut.entry.status, cut.entry.fields.to_map(9), cut.body()),
    };
    let age = cut.entry.age(now);
    if matches!(status, CacheStatus::Hit { .. } | CacheStatus::Sliced { .. }) || age.as_secs() >= 1 {
        headers.insert(header::AGE, age.as_secs().into());
    }
    headers.insert(walks::FIELD, walk.into_value("?"));
    if let Some(link) = link {
        headers.insert(header::LINK, link);
    }
    let passed = Passed { status: code, headers, body, arrived: cut.entry.arrived };
    Answer { content: Content::Passed(passed), cache: status, timing: going.timing }
}

/// What a request's conditions come to. A window's fields have no date to be compared with, so no clock is needed.
fn judge(wishes: &http::HeaderMap, entry: &Entry) -> Conditions {
    if wishes.is_empty() {
        return Conditions::Hold;
    }
    validators::judge(wishes, entry, std::time::SystemTime::UNIX_EPOCH)
}

fn walk_ended() -> Fault {
    Fault::new(FaultKind::WalkEnded)
        .detail("the list is another by now, or the walk lasted too long: start again at page 1, without the token")
}
