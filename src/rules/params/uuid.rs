//! UUIDs (RFC 9562): 32 hexadecimal digits however they are wrapped and separated.

use super::clean::{Form, clean, strip};
use super::notes::Rule;
use super::read::Reading;

pub(super) fn read(raw: &str) -> Option<Reading> {
    let text = clean(raw, Form::Compatible);
    Some(Reading::of(canonical(&text)?, &text, Rule::Reformatted))
}

/// 8-4-4-4-12 in lower case, of a cleaned value.
pub(super) fn canonical(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(36);
    for c in unwrapped(text).chars() {
        if c.is_ascii_hexdigit() {
            if matches!(digits.len(), 8 | 13 | 18 | 23) {
                digits.push('-');
            }
            digits.push(c.to_ascii_lowercase());
        } else if !is_hyphen(c) && c != ' ' {
            return None;
        }
        if digits.len() > 36 {
            return None;
        }
    }
    (digits.len() == 36).then_some(digits)
}

/// Without braces, parentheses, quotes and `urn:uuid:`, in any order.
pub(super) fn unwrapped(text: &str) -> &str {
    let mut inner = strip(text);
    loop {
        let next = between(inner, '{', '}')
            .or_else(|| between(inner, '(', ')'))
            .or_else(|| strip_prefix_any_case(inner, "urn:"))
            .or_else(|| strip_prefix_any_case(inner, "uuid:"));
        match next {
            Some(next) => inner = strip(next),
            None => return inner,
        }
    }
}

/// `text` after `prefix`, whose ASCII letters match in any case.
pub(super) fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// The hyphens and dashes that word processors put between digits.
pub(super) fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        const ID: &str = "0b6a1c1e-95a2-4c3f-8a1e-0123456789ab";
        let table = [
            (ID, Some(ID)),
            ("0B6A1C1E-95A2-4C3F-8A1E-0123456789AB", Some(ID)),
            ("0b6a1c1e95a24c3f8a1e0123456789ab", Some(ID)),
            ("{0b6a1c1e-95a2-4c3f-8a1e-0123456789ab}", Some(ID)),
            ("urn:uuid:0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", Some(ID)),
            ("URN:UUID:{0b6a1c1e95a24c3f8a1e0123456789ab}", Some(ID)),
            ("\"0b6a1c1e-95a2-4c3f-8a1e-0123456789ab\"", Some(ID)),
            ("0b6a1c1e–95a2–4c3f–8a1e–0123456789ab", Some(ID)),
            (" 0b6a1c1e-95a2-4c3f-8a1e-\n0123456789ab ", Some(ID)),
            ("0b6a1c1e-95a2-4c3f-8a1e-0123456789a", None),
            ("0b6a1c1e-95a2-4c3f-8a1e-0123456789abc", None),
            ("0b6a1c1e-95a2-4c3f-8a1e-0123456789ag", None),
            ("{0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", None),
            ("cid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab", None),
            ("", None),
            ("-", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw).map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }
}
