//! What one client gets from a stored response: the whole, what it lacks of it, a piece, or word that it has it.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::cache_control::Directives;
use super::ranges::{self, Cut};
use super::validators::{self, CONDITIONS, Conditions};
use crate::model::entry::Entry;

/// What a request says about being answered from memory, read in one pass over its fields.
#[derive(Debug, Default)]
pub struct Wishes {
    /// `Cache-Control`, or what `Pragma: no-cache` says in its place.
    pub directives: Directives,
    /// Its `Accept-Encoding`, all lines as one.
    pub codings: Option<HeaderValue>,
    /// Its conditions, range and `If-Range`; empty for nearly everyone.
    pub conditions: HeaderMap,
}

impl Wishes {
    /// Reads a request's fields.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let (mut wishes, mut controlled, mut pragma) = (Self::default(), false, false);
        for (name, value) in headers {
            // Most names are ruled out by their first letter.
            match name.as_str().as_bytes().first() {
                Some(b'a') if *name == header::ACCEPT_ENCODING => {
                    let joined = |before: HeaderValue| {
                        HeaderValue::from_bytes(&[before.as_bytes(), b",", value.as_bytes()].concat()).ok()
                    };
                    wishes.codings = wishes.codings.take().map_or_else(|| Some(value.clone()), joined);
                }
                Some(b'c') if *name == header::CACHE_CONTROL => {
                    wishes.directives.read(value.as_bytes());
                    controlled = true;
                }
                Some(b'p') if *name == header::PRAGMA => {
                    pragma |= value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"no-cache");
                }
                Some(b'i' | b'r') if is_answered_here(name) => {
                    wishes.conditions.append(name.clone(), value.clone());
                }
                _ => {}
            }
        }
        // "When the Cache-Control header field is not present in a request, caches MUST consider the no-cache request
        // pragma-directive as having the same effect" (RFC 7234 §5.4; deprecated since, and still sent).
        wishes.directives.no_cache |= pragma && !controlled;
        wishes
    }
}

fn is_answered_here(name: &HeaderName) -> bool {
    CONDITIONS.contains(name) || *name == header::RANGE || *name == header::IF_RANGE
}

/// Takes out of a request what the gate answers itself, so that the call's answer serves everyone.
pub fn without_conditions(headers: &mut HeaderMap) {
    for name in CONDITIONS.iter().chain(&[header::RANGE, header::IF_RANGE]) {
        headers.remove(name);
    }
}

/// An answer made of an entry: a status, fields and a body of its own.
pub type Shaped = (StatusCode, HeaderMap, Bytes);

/// What a request with these conditions gets of `entry`; `None` is the whole, as it is.
pub fn shape(asked: &HeaderMap, method: &Method, entry: &Entry, wall: SystemTime) -> Option<Shaped> {
    // "A server MUST ignore all received preconditions if its response to the same request without those conditions …
    // would have been a status code other than a 2xx" (RFC 9110 §13.2.1).
    if asked.is_empty() || !entry.status.is_success() || entry.part.is_some() {
        return None;
    }
    match validators::judge(asked, entry, wall) {
        Conditions::NotModified => {
            return Some((StatusCode::NOT_MODIFIED, validators::of_not_modified(entry), Bytes::new()));
        }
        Conditions::Failed => {
            return Some((StatusCode::PRECONDITION_FAILED, validators::of_failed(entry), Bytes::new()));
        }
        Conditions::Hold => {}
    }
    // 5. "When the method is GET and both Range and If-Range are present" (RFC 9110 §13.2.2).
    let range =
        asked.get(header::RANGE).filter(|_| *method == Method::GET && entry.status == StatusCode::OK)?;
    if !validators::allows_range(asked, entry, wall) {
        return None;
    }
    match ranges::cut(range.as_bytes(), entry.body.len()) {
        Cut::Whole => None,
        Cut::Nothing => Some(ranges::unsatisfiable(entry)),
        Cut::Pieces(pieces) => Some(ranges::partial(entry, &pieces)),
    }
}
