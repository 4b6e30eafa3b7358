//! Which variant of a response a request selects (RFC 9111 §4.1): the fields that `Vary` names, compared as what they
//! mean rather than as how they are spelt.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::model::entry::{Entry, Selectors};
use crate::model::fields::named;

/// All values of a request's field as one, or `None` where it has none: "combining multiple header field lines with
/// the same field name" (RFC 9111 §4.1). Borrowed where there is one line, which is nearly always.
pub fn combined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = named(headers, name);
    let first = lines.next()?.as_bytes();
    let mut all = Cow::Borrowed(first);
    for line in lines {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(line.as_bytes());
    }
    Some(all)
}

/// The request's values of the fields that a response's `Vary` names; `None` for `*`: "a stored response with a Vary
/// header field value containing a member '*' always fails to match" (§4.1).
pub fn selectors(headers: &HeaderMap, sent: &HeaderMap) -> Option<Selectors> {
    let mut selectors = Vec::new();
    for value in headers.get_all(header::VARY) {
        for name in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() {
                continue;
            }
            // `*` is a legal field name by its letters, and means everything here.
            let name = HeaderName::from_bytes(name).ok().filter(|name| name.as_str() != "*")?;
            if !selectors.iter().any(|(held, _)| *held == name) {
                // Copied: the request's own bytes lie in a read buffer that an entry must not keep alive.
                let value =
                    combined(sent, &name).map(|value| HeaderValue::from_bytes(&normal(&name, &value)));
                selectors.push((name, value.transpose().ok()?));
            }
        }
    }
    Some(selectors.into())
}

/// Whether a request that sends upstream what `sent` says of a field selects `entry`. Costs nothing where the response
/// has no `Vary`, and no allocation where the field is spelt as it is kept.
pub fn selects<'a>(entry: &Entry, sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>) -> bool {
    entry.selectors.iter().all(|(name, held)| match (sent(name), held) {
        (None, None) => true,
        (Some(value), Some(held)) => {
            *value == *held.as_bytes() || {
                let value = normal(name, &value);
                *value == *held.as_bytes() || prefers_what_is_held(entry, name, &value)
            }
        }
        (Some(value), None) => prefers_what_is_held(entry, name, &normal(name, &value)),
        (None, Some(_)) => false,
    })
}

/// The values by which requests for one resource part ways, if its answers vary as `entry` does: equal for requests
/// that select the same. The field is absent in a request where there is no value.
pub fn course<'a>(
    entry: &Entry,
    sent: impl Fn(&HeaderName) -> Option<Cow<'a, [u8]>>,
) -> Vec<Option<Vec<u8>>> {
    let value = |name: &HeaderName| sent(name).map(|value| normal(name, &value).into_owned());
    entry.selectors.iter().map(|(name, _)| value(name)).collect()
}

