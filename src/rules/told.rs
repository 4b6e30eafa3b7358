//! What an upstream says of its limits: `Retry-After` (RFC 9110 §10.2.3), `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers, in its current form and in the earlier ones), and the dialects of
//! `X-RateLimit-*`: seconds left, a date as seconds or milliseconds since 1970, a span such as `6m0s` or `120ms`.
//!
//! Dates are read by the upstream's own clock, its `Date`, where it has one: a clock that is wrong by hours is wrong in both.
//! What cannot be read says nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap};
use sfv::{BareItem, Dictionary, List, ListEntry, Parameters, Parser};

use super::dates;
use super::headers::speaks_of_limits;
use super::ledger::Word;

/// The longest time that is believed, before any limit of the operator's.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// The most policies of one answer that are looked at.
const MOST_POLICIES: usize = 16;
/// Numbers from here on are seconds since 1970, and from there on milliseconds.
const EPOCH_SECONDS: f64 = 1e8;
const EPOCH_MILLIS: f64 = 1e12;

/// What one answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// What is left.
    pub words: Vec<Word>,
}

impl Told {
    /// What `headers` say, at `wall` by our clock.
    pub fn of(headers: &HeaderMap, wall: SystemTime) -> Self {
        // Most answers say nothing of it, and a look at each name takes less than asking for fifteen.
        if !headers.keys().any(|name| *name == header::RETRY_AFTER || speaks_of_limits(name)) {
            return Self::default();
        }
        let date =
            headers.get(header::DATE).and_then(|date| dates::parse(date.as_bytes(), wall)).unwrap_or(wall);
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| {
            let text = value.to_str().ok()?.trim();
            span(text, date).or_else(|| until(dates::parse(text.as_bytes(), wall)?, date))
        });
        let mut words = standard(headers);
        if words.is_empty() {
            words.extend(fields(
                headers,
                ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
                date,
            ));
        }
        for names in DIALECTS {
            words.extend(fields(headers, names, date));
        }
        words.truncate(MOST_POLICIES);
        Self { retry_after, words }
    }

    /// When a call that was sent away may be sent again: as it says, or when what is used up comes back.
    pub fn comes_back(&self) -> Option<Duration> {
        let spent = self.words.iter().filter(|word| word.remaining == 0).filter_map(|word| word.reset).max();
        self.retry_after.or(spent)
    }
}

/// Every field that is read here, `Retry-After` aside.
pub const FIELDS: [&str; 14] = [
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-rate-limit-limit",
    "x-rate-limit-remaining",
    "x-rate-limit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];

/// Limit, remaining, reset.
const DIALECTS: [[&str; 3]; 3] = [
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"],
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
];

/// `RateLimit: "default";r=50;t=30` beside `RateLimit-Policy: "default";q=100;w=60`, or `RateLimit: limit=100,
/// remaining=50, reset=30` as it was before.
fn standard(headers: &HeaderMap) -> Vec<Word> {
    let Some(text) = joined(headers, "ratelimit") else { return Vec::new() };
    let policies: Option<List> =
        joined(headers, "ratelimit-policy").and_then(|text| Parser::new(&text).parse().ok());
    let policies: Vec<(String, Option<u64>, Option<u64>)> = policies
        .iter()
        .flatten()
        .filter_map(|entry| {
            let ListEntry::Item(item) = entry else { return None };
            // Earlier drafts named a policy by its limit: `100;w=60`.
            let limit = number(&item.bare_item).or_else(|| param(&item.params, "q"));
            Some((name(&item.bare_item)?, limit, param(&item.params, "w")))
        })
        .collect();
    let policy = |name: &str| policies.iter().find(|(held, ..)| held == name);
    if let Ok(list) = Parser::new(&text).parse::<List>() {
        let words = list.iter().filter_map(|entry| {
            let ListEntry::Item(item) = entry else { return None };
            let (remaining, named) = (param(&item.params, "r")?, name(&item.bare_item)?);
            let (limit, window) = policy(&named).map_or((None, None), |(_, limit, window)| (*limit, *window));
            let reset = param(&item.params, "t").map(seconds);
            Some(Word { limit, remaining, reset, window: window.map(seconds) })
        });
        let words: Vec<Word> = words.collect();
        if !words.is_empty() {
            return words;
        }
    }
    let Ok(parts) = Parser::new(&text).parse::<Dictionary>() else { return Vec::new() };
    let part = |name: &str| match parts.get(name)? {
        ListEntry::Item(item) => number(&item.bare_item),
        ListEntry::InnerList(_) => None,
    };
    let Some(remaining) = part("remaining") else { return Vec::new() };
    let limit = part("limit");
    let window = policies.iter().find(|(_, held, _)| held.is_some() && *held == limit).and_then(|(.., w)| *w);
    vec![Word { limit, remaining, reset: part("reset").map(seconds), window: window.map(seconds) }]
}

/// Three fields that belong together.
fn fields(headers: &HeaderMap, [limit, remaining, reset]: [&str; 3], date: SystemTime) -> Option<Word> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let whole = |text: &str| text.parse::<u64>().ok();
    let remaining = whole(text(remaining)?)?;
    // `100, 100;w=60`: the first number is the limit that is reached first, the others are policies.
    let limit_text = text(limit).unwrap_or_default();
    let first = limit_text.split([',', ';']).next().unwrap_or_default().trim();
    let limit = whole(first);
    let policy = limit_text
        .split(',')
        .skip(1)
        .find(|policy| whole(policy.split(';').next().unwrap_or_default().trim()) == limit);
    let window = policy
        .and_then(|policy| policy.split(';').find_map(|part| part.trim().strip_prefix("w=")?.parse().ok()));
    let reset = text(reset)
        .and_then(|text| span(text, date).or_else(|| until(dates::parse(text.as_bytes(), date)?, date)));
    Some(Word { limit, remaining, reset, window: window.map(seconds) })
}

