//! Windows cut from blocks: where the items of a JSON body lie, and the answer an upstream would have given to another
//! window over the same items.
//!
//! [`Shape::scan`] reads a body once, when it is stored, and keeps where its items begin ([`Block`]). Whatever is
//! answered later is made of slices of that body: items are the upstream's own bytes and are never written anew. An
//! envelope around them is rewritten member by member, and only if every member is declared, for of a member nobody
//! described nobody can say what it would be in another window. A member that is declared may be absent.
//!
//! ```text
//! body of a block   [ {…}, {…}, {…}, {…}, {…} ]
//! starts              ^    ^    ^    ^    ^        four bytes an item, and four more for a hash of its id
//! window of two     [ ·········· {…}, {…} ]        `[`, one slice, `]`
//! ```

pub mod address;
pub mod block;
pub mod compose;
pub mod counting;
pub mod envelope;
pub mod pointer;
pub mod shape;

pub use address::Address;
pub use block::{Block, Said};
pub use compose::{Place, Run, compose, tag};
pub use counting::Counting;
pub use envelope::{Roles, Seen};
pub use pointer::Pointer;
pub use shape::{Follow, Role, Shape};

use std::fmt;

/// Why windows cannot be cut from a body. It is passed on as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsliceable {
    /// It is no JSON: broken off, `NaN`, bytes behind its end, bytes that are no UTF-8.
    NotJson,
    /// It is nested deeper than [`shape::MOST_NESTING`].
    TooDeep,
    /// Its bytes cannot be counted in 32 bits.
    TooLong,
    /// It has more items than [`shape::MOST_ITEMS`].
    TooManyItems,
    /// It is no array, or not the object that is declared.
    OtherShape,
    /// A name stands twice in an object around the items: readers differ in which one they take.
    TwiceNamed,
    /// An object around the items has a member that is not declared.
    Undeclared,
    /// A declared member is not what its role needs, such as a total that is no whole number.
    OddMember,
}

impl Unsliceable {
    /// Every reason, for counters.
    pub const ALL: [Self; 8] = [
        Self::NotJson,
        Self::TooDeep,
        Self::TooLong,
        Self::TooManyItems,
        Self::OtherShape,
        Self::TwiceNamed,
        Self::Undeclared,
        Self::OddMember,
    ];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::TooLong => "too_long",
            Self::TooManyItems => "too_many_items",
            Self::OtherShape => "other_shape",
            Self::TwiceNamed => "twice_named",
            Self::Undeclared => "undeclared",
            Self::OddMember => "odd_member",
        }
    }
}

impl fmt::Display for Unsliceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "the body is no JSON",
            Self::TooDeep => "the body is nested too deep",
            Self::TooLong => "the body is longer than can be counted",
            Self::TooManyItems => "the body has too many items",
            Self::OtherShape => "the body does not hold its items where `items` says",
            Self::TwiceNamed => "an object around the items names a member twice",
            Self::Undeclared => "an object around the items has a member that `members` does not declare",
            Self::OddMember => "a member is not what `members` declares it to be",
        })
    }
}

impl std::error::Error for Unsliceable {}

#[cfg(test)]
mod tests;
