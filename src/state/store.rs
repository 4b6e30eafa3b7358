//! What the gate remembers: entries by key, bounded in bytes by moka. moka decides what is forgotten when memory runs
//! out, and nothing else: freshness is decided by `rules::reuse` whenever an entry is looked at.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::erased::Erased;
use super::shapes::Shapes;
use crate::model::entry::{Entry, Group, Selectors};
use crate::model::fields::Fields;
use crate::model::key::{BuildKeyHasher, Key};
use crate::model::moment::Moment;
use crate::rules::ranges::{self, Within};
use crate::rules::vary;
use crate::state::collections::Collection;

/// The most variants of one answer (RFC 9111 §4.1) that are kept; the oldest goes.
const MOST_VARIANTS: usize = 8;
/// What moka, the allocator and the spelling that was understood keep for an entry beside key and value, in bytes: what
/// `benches/memory` sees resident beside bodies of 64 B to 4 KiB is within a tenth of what is accounted for with it.
const OVERHEAD: usize = 560;

/// For how long nobody waits for somebody else's call whose answer would not be shared.
const UNSHARED_FOR: Duration = Duration::from_secs(60);
/// The most keys of which that is remembered.
const MOST_REMEMBERED: u64 = 100_000;

/// The entries. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) cache: Cache<Key, Kept, BuildKeyHasher>,
    /// Keys whose answers are nobody else's.
    unshared: Cache<Key, (), BuildKeyHasher>,
    /// What was erased, and when: a call begun before must not bring it back.
    erased: Erased,
    /// What entries have in common.
    shapes: Arc<Shapes>,
    /// The collections there are, and may have been.
    pub(super) collections: Arc<Mutex<Vec<Weak<Collection>>>>,
}

/// What is kept under one key.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// The only variant of an answer, as most have.
    Answer(Arc<Entry>),
    /// Every variant of an answer, the newest first.
    Answers(Arc<Vec<Arc<Entry>>>),
    /// What is known of a collection in its only variant.
    Collection(Arc<Collection>),
    /// What is known of a collection, for every variant of it.
    Collections(Arc<Vec<Arc<Collection>>>),
}

impl Kept {
    /// These variants of an answer.
    fn of_answers(newest: Arc<Entry>, others: Vec<Arc<Entry>>) -> Self {
        match others.is_empty() {
            true => Self::Answer(newest),
            false => Self::Answers(Arc::new(std::iter::once(newest).chain(others).collect())),
        }
    }

    /// These variants of a collection.
    pub(super) fn of_collections(newest: Arc<Collection>, others: Vec<Arc<Collection>>) -> Self {
        match others.is_empty() {
            true => Self::Collection(newest),
            false => Self::Collections(Arc::new(std::iter::once(newest).chain(others).collect())),
        }
    }

    /// The answers.
    fn answers(&self) -> &[Arc<Entry>] {
        match self {
            Self::Answer(answer) => std::slice::from_ref(answer),
            Self::Answers(answers) => answers,
            Self::Collection(_) | Self::Collections(_) => &[],
        }
    }

    /// The collections.
    pub(super) fn collections(&self) -> &[Arc<Collection>] {
        match self {
            Self::Answer(_) | Self::Answers(_) => &[],
            Self::Collection(collection) => std::slice::from_ref(collection),
            Self::Collections(collections) => collections,
        }
    }
}

/// What looking found.
#[derive(Debug)]
pub enum Found {
    /// An entry these headers select.
    Entry(Arc<Entry>),
    /// Entries, but none these headers select.
    OtherVariant,
    /// Parts alone.
    Parts,
    /// Nothing.
    Nothing,
}

