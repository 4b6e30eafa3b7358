//! Everything that is known of one question's items: the chain that is added to, blocks that nothing connects with it,
//! and chains that ended and are still read by walks.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::chain::{Chain, Fit, How, Restart};
use super::doubt::{About, Doubt};
use super::held::{Asked, Held};
use crate::model::entry::Entry;
use crate::model::moment::Moment;
use crate::rules::beliefs::{Belief, Beliefs, PastEnd};
use crate::rules::slices::Pointer;
use crate::rules::walks::Generation;

/// The most blocks that stand apart.
const MOST_APART: usize = 16;
/// The most chains that are kept for walks after they ended.
const MOST_PAST: usize = 4;

/// What is known of a question's items.
#[derive(Debug)]
pub struct Book {
    /// How many items blocks have.
    pub(super) size: u64,
    /// The chain whose head was seen.
    pub(super) main: Option<Chain>,
    /// Chains of which nobody knows how they stand to the head, the newest last.
    pub(super) apart: Vec<Chain>,
    /// Chains that were contradicted, with when that was: walks read what is known of them.
    pub(super) past: Vec<(Chain, Moment)>,
    pub(super) doubt: Option<Doubt>,
    /// How often a look joined what stood apart.
    pub(super) joined: u32,
    serials: u32,
}

/// What a block taught.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By how many items the head moved.
    pub arrived: u64,
    /// Why the collection started over, if it did.
    pub restarted: Option<Restart>,
    /// What was learned of the upstream.
    pub learned: Option<Belief>,
    /// Whether the block belongs to the collection: otherwise it is of no use.
    pub used: bool,
}

impl Book {
    /// Nothing yet, in blocks of `size` items.
    pub fn new(size: u64) -> Self {
        Self { size, main: None, apart: Vec::new(), past: Vec::new(), doubt: None, joined: 0, serials: 0 }
    }

    /// How many items blocks have.
    pub fn block_size(&self) -> u64 {
        self.size
    }

    /// Blocks have `size` items from now on: nothing that is known can be added to.
    pub fn resize(&mut self, size: u64, now: Moment) {
        (self.size, self.doubt) = (size, None);
        self.apart.clear();
        if let Some(chain) = self.main.take() {
            self.put_aside(chain, now);
        }
    }

    /// Takes in a block that was asked for. `is_new`: it came from the upstream just now, and was not kept from before.
    pub fn take(
        &mut self,
        (held, is_new): (&Arc<Held>, bool),
        beliefs: &mut Beliefs,
        id: Option<&Pointer>,
        now: Moment,
    ) -> Taken {
        if held.asked.size != self.size {
            return Taken::default();
        }
        let (len, block) = (held.len() as u64, held.asked.position / self.size.max(1));
        beliefs.saw_link(held.is_linked(), held.leads());
        beliefs.saw_members(&held.seen);
        if len == 0 && held.asked.position > 0 {
            return self.stops((held.asked, is_new), &held.entry, PastEnd::Empty, beliefs, now);
        }
        let doubt = self.doubt.take_if(|doubt| doubt.block == block);
        if len > 0 && held.asked.position > 0 && self.is_last_again(held, id) {
            // As many new items as a block has would show the same, whatever lies past an end: the next block tells.
            if doubt.is_some_and(|doubt| matches!(doubt.about, About::Repeated(_))) {
                return self.stops((held.asked, is_new), &held.entry, PastEnd::Again, beliefs, now);
            }
            let chain = self.main.as_ref().and_then(|chain| Some((chain.serial, chain.last_place()?)));
            self.doubt = chain.map(|(serial, place)| Doubt {
                serial,
                place,
                block: block + 1,
                about: About::Repeated(held.clone()),
            });
            return Taken { used: true, ..Taken::default() };
        }
        let short = len > 0 && len < self.size && held.total.is_none() && held.more != Some(false);
        // More than came was there to give.
        let counted = held.total.is_some_and(|total| total > held.asked.position.saturating_add(len));
        let capped = match &doubt {
            Some(Doubt { about: About::Capped { len: before }, .. }) => len == *before,
            _ => len > 0 && len < self.size && (held.more == Some(true) || counted),
        };
        if capped {
            let learned = Some(beliefs.capped(len, now));
            self.resize(len, now);
            return Taken { learned, restarted: Some(Restart::Resized), used: true, ..Taken::default() };
        }
        let ends = beliefs.ends(len, self.size);
        let how = How { ends, trusted: is_trusted(held, beliefs), new: is_new };
        if let Some(Doubt { about: About::Repeated(before), .. }) = &doubt
            && before.named
        {
            // Something else follows: as many items had arrived as a block has.
            self.fit(before, How { ends: false, trusted: false, new: false }, None, (beliefs, id), now);
        }
        let taken = self.fit(held, how, doubt, (beliefs, id), now);
        beliefs.saw(len);
        if short && !ends && self.doubt.is_none() {
            let chain = self.main.iter().chain(self.apart.iter().rev());
            let place = chain.filter_map(|chain| Some((chain.serial, chain.end_of(held)?))).next();
            let about = About::Short { block, len };
            self.doubt = place.map(|(serial, place)| Doubt { serial, place, block: block + 1, about });
        }
        taken
    }

