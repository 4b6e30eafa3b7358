//! Prefixed identifiers: the prefix once, whether it came never, once or twice.

use super::clean::{Form, clean, strip};
use super::notes::Rule;
use super::read::Reading;
use super::uuid::{self, strip_prefix_any_case};

pub(super) fn read(raw: &str, prefix: &str) -> Option<Reading> {
    let text = clean(raw, Form::Compatible);
    let id = stem(&text, prefix, strip);
    // A replaced character may have been any: two identifiers must not become one.
    if id.is_empty() || id.contains(char::REPLACEMENT_CHARACTER) {
        return None;
    }
    Some(Reading::of([prefix, id].concat(), &text, Rule::Prefixed))
}

pub(super) fn read_uuid(raw: &str, prefix: &str) -> Option<Reading> {
    let text = clean(raw, Form::Compatible);
    let id = uuid::canonical(stem(&text, prefix, uuid::unwrapped))?;
    Some(Reading::of([prefix, &id].concat(), &text, Rule::Prefixed))
}

/// Whether a value brings its prefix.
pub(super) fn has_prefix(raw: &str, prefix: &str) -> bool {
    strip_prefix_any_case(&clean(raw, Form::Compatible), prefix).is_some()
}

/// What is left without the prefix and what `unwrap` takes off, alternating.
fn stem<'a>(text: &'a str, prefix: &str, unwrap: impl Fn(&'a str) -> &'a str) -> &'a str {
    let mut stem = unwrap(text);
    while let Some(rest) = strip_prefix_any_case(stem, prefix) {
        stem = unwrap(rest);
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let table = [
            ("fid_123", Some("fid_123")),
            ("123", Some("fid_123")),
            ("fid_fid_123", Some("fid_123")),
            ("FID_123", Some("fid_123")),
            (" \"fid_123\" ", Some("fid_123")),
            ("fid_ '123'", Some("fid_123")),
            ("fid_aBc", Some("fid_aBc")),
            ("ﬁd_１２３", Some("fid_123")),
            ("fid", Some("fid_fid")),
            ("fid_", None),
            ("fid_fid_", None),
            ("", None),
            ("12\u{fffd}", None),
            ("1²", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw, "fid_").map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn identifiers_that_are_uuids() {
        const ID: &str = "cid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab";
        let table = [
            (ID, Some(ID)),
            ("0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", Some(ID)),
            ("CID_0B6A1C1E95A24C3F8A1E0123456789AB", Some(ID)),
            ("cid_cid_{0b6a1c1e-95a2-4c3f-8a1e-0123456789ab}", Some(ID)),
            ("{cid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab}", Some(ID)),
            ("cid_urn:uuid:0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", Some(ID)),
            ("cid_", None),
            ("cid_123", None),
            ("fid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read_uuid(raw, "cid_").map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }
}
