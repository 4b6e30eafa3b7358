//! Phone numbers: `+` and digits (E.164), by way of what people, forms and unescaped queries make of them.

use super::clean::{Form, scrub, unquote};
use super::notes::Rule;
use super::read::Reading;
use super::spec::Bare;
use super::uuid::{is_hyphen, strip_prefix_any_case};

/// Fewer digits are no number anyone can be reached at.
const MIN_DIGITS: usize = 3;

/// What announces an extension, longest first where one begins like another.
const EXTENSIONS: [&str; 6] = [";ext=", "extension", "ext", "poste", "x", "#"];

/// A number taken out of what stood around it.
struct Dialled {
    digits: String,
    /// Whether a `+` stood before the digits, or a space that an unescaped `+` left.
    plus: bool,
    /// Whether an extension was dropped: it says whom to reach at the number, and no API asks by it.
    extension: bool,
}

pub(super) fn read(raw: &str, bare: Bare, country: Option<&str>) -> Option<Reading> {
    if is_canonical(raw) {
        return Some(Reading { value: raw.into(), rule: Rule::Phone });
    }
    let scrubbed = scrub(raw, Form::Compatible);
    let dialled = dial(&scrubbed)?;
    let rule = if dialled.extension { Rule::Cast } else { Rule::Phone };
    let value = number(dialled, bare, country)?;
    Some(Reading::of(value, scrubbed.trim(), rule))
}

