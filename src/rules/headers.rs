//! Which header fields cross the gate, in either direction.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::message::forwards_left;
use super::{targeted, vary};
use crate::model::Secret;
use crate::model::fields::named;

/// The request fields that go upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardHeaders {
    /// `"all"`: every end-to-end field.
    All,
    /// These.
    List(Vec<HeaderName>),
}

/// Fields that belong to one connection (RFC 9110 §7.6.1) or to its framing, and so are never passed on.
static HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("proxy-authentication-info"),
];

/// Fields of an answer that say whether, for how long and for whom it may be kept.
static OF_REUSE: [HeaderName; 9] = [
    header::CACHE_CONTROL,
    targeted::CDN,
    targeted::OWN,
    header::EXPIRES,
    header::PRAGMA,
    header::AGE,
    header::DATE,
    header::VARY,
    header::SET_COOKIE,
];

/// Fields of a request that the gate makes itself or answers itself.
static OURS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::MAX_FORWARDS,
    header::VIA,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("tollgate-timeout"),
    HeaderName::from_static("tollgate-walk"),
    HeaderName::from_static("x-tollgate-key"),
];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A route's rule for request fields: what it allows, and the names its credentials take.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// The fields the route allows; of a list only those that may ever cross.
    allowed: ForwardHeaders,
    /// Names under which credentials are injected: no copy or look-alike of the client's passes.
    credentials: Vec<HeaderName>,
}

impl Forwarding {
    /// The rule of a route that allows these fields and injects credentials under these names.
    pub fn new(mut allowed: ForwardHeaders, credentials: Vec<HeaderName>) -> Self {
        if let ForwardHeaders::List(names) = &mut allowed {
            names.retain(|name| may_cross(name, &[], &credentials));
        }
        Self { allowed, credentials }
    }

    /// Of a request's fields those that go upstream: allowed by the route and let across.
    pub fn of(&self, headers: &HeaderMap) -> HeaderMap {
        let listed = connection_options(headers);
        let passes = |name: &HeaderName| match &self.allowed {
            ForwardHeaders::All => may_cross(name, &listed, &self.credentials),
            ForwardHeaders::List(names) => names.contains(name) && !listed.contains(name),
        };
        let mut forwarded = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
            forwarded.append(name.clone(), value.clone());
        }
        forwarded
    }

    /// The fields of a request by `method`, in `version`, and those that whoever passes it on must add.
    pub fn of_request(&self, method: &Method, version: Version, headers: &HeaderMap) -> HeaderMap {
        let mut forwarded = self.of(headers);
        // By its `Idempotency-Key` the upstream knows a repetition, so that field passes wherever unsafe requests do.
        if !method.is_safe()
            && let Some(key) = headers.get(IDEMPOTENCY_KEY)
            && may_cross(&IDEMPOTENCY_KEY, &connection_options(headers), &self.credentials)
        {
            forwarded.insert(IDEMPOTENCY_KEY, key.clone());
        }
        if let Some(left) = forwards_left(method, headers) {
            forwarded.insert(header::MAX_FORWARDS, left.saturating_sub(1).into());
        }
        forwarded.insert(header::VIA, self.via(version, headers));
        forwarded
    }

    /// Whether a field of this name may go upstream at all.
    pub fn may_send(&self, name: &HeaderName) -> bool {
        let allowed = match &self.allowed {
            ForwardHeaders::All => true,
            ForwardHeaders::List(names) => names.contains(name),
        };
        allowed && may_cross(name, &[], &self.credentials)
    }

    /// "… an HTTP-to-HTTP gateway MUST send an appropriate Via header field in each inbound request message" (RFC 9110
    /// §7.6.3): the version the request came in, behind those it passed before where the route passes every field.
    fn via(&self, version: Version, headers: &HeaderMap) -> HeaderValue {
        let own = received_in(version);
        let before = vary::combined(headers, &header::VIA).filter(|_| self.allowed == ForwardHeaders::All);
        let whole = before.map(|before| [&before, &b", "[..], own.as_bytes()].concat());
        let whole = whole.and_then(|whole| HeaderValue::try_from(whole).ok());
        whole.unwrap_or(HeaderValue::from_static(own))
    }

    /// What goes upstream of the field `name`, all its lines as one: the same as in [`Forwarding::of`], without making
    /// a map.
    pub fn sent<'a>(&self, headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
        // Most fields that are asked about are not there.
        let value = vary::combined(headers, name)?;
        let crosses = match &self.allowed {
            ForwardHeaders::List(names) => {
                names.contains(name) && !connection_options(headers).contains(name)
            }
            ForwardHeaders::All => may_cross(name, &connection_options(headers), &self.credentials),
        };
        crosses.then_some(value)
    }
}

