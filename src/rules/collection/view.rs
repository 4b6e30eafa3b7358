//! A window as a chain knows it: the runs that fill it, what is missing of it, and how old it is.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::chain::{Chain, signed};
use super::held::Held;
use crate::model::entry::Entry;
use crate::model::moment::Moment;
use crate::rules::cache_control::Directives;
use crate::rules::reuse::{self, Policy, Verdict};

/// What a chain knows of a window.
#[derive(Debug)]
pub enum Look {
    /// All of it.
    Whole(View),
    /// Not the item at this place.
    Missing(i64),
    /// The list ends before it.
    Behind(View),
}

/// A window, all of which is known.
#[derive(Debug, Clone)]
pub struct View {
    /// What fills it, in order.
    pub parts: Vec<Part>,
    /// How many items are there in all, if that is known.
    pub total: Option<u64>,
    /// Whether there are items behind it.
    pub more: bool,
    /// The block whose envelope it is put in.
    pub frame: Arc<Held>,
    /// What says that the list ends in it, and the place to ask at whether it still does.
    pub end: Option<(Arc<Entry>, i64)>,
    /// What last showed where the list begins, if it begins elsewhere by now, and the place to ask at where.
    pub outdated: Option<(Arc<Entry>, i64)>,
    /// The place before which items are as fresh as the first block must be.
    pub strict: i64,
}

/// Consecutive items of one block in a window.
#[derive(Debug, Clone)]
pub struct Part {
    /// The block.
    pub held: Arc<Held>,
    /// Which of its items.
    pub items: Range<usize>,
    /// The place of the first.
    pub place: i64,
}

/// How old items may be.
#[derive(Debug, Clone, Copy)]
pub struct Freshness<'a> {
    /// The rules of the first block and of the last.
    pub edges: &'a Policy,
    /// Those of the blocks between them.
    pub settled: &'a Policy,
    /// What the client says.
    pub asked: &'a Directives,
    /// Whether what it says counts where it costs calls.
    pub honoured: bool,
    /// The time.
    pub now: Moment,
    /// How much older than that they may be: for as long as a walk has gone on.
    pub grace: Duration,
    /// What came since then was asked for by this very request, and is new enough.
    pub since: Option<Moment>,
}

/// What the oldest of a view's blocks lets be done with it.
#[derive(Debug)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// The entry it is about.
    pub entry: Arc<Entry>,
    /// Where to ask for a newer one.
    pub place: i64,
    /// The block, if it is one.
    pub held: Option<Arc<Held>>,
}

/// What a view rests on: an answer, the place to ask at for a newer one, and the block if it is one.
type Basis<'a> = (&'a Arc<Entry>, i64, Option<&'a Arc<Held>>);

impl Chain {
    /// What is known of `span`, as positions of the generation that begins at `head`. `strict`: how many items from the
    /// head on must be as fresh as the first block.
    pub fn look(&self, head: i64, span: &Range<u64>, strict: u64) -> Look {
        let place = |position: u64| head.saturating_add(signed(position));
        let (from, mut to) = (place(span.start), place(span.end));
        let exact = self.end.as_ref().filter(|end| end.exact);
        let mut view = View {
            parts: Vec::new(),
            total: exact.and_then(|end| u64::try_from(end.place.saturating_sub(head)).ok()),
            more: true,
            frame: self.newest.clone(),
            end: None,
            outdated: self.outdated().filter(|_| head == self.head),
            strict: place(strict),
        };
        if let Some(end) = self.end.as_ref().filter(|end| end.place <= from || (end.exact && end.place <= to))
        {
            view.more = false;
            view.end = Some((end.shown.clone(), end.place));
            to = end.place;
            if to < from || (to == from && (span.start > 0 || !end.exact)) {
                return Look::Behind(view);
            }
        }
        let mut at = from;
        let first = self.runs.partition_point(|run| run.end() <= from);
        for run in self.runs.iter().skip(first).take_while(|run| run.place < to) {
            if run.place > at {
                return Look::Missing(at);
            }
            let skip = usize::try_from(at - run.place).unwrap_or_default();
            let stop = run.end().min(to);
            let len = usize::try_from(stop - at).unwrap_or_default();
            let items = run.items.start + skip..run.items.start + skip + len;
            view.parts.push(Part { held: run.held.clone(), items, place: at });
            at = stop;
        }
        if at < to { Look::Missing(at) } else { Look::Whole(view) }
    }

