//! What happens next to a request for a window, as far as its collection is known.

use std::sync::Arc;

use http::header;

use super::{CODINGS, Pages, block_ask, cut, lasting};
use crate::model::cache_status::{CacheStatus, Stale};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, Block, Content, Demand, Window};
use crate::model::{Fault, FaultKind, Moment};
use crate::rules::beliefs::PastEnd;
use crate::rules::collection::{self, Asked, Fallback, Judged, Step, Wish};
use crate::rules::failing::{FAILURE_SPEAKS_FOR, failure, speaks_for_others};
use crate::rules::reuse::Verdict;
use crate::rules::walks::{self, Generation, Owner, Standing};
use crate::stages::Stage;
use crate::state::collections::Known;
use crate::state::paged::{Forwarded, PagedRoute};
use crate::state::windows::{self, Going};

/// No list has as many items: windows beyond are the upstream's own affair.
const FARTHEST: u64 = 1 << 62;

/// What happens next to a request.
pub(super) enum Next {
    Answer(Answer),
    Forward(Forwarded),
    Ask { block: u64, demand: Demand, fallback: Option<Box<Fallback>> },
    Fail(Fault),
}

impl<S: Stage<Block> + 'static> Pages<S> {
    /// What happens next, as far as is known at `now`.
    pub(super) fn next(&self, route: &Arc<PagedRoute>, ask: &Ask, going: &mut Going, now: Moment) -> Next {
        let paging = &route.paging;
        let Some(window) = ask.question.window else { return Next::Forward(Forwarded::Odd) };
        let (size, given, is_known) = {
            let beliefs = route.beliefs();
            (beliefs.size(now), beliefs.cut(window.size, now), beliefs.is_known(window.size, now))
        };
        // What was moved to is another window once it is known that the upstream gives fewer items at once.
        going.moved = going.moved.filter(|moved| moved.size == given);
        going.window = going.moved.unwrap_or(Window { size: given, ..window });
        let span = paging.counting.span(going.window).filter(|span| span.end < FARTHEST);
        let Some(span) = span else { return Next::Forward(Forwarded::Odd) };
        going.span = span;
        let Some(key) = &ask.question.collection else { return Next::Forward(Forwarded::Odd) };
        if going.collection.is_none() {
            going.collection = self.given.store.collection(key, |name| match name {
                &header::ACCEPT_ENCODING => Some(CODINGS.as_bytes().into()),
                _ => route.forwarding.sent(&ask.headers, name),
            });
        }
        let wide = |size: u64| going.span.end - going.span.start > paging.max_blocks.saturating_mul(size);
        let size = match size {
            None => Err(Forwarded::Refused),
            Some(size) if wide(size) => Err(Forwarded::TooWide),
            Some(_) if !is_known => Err(Forwarded::Unproven),
            Some(size) => Ok(size),
        };
        let wish = Wish {
            span: going.span.clone(),
            directives: &going.wishes.directives,
            honoured: going.honoured,
            now,
            since: (going.asked > 0).then_some(ask.at),
            owner: Owner { client: ask.client, route: ask.route, collection: key },
            peer: ask.peer.ip(),
            token: ask.walk.as_ref().map(walks::token_in),
        };
        let Some(collection) = going.collection.clone() else {
            if wish.token.is_some() {
                return walk_ended(route);
            }
            return match size {
                Ok(size) => ask_for(going, going.span.start / size, None, None),
                Err(reason) => Next::Forward(reason),
            };
        };
        let mut known = collection.known();
        known.book.forget_past(now, paging.walk_total);
        if going.course.is_none() {
            going.course = collection::course(&known.guesses, paging, &wish);
        }
        let Some(mut course) = going.course else {
            return walk_ended(route);
        };
        if let (Some(walk), Standing::Pinned) = (course.walk, course.standing)
            && !known.book.holds(walk.generation)
        {
            return walk_ended(route);
        }
        let size = match size {
            Ok(size) => size,
            Err(reason) => return Next::Forward(reason),
        };
        if known.book.block_size() != size {
            known.book.resize(size, now);
            known.changed();
        }
        if known.shunned_until > now {
            return Next::Forward(Forwarded::Unsliceable);
        }
        if let Some(answer) = windows::as_cut_before(route, (ask, going), &mut known, &wish) {
            return Next::Answer(answer);
        }
        let joined = known.book.joined();
        let step = collection::next_step(&mut known.book, paging, &wish, &mut course);
        going.course = Some(course);
        if known.book.joined() != joined {
            known.changed();
        }
        match step {
            Step::Ended => walk_ended(route),
            Step::Ask { block, newer, partly, fallback } => {
                going.partly |= partly;
                if newer.is_none() && !known.book.can_place(block, &route.beliefs()) {
                    return Next::Forward(Forwarded::Apart);
                }
                if let Some(fallback) = &fallback
                    && let Some(reason) = fallback.entry.failing(now)
                    && let Some(over) = lasting(route, fallback, reason, now)
                {
                    let Fallback { view, generation, .. } = fallback.as_ref();
                    let status = CacheStatus::over(over, Some(reason));
                    return cut(route, (ask, going), &mut known, (view.clone(), *generation), status, now);
                }
                drop(known);
                ask_for(going, block, newer, fallback)
            }
            Step::Behind { generation, view, judged } => {
                let habit = route.beliefs().past_end();
                let end = view.end.as_ref().map_or(generation.head, |(_, place)| *place);
                let block = known.book.block_behind(generation.serial, end);
                let (last, behind) =
                    (known.book.last_page(generation, going.window.size), known.book.behind(generation));
                match (habit, block) {
                    (Some(PastEnd::Empty), _) | (_, None) => {
                        let status = self.status(route, ask, (&known, generation), judged.as_ref(), now);
                        cut(route, (ask, going), &mut known, (view, generation), status, now)
                    }
                    (None, Some(block)) => {
                        drop(known);
                        ask_for(going, block, None, None)
                    }
                    // Once more the last page; it is a window like others.
                    (Some(PastEnd::Again), _) if going.moved.is_none() && last.is_some() => {
                        drop(known);
                        let last = last.unwrap_or_default();
                        going.moved = Some(paging.counting.window(last, going.window.size));
                        let next = self.next(route, ask, going, now);
                        // What is asked for may show that the list goes on by now, and where its last page is.
                        if matches!(next, Next::Ask { .. }) {
                            going.moved = None;
                        }
                        next
                    }
                    // The upstream's own word, at a window that is past its end too.
                    _ => {
                        let down =
                            behind.div_ceil(going.window.size.max(1)).saturating_mul(going.window.size);
                        let from = going.span.start.saturating_add(down);
                        going.moved = (down > 0).then(|| paging.counting.window(from, going.window.size));
                        Next::Forward(Forwarded::PastEnd)
                    }
                }
            }
            Step::Answer { view, generation, judged } => {
                let status = self.status(route, ask, (&known, generation), judged.as_ref(), now);
                cut(route, (ask, going), &mut known, (view, generation), status, now)
            }
        }
    }

    /// How an answer from memory takes part, by the worst of its blocks; a refresh is begun where one is due.
    fn status(
        &self,
        route: &Arc<PagedRoute>,
        ask: &Ask,
        (known, generation): (&Known, Generation),
        judged: Option<&Judged>,
        now: Moment,
    ) -> CacheStatus {
        let Some(judged) = judged else { return CacheStatus::sliced(std::time::Duration::ZERO) };
        match judged.verdict {
            Verdict::Fresh { left } => CacheStatus::sliced(left),
            Verdict::Accepted { over } | Verdict::Fetch { over, .. } => CacheStatus::sliced_over(over),
            Verdict::FreshenMeanwhile { over } => {
                let reason = judged.entry.failing(now).unwrap_or(Stale::Revalidating);
                if let Some(block) = known.book.block_at(generation.serial, judged.place)
                    && judged.entry.claim_refresh(now, now + route.patience)
                {
                    self.freshen(route, ask, (block, known.book.block_size()), judged, now);
                }
                CacheStatus::over(over, Some(reason))
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
            route.meters.called(&fetched);
            if let Some(reason) = failure(&fetched)
                && speaks_for_others(&fetched)
            {
                entry.refresh_failed(reason, given.clock.now() + FAILURE_SPEAKS_FOR);
                return;
            }
            if let (Ok(Answer { content: Content::Held(entry, _), .. }), Some(key)) = (&fetched, &key) {
                windows::take(&given.store, &route, key, asked, (entry, true), (now, given.clock.now()));
                given.store.forget(&question.key, entry);
            }
        });
    }
}

/// A block is to be asked for, if the request allows that.
fn ask_for(
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

fn walk_ended(route: &PagedRoute) -> Next {
    route.meters.walk_ended();
    Next::Fail(Fault::new(FaultKind::WalkEnded).detail(
        "the list is another by now, or the walk lasted too long: start again at page 1, without the token",
    ))
}
