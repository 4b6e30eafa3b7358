//! One value read by its kind, until reading it again changes nothing.

use super::notes::Rule;
use super::spec::Kind;
use super::understand::MAX_VALUE_BYTES;
use super::{boolean, datetime, email, enumeration, integer, number, phone, prefixed, text, uuid};

/// How often a value may be read again before it counts as not understood. Values settle at
/// once or after one more, such as a cut that bared a space; idempotence rests on this loop and not on thirteen
/// arguments.
const MAX_READINGS: usize = 5;

/// What one kind makes of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) value: String,
    /// What was done to get there; the kinds may say it even where nothing changed.
    pub(super) rule: Rule,
}

/// A value that reads as itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) value: String,
    /// `None` when the value was canonical as it came.
    pub(super) rule: Option<Rule>,
}

impl Reading {
    /// `rule` where the value differs from what cleaning left, else cleaning was all.
    pub(super) fn of(value: String, cleaned: &str, rule: Rule) -> Reading {
        let rule = if value == cleaned && rule.lossless() { Rule::Cleaned } else { rule };
        Reading { value, rule }
    }
}

/// The value in its canonical spelling, or the rule under which it is lost.
pub(super) fn settled(kind: &Kind, raw: &str) -> Result<Settled, Rule> {
    settle(raw, |value| once(kind, value))
}

/// Repeats a reading until it is stable.
pub(super) fn settle(raw: &str, read: impl Fn(&str) -> Option<Reading>) -> Result<Settled, Rule> {
    if raw.len() > MAX_VALUE_BYTES {
        return Err(Rule::TooLong);
    }
    let mut reading = read(raw).ok_or(Rule::Ignored)?;
    if reading.value == raw {
        return Ok(Settled { value: reading.value, rule: None });
    }
    for _ in 1..MAX_READINGS {
        // Normalising may lengthen a value; what could not be read back is not canonical.
        if reading.value.len() > MAX_VALUE_BYTES {
            return Err(Rule::TooLong);
        }
        let again = read(&reading.value).ok_or(Rule::Ignored)?;
        if again.value == reading.value {
            return Ok(Settled { value: reading.value, rule: Some(reading.rule) });
        }
        reading = Reading {
            value: again.value,
            // What was lost on the way stays lost.
            rule: if reading.rule.lossless() { again.rule } else { reading.rule },
        };
    }
    Err(Rule::Ignored)
}

/// The value as an element of a list, where a prefixed kind needs its prefix: else it would claim every word.
pub(super) fn element(kind: &Kind, value: &str) -> Option<Reading> {
    match kind {
        Kind::Prefixed { prefix } if !prefixed::has_prefix(value, prefix) => None,
        kind => once(kind, value),
    }
}

fn once(kind: &Kind, value: &str) -> Option<Reading> {
    match kind {
        Kind::Integer { min, max, below } => integer::read(value, *min, *max, *below),
        Kind::Number { min, max, below } => number::read(value, *min, *max, *below),
        Kind::Boolean => boolean::read(value),
        Kind::Enum { values } => enumeration::read(value, values),
        Kind::Datetime => datetime::read(value),
        Kind::String { max_length } => text::read(value, *max_length),
        Kind::Uuid => uuid::read(value),
        Kind::Phone { bare, country } => phone::read(value, *bare, country.as_deref()),
        Kind::Email => email::read(value),
        Kind::Prefixed { prefix } => prefixed::read(value, prefix),
        Kind::PrefixedUuid { prefix } => prefixed::read_uuid(value, prefix),
        // Lists are read by their elements' kinds, which only `Params` knows.
        Kind::List { .. } => None,
    }
}