/// A number of seconds, a moment as a number, or spans with units: from `date` on.
fn span(text: &str, date: SystemTime) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        if !number.is_finite() || text.starts_with('+') {
            return None;
        }
        return match number {
            below if below <= 0.0 => Some(Duration::ZERO),
            left if left < EPOCH_SECONDS => Some(Duration::try_from_secs_f64(left).ok()?.min(LONGEST)),
            epoch if epoch < EPOCH_MILLIS => {
                until(UNIX_EPOCH + Duration::try_from_secs_f64(epoch).ok()?, date)
            }
            millis => {
                until(UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(millis / 1000.0).ok()?)?, date)
            }
        };
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(unit.len());
        total += number
            * match &unit[..end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &unit[end..];
    }
    (!text.is_empty()).then_some(())?;
    Some(Duration::try_from_secs_f64(total).ok()?.min(LONGEST))
}

/// How long after `date` a moment is; nothing if it lies before.
fn until(at: SystemTime, date: SystemTime) -> Option<Duration> {
    Some(at.duration_since(date).unwrap_or_default().min(LONGEST))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST)
}

fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    (!lines.is_empty()).then(|| lines.join(&b","[..]))
}

fn name(item: &BareItem) -> Option<String> {
    match item {
        BareItem::String(name) => Some(name.as_str().to_owned()),
        BareItem::Token(name) => Some(name.as_str().to_owned()),
        BareItem::Integer(number) => Some(i64::from(*number).to_string()),
        _ => None,
    }
}

fn number(item: &BareItem) -> Option<u64> {
    u64::try_from(i64::from(item.as_integer()?)).ok()
}

