//! What may be kept and what may be reused: one line a case, under the sentence that decides it.

mod laws;

use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::model::fields::Fields;

const WALL: SystemTime = SystemTime::UNIX_EPOCH;
const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

fn wall() -> SystemTime {
    WALL + Duration::from_secs(784_111_777)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `name: value` lines, separated by ` | `.
fn headers(lines: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.split(" | ").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").expect("a line is `name: value`");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("is a name");
        map.append(name, HeaderValue::from_str(value).expect("is a value"));
    }
    map
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("is a status")
}

/// What an operator may write.
fn policy(words: &str) -> Policy {
    let mut policy = Policy::default();
    for word in words.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, "0"));
        let seconds = || s(value.parse().expect("is a number"));
        match name {
            "off" => policy.enabled = false,
            "ttl" => policy.ttl = Some(seconds()),
            "ttl404" => policy.ttl_for.push((StatusCode::NOT_FOUND, seconds())),
            "private" => policy.overrides.private = true,
            "no-cache" => policy.overrides.no_cache = true,
            "max-age-0" => policy.overrides.max_age_0 = true,
            "max" => policy.max_ttl = Some(seconds()),
            "swr" => policy.stale_while_revalidate = Some(seconds()),
            "sie" => policy.stale_if_error = Some(seconds()),
            "siu" => policy.stale_if_unreachable = seconds(),
            "honour" => policy.honour_request_directives = true,
            other => panic!("no such word: {other}"),
        }
    }
    policy
}

fn admission(words: &str, sent: &str, code: u16, said: &str) -> Admission {
    answered(words, &Method::GET, sent, (code, said))
}

fn answered(words: &str, method: &Method, sent: &str, (code, said): (u16, &str)) -> Admission {
    let (sent, said) = (headers(sent), headers(said));
    admit(
        &policy(words),
        Exchange {
            method,
            sent: &sent,
            status: status(code),
            headers: &said,
            is_of_target: false,
            delay: Duration::ZERO,
            wall: wall(),
        },
    )
}

fn named(admission: &Admission) -> String {
    match admission {
        Admission::Keep(_) => "Keep".into(),
        Admission::Share(_) => "Share".into(),
        Admission::Refuse(reason) => format!("{reason:?}"),
    }
}

