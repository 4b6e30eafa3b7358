//! Items that are known to stand side by side, each at its place, and what a newly fetched block does to them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::align::Aligned;
use super::held::{Asked, Held};
use crate::model::entry::{Entry, Selectors};
use crate::model::moment::Moment;
use crate::rules::slices::Pointer;
use crate::rules::walks::Generation;

/// Consecutive items of one block.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The place of the first.
    pub(super) place: i64,
    /// Which of the block's items.
    pub(super) items: Range<usize>,
    pub(super) held: Arc<Held>,
}

impl Run {
    /// The place behind its last item.
    pub(super) fn end(&self) -> i64 {
        self.place.saturating_add(signed(self.items.len() as u64))
    }

    /// Those of its items that stand at `places`.
    fn within(&self, places: Range<i64>) -> Option<Self> {
        let (from, to) = (places.start.max(self.place), places.end.min(self.end()));
        let skip = usize::try_from(from - self.place).ok()?;
        let len = usize::try_from(to - from).ok().filter(|len| *len > 0)?;
        let first = self.items.start + skip;
        Some(Self { place: from, items: first..first + len, held: self.held.clone() })
    }
}

/// Where the list ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// The place behind the last item.
    pub(super) place: i64,
    /// Whether it ends there and not before.
    pub(super) exact: bool,
    /// What said so, as an entry that ages.
    pub(super) shown: Arc<Entry>,
}

/// What is known of one state of a list and those that followed from it.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Which chain of its collection.
    pub(super) serial: u32,
    /// By place, without overlaps.
    pub(super) runs: Vec<Run>,
    /// Where the newest generation begins.
    pub(super) head: i64,
    /// The first block as it was last seen; `None` where nobody asked for it yet.
    pub(super) first: Option<Arc<Held>>,
    /// Since when the head has stood where it stands.
    since: Moment,
    /// Where the upstream's list was last seen to begin: before `head` once a deeper block showed arrivals.
    pub(super) ahead: i64,
    /// When that was.
    moved: Moment,
    /// The last block that showed the list to begin at `head`: once it begins before, what is told by positions is as old.
    framed: Arc<Entry>,
    pub(super) end: Option<End>,
    /// The block that came last: in its envelope answers are put.
    pub(super) newest: Arc<Held>,
}

/// What is known of a block beside its items.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The list ends with it.
    pub ends: bool,
    /// Its items are those that were asked for, even if nothing of them is known.
    pub trusted: bool,
    /// It came just now: after everything that is known.
    pub new: bool,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is part of the chain; so many items had arrived at the head.
    Joined(u64),
    /// Nothing connects it with the chain.
    Apart,
    /// The two cannot both be right.
    Contradicts(Restart),
}

/// Why a collection starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Items stand in another order than they did, or others stand between them.
    Moved,
    /// Items went away.
    Vanished,
    /// The first block shows nothing that was known.
    Replaced,
    /// Blocks have another size now.
    Resized,
}

impl Restart {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Moved, Self::Vanished, Self::Replaced, Self::Resized];

    /// Its word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Vanished => "vanished",
            Self::Replaced => "replaced",
            Self::Resized => "resized",
        }
    }
}

impl Chain {
    /// A chain of one block; `ends`: that the list ends with it.
    pub fn new(serial: u32, held: &Arc<Held>, ends: bool) -> Self {
        let mut chain = Self {
            serial,
            runs: Vec::new(),
            head: 0,
            first: None,
            since: held.entry.arrived,
            ahead: 0,
            moved: held.entry.asked,
            framed: held.entry.clone(),
            end: None,
            newest: held.clone(),
        };
        let start = signed(held.asked.position);
        if held.asked.position == 0 {
            chain.first = Some(held.clone());
        }
        match chain.said_end(held, start, ends) {
            Said::End(end) => chain.end = Some(end),
            Said::Nothing | Said::Contradicts => {}
        }
        if held.is_empty() && held.asked.position > 0 {
            chain.end = Some(End { place: start, exact: false, shown: held.entry.clone() });
        }
        chain.insert(start, held);
        chain
    }

    /// Its number in its collection.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Where its newest generation begins.
    pub fn head(&self) -> i64 {
        self.head
    }

    /// The block that the upstream holds `place` in, where blocks have `size` items; the first for places before it.
    pub fn block_of(&self, place: i64, size: u64) -> u64 {
        u64::try_from(place.saturating_sub(self.ahead)).unwrap_or_default() / size.max(1)
    }

