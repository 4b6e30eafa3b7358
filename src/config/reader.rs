//! A reader over TOML's tables that knows where everything stands: each key is taken in one place, with its kind and
//! its default, and what nobody took is refused. A mistake is noted and reading goes on, so that one run finds all.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Notes, Wrong, nearest};

/// A table being read. Its keys come in the order they were written in.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// Where mistakes go.
    pub(super) notes: &'a Notes<'a>,
    /// The key it stands at; empty for the whole file.
    pub(super) path: String,
    /// Where it stands.
    pub(super) at: Range<usize>,
    entries: Vec<Entry<'a>>,
    known: Vec<&'static str>,
}

#[derive(Debug)]
struct Entry<'a> {
    key: &'a str,
    at: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
    taken: bool,
}

/// A value being read.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    /// Where mistakes go.
    pub(super) notes: &'a Notes<'a>,
    /// Its whole key.
    pub(super) path: String,
    /// Where it stands.
    pub(super) at: Range<usize>,
    /// Where its key stands.
    key_at: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub(super) fn root(notes: &'a Notes<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(notes, String::new(), 0..0, table)
    }

    fn new(notes: &'a Notes<'a>, path: String, at: Range<usize>, table: &'a DeTable<'a>) -> Self {
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<_>)| {
            let key: &Spanned<std::borrow::Cow<'a, str>> = key;
            Entry { key: key.get_ref(), at: key.span(), value, taken: false }
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at.start);
        Self { notes, path, at, entries, known: Vec::new() }
    }

    /// A table that was not written, for its defaults.
    fn absent(&self, key: &str) -> Self {
        let path = join(&self.path, key);
        Self { notes: self.notes, path, at: self.at.clone(), entries: Vec::new(), known: Vec::new() }
    }

    /// Whether `key` was written, whatever it holds.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// The value of `key`, unread.
    pub(super) fn item(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let path = join(&self.path, key);
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        entry.taken = true;
        Some(Item {
            notes: self.notes,
            path,
            at: entry.value.span(),
            key_at: entry.at.clone(),
            value: entry.value.get_ref(),
        })
    }

    /// The value of `key` as `read` reads it; `None` where it is absent or wrong.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Item<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.item(key)?.read(read)
    }

    /// The value of `key`, or its default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Item<'a>) -> Result<T, Wrong>,
    ) -> T {
        self.take(key, read).unwrap_or(default)
    }

    /// The value of `key`, which must be there.
    pub(super) fn must<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Item<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let item = self.item(key);
        if item.is_none() {
            self.missing(key, expected);
        }
        item?.read(read)
    }

    /// Notes that `key` should be there.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.notes.tell(&self.at, &join(&self.path, key), Wrong::new("is missing", expected));
    }

    /// The table at `key`; one without keys if it is absent or no table.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'a> {
        self.maybe_table(key).unwrap_or_else(|| self.absent(key))
    }

    /// The table at `key`, if it was written.
    pub(super) fn maybe_table(&mut self, key: &'static str) -> Option<Table<'a>> {
        self.take(key, |item| item.table("a table"))
    }

    /// The tables in the table at `key`, such as `[clients.NAME]`, by name.
    pub(super) fn named_tables(&mut self, key: &'static str) -> Vec<(&'a str, Table<'a>)> {
        let expected = format!("tables such as [{}]", join(&self.path, &format!("{key}.NAME")));
        let Some(mut all) = self.take(key, |item| item.table(&expected)) else { return Vec::new() };
        let named = |(name, item): (&'a str, Item<'a>)| {
            let table = item.read(|item| {
                super::values::name(name)?;
                item.table(&expected)
            });
            table.map(|table| (name, table))
        };
        all.rest().into_iter().filter_map(named).collect()
    }

    /// Everything not taken yet, in written order.
    pub(super) fn rest(&mut self) -> Vec<(&'a str, Item<'a>)> {
        let (notes, path) = (self.notes, &self.path);
        let left = self.entries.iter_mut().filter(|entry| !entry.taken);
        left.map(|entry| {
            entry.taken = true;
            let path = join(path, entry.key);
            let (at, key_at) = (entry.value.span(), entry.at.clone());
            (entry.key, Item { notes, path, at, key_at, value: entry.value.get_ref() })
        })
        .collect()
    }

    /// Refuses every key that nobody took.
    pub(super) fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !entry.taken) {
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            let known = known.join(", ");
            let expected = if known.is_empty() { "no key here".into() } else { format!("one of {known}") };
            let near = nearest(entry.key, self.known.iter().copied());
            let path = join(&self.path, entry.key);
            self.notes.tell(&entry.at, &path, Wrong::new("is not a key", expected).near(near));
        }
    }
}

impl<'a> Item<'a> {
    /// As `read` reads it; a mistake is noted here.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Self) -> Result<T, Wrong>) -> Option<T> {
        read(self).map_err(|wrong| self.tell(wrong)).ok()
    }

    /// Notes that this is wrong.
    pub(super) fn tell(&self, wrong: Wrong) {
        self.notes.tell(&self.at, &self.path, wrong);
    }

    /// That it is something else than `expected`.
    pub(super) fn not(&self, expected: &str) -> Wrong {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let wrong = Wrong::new(format!("is {found}"), expected);
        // A string where none belongs may be a secret that was put in the wrong place.
        if self.is_text() { wrong.secret() } else { wrong }
    }

    /// A string.
    pub(super) fn text(&self, expected: &str) -> Result<&'a str, Wrong> {
        self.value.as_str().ok_or_else(|| self.not(expected))
    }

    /// An integer.
    pub(super) fn integer(&self, expected: &str) -> Result<i64, Wrong> {
        let integer = self.value.as_integer().ok_or_else(|| self.not(expected))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| Wrong::new("is an integer of more than 64 bits", expected))
    }

    /// A finite number, with or without a fraction.
    pub(super) fn number(&self, expected: &str) -> Result<f64, Wrong> {
        let text = match self.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return Err(self.not(expected)),
        };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| Wrong::new("is no finite number", expected))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Wrong> {
        self.value.as_bool().ok_or_else(|| self.not("true or false"))
    }

    /// A table.
    pub(super) fn table(&self, expected: &str) -> Result<Table<'a>, Wrong> {
        let table = self.value.as_table().ok_or_else(|| self.not(expected))?;
        // A table that has no header of its own stands where its key does.
        let at = if self.at.is_empty() { self.key_at.clone() } else { self.at.clone() };
        Ok(Table::new(self.notes, self.path.clone(), at, table))
    }

    /// Whether it is a string.
    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// The items of a list, each to be read for itself; their keys count from 1.
    pub(super) fn items(&self, expected: &str) -> Result<Vec<Item<'a>>, Wrong> {
        let list = self.value.as_array().ok_or_else(|| self.not(expected))?;
        let item = |(place, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            notes: self.notes,
            path: format!("{}[{}]", self.path, place + 1),
            at: value.span(),
            key_at: self.key_at.clone(),
            value: value.get_ref(),
        };
        Ok(list.iter().enumerate().map(item).collect())
    }

    /// A list of which each item is read by `read`; wrong ones are noted at their own place.
    pub(super) fn list<T>(
        &self,
        expected: &str,
        read: impl Fn(&Self) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, Wrong> {
        let items = self.items(expected)?;
        let read: Vec<_> = items.iter().filter_map(|item| item.read(&read)).collect();
        if read.len() == items.len() { Ok(read) } else { Err(Wrong::Told) }
    }
}

/// `path.key`, the key quoted where TOML would have it so.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let key = if bare || key.contains(".NAME") { key.into() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