impl Store {
    /// An empty store that keeps at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, kept: &Kept| weight(key, kept))
            .build_with_hasher(BuildKeyHasher::default());
        Self {
            cache,
            unshared: Cache::builder()
                .max_capacity(MOST_REMEMBERED)
                .time_to_live(UNSHARED_FOR)
                .build_with_hasher(BuildKeyHasher::default()),
            erased: Erased::new(),
            shapes: Arc::default(),
            collections: Arc::default(),
        }
    }

    /// Looks for an answer to `key` that a request selects which sends upstream what `sent` says of a field.
    pub fn find<'a>(&self, key: &Key, sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>) -> Found {
        match self.cache.get(key) {
            None => Found::Nothing,
            // Handed on rather than counted once more.
            Some(Kept::Answer(entry)) if selected(std::slice::from_ref(&entry), &sent).is_some() => {
                Found::Entry(entry)
            }
            Some(kept) => selected(kept.answers(), sent)
                .map_or_else(|| nothing(kept.answers()), |entry| Found::Entry(entry.clone())),
        }
    }

    /// Where requests for `key` part ways that send upstream what `sent` says of a field, as far as is known: by the
    /// fields that the newest answer's `Vary` names.
    pub fn variant<'a>(&self, key: &Key, sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>) -> Key {
        let variants = self.cache.get(key);
        let varying = variants.iter().flat_map(Kept::answers).find(|entry| !entry.selectors.is_empty());
        let Some(varying) = varying else { return key.clone() };
        let values = vary::course(varying, sent);
        // A field that is absent differs from one that is empty.
        key.with_parts(values.iter().flat_map(|value| match value {
            Some(value) => [&b"="[..], value],
            None => [&b""[..], b""],
        }))
    }

    /// Looks for a part that answers a request for `range`, all else being as in [`Store::find`].
    pub fn find_part<'a>(
        &self,
        key: &Key,
        range: &[u8],
        sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>,
    ) -> Option<(Arc<Entry>, Within)> {
        let variants = self.cache.get(key)?;
        let mut parts =
            variants.answers().iter().filter(|entry| entry.part.is_some() && vary::selects(entry, &sent));
        parts.find_map(|entry| Some((entry.clone(), ranges::within(entry, range)?)))
    }

    /// Looks for a part that one more call could complete, all else being as in [`Store::find`].
    pub fn find_completable<'a>(
        &self,
        key: &Key,
        sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>,
    ) -> Option<Arc<Entry>> {
        let fits = |entry: &&Arc<Entry>| ranges::is_completable(entry) && vary::selects(entry, &sent);
        self.cache.get(key)?.answers().iter().find(fits).cloned()
    }

    /// Every part kept under `key`.
    pub fn parts(&self, key: &Key) -> Vec<Arc<Entry>> {
        let variants = self.cache.get(key);
        let parts = variants.iter().flat_map(Kept::answers).filter(|entry| entry.part.is_some());
        parts.cloned().collect()
    }

    /// What entries have in common.
    pub fn shapes(&self) -> &Arc<Shapes> {
        &self.shapes
    }

    /// Packs the fields of an entry to be kept, and shares with others what it has in common with them.
    pub fn packed(&self, fields: &HeaderMap, selectors: Selectors) -> (Fields, Selectors) {
        (self.shapes.share(Fields::from_map(fields)), self.shapes.share_selectors(selectors))
    }

    /// Keeps `entry` under `key`, in place of the variant it replaces, unless that was erased after the call that
    /// brought it had begun. Whether it is kept.
    ///
    /// It replaces what its own request, which `sent` these fields, would have selected.
    pub fn insert(&self, key: &Key, entry: &Arc<Entry>, sent: &HeaderMap, began: Moment) -> bool {
        let is_erased = || self.erased(key, entry.groups(), began).is_some();
        if is_erased() {
            return false;
        }
        self.unshared.invalidate(key);
        self.cache.entry(key.clone()).and_upsert_with(|held| {
            let held = held.map(moka::Entry::into_value);
            let others = held.iter().flat_map(Kept::answers);
            let others = others.filter(|held| !replaces(entry, held, sent)).take(MOST_VARIANTS - 1);
            Kept::of_answers(entry.clone(), others.cloned().collect())
        });
        // Whoever erased it between the look and the insertion may have looked before it stood there.
        if is_erased() {
            self.forget(key, entry);
            return false;
        }
        true
    }

    /// Keeps `entry` no longer under `key`; the same may be kept again.
    pub fn forget(&self, key: &Key, entry: &Arc<Entry>) {
        self.retain(key, |held| !std::ptr::eq(held, Arc::as_ptr(entry)), |_| true);
    }

    /// Forgets everything kept under `key`, at `now`; how many entries that were.
    pub fn remove(&self, key: &Key, now: Moment) -> usize {
        self.erased.key(key, now);
        self.unshared.invalidate(key);
        self.retain(key, |_| false, |_| false)
    }

    /// Ends the freshness of everything kept under `key`, at `now`; how many entries that were.
    pub fn expire(&self, key: &Key, now: Moment) -> usize {
        self.erased.key(key, now);
        let held = self.cache.get(key);
        let blocks: usize =
            held.iter().flat_map(Kept::collections).map(|held| held.expire(|_| true, now)).sum();
        blocks + held.iter().flat_map(Kept::answers).map(|entry| entry.expire(now)).count()
    }

    /// Forgets what under `key` is not to be kept; how many entries that were, each block of a collection being one.
    fn retain(
        &self,
        key: &Key,
        keep: impl Fn(&Entry) -> bool,
        keep_collection: impl Fn(&Collection) -> bool,
    ) -> usize {
        let mut gone = 0;
        self.cache.entry(key.clone()).and_compute_with(|held| {
            let left = match held.map(moka::Entry::into_value) {
                None => return Op::Nop,
                Some(held @ (Kept::Answer(_) | Kept::Answers(_))) => {
                    let held = held.answers();
                    gone = held.iter().filter(|entry| !keep(entry)).count();
                    let mut left = held.iter().filter(|entry| keep(entry)).cloned();
                    left.next().map(|newest| Kept::of_answers(newest, left.collect()))
                }
                Some(held @ (Kept::Collection(_) | Kept::Collections(_))) => {
                    let (left, ended): (Vec<_>, Vec<_>) =
                        held.collections().iter().cloned().partition(|held| keep_collection(held));
                    gone = ended.iter().map(|held| held.blocks().max(1)).sum();
                    let mut left = left.into_iter();
                    left.next().map(|newest| Kept::of_collections(newest, left.collect()))
                }
            };
            match left {
                None => Op::Remove,
                Some(_) if gone == 0 => Op::Nop,
                Some(left) => Op::Put(left),
            }
        });
        gone
    }

    /// Forgets every entry that belongs to `group`, at `now`; how many that were. A collection one of whose blocks does is
    /// forgotten as a whole, and its walks end. Looks at every entry there is.
    pub fn remove_group(&self, group: Group, now: Moment) -> usize {
        self.erased.group(group, now);
        let belongs = |entry: &Entry| entry.belongs(group);
        let keys = self.cache.iter().filter(|(_, kept)| {
            kept.answers().iter().any(|entry| belongs(entry))
                || kept.collections().iter().any(|held| held.any(belongs))
        });
        let keys: Vec<_> = keys.map(|(key, _)| Key::clone(&key)).collect();
        keys.iter().map(|key| self.retain(key, |entry| !belongs(entry), |held| !held.any(belongs))).sum()
    }

    /// Ends the freshness of every entry that belongs to `group`, at `now`; how many that were.
    pub fn expire_group(&self, group: Group, now: Moment) -> usize {
        self.erased.group(group, now);
        let expire = |(_, kept): (_, Kept)| {
            let entries = kept.answers().iter().filter(|entry| entry.belongs(group));
            let blocks = kept.collections().iter().map(|held| held.expire(|entry| entry.belongs(group), now));
            entries.map(|entry| entry.expire(now)).count() + blocks.sum::<usize>()
        };
        self.cache.iter().map(expire).sum()
    }

    /// Counts what is held under `key` as it is now: an entry may have been given codings.
    pub fn weigh_again(&self, key: &Key) {
        self.cache.entry(key.clone()).and_compute_with(|held| match held {
            Some(held) => Op::Put(held.into_value()),
            None => Op::Nop,
        });
    }

    /// An answer to `key` was nobody else's: for a while, nobody waits for another's.
    pub fn remember_unshared(&self, key: &Key) {
        self.unshared.insert(key.clone(), ());
    }

    /// Whether an answer to `key` was nobody else's lately.
    pub fn is_unshared(&self, key: &Key) -> bool {
        self.unshared.contains_key(key)
    }

    /// When last, after `began`, what is held under `key` or of one of `groups` was erased.
    pub fn erased(&self, key: &Key, groups: &[Group], began: Moment) -> Option<Moment> {
        self.erased.since(began, key, groups)
    }

    /// Forgets everything, at `now`.
    pub fn clear(&self, now: Moment) {
        self.erased.everything(now);
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

/// Whether `new` stands in place of `held`: the same variant, whole for whole and part, part for the same part.
fn replaces(new: &Entry, held: &Entry, sent: &HeaderMap) -> bool {
    let same = match (&new.part, &held.part) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(new), Some(held)) => new.asked == held.asked,
    };
    same && (new.selectors == held.selectors || vary::selects(held, |name| vary::combined(sent, name)))
}

