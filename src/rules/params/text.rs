//! Text: NFC, without what cannot be seen, cut to its declared length.

use super::clean::{Form, clean};
use super::notes::Rule;
use super::read::Reading;

pub(super) fn read(raw: &str, max_length: Option<usize>) -> Option<Reading> {
    let text = clean(raw, Form::Text);
    if text.is_empty() {
        return None;
    }
    let end = max_length.and_then(|max| text.char_indices().nth(max)).map(|(end, _)| end);
    Some(match end {
        Some(end) => Reading { value: text[..end].to_owned(), rule: Rule::Truncated },
        None => Reading { value: text.into_owned(), rule: Rule::Cleaned },
    })
}

#[cfg(test)]
mod tests {
    use super::super::read::settle;
    use super::*;

    #[test]
    fn texts() {
        let table = [
            ("hello", None, Some("hello")),
            ("  hello world ", None, Some("hello world")),
            ("'hello'", None, Some("hello")),
            ("it's", None, Some("it's")),
            ("Hello", None, Some("Hello")),
            ("cafe\u{301}", None, Some("café")),
            ("10²", None, Some("10²")),
            ("ﬁ", None, Some("ﬁ")),
            ("a\u{7}b", None, Some("ab")),
            ("éèà", Some(2), Some("éè")),
            ("éè", Some(2), Some("éè")),
            ("ab cd", Some(3), Some("ab")),
            ("", None, None),
            ("\u{200b}", None, None),
            ("\"\"", None, None),
        ];
        for (raw, max, expected) in table {
            let value = settle(raw, |value| read(value, max)).ok().map(|settled| settled.value);
            assert_eq!(value.as_deref(), expected, "{raw:?} {max:?}");
        }
    }
}
