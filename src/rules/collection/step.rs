//! What to do next about a window: answer it, ask for a block, or say that its walk has ended.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::book::Book;
use super::cut::{Cut, Paging};
use super::held::Asked;
use super::sight::Sight;
use super::view::{Freshness, Judged, Look, View};
use crate::model::entry::Entry;
use crate::model::moment::Moment;
use crate::rules::cache_control::Directives;
use crate::rules::reuse::Verdict;
use crate::rules::walks::{Generation, Guessed, Guesses, Owner, Reader, Standing, Walk};

/// What a request wants.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The positions it asks for.
    pub span: Range<u64>,
    /// What it says of age.
    pub directives: &'a Directives,
    /// Whether what it says counts where it costs calls.
    pub honoured: bool,
    /// The time.
    pub now: Moment,
    /// Since when it has had blocks asked for, if it has.
    pub since: Option<Moment>,
    /// Whose walk it is.
    pub owner: Owner<'a>,
    /// From where it comes.
    pub peer: IpAddr,
    /// The token it carries.
    pub token: Option<&'a [u8]>,
}

/// Which generation a request reads.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// The walk it goes on with; `None`: the newest generation.
    pub walk: Option<Walk>,
    /// How that was found.
    pub standing: Standing,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Answer.
    Answer {
        /// The window.
        view: View,
        /// The generation it is of.
        generation: Generation,
        /// What its age lets be done, and by which block.
        judged: Option<Judged>,
    },
    /// The list ends before the window.
    Behind {
        /// The generation.
        generation: Generation,
        /// A view of nothing.
        view: View,
        /// What the age of that lets be done.
        judged: Option<Judged>,
    },
    /// Ask for a block.
    Ask {
        /// Which, counted from 0.
        block: u64,
        /// When the block in its place arrived, and the answer it came as if it answered the same question.
        newer: Option<(Moment, Option<Arc<Entry>>)>,
        /// Whether some of the window is known.
        partly: bool,
        /// What can be answered if that fails.
        fallback: Option<Box<Fallback>>,
    },
    /// The walk that the request's token names cannot go on.
    Ended,
}

/// A window that is too old, and for how long it may still serve when the upstream fails.
#[derive(Debug)]
pub struct Fallback {
    /// The window.
    pub view: View,
    /// The generation it is of.
    pub generation: Generation,
    /// Whether the list ends before it.
    pub behind: bool,
    /// Its worst block's answer.
    pub entry: Arc<Entry>,
    /// How long its lifetime was over at `looked`.
    pub over: Duration,
    /// When it was looked at.
    pub looked: Moment,
    /// How long over it may be when the upstream answers with an error.
    pub if_error: Duration,
    /// How long over it may be when the upstream cannot be reached.
    pub if_unreachable: Duration,
}

/// Which generation `wish` reads; `None`: the walk its token names has ended.
pub fn course(guesses: &Guesses, paging: &Paging, wish: &Wish<'_>) -> Option<Course> {
    let newest = |standing| Course { walk: None, standing };
    let lasts = |walk: &Walk| walk.lasts(wish.now) < paging.walk_total;
    if let Some(token) = wish.token {
        let walk = Walk::of(token, &wish.owner).filter(lasts)?;
        return Some(Course { walk: Some(walk), standing: Standing::Pinned });
    }
    // The first page begins another walk.
    if wish.span.start == 0 {
        return Some(newest(Standing::Pinned));
    }
    Some(match guesses.expected(&reader(wish, wish.span.start), wish.now) {
        Guessed::Nothing => newest(Standing::Pinned),
        Guessed::One(walk) if lasts(&walk) => Course { walk: Some(walk), standing: Standing::Guessed },
        Guessed::One(_) | Guessed::Several => newest(Standing::Torn),
    })
}

