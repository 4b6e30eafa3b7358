//! Lists: elements of several kinds, whichever way they were joined, in one order and without repeats.

use super::clean::unquote;
use super::notes::Rule;
use super::read::{self, Reading, settle};
use super::spec::{Compiled, Params};

/// Elements beyond this are not read: each costs a reading by every kind of the list.
pub(super) const MAX_ELEMENTS: usize = 64;

/// What all occurrences of a list came to.
#[derive(Debug, Default)]
pub(super) struct ListReading {
    /// The canonical list; `None` when nothing was understood.
    pub(super) value: Option<String>,
    /// Elements no kind understood without loss.
    pub(super) ignored: Vec<String>,
    /// Whether elements beyond [`MAX_ELEMENTS`] were left out.
    pub(super) too_many: bool,
    /// Whether an occurrence, or the whole, was longer than a value may be.
    pub(super) too_long: bool,
}

/// What separates elements; the wide forms too, for NFKC would make them separators later.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';' | '|' | '，' | '；' | '｜' | '\u{37e}')
}

pub(super) fn read(params: &Params, list: &Compiled, raws: &[&str]) -> ListReading {
    let mut reading = ListReading::default();
    let mut elements = Vec::new();
    for raw in raws {
        if raw.len() > super::MAX_VALUE_BYTES {
            reading.too_long = true;
            continue;
        }
        split(params, list, raw, &mut elements, &mut reading);
    }
    let joined = join(elements);
    if joined.is_empty() {
        return reading;
    }
    // The whole is read again like any value: what would not read as itself is not canonical.
    let again = settle(&joined, |value| {
        let (mut elements, mut rest) = (Vec::new(), ListReading::default());
        split(params, list, value, &mut elements, &mut rest);
        let value = join(elements);
        (!value.is_empty()).then_some(Reading { value, rule: Rule::Reformatted })
    });
    match again {
        Ok(settled) => reading.value = Some(settled.value),
        Err(rule) => {
            reading.too_long |= rule == Rule::TooLong;
            reading.ignored.push(joined);
        }
    }
    reading
}

/// Elements by the position of their kind in `of`, then by their bytes.
type Elements = Vec<(usize, String)>;

fn split(params: &Params, list: &Compiled, raw: &str, elements: &mut Elements, reading: &mut ListReading) {
    for (position, piece) in unwrapped(raw).split(is_separator).enumerate() {
        if piece.trim().is_empty() {
            continue;
        }
        if elements.len() + reading.ignored.len() >= MAX_ELEMENTS {
            reading.too_many = true;
            return;
        }
        let read = element(params, list, piece);
        // After a separator a space is mostly punctuation, and may still be an unescaped `+`. Where that makes a
        // difference it is anyone's guess.
        let same = position == 0 || !piece.starts_with(' ') || read == element(params, list, piece.trim());
        match read.filter(|_| same) {
            Some(element) => elements.push(element),
            None => reading.ignored.push(piece.to_owned()),
        }
    }
}

/// An element by the first kind that understands it without loss, as that kind reads its own spelling.
fn element(params: &Params, list: &Compiled, piece: &str) -> Option<(usize, String)> {
    let mut kind = 0;
    let mut value = piece.to_owned();
    // A canonical spelling may be claimed by an earlier kind; the element belongs to whoever claims it at last.
    for _ in 0..=list.of.len() {
        let (claimed, reading) = claim(params, list, &value)?;
        if reading.value == value && claimed == kind {
            return Some((kind, value));
        }
        (kind, value) = (claimed, reading.value);
    }
    let (claimed, reading) = claim(params, list, &value)?;
    (reading.value == value && claimed == kind).then_some((kind, value))
}

