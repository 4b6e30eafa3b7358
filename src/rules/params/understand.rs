//! The whole understanding of one query: occurrences, defaults, the canonical query and what was done.

use std::borrow::Cow;

use super::list;
use super::notes::{Change, Rule};
use super::query::{self, RawPair};
use super::read::{Settled, settled};
use super::spec::{Compiled, Kind, Params, Unknown};
use super::{emit, names};

/// Pairs with declared names beyond this are ignored. It also bounds the parameters of a route.
pub const MAX_PAIRS: usize = 64;
/// Longer values, in bytes after decoding, are ignored: cut, they might mean something else.
pub const MAX_VALUE_BYTES: usize = 4096;
/// How many unknown names are remembered, for the refusal that names one.
const MAX_UNKNOWN_NAMES: usize = 8;
/// How much of an unknown name is remembered, in characters.
const MAX_UNKNOWN_CHARS: usize = 64;
/// How much of an over-long value is remembered, in characters.
const MAX_LONG_CHARS: usize = 64;

/// What a query was understood as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Canonical: exactly what the upstream receives and the key contains. Without the `?`.
    pub query: String,
    /// For each declared parameter its canonical value, decoded, where it is sent. So `None` where it is absent,
    /// ignored, or equal to its default; window parameters hold their default when absent.
    pub values: Vec<Option<String>>,
    /// What was done, in declared order. Empty for a canonical query.
    pub changes: Vec<Change>,
    /// How many pairs with undeclared names were dropped.
    pub unknown: u32,
    /// The first few of their names as they came, cut to 64 characters. Chosen by the client: not for labels.
    pub unknown_names: Vec<String>,
}

/// One pair with a declared name.
struct Occurrence<'a> {
    param: usize,
    exact: bool,
    name: Cow<'a, str>,
    value: Cow<'a, str>,
}

impl Params {
    /// Reads a raw query component, whatever it contains. Never fails; what was lost is in
    /// [`Understood::changes`].
    pub fn understand(&self, raw_query: &str) -> Understood {
        let mut understood = Understood { values: vec![None; self.declared.len()], ..Understood::default() };
        let (mut occurrences, passed) = self.occurrences(raw_query, &mut understood);
        // An exact spelling first, then the others in a fixed order, each in the order its pairs came: so the
        // order of differently named pairs makes no difference.
        occurrences.sort_by(|a, b| (a.param, !a.exact, &a.name).cmp(&(b.param, !b.exact, &b.name)));
        for group in occurrences.chunk_by(|a, b| a.param == b.param) {
            let Some(compiled) = group.first().and_then(|first| self.declared.get(first.param)) else {
                continue;
            };
            let value = match compiled.param.kind {
                Kind::List { .. } => self.understand_list(compiled, group, &mut understood.changes),
                _ => understand_one(compiled, group, &mut understood.changes),
            };
            if let Some(slot) = understood.values.get_mut(group[0].param) {
                *slot = value;
            }
        }
        // Pairs over the limit were noted while the others were gathered.
        understood.changes.sort_by_key(|change| change.param);
        self.emit(&mut understood, raw_query.len());
        emit::push_unknown(&mut understood.query, passed);
        understood
    }

