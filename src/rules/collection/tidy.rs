//! What keeps a chain small: leftovers of blocks are copied out of them, and what came first is forgotten first.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::chain::{Chain, Run};
use super::held::{Asked, Held};
use crate::rules::slices::{Pointer, Seen, Shape};

/// A run of fewer items than its block's by this factor is copied out of it, so that a few items do not keep a whole
/// block in memory.
const WASTE: usize = 4;

impl Chain {
    /// Copies what little is left of a block out of it, and joins such leftovers: many heads seen one after the other
    /// would each keep a whole block for the few items that went down since. `most`: of how many at once.
    pub(super) fn tidy(&mut self, most: usize, id: Option<&Pointer>) {
        let mut at = 0;
        while let Some(run) = self.runs.get(at) {
            let wastes = run.items.len() * WASTE < run.held.len();
            // A block that came short is whole: joined with older items it would be as old as they are, and asked for anew.
            let is_small = |run: &Run| {
                run.items.len() < run.held.len() || (run.held.is_leftover() && run.held.len() * 2 < most)
            };
            let next = self.runs.get(at + 1).filter(|next| {
                is_small(next) && is_small(run) && run.end() == next.place
                    && run.items.len() + next.items.len() <= most
                    // Two whole blocks, or what is nearly one, gain nothing.
                    && (wastes || next.items.len() * WASTE < most)
            });
            let copied = match next {
                Some(next) => copied(&[run, next], id).map(|run| (run, at + 2)),
                None if wastes => copied(&[run], id).map(|run| (run, at + 1)),
                None => None,
            };
            match copied {
                Some((run, to)) => {
                    self.runs.splice(at..to, [run]);
                    // What was joined may be joined with what follows.
                    at += usize::from(to == at + 1);
                }
                None => at += 1,
            }
        }
    }

    /// Forgets the items that came first, the first block aside; `false` if there are none to forget.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let deeper = self.runs.iter().enumerate().filter(|(_, run)| run.place > self.head);
        let oldest = deeper.min_by_key(|(_, run)| run.held.entry.arrived).map(|(at, _)| at);
        oldest.map(|at| drop(self.runs.remove(at))).is_some()
    }
}

/// The items of `runs`, which stand side by side, in a block of their own that is as old as the oldest of them.
fn copied(runs: &[&Run], id: Option<&Pointer>) -> Option<Run> {
    let made = |run: &&&Run| run.held.entry.arrived.before(run.held.entry.initial_age);
    let oldest = runs.iter().min_by_key(made).map(|run| &run.held)?;
    let mut body = BytesMut::from(&b"["[..]);
    for (number, run) in runs.iter().enumerate() {
        if number > 0 {
            body.put_u8(b',');
        }
        body.extend_from_slice(&run.held.block.items(&run.items)?);
    }
    body.put_u8(b']');
    // Into an allocation of its own size.
    let entry = oldest.entry.with_body(body.to_vec().into_boxed_slice().into());
    let named = runs.iter().all(|run| run.held.named);
    let block = Shape { id: id.cloned(), ..Shape::default() }.scan(&entry.body).ok()?;
    let held = Held {
        origin: 0,
        seen: Seen::default(),
        entry: Arc::new(entry),
        asked: Asked { position: Asked::LEFTOVER, size: block.len() as u64 },
        block: Arc::new(block),
        named,
        total: None,
        more: None,
    };
    Some(Run { place: runs.first()?.place, items: 0..held.len(), held: Arc::new(held) })
}
