//! Which declarations cannot be meant: everything about the parameters of a route that is checked once, at load.

use std::fmt;

use super::clean::{Form, clean};
use super::spec::{Compiled, Kind, Param, Params};
use super::understand::{MAX_PAIRS, MAX_VALUE_BYTES};
use super::{enumeration, list, names, read};

/// Why a route's parameters do not compile. Each names the parameter; `Display` says what was expected.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are what Display says about them")]
pub enum DeclarationError {
    /// More parameters than pairs a query may have: its canonical query could not be read back.
    TooMany { count: usize },
    /// A name with nothing in it but separators.
    EmptyName { name: String },
    /// Two names that one spelling could mean.
    FoldAlike { name: String, other: String },
    /// A list without kinds.
    NothingInList { name: String },
    /// A list of a parameter that is not declared.
    UnknownInList { name: String, element: String, nearest: Option<String> },
    /// A list of lists.
    ListInList { name: String, element: String },
    /// `min` above `max`.
    MinAboveMax { name: String },
    /// A bound that is no finite number.
    NotFinite { name: String },
    /// An enum without values.
    EmptyEnum { name: String },
    /// An enum value that is empty or too long to be sent.
    BadValue { name: String, value: String },
    /// Two enum values that one spelling could mean.
    ValuesAlike { name: String, value: String, other: String },
    /// A `max_length` of zero.
    NoLength { name: String },
    /// A prefix that is empty or would not survive cleaning.
    BadPrefix { name: String, prefix: String },
    /// A calling code that is none.
    BadCountry { name: String, country: String },
    /// A default its own kind cannot read without loss.
    BadDefault { name: String, default: String, expected: String },
}

impl fmt::Display for DeclarationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DeclarationError as E;
        match self {
            E::TooMany { count } => write!(f, "{count} parameters: expected at most {MAX_PAIRS}"),
            E::EmptyName { name } => {
                write!(f, "parameter {name:?}: expected a name with a letter or digit in it")
            }
            E::FoldAlike { name, other } => {
                write!(
                    f,
                    "parameter {name:?} folds like {other:?}: expected names that differ in more than case and separators"
                )
            }
            E::NothingInList { name } => {
                write!(f, "list {name:?}: expected at least one parameter name in `of`")
            }
            E::UnknownInList { name, element, nearest } => {
                write!(
                    f,
                    "list {name:?}: expected the name of a declared parameter in `of`, not {element:?}"
                )?;
                nearest.iter().try_for_each(|near| write!(f, "; did you mean {near:?}?"))
            }
            E::ListInList { name, element } => {
                write!(f, "list {name:?}: expected single values in `of`, and {element:?} is a list")
            }
            E::MinAboveMax { name } => write!(f, "parameter {name:?}: expected `min` to be at most `max`"),
            E::NotFinite { name } => write!(f, "parameter {name:?}: expected finite bounds"),
            E::EmptyEnum { name } => write!(f, "enum {name:?}: expected at least one value"),
            E::BadValue { name, value } => {
                write!(f, "enum {name:?}: expected a value of 1 to {MAX_VALUE_BYTES} bytes, not {value:?}")
            }
            E::ValuesAlike { name, value, other } => write!(
                f,
                "enum {name:?}: {value:?} folds like {other:?}: expected values that differ in more than case and separators"
            ),
            E::NoLength { name } => write!(f, "parameter {name:?}: expected a `max_length` of at least 1"),
            E::BadPrefix { name, prefix } => write!(
                f,
                "parameter {name:?}: expected a prefix of plain characters without space, quotes, `,`, `;` or `|`, not {prefix:?}"
            ),
            E::BadCountry { name, country } => write!(
                f,
                "parameter {name:?}: expected a calling code of 1 to 3 digits such as \"33\", not {country:?}"
            ),
            E::BadDefault { name, default, expected } => {
                write!(f, "parameter {name:?}: expected its default to be {expected}, not {default:?}")
            }
        }
    }
}

impl std::error::Error for DeclarationError {}

/// Everything but the defaults, which need the compiled whole to be read.
pub(super) fn compile(params: Vec<Param>) -> Result<Vec<Compiled>, DeclarationError> {
    if params.len() > MAX_PAIRS {
        return Err(DeclarationError::TooMany { count: params.len() });
    }
    let mut declared: Vec<Compiled> = Vec::with_capacity(params.len());
    for param in params {
        let folded = names::fold(&param.name);
        if folded.is_empty() {
            return Err(DeclarationError::EmptyName { name: param.name });
        }
        if let Some(other) = declared.iter().find(|c| c.folded == folded) {
            return Err(DeclarationError::FoldAlike { name: param.name, other: other.param.name.clone() });
        }
        check(&param)?;
        declared.push(Compiled { param, folded, of: Vec::new() });
    }
    for index in 0..declared.len() {
        declared[index].of = elements(&declared, &declared[index].param)?;
    }
    Ok(declared)
}