fn is_canonical(raw: &str) -> bool {
    match raw.as_bytes() {
        [b'+', b'1'..=b'9', rest @ ..] => rest.len() >= 2 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn dial(scrubbed: &str) -> Option<Dialled> {
    // The space is looked for before each trimming: `tel:+33…` unescaped arrives as `tel: 33…`.
    let mut rest = scrubbed;
    let (body, spaced) = loop {
        let (trimmed, spaced) = (rest.trim(), rest.starts_with(' '));
        match unquote(trimmed).or_else(|| strip_prefix_any_case(trimmed, "tel:")) {
            Some(inner) => rest = inner,
            None => break (trimmed, spaced),
        }
    };
    let (body, extension) = without_extension(body);
    let mut dialled = Dialled { digits: String::with_capacity(16), plus: false, extension };
    for c in without_trunk_zero(body).chars() {
        match c {
            '0'..='9' => dialled.digits.push(c),
            '+' if dialled.digits.is_empty() && !dialled.plus => dialled.plus = true,
            ' ' | '.' | '/' | '(' | ')' | '[' | ']' | '_' => {}
            _ if is_hyphen(c) => {}
            // Letters may stand for digits or for anything else; a second `+` begins a second number.
            _ => return None,
        }
    }
    dialled.plus |= spaced && dialled.digits.starts_with(|c| c != '0');
    Some(dialled)
}

fn without_extension(body: &str) -> (&str, bool) {
    let lower = body.to_ascii_lowercase();
    for mark in EXTENSIONS {
        if let Some(at) = lower.rfind(mark) {
            let tail = lower[at + mark.len()..].trim_matches([' ', '.', ':', '=']);
            let is_extension = (1..=7).contains(&tail.len()) && tail.bytes().all(|b| b.is_ascii_digit());
            let number = body[..at].trim_end_matches([' ', ',', ';']);
            if is_extension && number.contains(|c: char| c.is_ascii_digit()) {
                return (number, true);
            }
        }
    }
    (body, false)
}

/// Without the `(0)` that is dialled only inside the country whose code precedes it.
fn without_trunk_zero(body: &str) -> String {
    let Some((code, rest)) = body.split_once("(0)") else { return body.into() };
    let mut digits = code.chars().filter(char::is_ascii_digit);
    // `00` leaves the country and a code begins with 1 to 9; behind a single zero the zero in brackets is dialled.
    let after_code = match (digits.next(), digits.next()) {
        (Some('0'), second) => second == Some('0'),
        (first, _) => first.is_some(),
    };
    if after_code { [code, rest].concat() } else { body.into() }
}

fn number(dialled: Dialled, bare: Bare, country: Option<&str>) -> Option<String> {
    let Dialled { digits, plus, .. } = dialled;
    let exit = digits.strip_prefix("00").filter(|rest| rest.starts_with(|c| c != '0'));
    let (plus, digits) = match (exit, plus) {
        (Some(rest), _) => (true, rest),
        (None, plus) => (plus, digits.as_str()),
    };
    if digits.len() < MIN_DIGITS {
        return None;
    }
    if plus {
        return Some(format!("+{digits}"));
    }
    match country {
        // Shorter ones are short codes: they exist in one country only and have no international form.
        Some(country) if digits.len() >= 7 && !digits.starts_with(country) => {
            Some(format!("+{country}{}", without_trunk(digits, country)))
        }
        // No calling code begins with 0, so such digits are national, of a country nobody named.
        _ if bare == Bare::International && (8..=15).contains(&digits.len()) && !digits.starts_with('0') => {
            Some(format!("+{digits}"))
        }
        _ => Some(digits.into()),
    }
}

/// National digits without what is dialled before them only inside the country.
fn without_trunk<'a>(digits: &'a str, country: &str) -> &'a str {
    let trunk = match country {
        // Their zero belongs to the number.
        "39" | "225" | "242" | "378" => return digits,
        "7" => "8",
        "36" => "06",
        "375" => "80",
        _ => "0",
    };
    digits.strip_prefix(trunk).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bare: Bare, country: Option<&str>, table: &[(&str, Option<&str>)]) {
        for &(raw, expected) in table {
            let value = read(raw, bare, country).map(|reading| reading.value);
            assert_eq!(value.as_deref(), expected, "{raw:?} {bare:?} {country:?}");
        }
    }

    #[test]
    fn numbers() {
        table(
            Bare::International,
            None,
            &[
                ("+33612345678", Some("+33612345678")),
                (" 33612345678", Some("+33612345678")),
                (" 33 6 12 34 56 78", Some("+33612345678")),
                ("+33 6.12-34/56 78", Some("+33612345678")),
                ("+33 (0)6 12 34 56 78", Some("+33612345678")),
                ("0033 (0)6 12 34 56 78", Some("+33612345678")),
                ("33(0)612345678", Some("+33612345678")),
                ("06(0)12345678", Some("06012345678")),
                ("(0)612345678", Some("0612345678")),
                ("(+33) 612345678", Some("+33612345678")),
                ("0033612345678", Some("+33612345678")),
                ("+0033612345678", Some("+33612345678")),
                ("33612345678", Some("+33612345678")),
                ("tel:+33-6-12-34-56-78", Some("+33612345678")),
                ("TEL: 33612345678", Some("+33612345678")),
                ("\"+33612345678\"", Some("+33612345678")),
                ("\u{202a}+33612345678\u{202c}", Some("+33612345678")),
                ("+٣٣٦١٢٣٤٥٦٧٨", Some("+33612345678")),
                ("＋３３６１２３４５６７８", Some("+33612345678")),
                ("+33‑6‑12–34−56—78", Some("+33612345678")),
                ("+33612345678 ext. 12", Some("+33612345678")),
                ("tel:+33612345678;ext=12", Some("+33612345678")),
                ("+33612345678x12", Some("+33612345678")),
                ("+33612345678, extension 12", Some("+33612345678")),
                ("+33612345678 #12", Some("+33612345678")),
                ("tel:612345678;phone-context=+33", None),
                ("0612345678", Some("0612345678")),
                (" 0612345678", Some("0612345678")),
                ("36200", Some("36200")),
                ("1234567", Some("1234567")),
                ("112", Some("112")),
                ("12", None),
                ("+1", None),
                ("", None),
                ("+", None),
                ("1-800-FLOWERS", None),
                ("+33612345678 or +33699999999", None),
                ("+33612345678+33699999999", None),
                ("*100#", None),
                ("#31#0612345678", None),
                ("33612345678²", None),
                ("a@b.c", None),
            ],
        );
    }

    #[test]
    fn bare_digits_may_be_kept() {
        table(
            Bare::Keep,
            None,
            &[
                ("33612345678", Some("33612345678")),
                ("33 6 12 34 56 78", Some("33612345678")),
                (" 33612345678", Some("+33612345678")),
                ("0033612345678", Some("+33612345678")),
                ("+33612345678", Some("+33612345678")),
            ],
        );
    }

    #[test]
    fn digits_without_the_code_of_the_country_are_national() {
        table(
            Bare::International,
            Some("33"),
            &[
                ("0612345678", Some("+33612345678")),
                ("06 12 34 56 78", Some("+33612345678")),
                ("612345678", Some("+33612345678")),
                ("33612345678", Some("+33612345678")),
                ("0033612345678", Some("+33612345678")),
                ("+44 20 7946 0958", Some("+442079460958")),
                (" 442079460958", Some("+442079460958")),
                ("36200", Some("36200")),
            ],
        );
        table(Bare::International, Some("39"), &[("06 698 12345", Some("+390669812345"))]);
        table(Bare::International, Some("7"), &[("8 912 345-67-89", Some("+79123456789"))]);
        table(Bare::Keep, Some("33"), &[("0612345678", Some("+33612345678"))]);
    }

    #[test]
    fn only_a_dropped_extension_loses_something() {
        let rule = |raw| read(raw, Bare::International, None).map(|reading| reading.rule);
        assert_eq!(rule("+33612345678 ext 1"), Some(Rule::Cast));
        assert_eq!(rule("0033 6 12 34 56 78"), Some(Rule::Phone));
    }
}
