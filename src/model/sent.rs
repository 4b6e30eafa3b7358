//! Whether a call was sent: until then it can be called back for nothing, afterwards it is paid for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A mark that whoever began a call shares with whoever sends it.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Sent {
    /// It is about to be sent.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
