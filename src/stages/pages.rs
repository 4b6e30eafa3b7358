//! pages: `Ask → Block`, or answered from blocks in memory. Below it only aligned blocks of collections exist, or whole
//! asks; it alone asks for newer ones.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, ready};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use tower_layer::Layer;

use super::Stage;
use crate::model::cache_status::{CacheStatus, Stale, Why};
use crate::model::exchange::{Answer, Ask, Block, Content, Demand, Question, Timing, Window};
use crate::model::fault::Called;
use crate::model::fields::WALK;
use crate::model::{Body, Fault, Moment};
use crate::rules::beliefs::PastEnd;
use crate::rules::collection::{Asked, Fallback, View};
use crate::rules::failing::{FAILURE_SPEAKS_FOR, allowance, failure, speaks_for_others};
use crate::rules::serving::{self, Wishes};
use crate::rules::walks::{Generation, Standing};
use crate::state::clock::Clock;
use crate::state::collections::{Known, SHUNNED_FOR};
use crate::state::paged::{Forwarded, PagedRoute};
use crate::state::store::Store;
use crate::state::tasks::Tasks;
use crate::state::windows::{self, Going};

mod next;

use next::Next;

/// The codings in which a block is asked for.
const CODINGS: &str = "identity, gzip";

/// How many pages further down than was known the end of a newer list is looked for.
const MOST_FURTHER: u32 = 4;

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

/// What a block's answer leads to.
enum Outcome {
    /// More is known than before.
    Known,
    /// An answer for everybody.
    Answer(Answer),
    /// It was kept from before what is known by now, and is forgotten: the block is asked for once more.
    Outlived,
    /// Windows are not cut from it: only who asked for this very block has his answer.
    Useless(Forwarded, Answer),
}

