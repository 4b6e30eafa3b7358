//! Between a paged request and its collection: what an answer brings in, and the window that goes out.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};

use super::collections::{Collection, Known, SHUNNED_FOR};
use super::paged::{Forwarded, PagedRoute};
use super::store::Store;
use crate::model::cache_status::{CacheStatus, Why};
use crate::model::entry::Entry;
use crate::model::exchange::{Answer, Ask, Content, Sliced, Timing, Window};
use crate::model::fields::{Told, UNDERSTOOD};
use crate::model::{Key, Moment, Short};
use crate::rules::beliefs::PastEnd;
use crate::rules::collection::{self, Asked, Course, Cut, View, Wish};
use crate::rules::serving::Wishes;
use crate::rules::validators::{self, Conditions};
use crate::rules::walks::{Generation, Owner, Standing, Walk};

/// A request for a window, on its way.
#[derive(Debug)]
pub struct Going {
    /// What it says about being answered from memory.
    pub wishes: Wishes,
    /// Whether that counts where it costs calls.
    pub honoured: bool,
    /// The window, cut to what the upstream gives at once.
    pub window: Window,
    /// The window that is answered in its place: past the end, the last one.
    pub moved: Option<Window>,
    /// Its positions.
    pub span: Range<u64>,
    /// The generation it reads, once that is settled.
    pub course: Option<Course>,
    /// Its collection, if anything is known of it.
    pub collection: Option<Arc<Collection>>,
    /// How many blocks were asked for.
    pub asked: u64,
    /// Whether something of the window was known before.
    pub partly: bool,
    /// How the last of them came.
    pub fetched: Option<CacheStatus>,
    /// Where the time went.
    pub timing: Timing,
}

