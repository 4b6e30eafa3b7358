//! Byte ranges (RFC 9110 §14): what a `Range` asks of a whole, what a stored part can answer, and parts that make a
//! larger one (RFC 9111 §3.3, §3.4).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use super::validators::{self, Tag};
use crate::model::entry::{Entry, Part, Span};

/// "A server that supports range requests MAY ignore or reject a Range header field that contains an invalid
/// ranges-specifier …, a ranges-specifier with more than two overlapping ranges, or a set of many small ranges" (§14.2):
/// more than so many are ignored.
const MOST_RANGES: usize = 16;

/// What a `Range` comes to, of so many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// The field is void: the whole is given.
    Whole,
    /// Nothing of it is there: 416.
    Nothing,
    /// These pieces, in the order asked.
    Pieces(Vec<Range<usize>>),
}

/// `first-last`, `first-` or `-suffix`.
#[derive(Debug, Clone, Copy)]
enum Wish {
    From(u64, Option<u64>),
    Last(u64),
}

impl Wish {
    /// What it asks of `length` bytes; `None` if nothing of that is there.
    fn of(self, length: u64) -> Option<Range<u64>> {
        match self {
            // "If the selected representation is shorter than the specified suffix length, the entire … is used."
            Self::Last(suffix) => (suffix > 0 && length > 0).then(|| length.saturating_sub(suffix)..length),
            Self::From(first, last) => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                (first < length).then_some(first..end)
            }
        }
    }
}

/// Reads `bytes=…`; `None` for another unit or anything else: "a server … MUST ignore" it (§14.2).
fn wishes(value: &[u8]) -> Option<Vec<Wish>> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| -> Option<u64> {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let wishes: Option<Vec<_>> = specs
        .map(|spec| match spec.split_once('-')? {
            ("", suffix) => Some(Wish::Last(number(suffix)?)),
            (first, "") => Some(Wish::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Wish::From(first, Some(last)))
            }
        })
        .collect();
    wishes.filter(|wishes| !wishes.is_empty())
}

/// What `value` asks of a whole of `length` bytes.
pub fn cut(value: &[u8], length: usize) -> Cut {
    let Some(wishes) = wishes(value).filter(|wishes| wishes.len() <= MOST_RANGES) else { return Cut::Whole };
    let spans = wishes.iter().filter_map(|wish| to_usize(&wish.of(length as u64)?));
    let pieces: Vec<_> = spans.collect();
    let asked: usize = pieces.iter().map(Range::len).sum();
    match pieces.len() {
        0 => Cut::Nothing,
        // Overlapping ranges ask for more than there is.
        2.. if asked > length => Cut::Whole,
        _ => Cut::Pieces(pieces),
    }
}