impl<S: Stage<Block> + 'static> Stage<Box<Ask>> for Pages<S> {
    // Not an `async fn`: what is answered from memory needs no future of its own.
    fn call(&self, ask: Box<Ask>) -> impl Future<Output = Result<Answer, Fault>> + Send {
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
        let own = |name| route.forwarding.sent(&ask.headers, name).is_some();
        if !readable || route.identifying.iter().any(own) {
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
            moved: None,
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

    /// Asks for blocks until the window is whole, or it is clear that it will not be.
    async fn go_on(
        &self,
        route: &Arc<PagedRoute>,
        ask: Box<Ask>,
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
            route.meters.called(&fetched);
            let now = self.given.clock.now();
            if let Some(reason) = failure(&fetched) {
                if let Some(fallback) = &fallback {
                    if speaks_for_others(&fetched) {
                        fallback.entry.refresh_failed(reason, now + FAILURE_SPEAKS_FOR);
                    }
                    if let (Some(over), Some(held)) =
                        (lasting(route, fallback, reason, now), going.collection.clone())
                    {
                        let status = in_place_of(&fetched, over, reason);
                        going.fetched = None;
                        let seen = (fallback.view.clone(), fallback.generation);
                        let mut known = held.known();
                        next = cut(route, (&ask, &going), &mut known, seen, status, now);
                        // What was seen before the call may be in the book no longer.
                        known.changed();
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
                Outcome::Outlived => Next::Ask { block, demand: Demand::Fresh, fallback },
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
                let taken = windows::take(
                    &self.given.store,
                    route,
                    key,
                    asked,
                    (entry, !answer.cache.is_from_memory()),
                    (ask.at, self.given.clock.now()),
                );
                self.given.store.forget(&question.key, entry);
                let Some(held) = taken else {
                    // What was kept since before joins nothing that came after; what is asked for now may.
                    return match answer.cache.is_from_memory() && going.collection.is_some() {
                        true => Outcome::Outlived,
                        false => Outcome::Useless(Forwarded::Unsliceable, answer),
                    };
                };
                (going.collection, going.fetched) = (Some(held), Some(answer.cache));
                Outcome::Known
            }
            // Past the end some answer with an error; before the end it is the size that they refuse.
            Content::Held(entry, _) if is_refusal(entry.status) => {
                let answered = asked.position > 0 && route.beliefs().has_answered();
                match &going.collection {
                    Some(collection) if answered => {
                        let (is_new, now) = (!answer.cache.is_from_memory(), self.given.clock.now());
                        if windows::stops(route, collection, (asked, is_new), entry, now) || is_new {
                            return Outcome::Known;
                        }
                        self.given.store.forget(&question.key, entry);
                        Outcome::Outlived
                    }
                    _ => Outcome::Useless(Forwarded::Refused, answer),
                }
            }
            Content::Passed(passed) if is_refusal(passed.status) => {
                Outcome::Useless(Forwarded::Refused, answer)
            }
            // What speaks of credentials speaks of every window.
            _ if !answer.status().is_success() => Outcome::Answer(answer),
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
        mut ask: Box<Ask>,
        going: Going,
        reason: Forwarded,
    ) -> Result<Answer, Fault> {
        route.meters.forwarded(reason);
        let torn = windows::torn(route, &ask, &going, reason, self.given.clock.now());
        let mut window = going.moved.or(ask.question.window);
        if route.forwarding.sent(&ask.headers, &header::ACCEPT_ENCODING).is_none() {
            ask.headers.remove(header::ACCEPT_ENCODING);
        }
        // Whoever reads an older list is past its end; where the newest one has items, theirs is further down.
        let reads_older = going.moved.is_some() || going.course.is_some_and(|course| course.walk.is_some());
        let refused = route.beliefs().past_end() == Some(PastEnd::Refused);
        let mut further =
            if reason == Forwarded::PastEnd && reads_older && refused { MOST_FURTHER } else { 0 };
        let mut wait = going.timing.wait;
        let mut answer = loop {
            let moved = window.filter(|window| ask.question.window != Some(*window));
            let asking = moved.and_then(|moved| route.paging.reading.with_window(&ask.question, moved));
            let asking = asking.map_or_else(|| ask.question.clone(), Arc::new);
            let answer = self.below.call(with_question(&ask, asking).into()).await?;
            if further == 0 || !answer.status().is_success() {
                break answer;
            }
            further -= 1;
            wait += answer.timing.wait;
            let counting = &route.paging.counting;
            window = window.and_then(|Window { page, size }| {
                Some(counting.window(counting.span(Window { page, size })?.end, size))
            });
        };
        answer.timing.wait += wait;
        if let (Content::Held(entry, _), Some(window)) = (&answer.content, window) {
            let now = self.given.clock.now();
            let known = going.collection.as_deref().map(|held| (held, &going.span));
            route.learn(entry, window, reason, known, now);
        }
        Ok(match torn {
            Some(token) if answer.status().is_success() => {
                route.meters.walk(Standing::Torn);
                answer.with_field(WALK, token)
            }
            _ => answer,
        })
    }
}

/// Whether an answer refuses what was asked, and not who asks or how often.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407 | 408 | 429)
}

/// How long over its lifetime a fallback is, if it may serve for `reason`.
fn lasting(route: &PagedRoute, fallback: &Fallback, reason: Stale, now: Moment) -> Option<Duration> {
    // What the upstream says past an end is known where it says nothing.
    if fallback.behind && route.beliefs().past_end() != Some(PastEnd::Empty) {
        return None;
    }
    let over = fallback.over + now.since(fallback.looked);
    (over < allowance(reason, fallback.if_error, fallback.if_unreachable)).then_some(over)
}

/// How the cache takes part where something stale stands in for what was `fetched`.
fn in_place_of(fetched: &Result<Answer, Fault>, over: Duration, reason: Stale) -> CacheStatus {
    let why = Why::Stale;
    match fetched {
        Ok(answer) => CacheStatus::fallback(why, Some(answer.status().as_u16()), over, reason),
        Err(fault) if fault.called != Called::No => CacheStatus::fallback(why, None, over, reason),
        Err(_) => CacheStatus::over(over, Some(reason)),
    }
}

/// The ask for a block of `size` items.
fn block_ask(route: &PagedRoute, ask: &Ask, (block, size): (u64, u64)) -> Option<Box<Ask>> {
    let window = route.paging.counting.window(block.checked_mul(size)?, size);
    let question = route.paging.reading.with_window(&ask.question, window)?;
    let mut asking = with_question(ask, Arc::new(question));
    asking.method = Method::GET;
    serving::without_conditions(&mut asking.headers);
    asking.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
    Some(asking)
}

/// An ask like `ask`, which has no body, for something else.
fn with_question(ask: &Ask, question: Arc<Question>) -> Box<Ask> {
    Box::new(Ask {
        client: ask.client,
        route: ask.route,
        method: ask.method.clone(),
        version: ask.version,
        question,
        headers: ask.headers.clone(),
        body: Body::Empty,
        at: ask.at,
        deadline: ask.deadline,
        hurried: ask.hurried,
        peer: ask.peer,
        interim: ask.interim.clone(),
        walk: None,
    })
}

/// The window cut out of what was seen of it; where that cannot be, the upstream is asked.
fn cut(
    route: &PagedRoute,
    going: (&Ask, &Going),
    known: &mut Known,
    seen: (View, Generation),
    status: CacheStatus,
    now: Moment,
) -> Next {
    let answer = windows::answered(route, going, known, seen, status, now);
    answer.map_or(Next::Forward(Forwarded::Unsliceable), Next::Answer)
}
