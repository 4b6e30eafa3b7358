//! Integers: whatever begins with, or holds, a whole number. First match wins.

use super::clean::{Form, clean};
use super::decimal::{Cut, Decimal, hexadecimal, sign, ungrouped};
use super::notes::Rule;
use super::read::Reading;
use super::spec::Below;

pub(super) fn read(raw: &str, min: Option<i64>, max: Option<i64>, below: Below) -> Option<Reading> {
    let (value, rule, cleaned);
    if let Some(plain) = plain(raw) {
        (value, rule, cleaned) = (plain, Rule::Cleaned, None);
    } else {
        let text = clean(raw, Form::Compatible);
        (value, rule) = figure(&text)?;
        cleaned = Some(text);
    }
    let (value, rule) = match (min, max) {
        (Some(min), _) if value < min => match below {
            Below::Clamp => (min, Rule::Clamped),
            Below::Default => return None,
        },
        (_, Some(max)) if value > max => (max, Rule::Clamped),
        _ => (value, rule),
    };
    Some(Reading::of(value.to_string(), cleaned.as_deref().unwrap_or(raw), rule))
}

/// The common case, without looking at every rule: a canonical integer that cannot overflow.
fn plain(raw: &str) -> Option<i64> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let canonical = (1..=18).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (!digits.starts_with('0') || raw == "0");
    if canonical { raw.parse().ok() } else { None }
}

fn figure(text: &str) -> Option<(i64, Rule)> {
    // A sign may stand apart: "- 5" is not 5.
    let (negative, unsigned) = sign(text);
    let joined;
    let text = if unsigned.starts_with(' ') && unsigned.len() < text.len() {
        joined = [if negative { "-" } else { "" }, unsigned.trim_start()].concat();
        &joined
    } else {
        text
    };
    let whole = hexadecimal(text)
        .or_else(|| ungrouped(text).and_then(|plain| Decimal::parse(&plain)))
        .or_else(|| Decimal::parse(text));
    if let Some(whole) = whole {
        let Cut { value, inexact, saturated } = whole.cut();
        let rule = match (saturated, inexact) {
            (true, _) => Rule::Clamped,
            (false, true) => Rule::Cast,
            (false, false) => Rule::Reformatted,
        };
        return Some((value, rule));
    }
    partial(text).map(|value| (value, Rule::Cast))
}

/// The leading digits with their sign, else the first digits, where a hyphen before them only separates.
fn partial(text: &str) -> Option<i64> {
    let (negative, unsigned) = sign(text);
    let (negative, rest) = match unsigned.find(|c: char| c.is_ascii_digit())? {
        0 => (negative, unsigned),
        first => (false, &unsigned[first..]),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some(Decimal::from_parts(negative, &rest[..end], "", 0).cut().value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(raw: &str) -> Option<(String, Rule)> {
        read(raw, None, None, Below::Clamp).map(|reading| (reading.value, reading.rule))
    }

    #[test]
    fn integers() {
        use Rule::{Cast, Clamped, Cleaned, Reformatted};
        let table = [
            // plain
            ("2", Some(("2", Cleaned))),
            ("0", Some(("0", Cleaned))),
            ("-7", Some(("-7", Cleaned))),
            (" 2 ", Some(("2", Cleaned))),
            ("\"2\"", Some(("2", Cleaned))),
            ("+2", Some(("2", Reformatted))),
            (" +2", Some(("2", Reformatted))),
            ("002", Some(("2", Reformatted))),
            ("-0", Some(("0", Reformatted))),
            ("- 5", Some(("-5", Reformatted))),
            ("−5", Some(("-5", Reformatted))),
            ("٢٣", Some(("23", Cleaned))),
            ("２", Some(("2", Cleaned))),
            ("9223372036854775807", Some(("9223372036854775807", Cleaned))),
            ("-9223372036854775808", Some(("-9223372036854775808", Cleaned))),
            ("9223372036854775808", Some(("9223372036854775807", Clamped))),
            ("-9223372036854775809", Some(("-9223372036854775808", Clamped))),
            ("99999999999999999999999999", Some(("9223372036854775807", Clamped))),
            // hexadecimal
            ("0x10", Some(("16", Reformatted))),
            ("-0XfF", Some(("-255", Reformatted))),
            ("0xffffffffffffffffffffffffffffffffffff", Some(("9223372036854775807", Clamped))),
            ("0x", Some(("0", Cast))),
            ("0xg", Some(("0", Cast))),
            // grouped
            ("1,000", Some(("1000", Reformatted))),
            ("1 000 000", Some(("1000000", Reformatted))),
            ("1\u{a0}000", Some(("1000", Reformatted))),
            ("1_000", Some(("1000", Reformatted))),
            ("1,000.9", Some(("1000", Cast))),
            ("1,00", Some(("1", Cast))),
            // decimal, exponent
            ("2.0", Some(("2", Reformatted))),
            ("2.", Some(("2", Reformatted))),
            ("2.7", Some(("2", Cast))),
            ("-2.7", Some(("-2", Cast))),
            (".5", Some(("0", Cast))),
            ("-0.5", Some(("0", Cast))),
            ("2e1", Some(("20", Reformatted))),
            ("25e-1", Some(("2", Cast))),
            ("20e-1", Some(("2", Reformatted))),
            ("1.5e400", Some(("9223372036854775807", Clamped))),
            ("-1e99999999999999999999", Some(("-9223372036854775808", Clamped))),
            ("1e-99999999999999999999", Some(("0", Cast))),
            ("0e99999999999999999999", Some(("0", Reformatted))),
            // leading digits, first digits
            ("2abc", Some(("2", Cast))),
            ("-2abc", Some(("-2", Cast))),
            ("2.5.1", Some(("2", Cast))),
            ("10²", Some(("10", Cast))),
            ("1½", Some(("1", Cast))),
            ("1\n2", Some(("1", Cast))),
            ("page2", Some(("2", Cast))),
            ("page-2", Some(("2", Cast))),
            ("#12/30", Some(("12", Cast))),
            // nothing
            ("abc", None),
            ("", None),
            (" ", None),
            ("-", None),
            ("½", None),
            ("null", None),
        ];
        for (raw, expected) in table {
            assert_eq!(value(raw), expected.map(|(v, rule)| (v.into(), rule)), "{raw:?}");
        }
    }

    #[test]
    fn bounds() {
        let table = [
            ("0", Below::Clamp, Some("1")),
            ("0", Below::Default, None),
            ("0.9", Below::Clamp, Some("1")),
            ("-5", Below::Clamp, Some("1")),
            ("1", Below::Default, Some("1")),
            ("100", Below::Default, Some("100")),
            ("101", Below::Default, Some("100")),
            ("1e30", Below::Clamp, Some("100")),
        ];
        for (raw, below, expected) in table {
            let reading = read(raw, Some(1), Some(100), below);
            assert_eq!(reading.as_ref().map(|r| r.value.as_str()), expected, "{raw:?} {below:?}");
            if let Some(reading) = reading {
                assert_eq!(reading.rule.lossless(), reading.value == raw, "{raw:?}");
            }
        }
    }
}