/// A default as its own kind spells it. Loss is refused: a default that is clamped or cut was not meant.
pub(super) fn canonical_default(
    params: &Params,
    index: usize,
    default: String,
) -> Result<String, DeclarationError> {
    let compiled = &params.declared[index];
    let read = match &compiled.param.kind {
        Kind::List { .. } => {
            let reading = list::read(params, compiled, &[&default]);
            reading.value.filter(|_| reading.ignored.is_empty() && !reading.too_many)
        }
        kind => read::settled(kind, &default)
            .ok()
            .filter(|reading| reading.rule.is_none_or(|rule| rule.lossless()))
            .map(|reading| reading.value),
    };
    read.ok_or_else(|| DeclarationError::BadDefault {
        name: compiled.param.name.clone(),
        default,
        expected: compiled.param.kind.expected(),
    })
}

fn check(param: &Param) -> Result<(), DeclarationError> {
    let name = || param.name.clone();
    match &param.kind {
        Kind::Integer { min: Some(min), max: Some(max), .. } if min > max => {
            Err(DeclarationError::MinAboveMax { name: name() })
        }
        Kind::Number { min, max, .. } => match (min, max) {
            _ if [min, max].into_iter().flatten().any(|bound| !bound.is_finite()) => {
                Err(DeclarationError::NotFinite { name: name() })
            }
            (Some(min), Some(max)) if min > max => Err(DeclarationError::MinAboveMax { name: name() }),
            _ => Ok(()),
        },
        Kind::Enum { values } => check_values(param, values),
        Kind::String { max_length: Some(0) } => Err(DeclarationError::NoLength { name: name() }),
        Kind::Phone { country: Some(country), .. }
            if !(1..=3).contains(&country.len())
                || country.starts_with('0')
                || !country.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Err(DeclarationError::BadCountry { name: name(), country: country.clone() })
        }
        Kind::Prefixed { prefix } | Kind::PrefixedUuid { prefix }
            if prefix.is_empty()
                || prefix.len() > 64
                || clean(prefix, Form::Compatible) != *prefix
                || prefix.contains(|c: char| {
                    c.is_whitespace() || list::is_separator(c) || "\"'`{}\u{fffd}".contains(c)
                }) =>
        {
            Err(DeclarationError::BadPrefix { name: name(), prefix: prefix.clone() })
        }
        _ => Ok(()),
    }
}

fn check_values(param: &Param, values: &[String]) -> Result<(), DeclarationError> {
    if values.is_empty() {
        return Err(DeclarationError::EmptyEnum { name: param.name.clone() });
    }
    for (position, value) in values.iter().enumerate() {
        let folded = enumeration::fold(value);
        if folded.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(DeclarationError::BadValue { name: param.name.clone(), value: value.clone() });
        }
        if let Some(other) = values[..position].iter().find(|v| enumeration::fold(v) == folded) {
            return Err(DeclarationError::ValuesAlike {
                name: param.name.clone(),
                value: value.clone(),
                other: other.clone(),
            });
        }
    }
    Ok(())
}

