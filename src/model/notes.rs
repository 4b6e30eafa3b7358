//! What is found out about a request on its way, for whoever reports on it: its way may end anywhere.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::exchange::{Changes, Question, RequestId};

/// What is found out about a request on its way, kept for its report however it ends.
#[derive(Debug)]
pub struct Notes {
    /// The request's id.
    pub id: RequestId,
    /// Who asks; unset until authenticated.
    pub client: Noted,
    /// Which route; unset until routed.
    pub route: Noted,
    /// The question, where understanding changed how it was spelt.
    pub changed: OnceLock<Arc<Question>>,
}

/// A place in the plan, noted by whoever finds it out; without a lock, for every request notes two.
#[derive(Debug)]
pub struct Noted(AtomicU32);

impl Notes {
    /// Nothing known yet but the id.
    pub fn new(id: RequestId) -> Arc<Self> {
        Arc::new(Self { id, client: Noted::nothing(), route: Noted::nothing(), changed: OnceLock::new() })
    }

    /// What understanding changed, if anything.
    pub fn changes(&self) -> Option<&Changes> {
        self.changed.get()?.changes.as_deref()
    }
}

impl Noted {
    const NOTHING: u32 = u32::MAX;

    fn nothing() -> Self {
        Self(AtomicU32::new(Self::NOTHING))
    }

    /// Notes a place.
    pub fn set(&self, place: u16) {
        self.0.store(place.into(), Ordering::Relaxed);
    }

    /// The place that was noted.
    pub fn place(&self) -> Option<usize> {
        let noted = self.0.load(Ordering::Relaxed);
        (noted != Self::NOTHING).then_some(noted as usize)
    }
}