/// The newest that `sent` selects. "When a cache has multiple stored responses for a target URI and one or more omits the
/// Vary header field, the cache SHOULD choose the most recent … stored response with a valid Vary field value" (RFC
/// 9111 §4.1): without one, it serves only until the upstream says that it varies.
fn selected<'a, 'v>(
    variants: &'v [Arc<Entry>],
    sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>,
) -> Option<&'v Arc<Entry>> {
    let (mut plain, mut varies) = (None, false);
    for entry in variants.iter().filter(|entry| entry.part.is_none()) {
        if entry.selectors.is_empty() {
            plain = plain.or((!varies).then_some(entry));
        } else if vary::selects(entry, &sent) {
            return Some(entry);
        } else {
            varies = true;
        }
    }
    plain
}

fn nothing(variants: &[Arc<Entry>]) -> Found {
    match variants.iter().any(|entry| entry.part.is_none()) {
        true => Found::OtherVariant,
        false => Found::Parts,
    }
}

fn weight(key: &Key, kept: &Kept) -> u32 {
    let answers = kept.answers().iter().map(|entry| entry.size());
    let collections = kept.collections().iter().map(|held| held.size());
    let bytes = OVERHEAD + key.size() + answers.chain(collections).sum::<usize>();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::{ACCEPT, HeaderValue};

    use bytes::Bytes;

    use super::*;
    use crate::model::entry::Facts;

    fn entry(accept: Option<&'static str>, body: &'static [u8]) -> Arc<Entry> {
        let selectors = Arc::new([(ACCEPT, accept.map(HeaderValue::from_static))]);
        let parts = (StatusCode::OK, Fields::default(), Bytes::from_static(body));
        Arc::new(Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), selectors))
    }

    fn sent(accept: Option<&'static str>) -> HeaderMap {
        accept.map(|value| (ACCEPT, HeaderValue::from_static(value))).into_iter().collect()
    }

    fn body(store: &Store, key: &Key, accept: Option<&'static str>) -> Option<Bytes> {
        match store.find(key, |name| accept.filter(|_| *name == ACCEPT).map(|value| value.as_bytes().into()))
        {
            Found::Entry(entry) => Some(entry.body.clone()),
            _ => None,
        }
    }

    #[test]
    fn variants_stand_beside_each_other_and_replace_their_own() {
        let (store, key) = (Store::new(1 << 20), Key::from_parts([&b"k"[..]]));
        for (accept, body) in [(None, &b"none"[..]), (Some("a"), b"old"), (Some("a"), b"new")] {
            assert!(store.insert(&key, &entry(accept, body), &sent(accept), Moment::ORIGIN));
        }
        assert_eq!(body(&store, &key, Some("a")).as_deref(), Some(&b"new"[..]));
        assert_eq!(body(&store, &key, None).as_deref(), Some(&b"none"[..]));
        assert_eq!(body(&store, &key, Some("b")), None);
        let now = Moment::from_nanos(5);
        assert_eq!((store.remove(&key, now), store.remove(&key, now)), (2, 0));
        assert!(
            !store.insert(&key, &entry(None, b"late"), &sent(None), Moment::from_nanos(4)),
            "its call began before"
        );
        assert!(matches!(store.find(&key, |_| None), Found::Nothing));
    }

    #[test]
    fn bytes_are_bounded() {
        let store = Store::new(100_000);
        for at in 0u32..10_000 {
            let key = Key::from_parts([&at.to_be_bytes()[..]]);
            store.insert(&key, &entry(None, &[0; 1000]), &sent(None), Moment::ORIGIN);
        }
        store.settle();
        assert!(store.bytes() <= 100_000, "{}", store.bytes());
        assert!(store.entries() > 10);
    }
}
