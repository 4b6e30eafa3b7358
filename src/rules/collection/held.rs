//! A block as it is held: the answer it came as, where its items lie, and what it says of its collection.

use std::sync::Arc;

use http::header::{self, HeaderName};

use crate::model::entry::Entry;
use crate::rules::slices::{Block, Pointer, Role, Seen, Shape, Unsliceable, address};

/// A block with the answer that brought it. Never changed; every run that shows items of it shares it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The answer: its fields, and when it arrived.
    pub entry: Arc<Entry>,
    /// Its items.
    pub block: Arc<Block>,
    /// Which items were asked for, counted as the upstream counted them then.
    pub asked: Asked,
    /// Whether every item names itself, and no two by the same name: only then do ids prove anything.
    pub named: bool,
    /// How many items the collection has in all, if the answer said.
    pub total: Option<u64>,
    /// Whether there are items behind these, if the answer said.
    pub more: Option<bool>,
    /// What it shows of the members of envelopes.
    pub seen: Seen,
    /// Where the answer lay in memory as it came: those who waited for one call know by it that it was read already.
    pub(super) origin: usize,
}

/// What the upstream was asked for: so many items behind so many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How many items stand before the first one.
    pub position: u64,
    /// How many were asked for.
    pub size: u64,
}

impl Asked {
    /// The position of items that were copied out of blocks: nobody asked for them as they are.
    pub(super) const LEFTOVER: u64 = u64::MAX;
}

impl Held {
    /// Finds the items of `entry`, an answer to `asked`; `fields` are the response fields that speak of the collection.
    ///
    /// # Errors
    /// Why windows cannot be cut from it.
    pub fn read(
        entry: Arc<Entry>,
        asked: Asked,
        shape: &Shape,
        fields: &[(Role, HeaderName)],
    ) -> Result<Self, Unsliceable> {
        let block = shape.scan(&entry.body)?;
        Ok(Self::of(entry, Arc::new(block), asked, shape, fields))
    }

    /// The same items in another answer: what a 304 says again.
    #[must_use]
    pub fn again(&self, entry: Arc<Entry>, shape: &Shape, fields: &[(Role, HeaderName)]) -> Self {
        Self::of(entry, self.block.clone(), self.asked, shape, fields)
    }

    fn of(
        entry: Arc<Entry>,
        block: Arc<Block>,
        asked: Asked,
        shape: &Shape,
        fields: &[(Role, HeaderName)],
    ) -> Self {
        let said = block.said();
        let total = || {
            let (_, name) = fields.iter().find(|(role, _)| *role == Role::Total)?;
            std::str::from_utf8(entry.fields.first(name)?).ok()?.trim().parse().ok()
        };
        let mut held = Self {
            seen: Seen::default(),
            named: shape.id.as_ref().is_some_and(|id| is_named(&block, id)),
            total: said.total.or_else(total),
            more: said.more.or_else(|| address::leads_on(&entry.fields.to_map(0))),
            origin: Arc::as_ptr(&entry).addr(),
            entry,
            block,
            asked,
        };
        held.seen = held.seen_of(shape);
        held
    }

    /// Which members it has of those that are declared, and whether those it lacks had something to say.
    fn seen_of(&self, shape: &Shape) -> Seen {
        let mut seen = Seen { given: self.block.given(), ..Seen::default() };
        for (role, _) in shape.members.iter().filter(|(role, _)| !self.block.given().has(*role)) {
            let says = match role {
                Role::Prev => Some(self.asked.position > 0),
                Role::Next | Role::More if self.leads_on() => Some(true),
                // What came short most likely ends the list.
                Role::Next | Role::More => ((self.len() as u64) < self.asked.size).then_some(false),
                Role::From | Role::To => Some(!self.is_empty()),
                _ => None,
            };
            match says {
                Some(true) => seen.silent = seen.silent.and(*role),
                Some(false) => seen.omitted = seen.omitted.and(*role),
                None => {}
            }
        }
        seen
    }

    /// The same, which was decoded from `entry`.
    #[must_use]
    pub fn decoded_from(mut self, entry: &Arc<Entry>) -> Self {
        self.origin = Arc::as_ptr(entry).addr();
        self
    }

    /// Whether this is what `entry` became.
    pub fn came_as(&self, entry: &Arc<Entry>) -> bool {
        self.origin == Arc::as_ptr(entry).addr() && self.entry.asked == entry.asked
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// Whether it was made of what was left of blocks.
    pub(super) fn is_leftover(&self) -> bool {
        self.asked.position == Asked::LEFTOVER
    }

    /// Whether the answer has a `Link`.
    pub fn is_linked(&self) -> bool {
        self.entry.fields.first(&header::LINK).is_some()
    }

    /// Whether there are items before these or behind them, as far as the answer says.
    pub fn leads(&self) -> bool {
        (self.asked.position > 0 && !self.is_empty()) || self.leads_on()
    }

    /// Whether there are items behind these, as far as the answer says.
    fn leads_on(&self) -> bool {
        let stop = self.asked.position.saturating_add(self.len() as u64);
        self.more == Some(true) || self.total.is_some_and(|total| total > stop)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Whether two items are the same thing by name, edited or not.
    pub(super) fn is_same_item(&self, at: usize, other: &Self, place: usize, id: Option<&Pointer>) -> bool {
        if self.block.item(at) == other.block.item(place) {
            return true;
        }
        let name = |held: &Self, at| held.block.id(at, id?).map(|name| name.into_owned());
        id.is_some() && name(self, at).is_some() && name(self, at) == name(other, place)
    }

    /// How many bytes it keeps.
    pub fn size(&self) -> usize {
        // The block's body is the entry's.
        size_of::<Self>() + self.entry.size() + self.block.size().saturating_sub(self.block.body().len())
    }
}

/// Whether every item of `block` has an id of its own.
fn is_named(block: &Block, id: &Pointer) -> bool {
    let hashes: Option<Vec<(u32, usize)>> =
        (0..block.len()).map(|place| Some((block.id_hash(place)?, place))).collect();
    let Some(mut hashes) = hashes else { return false };
    hashes.sort_unstable();
    // Two ids of one hash are most likely one id twice.
    hashes.windows(2).all(|pair| match pair {
        [(one, place), (other, next)] if one == other => block.id(*place, id) != block.id(*next, id),
        _ => true,
    })
}
