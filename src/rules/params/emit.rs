//! A query put together: RFC 3986 encoding with upper-case hex, so that one meaning has one spelling.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::query::{self, RawPair};

/// All but RFC 3986 section 2.3, unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `name=value`, decoded as they are given.
pub(super) fn push_pair(query: &mut String, name: &str, value: &str) {
    separate(query);
    push(query, name.as_bytes());
    query.push('=');
    push(query, value.as_bytes());
}

/// Appends pairs nothing is known about, sorted by name, then as they came, byte for byte what they meant.
pub(super) fn push_unknown(query: &mut String, mut pairs: Vec<RawPair<'_>>) {
    pairs.sort_by_cached_key(|pair| query::bytes(pair.name).into_owned());
    for pair in pairs {
        separate(query);
        push(query, &query::bytes(pair.name));
        if let Some(value) = pair.value {
            query.push('=');
            push(query, &query::bytes(value));
        }
    }
}

/// The query of a route that declares no parameters: its pairs as they were written, sorted by name and nothing
/// else, for such an upstream may read `+` or `;` in its own way.
///
/// ```
/// assert_eq!(tollgate::rules::params::sorted_by_name("b=2&a=x+y&b=1"), "a=x+y&b=2&b=1");
/// ```
pub fn sorted_by_name(raw_query: &str) -> String {
    let mut segments: Vec<&str> = raw_query.split('&').filter(|segment| !segment.is_empty()).collect();
    // By the decoded name: two spellings of one name must keep the order in which they came.
    segments.sort_by_cached_key(|segment| {
        query::bytes(segment.split_once('=').map_or(segment, |(name, _)| name)).into_owned()
    });
    segments.join("&")
}

/// Text in the same encoding, for places that take only ASCII.
pub(super) fn encoded(text: &str) -> String {
    percent_encode(text.as_bytes(), RESERVED).to_string()
}

fn separate(query: &mut String) {
    if !query.is_empty() {
        query.push('&');
    }
}

fn push(query: &mut String, decoded: &[u8]) {
    query.extend(percent_encode(decoded, RESERVED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        let mut query = String::new();
        push_pair(&mut query, "a[]", "+33 é~._-,/");
        push_pair(&mut query, "b", "");
        assert_eq!(query, "a%5B%5D=%2B33%20%C3%A9~._-%2C%2F&b=");
    }

    #[test]
    fn unknown_pairs_are_sorted_and_keep_their_bytes() {
        let mut query = String::new();
        push_unknown(&mut query, query::pairs("b=2&flag&a=%ff&b=1&%61=+&flag=&=x&100%").collect());
        assert_eq!(query, "=x&100%25&a=%FF&a=%20&b=2&b=1&flag&flag=");
    }

    #[test]
    fn sorting_changes_nothing_else() {
        let table =
            [("", ""), ("&b&&a&", "a&b"), ("b=1&%61=2&a=1", "%61=2&a=1&b=1"), ("x=a%2fb+c", "x=a%2fb+c")];
        for (raw, expected) in table {
            assert_eq!(sorted_by_name(raw), expected, "{raw:?}");
            assert_eq!(sorted_by_name(expected), expected, "again {raw:?}");
        }
    }
}
