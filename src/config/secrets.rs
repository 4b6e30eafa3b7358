//! Secrets: `{ env = "NAME" }`, `{ file = "path" }` or the text itself. Nothing here repeats what it read.

use std::path::{Path, PathBuf};

use http::HeaderValue;

use super::Environment;
use super::mistakes::Wrong;
use super::plan::{Credential, SecretSource};
use super::reader::Item;
use crate::model::secret::Secret;

/// No credential is longer; whoever names a longer file means another one.
const MAX_SECRET_BYTES: usize = 16 << 10;
const EXPECTED: &str = "{ env = \"NAME\" } or { file = \"path\" }";

/// Where a secret will stand, and so which bytes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The value of a header field.
    Header,
    /// The value of a query parameter.
    Query,
    /// What a client presents, as a bearer token or a header field of its own.
    Key,
}

/// A credential, read now.
pub(super) fn credential(
    environment: &dyn Environment,
    place: Place,
) -> impl Fn(&Item<'_>) -> Result<Credential, Wrong> {
    move |item| {
        let (source, at, value) = if item.is_text() {
            (SecretSource::Literal, item.clone(), Ok(Secret::new(item.text(EXPECTED)?.as_bytes().to_vec())))
        } else {
            let (source, at) = source(item)?;
            let value = fetch(&source, environment);
            (source, at, value)
        };
        let checked = value.and_then(|value| check(&value, place).map(|()| value));
        match checked {
            Ok(value) => Ok(Credential { source, value }),
            Err(what) => {
                let expected = match &source {
                    SecretSource::Env(name) => {
                        format!("`{name}` in the environment, or --without-secrets to check without it")
                    }
                    SecretSource::File(_) => "a readable file that holds the secret alone".into(),
                    SecretSource::Literal => EXPECTED.into(),
                };
                let wrong = Wrong::new(what, expected);
                // The name of a variable or a file is no secret; it is told anyway.
                at.tell(if source == SecretSource::Literal { wrong.secret() } else { wrong });
                Err(Wrong::Told)
            }
        }
    }
}

impl Credential {
    /// Reads the secret again, as after a rotation; `None` if it cannot be read or could not be sent. A literal stays
    /// what it is.
    pub fn reload(&self, environment: &dyn Environment, place: Place) -> Option<Secret> {
        let value = match &self.source {
            SecretSource::Literal => self.value.clone(),
            source => fetch(source, environment).ok()?,
        };
        check(&value, place).ok()?;
        Some(value)
    }

    /// Whether it only stands in for a secret that was not read.
    pub(super) fn is_placeholder(&self) -> bool {
        self.source != SecretSource::Literal && self.value == placeholder(&self.source)
    }
}

/// Where the secret of a table comes from, and the item that says so.
fn source<'a>(item: &Item<'a>) -> Result<(SecretSource, Item<'a>), Wrong> {
    let mut table = item.table(EXPECTED).map_err(Wrong::secret)?;
    let (env, file) = (table.item("env"), table.item("file"));
    table.finish();
    match (env, file) {
        (Some(env), None) => {
            let source = env.read(|item| variable(item).map(SecretSource::Env)).ok_or(Wrong::Told)?;
            Ok((source, env))
        }
        (None, Some(file)) => {
            let source = file.read(|item| Ok(SecretSource::File(path(item)?))).ok_or(Wrong::Told)?;
            Ok((source, file))
        }
        (Some(_), Some(_)) => Err(Wrong::new("names two sources", EXPECTED).secret()),
        (None, None) => Err(Wrong::new("names no source", EXPECTED).secret()),
    }
}

/// The name of an environment variable. What does not look like one may be the secret itself and is not repeated.
fn variable(item: &Item<'_>) -> Result<String, Wrong> {
    let expected = "the name of an environment variable, such as \"BILLING_API_KEY\"";
    let name = item.text(expected).map_err(Wrong::secret)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.bytes().all(legal) {
        return Err(Wrong::new("is no name of an environment variable", expected).secret());
    }
    Ok(name.into())
}

/// A path, relative to the working directory.
pub(super) fn path(item: &Item<'_>) -> Result<PathBuf, Wrong> {
    let expected = "the path of a file";
    let path = item.text(expected)?;
    if path.is_empty() || path.contains('\0') {
        Err(Wrong::new("is no path", expected))
    } else {
        Ok(path.into())
    }
}

fn fetch(source: &SecretSource, environment: &dyn Environment) -> Result<Secret, String> {
    if !environment.has_secrets() {
        return Ok(placeholder(source));
    }
    match source {
        SecretSource::Env(name) => {
            let value =
                environment.var(name).ok_or_else(|| format!("environment variable `{name}` is not set"))?;
            Ok(Secret::new(value.into_bytes()))
        }
        SecretSource::File(path) => {
            let mut value = read(path, environment)?;
            // One line's end, as an editor or `echo` leaves it.
            if value.last() == Some(&b'\n') {
                value.pop();
                if value.last() == Some(&b'\r') {
                    value.pop();
                }
            }
            Ok(Secret::new(value))
        }
        SecretSource::Literal => Err("has no source to read from".into()),
    }
}

/// A file's bytes, or why not.
pub(super) fn read(path: &Path, environment: &dyn Environment) -> Result<Vec<u8>, String> {
    environment.read(path).map_err(|error| format!("file `{}` cannot be read: {error}", path.display()))
}

fn check(value: &Secret, place: Place) -> Result<(), String> {
    let bytes = value.expose();
    if value.is_empty() {
        return Err("is empty".into());
    }
    if bytes.len() > MAX_SECRET_BYTES {
        return Err(format!("is longer than {MAX_SECRET_BYTES} bytes"));
    }
    match place {
        Place::Header if HeaderValue::from_bytes(bytes).is_err() => {
            Err("holds a line break or control character, which no header can carry".into())
        }
        Place::Header
            if bytes.first().is_some_and(u8::is_ascii_whitespace)
                || bytes.last().is_some_and(u8::is_ascii_whitespace) =>
        {
            Err("begins or ends with a space, which no header can carry".into())
        }
        Place::Query if std::str::from_utf8(bytes).is_err() || bytes.iter().any(u8::is_ascii_control) => {
            Err("holds a control character or is no text".into())
        }
        Place::Key if !bytes.iter().all(u8::is_ascii_graphic) => {
            Err("holds something else than visible ASCII, which clients could not send".into())
        }
        _ => Ok(()),
    }
}

/// What stands in for a secret that is not to be read: different for different sources, so that none look equal.
fn placeholder(source: &SecretSource) -> Secret {
    let (kind, name) = match source {
        SecretSource::Env(name) => ("env", name.clone()),
        SecretSource::File(path) => ("file", path.display().to_string()),
        SecretSource::Literal => ("literal", String::new()),
    };
    let plain: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("not-read-{kind}-{plain}").into_bytes())
}
