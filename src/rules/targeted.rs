//! Cache directives meant for one kind of cache (RFC 9213): `CDN-Cache-Control`, and one of the gate's own before it.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::cache_control::Directives;

/// What an upstream says to this gate alone. It is taken out of what clients see.
pub const OWN: HeaderName = HeaderName::from_static("tollgate-cache-control");
pub(super) const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives that are read.
const KNOWN: [&str; 11] = [
    "max-age",
    "s-maxage",
    "stale-while-revalidate",
    "stale-if-error",
    "no-store",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "public",
    "no-cache",
    "private",
];

/// What counts of a response's directives.
#[derive(Debug)]
pub struct Said {
    /// The directives.
    pub directives: Directives,
    /// Whether a targeted field said them. Then `Expires` is as void as `Cache-Control` (§2.2).
    pub targeted: bool,
}

/// "the cache MUST select the first (in target-list order) field with a valid, non-empty value and use its value to
/// determine the caching policy for the response, and it MUST ignore the Cache-Control and Expires header fields in that
/// response, unless no valid, non-empty value is available from the listed header fields" (RFC 9213 §2.2).
pub fn said(headers: &HeaderMap) -> Said {
    for name in [OWN, CDN] {
        if headers.contains_key(&name)
            && let Some(directives) = read(headers, &name)
        {
            return Said { directives, targeted: true };
        }
    }
    Said { directives: Directives::from_headers(headers, &header::CACHE_CONTROL), targeted: false }
}

/// "If a targeted field in a given response is empty, or a parsing error is encountered, that field MUST be ignored"
/// (RFC 9213 §2.2). A known directive whose value is of another type counts as such an error: what is misread as
/// leave to keep a response is worse than what is not kept.
fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Directives> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    let dictionary: Dictionary = Parser::new(&lines.join(&b","[..])).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = Directives::default();
    for (key, member) in &dictionary {
        let ListEntry::Item(item) = member else {
            // No directive is a list of items.
            if KNOWN.contains(&key.as_str()) {
                return None;
            }
            continue;
        };
        let value = &item.bare_item;
        let seconds = || match value {
            BareItem::Integer(seconds) => {
                Some(Duration::from_secs(u64::try_from(i64::from(*seconds)).unwrap_or(0)))
            }
            _ => None,
        };
        let yes = || value.as_boolean();
        match key.as_str() {
            "max-age" => directives.max_age = Some(seconds()?),
            "s-maxage" => directives.s_maxage = Some(seconds()?),
            "stale-while-revalidate" => directives.stale_while_revalidate = Some(seconds()?),
            "stale-if-error" => directives.stale_if_error = Some(seconds()?),
            "no-store" => directives.no_store = yes()?,
            "must-revalidate" => directives.must_revalidate = yes()?,
            "proxy-revalidate" => directives.proxy_revalidate = yes()?,
            "must-understand" => directives.must_understand = yes()?,
            "public" => directives.public = yes()?,
            "no-cache" => match value.as_string() {
                Some(fields) => directives.read(format!("no-cache=\"{}\"", fields.as_str()).as_bytes()),
                None => directives.no_cache = yes()?,
            },
            "private" => match value.as_string() {
                Some(fields) => directives.read(format!("private=\"{}\"", fields.as_str()).as_bytes()),
                None => directives.private = yes()?,
            },
            _ => {}
        }
    }
    Some(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_valid_field_counts_alone() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (fields, max_age, no_store) in [
            (&[("cache-control", "max-age=1")][..], seconds(1), false),
            (&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=2")], seconds(2), false),
            (&[("cdn-cache-control", "max-age=2"), ("tollgate-cache-control", "no-store")], None, true),
            (&[("cdn-cache-control", ""), ("cache-control", "max-age=1")], seconds(1), false),
            (&[("cdn-cache-control", "max-age=2, &&&"), ("cache-control", "no-store")], None, true),
            (&[("cdn-cache-control", "max-age=\"2\""), ("cache-control", "no-store")], None, true),
            (&[("cdn-cache-control", "foo, max-age=2"), ("cdn-cache-control", "no-store")], seconds(2), true),
            (&[("cdn-cache-control", "max-age=99999999999")], seconds(99_999_999_999), false),
            (
                &[("cdn-cache-control", "max-age=2, no-store=(\"a\")"), ("cache-control", "no-store")],
                None,
                true,
            ),
            (
                &[("cdn-cache-control", "max-age=2, other=(\"a\")"), ("cache-control", "no-store")],
                seconds(2),
                false,
            ),
            (&[("cdn-cache-control", "max-age=2.0"), ("cache-control", "no-store")], None, true),
            (&[("cdn-cache-control", "max-age=-2")], seconds(0), false),
            (&[("cdn-cache-control", "MAX-AGE=2"), ("cache-control", "no-store")], None, true),
            (&[("cdn-cache-control", "max-age=2;a=b, no-store;c")], seconds(2), true),
            (&[("cdn-cache-control", "max-age=2, max-age=3")], seconds(3), false),
            (&[("cdn-cache-control", "max-age = 2"), ("cache-control", "no-store")], None, true),
            (&[("tollgate-cache-control", "x"), ("cache-control", "no-store")], None, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            let said = said(&headers).directives;
            assert_eq!((said.max_age, said.no_store), (max_age, no_store), "{fields:?}");
        }
    }
}
