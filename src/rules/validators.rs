//! Validators: asking upstream whether a held response still holds, what a 304 does to it, and answering a client's own
//! conditions from it (RFC 9110 §8.8, §13; RFC 9111 §3.2, §4.3).

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::dates;
use crate::model::entry::Entry;

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// `W/`: equal tags mean equivalent content, not equal bytes.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// Reads `"…"` or `W/"…"`; anything else is no tag.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (weak, quoted) = value.strip_prefix(b"W/").map_or((false, value), |rest| (true, rest));
        let opaque = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        (!opaque.contains(&b'"')).then_some(Self { weak, opaque })
    }

    /// "two entity tags are equivalent if both are not weak and their opaque-tags match character-by-character"
    /// (RFC 9110 §8.8.3.2).
    pub fn matches_strongly(self, other: Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// "equivalent if their opaque-tags match character-by-character, regardless of either or both being tagged as
    /// 'weak'".
    pub fn matches_weakly(self, other: Self) -> bool {
        self.opaque == other.opaque
    }
}

/// The conditions of a request that the gate may answer itself, and so takes out of what it asks on everyone's behalf.
pub static CONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// Puts `entry`'s validators into a request, its entity tag as `If-None-Match` and its date as `If-Modified-Since` (RFC
/// 9111 §4.3.1). Whether it had any.
pub fn ask_whether_changed(headers: &mut HeaderMap, entry: &Entry) -> bool {
    let mut asks = false;
    for (from, to) in
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)]
    {
        if let Some(value) = entry.fields.value(&from) {
            headers.insert(to, value.clone());
            asks = true;
        }
    }
    asks
}

/// Whether a response with these fields could be validated.
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// Digests of what one message carries (RFC 9530 §2; RFC 1864): they are wrong of a piece of it, and of several as one.
static OF_THE_CONTENT: [HeaderName; 2] =
    [HeaderName::from_static("content-md5"), HeaderName::from_static("content-digest")];

/// Takes out what is only true of the content as it came.
pub fn remove_digests(fields: &mut HeaderMap) {
    for name in &OF_THE_CONTENT {
        fields.remove(name);
    }
}

