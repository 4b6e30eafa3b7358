//! The lists of field names that entries share: an API answers nearly always with the same ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use http::header::HeaderName;

use crate::model::fields::{Fields, Shape};

/// The most lists that are shared; an entry beyond them keeps, and is charged for, its own.
const MOST_SHAPES: usize = 1024;

/// Every list that is shared.
#[derive(Debug, Default)]
pub struct Shapes(Mutex<HashMap<Box<[HeaderName]>, Arc<Shape>, RandomState>>);

impl Shapes {
    /// The same fields, their names shared with all entries that have them.
    pub fn share(&self, fields: Fields) -> Fields {
        // A panic elsewhere must not end this: the table is consistent after every statement.
        let mut shapes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shape) = shapes.get(fields.shape().names()) {
            return fields.shaped(shape);
        }
        if shapes.len() >= MOST_SHAPES {
            // What only this table still knows belongs to no entry.
            shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        if shapes.len() < MOST_SHAPES {
            shapes.insert(fields.shape().names().into(), fields.shape().clone());
        }
        fields
    }
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
        let held: Vec<_> = (0..2 * MOST_SHAPES).map(|at| shapes.share(fields(&format!("x-{at}")))).collect();
        let shared = held.iter().filter(|fields| Arc::strong_count(fields.shape()) > 1).count();
        assert_eq!(shared, MOST_SHAPES - 1);
        drop(held);
        let late = shapes.share(fields("x-late"));
        assert!(Arc::ptr_eq(late.shape(), shapes.share(fields("x-late")).shape()));
        assert!(Arc::ptr_eq(first.shape(), shapes.share(fields("x-first")).shape()));
    }
}
