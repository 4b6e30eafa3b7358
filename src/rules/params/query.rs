//! A raw query taken apart: pairs between `&`, the first `=` splits, `+` is a space, `%xx` is a byte.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// One pair as it stands in the query, still encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawPair<'a> {
    pub(super) name: &'a str,
    /// `None` without a `=`: an upstream may tell `flag` from `flag=`.
    pub(super) value: Option<&'a str>,
}

/// The pairs in order; nothing between two `&` is no pair.
pub(super) fn pairs(raw_query: &str) -> impl Iterator<Item = RawPair<'_>> {
    raw_query.split('&').filter(|segment| !segment.is_empty()).map(|segment| match segment.split_once('=') {
        Some((name, value)) => RawPair { name, value: Some(value) },
        None => RawPair { name: segment, value: None },
    })
}

/// Text as it was meant: invalid `%xx` stay, invalid UTF-8 becomes U+FFFD.
pub(super) fn text(encoded: &str) -> Cow<'_, str> {
    match bytes(encoded) {
        Cow::Borrowed(_) => Cow::Borrowed(encoded),
        Cow::Owned(decoded) => Cow::Owned(
            String::from_utf8(decoded)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

/// The bytes that were meant, for names and values nothing is known about.
pub(super) fn bytes(encoded: &str) -> Cow<'_, [u8]> {
    if !encoded.contains(['%', '+']) {
        return Cow::Borrowed(encoded.as_bytes());
    }
    let spaced = encoded.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_query() {
        type Pair<'a> = (&'a str, Option<&'a str>);
        let table: [(&str, &[Pair<'_>]); 7] = [
            ("", &[]),
            ("&&", &[]),
            ("a=1&b=2", &[("a", Some("1")), ("b", Some("2"))]),
            ("a=1;b=2", &[("a", Some("1;b=2"))]),
            ("a=b=c", &[("a", Some("b=c"))]),
            ("flag&x=", &[("flag", None), ("x", Some(""))]),
            ("=1&=", &[("", Some("1")), ("", Some(""))]),
        ];
        for (query, expected) in table {
            let found: Vec<_> = pairs(query).map(|pair| (pair.name, pair.value)).collect();
            assert_eq!(found, expected, "{query:?}");
        }
    }

    #[test]
    fn decoding() {
        let table = [
            ("abc", "abc"),
            ("a+b", "a b"),
            ("%2B33", "+33"),
            ("%2b33", "+33"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%25zz", "%zz"),
            ("%C3%A9", "é"),
            ("%FF", "\u{fffd}"),
            ("é", "é"),
        ];
        for (encoded, expected) in table {
            assert_eq!(text(encoded), expected, "{encoded:?}");
        }
    }
}