fn param(params: &Parameters, key: &str) -> Option<u64> {
    number(params.get(key)?)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// `Tue, 14 Nov 2023 22:13:20 GMT`
    const NOW: u64 = 1_700_000_000;

    fn told(lines: &[(&'static str, &str)]) -> Told {
        let headers = lines.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("is a value"))
        });
        Told::of(&HeaderMap::from_iter(headers), UNIX_EPOCH + seconds(0) + Duration::from_secs(NOW))
    }

    #[test]
    fn retry_after_is_read_in_both_forms_by_the_upstreams_clock() {
        let date = "Tue, 14 Nov 2023 22:14:20 GMT";
        for (lines, millis) in [
            (&[("retry-after", "30")][..], Some(30_000)),
            (&[("retry-after", "1.5")], Some(1500)),
            (&[("retry-after", date)], Some(60_000)),
            (
                &[("retry-after", date), ("date", "Tue, 14 Nov 2023 19:14:00 GMT")],
                Some(3 * 3_600_000 + 20_000),
            ),
            (&[("retry-after", date), ("date", "Tue, 14 Nov 2023 22:13:50 GMT")], Some(30_000)),
            (&[("retry-after", "Tue, 14 Nov 2023 22:00:00 GMT")], Some(0)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "-5")], Some(0)),
            (&[("retry-after", "1700000090")], Some(90_000)),
            (&[("retry-after", "99999999")], Some(366 * 86_400_000)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "")], None),
            (&[], None),
        ] {
            assert_eq!(told(lines).retry_after, millis.map(Duration::from_millis), "{lines:?}");
        }
    }

    #[test]
    fn what_is_left_is_read_in_every_dialect() {
        let word = |limit, remaining, reset: Option<u64>, window: Option<u64>| Word {
            limit,
            remaining,
            reset: reset.map(Duration::from_millis),
            window: window.map(seconds),
        };
        for (lines, words) in [
            (
                &[
                    ("ratelimit", r#""a";r=5;t=3, "b";r=9"#),
                    ("ratelimit-policy", r#""a";q=10;w=1,"b";q=99;w=60"#),
                ][..],
                vec![word(Some(10), 5, Some(3000), Some(1)), word(Some(99), 9, None, Some(60))],
            ),
            (&[("ratelimit", "default;r=0;t=30")], vec![word(None, 0, Some(30_000), None)]),
            (
                &[("ratelimit", "limit=100, remaining=50, reset=5"), ("ratelimit-policy", "100;w=60")],
                vec![word(Some(100), 50, Some(5000), Some(60))],
            ),
            (
                &[
                    ("ratelimit-limit", "100, 100;w=60, 5000;w=3600"),
                    ("ratelimit-remaining", "7"),
                    ("ratelimit-reset", "8"),
                ],
                vec![word(Some(100), 7, Some(8000), Some(60))],
            ),
            (
                &[
                    ("x-ratelimit-limit", "60"),
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1700000030"),
                ],
                vec![word(Some(60), 0, Some(30_000), None)],
            ),
            (
                &[("x-rate-limit-remaining", "3"), ("x-rate-limit-reset", "1700000030500")],
                vec![word(None, 3, Some(30_500), None)],
            ),
            (
                &[("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-reset-requests", "1m2.5s")],
                vec![word(None, 3, Some(62_500), None)],
            ),
            (
                &[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "120ms")],
                vec![word(None, 3, Some(120), None)],
            ),
            (&[("x-ratelimit-remaining", "many"), ("x-ratelimit-reset", "9")], vec![]),
            (&[("ratelimit", "\"a\";r=-5")], vec![]),
            (&[("ratelimit", "((")], vec![]),
        ] {
            assert_eq!(told(lines).words, words, "{lines:?}");
        }
    }

    #[test]
    fn a_call_comes_back_when_it_was_told_or_when_what_is_spent_comes_back() {
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "20")];
        assert_eq!(told(&spent).comes_back(), Some(seconds(20)));
        assert_eq!(told(&[spent[0], spent[1], ("retry-after", "5")]).comes_back(), Some(seconds(5)));
        assert_eq!(told(&[("x-ratelimit-remaining", "1"), spent[1]]).comes_back(), None);
    }

    proptest! {
        /// Whatever is said, reading it ends, and nothing is believed for longer than a year.
        #[test]
        fn nothing_said_is_believed_for_ever(values in prop::collection::vec((0usize..8, "[ -~]{0,30}"), 0..6)) {
            let names = [
                "retry-after", "ratelimit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset",
                "x-ratelimit-remaining", "x-ratelimit-reset", "date",
            ];
            let lines: Vec<_> = values.iter().map(|(name, value)| (names[*name], value.as_str())).collect();
            let told = told(&lines);
            let spans = told.words.iter().flat_map(|word| [word.reset, word.window]).chain([told.retry_after]);
            prop_assert!(spans.flatten().all(|span| span <= LONGEST));
            prop_assert!(told.words.len() <= MOST_POLICIES);
        }
    }
}
