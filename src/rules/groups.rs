//! Groups of responses that are erased together: `Cache-Groups` (RFC 9875) and the older `Surrogate-Key`.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::model::entry::Group;

const GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const INVALIDATES: HeaderName = HeaderName::from_static("cache-group-invalidation");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// RFC 9875 §2 asks for at least 32 groups of at least 32 characters. More and longer ones are ignored.
const MOST_GROUPS: usize = 128;
const LONGEST_GROUP: usize = 256;
/// Seeded once a process, so that no upstream can choose names that are taken for others.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The groups a response belongs to. Responses share a group only if they are of one origin too (RFC 9875 §2.1), so each
/// is told apart by its `origin`.
pub fn of(headers: &HeaderMap, origin: &[u8]) -> Vec<Group> {
    let mut groups = strings(headers, &GROUPS);
    for value in headers.get_all(&SURROGATE_KEY) {
        let keys = value.as_bytes().split(u8::is_ascii_whitespace).filter(|key| !key.is_empty());
        groups.extend(keys.map(<[u8]>::to_vec));
    }
    groups.retain(|group| group.len() <= LONGEST_GROUP);
    groups.truncate(MOST_GROUPS);
    groups.iter().map(|group| named(origin, group)).collect()
}

/// The groups that an answer to an unsafe request invalidates (RFC 9875 §3).
pub fn invalidated(headers: &HeaderMap, origin: &[u8]) -> Vec<Group> {
    strings(headers, &INVALIDATES).iter().map(|group| named(origin, group)).collect()
}

/// The group that `origin` calls `name`.
pub fn named(origin: &[u8], name: &[u8]) -> Group {
    Group(SEED.hash_one((origin, name)))
}

/// A list of strings, without the parameters of its members; a field that is none counts as absent.
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let list: List = Parser::new(&lines.join(&b","[..])).parse().unwrap_or_default();
    let strings: Option<Vec<Vec<u8>>> = list
        .iter()
        .map(|member| match member {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::String(group) => Some(group.as_str().as_bytes().to_vec()),
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
            let expected: Vec<_> = groups.iter().map(|group| named(b"u", group.as_bytes())).collect();
            assert_eq!(of(&headers, b"u"), expected, "{value}");
        }
    }
}
