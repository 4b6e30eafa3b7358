//! Cleaning: deleting what no value means, so that reading sees only what was meant.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::decompose_compatible;

use super::unicode::{ascii_digit, is_format};

/// How far a value's characters may be changed without changing what it means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Figures, identifiers and keywords: NFKC, and the digits of every script are ASCII digits.
    Compatible,
    /// Addresses: NFC. Digits stay, for a mailbox is as it is written.
    Address,
    /// Text for people: NFC, and the joiners stay, for they tell words and emoji apart.
    Text,
}

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// The value scrubbed, trimmed and without the quotes around it.
pub(super) fn clean(raw: &str, form: Form) -> Cow<'_, str> {
    match scrub(raw, form) {
        Cow::Borrowed(scrubbed) => Cow::Borrowed(strip(scrubbed)),
        Cow::Owned(scrubbed) => {
            let stripped = strip(&scrubbed);
            Cow::Owned(if stripped.len() == scrubbed.len() { scrubbed } else { stripped.into() })
        }
    }
}

/// Normalised, without control and format characters; spaces and quotes stay, for some kinds look at them.
pub(super) fn scrub(raw: &str, form: Form) -> Cow<'_, str> {
    if raw.is_ascii() && !raw.bytes().any(|b| b.is_ascii_control()) {
        return Cow::Borrowed(raw);
    }
    // What is removed may have kept a letter and its accent apart, so one pass is not always enough. Every
    // further pass composes or reorders what the last one brought together, so there is an end.
    let mut scrubbed = scrub_once(raw, form);
    loop {
        let next = scrub_once(&scrubbed, form);
        if next == scrubbed {
            return Cow::Owned(scrubbed);
        }
        scrubbed = next;
    }
}

/// Trimmed, without the pairs of quotes around it, however many.
pub(super) fn strip(value: &str) -> &str {
    let mut stripped = trim(value);
    while let Some(inner) = unquote(stripped) {
        stripped = trim(inner);
    }
    stripped
}

/// What stands between one pair of quotes.
pub(super) fn unquote(value: &str) -> Option<&str> {
    let open = value.chars().next()?;
    let closes: &[char] = match open {
        '"' | '\'' | '`' => &[open],
        '“' => &['”'],
        '„' => &['“', '”'],
        '‘' | '‚' => &['’', '‘'],
        '«' => &['»'],
        '‹' => &['›'],
        _ => return None,
    };
    value[open.len_utf8()..].strip_suffix(closes)
}

fn trim(value: &str) -> &str {
    value.trim_matches(|c: char| c.is_whitespace() || c == ZERO_WIDTH_JOINER || c == ZERO_WIDTH_NON_JOINER)
}

fn scrub_once(value: &str, form: Form) -> String {
    let kept = value.chars().filter_map(|c| scrubbed_char(c, form));
    match form {
        Form::Compatible => kept.nfkc().collect(),
        Form::Address | Form::Text => kept.nfc().collect(),
    }
}

fn scrubbed_char(c: char, form: Form) -> Option<char> {
    if c.is_control() {
        // A line break separates; deleting it would join "1" and "2" to "12".
        return c.is_whitespace().then_some(' ');
    }
    if c.is_ascii() {
        return Some(c);
    }
    if is_format(c) {
        let joins = matches!(c, ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER | '\u{e0020}'..='\u{e007f}');
        return (form == Form::Text && joins).then_some(c);
    }
    if form != Form::Compatible {
        return Some(c);
    }
    Some(ascii_digit(c).unwrap_or(if hides_digits(c) { char::REPLACEMENT_CHARACTER } else { c }))
}

/// Whether NFKC would make plain digits of a character that is not a plain digit: `10²` is not 102, nor `1½` 11/2.
fn hides_digits(c: char) -> bool {
    let mut hides = false;
    decompose_compatible(c, |part| hides |= part.is_ascii_digit());
    hides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_figures_and_identifiers() {
        let table = [
            ("plain", "plain"),
            ("", ""),
            ("  a b  ", "a b"),
            ("\"a\"", "a"),
            ("'\"a\"'", "a"),
            ("\" 'a' \"", "a"),
            ("“a”", "a"),
            ("„a“", "a"),
            ("«\u{a0}a\u{a0}»", "a"),
            ("\"", "\""),
            ("\"a", "\"a"),
            ("\"a'", "\"a'"),
            ("\"\"", ""),
            ("ﬁd_１２", "fid_12"),
            ("٢٣", "23"),
            ("a\u{0}b", "ab"),
            ("a\u{200b}b\u{feff}", "ab"),
            ("1\n2", "1 2"),
            ("e\u{200b}\u{301}", "é"),
            ("10²", "10\u{fffd}"),
            ("1½", "1\u{fffd}"),
            ("①", "\u{fffd}"),
        ];
        for (raw, expected) in table {
            assert_eq!(clean(raw, Form::Compatible), expected, "{raw:?}");
        }
    }

    #[test]
    fn text_keeps_what_tells_words_apart() {
        let table = [
            ("e\u{301}", "é"),
            ("ﬁ 10² ٢", "ﬁ 10² ٢"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("👩\u{200d}💻", "👩\u{200d}💻"),
            ("\u{200d}a\u{200d}", "a"),
            ("a\u{202e}b", "ab"),
            ("a\r\nb", "a  b"),
        ];
        for (raw, expected) in table {
            assert_eq!(clean(raw, Form::Text), expected, "{raw:?}");
        }
        assert_eq!(clean("ab\u{200d}@x", Form::Address), "ab@x");
    }

    #[test]
    fn clean_ascii_is_not_copied() {
        assert!(matches!(clean(" \"a\" ", Form::Compatible), Cow::Borrowed("a")));
    }
}