/// What to do next about `wish` on its `course`, which may turn out not to lead on.
pub fn next_step(book: &mut Book, paging: &Paging, wish: &Wish<'_>, course: &mut Course) -> Step {
    let id = paging.shape.id.as_ref();
    let mut sight = book.look(&wish.span, course.walk.map(|walk| walk.generation), id);
    if let (Sight::Gone, Some(_)) = (&sight, course.walk) {
        if course.standing == Standing::Pinned {
            return Step::Ended;
        }
        *course = Course { walk: None, standing: Standing::Torn };
        sight = book.look(&wish.span, None, id);
    }
    let (generation, look) = match sight {
        Sight::Seen(generation, look) => (generation, look),
        Sight::Unknown { block, partly } => return Step::Ask { block, newer: None, partly, fallback: None },
        Sight::Gone => return Step::Ended,
    };
    let (Look::Whole(view) | Look::Behind(view)) = look else { return Step::Ended };
    let judged = view.judge(&freshness(paging, wish, course));
    if let Some(judged) = &judged
        && let Verdict::Fetch { over, if_error, if_unreachable } = judged.verdict
        // Of a chain that ended nothing newer can be had.
        && let Some(block) = book.block_at(generation.serial, judged.place)
    {
        let newer = newer(book, block, judged);
        let entry = judged.entry.clone();
        let behind = view.parts.is_empty() && wish.span.start > 0;
        let fallback =
            Fallback { view, generation, behind, entry, over, looked: wish.now, if_error, if_unreachable };
        return Step::Ask { block, newer: Some(newer), partly: true, fallback: Some(Box::new(fallback)) };
    }
    if view.parts.is_empty() && wish.span.start > 0 {
        return Step::Behind { generation, view, judged };
    }
    Step::Answer { view, generation, judged }
}

/// How much freshness is left of a window that was cut before, for `wish` on its `course`; `None` where it is not fresh, or
/// of nothing. Cuts are kept for as long as a book stays as it is, so that a look would find the same.
pub fn left_of(cut: &Cut, paging: &Paging, wish: &Wish<'_>, course: &Course) -> Option<Duration> {
    if cut.view.parts.is_empty() {
        return None;
    }
    match cut.view.worst(&freshness(paging, wish, course))? {
        (Verdict::Fresh { left }, _) => Some(left),
        _ => None,
    }
}

/// How old items may be for `wish`.
fn freshness<'a>(paging: &'a Paging, wish: &Wish<'a>, course: &Course) -> Freshness<'a> {
    Freshness {
        edges: &paging.edges,
        settled: &paging.settled,
        asked: wish.directives,
        honoured: wish.honoured,
        now: wish.now,
        grace: course.walk.map_or(Duration::ZERO, |walk| walk.lasts(wish.now)),
        since: wish.since,
    }
}

/// What a block has to be newer than to be of use, and the answer that a 304 would confirm.
pub(super) fn newer(book: &Book, block: u64, judged: &Judged) -> (Moment, Option<Arc<Entry>>) {
    let size = book.block_size();
    let asked = Asked { position: block.saturating_mul(size), size };
    // Only the answer to this very question says what a 304 to it means.
    let same = book.block_of(asked).map(|held| held.entry.clone());
    (judged.entry.arrived, same)
}

/// An answer was given, of the walk that `course` goes on with or of `walk`, which begins with it; that may go on with the
/// next page if there is `more`.
pub fn answered(
    guesses: &mut Guesses,
    paging: &Paging,
    wish: &Wish<'_>,
    (course, walk): (Course, Walk),
    more: bool,
) {
    if let Some(walk) = course.walk {
        guesses.passed(&reader(wish, wish.span.start), walk);
    }
    if more {
        guesses.remember(reader(wish, wish.span.end), walk, wish.now, paging.walk_idle);
    }
}

fn reader(wish: &Wish<'_>, next: u64) -> Reader {
    let size = wish.span.end.saturating_sub(wish.span.start);
    Reader { client: wish.owner.client, peer: wish.peer, size, next }
}
