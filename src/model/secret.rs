//! A secret: bytes that print as `***` and are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A credential, client key or token. `Debug` and `Display` never show it; dropping wipes it.
///
/// The bytes leave through [`Secret::expose`] alone, so that a search for that word finds every use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for signing a request or comparing a key.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it (an empty variable or file is a mistake of configuration).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_formatting_shows_the_bytes() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)), "*** *** Some(\n    ***,\n)");
    }
}