    /// Puts a block where it belongs.
    fn fit(
        &mut self,
        held: &Arc<Held>,
        how: How,
        doubt: Option<Doubt>,
        (beliefs, id): (&Beliefs, Option<&Pointer>),
        now: Moment,
    ) -> Taken {
        let used = Taken { used: true, ..Taken::default() };
        let most = usize::try_from(self.size).unwrap_or(usize::MAX);
        match self.main.as_mut().map(|chain| chain.admit(held, how, id)) {
            Some(Fit::Joined(arrived)) => {
                if let Some(chain) = &mut self.main {
                    chain.tidy(most, id);
                    self.doubt = self.doubt.take().or_else(|| doubt?.grown(chain));
                }
                if arrived > 0 {
                    // Where these stood was counted from a head that has moved.
                    self.apart.clear();
                }
                return Taken { arrived, ..used };
            }
            Some(Fit::Contradicts(reason)) => {
                self.restart(held, beliefs, now);
                return Taken { restarted: Some(reason), ..used };
            }
            None if held.asked.position == 0 => {
                let chain = Chain::new(self.next_serial(), held, how.ends);
                self.main = Some(chain);
                return used;
            }
            Some(Fit::Apart) | None => {}
        }
        let joins = |chain: &mut Chain| {
            held.asked.position > 0 && matches!(chain.admit(held, how, id), Fit::Joined(_))
        };
        if self.apart.iter_mut().rev().any(joins) {
            return used;
        }
        if let Some(doubt) = doubt.and_then(Doubt::not_the_end) {
            self.doubt = Some(doubt);
            return used;
        }
        if !how.trusted {
            return Taken::default();
        }
        if self.apart.len() == MOST_APART {
            self.apart.remove(0);
        }
        let chain = Chain::new(self.next_serial(), held, how.ends);
        self.apart.push(chain);
        used
    }

    /// The upstream has nothing at what was `asked`: it answered as is its `habit` past the end. `is_new` is as with
    /// [`Book::take`].
    pub fn stops(
        &mut self,
        (asked, is_new): (Asked, bool),
        shown: &Arc<Entry>,
        habit: PastEnd,
        beliefs: &mut Beliefs,
        now: Moment,
    ) -> Taken {
        if !is_new && self.main.iter().chain(&self.apart).any(|chain| chain.outlived(asked, shown)) {
            return Taken::default();
        }
        // Of an empty list the last page is as empty as what lies past its end.
        let tells = habit != PastEnd::Empty || self.has_items();
        let learned = tells.then(|| beliefs.ends_with(habit)).flatten();
        let mut taken = Taken { learned, used: true, ..Taken::default() };
        let block = asked.position / self.size.max(1);
        let doubt = self.doubt.take_if(|doubt| doubt.block == block);
        if let Some(doubt) = doubt {
            if let Some(chain) =
                self.main.iter_mut().chain(&mut self.apart).find(|chain| chain.serial == doubt.serial)
            {
                chain.ends_at(doubt.place, shown);
            }
            return taken;
        }
        match self.main.as_mut().map(|chain| chain.stops(asked, shown)) {
            Some(Fit::Contradicts(reason)) => {
                if let Some(chain) = self.main.take() {
                    self.put_aside(chain, now);
                }
                self.apart.clear();
                taken.restarted = Some(reason);
            }
            Some(_) => {}
            None => taken.used = false,
        }
        for chain in &mut self.apart {
            chain.stops(asked, shown);
        }
        taken
    }

    /// Whether `held`, asked for past the last item, is the last page once more.
    fn is_last_again(&self, held: &Held, id: Option<&Pointer>) -> bool {
        let mut chains = self.main.iter().chain(self.apart.iter().rev());
        chains.any(|chain| chain.is_last_page(held, self.size, id))
    }

    /// A block contradicts the chain: another begins with it.
    fn restart(&mut self, held: &Arc<Held>, beliefs: &Beliefs, now: Moment) {
        if let Some(chain) = self.main.take() {
            self.put_aside(chain, now);
        }
        self.apart.clear();
        self.doubt = None;
        let chain = Chain::new(self.next_serial(), held, beliefs.ends(held.len() as u64, self.size));
        if held.asked.position == 0 {
            self.main = Some(chain);
        } else if is_trusted(held, beliefs) {
            self.apart.push(chain);
        }
    }

    fn put_aside(&mut self, chain: Chain, now: Moment) {
        if self.past.len() == MOST_PAST {
            self.past.remove(0);
        }
        self.past.push((chain, now));
    }

    /// Forgets chains that ended longer than `total` ago: no walk may go on in them.
    pub fn forget_past(&mut self, now: Moment, total: Duration) {
        self.past.retain(|(_, ended)| now.since(*ended) < total);
    }