fn to_usize(range: &Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// `entry`, which is whole, cut to `pieces`: one is a body of its own, several are `multipart/byteranges` (RFC 9110
/// §15.3.7).
pub fn partial(entry: &Entry, pieces: &[Range<usize>]) -> (StatusCode, HeaderMap, Bytes) {
    let mut fields = entry.fields.to_map(4);
    validators::remove_digests(&mut fields);
    let body = match pieces {
        [piece] => {
            set(&mut fields, header::CONTENT_RANGE, &content_range(piece, entry.body.len()));
            entry.body.slice(piece.clone())
        }
        _ => {
            let boundary = boundary(&entry.body);
            let kind = fields.remove(header::CONTENT_TYPE);
            let body = multipart(entry, pieces, &boundary, kind.as_ref());
            // "a server … MUST NOT generate a Content-Range header field in the … header section of a multiple part
            // response".
            set(&mut fields, header::CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
            body
        }
    };
    (StatusCode::PARTIAL_CONTENT, fields, body)
}

/// 416: "SHOULD generate a Content-Range header field specifying the current length" (RFC 9110 §15.5.17).
pub fn unsatisfiable(entry: &Entry) -> (StatusCode, HeaderMap, Bytes) {
    let mut fields = HeaderMap::with_capacity(8);
    set(&mut fields, header::CONTENT_RANGE, &format!("bytes */{}", entry.body.len()));
    (StatusCode::RANGE_NOT_SATISFIABLE, fields, Bytes::new())
}

fn multipart(entry: &Entry, pieces: &[Range<usize>], boundary: &str, kind: Option<&HeaderValue>) -> Bytes {
    let size: usize = pieces.iter().map(|piece| piece.len() + 160).sum();
    let mut body = BytesMut::with_capacity(size);
    for piece in pieces {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(kind) = kind {
            body.extend_from_slice(b"content-type: ");
            body.extend_from_slice(kind.as_bytes());
            body.extend_from_slice(b"\r\n");
        }
        let range = content_range(piece, entry.body.len());
        body.extend_from_slice(format!("content-range: {range}\r\n\r\n").as_bytes());
        body.extend_from_slice(&entry.body[piece.clone()]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body.freeze()
}

/// A boundary that stands nowhere in `body`.
fn boundary(body: &[u8]) -> String {
    let mut at = 0u64;
    loop {
        let boundary = format!("tollgate-{at:016x}");
        if !body.windows(boundary.len()).any(|window| window == boundary.as_bytes()) {
            return boundary;
        }
        at += 1;
    }
}

fn content_range(piece: &Range<usize>, complete: usize) -> String {
    format!("bytes {}-{}/{complete}", piece.start, piece.end.saturating_sub(1))
}

fn set(fields: &mut HeaderMap, name: http::HeaderName, value: &str) {
    // Digits and letters of our own always make a value.
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// Which part a 206 to `asked` holds; `None` where nobody asked for one.
pub fn part(asked: Option<&HeaderValue>, said: &HeaderMap, length: usize) -> Option<Part> {
    let asked = Bytes::copy_from_slice(asked?.as_bytes().trim_ascii());
    let span = said.get(header::CONTENT_RANGE).and_then(|value| span(value, length));
    Some(Part { asked, span })
}

/// `bytes first-last/complete`, where the body holds no more than that. One that brought less than it announced is worth
/// the bytes it brought, from where it says they begin: there every recipient puts them.
fn span(value: &HeaderValue, length: usize) -> Option<Span> {
    let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    let (range, complete) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, complete): (u64, u64, u64) =
        (first.trim().parse().ok()?, last.trim().parse().ok()?, complete.trim().parse().ok()?);
    let (announced, length) = (last.checked_sub(first)?.checked_add(1)?, length as u64);
    let fits = last < complete && (1..=announced).contains(&length);
    (unit.eq_ignore_ascii_case("bytes") && fits).then_some(Span {
        first,
        complete,
        short: length < announced,
    })
}

/// Whether a part may ever answer anything: "A cache MUST NOT use an incomplete response to answer requests unless …
/// the request is partial and specifies a range wholly within the incomplete response" (RFC 9111 §3.3). Returns what of
/// its body that is, and where that lies in the whole.
pub fn within(entry: &Entry, value: &[u8]) -> Option<Within> {
    let part = entry.part.as_deref()?;
    let exactly = || (part.asked == value.trim_ascii()).then_some(Within::Same);
    let Some(Span { first, complete, .. }) = part.span else { return exactly() };
    let wishes = wishes(value)?;
    let [wish] = wishes[..] else { return exactly() };
    let wanted = wish.of(complete)?;
    let end = first + entry.body.len() as u64;
    if first <= wanted.start && wanted.end <= end {
        let cut = to_usize(&(wanted.start - first..wanted.end - first))?;
        return Some(Within::Cut { cut, at: wanted, complete });
    }
    exactly()
}

/// What of a stored part answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Within {
    /// All of it: the request is the one it answered before.
    Same,
    /// A piece of it.
    Cut {
        /// Of its body.
        cut: Range<usize>,
        /// Of the whole.
        at: Range<u64>,
        /// How long the whole is.
        complete: u64,
    },
}

/// A stored part, cut to what is asked.
pub fn of_part(entry: &Entry, within: &Within) -> (StatusCode, HeaderMap, Bytes) {
    let mut fields = entry.fields.to_map(4);
    let body = match within {
        Within::Same => entry.body.clone(),
        Within::Cut { cut, at, complete } => {
            validators::remove_digests(&mut fields);
            set(&mut fields, header::CONTENT_RANGE, &format!("bytes {}-{}/{complete}", at.start, at.end - 1));
            entry.body.slice(cut.clone())
        }
    };
    (StatusCode::PARTIAL_CONTENT, fields, body)
}

/// Asks for what a part lacks, on the condition that it is still a part of the same: "A cache MAY complete a stored
/// incomplete response by making a subsequent range request" (RFC 9111 §3.3), under a strong validator (§3.4). Where
/// more than one piece is missing the whole is asked for.
pub fn ask_for_rest(headers: &mut HeaderMap, entry: &Entry) {
    if let Some((range, tag)) = rest(entry) {
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_RANGE, tag);
    }
}

/// Whether a part can be completed by one more.
pub fn is_completable(entry: &Entry) -> bool {
    rest(entry).is_some()
}

/// The `Range` and the `If-Range` that complete a part.
fn rest(entry: &Entry) -> Option<(HeaderValue, HeaderValue)> {
    let Span { first, complete, .. } = entry.part.as_deref()?.span.filter(|span| !span.short)?;
    let tag = entry.fields.value(&header::ETAG)?;
    let strong = Tag::parse(tag.as_bytes()).is_some_and(|tag| !tag.weak);
    let end = first + entry.body.len() as u64;
    let range = match first {
        0 if end < complete => format!("bytes={end}-"),
        1.. if end == complete => format!("bytes=0-{}", first - 1),
        _ => return None,
    };
    strong.then_some((HeaderValue::try_from(range).ok()?, tag))
}

/// Two parts as one, which parts may become that "all share the same strong validator" (RFC 9111 §3.4; RFC 9110
/// §15.3.7.3). The fields of the newer count; one that is all there is the whole.
pub fn combined(held: &Entry, new: &Entry) -> Option<Entry> {
    let (old, now) = (held.part.as_deref()?.span?, new.part.as_deref()?.span?);
    let tags = [held, new].map(|entry| entry.fields.first(&header::ETAG));
    let [Some(old_tag), Some(new_tag)] = &tags else { return None };
    let same = Tag::parse(old_tag)?.matches_strongly(Tag::parse(new_tag)?);
    if !same || old.complete != now.complete || old.short || now.short {
        return None;
    }
    let (old_end, new_end) = (old.first + held.body.len() as u64, now.first + new.body.len() as u64);
    // A gap between them stays a gap.
    if old.first > new_end || now.first > old_end {
        return None;
    }
    let mut body = BytesMut::new();
    if old.first < now.first {
        body.extend_from_slice(&held.body[..usize::try_from(now.first - old.first).ok()?]);
    }
    body.extend_from_slice(&new.body);
    if old_end > new_end {
        body.extend_from_slice(&held.body[usize::try_from(new_end - old.first).ok()?..]);
    }
    let span = Span { first: old.first.min(now.first), complete: old.complete, short: false };
    Some(joined(new, span, body.freeze()))
}

/// `new` with another body, which lies at `span`.
fn joined(new: &Entry, span: Span, body: Bytes) -> Entry {
    let mut fields = new.fields.to_map(0);
    validators::remove_digests(&mut fields);
    let end = span.first + body.len() as u64;
    let whole = span.first == 0 && end == span.complete;
    let (status, part) = if whole {
        fields.remove(header::CONTENT_RANGE);
        (StatusCode::OK, None)
    } else {
        let (first, last) = (span.first, end.saturating_sub(1));
        set(&mut fields, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", span.complete));
        (
            StatusCode::PARTIAL_CONTENT,
            Some(Part { asked: format!("bytes={first}-{last}").into(), span: Some(span) }),
        )
    };
    let parts = (status, crate::model::Fields::from_map(&fields), body);
    Entry::new(parts, new.arrived, new.initial_age, new.facts, new.selectors.clone())
        .with_part(part)
        .with_groups(new.groups().to_vec())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::entry::Facts;
    use crate::model::{Fields, Moment};

    fn entry(body: &[u8], fields: &[(&'static str, String)], asked: Option<&'static str>) -> Entry {
        let map: HeaderMap = fields
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("is a value"))
            })
            .collect();
        let part = part(asked.map(HeaderValue::from_static).as_ref(), &map, body.len());
        let parts = (StatusCode::OK, Fields::from_map(&map), Bytes::copy_from_slice(body));
        Entry::new(parts, Moment::ORIGIN, Duration::ZERO, Facts::default(), std::sync::Arc::default())
            .with_part(part)
    }

    #[test]
    fn ranges_are_cut_or_ignored() {
        let pieces =
            |pieces: &[(usize, usize)]| Cut::Pieces(pieces.iter().map(|(from, to)| *from..*to).collect());
        for (value, cut_to) in [
            ("bytes=0-1", pieces(&[(0, 2)])),
            ("BYTES = 1-", pieces(&[(1, 10)])),
            ("bytes=-3", pieces(&[(7, 10)])),
            ("bytes=-30", pieces(&[(0, 10)])),
            ("bytes=8-99", pieces(&[(8, 10)])),
            ("bytes=0-0, -1", pieces(&[(0, 1), (9, 10)])),
            ("bytes=0-0, 50-60", pieces(&[(0, 1)])),
            ("bytes=10-", Cut::Nothing),
            ("bytes=-0", Cut::Nothing),
            ("bytes=5-4", Cut::Whole),
            ("bytes=a-4", Cut::Whole),
            ("bytes=", Cut::Whole),
            ("lines=0-1", Cut::Whole),
            ("bytes=0-9,0-9", Cut::Whole),
            ("bytes=0-99999999999999999999999", pieces(&[(0, 10)])),
        ] {
            assert_eq!(cut(value.as_bytes(), 10), cut_to, "{value}");
        }
    }

    #[test]
    fn several_ranges_are_a_multipart_whose_boundary_is_nowhere_else() {
        let whole = entry(b"tollgate-0000000000000000", &[("content-type", "a/b".into())], None);
        let (status, fields, body) = partial(&whole, &[0..2, 23..25]);
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(fields["content-type"], "multipart/byteranges; boundary=tollgate-0000000000000001");
        let text = String::from_utf8(body.to_vec()).expect("is text");
        assert_eq!(
            text,
            "--tollgate-0000000000000001\r\ncontent-type: a/b\r\ncontent-range: bytes 0-1/25\r\n\r\nto\r\n\
             --tollgate-0000000000000001\r\ncontent-type: a/b\r\ncontent-range: bytes 23-24/25\r\n\r\n00\r\n\
             --tollgate-0000000000000001--\r\n"
        );
    }

    #[test]
    fn a_part_answers_what_lies_within_it() {
        let sound = entry(b"45678", &[("content-range", "bytes 4-8/10".into())], Some("bytes=4-8"));
        let short = entry(b"01234", &[("content-range", "bytes 4-9/10".into())], Some("bytes=-5"));
        let long = entry(b"01234", &[("content-range", "bytes 4-5/10".into())], Some("bytes=4-5"));
        for (part, value, body) in [
            (&sound, "bytes=4-8", Some("45678")),
            (&sound, "bytes=5-6", Some("56")),
            (&sound, "bytes=-6", None),
            (&sound, "bytes=8-", None),
            (&sound, "bytes=3-4", None),
            (&short, "bytes=-5", Some("01234")),
            (&short, "bytes=6-8", Some("234")),
            (&short, "bytes=6-9", None),
            (&short, "bytes=6-", None),
            (&short, "bytes=-1", None),
            (&long, "bytes=4-5", Some("01234")),
            (&long, "bytes=4-4", None),
        ] {
            let answer = within(part, value.as_bytes()).map(|within| of_part(part, &within).2);
            assert_eq!(answer.as_deref(), body.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn a_part_shorter_than_announced_completes_nothing() {
        let part = |body: &[u8], range: &str| {
            entry(body, &[("content-range", range.into()), ("etag", "\"a\"".into())], Some("bytes=0-4"))
        };
        let (sound, short, rest) =
            (part(b"01234", "bytes 0-4/10"), part(b"01234", "bytes 0-5/10"), part(b"56789", "bytes 5-9/10"));
        assert!(is_completable(&sound) && combined(&sound, &rest).is_some());
        assert!(
            !is_completable(&short) && combined(&short, &rest).is_none() && combined(&rest, &short).is_none()
        );
    }

    proptest! {
        #[test]
        fn combined_parts_are_the_whole_s_own_bytes(a in 0usize..20, b in 0usize..20, c in 0usize..20, d in 0usize..20) {
            let whole: Vec<u8> = (0..20).collect();
            let piece = |from: usize, to: usize| {
                let (from, to) = (from.min(to), from.max(to));
                let range = format!("bytes {from}-{to}/20");
                let fields = [("content-range", range), ("etag", "\"a\"".to_owned())];
                entry(&whole[from..=to], &fields, Some("bytes=0-"))
            };
            let (one, other) = (piece(a, b), piece(c, d));
            match combined(&one, &other) {
                Some(made) => {
                    let first = made.part.as_ref().map_or(0, |part| part.span.expect("is sound").first);
                    let first = usize::try_from(first).expect("is small");
                    prop_assert_eq!(&made.body[..], &whole[first..first + made.body.len()]);
                    prop_assert!(made.body.len() >= one.body.len().max(other.body.len()));
                    prop_assert_eq!(made.part.is_none(), made.body.len() == whole.len());
                }
                None => {
                    let (low, high) = if a.min(b) < c.min(d) { (a.max(b), c.min(d)) } else { (c.max(d), a.min(b)) };
                    prop_assert!(low + 1 < high);
                }
            }
        }

        #[test]
        fn any_bytes_are_cut_or_ignored(value in prop::collection::vec(any::<u8>(), 0..30), length in 0usize..50) {
            if let Cut::Pieces(pieces) = cut(&value, length) {
                prop_assert!(pieces.iter().all(|piece| piece.start < piece.end && piece.end <= length));
            }
        }
    }
}
