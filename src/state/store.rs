//! What the gate remembers: entries by key, bounded in bytes by moka. moka decides what is forgotten when memory runs
//! out, and nothing else: freshness is decided by `rules::reuse` whenever an entry is looked at.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::model::entry::Entry;
use crate::model::key::{BuildKeyHasher, Key};

/// The most variants of one answer (RFC 9111 §4.1) that are kept; the oldest goes.
const MOST_VARIANTS: usize = 8;
/// What moka and the allocator keep for an entry beside key and value, in bytes: what `benches/memory` sees resident
/// beside the bodies is within 1 % of what is accounted for with it (64 B and 1 KiB bodies, six fields).
const OVERHEAD: usize = 560;

/// The entries. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    cache: Cache<Key, Variants, BuildKeyHasher>,
}

/// Every variant kept under one key, the newest first.
type Variants = Arc<[Arc<Entry>]>;

/// What looking found.
#[derive(Debug)]
pub enum Found {
    /// An entry these headers select.
    Entry(Arc<Entry>),
    /// Entries, but none these headers select.
    OtherVariant,
    /// Nothing.
    Nothing,
}

impl Store {
    /// An empty store that keeps at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, variants: &Variants| weight(key, variants))
            .build_with_hasher(BuildKeyHasher::default());
        Self { cache }
    }

    /// Looks for an answer to `key` that a request selects which sends upstream what `sent` says of a field.
    pub fn find<'a>(&self, key: &Key, sent: impl Fn(&HeaderName) -> Option<&'a HeaderValue>) -> Found {
        match self.cache.get(key) {
            None => Found::Nothing,
            Some(variants) => variants
                .iter()
                .find(|entry| entry.is_selected_by(&sent))
                .map_or(Found::OtherVariant, |entry| Found::Entry(entry.clone())),
        }
    }

    /// Keeps `entry` under `key`, in place of the variant it replaces.
    pub fn insert(&self, key: &Key, entry: &Arc<Entry>) {
        self.cache.entry(key.clone()).and_upsert_with(|held| {
            let held = held.map(moka::Entry::into_value);
            let others = held.iter().flat_map(|variants| variants.iter());
            let others = others.filter(|held| held.selectors != entry.selectors).take(MOST_VARIANTS - 1);
            std::iter::once(entry.clone()).chain(others.cloned()).collect()
        });
    }

    /// Forgets everything kept under `key`; whether there was anything.
    pub fn remove(&self, key: &Key) -> bool {
        let removed = self.cache.entry(key.clone()).and_compute_with(|_| Op::Remove);
        matches!(removed, moka::ops::compute::CompResult::Removed(_))
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.cache.invalidate_all();
    }

    /// How many keys are held, about.
    pub fn entries(&self) -> u64 {
        self.cache.entry_count()
    }

    /// How many bytes are held, about, overhead included.
    pub fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// Brings the two counts up to date.
    pub fn settle(&self) {
        self.cache.run_pending_tasks();
    }
}

fn weight(key: &Key, variants: &Variants) -> u32 {
    let bytes = OVERHEAD + key.size() + variants.iter().map(|entry| entry.size()).sum::<usize>();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;
    use http::header::ACCEPT;

    use super::*;
    use crate::model::entry::Facts;
    use crate::model::fields::Fields;
    use crate::model::moment::Moment;

    fn entry(accept: Option<&'static str>, body: &'static [u8]) -> Arc<Entry> {
        let selectors = Box::new([(ACCEPT, accept.map(HeaderValue::from_static))]);
        let parts = (StatusCode::OK, Fields::default(), Bytes::from_static(body));
        Arc::new(Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), selectors))
    }

    fn body(store: &Store, key: &Key, accept: Option<&'static str>) -> Option<Bytes> {
        let accept = accept.map(HeaderValue::from_static);
        match store.find(key, |name| accept.as_ref().filter(|_| *name == ACCEPT)) {
            Found::Entry(entry) => Some(entry.body.clone()),
            _ => None,
        }
    }

    #[test]
    fn variants_stand_beside_each_other_and_replace_their_own() {
        let (store, key) = (Store::new(1 << 20), Key::from_parts([&b"k"[..]]));
        store.insert(&key, &entry(None, b"none"));
        store.insert(&key, &entry(Some("a"), b"old"));
        store.insert(&key, &entry(Some("a"), b"new"));
        assert_eq!(body(&store, &key, Some("a")).as_deref(), Some(&b"new"[..]));
        assert_eq!(body(&store, &key, None).as_deref(), Some(&b"none"[..]));
        assert_eq!(body(&store, &key, Some("b")), None);
        assert!(store.remove(&key) && !store.remove(&key));
        assert!(matches!(store.find(&key, |_| None), Found::Nothing));
    }

    #[test]
    fn bytes_are_bounded() {
        let store = Store::new(100_000);
        for at in 0u32..10_000 {
            store.insert(&Key::from_parts([&at.to_be_bytes()[..]]), &entry(None, &[0; 1000]));
        }
        store.settle();
        assert!(store.bytes() <= 100_000, "{}", store.bytes());
        assert!(store.entries() > 10);
    }
}
