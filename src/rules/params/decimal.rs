//! Decimal figures of any precision: what integers and numbers share. Nothing is rounded here, so that two
//! different figures never become one.

use std::cmp::Ordering;

/// `digits × 10^exponent`, without leading or trailing zeros; no digits are zero, which has no sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: String,
    exponent: i32,
}

/// What is left of a figure cut toward zero to an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) value: i64,
    /// Whether a fraction was cut off.
    pub(super) inexact: bool,
    /// Whether the figure lies beyond `i64`.
    pub(super) saturated: bool,
}

/// Exponents are kept within this. It is far beyond what an upstream reads, and far from overflowing below.
const MAX_EXPONENT: i32 = 1_000_000;

impl Decimal {
    /// Reads `[+-]?(d+[.d*] | .d+)([eE][+-]?d+)?`, nothing before or after.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        let (negative, unsigned) = sign(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        Some(Decimal::from_parts(negative, whole, fraction, exponent))
    }

    /// From runs of ASCII digits before and after the point.
    pub(super) fn from_parts(negative: bool, whole: &str, fraction: &str, exponent: i32) -> Decimal {
        let run = [whole, fraction].concat();
        let kept = run.trim_end_matches('0');
        let zeros = length(&run) - length(kept);
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Decimal { negative: false, digits, exponent: 0 };
        }
        Decimal { negative, digits, exponent: exponent - length(fraction) + zeros }
    }

    /// The whole part, within `i64`.
    pub(super) fn cut(&self) -> Cut {
        let places = self.places();
        if self.digits.is_empty() || places <= 0 {
            return Cut { value: 0, inexact: !self.digits.is_empty(), saturated: false };
        }
        let beyond =
            Cut { value: if self.negative { i64::MIN } else { i64::MAX }, inexact: false, saturated: true };
        if places > 19 {
            return beyond;
        }
        let whole = (0..usize::try_from(places).unwrap_or(0)).fold(0_i128, |whole, place| {
            whole * 10 + i128::from(self.digits.as_bytes().get(place).map_or(0, |digit| digit - b'0'))
        });
        match i64::try_from(if self.negative { -whole } else { whole }) {
            Ok(value) => Cut { value, inexact: self.exponent < 0, saturated: false },
            Err(_) => beyond,
        }
    }

    /// The shortest plain spelling; beyond 21 places, or below 0.000001, an exponent, as JavaScript has it.
    pub(super) fn canonical(&self) -> String {
        let (sign, digits, places) = (if self.negative { "-" } else { "" }, &self.digits, self.places());
        if digits.is_empty() {
            return "0".into();
        }
        let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
        match usize::try_from(places) {
            Ok(at @ 1..) if self.exponent < 0 => format!("{sign}{}.{}", &digits[..at], &digits[at..]),
            Ok(1..=21) => format!("{sign}{digits}{}", zeros(self.exponent)),
            _ if (-5..=0).contains(&places) => format!("{sign}0.{}{digits}", zeros(-places)),
            _ => {
                let point = if digits.len() > 1 { "." } else { "" };
                format!("{sign}{}{point}{}e{}", &digits[..1], &digits[1..], places - 1)
            }
        }
    }

    /// Whether the figure's exponent was out of reach, so that it may stand for another.
    pub(super) fn is_extreme(&self) -> bool {
        self.places().abs() > 9_999
    }

    /// The order of the figures meant.
    pub(super) fn compare(&self, other: &Decimal) -> Ordering {
        match (self.signum(), other.signum()) {
            (mine, theirs) if mine != theirs => mine.cmp(&theirs),
            (-1, _) => other.compare_magnitude(self),
            _ => self.compare_magnitude(other),
        }
    }

    fn compare_magnitude(&self, other: &Decimal) -> Ordering {
        // Neither has leading zeros, so the one with more places is greater, then the first digit that differs.
        self.places().cmp(&other.places()).then_with(|| self.digits.cmp(&other.digits))
    }

    fn signum(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    /// How many digits stand before the point; negative for zeros right after it.
    fn places(&self) -> i32 {
        self.exponent + length(&self.digits)
    }
}

/// A leading sign and what follows it.
pub(super) fn sign(text: &str) -> (bool, &str) {
    let minus = text.strip_prefix(['-', '\u{2212}']);
    let unsigned = minus.or_else(|| text.strip_prefix('+')).unwrap_or(text);
    (minus.is_some(), unsigned)
}