/// "normalizing both header field values in a way that is known to have identical semantics, according to the header
/// field's specification (e.g., reordering field values when order is not significant; case-normalization, where values
/// are defined to be case-insensitive)" (§4.1).
fn normal<'a>(name: &HeaderName, value: &'a [u8]) -> Cow<'a, [u8]> {
    // One member in lower case, without parameters: it is spelt in no other way.
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/*+-.".contains(byte);
    if value.iter().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let preference = [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT];
    if preference.contains(name) {
        return Cow::Owned(preferences(value, *name == header::ACCEPT).join(&b','));
    }
    let members = members(value);
    let tight = members.len() == 1 && members[0].len() == value.len();
    if tight { Cow::Borrowed(value) } else { Cow::Owned(members.join(&b',')) }
}

/// The members of a list of preferences in the order of their weights, each in lower case and without space; among
/// equals the order says nothing (RFC 9110 §12.5). What the parameters of a media type mean is the type's affair, so they
/// stay as they are.
fn preferences(value: &[u8], of_types: bool) -> Vec<Vec<u8>> {
    let mut ranked: Vec<(u16, Vec<u8>)> =
        members(value).into_iter().map(|member| preference(member, of_types)).collect();
    ranked.sort_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.cmp(b)));
    ranked.into_iter().map(|(_, member)| member).collect()
}

/// One member with its weight at its end. "Recipients SHOULD process any parameter named 'q' as weight, regardless of
/// parameter ordering" (RFC 9110 §12.5.1); what is no weight is left as it is, for nobody knows how an upstream reads it.
fn preference(member: &[u8], of_types: bool) -> (u16, Vec<u8>) {
    let mut parameters = pieces(member, b';').into_iter().map(without_space);
    let mut kept = parameters.next().unwrap_or_default().to_ascii_lowercase();
    let mut weight = None;
    for parameter in parameters {
        let stated = parameter.get(..2).filter(|name| name.eq_ignore_ascii_case(b"q="));
        match stated.and_then(|_| thousandths(&parameter[2..])) {
            Some(stated) if weight.is_none() => weight = Some(stated),
            _ => {
                kept.push(b';');
                kept.extend(if of_types { parameter } else { parameter.to_ascii_lowercase() });
            }
        }
    }
    let weight = weight.unwrap_or(1000);
    if weight < 1000 {
        kept.extend_from_slice(format!(";q={weight}").as_bytes());
    }
    (weight, kept)
}

/// `0.75` as 750, `1.0` as 1000 (RFC 9110 §12.4.2).
pub(super) fn thousandths(weight: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(weight).ok()?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match whole {
        "0" => format!("{decimals:0<3}").parse().ok(),
        "1" => decimals.bytes().all(|byte| byte == b'0').then_some(1000),
        _ => None,
    }
}

/// `text` without the space outside of its quotes.
fn without_space(text: &[u8]) -> Vec<u8> {
    let mut quotes = Quotes::default();
    text.iter().copied().filter(|byte| quotes.hold(*byte) || !byte.is_ascii_whitespace()).collect()
}

/// Follows which bytes stand within quotes, where a backslash takes the next byte for itself.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether `byte`, which comes next, is within quotes or one of them.
    fn hold(&mut self, byte: u8) -> bool {
        let was_open = self.open;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.open => self.escaped = true,
            b'"' => self.open = !self.open,
            _ => {}
        }
        was_open || self.open
    }
}

/// The members of a list, without the space around them.
pub(super) fn members(value: &[u8]) -> Vec<&[u8]> {
    pieces(value, b',')
}

/// What stands between the `separator`s, without the space around it and without what is empty; those within quotes do
/// not separate.
fn pieces(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut quotes = Quotes::default();
    let pieces = value.split(|&byte| !quotes.hold(byte) && byte == separator);
    pieces.map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()).collect()
}

/// Whether the one language that a request likes best is the one the entry is in: whatever else could be had, nothing
/// could suit it better.
fn prefers_what_is_held(entry: &Entry, name: &HeaderName, value: &[u8]) -> bool {
    if *name != header::ACCEPT_LANGUAGE {
        return false;
    }
    let Some(held) = entry.fields.first(&header::CONTENT_LANGUAGE) else { return false };
    let mut wished = value.split(|&byte| byte == b',');
    let best = wished.next().unwrap_or_default();
    // The weights of what follows are lower, or there would be none.
    let weighted = |member: &[u8]| member.windows(3).any(|window| window == b";q=");
    let only = wished.next().is_none_or(weighted);
    only && !weighted(best) && best.eq_ignore_ascii_case(held.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::model::entry::Facts;
    use crate::model::{Fields, Moment};

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn entry(answered: &HeaderMap, sent: &HeaderMap) -> Option<Entry> {
        let parts = (StatusCode::OK, Fields::from_map(answered), Bytes::new());
        let selectors = selectors(answered, sent)?;
        Some(Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), selectors))
    }

    #[test]
    fn values_that_mean_the_same_select_the_same() {
        for (name, held, asked, same) in [
            ("foo", "1", "1", true),
            ("foo", "1", "2", false),
            ("foo", "1,2", " 1, 2 ", true),
            ("foo", "1, 2", "2, 1", false),
            ("foo", "a", "A", false),
            ("foo", "\"a, b\"", "\"a,b\"", false),
            ("accept-language", "en, de", "de, en", true),
            ("accept-language", "en, de", "eN ,   De", true),
            ("accept-language", "en, de;q=0.5", "de;q=0.50, en;q=1.0", true),
            ("accept-language", "en, de;q=0.5", "de, en;q=0.5", false),
            ("accept-encoding", "gzip, br", "BR,gzip", true),
            ("accept", "a/b;level=1;q=0.1, c/d", "c/d,a/b;level=1;q=0.100", true),
            ("accept", "a/b;level=1, c/d", "c/d,a/b;level=2", false),
            ("accept", "A/b;p=\"x y\"", "a/B ; p=\"x y\"", true),
            ("accept", "a/b;p=\"x y\"", "a/b;p=\"xy\"", false),
            ("accept", "a/b;p=X", "a/b;p=x", false),
            // The weight may stand before other parameters, in either case; they count nevertheless.
            ("accept", "a/b;q=0.5;level=1, c/d", "c/d, a/b;level=1;Q=0.500", true),
            ("accept", "a/b;q=0.5;level=1", "a/b;q=0.5;level=2", false),
            ("accept", "a/b;q=1, c/d", "c/d;q=1.000, a/b", true),
            ("accept", "a/b;q=0.5, a/b;q=0.4", "a/b;q=0.4, a/b;q=0.5", true),
            // What is no weight is somebody's own.
            ("accept-language", "en;q=.5, de", "en, de", false),
            ("accept-language", "en;q=2", "en", false),
            ("accept-language", "en;q=0.1234", "en;q=0.123", false),
            ("accept-encoding", "gzip;q=0, br", "br", false),
            ("accept-encoding", "gzip;q=0, br", "br;q=1, GZIP; q=0.0", true),
            ("accept-encoding", "identity", "", false),
            // Quotes hold commas, semicolons, space and quotes that are escaped.
            ("accept", "a/b;p=\"x\\\" y\"", "a/b;p=\"x\\\"y\"", false),
            ("accept", "a/b;p=\"x;q=0.5\"", "a/b;p=\"x\";q=0.5", false),
            ("accept", "a/b;p=\"x, c/d\"", "c/d, a/b;p=\"x\"", false),
            ("foo", "\"a\\\", b\"", "\"a\\\",b\"", false),
        ] {
            let answered = HeaderMap::from_iter([(header::VARY, HeaderValue::from_static(name))]);
            let entry = entry(&answered, &map(&[(name, held)])).expect("no star");
            let asked_map = map(&[(name, asked)]);
            assert_eq!(selects(&entry, |name| combined(&asked_map, name)), same, "{name}: {held} / {asked}");
        }
    }

    #[test]
    fn lines_combine_and_absence_is_a_value() {
        let answered = map(&[("vary", "Foo, bar")]);
        let held = entry(&answered, &map(&[("foo", "1, 2")])).expect("no star");
        for (asked, same) in [
            (&[("foo", "1"), ("foo", "2")][..], true),
            (&[("foo", "1, 2"), ("bar", "")], false),
            (&[], false),
            (&[("foo", "1,2"), ("other", "3")], true),
        ] {
            let asked_map = map(asked);
            assert_eq!(selects(&held, |name| combined(&asked_map, name)), same, "{asked:?}");
        }
        for vary in ["*", "Foo, *", ", *", "*, *", "foo bar"] {
            assert!(entry(&map(&[("vary", vary)]), &map(&[])).is_none(), "{vary}");
        }
    }

    #[test]
    fn who_likes_best_what_is_held_gets_it() {
        let answered = map(&[("vary", "accept-language"), ("content-language", "de")]);
        let held = entry(&answered, &map(&[("accept-language", "en, de")])).expect("no star");
        for (asked, same) in [
            ("fr;q=0.5, de;q=1.0", true),
            ("de", true),
            ("de, fr", false),
            ("de;q=0.9", false),
            ("fr", false),
        ] {
            let asked_map = map(&[("accept-language", asked)]);
            assert_eq!(selects(&held, |name| combined(&asked_map, name)), same, "{asked}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_selects_itself(value in "[a-c,;q=0.1 \"]{0,20}", which in 0usize..2) {
            let name = [header::ACCEPT_LANGUAGE, HeaderName::from_static("foo")][which].clone();
            let answered = HeaderMap::from_iter([(header::VARY, HeaderValue::from_str(name.as_str()).expect("is one"))]);
            let sent = HeaderMap::from_iter([(name, HeaderValue::from_str(&value).expect("is one"))]);
            let held = entry(&answered, &sent).expect("no star");
            prop_assert!(selects(&held, |name| combined(&sent, name)));
        }
    }
}
