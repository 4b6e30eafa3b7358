//! `[routes.params]`: what may be asked, each parameter with its type.

use super::mistakes::{Wrong, nearest};
use super::reader::{Item, Table};
use super::values;
use crate::rules::params::{Bare, Below, DeclarationError, Kind, OnIgnored, Param, Params, Unknown};

/// A parameter as written, with the place to complain at.
struct Declared<'a> {
    item: Item<'a>,
    param: Param,
}

/// What `[routes.params]` came to.
pub(super) struct Declaration {
    pub(super) params: Params,
    /// Names that were written with a mistake, told of already.
    unread: Vec<String>,
}

/// The parameters in written order. `windows` are the names of those that say page and size.
pub(super) fn read(mut table: Table<'_>, unknown: Unknown, windows: &[&str]) -> Declaration {
    let mut declared = Vec::new();
    let mut unread = Vec::new();
    for (name, item) in table.rest() {
        match item.read(|item| param(name, item, windows.contains(&name))) {
            Some(param) => declared.push(Declared { item, param }),
            None => unread.push(name.to_owned()),
        }
    }
    compile(declared, unread, unknown, &table)
}

/// Compiles the parameters; each that cannot be meant is told of and taken out, until the rest can.
fn compile(
    mut declared: Vec<Declared<'_>>,
    mut unread: Vec<String>,
    unknown: Unknown,
    table: &Table<'_>,
) -> Declaration {
    loop {
        let params: Vec<_> = declared.iter().map(|declared| declared.param.clone()).collect();
        let error = match Params::new(params, unknown) {
            Ok(params) => return Declaration { params, unread },
            Err(error) => error,
        };
        let name = culprit(&error);
        let found = name.and_then(|name| declared.iter().position(|declared| declared.param.name == name));
        let Some(place) = found else {
            table.notes.tell(&table.at, &table.path, Wrong::new(error.to_string(), ""));
            declared.clear();
            continue;
        };
        if let DeclarationError::UnknownInList { element, .. } = &error {
            // Told of already where it stands, it is no mistake of the list; either way the rest of the list is read on.
            if !unread.contains(element) {
                declared[place].item.tell(Wrong::new(error.to_string(), ""));
            }
            if let Kind::List { of } = &mut declared[place].param.kind {
                of.retain(|name| name != element);
                if !of.is_empty() {
                    continue;
                }
            }
        } else {
            declared[place].item.tell(Wrong::new(error.to_string(), ""));
        }
        unread.push(declared.remove(place).param.name);
    }
}

/// The parameter an error is about.
fn culprit(error: &DeclarationError) -> Option<&str> {
    use DeclarationError as E;
    match error {
        E::TooMany { .. } => None,
        E::EmptyName { name }
        | E::FoldAlike { name, .. }
        | E::NothingInList { name }
        | E::UnknownInList { name, .. }
        | E::ListInList { name, .. }
        | E::MinAboveMax { name }
        | E::NotFinite { name }
        | E::EmptyEnum { name }
        | E::BadValue { name, .. }
        | E::ValuesAlike { name, .. }
        | E::NoLength { name }
        | E::BadPrefix { name, .. }
        | E::BadCountry { name, .. }
        | E::BadDefault { name, .. } => Some(name),
    }
}

const TYPES: [&str; 12] = [
    "integer",
    "number",
    "boolean",
    "enum",
    "datetime",
    "string",
    "uuid",
    "phone",
    "email",
    "prefixed",
    "prefixed_uuid",
    "list",
];

fn param(name: &str, item: &Item<'_>, window: bool) -> Result<Param, Wrong> {
    if item.is_text() {
        let kind = plain_kind(type_name(item)?)?;
        return Ok(Param { name: name.into(), kind, default: None, on_ignored: OnIgnored::Ignore, window });
    }
    let mut table = item.table("a type such as \"phone\", or { type = \"integer\", default = 1 }")?;
    let kind = table.must("type", &format!("one of {}", TYPES.join(", ")), type_name).ok_or(Wrong::Told)?;
    let kind = full_kind(kind, &mut table);
    let words = [("ignore", OnIgnored::Ignore), ("refuse", OnIgnored::Refuse)];
    let on_ignored = table.or("on_ignored", OnIgnored::Ignore, values::word(&words));
    let default_item = table.item("default");
    let default = default_item.as_ref().map(|item| item.read(default));
    table.finish();
    match (kind, default) {
        (Some(kind), None) => Ok(Param { name: name.into(), kind, default: None, on_ignored, window }),
        (Some(kind), Some(Some(default))) => {
            Ok(Param { name: name.into(), kind, default: Some(default), on_ignored, window })
        }
        _ => Err(Wrong::Told),
    }
}

