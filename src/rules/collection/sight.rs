//! What a book knows of a window, and which block would tell the rest.

use std::ops::Range;

use super::book::Book;
use super::chain::{Chain, Fit, How, signed};
use super::doubt::{About, Doubt};
use super::held::Asked;
use super::view::Look;
use crate::rules::beliefs::{Beliefs, PastEnd};
use crate::rules::slices::Pointer;
use crate::rules::walks::Generation;

/// What is known of a window.
#[derive(Debug)]
pub enum Sight {
    /// In this generation.
    Seen(Generation, Look),
    /// This block has to be asked for.
    Unknown {
        /// Which block, counted from 0.
        block: u64,
        /// Whether anything of the window is known.
        partly: bool,
    },
    /// The walk's generation is gone, or cannot be known further.
    Gone,
}

impl Book {
    /// What is known of `span`: in the generation that `walk` reads, else in the newest.
    pub fn look(&mut self, span: &Range<u64>, walk: Option<Generation>, id: Option<&Pointer>) -> Sight {
        let sight = match walk {
            Some(generation) => self.look_in(generation, span, id),
            None => self.look_in_newest(span, id),
        };
        // Where the upstream may give no more than so many at once it would have cut a wider window: that comes first.
        match (&sight, &self.doubt) {
            (Sight::Seen(generation, _), Some(Doubt { serial, block, about: About::Capped { len }, .. }))
                if *serial == generation.serial && span.end - span.start > *len =>
            {
                Sight::Unknown { block: *block, partly: true }
            }
            _ => sight,
        }
    }

    fn look_in_newest(&mut self, span: &Range<u64>, id: Option<&Pointer>) -> Sight {
        for chain in self.main.iter().chain(self.apart.iter().rev()) {
            match chain.look(chain.head, span, self.size) {
                Look::Missing(_) => {}
                look => return Sight::Seen(chain.newest_generation(), look),
            }
        }
        // The chain that knows how the window begins, or what stands before it, is the one to go on with.
        let begins = |chain: &&Chain| {
            let before = span.start.saturating_sub(1)..span.start.saturating_add(1);
            let from = chain.head.saturating_add(signed(span.start));
            matches!(chain.look(chain.head, span, 0), Look::Missing(place) if place > from)
                || !matches!(chain.look(chain.head, &before, 0), Look::Missing(place) if place < from)
        };
        let chain = self.main.iter().chain(self.apart.iter().rev()).find(begins).or(self.main.as_ref());
        let Some((serial, head)) = chain.map(|chain| (chain.serial, chain.head)) else {
            return Sight::Unknown { block: span.start / self.size.max(1), partly: false };
        };
        self.missing(serial, head, span, id)
    }

    /// Whether `block`, if it is asked for, can be known to hold what was asked for: where nobody knows what lies past an
    /// end, only what is known beside it shows that, and so it is where that is the last page once more.
    pub fn can_place(&self, block: u64, beliefs: &Beliefs) -> bool {
        let size = signed(self.size);
        let chains = || self.main.iter().chain(&self.apart);
        let told = beliefs.past_end().is_some_and(|habit| habit != PastEnd::Again)
            || chains().any(|chain| chain.newest.total.is_some());
        let beside = |chain: &Chain| {
            let start = chain.ahead.saturating_add(signed(block.saturating_mul(self.size)));
            chain.runs.iter().any(|run| run.place <= start.saturating_add(size) && run.end() >= start)
        };
        block == 0
            || told
            || self.doubt.as_ref().is_some_and(|doubt| doubt.block == block)
            || chains().any(beside)
    }

    fn look_in(&mut self, generation: Generation, span: &Range<u64>, id: Option<&Pointer>) -> Sight {
        let size = self.size;
        let Generation { serial, head } = generation;
        let chains = self.main.iter().chain(&self.apart).chain(self.past.iter().map(|(chain, _)| chain));
        let Some(chain) = chains.into_iter().find(|chain| chain.serial == serial) else { return Sight::Gone };
        match chain.look(head, span, size) {
            // Nothing can be added to a chain that the upstream has contradicted.
            Look::Missing(_) if self.past.iter().any(|(chain, _)| chain.serial == serial) => Sight::Gone,
            Look::Missing(_) => self.missing(serial, head, span, id),
            look => Sight::Seen(generation, look),
        }
    }

    /// The block that holds the first unknown item of `span` in the chain `serial`, if nothing that stands apart does.
    fn missing(&mut self, serial: u32, head: i64, span: &Range<u64>, id: Option<&Pointer>) -> Sight {
        let from = head.saturating_add(signed(span.start));
        let mut tried = None;
        loop {
            let Some(chain) = self.chain(serial) else { return Sight::Gone };
            let place = match chain.look(head, span, self.size) {
                Look::Missing(place) => place,
                look => return Sight::Seen(Generation { serial, head }, look),
            };
            let unknown = |block| Sight::Unknown { block, partly: place > from };
            let block = chain.block_of(place, self.size);
            // What is missing of a block that came short is not in that block.
            let in_doubt = self.doubt.as_ref().filter(|doubt| {
                doubt.serial == serial
                    && doubt.place <= place
                    && chain.block_of(doubt.place, self.size) == block
            });
            if let Some(doubt) = in_doubt {
                return unknown(doubt.block);
            }
            if tried == Some(block) || !self.connect(serial, block, id) {
                return unknown(block);
            }
            tried = Some(block);
        }
    }

    /// Adds what stands apart to the chain `serial` where it holds `block`, if it is proven to belong there.
    fn connect(&mut self, serial: u32, block: u64, id: Option<&Pointer>) -> bool {
        let asked = Asked { position: block.saturating_mul(self.size), size: self.size };
        let others = self.apart.iter().filter(|chain| chain.serial != serial);
        let Some(held) = others.flat_map(|chain| chain.blocks()).find(|held| held.asked == asked).cloned()
        else {
            return false;
        };
        let chain = self.main.iter_mut().chain(&mut self.apart).find(|chain| chain.serial == serial);
        // What stands apart was trusted to hold what was asked for.
        let how = How { ends: false, trusted: true, new: false };
        let joins = chain.is_some_and(|chain| matches!(chain.admit(&held, how, id), Fit::Joined(_)));
        self.joined = self.joined.wrapping_add(joins.into());
        joins
    }
}
