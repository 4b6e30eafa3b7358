//! Enums: the declared spelling, by any that folds to it (case, `-`, `_`, space between characters).

use super::clean::{Form, clean};
use super::notes::Rule;
use super::read::Reading;

pub(super) fn read(raw: &str, values: &[String]) -> Option<Reading> {
    // Declared spellings are compared first as they are, so that each of them is its own canonical form.
    if let Some(value) = values.iter().find(|value| *value == raw) {
        return Some(Reading { value: value.clone(), rule: Rule::Cleaned });
    }
    let word = clean(raw, Form::Compatible);
    if word.is_empty() {
        return None;
    }
    // `sort=+date` arrives as " date". Where both are declared, either may be meant.
    let value = match (find(&word, values), raw.strip_prefix(' ')) {
        (plain, Some(spaced)) => match (plain, find(&format!("+{spaced}"), values)) {
            (Some(_), Some(_)) => return None,
            (plain, signed) => plain.or(signed)?,
        },
        (plain, None) => plain?,
    };
    Some(Reading::of(value.clone(), &word, Rule::Reformatted))
}

fn find<'v>(word: &str, values: &'v [String]) -> Option<&'v String> {
    let folded = fold(word);
    values.iter().find(|value| **value == *word || fold(value) == folded)
}

/// What spellings are compared by. A sign in front stays, for `-date` and `date` sort differently.
pub(super) fn fold(value: &str) -> String {
    let value = clean(value, Form::Compatible);
    let separates = |c: char| matches!(c, '-' | '_' | ' ');
    value
        .char_indices()
        .filter(|&(at, c)| !separates(c) || (at == 0 && c == '-'))
        .flat_map(|(_, c)| c.to_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums() {
        let values = ["sms", "rcs", "multi_channel", "date", "-date", "Été"].map(String::from);
        let table = [
            ("sms", Some("sms")),
            ("SMS", Some("sms")),
            (" Sms ", Some("sms")),
            ("ｓｍｓ", Some("sms")),
            ("multi_channel", Some("multi_channel")),
            ("multi-channel", Some("multi_channel")),
            ("Multi Channel", Some("multi_channel")),
            ("multiChannel", Some("multi_channel")),
            ("date", Some("date")),
            ("-date", Some("-date")),
            ("-DATE", Some("-date")),
            ("ÉTÉ", Some("Été")),
            ("e\u{301}te\u{301}", Some("Été")),
            ("ete", None),
            ("mms", None),
            ("sms,rcs", None),
            ("", None),
            ("-", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw, &values).map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_space_may_be_an_unescaped_plus() {
        let signed = ["+date", "-date"].map(String::from);
        let both = ["+date", "date"].map(String::from);
        let value = |raw, values| read(raw, values).map(|reading| reading.value);
        assert_eq!(value(" date", &signed).as_deref(), Some("+date"));
        assert_eq!(value("+date", &both).as_deref(), Some("+date"));
        assert_eq!(value("date", &both).as_deref(), Some("date"));
        assert_eq!(value(" date", &both), None);
    }

    #[test]
    fn a_declared_spelling_is_canonical_even_where_cleaning_would_change_it() {
        let values = ["10²".to_owned(), " x".to_owned()];
        for value in &values {
            assert_eq!(read(value, &values).map(|reading| reading.value).as_ref(), Some(value));
        }
    }
}
