//! Content codings: which stored responses are worth coding, what a coded one is, and who is given it (RFC 9110 §8.4,
//! §12.5.3).

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use super::cache_control::Directives;
use super::validators::Tag;
use super::vary::{members, thousandths};
use crate::model::coding::{Coded, Coding};
use crate::model::entry::Entry;

/// Shorter bodies fit into a packet as they are.
const MIN_BYTES: usize = 1024;
/// A coding that saves less than one part in this many is not kept.
const WORTH: usize = 10;
/// Types beside `text/*` whose content gets smaller; what ends in `+json` or `+xml` does too.
const SHRINKING: [&[u8]; 7] = [
    b"application/json",
    b"application/xml",
    b"application/javascript",
    b"application/x-ndjson",
    b"application/graphql",
    b"application/wasm",
    b"image/svg+xml",
];

/// Whether an entry may be coded and would gain by it.
pub fn suits(entry: &Entry) -> bool {
    let field = |name| entry.fields.first(&name);
    // A digest is of the content as it is coded (RFC 9530 §2).
    let digests = ["content-digest", "repr-digest", "content-md5"].map(header::HeaderName::from_static);
    entry.status == StatusCode::OK
        && entry.part.is_none()
        && entry.body.len() >= MIN_BYTES
        && field(header::CONTENT_ENCODING).is_none()
        && field(header::CONTENT_TYPE).is_some_and(shrinks)
        && !digests.into_iter().any(|name| field(name).is_some())
        // "an intermediary (whether or not it implements a cache) MUST NOT transform the content" (RFC 9111 §5.2.2.6).
        && !forbids_transforming(entry)
}

fn forbids_transforming(entry: &Entry) -> bool {
    let mut directives = Directives::default();
    entry.fields.all(&header::CACHE_CONTROL).for_each(|value| directives.read(value));
    directives.no_transform
}

fn shrinks(kind: &[u8]) -> bool {
    let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind.starts_with(b"text/")
        || kind.ends_with(b"+json")
        || kind.ends_with(b"+xml")
        || SHRINKING.contains(&kind.as_slice())
}

/// An entry as it is answered once its body was coded; `None` where no coding is worth it.
pub fn coded(entry: &Entry, bodies: impl IntoIterator<Item = (Coding, Bytes)>) -> Option<Coded> {
    let worth = |body: &Bytes| body.len() + entry.body.len() / WORTH < entry.body.len();
    let others: Box<[_]> = bodies
        .into_iter()
        .filter(|(_, body)| worth(body))
        .map(|(coding, body)| (coding, Arc::new(represented(entry, Some(coding), body))))
        .collect();
    (!others.is_empty())
        .then(|| Coded { plain: Arc::new(represented(entry, None, entry.body.clone())), others })
}

/// The bodies that an entry's codings have, to be taken over by one with the same content.
pub fn bodies(coded: &Coded) -> Vec<(Coding, Bytes)> {
    coded.others.iter().map(|(coding, entry)| (*coding, entry.body.clone())).collect()
}

/// One representation of `entry`.
fn represented(entry: &Entry, coding: Option<Coding>, body: Bytes) -> Entry {
    let mut fields = entry.fields.to_map(3);
    // "An origin server SHOULD generate a Vary header field" where it selects by the request (RFC 9110 §12.5.5).
    fields.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        // "a strong entity tag … changes whenever a change occurs to the representation data" (§8.8.1), and another coding
        // is such a change (§8.8.3.3).
        if let Some(tag) = tag(fields.get(header::ETAG), coding, &body) {
            fields.insert(header::ETAG, tag);
        }
    }
    let parts = (entry.status, crate::model::Fields::from_map(&fields), body);
    Entry::new(parts, entry.arrived, entry.initial_age, entry.facts, entry.selectors.clone())
}

/// The strong tag of a coded body: the upstream's own and the coding's name, or where it gave no strong one, a digest.
fn tag(given: Option<&HeaderValue>, coding: Coding, body: &[u8]) -> Option<HeaderValue> {
    let opaque = match given.and_then(|given| Tag::parse(given.as_bytes())) {
        Some(Tag { weak: false, opaque }) => opaque.to_vec(),
        _ => {
            let digest = ring::digest::digest(&ring::digest::SHA256, body);
            digest.as_ref().iter().take(16).flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
        }
    };
    let tag = [b"\"", opaque.as_slice(), b"-", coding.as_str().as_bytes(), b"\""].concat();
    HeaderValue::from_bytes(&tag).ok()
}

/// The representation for a request with this `Accept-Encoding`: of the codings it weighs highest the route's favourite,
/// else the plain one. Where none is acceptable it is the plain one too (RFC 9110 §12.5.3).
pub fn chosen<'a>(coded: &'a Coded, asked: Option<&HeaderValue>) -> &'a Arc<Entry> {
    let Some(asked) = asked.map(HeaderValue::as_bytes) else { return &coded.plain };
    let mut best = (&coded.plain, 0);
    let plain = weight(asked, "identity").unwrap_or(1);
    for (coding, entry) in &coded.others {
        let weight = weight(asked, coding.as_str()).or_else(|| weight(asked, "*")).unwrap_or(0);
        if weight >= plain && weight > best.1 {
            best = (entry, weight);
        }
    }
    best.0
}

