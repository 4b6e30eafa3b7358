//! Content codings (RFC 9110 §8.4.1) in which the gate answers what it has stored as it came.

use std::sync::Arc;

use super::entry::Entry;

/// A content coding that the gate makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// Every coding.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// An entry as it is answered: each coding a representation of its own, with its own fields, body and tag.
#[derive(Debug)]
pub struct Coded {
    /// As it came.
    pub plain: Arc<Entry>,
    /// In each coding that is worth it, the route's favourite first.
    pub others: Box<[(Coding, Arc<Entry>)]>,
}
