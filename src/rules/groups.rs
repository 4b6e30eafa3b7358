//! Groups of responses that are erased together: `Cache-Groups` (RFC 9875) and the older `Surrogate-Key`.

use std::hash::BuildHasher as _;

use bytes::Bytes;
use foldhash::quality::FixedState;
use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

const GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const INVALIDATES: HeaderName = HeaderName::from_static("cache-group-invalidation");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// RFC 9875 §2 asks for at least 32 groups of at least 32 characters. More and longer ones are ignored.
const MOST_GROUPS: usize = 128;
const LONGEST_GROUP: usize = 256;

/// The groups a response belongs to. Responses share a group only if they are of one origin too (RFC 9875 §2.1), so each
/// name stands behind its `origin`.
pub fn of(headers: &HeaderMap, origin: &[u8]) -> Box<[Bytes]> {
    let mut groups = strings(headers, &GROUPS);
    for value in headers.get_all(&SURROGATE_KEY) {
        let keys = value.as_bytes().split(u8::is_ascii_whitespace).filter(|key| !key.is_empty());
        groups.extend(keys.map(Bytes::copy_from_slice));
    }
    groups.retain(|group| group.len() <= LONGEST_GROUP);
    groups.truncate(MOST_GROUPS);
    groups.iter().map(|group| scoped(origin, group)).collect()
}

/// The groups that an answer to an unsafe request invalidates (RFC 9875 §3).
pub fn invalidated(headers: &HeaderMap, origin: &[u8]) -> Vec<Bytes> {
    strings(headers, &INVALIDATES).iter().map(|group| scoped(origin, group)).collect()
}

/// How `group` of `origin` compares: NUL stands in neither.
pub fn scoped(origin: &[u8], group: &[u8]) -> Bytes {
    [origin, group].join(&0).into()
}

/// A hash to know a group by where there is no room for its name: of some 2³² that are kept, two are alike.
pub fn tag(group: &[u8]) -> u64 {
    FixedState::with_seed(0x7a65).hash_one(group)
}

/// A list of strings, without the parameters of its members; a field that is none counts as absent.
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<Bytes> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let list: List = Parser::new(&lines.join(&b","[..])).parse().unwrap_or_default();
    let strings: Option<Vec<Bytes>> = list
        .iter()
        .map(|member| match member {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::String(group) => Some(Bytes::copy_from_slice(group.as_str().as_bytes())),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        })
        .collect();
    strings.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn groups_are_strings_or_nothing() {
        for (name, value, groups) in [
            ("cache-groups", "\"a\", \"b c\";x=1", &["a", "b c"][..]),
            ("cache-groups", "a, \"b\"", &[]),
            ("surrogate-key", "a  b", &["a", "b"]),
            ("x-other", "\"a\"", &[]),
        ] {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            let expected: Vec<_> = groups.iter().map(|group| scoped(b"u", group.as_bytes())).collect();
            assert_eq!(of(&headers, b"u")[..], expected[..], "{value}");
        }
    }
}
