//! What one answer leaves in doubt, and which block tells.

use std::sync::Arc;

use super::chain::Chain;
use super::held::Held;

/// An answer that may mean several things; another block tells which.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The chain it is about.
    pub(super) serial: u32,
    /// The place behind the items that came.
    pub(super) place: i64,
    /// The block that tells.
    pub(super) block: u64,
    pub(super) about: About,
}

#[derive(Debug)]
pub(super) enum About {
    /// So many items came as this block, fewer than were asked for: is this the end, or all that is given at once?
    Short { block: u64, len: u64 },
    /// There is more behind them: it is all that is given at once, unless the list grew meanwhile.
    Capped { len: u64 },
    /// This block came once more: is this what lies past the end, or did as many items arrive as it has?
    Repeated(Arc<Held>),
}

impl Doubt {
    /// How many bytes it keeps.
    pub(super) fn size(&self) -> usize {
        match &self.about {
            About::Repeated(held) => held.size(),
            About::Short { .. } | About::Capped { .. } => 0,
        }
    }

    /// Something stands behind a block that came short: that block once more tells whether it is all that is given at once.
    pub(super) fn not_the_end(self) -> Option<Self> {
        let About::Short { block, len } = self.about else { return None };
        Some(Self { block, about: About::Capped { len }, ..self })
    }

    /// The same, where it is `chain` that knows of something behind.
    pub(super) fn grown(self, chain: &Chain) -> Option<Self> {
        let place = chain.last_place().filter(|last| chain.serial == self.serial && *last > self.place)?;
        Some(Self { place, ..self.not_the_end()? })
    }
}
