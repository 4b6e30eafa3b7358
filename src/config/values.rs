//! Values as TOML writes them: durations and sizes with their units, addresses, URLs, names. Each reader says what it
//! expects, with an example that works.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Method, StatusCode, Uri};

use super::mistakes::{Wrong, nearest};
use super::plan::RateLimit;
use super::reader::Item;
use crate::rules::slices::Pointer;

pub(super) const DURATION: &str =
    "a duration with its unit, such as \"30s\", \"250ms\", \"2m\", \"1h\" or \"1d\"";
const SIZE: &str = "a size with its unit, such as \"256MiB\", \"8KiB\", \"1MB\" or \"500B\"";
pub(super) const SECONDS_PER_DAY: u64 = 86_400;

/// A duration, zero included; at most 366 days.
pub(super) fn duration(item: &Item<'_>) -> Result<Duration, Wrong> {
    time(item.text(DURATION)?)
}

/// The same from its text.
pub(super) fn time(text: &str) -> Result<Duration, Wrong> {
    let (number, unit) = quantity(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 1_000 * SECONDS_PER_DAY,
        _ => return Err(Wrong::new(format!("{} is no duration", quoted(text)), DURATION)),
    };
    let number: u64 =
        number.parse().map_err(|_| Wrong::new(format!("{} is no duration", quoted(text)), DURATION))?;
    let total = number.checked_mul(millis).map(Duration::from_millis);
    let total = total.filter(|total| *total <= Duration::from_secs(366 * SECONDS_PER_DAY));
    total.ok_or_else(|| Wrong::new(format!("{} is longer than a year", quoted(text)), "at most \"366d\""))
}

/// A duration above zero.
pub(super) fn some_time(item: &Item<'_>) -> Result<Duration, Wrong> {
    let duration = duration(item)?;
    if duration.is_zero() {
        Err(Wrong::new("is zero", "a duration above zero, such as \"10s\""))
    } else {
        Ok(duration)
    }
}

/// A number of bytes within `bounds`.
pub(super) fn size(bounds: RangeInclusive<usize>) -> impl Fn(&Item<'_>) -> Result<usize, Wrong> {
    move |item| {
        let text = item.text(SIZE)?;
        let (number, unit) = quantity(text);
        let unit: usize = match unit {
            "B" => 1,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(Wrong::new(format!("{} is no size", quoted(text)), SIZE)),
        };
        let number: usize =
            number.parse().map_err(|_| Wrong::new(format!("{} is no size", quoted(text)), SIZE))?;
        let bytes = number.checked_mul(unit).filter(|bytes| bounds.contains(bytes));
        bytes.ok_or_else(|| {
            let (least, most) = (size_text(*bounds.start()), size_text(*bounds.end()));
            Wrong::new(
                format!("{} is out of bounds", quoted(text)),
                format!("a size from \"{least}\" to \"{most}\""),
            )
        })
    }
}

/// Digits and what follows them.
fn quantity(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.strip_prefix(' ').unwrap_or(unit))
}

/// A whole number within `bounds`.
pub(super) fn count<T>(bounds: RangeInclusive<T>) -> impl Fn(&Item<'_>) -> Result<T, Wrong>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |item| {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = item.integer(&expected)?;
        let within = T::try_from(number).ok().filter(|number| bounds.contains(number));
        within.ok_or_else(|| Wrong::new(format!("{number} is out of bounds"), expected))
    }
}

/// One of `words`, and what each of them means.
pub(super) fn word<T: Clone>(words: &[(&str, T)]) -> impl Fn(&Item<'_>) -> Result<T, Wrong> {
    move |item| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = all.join(" or ");
        let text = item.text(&expected)?;
        let meant = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone());
        meant.ok_or_else(|| {
            let near = nearest(text, words.iter().map(|(word, _)| *word));
            Wrong::new(format!("{} is not known", quoted(text)), expected).near(near)
        })
    }
}

/// A name of an upstream, account, client or route. Names appear in labels of metrics and in logs.
pub(super) fn name(text: &str) -> Result<(), Wrong> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(());
    }
    Err(Wrong::new(format!("{} is no name", quoted(text)), "1 to 64 letters, digits, `-`, `_` or `.`"))
}

/// An address and port to listen at.
pub(super) fn address(item: &Item<'_>) -> Result<SocketAddr, Wrong> {
    let expected = "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
    let text = item.text(expected)?;
    text.parse().map_err(|_| Wrong::new(format!("{} is no address", quoted(text)), expected))
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// Empty, or begins with `/` and does not end with one.
    pub(super) path: String,
}

