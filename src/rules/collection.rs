//! One question's items as far as they are known: which stand where, how old they are, and what a newly fetched block
//! says of those that were known before.
//!
//! An item has a *place*, a number that it keeps: what arrives at the head gets smaller ones. A [`Chain`] holds items
//! that are known to stand side by side, and a *generation* is a chain with a place where its list begins. So a list that
//! grew at its head has a new generation, and the old one is the same chain, begun further down: a walk that reads it
//! needs no copy.
//!
//! ```text
//! place       -2  -1   0   1   2   3   4   5 …
//! generation            └─ A   B   C   D   E …      as it was first seen
//! newer        └─  X    Y  A   B   C   D   E …      two arrived; C is at position 2 of the one, 4 of the other
//! ```
//!
//! Nothing is assumed about the order of a list; what ids prove is used. What they contradict starts a new chain.

mod align;
mod book;
mod chain;
mod cut;
mod doubt;
mod held;
mod sight;
mod step;
mod tidy;
mod view;

pub use book::{Book, Taken};
pub use chain::{Chain, Fit, How, Restart};
pub use cut::{Cut, Paging};
pub use held::{Asked, Held};
pub use sight::Sight;
pub use step::{Course, Fallback, Step, Wish, answered, course, left_of, next_step};
pub use view::{Freshness, Judged, Look, Part, View};
