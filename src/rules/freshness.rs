//! How long a response is fresh by its own word, and how old it was on arrival (RFC 9111 §4.2), with every malformed
//! form that those fields come in.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};

use super::cache_control::Directives;
use super::{dates, heuristics};

/// The greatest age and lifetime: "consider the value to be 2147483648 (2^31) or the greatest positive integer it can
/// conveniently represent" (RFC 9111 §1.2.2).
const LONGEST: u64 = 1 << 31;

/// `s-maxage`, else `max-age`, else `Expires` minus `Date` (§4.2.1); `None` is silence. A targeted field (RFC 9213)
/// silences `Expires`.
pub fn explicit_lifetime(
    said: &Directives,
    targeted: bool,
    headers: &HeaderMap,
    wall: SystemTime,
) -> Option<Duration> {
    if let Some(stated) = said.s_maxage.or(said.max_age) {
        return Some(stated);
    }
    let mut lines = headers.get_all(header::EXPIRES).iter().filter(|_| !targeted);
    let first = lines.next()?;
    // "A cache recipient MUST interpret invalid date formats, especially the value '0', as representing a time in the
    // past" (§5.3), and of two values the response "should be considered stale" (§4.2.1).
    let expires = dates::parse(first.as_bytes(), wall).filter(|_| lines.all(|line| line == first));
    let until = expires.and_then(|expires| expires.duration_since(dated(headers, wall)).ok());
    Some(until.unwrap_or_default())
}

/// What may be guessed (§4.2.2).
pub fn heuristic_lifetime(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    heuristics::lifetime(date(headers, &header::LAST_MODIFIED, wall)?, dated(headers, wall))
}

/// "corrected_initial_age = max(apparent_age, corrected_age_value)", of which the latter is what `Age` says, or nothing,
/// and `delay`, what the call took: "response_delay" (§4.2.3).
pub fn initial_age(headers: &HeaderMap, delay: Duration, wall: SystemTime) -> Duration {
    let apparent = wall.duration_since(dated(headers, wall)).unwrap_or_default();
    // Dates are whole seconds: less than one is no age.
    let apparent = Duration::from_secs(apparent.as_secs().min(LONGEST));
    apparent.max(stated_age(headers).unwrap_or_default() + delay)
}

/// `Age`: "a cache encountering a message with a list-based Age field value SHOULD use the first member of the field
/// value, discarding subsequent ones. If the field value … is invalid (e.g., it contains something other than a
/// non-negative integer), a cache SHOULD ignore the field" (§5.1).
fn stated_age(headers: &HeaderMap) -> Option<Duration> {
    let first = headers.get(header::AGE).map(|value| value.as_bytes().split(|&byte| byte == b',').next());
    let digits = first.flatten().unwrap_or_default().trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(Duration::from_secs(digits.iter().fold(0, sum).min(LONGEST)))
}

/// When the response was made; without a `Date` that can be read, now (RFC 9110 §6.6.1).
fn dated(headers: &HeaderMap, wall: SystemTime) -> SystemTime {
    date(headers, &header::DATE, wall).unwrap_or(wall)
}

fn date(headers: &HeaderMap, name: &HeaderName, wall: SystemTime) -> Option<SystemTime> {
    dates::parse(headers.get(name)?.as_bytes(), wall)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:48:37 GMT";

    #[test]
    fn lifetimes_and_ages_of_every_form() {
        let wall = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (fields, lifetime, age) in [
            (&[("expires", LATER), ("date", NOW)][..], Some(60), 0),
            (&[("expires", LATER), ("date", EARLIER)], Some(120), 60),
            (&[("expires", LATER), ("date", "foo")], Some(60), 0),
            (&[("expires", LATER)], Some(60), 0),
            (&[("expires", EARLIER), ("date", NOW)], Some(0), 0),
            (&[("expires", "0"), ("date", NOW)], Some(0), 0),
            (&[("expires", LATER), ("expires", LATER), ("date", NOW)], Some(60), 0),
            (&[("expires", LATER), ("expires", NOW), ("date", NOW)], Some(0), 0),
            (&[("cache-control", "max-age=5"), ("expires", LATER), ("date", NOW)], Some(5), 0),
            (&[("cache-control", "max-age=5, s-maxage=7"), ("expires", LATER)], Some(7), 0),
            (&[("date", NOW)], None, 0),
            (&[("age", "30")], None, 30),
            (&[("age", "30"), ("date", EARLIER)], None, 60),
            (&[("age", "30, 90")], None, 30),
            (&[("age", "30"), ("age", "90")], None, 30),
            (&[("age", "abc")], None, 0),
            (&[("age", "-7200")], None, 0),
            (&[("age", "7200.0")], None, 0),
            (&[("age", "99999999999999999999")], None, 1 << 31),
            (&[("date", LATER)], None, 0),
        ] {
            let headers = map(fields);
            let said = Directives::from_headers(&headers, &header::CACHE_CONTROL);
            let seconds = explicit_lifetime(&said, false, &headers, wall).map(|lifetime| lifetime.as_secs());
            assert_eq!(seconds, lifetime, "{fields:?}");
            assert_eq!(initial_age(&headers, Duration::ZERO, wall).as_secs(), age, "{fields:?}");
        }
    }
}