    /// The pairs with declared names, up to the limit, and the others where they pass.
    fn occurrences<'a>(
        &self,
        raw_query: &'a str,
        understood: &mut Understood,
    ) -> (Vec<Occurrence<'a>>, Vec<RawPair<'a>>) {
        let (mut occurrences, mut passed) = (Vec::new(), Vec::new());
        for pair in query::pairs(raw_query) {
            let name = query::text(pair.name);
            match names::find(&self.declared, &name) {
                Some(found) if occurrences.len() < MAX_PAIRS => occurrences.push(Occurrence {
                    param: found.index,
                    exact: found.exact,
                    name,
                    value: query::text(pair.value.unwrap_or("")),
                }),
                Some(found) => note_too_many(found.index, &mut understood.changes),
                None if self.unknown == Unknown::Pass => passed.push(pair),
                None => note_unknown(&name, understood),
            }
        }
        (occurrences, passed)
    }

    fn understand_list(
        &self,
        compiled: &Compiled,
        group: &[Occurrence<'_>],
        changes: &mut Vec<Change>,
    ) -> Option<String> {
        let param = group[0].param;
        let raws: Vec<&str> = group.iter().map(|occurrence| &*occurrence.value).collect();
        let reading = list::read(self, compiled, &raws);
        let to = reading.value.clone().or_else(|| compiled.param.default.clone());
        let mut note = |from: &str, rule| {
            changes.push(Change { param, from: from.to_owned(), to: to.clone(), rule });
        };
        for element in &reading.ignored {
            note(element, lost(compiled, Rule::Ignored, reading.value.is_some()));
        }
        for raw in raws.iter().filter(|raw| reading.too_long && raw.len() > MAX_VALUE_BYTES) {
            note(beginning(raw, MAX_LONG_CHARS), Rule::TooLong);
        }
        if reading.too_many {
            note("", Rule::TooMany);
        }
        let told = !reading.ignored.is_empty() || reading.too_long || reading.too_many;
        match &reading.value {
            None if !told => note(raws[0], lost(compiled, Rule::Ignored, false)),
            Some(value) if !told && (raws.len() > 1 || raws[0] != value) => {
                note(raws[0], Rule::Reformatted);
            }
            Some(_) if !told && !group[0].exact => note(raws[0], Rule::Name),
            _ => {}
        }
        reading.value
    }

    /// Writes the declared pairs and settles which values are sent at all.
    fn emit(&self, understood: &mut Understood, expected_len: usize) {
        understood.query.reserve(expected_len.min(MAX_VALUE_BYTES));
        for (compiled, value) in self.declared.iter().zip(&mut understood.values) {
            let param = &compiled.param;
            if param.window {
                *value = value.take().or_else(|| param.default.clone());
            } else if value.is_some() && *value == param.default {
                *value = None;
            }
            if let Some(value) = value {
                emit::push_pair(&mut understood.query, &param.name, value);
            }
        }
    }
}