    /// Forgets until at most `most` bytes are kept: what only walks read, what stands apart, what came first. Whether anything
    /// was forgotten.
    pub fn trim(&mut self, most: usize) -> bool {
        let mut trimmed = false;
        while self.bytes() > most {
            let forgot = if !self.past.is_empty() {
                self.past.remove(0);
                true
            } else if !self.apart.is_empty() {
                self.apart.remove(0);
                true
            } else {
                self.main.as_mut().is_some_and(Chain::forget_oldest)
            };
            if !forgot {
                break;
            }
            trimmed = true;
        }
        trimmed
    }

    /// How many bytes it keeps.
    pub fn bytes(&self) -> usize {
        let mut counted = HashSet::new();
        let chains = self.main.iter().chain(&self.apart).chain(self.past.iter().map(|(chain, _)| chain));
        let doubted = self.doubt.as_ref().map_or(0, Doubt::size);
        size_of::<Self>() + doubted + chains.map(|chain| chain.size(&mut counted)).sum::<usize>()
    }

    /// Every block there is.
    pub fn blocks(&self) -> impl Iterator<Item = &Arc<Held>> {
        let chains = self.main.iter().chain(&self.apart).chain(self.past.iter().map(|(chain, _)| chain));
        chains.flat_map(Chain::blocks)
    }

    /// The block that answered `asked`, if it is held as it came.
    pub fn block_of(&self, asked: Asked) -> Option<&Arc<Held>> {
        let chains = self.main.iter().chain(self.apart.iter().rev());
        chains
            .flat_map(Chain::blocks)
            .filter(|held| held.asked == asked)
            .max_by_key(|held| held.entry.arrived)
    }

    /// Whether the list is known to have items.
    pub fn has_items(&self) -> bool {
        self.main.iter().chain(&self.apart).any(Chain::has_items)
    }

    /// How many items of `span`, from its first on, blocks show that were `asked` for then, in the newest generation.
    pub fn shown(&self, span: &Range<u64>, asked: &Range<Moment>) -> u64 {
        self.main.as_ref().map_or(0, |chain| chain.shown(span, asked))
    }

    /// By how many items the upstream's list has grown at its head since `generation`, as far as was seen.
    pub fn behind(&self, generation: Generation) -> u64 {
        let ahead = self.chain(generation.serial).map_or(generation.head, |chain| chain.ahead);
        u64::try_from(generation.head.saturating_sub(ahead)).unwrap_or_default()
    }

    /// The block that holds `place` of the chain `serial`, to be asked for anew; `None` for a chain that ended.
    pub fn block_at(&self, serial: u32, place: i64) -> Option<u64> {
        Some(self.chain(serial)?.block_of(place, self.size))
    }

    /// The block that tells what lies behind `place`, where the chain `serial` ends; `None` for a chain that ended.
    pub fn block_behind(&self, serial: u32, place: i64) -> Option<u64> {
        let doubt = self.doubt.as_ref().filter(|doubt| (doubt.serial, doubt.place) == (serial, place));
        let behind = || self.block_at(serial, place).map(|block| block + 1);
        doubt.map(|doubt| doubt.block).or_else(behind)
    }

    /// The last page of `size` items, in the generation that begins at `head` of chain `serial`; `None` while it is
    /// not known where the list ends.
    pub fn last_page(&self, generation: Generation, size: u64) -> Option<u64> {
        let end = self.chain(generation.serial)?.exact_end()?;
        let total = u64::try_from(end.saturating_sub(generation.head)).ok()?;
        Some(total.saturating_sub(1) / size.max(1) * size)
    }

    /// Whether anything is known of this generation still.
    pub fn holds(&self, generation: Generation) -> bool {
        let past = || self.past.iter().any(|(chain, _)| chain.serial == generation.serial);
        self.chain(generation.serial).is_some() || past()
    }

    /// The newest generation, where the head was seen.
    pub fn newest(&self) -> Option<Generation> {
        self.main.as_ref().map(Chain::newest_generation)
    }

    /// How often a look has joined what stood apart: what was cut before may say less than is known by now.
    pub fn joined(&self) -> u32 {
        self.joined
    }

    pub(super) fn chain(&self, serial: u32) -> Option<&Chain> {
        self.main.iter().chain(&self.apart).find(|chain| chain.serial == serial)
    }

    fn next_serial(&mut self) -> u32 {
        self.serials = self.serials.wrapping_add(1);
        self.serials
    }
}

/// Whether a block that nothing connects with others holds the items that were asked for: past the end some upstreams
/// show the last page once more, and some give fewer items than were asked for.
fn is_trusted(held: &Held, beliefs: &Beliefs) -> bool {
    let past_end = beliefs.past_end();
    // Where fewer items are given than asked for, the block begins elsewhere.
    if !beliefs.gives(held.asked.size) && (held.len() as u64) < held.asked.size {
        return false;
    }
    let counted = held.total.is_some_and(|total| total > held.asked.position);
    counted || past_end.is_some_and(|habit| habit != PastEnd::Again)
}