#[test]
fn what_is_kept() {
    for (section, words, sent, code, said, expected) in [
        // the operator's word
        ("design 3", "off ttl=30", "", 200, "", "Disabled"),
        ("design 3", "ttl=30", "", 200, "", "Keep"),
        ("design 3", "ttl=30", "", 203, "", "NoLifetime"),
        ("design 3", "ttl=30", "", 404, "", "Share"),
        ("design 3", "ttl=30 ttl404=5", "", 404, "", "Keep"),
        ("design 3", "ttl=30", "", 401, "", "NoLifetime"),
        ("design 3", "ttl=30", "", 403, "", "NoLifetime"),
        ("design 7", "ttl=30", "", 429, "cache-control: max-age=60", "Share"),
        ("design 7", "ttl=30", "", 428, "cache-control: max-age=60", "Status"),
        ("design 7", "ttl=30", "", 431, "cache-control: max-age=60", "Status"),
        ("design 7", "ttl=30", "", 511, "cache-control: max-age=60", "Share"),
        ("design 7", "ttl=30", "", 500, "", "Share"),
        ("design 7", "ttl=30", "", 503, "cache-control: max-age=60", "Keep"),
        ("design 7", "ttl=30", "", 500, "set-cookie: a=1", "NoLifetime"),
        // "response status code is final" and understood
        ("RFC 9111 3", "ttl=30", "", 103, "cache-control: max-age=60", "Status"),
        ("RFC 9111 3.3", "ttl=30", "", 206, "cache-control: max-age=60", "Status"),
        ("RFC 9111 4.3.3", "ttl=30", "", 304, "cache-control: max-age=60", "Status"),
        // no-store
        ("RFC 9111 5.2.2.5", "ttl=30", "", 200, "cache-control: no-store", "NoStore"),
        ("RFC 9111 5.2.2.5", "ttl=30", "", 200, "cache-control: max-age=60, No-Store", "NoStore"),
        (
            "RFC 9111 5.2.2.5",
            "ttl=30 private no-cache max-age-0",
            "",
            200,
            "cache-control: no-store",
            "NoStore",
        ),
        ("RFC 9111 5.2.1.5", "ttl=30", "cache-control: no-store", 200, "", "Keep"),
        // private
        ("RFC 9111 5.2.2.7", "ttl=30", "", 200, "cache-control: private", "Private"),
        ("RFC 9111 5.2.2.7", "", "", 200, "cache-control: private, max-age=60", "Private"),
        ("RFC 9111 5.2.2.7", "", "", 200, "cache-control: private=\"x\", max-age=60", "Keep"),
        ("RFC 9111 5.2.2.7", "ttl=30 private", "", 200, "cache-control: private", "Keep"),
        // no-cache
        ("RFC 9111 5.2.2.4", "ttl=30", "", 200, "cache-control: no-cache", "NoLifetime"),
        ("RFC 9111 5.2.2.4", "ttl=30 swr=60", "", 200, "cache-control: no-cache", "NoLifetime"),
        ("RFC 9111 5.2.2.4", "ttl=30 no-cache", "", 200, "cache-control: no-cache", "Keep"),
        ("RFC 9111 5.2.2.4", "no-cache", "", 200, "cache-control: no-cache, max-age=60", "NoLifetime"),
        // credentials
        ("RFC 9111 3.5", "ttl=30", "authorization: x", 200, "", "Credentials"),
        ("RFC 9111 3.5", "", "authorization: x", 200, "cache-control: max-age=60", "Credentials"),
        ("RFC 9111 3.5", "", "cookie: x", 200, "cache-control: max-age=60", "Credentials"),
        ("RFC 9111 3.5", "", "authorization: x", 200, "cache-control: public, max-age=60", "Keep"),
        ("RFC 9111 3.5", "", "authorization: x", 200, "cache-control: s-maxage=60", "Keep"),
        ("RFC 9111 3.5", "", "authorization: x", 200, "cache-control: must-revalidate, max-age=60", "Keep"),
        ("RFC 9111 3.5", "ttl=30", "authorization: x", 200, "cache-control: public", "Credentials"),
        (
            "design 3",
            "ttl=30 max-age-0 swr=9",
            "cookie: x",
            200,
            "cache-control: public, max-age=0",
            "Credentials",
        ),
        (
            "design 3",
            "ttl=30 private swr=9",
            "cookie: x",
            200,
            "cache-control: public, private, max-age=9",
            "Credentials",
        ),
        (
            "design 3",
            "ttl=30 no-cache",
            "cookie: x",
            200,
            "cache-control: public, no-cache, max-age=9",
            "Credentials",
        ),
        // cookies
        ("design 3", "ttl=30", "", 200, "set-cookie: a=1", "Keep"),
        ("design 3", "ttl=30", "", 200, "set-cookie: a=1 | cache-control: max-age=60", "Keep"),
        (
            "design 3",
            "ttl=30 private",
            "",
            200,
            "set-cookie: a=1 | cache-control: private, max-age=60",
            "Cookie",
        ),
        // Vary
        ("RFC 9111 4.1", "ttl=30", "", 200, "vary: *", "VaryStar"),
        ("RFC 9111 4.1", "ttl=30", "", 200, "vary: accept, *", "VaryStar"),
        ("RFC 9111 4.1", "ttl=30", "", 200, "vary: accept | vary: *", "VaryStar"),
        ("RFC 9111 4.1", "ttl=30", "", 200, "vary: a b", "VaryStar"),
        ("RFC 9111 4.1", "ttl=30", "", 200, "vary: accept", "Keep"),
        // lifetimes
        ("RFC 9111 4.2.1", "", "", 200, "", "NoLifetime"),
        ("RFC 9111 4.2.1", "", "", 200, "cache-control: max-age=0", "NoLifetime"),
        ("RFC 9111 4.2.1", "", "", 200, "cache-control: max-age=1", "Keep"),
        ("RFC 9111 4.2.1", "", "", 404, "cache-control: max-age=1", "Keep"),
        ("RFC 9111 4.2.1", "", "", 200, "cache-control: max-age=60, s-maxage=0", "NoLifetime"),
        ("RFC 9111 4.2.1", "", "", 200, "cache-control: max-age=60, max-age=0", "NoLifetime"),
        ("RFC 9111 4.2.1", "", "", 200, "cache-control: max-age=x", "NoLifetime"),
        ("RFC 9111 5.3", "", "", 200, &format!("date: {NOW} | expires: {LATER}"), "Keep"),
        ("RFC 9111 5.3", "", "", 200, &format!("date: {LATER} | expires: {NOW}"), "NoLifetime"),
        ("RFC 9111 5.3", "", "", 200, &format!("expires: {LATER}"), "Keep"),
        ("RFC 9111 5.3", "", "", 200, "expires: 0", "NoLifetime"),
        ("RFC 9111 5.3", "", "", 200, &format!("expires: {LATER} | cache-control: max-age=0"), "NoLifetime"),
        ("design 3", "ttl=30", "", 200, "cache-control: max-age=0", "NoLifetime"),
        ("design 3", "ttl=30 max-age-0", "", 200, "cache-control: max-age=0", "Keep"),
        ("design 3", "ttl=30 max-age-0", "", 200, "expires: -1", "Keep"),
        // what is never fresh may still be of use
        ("RFC 5861 3", "", "", 200, "cache-control: max-age=0, stale-while-revalidate=5", "Keep"),
        ("RFC 5861 4", "", "", 200, "cache-control: max-age=0, stale-if-error=5", "Keep"),
        (
            "RFC 5861 4",
            "",
            "",
            200,
            "cache-control: max-age=0, must-revalidate, stale-if-error=5",
            "NoLifetime",
        ),
    ] {
        let found = admission(words, sent, code, said);
        assert_eq!(named(&found), expected, "{section}: [{words}] {sent:?} → {code} {said:?}");
    }
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        let found = answered("ttl=30", &method, "", (200, ""));
        assert_eq!(named(&found), "Method", "RFC 9111 3: {method}");
    }
}

