//! Names: exact, else folded (case, `-`, `_`, `.`, space, camelCase, a trailing `[]`).

use super::clean::{Form, clean};
use super::spec::Compiled;

/// Longest name, in bytes, that is compared at all; longer ones are unknown.
const MAX_NAME_BYTES: usize = 256;

/// Where a spelling leads.
pub(super) struct Found {
    pub(super) index: usize,
    pub(super) exact: bool,
}

pub(super) fn find(declared: &[Compiled], name: &str) -> Option<Found> {
    if let Some(index) = declared.iter().position(|c| c.param.name == name) {
        return Some(Found { index, exact: true });
    }
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let folded = fold(name);
    if folded.is_empty() {
        return None;
    }
    declared.iter().position(|c| c.folded == folded).map(|index| Found { index, exact: false })
}

/// What spellings are compared by. Dropping the separators is also what makes camelCase fold.
pub(super) fn fold(name: &str) -> String {
    let cleaned = clean(name, Form::Compatible);
    let stem = cleaned.strip_suffix("[]").unwrap_or(&cleaned);
    stem.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The declared name a mistaken one most likely meant; none when nothing is close.
pub(super) fn nearest(declared: &[Compiled], name: &str) -> Option<String> {
    let folded = fold(name.get(..MAX_NAME_BYTES).unwrap_or(name));
    declared
        .iter()
        .map(|c| (strsim::jaro_winkler(&c.folded, &folded), c))
        .filter(|(likeness, _)| *likeness >= 0.8)
        // Of equals the one declared first, so that the answer is always the same.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, c)| c.param.name.clone())
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Kind, OnIgnored, Param};
    use super::*;

    fn declared(names: &[&str]) -> Vec<Compiled> {
        names
            .iter()
            .map(|&name| Compiled {
                param: Param {
                    name: name.into(),
                    kind: Kind::Email,
                    default: None,
                    on_ignored: OnIgnored::Ignore,
                    window: false,
                },
                folded: fold(name),
                of: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn spellings_that_lead_to_a_declared_name() {
        let declared = declared(&["page", "per_page", "country_codes[]"]);
        let table = [
            ("page", Some((0, true))),
            ("PAGE", Some((0, false))),
            ("page[]", Some((0, false))),
            (" page ", Some((0, false))),
            ("ｐａｇｅ", Some((0, false))),
            ("pa\u{200b}ge", Some((0, false))),
            ("per_page", Some((1, true))),
            ("per-page", Some((1, false))),
            ("per.page", Some((1, false))),
            ("per page", Some((1, false))),
            ("perPage", Some((1, false))),
            ("PerPage", Some((1, false))),
            ("PER_PAGE", Some((1, false))),
            ("country_codes[]", Some((2, true))),
            ("countryCodes", Some((2, false))),
            ("pages", None),
            ("page[size]", None),
            ("page[0]", None),
            ("", None),
            ("_", None),
            ("[]", None),
        ];
        for (name, expected) in table {
            assert_eq!(find(&declared, name).map(|f| (f.index, f.exact)), expected, "{name:?}");
        }
        assert!(find(&declared, &format!("{}page", "_".repeat(300))).is_none());
    }

    #[test]
    fn the_nearest_name_is_close_or_none() {
        let declared = declared(&["page", "per_page", "phone_number", "email"]);
        let table = [
            ("pgae", Some("page")),
            ("emial", Some("email")),
            ("phone", Some("phone_number")),
            ("phone_nubmer", Some("phone_number")),
            ("utm_source", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(&declared, name).as_deref(), expected, "{name:?}");
        }
    }
}