/// Fields that a 304 or a HEAD never changes: they describe the body, and that is still the one that is held (RFC 9111
/// §3.2 excepts what a cache "depends upon" and `Content-Length`).
static OF_THE_BODY: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ETAG,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// `entry`'s fields as a 304 leaves them: each that it names is replaced, each that it does not is left (RFC 9111 §3.2).
/// `None` where the 304 is about another response: "If none of the stored responses contain at least one of the same
/// strong validators, then the cache MUST NOT use the new response to update any stored responses" (§4.3.4); a weak one
/// must be the held one's too.
pub fn freshened(entry: &Entry, said: &HeaderMap) -> Option<HeaderMap> {
    let held = entry.fields.first(&header::ETAG);
    if let Some(new) = said.get(header::ETAG).and_then(|value| Tag::parse(value.as_bytes()))
        && !held.and_then(Tag::parse).is_some_and(|held| held.matches_weakly(new))
    {
        return None;
    }
    let mut fields = entry.fields.to_map(said.keys_len());
    for name in said.keys().filter(|name| !OF_THE_BODY.contains(name)) {
        fields.remove(name);
        for value in said.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    Some(fields)
}

/// Whether a HEAD's answer is about the response that is held: whatever "validator fields" it has, and its
/// `Content-Length`, are the held one's (RFC 9111 §4.3.5).
pub fn is_of_same(entry: &Entry, said: &HeaderMap) -> bool {
    let same = |name: &HeaderName| match (said.get(name), entry.fields.first(name)) {
        (Some(said), Some(held)) => said.as_bytes() == held,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let length = said.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    same(&header::ETAG)
        && same(&header::LAST_MODIFIED)
        && length.is_none_or(|length: usize| length == entry.body.len())
}

/// What a client's own conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// They hold, or there are none: the response as it is.
    Hold,
    /// 304: the client has it already.
    NotModified,
    /// 412.
    Failed,
}

/// Judges a request's conditions against `entry`, in the order of RFC 9110 §13.2.2.
pub fn judge(asked: &HeaderMap, entry: &Entry, wall: SystemTime) -> Conditions {
    let tag = entry.fields.first(&header::ETAG);
    let tag = tag.and_then(Tag::parse);
    let modified = entry.fields.first(&header::LAST_MODIFIED).and_then(|value| dates::parse(value, wall));
    let date = |name| asked.get(name).and_then(|value: &HeaderValue| dates::parse(value.as_bytes(), wall));
    // 1. "When recipient is the origin server and If-Match is present". A cache may ignore it (§13.1.1); a gateway "acts as
    // an origin server for the outbound connection" (§3.7), and to a client that resumes a download ignoring it would give
    // a piece of something else.
    if asked.contains_key(header::IF_MATCH) {
        if !lists(asked, &header::IF_MATCH, |listed| tag.is_some_and(|tag| tag.matches_strongly(listed))) {
            return Conditions::Failed;
        }
    // 2. "If-Match is not present, and If-Unmodified-Since is present".
    } else if let (Some(since), Some(modified)) = (date(header::IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Conditions::Failed;
    }
    // 3. "When If-None-Match is present": "A recipient MUST ignore If-Modified-Since if the request contains an
    // If-None-Match header field" (§13.1.3).
    if asked.contains_key(header::IF_NONE_MATCH) {
        let known =
            lists(asked, &header::IF_NONE_MATCH, |listed| tag.is_some_and(|tag| tag.matches_weakly(listed)));
        return if known { Conditions::NotModified } else { Conditions::Hold };
    }
    // 4. "When the method is GET or HEAD, If-None-Match is not present, and If-Modified-Since is present". Without a
    // Last-Modified, "use the stored response's Date field value" (RFC 9111 §4.3.2).
    let since =
        asked.contains_key(header::IF_MODIFIED_SINCE).then(|| date(header::IF_MODIFIED_SINCE)).flatten();
    let Some(since) = since else { return Conditions::Hold };
    let changed =
        modified.or_else(|| entry.fields.first(&header::DATE).and_then(|value| dates::parse(value, wall)));
    if changed.is_some_and(|changed| changed <= since) { Conditions::NotModified } else { Conditions::Hold }
}

/// Whether a field that lists tags is `*` or lists one that `matches`.
fn lists(asked: &HeaderMap, name: &HeaderName, matches: impl Fn(Tag<'_>) -> bool) -> bool {
    asked.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || tags(value).any(&matches)
    })
}

/// The tags of a list. A comma may stand in a tag, so the quotes lead.
fn tags(mut list: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    std::iter::from_fn(move || {
        loop {
            let open = list.iter().position(|&byte| byte == b'"')?;
            let close = open + 1 + list[open + 1..].iter().position(|&byte| byte == b'"')?;
            let before = list[..open].trim_ascii_start();
            let before = before.strip_prefix(b",").unwrap_or(before).trim_ascii();
            let opaque = &list[open + 1..close];
            list = &list[close + 1..];
            match before {
                b"" => return Some(Tag { weak: false, opaque }),
                b"W/" => return Some(Tag { weak: true, opaque }),
                _ => {}
            }
        }
    })
}

/// Whether `If-Range` lets a range of `entry` be given: "if the validator is … exact match … strong comparison" (RFC
/// 9110 §13.1.5). Without the field it does.
pub fn allows_range(asked: &HeaderMap, entry: &Entry, wall: SystemTime) -> bool {
    let Some(wished) = asked.get(header::IF_RANGE) else { return true };
    if let Some(tag) = Tag::parse(wished.as_bytes()) {
        let held = entry.fields.first(&header::ETAG);
        return held.and_then(Tag::parse).is_some_and(|held| held.matches_strongly(tag));
    }
    let since = dates::parse(wished.as_bytes(), wall);
    let modified = entry.fields.first(&header::LAST_MODIFIED).and_then(|value| dates::parse(value, wall));
    let dated = entry.fields.first(&header::DATE).and_then(|value| dates::parse(value, wall));
    // A date is strong only where the response was made at least a second later (§8.8.2.2).
    let strong = matches!((modified, dated), (Some(modified), Some(dated)) if modified + Duration::from_secs(1) <= dated);
    strong && since.is_some() && since == modified
}

/// The fields of a 304 that stands for `entry`: "Content-Location, Date, ETag, and Vary … Cache-Control and Expires",
/// and whatever guides a cache's update, but no "representation metadata" (RFC 9110 §15.4.5).
pub fn of_not_modified(entry: &Entry) -> HeaderMap {
    let mut fields = entry.fields.to_map(4);
    remove_digests(&mut fields);
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
    ] {
        fields.remove(name);
    }
    if fields.contains_key(header::ETAG) {
        fields.remove(header::LAST_MODIFIED);
    }
    fields
}

