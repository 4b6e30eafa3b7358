//! A stored body whose items were found: eight bytes an item beside its own.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use bytes::Bytes;
use foldhash::quality::FixedState;

use super::envelope::Roles;
use super::pointer::Pointer;
use super::shape::Role;

/// A body, where its items begin, and what stands around them. Made by `Shape::scan`; cloning copies the places, so
/// share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub(super) body: Bytes,
    /// Where each item begins.
    pub(super) starts: Box<[u32]>,
    /// A hash of each item's id, 0 for none; empty where the shape names no id.
    pub(super) ids: Box<[u32]>,
    /// Where the array begins and ends.
    pub(super) list: Range<u32>,
    /// Where the last item ends; behind the array's bracket if there is none.
    pub(super) end: u32,
    /// The declared members around it, in the order of their places.
    pub(super) slots: Box<[Slot]>,
    /// Which members those are.
    pub(super) given: Roles,
    pub(super) said: Said,
    /// Of the bytes from its first item to its last.
    pub(super) digest: u128,
    /// Of what stands around them, without what changes from window to window.
    pub(super) skeleton: u128,
}

/// A member of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// What an envelope says of the collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// How many items there are in all.
    pub total: Option<u64>,
    /// Whether there is more behind this block: `more`, or whether `next` leads anywhere.
    pub more: Option<bool>,
    /// What the members that never change said: blocks of one collection agree in it.
    pub constants: u128,
}

impl Block {
    /// How many items it has.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// What its envelope says.
    pub fn said(&self) -> Said {
        self.said
    }

    /// Which declared members its envelope has.
    pub fn given(&self) -> Roles {
        self.given
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// A digest of its items: equal for equal items written equally.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The bytes of item `place`; empty where there is none.
    pub fn item(&self, place: usize) -> &str {
        let span = self.span(&(place..place + 1)).unwrap_or_default();
        self.body.get(span).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Items `places` as they stand, the upstream's own commas between them: a reference into the body. `None` for
    /// places it does not have, and for none.
    pub fn items(&self, places: &Range<usize>) -> Option<Bytes> {
        self.span(places).map(|span| self.body.slice(span))
    }

    /// A hash of item `place`'s id, to find it by: equal ids have equal hashes, other ids may. `None` without an id.
    pub fn id_hash(&self, place: usize) -> Option<u32> {
        self.ids.get(place).copied().filter(|hash| *hash != 0)
    }

    /// The id of item `place`, to confirm what a hash found.
    pub fn id(&self, place: usize, at: &Pointer) -> Option<Cow<'_, [u8]>> {
        at.id(self.item(place))
    }

    /// The bytes it keeps: its body, and what was found in it.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.body.len()
            + (self.starts.len() + self.ids.len()) * size_of::<u32>()
            + self.slots.len() * size_of::<Slot>()
    }

    /// Where items `places` lie, from the first byte of the first to the last of the last.
    fn span(&self, places: &Range<usize>) -> Option<Range<usize>> {
        let last = places.end.checked_sub(1).filter(|last| *last >= places.start)?;
        let start = *self.starts.get(places.start)? as usize;
        let end = match self.starts.get(last + 1) {
            None => {
                self.starts.get(last)?;
                self.end as usize
            }
            // Between an item and the next there is one comma, and space around it.
            Some(next) => {
                let before = self.body.get(..*next as usize)?;
                before.trim_ascii_end().strip_suffix(b",")?.trim_ascii_end().len()
            }
        };
        Some(start..end)
    }
}

/// A hash of an id, never 0.
pub fn id_hash(id: &[u8]) -> u32 {
    let hash = FixedState::with_seed(0x7011_6a7e).hash_one(id);
    // Both halves are as good as the other.
    u32::try_from(hash >> 32).unwrap_or_default().max(1)
}

/// The first half of SHA-256: tags are made of it, and a strong tag must not be the same for other bytes.
pub(super) fn digest(bytes: &[u8]) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}
