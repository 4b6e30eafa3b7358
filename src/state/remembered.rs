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

use crate::model::exchange::{Changes, Question, RouteId, Spelling};

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

/// Two places that lie side by side in memory, where either may hold a spelling of the same hash, and what it was read as.
type Pair = [ArcSwapOption<Question>; 2];

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
            let held = place.load();
            let held = held.as_ref().filter(|held| is_spelt(held, route, target))?;
            let exact = held.spelling.as_ref().is_some_and(|spelling| spelling.exact);
            (exact || !strict).then(|| held.clone())
        })
    }

    /// `target` on `route` as it is remembered, if it is not too long for that; `exact`: that strictness had nothing to refuse.
    pub fn spelling(&self, route: RouteId, target: &str, exact: bool) -> Option<Spelling> {
        (target.len() < MOST_BYTES).then(|| Spelling { target: target.into(), route, exact })
    }

    /// Remembers what `question`, which knows its spelling, was read from.
    pub fn keep(&self, question: &Arc<Question>) {
        let Some(Spelling { target, route, .. }) = &question.spelling else { return };
        let size = size(question);
        let Some(pair) = self.pair(*route, target).filter(|_| size <= MOST_BYTES) else { return };
        // Its own place before an empty one, and that before another's.
        let is_own = |held: &Arc<Question>| is_spelt(held, *route, target);
        let own = pair.iter().find(|place| place.load().as_ref().is_some_and(is_own));
        let place = own.or_else(|| pair.iter().find(|place| place.load().is_none()));
        // Counted before it can be found and replaced.
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.put(place.unwrap_or(&pair[0]), Some(question.clone()));
        for _ in 0..self.pairs.len() {
            if self.bytes.load(Ordering::Relaxed) <= self.most {
                break;
            }
            let hand = self.hand.fetch_add(1, Ordering::Relaxed) % self.pairs.len();
            self.pairs.get(hand).into_iter().flatten().for_each(|place| self.put(place, None));
        }
    }

    /// Puts a question, or nothing, in place of whatever stands there.
    fn put(&self, place: &ArcSwapOption<Question>, question: Option<Arc<Question>>) {
        if let Some(held) = place.swap(question) {
            self.bytes.fetch_sub(size(&held), Ordering::Relaxed);
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

/// Whether `target` on `route` is how `question` was put.
fn is_spelt(question: &Question, route: RouteId, target: &str) -> bool {
    question.spelling.as_ref().is_some_and(|held| held.route == route && *held.target == *target)
}

/// How many bytes `question` keeps.
fn size(question: &Question) -> usize {
    let Question { key, changes, collection, spelling, window: _ } = question;
    let changes = changes.as_ref().map_or(0, |changes| {
        let Changes { told, counted } = &**changes;
        size_of::<Changes>() + told.as_ref().map_or(0, |told| told.len()) + size_of_val(&**counted)
    });
    let collection = collection.as_ref().map_or(0, |key| key.size());
    let target = spelling.as_ref().map_or(0, |spelling| spelling.target.len());
    2 * size_of::<usize>() + size_of::<Question>() + key.size() + changes + collection + target
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

    fn question(route: u16, target: &str, exact: bool) -> Arc<Question> {
        Arc::new(Question {
            key: Key::from_parts([target.as_bytes()]),
            changes: None,
            window: None,
            collection: None,
            spelling: Some(Spelling { target: target.into(), route: RouteId(route), exact }),
        })
    }

    #[test]
    fn a_spelling_is_found_on_its_route_and_by_whom_it_suits() {
        let remembered = Remembered::new(0);
        assert!(remembered.find(RouteId(0), "/a?B=1", false).is_none());
        remembered.keep(&question(0, "/a?B=1", false));
        let found = |route, target, strict| remembered.find(RouteId(route), target, strict).is_some();
        assert!(found(0, "/a?B=1", false));
        assert!(!found(0, "/a?B=1", true), "nobody has looked whether strictness would refuse it");
        assert!(!found(1, "/a?B=1", false) && !found(0, "/a?b=1", false));
        remembered.keep(&question(0, "/a?B=1", true));
        assert!(found(0, "/a?B=1", true) && found(0, "/a?B=1", false));
    }

    #[test]
    fn two_of_one_hash_stand_side_by_side_and_the_whole_is_bounded() {
        let mut remembered = Remembered::new(0);
        // Every spelling has the same hash.
        remembered.pairs = Box::new([Pair::default()]);
        let found = |remembered: &Remembered, target| remembered.find(RouteId(0), target, false).is_some();
        for target in ["/a", "/b", "/b", "/a"] {
            remembered.keep(&question(0, target, true));
        }
        assert!(found(&remembered, "/a") && found(&remembered, "/b"));
        remembered.keep(&question(0, "/c", true));
        assert!(found(&remembered, "/c") && (found(&remembered, "/a") ^ found(&remembered, "/b")));

        let remembered = Remembered { most: 10_000, ..Remembered::new(0) };
        let targets: Vec<String> = (0..1000).map(|at| format!("/{at}")).collect();
        for target in &targets {
            remembered.keep(&question(0, target, true));
            assert!(remembered.bytes.load(Ordering::Relaxed) <= remembered.most);
        }
        let questions = remembered.pairs.iter().flatten().filter_map(|place| place.load_full());
        let held: Vec<usize> = questions.map(|question| size(&question)).collect();
        assert_eq!(held.iter().sum::<usize>(), remembered.bytes.load(Ordering::Relaxed));
        assert!(held.len() > 10, "{} are held", held.len());
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let (remembered, target) = (Remembered::new(0), "x".repeat(MOST_BYTES));
        assert!(remembered.spelling(RouteId(0), &target, true).is_none());
        remembered.keep(&question(0, &target, true));
        assert!(remembered.find(RouteId(0), &target, false).is_none());
    }
}
