//! Instants: ISO 8601, RFC 3339, HTTP dates and epochs, as RFC 3339 in UTC. What does not name one instant for
//! every reader (`01/02/2024`, `20240102`, a month) is not guessed.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::fmt::rfc2822;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use super::clean::{Form, clean};
use super::decimal::{all_digits, sign};
use super::notes::Rule;
use super::read::Reading;

pub(super) fn read(raw: &str) -> Option<Reading> {
    let text = clean(raw, Form::Compatible);
    if !text.is_ascii() {
        return None;
    }
    let instant = if text.contains(['-', '/', ':', 'T', 't', 'Z', 'z']) && !is_figure(&text) {
        calendar(&text).or_else(|| http_date(&text))
    } else {
        epoch(&text)
    }?;
    Some(Reading::of(instant.to_string(), &text, Rule::Reformatted))
}

fn is_figure(text: &str) -> bool {
    let (_, unsigned) = sign(text);
    unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, by magnitude: 10 digits of each begin in 2001.
/// Lengths that a compact date could have as well (8, 12 and 14 digits, when they spell one) are ambiguous.
fn epoch(text: &str) -> Option<Timestamp> {
    let (negative, unsigned) = sign(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    if whole.is_empty() || !all_digits(whole) {
        return None;
    }
    let instant = match (whole.len(), fraction) {
        _ if whole == "0" && fraction.is_none() => Timestamp::UNIX_EPOCH,
        (12 | 14, _) if is_compact_date(whole) => return None,
        (9 | 10, None) => Timestamp::from_second(whole.parse().ok()?).ok()?,
        (9 | 10, Some(fraction)) if (1..=9).contains(&fraction.len()) && all_digits(fraction) => {
            let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
            Timestamp::new(whole.parse().ok()?, nanoseconds).ok()?
        }
        (12 | 13, None) => Timestamp::from_millisecond(whole.parse().ok()?).ok()?,
        (15 | 16, None) => Timestamp::from_microsecond(whole.parse().ok()?).ok()?,
        (18 | 19, None) => Timestamp::from_nanosecond(whole.parse().ok()?).ok()?,
        _ => return None,
    };
    if negative { Timestamp::from_duration(-instant.as_duration()).ok() } else { Some(instant) }
}

/// Whether digits spell `YYYYMMDDhhmm[ss]` of these centuries.
fn is_compact_date(digits: &str) -> bool {
    let field = |from: usize, to: usize| digits.get(from..to).and_then(|part| part.parse::<u16>().ok());
    let within = |from, to, range: std::ops::RangeInclusive<u16>| {
        field(from, to).is_some_and(|value| range.contains(&value))
    };
    within(0, 4, 1900..=2199) && within(4, 6, 1..=12) && within(6, 8, 1..=31) && within(8, 10, 0..=23)
}

/// A date, a time and an offset, of which the latter two may be missing: midnight, and UTC.
fn calendar(text: &str) -> Option<Timestamp> {
    // A zone's name needs a database; a leap second would be read as the second before it.
    if text.contains('[') || text.contains(":60") {
        return None;
    }
    let text = slashes_as_hyphens(&offset_restored(text));
    let pieces = Pieces::parse(&text).ok()?;
    let (date, time): (Date, Time) = (pieces.date(), pieces.time().unwrap_or_else(Time::midnight));
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    // jiff refuses an offset without a time, and so an instant is complete or has no offset.
    offset.to_timestamp(date.to_datetime(time)).ok()
}

/// The offset after a time as it was before the query made a space of its `+`, or a hand set it apart.
fn offset_restored(text: &str) -> String {
    if let Some((time, offset)) = text.rsplit_once(' ').filter(|(time, _)| time.contains(':')) {
        let time = time.trim_end();
        if offset.starts_with(['+', '-']) {
            return [time, offset].concat();
        }
        if ["Z", "UTC", "GMT"].iter().any(|zone| offset.eq_ignore_ascii_case(zone)) {
            return [time, "Z"].concat();
        }
        if offset.len() >= 2 && offset.bytes().all(|b| b.is_ascii_digit() || b == b':') {
            return [time, "+", offset].concat();
        }
    }
    text.into()
}

/// `2024/01/02` begins with its year and so can be read in one way only.
fn slashes_as_hyphens(text: &str) -> String {
    match text.as_bytes() {
        [_, _, _, _, b'/', _, _, b'/', ..] => text.replacen('/', "-", 2),
        _ => text.into(),
    }
}

/// `Tue, 02 Jan 2024 03:04:05 GMT` (RFC 9110 section 5.6.7, RFC 5322). A year of two digits is ambiguous.
fn http_date(text: &str) -> Option<Timestamp> {
    if text.contains(":60") || !text.split(' ').any(|word| word.len() == 4 && all_digits(word)) {
        return None;
    }
    let restored = offset_with_plus(text);
    let text = restored.as_deref().unwrap_or(text);
    // RFC 5322 section 4.3 reads zones nobody knows, such as CET, as UTC.
    let zone = text.rsplit(' ').next()?;
    let known = zone.starts_with(['+', '-']) || ["GMT", "UTC", "UT"].contains(&zone);
    if known { rfc2822::DateTimeParser::new().parse_timestamp(text).ok() } else { None }
}

/// `03:04:05 0200` as it was before the query made a space of its `+`.
fn offset_with_plus(text: &str) -> Option<String> {
    let (time, offset) = text.rsplit_once(' ')?;
    let lost = time.trim_end().ends_with(|c: char| c.is_ascii_digit()) && time.contains(':');
    (lost && offset.len() == 4 && all_digits(offset)).then(|| format!("{} +{offset}", time.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        let table = [
            ("2024-01-02T03:04:05Z", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02t03:04:05z", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02 03:04:05", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02T03:04", Some("2024-01-02T03:04:00Z")),
            ("2024-01-02", Some("2024-01-02T00:00:00Z")),
            ("2024/01/02", Some("2024-01-02T00:00:00Z")),
            ("2024/01/02 03:04", Some("2024-01-02T03:04:00Z")),
            ("٢٠٢٤-٠١-٠٢", Some("2024-01-02T00:00:00Z")),
            ("2024-01-02T03:04:05+02:00", Some("2024-01-02T01:04:05Z")),
            ("2024-01-02T03:04:05 02:00", Some("2024-01-02T01:04:05Z")),
            ("2024-01-02T03:04:05 0200", Some("2024-01-02T01:04:05Z")),
            ("2024-01-02 03:04:05 +0200", Some("2024-01-02T01:04:05Z")),
            ("2024-01-02 03:04:05 UTC", Some("2024-01-02T03:04:05Z")),
            ("2024-01-01T23:30:00-05:30", Some("2024-01-02T05:00:00Z")),
            ("2024-01-02T03:04:05.500Z", Some("2024-01-02T03:04:05.5Z")),
            ("2024-01-02T03:04:05.000Z", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02T03:04:05.123456789Z", Some("2024-01-02T03:04:05.123456789Z")),
            ("2024-01-02T03:04:05,5Z", Some("2024-01-02T03:04:05.5Z")),
            ("20240102T030405Z", Some("2024-01-02T03:04:05Z")),
            ("Tue, 02 Jan 2024 03:04:05 GMT", Some("2024-01-02T03:04:05Z")),
            ("Tue, 02 Jan 2024 03:04:05 +0200", Some("2024-01-02T01:04:05Z")),
            ("Tue, 02 Jan 2024 03:04:05  0200", Some("2024-01-02T01:04:05Z")),
            // epochs, by magnitude
            ("1704164645", Some("2024-01-02T03:04:05Z")),
            ("1704164645.5", Some("2024-01-02T03:04:05.5Z")),
            ("1704164645000", Some("2024-01-02T03:04:05Z")),
            ("1704164645123", Some("2024-01-02T03:04:05.123Z")),
            ("1704164645123456", Some("2024-01-02T03:04:05.123456Z")),
            ("1704164645123456789", Some("2024-01-02T03:04:05.123456789Z")),
            ("0", Some("1970-01-01T00:00:00Z")),
            ("-1704164645", Some("1915-12-31T20:55:55Z")),
            // ambiguous or no instant
            ("20240102", None),
            ("202401020304", None),
            ("20240102030405", None),
            ("1234567", None),
            ("2024", None),
            ("2024-01", None),
            ("01/02/2024", None),
            ("02.01.2024", None),
            ("Tue, 02 Jan 24 03:04:05 GMT", None),
            ("Mon, 02 Jan 2024 03:04:05 GMT", None),
            ("Tue, 02 Jan 2024 03:04:05 CET", None),
            ("Tue, 02 Jan 2024 03:04:05 A", None),
            ("2024-01-02T03:04:05 CET", None),
            ("2024-01-02+02:00", None),
            ("2024-01-02Z", None),
            ("2024-W01-2", None),
            ("2024-02-30", None),
            ("2024-01-02T25:00:00Z", None),
            ("2024-06-30T23:59:60Z", None),
            ("2024-01-02T03:04:05[Europe/Paris]", None),
            ("03:04:05", None),
            ("yesterday", None),
            ("", None),
            ("1704164645.", None),
            ("9999-12-31T23:59:59-05:00", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw).map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }
}