/// What an upstream's answer to the gate in `version` is passed on with, behind those it passed before: the gate "MAY send
/// a Via header field in forwarded response messages" (RFC 9110 §7.6.3).
pub fn add_via(headers: &mut HeaderMap, version: Version) {
    headers.append(header::VIA, HeaderValue::from_static(received_in(version)));
}

/// The gate, among those a message passed, behind the version it was received in.
fn received_in(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0 tollgate",
        Version::HTTP_2 => "2 tollgate",
        _ => "1.1 tollgate",
    }
}

/// Whether a field may go upstream: end-to-end, not `listed` in `Connection`, and no copy or look-alike of a credential.
fn may_cross(name: &HeaderName, listed: &[HeaderName], credentials: &[HeaderName]) -> bool {
    !HOP_BY_HOP.contains(name)
        && !OURS.contains(name)
        && !listed.contains(name)
        && !is_twin_of_ours(name)
        && !credentials.iter().any(|credential| looks_like(name.as_str(), credential.as_str()))
}

/// Removes from fields that are kept what speaks of the account's limits at one moment: `RateLimit`, `RateLimit-Policy`,
/// and the older ones that many send.
pub fn strip_limits(headers: &mut HeaderMap) {
    let spoken: Vec<HeaderName> = headers.keys().filter(|name| speaks_of_limits(name)).cloned().collect();
    for name in spoken {
        headers.remove(name);
    }
}

/// Whether a field speaks of an account's limits, in whichever dialect.
pub fn speaks_of_limits(name: &HeaderName) -> bool {
    ["ratelimit", "x-ratelimit", "x-rate-limit"].iter().any(|word| name.as_str().starts_with(word))
}

/// Whether some server would take a field for one of a connection, of its framing, or of the gate's own:
/// `Content_Length`.
fn is_twin_of_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains('_') && HOP_BY_HOP.iter().chain(&OURS).any(|ours| looks_like(name, ours.as_str()))
}

