//! What a route declares about its parameters, and the compiled form requests are read with.

use super::declaration::{self, DeclarationError};
use super::{list, names, read};

/// The compiled rules of one route, in declared order. Equal when they understand every query alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    pub(super) declared: Vec<Compiled>,
    pub(super) unknown: Unknown,
}

/// One declared parameter with what is worked out from it once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compiled {
    pub(super) param: Param,
    /// The name as folded spellings are compared with it.
    pub(super) folded: String,
    /// For a list the kinds its elements may have, as positions in the declared order; empty otherwise.
    pub(super) of: Vec<usize>,
}

/// What becomes of pairs whose names are not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Neither the key nor the upstream sees them.
    #[default]
    Drop,
    /// They follow the declared ones, sorted by name, then as they came.
    Pass,
}

/// What becomes of a request in which a parameter could not be taken as meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnIgnored {
    /// The parameter is left out and the request is still sent.
    #[default]
    Ignore,
    /// The request is refused: an ignored filter widens the question.
    Refuse,
}

/// What an integer or number below its `min` becomes. Above `max` always clamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Below {
    /// The `min`.
    #[default]
    Clamp,
    /// The default, or nothing where there is none.
    Default,
}

/// What 8 to 15 digits without `+` or `00` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bare {
    /// An international number whose `+` was lost.
    #[default]
    International,
    /// Left as they are.
    Keep,
}

/// One parameter as a route declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The spelling the upstream receives.
    pub name: String,
    /// How its values are read.
    pub kind: Kind,
    /// The upstream's own default. A value equal to it is left out, unless `window`.
    /// Canonicalised by its own kind in [`Params::new`].
    pub default: Option<String>,
    /// Whether a request whose value would be lost is refused.
    pub on_ignored: OnIgnored,
    /// Whether this is the page or the size of a window: always sent, so that a changed default of the upstream
    /// cannot change what an entry holds.
    pub window: bool,
}

/// How values are read, and with it their canonical spelling.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Plain decimal within `i64`, saturating.
    Integer {
        /// The least value.
        min: Option<i64>,
        /// The greatest value.
        max: Option<i64>,
        /// What a lesser value becomes.
        below: Below,
    },
    /// Decimal of any precision, never rounded.
    Number {
        /// The least value, finite.
        min: Option<f64>,
        /// The greatest value, finite.
        max: Option<f64>,
        /// What a lesser value becomes.
        below: Below,
    },
    /// `true` or `false`.
    Boolean,
    /// One of the declared spellings.
    Enum {
        /// The spellings the upstream knows; no two may fold alike.
        values: Vec<String>,
    },
    /// RFC 3339 in UTC, `2024-01-02T03:04:05Z`.
    Datetime,
    /// Text in NFC.
    String {
        /// Longest value, in characters; longer ones are cut.
        max_length: Option<usize>,
    },
    /// Lower-case 8-4-4-4-12 (RFC 9562).
    Uuid,
    /// `+` and digits (E.164), or bare digits.
    Phone {
        /// What bare digits are that no `country` makes national.
        bare: Bare,
        /// Calling code without `+`, such as `"33"`: seven digits or more without it are national, and their
        /// trunk prefix is dropped. Fewer are short codes, which have no international form.
        country: Option<String>,
    },
    /// An address whose domain is a lower-case A-label (RFC 5890).
    Email,
    /// The prefix once, then an identifier.
    Prefixed {
        /// Such as `"fid_"`.
        prefix: String,
    },
    /// The prefix once, then a UUID.
    PrefixedUuid {
        /// Such as `"cid_"`.
        prefix: String,
    },
    /// Several values, comma-joined in one occurrence.
    List {
        /// The parameters whose kinds elements may have, in the order they are tried.
        of: Vec<String>,
    },
}