/// What `Accept-Encoding` says of a coding, in thousandths. `x-gzip` "is equivalent to gzip" (RFC 9110 §8.4.1.3).
fn weight(asked: &[u8], coding: &str) -> Option<u16> {
    members(asked).into_iter().find_map(|member| {
        let mut parameters = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parameters.next()?;
        let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
        let stated = |parameter: &[u8]| {
            let (name, value) = parameter.split_at_checked(2)?;
            thousandths(value).filter(|_| name.eq_ignore_ascii_case(b"q="))
        };
        name.eq_ignore_ascii_case(coding.as_bytes()).then(|| parameters.find_map(stated).unwrap_or(1000))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::HeaderMap;

    use super::*;
    use crate::model::entry::Facts;
    use crate::model::{Fields, Moment};

    fn entry(fields: &[(&'static str, &'static str)], bytes: usize) -> Entry {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        let parts = (StatusCode::OK, Fields::from_map(&map), Bytes::from(vec![b'x'; bytes]));
        Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), Arc::default())
    }

    #[test]
    fn what_would_gain_and_may_be_changed_is_coded() {
        for (fields, bytes, expected) in [
            (&[("content-type", "application/json; charset=utf-8")][..], 4096, true),
            (&[("content-type", "application/problem+json")], 4096, true),
            (&[("content-type", "Text/HTML")], 4096, true),
            (&[("content-type", "text/html")], 100, false),
            (&[("content-type", "image/png")], 4096, false),
            (&[], 4096, false),
            (&[("content-type", "text/html"), ("content-encoding", "gzip")], 4096, false),
            (&[("content-type", "text/html"), ("cache-control", "max-age=5, No-Transform")], 4096, false),
            (&[("content-type", "text/html"), ("content-digest", "sha-256=:AA==:")], 4096, false),
        ] {
            assert_eq!(suits(&entry(fields, bytes)), expected, "{fields:?}");
        }
    }

    #[test]
    fn each_coding_has_its_fields_and_a_strong_tag() {
        let short = Bytes::from_static(b"short");
        for (given, tagged) in [(Some("\"a\""), Some("\"a-br\"")), (Some("W/\"a\""), None), (None, None)] {
            let fields: Vec<_> = given.map(|tag| ("etag", tag)).into_iter().collect();
            let entry = entry(&fields, 4096);
            let bodies = [(Coding::Br, short.clone()), (Coding::Gzip, entry.body.clone())];
            let coded = coded(&entry, bodies).expect("one is worth it");
            let [(Coding::Br, br)] = &coded.others[..] else { panic!("gzip saved nothing") };
            assert_eq!(br.fields.first(&header::CONTENT_ENCODING), Some(&b"br"[..]));
            assert_eq!(br.fields.first(&header::VARY), Some(&b"accept-encoding"[..]));
            assert_eq!(coded.plain.fields.first(&header::VARY), Some(&b"accept-encoding"[..]));
            assert_eq!(coded.plain.fields.first(&header::ETAG), given.map(str::as_bytes));
            let tag = br.fields.first(&header::ETAG).expect("each has a tag");
            assert!(Tag::parse(tag).is_some_and(|tag| !tag.weak));
            if let Some(tagged) = tagged {
                assert_eq!(tag, tagged.as_bytes());
            }
        }
        let whole = entry(&[], 4096);
        assert!(coded(&whole, [(Coding::Zstd, whole.body.clone())]).is_none());
    }

    #[test]
    fn the_best_weight_wins_then_the_routes_order() {
        let entry = entry(&[], 4096);
        let bodies = [Coding::Zstd, Coding::Gzip].map(|coding| (coding, Bytes::from_static(b"x")));
        let coded = coded(&entry, bodies).expect("both are worth it");
        for (asked, expected) in [
            (Some("gzip, zstd"), Some("zstd")),
            (Some("gzip;q=1, zstd; q=0.5"), Some("gzip")),
            (Some("X-GZip"), Some("gzip")),
            (Some("*"), Some("zstd")),
            (Some("zstd;q=0, *"), Some("gzip")),
            (Some("br"), None),
            (Some("identity, gzip;q=0.5"), None),
            (Some("identity;q=0.5, gzip"), Some("gzip")),
            (Some("gzip;q=0"), None),
            (Some("identity;q=0, br"), None),
            (Some(""), None),
            (None, None),
        ] {
            let header = asked.map(HeaderValue::from_static);
            let found = chosen(&coded, header.as_ref()).fields.first(&header::CONTENT_ENCODING);
            assert_eq!(found, expected.map(str::as_bytes), "{asked:?}");
        }
    }
}