/// `1,000` or `12 345 678.5` without its separators: groups of three after a first of one to three that is no
/// zero, all separated alike. `1,00` and `0,123` are not grouped.
pub(super) fn ungrouped(text: &str) -> Option<String> {
    let (negative, unsigned) = sign(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) if all_digits(fraction) => (whole, Some(fraction)),
        Some(_) => return None,
        None => (unsigned, None),
    };
    let separator = whole.chars().find(|c| !c.is_ascii_digit())?;
    if !matches!(separator, ',' | ' ' | '_' | '\'' | '’') {
        return None;
    }
    let mut groups = whole.split(separator);
    let first = groups.next()?;
    if !(1..=3).contains(&first.len()) || first.starts_with('0') || !all_digits(first) {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    plain.push_str(if negative { "-" } else { "" });
    plain.push_str(first);
    for group in groups {
        if group.len() != 3 || !all_digits(group) {
            return None;
        }
        plain.push_str(group);
    }
    if let Some(fraction) = fraction {
        plain.push('.');
        plain.push_str(fraction);
    }
    Some(plain)
}

/// A hexadecimal whole number, `0x1F`. `None` too where it lies beyond `i128`.
pub(super) fn hexadecimal(text: &str) -> Option<Decimal> {
    let (negative, unsigned) = sign(text);
    let digits = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"))?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let plain = match u128::from_str_radix(digits, 16) {
        Ok(value) => value.to_string(),
        // Beyond any integer; what matters is only that it saturates, and that no number is made of it.
        Err(_) => format!("1{}", "0".repeat(20_000)),
    };
    Some(Decimal::from_parts(negative, &plain, "", 0))
}

pub(super) fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn parse_exponent(text: &str) -> Option<i32> {
    let (negative, digits) = sign(text);
    if digits.is_empty() || !all_digits(digits) {
        return None;
    }
    let magnitude = digits.parse::<i32>().map_or(MAX_EXPONENT, |exponent| exponent.min(MAX_EXPONENT));
    Some(if negative { -magnitude } else { magnitude })
}

/// Values are at most 4 KiB, so lengths fit.
fn length(text: &str) -> i32 {
    i32::try_from(text.len()).unwrap_or(MAX_EXPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Decimal::parse(text).map(|decimal| decimal.canonical())
    }

    #[test]
    fn spellings_of_figures() {
        let table = [
            ("0", Some("0")),
            ("-0.00", Some("0")),
            ("007", Some("7")),
            ("+1.50", Some("1.5")),
            (".5", Some("0.5")),
            ("5.", Some("5")),
            ("2e1", Some("20")),
            ("2E+1", Some("20")),
            ("25e-1", Some("2.5")),
            ("0.1000000000000000055511151231257827", Some("0.1000000000000000055511151231257827")),
            ("9007199254740993", Some("9007199254740993")),
            ("1e20", Some("100000000000000000000")),
            ("1e21", Some("1e21")),
            ("1.5e400", Some("1.5e400")),
            ("0.000001", Some("0.000001")),
            ("0.0000001", Some("1e-7")),
            ("-12e-9", Some("-1.2e-8")),
            ("", None),
            (".", None),
            ("e5", None),
            ("1e", None),
            ("1.2.3", None),
            ("1 2", None),
            ("--1", None),
            ("inf", None),
            ("NaN", None),
        ];
        for (text, expected) in table {
            assert_eq!(canonical(text).as_deref(), expected, "{text:?}");
            if let Some(expected) = expected {
                assert_eq!(canonical(expected).as_deref(), Some(expected), "again {text:?}");
            }
        }
    }

    #[test]
    fn figures_are_ordered_by_what_they_mean() {
        let ascending =
            ["-1e9", "-10", "-9.5", "-0.01", "0", "0.001", "0.5", "9", "10", "10.5", "123", "1e400"];
        for pair in ascending.windows(2) {
            let order = Decimal::parse(pair[0]).zip(Decimal::parse(pair[1])).map(|(a, b)| a.compare(&b));
            assert_eq!(order, Some(Ordering::Less), "{pair:?}");
        }
        let equal = Decimal::parse("1.0").zip(Decimal::parse("10e-1")).map(|(a, b)| a.compare(&b));
        assert_eq!(equal, Some(Ordering::Equal));
    }

    #[test]
    fn groups_of_three_and_nothing_else() {
        let table = [
            ("1,000", Some("1000")),
            ("-12 345 678", Some("-12345678")),
            ("1_000.50", Some("1000.50")),
            ("1'000", Some("1000")),
            ("1,00", None),
            ("0,123", None),
            ("1,000 000", None),
            ("1000,000", None),
            ("1.000.000", None),
            (",000", None),
            ("1000", None),
        ];
        for (text, expected) in table {
            assert_eq!(ungrouped(text).as_deref(), expected, "{text:?}");
        }
    }
}
