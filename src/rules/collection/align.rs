//! Where a newly fetched block stands among the items that were known before it: told by ids, and by nothing else.

use super::chain::{Chain, Run, signed};
use super::held::{Asked, Held};
use crate::model::entry::Entry;
use crate::rules::slices::Pointer;

/// Where a block's first item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aligned {
    /// Nothing of it is known.
    Nowhere,
    /// At this place: every known item of it stands where it should, and none elsewhere.
    At(i64),
    /// What is known contradicts it.
    Torn,
}

impl Chain {
    /// Where `held` stands. Without ids it can only stand at `nominal`, with the same items.
    pub(super) fn align(&self, held: &Held, nominal: i64, id: Option<&Pointer>) -> Aligned {
        if self.shows_again(held, nominal) {
            return Aligned::At(nominal);
        }
        let start = match held.named {
            true => match self.start_by_ids(held, id) {
                Ok(start) => start,
                Err(Disagree) => return Aligned::Torn,
            },
            false => None,
        };
        let place = start.unwrap_or(nominal);
        let (known, same) = self.compare(held, place, id);
        match start {
            _ if known > same => Aligned::Torn,
            Some(start) => Aligned::At(start),
            None if known == 0 => Aligned::Nowhere,
            None => Aligned::At(place),
        }
    }

    /// Whether one run at `place` is exactly these items: what most refreshes show.
    fn shows_again(&self, held: &Held, place: i64) -> bool {
        let run = self.runs.iter().find(|run| run.place == place);
        run.is_some_and(|run| {
            run.items == (0..held.len())
                && run.held.len() == held.len()
                && run.held.block.digest() == held.block.digest()
        })
    }

    /// The one place at which all known items of `held` would stand where they are known to.
    fn start_by_ids(&self, held: &Held, id: Option<&Pointer>) -> Result<Option<i64>, Disagree> {
        let wanted = Wanted::of(held);
        let mut start = None;
        for run in &self.runs {
            for (place, item) in (run.place..).zip(run.items.clone()) {
                let Some(hash) = run.held.block.id_hash(item) else { continue };
                for at in wanted.with(hash) {
                    if !held.is_same_item(at, &run.held, item, id) {
                        continue;
                    }
                    let begins = place.saturating_sub(signed(at as u64));
                    if start.is_some_and(|start| start != begins) {
                        return Err(Disagree);
                    }
                    start = Some(begins);
                }
            }
        }
        Ok(start)
    }

    /// Whether the upstream had nothing at what was `asked`, as `shown` says, before the items came that stand just before
    /// it: how far the list went then says nothing of what follows them.
    pub(super) fn outlived(&self, asked: Asked, shown: &Entry) -> bool {
        let place = self.ahead.saturating_add(signed(asked.position));
        let last = self.runs.last().filter(|last| last.end() == place);
        last.is_some_and(|last| last.held.entry.arrived >= shown.asked)
    }

    /// How many places of `held` at `start` are known, and how many of those hold the same item.
    fn compare(&self, held: &Held, start: i64, id: Option<&Pointer>) -> (usize, usize) {
        let stop = start.saturating_add(signed(held.len() as u64));
        let (mut known, mut same) = (0, 0);
        let first = self.runs.partition_point(|run| run.end() <= start);
        for run in self.runs.iter().skip(first).take_while(|run| run.place < stop) {
            for (at, item) in overlap(run, start, stop) {
                known += 1;
                // Without names only the same bytes are the same item.
                let id = id.filter(|_| held.named && run.held.named);
                same += usize::from(held.is_same_item(at, &run.held, item, id));
            }
        }
        (known, same)
    }
}

/// Ids that disagree about where a block stands.
struct Disagree;

/// The items of `run` at places from `start` to `stop`: as items of a block that begins at `start`, and of the run's.
fn overlap(run: &Run, start: i64, stop: i64) -> impl Iterator<Item = (usize, usize)> {
    let from = start.max(run.place);
    let count = usize::try_from(stop.min(run.end()) - from).unwrap_or_default();
    let at = usize::try_from(from - start).unwrap_or_default();
    let item = run.items.start + usize::try_from(from - run.place).unwrap_or_default();
    (0..count).map(move |step| (at + step, item + step))
}

/// The hashes of a block's ids, made to look up those of a whole collection.
struct Wanted {
    /// Sorted, each with its item.
    hashes: Vec<(u32, usize)>,
    /// A bit for twelve bits of each hash: nearly every other hash is ruled out by it.
    bits: Box<[u64; 64]>,
}

impl Wanted {
    fn of(held: &Held) -> Self {
        let hash = |at| Some((held.block.id_hash(at)?, at));
        let mut hashes: Vec<_> = (0..held.len()).filter_map(hash).collect();
        hashes.sort_unstable();
        let mut bits = Box::new([0; 64]);
        for (hash, _) in &hashes {
            if let Some(word) = bits.get_mut((hash >> 6 & 63) as usize) {
                *word |= 1 << (hash & 63);
            }
        }
        Self { hashes, bits }
    }

    fn with(&self, hash: u32) -> impl Iterator<Item = usize> {
        let maybe = self.bits.get((hash >> 6 & 63) as usize).is_some_and(|word| word >> (hash & 63) & 1 == 1);
        let from =
            if maybe { self.hashes.partition_point(|(held, _)| *held < hash) } else { self.hashes.len() };
        self.hashes.iter().skip(from).take_while(move |(held, _)| *held == hash).map(|(_, at)| *at)
    }
}