/// The fields of a 412 that `entry` gives rise to: what it was compared with, and nothing that would let anybody keep
/// the refusal in its place.
pub fn of_failed(entry: &Entry) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(8);
    for name in [header::DATE, header::ETAG, header::LAST_MODIFIED, header::VARY] {
        if let Some(value) = entry.fields.value(&name) {
            fields.insert(name, value.clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use http::StatusCode;

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

    fn entry(fields: &[(&'static str, &'static str)]) -> Entry {
        let parts = (StatusCode::OK, Fields::from_map(&map(fields)), Bytes::from_static(b"x"));
        Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), std::sync::Arc::default())
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    #[test]
    fn conditions_are_judged_in_their_order() {
        use Conditions::{Failed, Hold, NotModified};
        let strong = [("etag", "\"a,b\""), ("last-modified", OLD)];
        let weak = [("etag", "W/\"a\""), ("last-modified", OLD)];
        for (held, asked, verdict) in [
            (&strong[..], &[("if-none-match", "\"a,b\"")][..], NotModified),
            (&strong, &[("if-none-match", "W/\"a,b\"")], NotModified),
            (&strong, &[("if-none-match", "\"x\", \"a,b\" , \"y\"")], NotModified),
            (&strong, &[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], NotModified),
            (&strong, &[("if-none-match", "*")], NotModified),
            (&strong, &[("if-none-match", "\"a\", \"b\"")], Hold),
            (&strong, &[("if-none-match", "a,b")], Hold),
            (&strong, &[("if-none-match", "w/\"a,b\"")], Hold),
            (&strong, &[("if-none-match", "\"x\""), ("if-modified-since", NEW)], Hold),
            (&strong, &[("if-modified-since", NEW)], NotModified),
            (&strong, &[("if-modified-since", OLD)], NotModified),
            (&strong, &[("if-modified-since", "Sat, 05 Nov 1994 08:49:37 GMT")], Hold),
            (&strong, &[("if-modified-since", "Monday, 07-Nov-94 08:49:37 GMT")], NotModified),
            (&strong, &[("if-modified-since", "soon")], Hold),
            (&strong, &[("if-match", "\"a,b\"")], Hold),
            (&strong, &[("if-match", "\"x\"")], Failed),
            (&strong, &[("if-match", "*")], Hold),
            (&weak, &[("if-match", "W/\"a\"")], Failed),
            (&weak, &[("if-none-match", "\"a\"")], NotModified),
            (&strong, &[("if-unmodified-since", NEW)], Hold),
            (&strong, &[("if-unmodified-since", "Sat, 05 Nov 1994 08:49:37 GMT")], Failed),
            (&strong, &[("if-match", "\"x\""), ("if-none-match", "\"a,b\"")], Failed),
            (&[("date", OLD)], &[("if-modified-since", NEW)], NotModified),
            (&[("date", NEW)], &[("if-modified-since", OLD)], Hold),
            (&[], &[("if-modified-since", NEW)], Hold),
        ] {
            assert_eq!(judge(&map(asked), &entry(held), UNIX_EPOCH), verdict, "{held:?} {asked:?}");
        }
    }

    #[test]
    fn a_range_needs_a_strong_match() {
        let held = entry(&[("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)]);
        let weak = entry(&[("etag", "W/\"a\""), ("last-modified", OLD), ("date", OLD)]);
        for (entry, wished, allowed) in [
            (&held, "\"a\"", true),
            (&held, "W/\"a\"", false),
            (&held, "\"b\"", false),
            (&held, OLD, true),
            (&held, NEW, false),
            (&weak, "W/\"a\"", false),
            (&weak, OLD, false),
        ] {
            assert_eq!(allows_range(&map(&[("if-range", wished)]), entry, UNIX_EPOCH), allowed, "{wished}");
        }
    }

    #[test]
    fn a_304_changes_what_is_not_the_bodys() {
        let held =
            entry(&[("etag", "\"a\""), ("link", "<1>"), ("content-type", "a/b"), ("content-encoding", "x")]);
        let said = map(&[
            ("etag", "\"a\""),
            ("link", "<2>"),
            ("link", "<3>"),
            ("content-encoding", "y"),
            ("age", "3"),
        ]);
        let fields = freshened(&held, &said).expect("is about it");
        let mut expected =
            map(&[("etag", "\"a\""), ("link", "<2>"), ("link", "<3>"), ("content-type", "a/b")]);
        expected.insert("content-encoding", HeaderValue::from_static("x"));
        expected.insert("age", HeaderValue::from_static("3"));
        assert_eq!(fields, expected);
        let plain = entry(&[("last-modified", OLD)]);
        for (said, updates) in [("\"a\"", true), ("W/\"a\"", true), ("\"b\"", false), ("W/\"b\"", false)] {
            assert_eq!(freshened(&held, &map(&[("etag", said)])).is_some(), updates, "{said}");
            assert!(freshened(&plain, &map(&[("etag", said)])).is_none(), "{said}");
        }
        assert!(freshened(&held, &map(&[])).is_some());
    }
}
