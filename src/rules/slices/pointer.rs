//! A JSON pointer (RFC 6901), followed through a value without building a tree of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// `/data/items`: the names to follow, unescaped. Without any it points at the whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pointer(Box<[Box<str>]>);

impl Pointer {
    /// Reads `/a/b`; `None` for what does not begin with `/` or has a `~` that escapes nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.strip_prefix('/')?.split('/');
        let names = names.map(|name| {
            let escapes = name.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
            // "first transforming any occurrence of the sequence '~1' to '/', and then … '~0' to '~'" (§4).
            escapes.then(|| name.replace("~1", "/").replace("~0", "~").into_boxed_str())
        });
        names.collect::<Option<_>>().map(Self)
    }

    /// Its names.
    pub fn names(&self) -> &[Box<str>] {
        &self.0
    }

    /// Whether it points at, or into, what `other` points at.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// What it points at in `json`, one value for each way to read it: several where a name stands twice in one object.
    /// None where `json` is not what it should be.
    pub fn follow<'a>(&self, json: &'a str) -> Vec<&'a str> {
        let mut found = vec![json];
        for name in &self.0 {
            let step = |json: &'a str| members_named(json, name);
            found = found.into_iter().flat_map(step).collect();
        }
        found
    }

    /// The id of `item` as bytes that are equal exactly when ids are: a string, or a number as the upstream writes it.
    /// `None` for anything else, and where a name stands twice.
    pub fn id<'a>(&self, item: &'a str) -> Option<Cow<'a, [u8]>> {
        let [value] = self.follow(item)[..] else { return None };
        match value.as_bytes() {
            [b'"', ..] if !value.contains('\\') => Some(Cow::Borrowed(value.as_bytes())),
            // Its quotes stay, so that the string "1" is not the number 1.
            [b'"', ..] => Some(Cow::Owned(format!("\"{}\"", unquoted(value)?).into_bytes())),
            [b'-' | b'0'..=b'9', ..] => Some(Cow::Borrowed(value.as_bytes())),
            _ => None,
        }
    }

    /// Every text that `item` has there: strings and numbers, and those in an array of them.
    pub fn texts(&self, item: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for value in self.follow(item) {
            match serde_json::from_str::<Vec<&RawValue>>(value) {
                Ok(values) => texts.extend(values.iter().filter_map(|value| text(value.get()))),
                Err(_) => texts.extend(text(value)),
            }
        }
        texts
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

fn unquoted(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

fn text(json: &str) -> Option<String> {
    match json.as_bytes() {
        [b'"', ..] => unquoted(json),
        [b'-' | b'0'..=b'9', ..] => Some(json.to_owned()),
        _ => None,
    }
}

/// The members of an object that bear `name`, or the element of an array that it counts to.
fn members_named<'a>(json: &'a str, name: &str) -> Vec<&'a str> {
    serde_json::Deserializer::from_str(json).deserialize_any(Named(name)).unwrap_or_default()
}

struct Named<'n>(&'n str);

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(is_it) = map.next_key_seed(Is(self.0))? {
            if is_it {
                found.push(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // "array-index = %x30 / ( %x31-39 *(%x30-39) )" (RFC 6901 §4): no leading zeros.
        let canonical = self.0 == "0" || !self.0.starts_with(['0', '+']);
        let wanted = self.0.parse::<usize>().ok().filter(|_| canonical);
        let (mut found, mut place) = (Vec::new(), 0);
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(place) == wanted {
                found.push(value.get());
            }
            place += 1;
        }
        Ok(found)
    }
}

/// Whether a key is this one, however it is escaped.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("is a pointer")
    }

    #[test]
    fn pointers_are_written_as_they_are_read() {
        for text in ["/a", "/a/b", "/", "/a~1b/m~0n", "/0", "/é", "//"] {
            assert_eq!(pointer(text).to_string(), text);
        }
        for text in ["", "a", "/~", "/~2", "/a~"] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        assert!(pointer("/a/b").is_within(&pointer("/a")) && !pointer("/ab").is_within(&pointer("/a")));
    }

    #[test]
    fn ids_are_strings_or_numbers() {
        for (at, item, id) in [
            ("/id", r#"{"id": 1}"#, Some("1")),
            ("/id", r#"{"id":"1"}"#, Some("\"1\"")),
            ("/id", r#"{"x":{"id":2},"id":-1.5e3}"#, Some("-1.5e3")),
            ("/id", r#"{"id":"a\u0062"}"#, Some("\"ab\"")),
            ("/id", r#"{"i\u0064":"a"}"#, Some("\"a\"")),
            ("/a/id", r#"{"a":{"id":"x"}}"#, Some("\"x\"")),
            ("/a/1", r#"{"a":[1,2,3]}"#, Some("2")),
            ("/a/01", r#"{"a":[1,2,3]}"#, None),
            ("/id", r#"{"id":1,"id":2}"#, None),
            ("/id", r#"{"id":null}"#, None),
            ("/id", r#"{"id":[1]}"#, None),
            ("/id", r#"{"id":"\ud800"}"#, None),
            ("/id", "{}", None),
            ("/id", "5", None),
            ("/id/x", r#"{"id":1}"#, None),
        ] {
            let found = pointer(at).id(item).map(|id| String::from_utf8_lossy(&id).into_owned());
            assert_eq!(found.as_deref(), id, "{at} {item}");
        }
    }

    #[test]
    fn every_text_is_found_for_tags() {
        for (at, item, texts) in [
            ("/p", r#"{"p":"+33 6"}"#, &["+33 6"][..]),
            ("/p", r#"{"p":["a",1,null,["b"]]}"#, &["a", "1"]),
            ("/p", r#"{"p":"a","p":"b"}"#, &["a", "b"]),
            ("/p", r#"{"p":true}"#, &[]),
        ] {
            assert_eq!(pointer(at).texts(item), texts, "{item}");
        }
    }
}