fn elements(declared: &[Compiled], param: &Param) -> Result<Vec<usize>, DeclarationError> {
    let Kind::List { of } = &param.kind else { return Ok(Vec::new()) };
    if of.is_empty() {
        return Err(DeclarationError::NothingInList { name: param.name.clone() });
    }
    let mut positions = Vec::with_capacity(of.len());
    for element in of {
        let Some(index) = declared.iter().position(|c| c.param.name == *element) else {
            return Err(DeclarationError::UnknownInList {
                name: param.name.clone(),
                element: element.clone(),
                nearest: names::nearest(declared, element),
            });
        };
        if matches!(declared[index].param.kind, Kind::List { .. }) {
            return Err(DeclarationError::ListInList { name: param.name.clone(), element: element.clone() });
        }
        if !positions.contains(&index) {
            positions.push(index);
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Bare, Below, OnIgnored, Unknown};
    use super::*;

    fn param(name: &str, kind: Kind) -> Param {
        Param { name: name.into(), kind, default: None, on_ignored: OnIgnored::Ignore, window: false }
    }

    fn defaulted(name: &str, kind: Kind, default: &str) -> Param {
        Param { default: Some(default.into()), ..param(name, kind) }
    }

    fn integer(min: Option<i64>, max: Option<i64>) -> Kind {
        Kind::Integer { min, max, below: Below::Clamp }
    }

    fn list(of: &[&str]) -> Kind {
        Kind::List { of: of.iter().map(|&name| name.into()).collect() }
    }

    fn values(values: &[&str]) -> Kind {
        Kind::Enum { values: values.iter().map(|&value| value.into()).collect() }
    }

    fn text() -> Kind {
        Kind::String { max_length: None }
    }

    fn phone(country: &str) -> Kind {
        Kind::Phone { bare: Bare::International, country: Some(country.into()) }
    }

    fn prefixed(prefix: &str) -> Kind {
        Kind::Prefixed { prefix: prefix.into() }
    }

    fn number(min: f64, max: f64) -> Kind {
        Kind::Number { min: Some(min), max: Some(max), below: Below::Clamp }
    }

    /// What the declaration is told, `""` where it compiles.
    fn told(params: Vec<Param>) -> String {
        Params::new(params, Unknown::Drop).err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn each_mistake_names_its_parameter_and_what_was_expected() {
        let table: Vec<(Vec<Param>, &str)> = vec![
            (vec![], ""),
            ((0..64).map(|n| param(&format!("p{n}"), text())).collect(), ""),
            ((0..65).map(|n| param(&format!("p{n}"), text())).collect(), "65 parameters"),
            (vec![param("", text())], "a letter or digit"),
            (vec![param("_-", text())], "a letter or digit"),
            (
                vec![param("per_page", text()), param("perPage", text())],
                "\"perPage\" folds like \"per_page\"",
            ),
            (vec![param("a", list(&[]))], "at least one parameter"),
            (vec![param("a", list(&["emial"])), param("email", Kind::Email)], "did you mean \"email\"?"),
            (vec![param("a", list(&["b"])), param("b", list(&["a"]))], "\"b\" is a list"),
            (vec![param("a", list(&["a"]))], "\"a\" is a list"),
            (vec![param("a", list(&["b"])), param("b", text())], ""),
            (vec![param("a", integer(Some(2), Some(1)))], "`min` to be at most `max`"),
            (vec![param("a", number(2.0, 1.0))], "`min` to be at most `max`"),
            (vec![param("a", number(f64::NAN, 1.0))], "finite"),
            (vec![param("a", number(0.0, f64::INFINITY))], "finite"),
            (vec![param("a", values(&[]))], "at least one value"),
            (vec![param("a", values(&["x", ""]))], "1 to 4096 bytes"),
            (vec![param("a", values(&["multi_channel", "Multi-Channel"]))], "folds like \"multi_channel\""),
            (vec![param("sort", values(&["date", "-date"]))], ""),
            (vec![param("a", Kind::String { max_length: Some(0) })], "at least 1"),
            (vec![param("a", prefixed(""))], "expected a prefix"),
            (vec![param("a", prefixed("f,"))], "expected a prefix"),
            (vec![param("a", prefixed(" f"))], "expected a prefix"),
            (vec![param("a", prefixed("ﬁd_"))], "expected a prefix"),
            (vec![param("a", phone("+33"))], "calling code"),
            (vec![param("a", phone(""))], "calling code"),
            (vec![param("a", phone("033"))], "calling code"),
            (vec![param("a", phone("33"))], ""),
            (vec![defaulted("a", integer(None, None), "abc")], "default to be an integer, not \"abc\""),
            (vec![defaulted("a", integer(None, None), "2.5")], "default to be an integer, not \"2.5\""),
            (vec![defaulted("a", integer(Some(1), None), "0")], "an integer of at least 1"),
            (vec![defaulted("a", values(&["x", "y"]), "z")], "one of x, y"),
            (
                vec![defaulted("a", list(&["b"]), "x,y"), param("b", Kind::Email)],
                "a comma-separated list of b",
            ),
        ];
        for (params, expected) in table {
            let names: Vec<_> = params.iter().map(|p| p.name.clone()).collect();
            let told = told(params);
            assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{names:?}: {told}");
        }
    }

    #[test]
    fn a_default_is_kept_in_its_canonical_spelling() {
        let params = Params::new(vec![defaulted("a", integer(Some(1), None), "50.0")], Unknown::Drop);
        assert_eq!(params.ok().and_then(|p| p.param(0).and_then(|a| a.default.clone())), Some("50".into()));
    }
}
