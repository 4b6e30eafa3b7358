//! What raw targets were understood as: a spelling that was seen before is not read again.
//!
//! A table of fixed size, looked up by a seeded hash; a new spelling takes the place of whichever stood there, so that
//! it is bounded without counting, and nobody waits. It belongs to one plan: a reload begins an empty one.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;

use crate::model::exchange::{Question, RouteId};

/// How many spellings there is room for: about 5 MB of usual ones, at most some 20 MB.
const PLACES: usize = 8192;
/// A spelling and its question that are longer together are read anew each time.
const MOST_BYTES: usize = 1024;

/// The spellings that were understood lately.
pub struct Remembered {
    places: Box<[ArcSwapOption<Spelling>]>,
    seed: RandomState,
}

/// One spelling of a question.
struct Spelling {
    route: RouteId,
    target: Box<str>,
    question: Arc<Question>,
    /// Nothing was ignored, defaulted or clamped that strictness would refuse.
    exact: bool,
}

impl Default for Remembered {
    fn default() -> Self {
        let places = std::iter::repeat_with(ArcSwapOption::empty).take(PLACES).collect();
        Self { places, seed: RandomState::default() }
    }
}

impl Remembered {
    /// What `target`, path and query as they came, was understood as on `route`. `strict` wants only what was
    /// understood under strictness.
    pub fn find(&self, route: RouteId, target: &str, strict: bool) -> Option<Arc<Question>> {
        let spelling = self.place(route, target)?.load();
        let spelling = spelling.as_ref()?;
        let same = spelling.route == route && *spelling.target == *target && (spelling.exact || !strict);
        same.then(|| spelling.question.clone())
    }

    /// Remembers that `target` on `route` is `question`; `exact`: that strictness had nothing to refuse.
    pub fn keep(&self, route: RouteId, target: &str, question: &Arc<Question>, exact: bool) {
        if target.len() + question.target.len() > MOST_BYTES {
            return;
        }
        if let Some(place) = self.place(route, target) {
            let spelling = Spelling { route, target: target.into(), question: question.clone(), exact };
            place.store(Some(Arc::new(spelling)));
        }
    }

    fn place(&self, route: RouteId, target: &str) -> Option<&ArcSwapOption<Spelling>> {
        let mut hasher = self.seed.build_hasher();
        route.hash(&mut hasher);
        hasher.write(target.as_bytes());
        let at = hasher.finish() % PLACES as u64;
        self.places.get(usize::try_from(at).ok()?)
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
            target: target.to_owned(),
            understood: None,
            changes: Vec::new(),
            window: None,
            collection: None,
        })
    }

    #[test]
    fn a_spelling_is_found_on_its_route_and_by_whom_it_suits() {
        let (remembered, one) = (Remembered::default(), question("/a?b=1"));
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
    fn what_is_long_is_not_kept() {
        let (remembered, target) = (Remembered::default(), "x".repeat(MOST_BYTES));
        remembered.keep(RouteId(0), &target, &question("/"), true);
        assert!(remembered.find(RouteId(0), &target, false).is_none());
    }
}
