//! What makes two asks the same: the parts that can change an upstream's answer, joined so that they cannot blur.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Seeded once a process, so that nobody outside can choose queries that collide in our tables.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The cache key of an ask. Equal exactly when all parts are equal: the bytes are compared, the hash is only where
/// to look. Cloning shares.
#[derive(Clone)]
pub struct Key {
    hash: u64,
    /// Each part behind its length.
    bytes: Arc<[u8]>,
}

impl Key {
    /// Joins `parts`, each behind its length, so that `("ab", "c")` and `("a", "bc")` differ.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::with_capacity(128);
        for part in parts {
            push_length(&mut bytes, part.len());
            bytes.extend_from_slice(part);
        }
        Self { hash: SEED.hash_one(&bytes), bytes: bytes.into() }
    }

    /// The last of its parts; nothing of a key without any.
    pub fn last_part(&self) -> &[u8] {
        let (mut last, mut rest) = (&[][..], &*self.bytes);
        while let Some((part, behind)) = split_part(rest) {
            (last, rest) = (part, behind);
        }
        last
    }

    /// The key of one variant: this one with further `parts`, of which every key of an ask has the same number.
    #[must_use]
    pub fn with_parts<'a>(&'a self, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::from_parts(std::iter::once(&*self.bytes).chain(parts))
    }

    /// A name for the key that people can compare, and that does not show what was asked for: the first 16 bytes
    /// of its SHA-256, in hex.
    pub fn digest(&self) -> String {
        use fmt::Write;
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.bytes);
        digest.as_ref().iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The key's hash: the same for equal keys within a process, and next to never for others.
    pub fn hash_word(&self) -> u64 {
        self.hash
    }

    /// How many bytes the key keeps.
    pub fn size(&self) -> usize {
        size_of::<Self>() + 2 * size_of::<usize>() + self.bytes.len()
    }
}

/// Writes `length`, seven bits a byte, the lowest first; a byte that others follow has its highest bit set.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let [lowest, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            return bytes.push(lowest);
        }
        bytes.push(lowest | 0x80);
    }
}

/// The first part of `bytes`, and what stands behind it.
fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = 1 + bytes.iter().take_while(|byte| **byte & 0x80 != 0).count();
    let (digits, rest) = bytes.split_at_checked(digits)?;
    let length = digits.iter().rev().fold(0, |length, digit| length << 7 | usize::from(digit & 0x7f));
    rest.split_at_checked(length)
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.digest())
    }
}

/// Hashes a [`Key`] by the hash it already carries.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

/// Builds [`KeyHasher`]s.
pub type BuildKeyHasher = std::hash::BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Keys write one u64; anything else is mixed plainly rather than refused.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(32) ^ hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_their_parts_are(
            a in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..4),
            b in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..4),
        ) {
            let key = |parts: &[Vec<u8>]| Key::from_parts(parts.iter().map(Vec::as_slice));
            prop_assert_eq!(key(&a) == key(&b), a == b);
            prop_assert_eq!(key(&a).digest() == key(&b).digest(), a == b);
        }

        #[test]
        fn the_last_part_is_found_however_long_the_parts_are(lengths in prop::collection::vec(0usize..40_000, 1..4)) {
            let parts: Vec<Vec<u8>> = (0..).zip(&lengths).map(|(at, length)| vec![at; *length]).collect();
            let key = Key::from_parts(parts.iter().map(Vec::as_slice));
            prop_assert_eq!(Some(key.last_part()), parts.last().map(Vec::as_slice));
        }
    }
}
