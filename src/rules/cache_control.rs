//! `Cache-Control`, read once into what it says (RFC 9111 §5.2). Unknown directives are ignored, as §5.2.3 asks.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

/// The directives of a message. Of a directive that stands twice the more restrictive value counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names.
    pub no_cache: bool,
    /// The fields of `no-cache="…"`.
    pub no_cache_fields: Vec<HeaderName>,
    /// `private` without field names.
    pub private: bool,
    /// The fields of `private="…"`.
    pub private_fields: Vec<HeaderName>,
    /// `public`.
    pub public: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `only-if-cached` (requests).
    pub only_if_cached: bool,
    /// `max-stale` (requests); without a number it is any age.
    pub max_stale: Option<Duration>,
    /// `min-fresh` (requests).
    pub min_fresh: Option<Duration>,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl Directives {
    /// Reads every `name` field of `headers`, as one list (RFC 9110 §5.3).
    pub fn from_headers(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut directives = Self::default();
        for value in headers.get_all(name) {
            directives.read(value.as_bytes());
        }
        directives
    }

    /// Whether a request asks for something newer than what may be held.
    pub fn wants_newer(&self) -> bool {
        self.no_cache || self.max_age.is_some() || self.min_fresh.is_some()
    }

    /// Reads one more field line.
    pub fn read(&mut self, value: &[u8]) {
        for (name, argument) in members(value) {
            let seconds = || Some(delta_seconds(argument));
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" => self.no_store = true,
                b"no-cache" => self.no_cache |= !names(argument, &mut self.no_cache_fields),
                b"private" => self.private |= !names(argument, &mut self.private_fields),
                b"public" => self.public = true,
                b"no-transform" => self.no_transform = true,
                b"must-revalidate" => self.must_revalidate = true,
                b"proxy-revalidate" => self.proxy_revalidate = true,
                b"must-understand" => self.must_understand = true,
                b"max-stale" if argument.is_empty() => {
                    self.max_stale = shorter(self.max_stale, Some(Duration::MAX));
                }
                b"max-stale" => self.max_stale = shorter(self.max_stale, seconds()),
                b"min-fresh" => self.min_fresh = longer(self.min_fresh, seconds()),
                b"only-if-cached" => self.only_if_cached = true,
                b"max-age" => self.max_age = shorter(self.max_age, seconds()),
                b"s-maxage" => self.s_maxage = shorter(self.s_maxage, seconds()),
                b"stale-while-revalidate" => {
                    self.stale_while_revalidate = shorter(self.stale_while_revalidate, seconds());
                }
                b"stale-if-error" => self.stale_if_error = shorter(self.stale_if_error, seconds()),
                _ => {}
            }
        }
    }
}

fn shorter(held: Option<Duration>, new: Option<Duration>) -> Option<Duration> {
    match (held, new) {
        (Some(held), Some(new)) => Some(held.min(new)),
        (held, new) => held.or(new),
    }
}

fn longer(held: Option<Duration>, new: Option<Duration>) -> Option<Duration> {
    held.max(new)
}

/// Reads the field names of `no-cache="…"` into `fields`; `false` where it names none, or the list cannot be read: "The
/// qualified form of the directive is often handled by caches as if an unqualified no-cache directive was received"
/// (RFC 9111 §5.2.2.4).
fn names(argument: &[u8], fields: &mut Vec<HeaderName>) -> bool {
    let list = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument);
    let names = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let Ok(names) = names.map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>() else { return false };
    let stated = !names.is_empty();
    for name in names {
        if !fields.contains(&name) {
            fields.push(name);
        }
    }
    stated
}

/// `1*DIGIT`, quoted or not (RFC 9111 §1.2.2, §5.2). What is no number counts as zero: stale at once (§4.2.1), and
/// what does not fit counts as the greatest number that does.
fn delta_seconds(argument: &[u8]) -> Duration {
    let digits = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Duration::ZERO;
    }
    let seconds =
        digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Duration::from_secs(seconds.min(1 << 31))
}

/// The members of a `#directive` list, each a name and what follows its `=`; commas within quotes do not split.
fn members(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = value;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = member_end(rest);
            let member = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if member.is_empty() {
                continue;
            }
            let split = member.iter().position(|&byte| byte == b'=');
            return Some(
                split.map_or((member, &[][..]), |at| {
                    (member[..at].trim_ascii(), member[at + 1..].trim_ascii())
                }),
            );
        }
        None
    })
}

fn member_end(list: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    // Quotes that never close hold nothing: what follows them could be the word that forbids.
    let first = || list.iter().position(|&byte| byte == b',').unwrap_or(list.len());
    if quoted { first() } else { list.len() }
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;

    use super::*;

    fn read(values: &[&'static str]) -> Directives {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, http::HeaderValue::from_static(value));
        }
        Directives::from_headers(&headers, &CACHE_CONTROL)
    }

    #[test]
    fn directives_are_read_however_they_are_written() {
        let age = |seconds| Some(Duration::from_secs(seconds));
        for (values, max_age) in [
            (&["max-age=60"][..], age(60)),
            (&["MAX-AGE=60"], age(60)),
            (&["max-age=\"60\""], age(60)),
            (&[" , max-age = 60 ,,"], age(60)),
            (&["max-age=60, max-age=10"], age(10)),
            (&["max-age=60", "max-age=10"], age(10)),
            (&["max-age=99999999999999999999"], age(1 << 31)),
            (&["max-age=-1"], age(0)),
            (&["max-age=1.5"], age(0)),
            (&["max-age"], age(0)),
            (&["a=\"x, max-age=5\", max-age=60"], age(60)),
            (&["a=\"x\\\", max-age=5\", max-age=60"], age(60)),
            (&["a=\"x, max-age=5"], age(5)),
            (&["max-age=\"60, b"], age(0)),
            (&["max-age=60;max-age=10"], age(0)),
            (&["max-age=+60"], age(0)),
            (&["max-age=0x3c"], age(0)),
            (&["max-age='60'"], age(0)),
            (&["max-age=\"\""], age(0)),
            (&["max-age=060"], age(60)),
            (&["max-age=60 "], age(60)),
            (&["max-age\t=\t60"], age(60)),
            (&["max-age=6 0"], age(0)),
            (&["xmax-age=5"], None),
            (&[""], None),
        ] {
            assert_eq!(read(values).max_age, max_age, "{values:?}");
        }
        let all = read(&["no-store, private=\"x\", no-cache=\"a, b\", must-revalidate"]);
        assert!(all.no_store && !all.private && !all.no_cache && all.must_revalidate && !all.public);
        assert_eq!((all.private_fields.len(), all.no_cache_fields.len()), (1, 2));
        assert!(read(&["community=\"UCI, no-store"]).no_store, "an open quote hides no word that forbids");
        let all = read(&["private=\"\", no-cache=\"a b\", no-cache=\"c\""]);
        assert!(all.private && all.no_cache);
    }
}