fn type_name<'a>(item: &Item<'a>) -> Result<&'a str, Wrong> {
    let expected = format!("one of {}", TYPES.join(", "));
    let text = item.text(&expected)?;
    if TYPES.contains(&text) {
        return Ok(text);
    }
    Err(Wrong::new(format!("{} is no type", values::quoted(text)), expected).near(nearest(text, TYPES)))
}

/// A type that says everything by its name.
fn plain_kind(name: &str) -> Result<Kind, Wrong> {
    let needs = |expected: &str| Err(Wrong::new(format!("type {name} needs more than its name"), expected));
    Ok(match name {
        "integer" => Kind::Integer { min: None, max: None, below: Below::Clamp },
        "number" => Kind::Number { min: None, max: None, below: Below::Clamp },
        "boolean" => Kind::Boolean,
        "datetime" => Kind::Datetime,
        "uuid" => Kind::Uuid,
        "phone" => Kind::Phone { bare: Bare::International, country: None },
        "email" => Kind::Email,
        "enum" => return needs("{ type = \"enum\", values = [\"a\", \"b\"] }"),
        "prefixed" => return needs("{ type = \"prefixed\", prefix = \"fid_\" }"),
        "prefixed_uuid" => return needs("{ type = \"prefixed_uuid\", prefix = \"cid_\" }"),
        "list" => return needs("{ type = \"list\", of = [\"email\", \"phone_number\"] }"),
        _ => Kind::String { max_length: None },
    })
}

/// A type with its keys.
fn full_kind(name: &str, table: &mut Table<'_>) -> Option<Kind> {
    let bounds = [("clamp", Below::Clamp), ("default", Below::Default)];
    Some(match name {
        "integer" => Kind::Integer {
            min: table.take("min", |item| item.integer("an integer")),
            max: table.take("max", |item| item.integer("an integer")),
            below: table.or("below", Below::Clamp, values::word(&bounds)),
        },
        "number" => Kind::Number {
            min: table.take("min", |item| item.number("a number")),
            max: table.take("max", |item| item.number("a number")),
            below: table.or("below", Below::Clamp, values::word(&bounds)),
        },
        "enum" => Kind::Enum {
            values: table.must("values", "a list of spellings", |item| texts(item, "a spelling"))?,
        },
        "string" => Kind::String { max_length: table.take("max_length", values::count(1..=4_096)) },
        "phone" => {
            let words = [("international", Bare::International), ("keep", Bare::Keep)];
            Kind::Phone {
                bare: table.or("bare", Bare::International, values::word(&words)),
                country: table
                    .take("country", |item| item.text("a calling code such as \"33\"").map(Into::into)),
            }
        }
        "prefixed" => Kind::Prefixed { prefix: prefix(table)? },
        "prefixed_uuid" => Kind::PrefixedUuid { prefix: prefix(table)? },
        "list" => {
            let expected = "a list of parameter names";
            Kind::List { of: table.must("of", expected, |item| texts(item, "the name of a parameter"))? }
        }
        name => plain_kind(name).ok()?,
    })
}

fn prefix(table: &mut Table<'_>) -> Option<String> {
    let expected = "what every value begins with, such as \"fid_\"";
    table.must("prefix", expected, |item| item.text(expected).map(Into::into))
}

fn texts(item: &Item<'_>, expected: &str) -> Result<Vec<String>, Wrong> {
    item.list(&format!("a list of strings, each {expected}"), |item| item.text(expected).map(Into::into))
}

/// A default, in TOML's own type or as text.
fn default(item: &Item<'_>) -> Result<String, Wrong> {
    let expected = "a value of the parameter's type";
    if item.is_text() {
        return item.text(expected).map(Into::into);
    }
    let integer = item.integer(expected).map(|integer| integer.to_string());
    let number = integer.or_else(|_| item.number(expected).map(|number| number.to_string()));
    number.or_else(|_| item.boolean().map(|boolean| boolean.to_string())).map_err(|_| item.not(expected))
}

/// The name of a declared parameter.
pub(super) fn declared(item: &Item<'_>, declaration: Option<&Declaration>) -> Result<String, Wrong> {
    let expected = "the name of a parameter in [routes.params]";
    let name = item.text(expected)?;
    if declaration.is_some_and(|declaration| declaration.unread.iter().any(|unread| unread == name)) {
        return Err(Wrong::Told);
    }
    let names: Vec<_> =
        declaration.map(|declaration| declaration.params.names().collect()).unwrap_or_default();
    if names.contains(&name) {
        return Ok(name.into());
    }
    let what = format!("parameter {} is not declared", values::quoted(name));
    Err(Wrong::new(what, expected).near(nearest(name, names)))
}