    /// Takes `held` in.
    pub fn admit(&mut self, held: &Arc<Held>, how: How, id: Option<&Pointer>) -> Fit {
        let nominal = self.ahead.saturating_add(signed(held.asked.position));
        // A call that was sent before the head was last heard of says nothing of where it is now.
        let late = held.entry.asked < self.moved;
        let begins = held.asked.position == 0 && !late;
        if held.is_empty() {
            return if begins { self.admit_empty(held) } else { self.stops(held.asked, &held.entry) };
        }
        let start = match self.align(held, nominal, id) {
            Aligned::Torn => return Fit::Contradicts(Restart::Moved),
            // What stood before it went away.
            Aligned::At(start) if start > nominal && !late => return Fit::Contradicts(Restart::Vanished),
            Aligned::At(start) => start,
            // The first block, and nothing of it known: nobody can say how far the old items went down.
            Aligned::Nowhere if begins && self.first.is_some() => {
                return Fit::Contradicts(Restart::Replaced);
            }
            Aligned::Nowhere if begins && !self.runs.is_empty() => return Fit::Apart,
            Aligned::Nowhere if begins || self.reaches(nominal, held, how) => nominal,
            Aligned::Nowhere => return Fit::Apart,
        };
        let said = self.said_end(held, start, how.ends);
        if matches!(said, Said::Contradicts) {
            return Fit::Contradicts(Restart::Vanished);
        }
        let base = start.saturating_sub(signed(held.asked.position));
        if !late {
            (self.ahead, self.moved) = (base, held.entry.asked);
        }
        let mut arrived = 0;
        if begins {
            arrived = self.head.abs_diff(base);
            if arrived > 0 || self.first.is_none() {
                self.since = held.entry.arrived;
            }
            self.head = base;
            self.first = Some(held.clone());
        }
        if base == self.head && held.entry.arrived >= self.framed.arrived {
            self.framed = held.entry.clone();
        }
        match said {
            Said::End(end) => self.end = Some(end),
            _ => {
                let stop = start.saturating_add(signed(held.len() as u64));
                let grown = self.end.as_ref().is_some_and(|end| {
                    stop > end.place || (stop == end.place && held.more == Some(true) && !late)
                });
                if grown {
                    self.end = None;
                }
            }
        }
        self.insert(start, held);
        self.newest = held.clone();
        Fit::Joined(arrived)
    }

    /// The first block was empty.
    fn admit_empty(&mut self, held: &Arc<Held>) -> Fit {
        if !self.runs.is_empty() || self.end.as_ref().is_some_and(|end| end.exact && end.place != self.head) {
            return Fit::Contradicts(Restart::Vanished);
        }
        self.first = Some(held.clone());
        self.end = Some(End { place: self.head, exact: true, shown: held.entry.clone() });
        self.newest = held.clone();
        Fit::Joined(0)
    }

    /// The upstream has nothing at what was `asked`, as `shown` says.
    pub fn stops(&mut self, asked: Asked, shown: &Arc<Entry>) -> Fit {
        let place = self.ahead.saturating_add(signed(asked.position));
        let last = self.runs.last();
        if last.is_some_and(|last| last.end() > place) {
            return Fit::Contradicts(Restart::Vanished);
        }
        let exact = last.is_some_and(|last| last.end() == place) || place == self.head;
        match &self.end {
            Some(end) if end.exact && end.place > place => return Fit::Contradicts(Restart::Vanished),
            Some(end) if end.place < place => return Fit::Joined(0),
            _ => {}
        }
        self.end = Some(End { place, exact, shown: self.as_old_as(shown) });
        Fit::Joined(0)
    }

    /// What says where the list ends may be an error, or an answer about other items: its age counts, and the rules of
    /// the blocks.
    fn as_old_as(&self, shown: &Arc<Entry>) -> Arc<Entry> {
        if shown.status == self.newest.entry.status {
            return shown.clone();
        }
        let parts = (self.newest.entry.status, crate::model::Fields::default(), bytes::Bytes::new());
        let (facts, age) = (self.newest.entry.facts, std::time::Duration::ZERO);
        Arc::new(Entry::new(parts, shown.arrived, age, facts, Selectors::default()).asked_at(shown.asked))
    }

    /// Whether a block nothing of which is known can only stand at `place`.
    fn reaches(&self, place: i64, held: &Held, how: How) -> bool {
        let left = self.runs.iter().rfind(|run| run.end() <= place);
        // Had anything arrived since the block on its left came, some of that block would show again in this one.
        let follows = left.is_some_and(|left| {
            let (came, asked) = (left.held.entry.arrived, held.entry.asked);
            left.end() == place && (came < asked || (how.new && came == asked))
        });
        // It was asked for after the head was seen where it is, and came before it was seen there again.
        let framed = self.first.as_ref().is_some_and(|first| {
            self.ahead == self.head && self.since < held.entry.asked && held.entry.arrived < first.entry.asked
        });
        follows || (how.trusted && framed)
    }