fn claim(params: &Params, list: &Compiled, value: &str) -> Option<(usize, Reading)> {
    list.of.iter().enumerate().find_map(|(order, &index)| {
        let reading = read::element(&params.declared[index].param.kind, value)?;
        // A cast takes any word with a digit in it, and an element with a separator in it would be two.
        let sound = reading.value == value || reading.rule.lossless();
        (sound && !reading.value.contains(is_separator)).then_some((order, reading))
    })
}

/// Without the brackets or quotes around the whole, where they are not those of single elements.
fn unwrapped(raw: &str) -> &str {
    let trimmed = raw.trim();
    let bracketed = trimmed.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let inner = bracketed.filter(|inner| !inner.contains(['[', ']'])).or_else(|| {
        let quote = trimmed.chars().next()?;
        unquote(trimmed).filter(|inner| !inner.contains(quote) && inner.contains(is_separator))
    });
    match inner {
        Some(inner) => unwrapped(inner),
        None => raw,
    }
}

fn join(mut elements: Elements) -> String {
    elements.sort_unstable();
    elements.dedup();
    let mut joined = String::new();
    for (_, element) in &elements {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(element);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::seed::messages_list;
    use super::*;

    const CID: &str = "cid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab";

    fn contact(raws: &[&str]) -> (Option<String>, Vec<String>) {
        let params = messages_list();
        let list = params.declared.last().map(|list| read(&params, list, raws)).unwrap_or_default();
        (list.value, list.ignored)
    }

    #[test]
    fn lists() {
        let all = format!("{CID},fid_7,a@b.com,+33612345678");
        let table: [(&[&str], Option<&str>); 18] = [
            (&["a@b.com"], Some("a@b.com")),
            (&["a@b.com,+33612345678"], Some("a@b.com,+33612345678")),
            (&[" 33612345678,a@b.com"], Some("a@b.com,+33612345678")),
            (&["+33612345678; a@b.com"], Some("a@b.com,+33612345678")),
            (&["+33612345678|a@B.com", "a@b.com"], Some("a@b.com,+33612345678")),
            (&["b@b.com,a@b.com"], Some("a@b.com,b@b.com")),
            (&["+33612345678, a@b.com, fid_7, 0b6a1c1e-95a2-4c3f-8a1e-0123456789ab"], Some(&all)),
            (&["+33 6 12 34 56 78", "fid_7", CID, "a@b.com"], Some(&all)),
            (&["[\"a@b.com\",\"c@d.com\"]"], Some("a@b.com,c@d.com")),
            (&["\"a@b.com,c@d.com\""], Some("a@b.com,c@d.com")),
            (&["\"a@b.com\",\"c@d.com\""], Some("a@b.com,c@d.com")),
            (&["a@b.com，c@d.com"], Some("a@b.com,c@d.com")),
            (&[",a@b.com,,"], Some("a@b.com")),
            // A word is not taken for an identifier without its prefix.
            (&["hello"], None),
            (&["hello,a@b.com"], Some("a@b.com")),
            (&[""], None),
            (&[" , "], None),
            (&[], None),
        ];
        for (raws, expected) in table {
            assert_eq!(contact(raws).0.as_deref(), expected, "{raws:?}");
        }
    }

    #[test]
    fn what_no_kind_understands_is_told() {
        assert_eq!(contact(&["hello,a@b.com,+33612345678 ext 3"]).1, ["hello", "+33612345678 ext 3"]);
    }

    #[test]
    fn a_list_is_bounded() {
        let many = (0..100).map(|n| format!("a{n}@b.com")).collect::<Vec<_>>().join(",");
        let params = messages_list();
        let reading = params.declared.last().map(|list| read(&params, list, &[&many])).unwrap_or_default();
        assert!(reading.too_many);
        assert_eq!(reading.value.map(|value| value.split(',').count()), Some(MAX_ELEMENTS));
        let long = "x".repeat(5000);
        let reading = params.declared.last().map(|list| read(&params, list, &[&long])).unwrap_or_default();
        assert!(reading.too_long && reading.value.is_none());
    }
}