/// The value that wins, and a note on every occurrence that was not canonical or did not win.
fn understand_one(
    compiled: &Compiled,
    group: &[Occurrence<'_>],
    changes: &mut Vec<Change>,
) -> Option<String> {
    let mut readings: Vec<Result<Settled, Rule>> =
        group.iter().map(|occurrence| settled(&compiled.param.kind, &occurrence.value)).collect();
    let winner = winner(group, &readings);
    let value = winner.and_then(|winner| readings[winner].as_ref().ok()).map(|settled| &settled.value);
    let to = value.or(compiled.param.default.as_ref());
    for (position, (occurrence, reading)) in group.iter().zip(&readings).enumerate() {
        let rule = match reading {
            Err(rule) => Some(lost(compiled, *rule, value.is_some())),
            Ok(settled) if Some(position) == winner => {
                settled.rule.or((!occurrence.exact).then_some(Rule::Name))
            }
            // The same in the end, but a cut or clamped one had asked for something else.
            Ok(settled) if Some(&settled.value) == value => {
                settled.rule.filter(|rule| !rule.lossless()).or(Some(Rule::Repeated))
            }
            Ok(_) => Some(Rule::Duplicate),
        };
        if let Some(rule) = rule {
            let from = match rule {
                Rule::TooLong => beginning(&occurrence.value, MAX_LONG_CHARS),
                _ => &occurrence.value,
            };
            changes.push(Change { param: occurrence.param, from: from.to_owned(), to: to.cloned(), rule });
        }
    }
    winner.and_then(|winner| readings.swap_remove(winner).ok()).map(|settled| settled.value)
}

/// Of the first spelling with an occurrence that can be understood, the last of these.
fn winner(group: &[Occurrence<'_>], readings: &[Result<Settled, Rule>]) -> Option<usize> {
    let first = readings.iter().position(Result::is_ok)?;
    let spelling = |occurrence: &Occurrence<'_>| occurrence.name == group[first].name;
    group.iter().zip(readings).rposition(|(occurrence, reading)| reading.is_ok() && spelling(occurrence))
}

/// Under which rule a value is lost: where nothing else won, the default stands in for an ignored one.
fn lost(compiled: &Compiled, rule: Rule, won: bool) -> Rule {
    let defaulted = rule == Rule::Ignored && !won && compiled.param.default.is_some();
    if defaulted { Rule::Default } else { rule }
}

/// One note for each parameter, however many of its pairs were over the limit.
fn note_too_many(param: usize, changes: &mut Vec<Change>) {
    if !changes.iter().any(|change| change.param == param) {
        changes.push(Change { param, from: String::new(), to: None, rule: Rule::TooMany });
    }
}

fn note_unknown(name: &str, understood: &mut Understood) {
    understood.unknown = understood.unknown.saturating_add(1);
    if understood.unknown_names.len() < MAX_UNKNOWN_NAMES {
        understood.unknown_names.push(beginning(name, MAX_UNKNOWN_CHARS).to_owned());
    }
}

fn beginning(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Below, OnIgnored, Param};
    use super::*;

    fn param(name: &str, kind: Kind, default: Option<&str>, window: bool) -> Param {
        Param {
            name: name.into(),
            kind,
            default: default.map(String::from),
            on_ignored: OnIgnored::Ignore,
            window,
        }
    }

    fn route(unknown: Unknown) -> Params {
        let integer = Kind::Integer { min: None, max: None, below: Below::Clamp };
        let values = ["asc", "desc"].map(String::from).into();
        let declared = vec![
            param("z", integer, Some("1"), true),
            param("order", Kind::Enum { values }, Some("ASC"), false),
            param("archived", Kind::Boolean, None, false),
        ];
        Params::new(declared, unknown).unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn what_is_sent() {
        let table = [
            ("", "z=1"),
            ("z=1", "z=1"),
            ("archived=yes&z=2", "z=2&archived=true"),
            ("order=desc", "z=1&order=desc"),
            // Equal to its default, a value is not sent; neither is one the default stands in for.
            ("order=asc", "z=1"),
            ("order=up", "z=1"),
            ("order=desc&ORDER=asc", "z=1&order=desc"),
            ("order=desc&order=asc", "z=1"),
            ("b=2&a=1", "z=1"),
        ];
        for (query, expected) in table {
            assert_eq!(route(Unknown::Drop).understand(query).query, expected, "{query:?}");
        }
    }

    #[test]
    fn unknown_names_pass_after_the_declared_ones() {
        let understood = route(Unknown::Pass).understand("b=2&a=%zz&Z=3&b=1+1&%61&é=%ff");
        assert_eq!(understood.query, "z=3&a=%25zz&a&b=2&b=1%201&%C3%A9=%FF");
        assert_eq!((understood.unknown, understood.unknown_names.len()), (0, 0));
    }

    #[test]
    fn a_default_that_stands_in_is_told() {
        let changes = route(Unknown::Drop).understand("order=up&archived=perhaps&z=x").changes;
        let told: Vec<_> = changes.iter().map(|c| (c.param, &*c.from, c.to.as_deref(), c.rule)).collect();
        assert_eq!(
            told,
            [
                (0, "x", Some("1"), Rule::Default),
                (1, "up", Some("asc"), Rule::Default),
                (2, "perhaps", None, Rule::Ignored),
            ]
        );
    }

    #[test]
    fn unknown_names_are_remembered_within_bounds() {
        let query: String = (0..20).map(|n| format!("{}{n}=&", "é".repeat(100))).collect();
        let understood = route(Unknown::Drop).understand(&query);
        assert_eq!((understood.unknown, understood.unknown_names.len()), (20, 8));
        assert!(understood.unknown_names.iter().all(|name| name.chars().count() == 64));
    }
}