#[test]
fn the_age_on_arrival() {
    for (section, said, expected) in [
        ("RFC 9111 4.2.3", "", 0),
        ("RFC 9111 4.2.3", "age: 7", 7),
        ("RFC 9111 4.2.3", "date: Sun, 06 Nov 1994 08:49:27 GMT", 10),
        ("RFC 9111 4.2.3", "date: Sun, 06 Nov 1994 08:49:27 GMT | age: 7", 10),
        ("RFC 9111 4.2.3", "date: Sun, 06 Nov 1994 08:49:27 GMT | age: 70", 70),
        ("RFC 9111 4.2.3", "date: Sun, 06 Nov 1994 09:49:27 GMT", 0),
        ("RFC 9111 4.2.3", "date: yesterday", 0),
        ("RFC 9111 5.1", "age: 7, 9", 7),
        ("RFC 9111 5.1", "age: -7", 0),
        ("RFC 9111 5.1", "age: x", 0),
        ("RFC 9111 1.2.2", "age: 9999999999", 1 << 31),
    ] {
        let Admission::Keep(Kept { initial_age, .. }) = admission("ttl=30", "", 200, said) else {
            panic!("{said:?} is kept");
        };
        assert_eq!(initial_age, s(expected), "{section}: {said:?}");
    }
}

#[test]
fn what_selects_an_answer() {
    let Admission::Keep(Kept { selectors, .. }) =
        admission("ttl=30", "accept: a/a | x-other: 1", 200, "vary: Accept, accept-language | vary: accept")
    else {
        panic!("is kept");
    };
    let named: Vec<_> = selectors
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_ref().map(|value| value.to_str().expect("is text"))))
        .collect();
    assert_eq!(named, [("accept", Some("a/a")), ("accept-language", None)], "RFC 9111 4.1");
}

/// The entry that `admit` makes of `said`, if it keeps it.
fn entry(words: &str, said: &str) -> Option<Entry> {
    match admission(words, "", 200, said) {
        Admission::Keep(Kept { facts, initial_age, selectors, .. }) => Some(Entry::new(
            (StatusCode::OK, Fields::default(), Bytes::new()),
            Moment::ORIGIN,
            initial_age,
            facts,
            selectors,
        )),
        _ => None,
    }
}

fn verdict(words: &str, entry: &Entry, asked: &str, after: u64) -> String {
    let asked = Directives::from_headers(&headers(asked), &header::CACHE_CONTROL);
    let policy = policy(words);
    match decide(&policy, entry, &asked, policy.honour_request_directives, Moment::ORIGIN + s(after)) {
        Verdict::Accepted { over } => format!("accepted {}", over.as_secs()),
        Verdict::Fresh { left } => format!("fresh {}", left.as_secs()),
        Verdict::FreshenMeanwhile { over } => format!("meanwhile {}", over.as_secs()),
        Verdict::Fetch { over, if_error, if_unreachable } => {
            format!("fetch {} {} {}", over.as_secs(), if_error.as_secs(), if_unreachable.as_secs())
        }
    }
}

