//! Which statuses are understood, which are kept without being told so, and for how long (RFC 9110 §15.1, RFC 9111
//! §4.2.2).

use std::time::{Duration, SystemTime};

use http::StatusCode;

/// No guess is longer than this, however long ago a thing last changed.
pub const LONGEST_GUESS: Duration = Duration::from_secs(24 * 60 * 60);

/// "Responses with status codes that are defined as heuristically cacheable (e.g., 200, 203, 204, 206, 300, 301, 308,
/// 404, 405, 410, 414, and 501 …)" (RFC 9110 §15.1).
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether the gate knows what this status asks of a cache: all that RFC 9110 defines, with 308 and 429, 451.
pub fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 429 | 451 | 500..=505)
}

/// "If the response has a Last-Modified header field, caches are encouraged to use a heuristic expiration value that is
/// no more than some fraction of the interval since that time. A typical setting of this fraction might be 10%" (RFC
/// 9111 §4.2.2).
pub fn lifetime(modified: SystemTime, dated: SystemTime) -> Option<Duration> {
    let unchanged = dated.duration_since(modified).ok()?.as_secs();
    Some(Duration::from_secs(unchanged / 10).min(LONGEST_GUESS))
}
