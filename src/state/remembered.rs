//! What raw targets were understood as: a spelling that was seen before is not read again.
//!
//! A table of fixed size, looked up by a seeded hash, each spelling in one of two neighbouring places; a new one takes
//! the place of whichever stood there, and where all together are too large, some others go. Nobody waits. It belongs to
//! one plan: a reload begins an empty one.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;

use crate::model::exchange::{Changes, Question, RouteId};

/// There is a pair of places for so many bytes of entries, and how many that are at least and at most.
const BYTES_A_PAIR: u64 = 4 << 10;
const FEWEST_PAIRS: u64 = 4096;
const MOST_PAIRS: u64 = 1 << 21;
/// All spellings may keep so many times less than the entries, and so much at least.
const SHARE: u64 = 16;
const LEAST_BYTES: u64 = 4 << 20;
/// A spelling that keeps more than this is read anew each time.
const MOST_BYTES: usize = 1536;

/// The spellings that were understood lately.
pub struct Remembered {
    pairs: Box<[Pair]>,
    seed: RandomState,
    /// How many bytes all of them keep.
    bytes: AtomicUsize,
    /// How many they may.
    most: usize,
    /// Which pair is emptied next where they keep too much.
    hand: AtomicUsize,
}

/// Two places that lie side by side in memory, where either may hold a spelling of the same hash.
type Pair = [ArcSwapOption<Spelling>; 2];

/// One spelling of a question.
struct Spelling {
    route: RouteId,
    target: Box<str>,
    question: Arc<Question>,
    /// Nothing was ignored, defaulted or clamped that strictness would refuse.
    exact: bool,
}

impl Spelling {
    fn is(&self, route: RouteId, target: &str) -> bool {
        self.route == route && *self.target == *target
    }

    /// How many bytes it keeps, its question's included.
    fn size(&self) -> usize {
        let Question { key, changes, collection, .. } = &*self.question;
        let changes = changes.as_ref().map_or(0, |changes| {
            let Changes { told, counted } = &**changes;
            size_of::<Changes>() + told.as_ref().map_or(0, |told| told.len()) + size_of_val(&**counted)
        });
        let collection = collection.as_ref().map_or(0, |key| key.size());
        size_of::<Self>() + self.target.len() + size_of::<Question>() + key.size() + changes + collection
    }
}

impl Remembered {
    /// Room for the spellings of questions whose entries keep at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let pairs = (max_bytes / BYTES_A_PAIR).clamp(FEWEST_PAIRS, MOST_PAIRS);
        let pairs = std::iter::repeat_with(Pair::default).take(usize::try_from(pairs).unwrap_or(1));
        Self {
            pairs: pairs.collect(),
            seed: RandomState::default(),
            bytes: AtomicUsize::new(0),
            most: usize::try_from((max_bytes / SHARE).max(LEAST_BYTES)).unwrap_or(usize::MAX),
            hand: AtomicUsize::new(0),
        }
    }

    /// What `target`, path and query as they came, was understood as on `route`. `strict` wants only what was
    /// understood under strictness.
    pub fn find(&self, route: RouteId, target: &str, strict: bool) -> Option<Arc<Question>> {
        self.pair(route, target)?.iter().find_map(|place| {
            let spelling = place.load();
            let spelling = spelling.as_ref().filter(|held| held.is(route, target))?;
            (spelling.exact || !strict).then(|| spelling.question.clone())
        })
    }

    /// Remembers that `target` on `route` is `question`; `exact`: that strictness had nothing to refuse.
    pub fn keep(&self, route: RouteId, target: &str, question: &Arc<Question>, exact: bool) {
        let spelling = Spelling { route, target: target.into(), question: question.clone(), exact };
        let size = spelling.size();
        let Some(pair) = self.pair(route, target).filter(|_| size <= MOST_BYTES) else { return };
        // Its own place before an empty one, and that before another's.
        let own = pair.iter().find(|place| place.load().as_ref().is_some_and(|held| held.is(route, target)));
        let place = own.or_else(|| pair.iter().find(|place| place.load().is_none()));
        // Counted before it can be found and replaced.
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.put(place.unwrap_or(&pair[0]), Some(Arc::new(spelling)));
        for _ in 0..self.pairs.len() {
            if self.bytes.load(Ordering::Relaxed) <= self.most {
                break;
            }
            let hand = self.hand.fetch_add(1, Ordering::Relaxed) % self.pairs.len();
            self.pairs.get(hand).into_iter().flatten().for_each(|place| self.put(place, None));
        }
    }

    /// Puts a spelling, or nothing, in place of whatever stands there.
    fn put(&self, place: &ArcSwapOption<Spelling>, spelling: Option<Arc<Spelling>>) {
        if let Some(held) = place.swap(spelling) {
            self.bytes.fetch_sub(held.size(), Ordering::Relaxed);
        }
    }

    fn pair(&self, route: RouteId, target: &str) -> Option<&Pair> {
        let mut hasher = self.seed.build_hasher();
        route.hash(&mut hasher);
        hasher.write(target.as_bytes());
        let at = hasher.finish() % self.pairs.len() as u64;
        self.pairs.get(usize::try_from(at).ok()?)
    }
}