/// (the sentence, the route's words, the upstream's, the request's, seconds later, what to do); a fetch says how long
/// its lifetime is over, and how long it may serve after an error and in an outage.
#[test]
fn what_is_reused() {
    for (section, words, said, asked, after, expected) in [
        ("RFC 9111 4.2", "ttl=30", "", "", 0, "fresh 30"),
        ("RFC 9111 4.2", "ttl=30", "", "", 29, "fresh 1"),
        ("RFC 9111 4.2", "ttl=30", "", "", 30, "fetch 0 0 30"),
        ("RFC 9111 4.2.1", "ttl=30", "cache-control: max-age=10", "", 10, "fetch 0 0 30"),
        ("RFC 9111 4.2.1", "", "cache-control: max-age=10, s-maxage=20", "", 19, "fresh 1"),
        ("RFC 9111 4.2.3", "", "cache-control: max-age=10 | age: 4", "", 5, "fresh 1"),
        ("RFC 9111 4.2.3", "ttl=30", "age: 29", "", 1, "fetch 0 0 30"),
        ("design 3", "max=5", "cache-control: max-age=10", "", 4, "fresh 1"),
        ("design 3", "max=5", "cache-control: max-age=10", "", 5, "fetch 0 0 30"),
        ("design 3", "max=5 ttl=30", "", "", 29, "fresh 1"),
        ("design 3", "ttl=30 max-age-0", "cache-control: max-age=0", "", 29, "fresh 1"),
        ("design 3", "ttl=30 no-cache", "cache-control: no-cache", "", 29, "fresh 1"),
        ("RFC 5861 3", "ttl=30 swr=60", "", "", 30, "meanwhile 0"),
        ("RFC 5861 3", "ttl=30 swr=60", "", "", 89, "meanwhile 59"),
        ("RFC 5861 3", "ttl=30 swr=60", "", "", 90, "fetch 60 0 30"),
        ("RFC 5861 3", "", "cache-control: max-age=10, stale-while-revalidate=5", "", 14, "meanwhile 4"),
        (
            "RFC 5861 3",
            "swr=0",
            "cache-control: max-age=10, stale-while-revalidate=5",
            "",
            10,
            "fetch 0 0 30",
        ),
        ("RFC 5861 4", "ttl=30 sie=60", "", "", 30, "fetch 0 60 60"),
        ("RFC 5861 4", "", "cache-control: max-age=10, stale-if-error=7", "", 11, "fetch 1 7 7"),
        ("RFC 5861 4", "ttl=30 sie=60", "", "cache-control: stale-if-error=5", 30, "fetch 0 5 5"),
        ("RFC 5861 4", "ttl=30 sie=60", "", "cache-control: stale-if-error=500", 30, "fetch 0 60 60"),
        ("RFC 5861 4", "ttl=30", "", "cache-control: stale-if-error=5", 30, "fetch 0 0 5"),
        ("design 3", "ttl=30 siu=0", "", "", 30, "fetch 0 0 0"),
        (
            "RFC 9111 5.2.2.2",
            "",
            "cache-control: max-age=9, must-revalidate, stale-if-error=7",
            "",
            9,
            "fetch 0 0 0",
        ),
        ("RFC 9111 5.2.2.8", "", "cache-control: max-age=9, proxy-revalidate", "", 9, "fetch 0 0 0"),
        ("RFC 9111 5.2.2.10", "", "cache-control: s-maxage=9", "", 9, "fetch 0 0 0"),
        ("design 3", "swr=60 sie=60", "cache-control: s-maxage=9", "", 9, "meanwhile 0"),
        ("design 3", "sie=60", "cache-control: max-age=9, must-revalidate", "", 9, "fetch 0 60 60"),
        ("RFC 9111 5.2.1.4", "ttl=30 honour", "", "cache-control: no-cache", 1, "fetch 0 0 30"),
        ("RFC 9111 5.2.1.4", "ttl=30", "", "cache-control: no-cache", 1, "fresh 29"),
        ("RFC 9111 5.2.1.1", "ttl=30 honour", "", "cache-control: max-age=5", 5, "fresh 25"),
        ("RFC 9111 5.2.1.1", "ttl=30 honour", "", "cache-control: max-age=5", 6, "fetch 0 0 30"),
        ("RFC 9111 5.2.1.1", "ttl=30 swr=60 honour", "", "cache-control: max-age=31", 32, "fetch 2 0 30"),
    ] {
        let entry = entry(words, said).expect("is kept");
        assert_eq!(verdict(words, &entry, asked, after), expected, "{section}: [{words}] {said:?} {asked:?}");
    }
}

/// A plan decides about what another plan stored: (stored under, the upstream's words, the plan now, after, what).
#[test]
fn another_plan_decides_anew() {
    for (stored, said, words, after, expected) in [
        ("ttl=100", "", "ttl=10", 5, "fresh 5"),
        ("ttl=100", "", "ttl=10", 10, "fetch 0 0 30"),
        ("ttl=10", "", "ttl=100", 50, "fresh 50"),
        ("ttl=100", "", "", 0, "fetch 0 0 30"),
        ("ttl=100 private", "cache-control: private", "ttl=100 swr=60 sie=60", 5, "fetch 5 0 0"),
        ("ttl=100 no-cache", "cache-control: no-cache", "ttl=100 swr=60", 5, "fetch 5 0 0"),
        ("ttl=100 max-age-0", "cache-control: max-age=0", "ttl=100", 5, "fetch 5 0 30"),
    ] {
        let entry = entry(stored, said).expect("is kept");
        assert_eq!(verdict(words, &entry, "", after), expected, "[{stored}] {said:?} [{words}]");
    }
}