    /// How many items of `span`, from its first on, blocks show that were `asked` for then.
    pub(super) fn shown(&self, span: &Range<u64>, asked: &Range<Moment>) -> u64 {
        let place = |position: u64| self.head.saturating_add(signed(position));
        let (from, to) = (place(span.start), place(span.end));
        let mut at = from;
        let first = self.runs.partition_point(|run| run.end() <= from);
        for run in self.runs.iter().skip(first) {
            if run.place > at || at == to || !asked.contains(&run.held.entry.asked) {
                break;
            }
            at = run.end().min(to);
        }
        u64::try_from(at - from).unwrap_or_default()
    }
}

impl View {
    /// How many items it has.
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|part| part.items.len() as u64).sum()
    }

    /// What may be done with it, judged by its worst block; `None` for a view of nothing.
    pub fn judge(&self, by: &Freshness<'_>) -> Option<Judged> {
        let (verdict, (entry, place, held)) = self.worst(by)?;
        Some(Judged { verdict, entry: entry.clone(), place, held: held.cloned() })
    }

    /// The worst of what it rests on: what may be done with that, the answer, its place, and the block if it is one.
    pub(super) fn worst(&self, by: &Freshness<'_>) -> Option<(Verdict, Basis<'_>)> {
        let last = self.end.as_ref().map(|(_, place)| *place);
        let blocks = self.parts.iter().map(|part| {
            let ends = last == Some(part.place.saturating_add(signed(part.items.len() as u64)));
            let policy = if part.place < self.strict || ends { by.edges } else { by.settled };
            (&part.held.entry, part.place, Some(&part.held), policy)
        });
        let end = self.end.iter().map(|(shown, place)| (shown, *place, None, by.edges));
        let begins = self.parts.first().is_some_and(|part| part.place < self.strict);
        let policy = if begins { by.edges } else { by.settled };
        let end = end.chain(self.outdated.iter().map(|(shown, place)| (shown, *place, None, policy)));
        let all = blocks.chain(end);
        let judged = all.map(|(entry, place, held, policy)| (judge(policy, entry, by), (entry, place, held)));
        // Of equals the first.
        judged.reduce(|worst, next| if rank(&next.0) > rank(&worst.0) { next } else { worst })
    }

    /// The oldest answer that it rests on.
    pub fn oldest(&self) -> &Arc<Entry> {
        let entries = self.parts.iter().map(|part| &part.held.entry);
        let others = self.outdated.iter().chain(&self.end).map(|(shown, _)| shown);
        entries.chain(others).min_by_key(made).unwrap_or(&self.frame.entry)
    }

    /// The oldest answer that has items in it: its fields are the window's.
    pub fn like(&self) -> &Arc<Entry> {
        let entries = self.parts.iter().map(|part| &part.held.entry);
        entries.min_by_key(made).unwrap_or(&self.frame.entry)
    }
}

/// When an answer was made at the upstream.
fn made(entry: &&Arc<Entry>) -> Moment {
    entry.arrived.before(entry.initial_age)
}

fn judge(policy: &Policy, entry: &Arc<Entry>, by: &Freshness<'_>) -> Verdict {
    if by.since.is_some_and(|since| entry.arrived >= since) {
        return match reuse::decide(policy, entry, &Directives::default(), false, by.now) {
            Verdict::Fresh { left } => Verdict::Fresh { left },
            _ => Verdict::Fresh { left: Duration::ZERO },
        };
    }
    match reuse::decide(policy, entry, by.asked, by.honoured, by.now) {
        // What was fresh when a walk began serves it to its end, where nobody forbids what is stale.
        Verdict::FreshenMeanwhile { over } | Verdict::Fetch { over, .. }
            if over < by.grace && !entry.facts.never_stale && !entry.facts.no_cache =>
        {
            Verdict::Fresh { left: by.grace - over }
        }
        verdict => verdict,
    }
}

/// How bad a verdict is: first by kind, then by how long the lifetime is over or how little is left.
fn rank(verdict: &Verdict) -> (u8, Duration) {
    match verdict {
        Verdict::Fresh { left } => (0, Duration::MAX - *left),
        Verdict::Accepted { over } => (1, *over),
        Verdict::FreshenMeanwhile { over } => (2, *over),
        Verdict::Fetch { over, .. } => (3, *over),
    }
}
