//! HTTP's dates (RFC 9110 §5.6.7): the one form that is sent, and the two that "a recipient … MUST accept".

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;
const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const SHORT_DAYS: [&[u8]; 7] = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];
const LONG_DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// Reads a date in any of the three forms; `wall` resolves two-digit years. Names may stand in any case, and a weekday
/// that is not the date's own is let pass: it adds nothing that could be relied upon.
pub fn parse(value: &[u8], wall: SystemTime) -> Option<SystemTime> {
    let value = value.trim_ascii();
    imf_fixdate(value).or_else(|| rfc850(value, wall)).or_else(|| asctime(value))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<SystemTime> {
    let (day, rest) = value.split_at_checked(3)?;
    let [b',', b' ', d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ ..] = rest else {
        return None;
    };
    let time = gmt(time).filter(|_| is_one_of(&SHORT_DAYS, day))?;
    from_civil(digits(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, digits(&[*d1, *d2])?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`. "Recipients of a timestamp value in rfc850-date format … MUST interpret a
/// timestamp that appears to be more than 50 years in the future as representing the most recent year in the past that
/// had the same last two digits."
fn rfc850(value: &[u8], wall: SystemTime) -> Option<SystemTime> {
    let comma = value.iter().position(|&byte| byte == b',')?;
    let (day, rest) = value.split_at(comma);
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] = rest else { return None };
    let time = gmt(time).filter(|_| is_one_of(&LONG_DAYS, day))?;
    let (month, day) = (month(&[*m1, *m2, *m3])?, digits(&[*d1, *d2])?);
    let short = digits(&[*y1, *y2])?;
    // Half a century ahead, counted in years of 365 days: close enough to tell a century.
    let horizon = wall + Duration::from_secs(50 * 365 * DAY + 12 * DAY);
    (0..=2)
        .rev()
        .filter_map(|century| from_civil(1900 + century * 100 + short, month, day, time))
        .find(|date| *date <= horizon)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<SystemTime> {
    let (day, rest) = value.split_at_checked(3)?;
    let [b' ', m1, m2, m3, b' ', d1, d2, b' ', rest @ ..] = rest else { return None };
    let (time, year) = rest.split_at_checked(8)?;
    let year = digits(year.strip_prefix(b" ").filter(|year| year.len() == 4)?)?;
    let date = if *d1 == b' ' { digits(&[*d2]) } else { digits(&[*d1, *d2]) };
    let time = clock(time).filter(|_| is_one_of(&SHORT_DAYS, day))?;
    from_civil(year, month(&[*m1, *m2, *m3])?, date?, time)
}

/// `08:49:37 GMT`, in seconds.
fn gmt(value: &[u8]) -> Option<u64> {
    let (time, zone) = value.split_at_checked(8)?;
    clock(time).filter(|_| zone.eq_ignore_ascii_case(b" gmt"))
}

/// `08:49:37`, in seconds. A leap second counts as the one after it.
fn clock(value: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = value else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter()
        .try_fold(0u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

fn month(name: &[u8]) -> Option<u64> {
    (1..).zip(MONTHS).find(|(_, month)| month.eq_ignore_ascii_case(name)).map(|(at, _)| at)
}

fn is_one_of(names: &[&[u8]], name: &[u8]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A day of the Gregorian calendar and a time of it; `None` where there is no such day. Years before 1970 are the
/// epoch: no earlier date says anything else about freshness.
fn from_civil(year: u64, month: u64, day: u64, seconds: u64) -> Option<SystemTime> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    if year < 1970 {
        return Some(UNIX_EPOCH);
    }
    // Years that begin in March put the leap day at their end.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    const EPOCH: u64 = 719_468;
    Some(UNIX_EPOCH + Duration::from_secs((days - EPOCH) * DAY + seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_and_nothing_else() {
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (value, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("SUN, 06 nov 1994 08:49:37 gmt", Some(784_111_777)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Tuesday, 01-Jan-80 00:00:00 GMT", Some(315_532_800)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06-Nov-1994 08:49:37 GMT", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08.49.37 GMT", None),
            ("Sun, 06  Nov  1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37 AEST", None),
            ("0", None),
            ("", None),
        ] {
            let read =
                parse(value.as_bytes(), wall).map(|date| date.duration_since(UNIX_EPOCH).expect("is later"));
            assert_eq!(read.map(|since| since.as_secs()), seconds, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0u64..250_000_000_000) {
            let date = UNIX_EPOCH + Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(date);
            prop_assert_eq!(parse(text.as_bytes(), date), Some(date), "{}", text);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes, UNIX_EPOCH);
        }
    }
}