/// Removes from an upstream's fields those of its connection. An answer that counts among them what says how it may be
/// kept is kept by nobody: "Cache-Control is never appropriate as a connection option" (RFC 9110 §7.6.1), and without it
/// the answer would say something else.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut unkeepable = false;
    for name in connection_options(headers) {
        unkeepable |= headers.remove(&name).is_some() && OF_REUSE.contains(&name);
    }
    // Few answers have any: looking at each name takes less than asking for eleven.
    let held: Vec<HeaderName> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    for name in held {
        headers.remove(name);
    }
    if unkeepable {
        headers.remove(targeted::OWN);
        headers.remove(targeted::CDN);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Whether two names mean the same to some server: many fold `_` and `-` together.
pub fn looks_like(name: &str, credential: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == credential.len() && name.bytes().map(fold).eq(credential.bytes().map(fold))
}

/// Removes every field whose value shows one of `secrets`, plainly or percent-encoded. A `Location` or
/// `Content-Location` that does is kept without the query parameters that show it. Framing fields are left alone.
pub fn remove_echoes(headers: &mut HeaderMap, secrets: &[Secret]) {
    let guilty: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| **name != header::CONTENT_LENGTH && shows(value.as_bytes(), secrets))
        .map(|(name, _)| name.clone())
        .collect();
    for name in guilty {
        let redacted = (name == header::LOCATION || name == header::CONTENT_LOCATION)
            .then(|| headers.get(&name).and_then(|value| without_guilty_parameters(value, secrets)))
            .flatten();
        match redacted {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

fn without_guilty_parameters(location: &HeaderValue, secrets: &[Secret]) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let (location, fragment) = location.split_once('#').map_or((location, None), |(l, f)| (l, Some(f)));
    let (path, query) = location.split_once('?')?;
    let kept: Vec<&str> = query.split('&').filter(|pair| !shows(pair.as_bytes(), secrets)).collect();
    let mut clean = path.to_owned();
    if !kept.is_empty() {
        clean.push('?');
        clean.push_str(&kept.join("&"));
    }
    if let Some(fragment) = fragment {
        clean.push('#');
        clean.push_str(fragment);
    }
    if shows(clean.as_bytes(), secrets) {
        return None;
    }
    HeaderValue::try_from(clean).ok()
}

fn shows(value: &[u8], secrets: &[Secret]) -> bool {
    let shown = |value: &[u8]| secrets.iter().any(|secret| contains(value, secret.expose()));
    let decoded = |value: &[u8]| shown(&percent_encoding::percent_decode(value).collect::<Vec<u8>>());
    // As a form writes it: a space is a `+`, and a `+` is encoded.
    let spaced = || value.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect::<Vec<u8>>();
    // Few values are encoded in any way, and those that are not decode to themselves.
    let is_encoded = || memchr::memchr2(b'%', b'+', value).is_some();
    shown(value) || (is_encoded() && (decoded(value) || decoded(&spaced())))
}

/// Whether `secret` stands in `value`. A short secret counts only as a whole word: `12` is not shown by `2012`.
fn contains(value: &[u8], secret: &[u8]) -> bool {
    const SHORT: usize = 6;
    // Most values do not even have its first byte.
    if value.len() < secret.len()
        || secret.first().is_none_or(|first| memchr::memchr(*first, value).is_none())
    {
        return false;
    }
    if secret.len() >= SHORT {
        return memchr::memmem::find(value, secret).is_some();
    }
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    value.windows(secret.len()).enumerate().any(|(at, window)| {
        window == secret
            && !is_word(at.checked_sub(1).and_then(|before| value.get(before)))
            && !is_word(value.get(at + secret.len()))
    })
}

fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    named(headers, header::CONNECTION)
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_what_may_cross_is_forwarded() {
        let credentials = [HeaderName::from_static("api-key")];
        let sent = map(&[
            ("accept", "a/b"),
            ("accept", "c/d"),
            ("api-key", "mine"),
            ("api_key", "mine"),
            ("content_length", "9"),
            ("transfer_encoding", "chunked"),
            ("x_request_id", "mine"),
            ("x-listed", "1"),
            ("connection", "close, X-Listed"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "gate"),
            ("content-length", "3"),
            ("x-other", "1"),
        ]);
        let all = Forwarding::new(ForwardHeaders::All, credentials.to_vec()).of(&sent);
        assert_eq!(names(&all), ["accept", "x-other"]);
        assert_eq!(all.get_all("accept").iter().count(), 2);
        let list = ForwardHeaders::List(vec![header::ACCEPT, HeaderName::from_static("api-key"), header::TE]);
        assert_eq!(names(&Forwarding::new(list, credentials.to_vec()).of(&sent)), ["accept"]);
    }

    #[test]
    fn an_echoed_credential_does_not_reach_the_client() {
        let secrets = ["s3cr3t+key", "bob", "two words"].map(|secret| Secret::new(secret.into()));
        for (name, value, left) in [
            ("x-echo", "s3cr3t+key", None),
            ("x-echo", "key=s3cr3t%2Bkey;", None),
            ("x-echo", "k=two+words", None),
            ("location", "/a?k=two+words&b=1", Some("/a?b=1")),
            ("x-echo", "S3CR3T+KEY", Some("S3CR3T+KEY")),
            ("x-user", "bob", None),
            ("x-user", "hello bob!", None),
            ("x-user", "bobsled", Some("bobsled")),
            ("location", "/a?k=s3cr3t%2Bkey&b=1", Some("/a?b=1")),
            ("location", "/a?k=s3cr3t%2Bkey#top", Some("/a#top")),
            ("location", "/s3cr3t+key/a?b=1", None),
        ] {
            let mut headers = map(&[(name, value)]);
            remove_echoes(&mut headers, &secrets);
            assert_eq!(
                headers.get(name).map(|value| value.to_str().expect("is ASCII")),
                left,
                "{name}: {value}"
            );
        }
    }
}