impl Params {
    /// Compiles what a route declares, or says which declaration cannot be meant.
    pub fn new(params: Vec<Param>, unknown: Unknown) -> Result<Params, DeclarationError> {
        let declared = declaration::compile(params)?;
        let mut params = Params { declared, unknown };
        for index in 0..params.declared.len() {
            if let Some(default) = params.declared[index].param.default.take() {
                let canonical = declaration::canonical_default(&params, index, default)?;
                params.declared[index].param.default = Some(canonical);
            }
        }
        Ok(params)
    }

    /// The declared names, in order; positions are the indices used everywhere else.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|c| c.param.name.as_str())
    }

    /// The position of a parameter, by its exact name or a spelling that folds to it.
    pub fn get(&self, name: &str) -> Option<usize> {
        names::find(&self.declared, name).map(|found| found.index)
    }

    /// The declared parameter at a position.
    pub fn param(&self, index: usize) -> Option<&Param> {
        self.declared.get(index).map(|c| &c.param)
    }

    /// One decoded value read by the parameter at `index`, as purge tags and pointers into items are.
    /// `None` where it cannot be read; no default stands in.
    pub fn canonical(&self, index: usize, raw_value: &str) -> Option<String> {
        let compiled = self.declared.get(index)?;
        match compiled.param.kind {
            Kind::List { .. } => list::read(self, compiled, &[raw_value]).value,
            ref kind => read::settled(kind, raw_value).ok().map(|reading| reading.value),
        }
    }
}

impl Kind {
    /// Whether raw values may be repeated to the client: figures and switches say nothing about a person.
    pub(super) fn is_number_like(&self) -> bool {
        matches!(self, Kind::Integer { .. } | Kind::Number { .. } | Kind::Boolean)
    }

    /// What a value should have been, to follow "expected".
    pub(super) fn expected(&self) -> String {
        match self {
            Kind::Integer { min, max, .. } => bounded("an integer", *min, *max),
            Kind::Number { min, max, .. } => bounded("a number", *min, *max),
            Kind::Boolean => "true or false".into(),
            Kind::Enum { values } => format!("one of {}", values.join(", ")),
            Kind::Datetime => "a date and time such as 2024-01-02T03:04:05Z".into(),
            Kind::String { max_length: None } => "a text".into(),
            Kind::String { max_length: Some(max) } => format!("a text of at most {max} characters"),
            Kind::Uuid => "a UUID".into(),
            Kind::Phone { country: None, .. } => "a phone number such as +33612345678".into(),
            Kind::Phone { country: Some(code), .. } => format!("a phone number, national or +{code}…"),
            Kind::Email => "an e-mail address".into(),
            Kind::Prefixed { prefix } => format!("{prefix} and an identifier"),
            Kind::PrefixedUuid { prefix } => format!("{prefix} and a UUID"),
            Kind::List { of } => format!("a comma-separated list of {}", of.join(", ")),
        }
    }
}

fn bounded<T: std::fmt::Display>(noun: &str, min: Option<T>, max: Option<T>) -> String {
    match (min, max) {
        (None, None) => noun.into(),
        (Some(min), None) => format!("{noun} of at least {min}"),
        (None, Some(max)) => format!("{noun} of at most {max}"),
        (Some(min), Some(max)) => format!("{noun} from {min} to {max}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_said_in_words() {
        let integer = |min, max| Kind::Integer { min, max, below: Below::Clamp }.expected();
        assert_eq!(integer(None, None), "an integer");
        assert_eq!(integer(Some(1), None), "an integer of at least 1");
        assert_eq!(integer(None, Some(9)), "an integer of at most 9");
        assert_eq!(integer(Some(1), Some(9)), "an integer from 1 to 9");
        assert_eq!(
            Kind::Number { min: Some(0.5), max: None, below: Below::Clamp }.expected(),
            "a number of at least 0.5"
        );
        assert_eq!(Kind::Enum { values: vec!["a".into(), "b".into()] }.expected(), "one of a, b");
    }
}