/// The URL of an upstream.
pub(super) fn url(item: &Item<'_>) -> Result<Base, Wrong> {
    let expected = "a URL such as \"https://api.example.com/v1\"";
    let text = item.text(expected)?;
    if text.contains('@') {
        let expected = "credentials in `accounts.NAME.headers` or `.query` instead";
        return Err(Wrong::new("has an `@`, as if it held credentials", expected).secret());
    }
    if let Some(part) = [('?', "a query"), ('#', "a fragment")].iter().find(|(mark, _)| text.contains(*mark))
    {
        return Err(Wrong::new(format!("has {}", part.1), expected).secret());
    }
    let wrong = |why: &str| Wrong::new(format!("{} {why}", quoted(text)), expected);
    let uri = Uri::from_str(text).map_err(|_| wrong("is no URL"))?;
    let parts = uri.into_parts();
    let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let scheme = scheme.ok_or_else(|| wrong("does not begin with http:// or https://"))?;
    let authority = parts.authority.ok_or_else(|| wrong("has no host"))?;
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("has a port that is none"));
    }
    let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if rustls_pki_types::ServerName::try_from(plain).is_err() {
        return Err(wrong("has a host that is no name and no address"));
    }
    let path =
        parts.path_and_query.map(|path| path.path().trim_end_matches('/').to_owned()).unwrap_or_default();
    Ok(Base { scheme, authority, path })
}

/// Fields that belong to one connection, or that the gate writes itself.
static OWN_FIELDS: [HeaderName; 14] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A header name that configuration may send or forward.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    let expected = "a header name such as \"x-api-key\"";
    let name = HeaderName::from_str(text)
        .map_err(|_| Wrong::new(format!("{} is no header name", quoted(text)), expected))?;
    if OWN_FIELDS.contains(&name) {
        return Err(Wrong::new(format!("`{name}` is written by the gate itself or ends at it"), expected));
    }
    if name == "x-tollgate-key" {
        return Err(Wrong::new("`x-tollgate-key` is the client's key, which ends at the gate", expected));
    }
    Ok(name)
}

/// A method that can be forwarded.
pub(super) fn method(item: &Item<'_>) -> Result<Method, Wrong> {
    let expected = "a method in capitals, such as \"GET\" or \"POST\"";
    let text = item.text(expected)?;
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let wrong =
        |why: &str| Wrong::new(format!("{} {why}", quoted(text)), expected).near(nearest(text, known));
    if matches!(text, "TRACE" | "CONNECT") {
        return Err(Wrong::new(format!("{text} cannot be forwarded"), expected));
    }
    if !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(wrong("is no method"));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| wrong("is no method"))
}

/// A status as a key writes it.
pub(super) fn status(text: &str) -> Result<StatusCode, Wrong> {
    let expected = "a status a cache may keep, such as 404";
    let status = text.parse().ok().and_then(|status: u16| StatusCode::from_u16(status).ok());
    let status = status.filter(|status| (200..600).contains(&status.as_u16()));
    let status = status.ok_or_else(|| Wrong::new(format!("{} is no status", quoted(text)), expected))?;
    if super::plan::may_be_kept(status) {
        return Ok(status);
    }
    Err(Wrong::new(format!("{text} speaks of one moment or one requester and is never kept"), expected))
}

/// A JSON pointer (RFC 6901), such as `example`.
pub(super) fn pointer(text: &str, example: &str) -> Result<Pointer, Wrong> {
    let expected = || format!("a JSON pointer such as \"{example}\"");
    Pointer::parse(text).ok_or_else(|| Wrong::new(format!("{} is no JSON pointer", quoted(text)), expected()))
}

/// `{ requests, per, burst }`
pub(super) fn rate(item: &Item<'_>) -> Result<RateLimit, Wrong> {
    let expected = "a rate such as { requests = 100, per = \"1s\", burst = 200 }";
    let mut table = item.table(expected)?;
    let requests = table.must("requests", expected, count(1..=1_000_000_000));
    let per = table.must("per", expected, some_time);
    let burst = table.take("burst", count(1..=1_000_000_000));
    let shadow = table.or("shadow", false, Item::boolean);
    table.finish();
    let (Some(requests), Some(per)) = (requests, per) else { return Err(Wrong::Told) };
    if per.as_nanos() < u128::from(requests) {
        return Err(Wrong::new("is more than one request each nanosecond", expected));
    }
    Ok(RateLimit { requests, per, burst: burst.unwrap_or(requests), shadow })
}

/// A text as a message quotes it: short, on one line.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

/// A duration as configuration writes it.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        // A unit is used from two of it on, so that "60s" and "24h" stay as people write them.
        if millis.is_multiple_of(length) && (millis > length || unit == "s") {
            return format!("{}{unit}", millis / length);
        }
    }
    format!("{millis}ms")
}

/// A size as configuration writes it.
pub(super) fn size_text(bytes: usize) -> String {
    for (unit, length) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(length) {
            return format!("{}{unit}", bytes / length);
        }
    }
    format!("{bytes}B")
}
