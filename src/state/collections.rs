//! Collections as the store keeps them: each a book of its items under a lock that is held for a look, what was cut from
//! it lately, and who reads on in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::header::HeaderName;
use moka::ops::compute::Op;

use super::paged::RouteNumber;
use super::store::{Kept, Store};
use crate::model::entry::Entry;
use crate::model::key::Key;
use crate::model::moment::Moment;
use crate::rules::collection::{Book, Cut};
use crate::rules::vary;
use crate::rules::walks::{Generation, Guesses};

/// The most windows of a collection that are kept as they were cut.
const MOST_CUT: usize = 64;
/// The most variants of one collection that are kept; the oldest goes.
const MOST_VARIANTS: usize = 8;
/// How far what is kept may grow beyond what is accounted for.
const SLACK: usize = 4 << 10;

/// For how long a collection whose answers cannot be cut is forwarded as it is asked.
pub const SHUNNED_FOR: Duration = Duration::from_secs(60);

/// What is known of a collection, in one variant of it.
#[derive(Debug)]
pub struct Collection {
    /// An answer of it without its body: by what they vary, and how.
    like: Entry,
    known: Mutex<Known>,
    /// What it was last accounted for with.
    bytes: AtomicUsize,
}

/// Which window was cut: by which route, out of which generation, behind how many items of it, and how many it has.
type CutKey = (RouteNumber, Generation, u64, u64);

/// What is known of a collection.
#[derive(Debug)]
pub struct Known {
    /// Its items.
    pub book: Book,
    /// Who reads on in it.
    pub guesses: Guesses,
    /// Until when it is not worth trying to cut it.
    pub shunned_until: Moment,
    cut: HashMap<CutKey, Arc<Cut>, RandomState>,
}

impl Collection {
    /// Nothing known of a collection that answers as `entry` does, in blocks of `size` items.
    pub fn new(entry: &Entry, size: u64) -> Self {
        let known = Known {
            book: Book::new(size),
            guesses: Guesses::default(),
            shunned_until: Moment::ORIGIN,
            cut: HashMap::default(),
        };
        let bytes = AtomicUsize::new(known.size());
        Self { like: entry.with_body(Bytes::new()), known: Mutex::new(known), bytes }
    }

    /// What is known, for a look.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere must not lose a collection: what is known is right after every statement.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> usize {
        self.known().book.blocks().count()
    }

    /// Whether any block's answer is such a one.
    pub(super) fn any(&self, is: impl Fn(&Entry) -> bool) -> bool {
        self.known().book.blocks().any(|held| is(&held.entry))
    }

    /// Ends the freshness of every block whose answer is such a one; how many they were.
    pub(super) fn expire(&self, is: impl Fn(&Entry) -> bool, now: Moment) -> usize {
        let known = self.known();
        let blocks = known.book.blocks().filter(|held| is(&held.entry));
        blocks.map(|held| held.entry.expire(now)).count()
    }

    /// How many bytes it keeps, as last accounted for.
    pub(super) fn size(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Known {
    /// A window, as it was cut before.
    pub(super) fn find_cut(&self, key: &CutKey) -> Option<&Arc<Cut>> {
        self.cut.get(key)
    }

    /// Keeps a window as it was cut.
    pub(super) fn keep_cut(&mut self, key: CutKey, cut: &Arc<Cut>) {
        if self.cut.len() >= MOST_CUT {
            self.cut.clear();
        }
        self.cut.insert(key, cut.clone());
    }

    /// Items changed: what was cut from them is to be cut anew.
    pub fn changed(&mut self) {
        self.cut.clear();
    }

    /// How many bytes it keeps. What is cut after it was last accounted for is not in that: at most [`MOST_CUT`] windows'
    /// fields and envelopes, their items being the book's.
    fn size(&self) -> usize {
        let cut: usize = self.cut.values().map(|cut| cut.size()).sum();
        size_of::<Collection>() + self.book.bytes() + self.guesses.size() + cut
    }
}

impl Store {
    /// What is known of the collection under `key`, in the variant that a request selects which sends upstream what `sent`
    /// says of a field.
    pub fn collection<'a>(
        &self,
        key: &Key,
        sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>,
    ) -> Option<Arc<Collection>> {
        match self.cache.get(key)? {
            // Handed on rather than counted once more.
            Kept::Collection(held) => vary::selects(&held.like, &sent).then_some(held),
            kept => kept.collections().iter().find(|held| vary::selects(&held.like, &sent)).cloned(),
        }
    }

    /// The collection under `key` whose answers vary as `entry`'s do, which is an answer of it; a new one, in blocks of
    /// `size` items, if there is none.
    pub fn collection_of(&self, key: &Key, entry: &Entry, size: u64) -> Arc<Collection> {
        let mut found = None;
        self.cache.entry(key.clone()).and_compute_with(|held| {
            let held = held.map(moka::Entry::into_value);
            let held = held.as_ref().map(Kept::collections).unwrap_or_default();
            if let Some(same) = held.iter().find(|held| held.like.selectors == entry.selectors) {
                found = Some(same.clone());
                return Op::Nop;
            }
            let new = Arc::new(Collection::new(entry, size));
            self.list(&new);
            found = Some(new.clone());
            let others = held.iter().take(MOST_VARIANTS - 1).cloned();
            Op::Put(Kept::of_collections(new, others.collect()))
        });
        found.unwrap_or_else(|| Arc::new(Collection::new(entry, size)))
    }

    /// Accounts for what `collection` under `key` has grown to, if it is kept still, and trims it to its share.
    pub fn account(&self, key: &Key, collection: &Arc<Collection>) {
        let size = {
            let mut known = collection.known();
            if known.book.trim(self.most_of_one()) {
                known.changed();
            }
            known.size()
        };
        let before = collection.bytes.swap(size, Ordering::Relaxed);
        if before.abs_diff(size) < SLACK && before >= size {
            return;
        }
        self.cache.entry(key.clone()).and_compute_with(|held| match held.map(moka::Entry::into_value) {
            Some(kept) if kept.collections().iter().any(|held| Arc::ptr_eq(held, collection)) => {
                Op::Put(kept)
            }
            _ => Op::Nop,
        });
    }

    /// How many pages somebody is due to read, and how many of them in one of several generations.
    pub fn walks(&self, now: Moment) -> (u64, u64) {
        let held: Vec<_> = {
            let listed = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
            listed.iter().filter_map(Weak::upgrade).collect()
        };
        // Whoever begins a collection meanwhile does not wait until all were looked at.
        let counts = held.iter().map(|collection| collection.known().guesses.open(now));
        counts.fold((0, 0), |sum, (open, ambiguous)| (sum.0 + open, sum.1 + ambiguous))
    }

    /// Notes that there is a collection; those that are gone are forgotten before there is need of more room.
    fn list(&self, collection: &Arc<Collection>) {
        let mut listed = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() == listed.capacity() {
            listed.retain(|collection| collection.strong_count() > 0);
            let room = listed.len().max(16);
            listed.reserve(room);
        }
        listed.push(Arc::downgrade(collection));
    }

    /// How much of the memory one collection may take.
    fn most_of_one(&self) -> usize {
        let most = self.cache.policy().max_capacity().unwrap_or(u64::MAX) / 4;
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}