impl fmt::Debug for Remembered {
    /// Without the spellings: they are callers' own text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::key::Key;

    fn question(target: &str) -> Arc<Question> {
        Arc::new(Question {
            key: Key::from_parts([target.as_bytes()]),
            changes: None,
            window: None,
            collection: None,
        })
    }

    #[test]
    fn a_spelling_is_found_on_its_route_and_by_whom_it_suits() {
        let (remembered, one) = (Remembered::new(0), question("/a?b=1"));
        assert!(remembered.find(RouteId(0), "/a?B=1", false).is_none());
        remembered.keep(RouteId(0), "/a?B=1", &one, false);
        let found = |route, target, strict| remembered.find(RouteId(route), target, strict).is_some();
        assert!(found(0, "/a?B=1", false));
        assert!(!found(0, "/a?B=1", true), "nobody has looked whether strictness would refuse it");
        assert!(!found(1, "/a?B=1", false) && !found(0, "/a?b=1", false));
        remembered.keep(RouteId(0), "/a?B=1", &one, true);
        assert!(found(0, "/a?B=1", true) && found(0, "/a?B=1", false));
    }

    #[test]
    fn two_of_one_hash_stand_side_by_side_and_the_whole_is_bounded() {
        let mut remembered = Remembered::new(0);
        // Every spelling has the same hash.
        remembered.pairs = Box::new([Pair::default()]);
        let found = |remembered: &Remembered, target| remembered.find(RouteId(0), target, false).is_some();
        for target in ["/a", "/b", "/b", "/a"] {
            remembered.keep(RouteId(0), target, &question(target), true);
        }
        assert!(found(&remembered, "/a") && found(&remembered, "/b"));
        remembered.keep(RouteId(0), "/c", &question("/c"), true);
        assert!(found(&remembered, "/c") && (found(&remembered, "/a") ^ found(&remembered, "/b")));

        let remembered = Remembered { most: 10_000, ..Remembered::new(0) };
        let targets: Vec<String> = (0..1000).map(|at| format!("/{at}")).collect();
        for target in &targets {
            remembered.keep(RouteId(0), target, &question(target), true);
            assert!(remembered.bytes.load(Ordering::Relaxed) <= remembered.most);
        }
        let spellings = remembered.pairs.iter().flatten().filter_map(|place| place.load_full());
        let held: Vec<usize> = spellings.map(|spelling| spelling.size()).collect();
        assert_eq!(held.iter().sum::<usize>(), remembered.bytes.load(Ordering::Relaxed));
        assert!(held.len() > 10, "{} are held", held.len());
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let (remembered, target) = (Remembered::new(0), "x".repeat(MOST_BYTES));
        remembered.keep(RouteId(0), &target, &question("/"), true);
        assert!(remembered.find(RouteId(0), &target, false).is_none());
    }
}
