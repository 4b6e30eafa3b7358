//! Numbers: decimal figures as exact as they were written. An upstream may round them; the key does not.

use std::cmp::Ordering;

use super::clean::{Form, clean};
use super::decimal::{Decimal, hexadecimal, ungrouped};
use super::notes::Rule;
use super::read::Reading;
use super::spec::Below;

/// Unlike integers, numbers are not looked for among other characters: a unit would be lost with them.
pub(super) fn read(raw: &str, min: Option<f64>, max: Option<f64>, below: Below) -> Option<Reading> {
    let text = clean(raw, Form::Compatible);
    let figure = hexadecimal(&text)
        .or_else(|| ungrouped(&text).and_then(|plain| Decimal::parse(&plain)))
        .or_else(|| Decimal::parse(&text))?;
    let bound = |bound: Option<f64>| bound.and_then(|bound| Decimal::parse(&format!("{bound:e}")));
    let (figure, rule) = match (bound(min), bound(max)) {
        (Some(min), _) if figure.compare(&min) == Ordering::Less => match below {
            Below::Clamp => (min, Rule::Clamped),
            Below::Default => return None,
        },
        (_, Some(max)) if figure.compare(&max) == Ordering::Greater => (max, Rule::Clamped),
        _ if figure.is_extreme() => return None,
        _ => (figure, Rule::Reformatted),
    };
    Some(Reading::of(figure.canonical(), &text, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let table = [
            ("1.5", Some("1.5")),
            ("1.50", Some("1.5")),
            ("+1", Some("1")),
            ("-.5", Some("-0.5")),
            ("-0", Some("0")),
            ("2e1", Some("20")),
            ("1.5e400", Some("1.5e400")),
            ("15e399", Some("1.5e400")),
            ("1e-400", Some("1e-400")),
            ("0x1F", Some("31")),
            ("1,000", Some("1000")),
            ("1,000.25", Some("1000.25")),
            ("١٫٥", None),
            ("١.٥", Some("1.5")),
            ("−1.5", Some("-1.5")),
            ("0.1", Some("0.1")),
            ("0.10000000000000001", Some("0.10000000000000001")),
            ("9007199254740993", Some("9007199254740993")),
            ("1,5", None),
            ("1,00", None),
            ("12.5€", None),
            ("5%", None),
            ("5k", None),
            ("1e99999999999", None),
            ("0xffffffffffffffffffffffffffffffffffff", None),
            ("Infinity", None),
            ("NaN", None),
            ("", None),
        ];
        for (raw, expected) in table {
            let value = read(raw, None, None, Below::Clamp).map(|reading| reading.value);
            assert_eq!(value.as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn bounds() {
        let table = [
            ("0.4", Below::Clamp, Some("0.5")),
            ("0.4", Below::Default, None),
            ("0.5", Below::Default, Some("0.5")),
            ("1000000", Below::Clamp, Some("1000000")),
            ("1000000.000000000000000001", Below::Clamp, Some("1000000")),
            ("1e99999999999", Below::Clamp, Some("1000000")),
        ];
        for (raw, below, expected) in table {
            let value = read(raw, Some(0.5), Some(1e6), below).map(|reading| reading.value);
            assert_eq!(value.as_deref(), expected, "{raw:?} {below:?}");
        }
    }
}