    /// What `held`, whose first item stands at `start`, says of the list's end.
    fn said_end(&self, held: &Held, start: i64, ends: bool) -> Said {
        let stop = start.saturating_add(signed(held.len() as u64));
        let base = start.saturating_sub(signed(held.asked.position));
        let total = held.total.map(|total| base.saturating_add(signed(total))).filter(|end| *end >= stop);
        let over = (ends || held.more == Some(false)) && !(held.is_empty() && held.asked.position > 0);
        let Some(place) = total.or(over.then_some(stop)) else { return Said::Nothing };
        let beyond = self.runs.last().is_some_and(|last| last.end() > place);
        let shrunk = self.end.as_ref().is_some_and(|end| end.exact && end.place > place);
        if !(beyond || shrunk) {
            return Said::End(End { place, exact: true, shown: held.entry.clone() });
        }
        // A call that was sent before the end was seen further down says nothing of where it is now.
        let newest = self.end.as_ref().map_or(self.newest.entry.arrived, |end| end.shown.arrived);
        if held.entry.asked < newest { Said::Nothing } else { Said::Contradicts }
    }

    /// The list ends at `place`, as `shown` says.
    pub(super) fn ends_at(&mut self, place: i64, shown: &Arc<Entry>) {
        self.end = Some(End { place, exact: true, shown: self.as_old_as(shown) });
    }

    /// Since when the newest generation is not the upstream's any longer, if that was seen: what last showed that it was,
    /// and where the list begins instead.
    pub(super) fn outdated(&self) -> Option<(Arc<Entry>, i64)> {
        (self.ahead != self.head).then(|| (self.framed.clone(), self.ahead))
    }

    /// Its newest generation.
    pub(super) fn newest_generation(&self) -> Generation {
        Generation { serial: self.serial, head: self.head }
    }

    /// Whether anything of it is known but where it ends.
    pub(super) fn has_items(&self) -> bool {
        !self.runs.is_empty()
    }

    /// The place behind the last item that is known.
    pub(super) fn last_place(&self) -> Option<i64> {
        self.runs.last().map(Run::end)
    }

    /// Where the list is known to end.
    pub(super) fn exact_end(&self) -> Option<i64> {
        self.end.as_ref().filter(|end| end.exact).map(|end| end.place)
    }

    /// The place behind the last item of `held`, which is part of it.
    pub(super) fn end_of(&self, held: &Arc<Held>) -> Option<i64> {
        let last = self.runs.iter().rfind(|run| Arc::ptr_eq(&run.held, held))?;
        (last.items.end == held.len()).then(|| last.end())
    }

    /// Its blocks; some more than once.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.runs.iter().map(|run| &run.held).chain(&self.first)
    }

    /// Whether `held`, asked for past the last item that is known, is the last page of `size` items.
    pub(super) fn is_last_page(&self, held: &Held, size: u64, id: Option<&Pointer>) -> bool {
        let Some(last) = self.last_place() else { return false };
        let nominal = self.ahead.saturating_add(signed(held.asked.position));
        let start = last.saturating_sub(signed(held.len() as u64));
        let page = self.block_of(last.saturating_sub(1), size).saturating_mul(size);
        nominal >= last
            && start == self.ahead.saturating_add(signed(page))
            && self.align(held, start, id) == Aligned::At(start)
    }

    /// Puts the items of `held` at `start` and what follows, in place of older ones.
    fn insert(&mut self, start: i64, held: &Arc<Held>) {
        let whole = Run { place: start, items: 0..held.len(), held: held.clone() };
        let stop = whole.end();
        let from = self.runs.partition_point(|run| run.end() <= start);
        let to = self.runs.partition_point(|run| run.place < stop);
        let (mut made, mut at) = (Vec::new(), start);
        let mut rest = None;
        for run in self.runs.get(from..to).unwrap_or_default() {
            if run.held.entry.arrived > held.entry.arrived {
                made.extend(whole.within(at..run.place));
                at = at.max(run.end());
                made.push(run.clone());
            } else {
                // Before everything that was made so far: only the first can begin before `start`.
                made.splice(0..0, run.within(i64::MIN..start));
                rest = run.within(stop..i64::MAX);
            }
        }
        made.extend(whole.within(at..stop));
        made.extend(rest);
        made.retain(|run| !run.items.is_empty());
        self.runs.splice(from..to, made);
    }

    /// How many bytes it keeps, blocks that are in `counted` already aside.
    pub(super) fn size(&self, counted: &mut HashSet<*const Held>) -> usize {
        let holds = self.runs.iter().map(|run| &run.held).chain(&self.first).chain([&self.newest]);
        let blocks =
            holds.filter(|held| counted.insert(Arc::as_ptr(held))).map(|held| held.size()).sum::<usize>();
        size_of::<Self>() + blocks + self.runs.capacity() * size_of::<Run>()
    }
}

/// What a block says of the end.
enum Said {
    Nothing,
    End(End),
    Contradicts,
}

/// A count as a distance between places.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