/// Takes `entry`, an answer to what was `asked` for somebody who came at `since`, into the collection under `key`, which is
/// returned; `is_new`: the upstream gave it just now. `None`: it cannot be cut, or is of no use there.
pub fn take(
    store: &Store,
    route: &PagedRoute,
    key: &Key,
    asked: Asked,
    (entry, is_new): (&Arc<Entry>, bool),
    (since, now): (Moment, Moment),
) -> Option<Arc<Collection>> {
    let mut collection = store.collection_of(key, entry, asked.size);
    let before = collection.known().book.block_of(asked).cloned();
    let held = match before {
        // Somebody who waited for the same call was faster.
        Some(before) if before.came_as(entry) => return Some(collection),
        Some(before) if before.entry.body.as_ptr() == entry.body.as_ptr() => {
            Ok(before.again(entry.clone(), &route.paging.shape, &route.paging.headers))
        }
        _ => route.read(entry, asked),
    };
    // What was erased meanwhile answers those who asked before, and is kept for nobody else.
    let read = held.as_ref().map_or(entry, |held| &held.entry);
    let erased = store.erased(key, read.groups(), entry.asked);
    if erased.is_some_and(|at| at <= since) {
        // Not those who came later: they ask again.
        return Some(collection);
    }
    if erased.is_some() {
        collection = Arc::new(Collection::new(entry, asked.size));
    }
    let mut known = collection.known();
    let used = match held {
        Ok(held) => {
            if known.book.block_size() != asked.size {
                known.book.resize(asked.size, now);
            }
            let id = route.paging.shape.id.as_ref();
            let taken = known.book.take((&Arc::new(held), is_new), &mut route.beliefs(), id, now);
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
    if erased.is_none() {
        store.account(key, &collection);
    }
    used.then_some(collection)
}

/// Nothing lies at what was `asked`, as the error in `shown` says; `is_new` is as with [`take`]. Whether that is of use.
pub fn stops(
    route: &PagedRoute,
    collection: &Collection,
    (asked, is_new): (Asked, bool),
    shown: &Arc<Entry>,
    now: Moment,
) -> bool {
    let mut known = collection.known();
    let taken = known.book.stops((asked, is_new), shown, PastEnd::Refused, &mut route.beliefs(), now);
    known.changed();
    route.note(&taken);
    taken.used
}

/// Answers with the window cut out of what was `seen` of it. `None`: it cannot be told what stands around it.
pub fn answered(
    route: &PagedRoute,
    (ask, going): (&Ask, &Going),
    known: &mut Known,
    (view, generation): (View, Generation),
    status: CacheStatus,
    now: Moment,
) -> Option<Answer> {
    let (course, walk, owner) = walked((ask, going), generation, now)?;
    let window = (route.number, generation, going.span.start, going.window.size);
    let cut = match known.find_cut(&window) {
        Some(cut) => cut.clone(),
        None => {
            let (links, seen) = {
                let beliefs = route.beliefs();
                (beliefs.links(), beliefs.members())
            };
            let token = walk.token(&owner);
            let target = (ask.question.target(), std::str::from_utf8(token.as_bytes()).ok());
            let share = |fields| route.shapes.share(fields);
            let cut = Arc::new(route.paging.cut(view, going.window, target, (links, &seen), share)?);
            if !route.paging.names_addresses() {
                known.keep_cut(window, &cut);
            }
            cut
        }
    };
    Some(given(route, (ask, going), known, (&cut, (course, walk, owner)), status, now))
}

/// Answers with the window as it was cut before, where that is fresh.
pub fn as_cut_before(
    route: &PagedRoute,
    (ask, going): (&Ask, &Going),
    known: &mut Known,
    wish: &Wish<'_>,
) -> Option<Answer> {
    let course = going.course.as_ref()?;
    let generation = match course.walk {
        Some(walk) => Some(walk.generation).filter(|generation| known.book.holds(*generation)),
        None => known.book.newest(),
    }?;
    let cut = known.find_cut(&(route.number, generation, going.span.start, going.window.size))?.clone();
    let left = collection::left_of(&cut, &route.paging, wish, course)?;
    let walked = walked((ask, going), generation, wish.now)?;
    Some(given(route, (ask, going), known, (&cut, walked), CacheStatus::sliced(left), wish.now))
}

/// The walk that an answer of `generation` belongs to, or begins, how that was found, and whose it is.
fn walked<'a>(
    (ask, going): (&'a Ask, &Going),
    generation: Generation,
    now: Moment,
) -> Option<(Course, Walk, Owner<'a>)> {
    let collection = ask.question.collection.as_ref()?;
    let course = going.course.unwrap_or(Course { walk: None, standing: Standing::Pinned });
    let walk = course.walk.unwrap_or_else(|| Walk::begun(generation, now));
    Some((course, walk, Owner { client: ask.client, route: ask.route, collection }))
}

/// The answer with `cut`, a window of this walk.
fn given(
    route: &PagedRoute,
    (ask, going): (&Ask, &Going),
    known: &mut Known,
    (cut, (course, walk, owner)): (&Cut, (Course, Walk, Owner<'_>)),
    status: CacheStatus,
    now: Moment,
) -> Answer {
    let wish = wish((ask, going), owner, now);
    collection::answered(&mut known.guesses, &route.paging, &wish, (course, walk), cut.place.more);
    route.meters.answered(course.standing, cut.view.parts.len());
    let status = match going.fetched {
        Some(CacheStatus::Forwarded { why, status, stored, collapsed }) => {
            let why = if going.partly { Why::Partial } else { why };
            CacheStatus::Forwarded { why, status, stored, collapsed }
        }
        _ => status,
    };
    let token = walk.token(&owner);
    let link = cut.links.as_ref().and_then(|links| links.value(token.as_bytes()));
    let told = Told { walk: named(&token, course.standing).into_value("?"), link };
    let answer =
        Answer { content: content(cut, going, status, told, now), cache: status, timing: going.timing };
    let size = going.window.size;
    let asked = ask.question.window.map_or(size, |window| window.size);
    match if size < asked { route.paging.reading.capped(asked) } else { None } {
        Some(told) => {
            route.meters.capped.inc();
            answer.with_field(UNDERSTOOD, told)
        }
        None => answer,
    }
}

/// What is said of its walk to a page of it that is forwarded as it was asked, for `reason`: it may be of another state of
/// the list, and the walk may go on behind it. `None` where it is part of no walk, or its end.
pub fn torn(
    route: &PagedRoute,
    ask: &Ask,
    going: &Going,
    reason: Forwarded,
    now: Moment,
) -> Option<HeaderValue> {
    let course = going.course.filter(|_| reason != Forwarded::PastEnd)?;
    let walk = course.walk?;
    let collection = ask.question.collection.as_ref()?;
    let owner = Owner { client: ask.client, route: ask.route, collection };
    let mut known = going.collection.as_ref()?.known();
    let wish = wish((ask, going), owner, now);
    collection::answered(&mut known.guesses, &route.paging, &wish, (course, walk), true);
    Some(named(&walk.token(&owner), Standing::Torn).into_value("?"))
}

/// What a request wants, once it is known what it gets.
fn wish<'a>((ask, going): (&'a Ask, &'a Going), owner: Owner<'a>, now: Moment) -> Wish<'a> {
    Wish {
        span: going.span.clone(),
        directives: &going.wishes.directives,
        honoured: going.honoured,
        now,
        since: None,
        owner,
        peer: ask.peer.ip(),
        token: None,
    }
}

/// `TOKEN;state=…`
fn named(token: &Short<40>, standing: Standing) -> Short<64> {
    let mut named = Short::new();
    named.push_short(token);
    named.push(";state=");
    named.push(standing.as_str());
    named
}

/// The window as it was cut, or what the request's conditions make of it.
fn content(cut: &Cut, going: &Going, status: CacheStatus, told: Told, now: Moment) -> Content {
    let (entry, age) = (&cut.entry, cut.entry.age(now));
    let (code, mut headers) = match judge(&going.wishes.conditions, entry) {
        Conditions::Hold => {
            return Content::Sliced(Box::new(Sliced { like: entry.clone(), age, body: cut.body(), told }));
        }
        Conditions::NotModified => (StatusCode::NOT_MODIFIED, validators::of_not_modified(entry)),
        Conditions::Failed => (StatusCode::PRECONDITION_FAILED, validators::of_failed(entry)),
    };
    told.write(&mut headers);
    Content::cut(entry, age, status, (code, headers, Bytes::new()))
}

/// What a request's conditions come to. A window's fields have no date to be compared with, so no clock is needed.
fn judge(wishes: &HeaderMap, entry: &Entry) -> Conditions {
    if wishes.is_empty() {
        return Conditions::Hold;
    }
    validators::judge(wishes, entry, std::time::SystemTime::UNIX_EPOCH)
}
