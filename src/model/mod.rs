//! Floor 0: the nouns. No clock, no I/O, no serde, nothing that waits for a lock.
//!
//! [`exchange`] is the file to read first: a request is a value that changes type as it is understood.

pub mod answer;
pub mod body;
pub mod cache_status;
pub mod coding;
pub mod entry;
pub mod exchange;
pub mod fault;
pub mod fields;
pub mod ids;
pub mod interim;
pub mod key;
pub mod moment;
pub mod notes;
pub mod secret;
pub mod sent;
pub mod short;
pub mod urgency;

pub use body::{Body, BodyError};
pub use coding::Coding;
pub use entry::Entry;
pub use fault::{Fault, FaultKind};
pub use fields::Fields;
pub use interim::Interim;
pub use key::Key;
pub use moment::Moment;
pub use secret::Secret;
pub use sent::Sent;
pub use short::Short;
