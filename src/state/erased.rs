//! What was erased lately: a call that began before must not bring it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::model::entry::Group;
use crate::model::key::{BuildKeyHasher, Key};
use crate::model::moment::Moment;

/// How long it is remembered: longer than any call.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The most keys and the most groups that are remembered.
const MOST_REMEMBERED: u64 = 100_000;

/// What was erased, and when. Clones share it.
///
/// Whoever erases says so here first, and whoever stores looks here once more behind it: so one of them sees the other.
#[derive(Debug, Clone)]
pub(super) struct Erased {
    keys: Cache<Key, Moment, BuildKeyHasher>,
    groups: Cache<Group, Moment>,
    /// When everything was.
    everything: Arc<AtomicU64>,
    /// When last anything was: a call that began since brings nothing back, whatever it is about, and most do.
    latest: Arc<AtomicU64>,
}

impl Erased {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            keys: Cache::builder()
                .max_capacity(MOST_REMEMBERED)
                .time_to_live(REMEMBERED)
                .build_with_hasher(BuildKeyHasher::default()),
            groups: Cache::builder().max_capacity(MOST_REMEMBERED).time_to_live(REMEMBERED).build(),
            everything: Arc::default(),
            latest: Arc::default(),
        }
    }

    /// What is held under `key` is erased at `now`.
    pub(super) fn key(&self, key: &Key, now: Moment) {
        self.keys.insert(key.clone(), now);
        self.latest.fetch_max(now.as_nanos(), Ordering::SeqCst);
    }

    /// What belongs to `group` is erased at `now`.
    pub(super) fn group(&self, group: Group, now: Moment) {
        self.groups.insert(group, now);
        self.latest.fetch_max(now.as_nanos(), Ordering::SeqCst);
    }

    /// Everything is erased at `now`.
    pub(super) fn everything(&self, now: Moment) {
        self.everything.fetch_max(now.as_nanos(), Ordering::SeqCst);
        self.latest.fetch_max(now.as_nanos(), Ordering::SeqCst);
    }

    /// When last, after `began`, what is held under `key` or of one of `groups` was erased.
    pub(super) fn since(&self, began: Moment, key: &Key, groups: &[Group]) -> Option<Moment> {
        if Moment::from_nanos(self.latest.load(Ordering::SeqCst)) <= began {
            return None;
        }
        let everything = Moment::from_nanos(self.everything.load(Ordering::SeqCst));
        let groups = groups.iter().filter_map(|group| self.groups.get(group));
        let latest = groups.chain(self.keys.get(key)).fold(everything, Moment::max);
        (latest > began).then_some(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_erased_since_and_all_of_it_is_found() {
        let (erased, at) = (Erased::new(), Moment::from_nanos);
        let key = |name: &str| Key::from_parts([name.as_bytes()]);
        let since = |began, name: &str, groups: &[Group]| erased.since(at(began), &key(name), groups);
        assert_eq!(since(0, "a", &[Group(1)]), None);
        erased.key(&key("a"), at(5));
        erased.group(Group(1), at(7));
        for (began, name, groups, found) in [
            (4, "a", &[][..], Some(5)),
            (5, "a", &[], None),
            (4, "b", &[], None),
            (4, "b", &[Group(2), Group(1)], Some(7)),
            (4, "a", &[Group(1)], Some(7)),
            (7, "a", &[Group(1)], None),
        ] {
            assert_eq!(since(began, name, groups), found.map(at), "{began} {name} {groups:?}");
        }
        erased.everything(at(9));
        assert_eq!((since(8, "b", &[]), since(9, "b", &[])), (Some(at(9)), None));
    }
}
