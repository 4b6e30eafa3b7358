//! What entries have in common, kept once for all of them: an API answers nearly always with the same fields, most of
//! them with the same values, and is asked with the same ones.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use http::header::{self, HeaderName};

use crate::model::entry::{Selectors, selectors_size};
use crate::model::fields::{Fields, Shape};

/// The most lists of either kind that are shared; an entry beyond them keeps, and is charged for, its own.
const MOST: usize = 1024;
/// A list whose values are longer than this together is not shared.
const LONGEST: usize = 8 << 10;
/// So many bytes of values are kept for as long as the process lives; those of later lists are let go of with them.
const MOST_LASTING: usize = 256 << 10;

/// What may be selected by without saying who asks.
static PREFERENCES: [HeaderName; 3] = [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE];

/// Every list that is shared.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: Mutex<HashMap<Box<[HeaderName]>, Arc<Shape>, RandomState>>,
    /// How many bytes of their values are kept for good.
    lasting: AtomicUsize,
    selectors: Mutex<HashSet<Selectors, RandomState>>,
}

impl Shapes {
    /// The same fields, what they have in common with other entries shared with them.
    pub fn share(&self, fields: Fields) -> Fields {
        let known = locked(&self.shapes).get(fields.shape().names()).cloned();
        if let Some(shape) = known {
            return fields.shaped(&shape);
        }
        let mut shapes = locked(&self.shapes);
        if shapes.len() >= MOST {
            // What only this table still knows belongs to no entry.
            shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        let bytes = fields.shape().bytes();
        if shapes.len() >= MOST || bytes > LONGEST {
            return fields;
        }
        let shape = match self.lasting.fetch_add(bytes, Ordering::Relaxed) + bytes <= MOST_LASTING {
            true => Arc::new(fields.shape().lasting()),
            false => Arc::new(fields.shape().lent()),
        };
        shapes.insert(shape.names().into(), shape.clone());
        fields.shaped(&shape)
    }

    /// The same selectors, shared with other entries that have them. Those that may say who asks are nobody else's, and go
    /// with their entry.
    pub fn share_selectors(&self, selectors: Selectors) -> Selectors {
        if selectors.is_empty() || !selectors.iter().all(|(name, _)| PREFERENCES.contains(name)) {
            return selectors;
        }
        let mut shared = locked(&self.selectors);
        if let Some(same) = shared.get(&selectors) {
            return same.clone();
        }
        if shared.len() >= MOST {
            shared.retain(|held| Arc::strong_count(held) > 1);
        }
        if shared.len() < MOST && selectors_size(&selectors) <= LONGEST {
            shared.insert(selectors.clone());
        }
        selectors
    }
}

/// A panic elsewhere must not end this: the tables are consistent after every statement.
fn locked<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderValue};

    use super::*;

    fn fields(name: &str) -> Fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("is a name");
        Fields::from_map(&HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]))
    }

    #[test]
    fn equal_names_are_kept_once_and_their_number_is_bounded() {
        let shapes = Shapes::default();
        let first = shapes.share(fields("x-first"));
        assert!(Arc::ptr_eq(first.shape(), shapes.share(fields("x-first")).shape()));
        let held: Vec<_> = (0..2 * MOST).map(|at| shapes.share(fields(&format!("x-{at}")))).collect();
        let shared = held.iter().filter(|fields| Arc::strong_count(fields.shape()) > 1).count();
        assert_eq!(shared, MOST - 1);
        drop(held);
        let late = shapes.share(fields("x-late"));
        assert!(Arc::ptr_eq(late.shape(), shapes.share(fields("x-late")).shape()));
        assert!(Arc::ptr_eq(first.shape(), shapes.share(fields("x-first")).shape()));
    }
}
