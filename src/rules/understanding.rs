//! What a request on a route means: its path and query turned into the one canonical question, and its key.
//!
//! The same function serves a request and `explain`, so that what is explained is what happens.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::model::entry::Group;
use crate::model::exchange::{Changes, Question, Window};
use crate::model::fields::named;
use crate::model::key::Key;
use crate::rules::groups;
use crate::rules::headers::looks_like;
use crate::rules::params::{Params, Rule, Understood, capped, sorted_by_name};
use crate::rules::routes::Path;
use crate::rules::slices::{Pointer, Shape, address};

// Names made once: looking a field up by text reads the text again each time.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const TIMEOUT: HeaderName = HeaderName::from_static("tollgate-timeout");

/// RFC 3986's unreserved characters stay as they are.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a route's answers name whom they are about.
#[derive(Debug, Clone, Default)]
pub struct Items {
    /// What its answers look like; `None`: an array is a list of items, and whatever else is one item.
    pub shape: Option<Shape>,
    /// Where an item names somebody, and the parameter that would ask for them.
    pub tags: Vec<(Pointer, String)>,
}

/// How a route reads its requests.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The upstream's name, the account's, and a digest of the rules that give requests their meaning: part of every
    /// key.
    pub scope: [Vec<u8>; 3],
    /// Which paths the route serves.
    pub path: Path,
    /// What stands before every path at the upstream.
    pub base_path: String,
    /// The path asked of the upstream in place of the request's own.
    pub upstream_path: Option<String>,
    /// How parameters are understood; `None`: the query passes, sorted by name.
    pub params: Option<Arc<Params>>,
    /// Where items name whom they are about.
    pub items: Arc<Items>,
    /// Which parameters say page and size.
    pub window: Option<(usize, usize)>,
    /// Query names that carry credentials: a client's copies go.
    pub credentials: Vec<String>,
}

impl Reading {
    /// Reads a path that the route serves and its query.
    pub fn read(&self, path: &str, query: &str) -> (Question, Option<Understood>) {
        let query = self.without_credentials(query);
        let understood = self.params.as_ref().map(|params| params.understand(&query));
        let canonical = match &understood {
            Some(understood) => Cow::Borrowed(understood.query.as_str()),
            None => Cow::Owned(sorted_by_name(&query)),
        };
        let mut target = String::with_capacity(self.base_path.len() + path.len() + canonical.len() + 1);
        target.push_str(&self.base_path);
        match (&self.upstream_path, &self.path) {
            (Some(replacement), Path::Exact(_)) => target.push_str(replacement),
            (Some(replacement), Path::Below(prefix)) => {
                target.push_str(replacement);
                target.push_str(path.strip_prefix(prefix.as_str()).unwrap_or_default());
            }
            (None, _) => target.push_str(path),
        }
        if !canonical.is_empty() {
            target.push('?');
            target.push_str(&canonical);
        }
        let window = self.window(understood.as_ref());
        let question = Question {
            key: self.key(&target),
            changes: self.changes(understood.as_ref()),
            collection: window.and_then(|_| self.collection(&target)),
            window,
            spelling: None,
        };
        (question, understood)
    }

    /// The question for another window of the same collection.
    pub fn with_window(&self, question: &Question, window: Window) -> Option<Question> {
        let (page, size) = self.window_names()?;
        let (path, query) = question.target().split_once('?')?;
        let target = format!("{path}?{}", address::with_window(query, (&page, &size), window));
        Some(Question {
            key: self.key(&target),
            changes: None,
            window: Some(window),
            collection: question.collection.clone(),
            spelling: None,
        })
    }

    /// The names of the parameters that say page and size, as a query writes them.
    pub fn window_names(&self) -> Option<(String, String)> {
        let (params, (page, size)) = (self.params.as_ref()?, self.window?);
        let name = |at| Some(percent_encode(params.param(at)?.name.as_bytes(), UNRESERVED).to_string());
        Some((name(page)?, name(size)?))
    }

    /// The value of `Tollgate-Understood` for a window whose size, `from`, was cut to what the upstream gives at once.
    pub fn capped(&self, from: u64) -> Option<HeaderValue> {
        let (_, size) = self.window?;
        capped(&self.params.as_ref()?.param(size)?.name, from)?.try_into().ok()
    }

    fn key(&self, target: &str) -> Key {
        Key::from_parts(self.scope.iter().map(Vec::as_slice).chain([target.as_bytes()]))
    }

    /// The key of all windows of `target` alike. No target is made of two parts, so it is no other question's.
    fn collection(&self, target: &str) -> Option<Key> {
        let (page, size) = self.window_names()?;
        let (path, query) = target.split_once('?')?;
        let is_window = |pair: &&str| pair.split('=').next().is_some_and(|name| name == page || name == size);
        let others = query.split('&').filter(|pair| !is_window(pair));
        let scope = self.scope.iter().map(Vec::as_slice);
        Some(Key::from_parts(scope.chain([path.as_bytes(), b"*"]).chain(others.map(str::as_bytes))))
    }

    /// The groups that an answer to `target` belongs to by what was asked: one for each parameter that was understood,
    /// page and size aside. Without declared parameters nothing is known of a query.
    pub fn groups(&self, target: &str) -> Vec<Group> {
        let (Some(params), Some((_, query))) = (&self.params, target.split_once('?')) else {
            return Vec::new();
        };
        let places = self.window.map_or([None, None], |(page, size)| [Some(page), Some(size)]);
        let windows: Vec<&str> = places.iter().flatten().filter_map(|at| params.names().nth(*at)).collect();
        let is_window = |pair: &&str| pair.split('=').next().is_some_and(|name| windows.contains(&name));
        let pairs = query.split('&').filter(|pair| !is_window(pair));
        pairs.map(|pair| self.group(pair)).collect()
    }

    /// The groups that the items of `body` belong to: what they name is read as a parameter that asks for it would be.
    pub fn item_groups(&self, body: &Bytes) -> Vec<Group> {
        let Some(params) = self.params.as_ref().filter(|_| !self.items.tags.is_empty()) else {
            return Vec::new();
        };
        let shape = self.items.shape.clone().unwrap_or_default();
        let block = shape.scan(body).or_else(|_| Shape::default().scan(body));
        let whole = || std::str::from_utf8(body).ok();
        let items: Vec<&str> = match &block {
            Ok(block) => (0..block.len()).map(|at| block.item(at)).collect(),
            Err(_) => whole().into_iter().collect(),
        };
        let (mut texts, mut groups) = (HashSet::new(), Vec::new());
        for item in items {
            for (pointer, name) in &self.items.tags {
                for text in pointer.texts(item) {
                    // Most items of a list are about few.
                    if texts.insert((name.as_str(), text.clone())) {
                        let encoded = |text: &str| percent_encode(text.as_bytes(), UNRESERVED).to_string();
                        let understood = params.understand(&format!("{}={}", encoded(name), encoded(&text)));
                        let own = format!("{}=", encoded(name));
                        let pair = understood.query.split('&').find(|pair| pair.starts_with(&own));
                        groups.extend(pair.map(|pair| self.group(pair)));
                    }
                }
            }
        }
        groups
    }

    /// The group of what one parameter asks for, as the canonical query writes it.
    fn group(&self, pair: &str) -> Group {
        groups::named(&self.scope[0], format!("?{pair}").as_bytes())
    }

    /// The path under which the gate serves what lies at `path` of the upstream, if this route does.
    pub fn path_of(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.base_path.as_str())?;
        match (&self.upstream_path, &self.path) {
            (Some(replacement), Path::Exact(own)) => (rest == replacement).then(|| own.clone()),
            (Some(replacement), Path::Below(prefix)) => {
                Some(format!("{prefix}{}", rest.strip_prefix(replacement.as_str())?))
            }
            (None, Path::Exact(own)) => (rest == own).then(|| own.clone()),
            (None, Path::Below(prefix)) => rest.starts_with(prefix.as_str()).then(|| rest.to_owned()),
        }
    }

    fn without_credentials<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let carries = |pair: &str| {
            let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
            let name = percent_decode_str(&name).decode_utf8_lossy();
            // Some servers read `token[]` and `token[0]` as lists of the same name.
            let name = name.split('[').next().unwrap_or_default().trim();
            self.credentials.iter().any(|credential| looks_like(name, credential))
        };
        // To some servers a `;` separates as `&` does. To the others it is part of a value, which it stays when encoded.
        let hides = |pair: &str| pair.contains(';') && pair.split(';').any(carries);
        if self.credentials.is_empty() || !query.split('&').any(|pair| carries(pair) || hides(pair)) {
            return Cow::Borrowed(query);
        }
        let kept = query.split('&').filter(|pair| !carries(pair));
        let plain =
            kept.map(|pair| if hides(pair) { pair.replace(';', "%3B").into() } else { Cow::from(pair) });
        Cow::Owned(plain.collect::<Vec<_>>().join("&"))
    }

    fn changes(&self, understood: Option<&Understood>) -> Option<Box<Changes>> {
        let (params, understood) = (self.params.as_ref()?, understood?);
        let told = understood.header(params).and_then(|told| HeaderValue::try_from(told).ok());
        let counted = counted(understood);
        (told.is_some() || !counted.is_empty()).then(|| Box::new(Changes { told, counted }))
    }

    fn window(&self, understood: Option<&Understood>) -> Option<Window> {
        let ((page, size), values) = (self.window?, &understood?.values);
        let number = |at: usize| values.get(at)?.as_ref()?.parse().ok();
        Some(Window { page: number(page)?, size: number(size)? })
    }
}

fn counted(understood: &Understood) -> Vec<(u16, &'static str)> {
    let changes = understood.changes.iter();
    changes
        .filter_map(|change| Some((u16::try_from(change.param).ok()?, change.rule.as_str())))
        // No declared parameter has this place: it counts as `unknown`.
        .chain((understood.unknown > 0).then_some((u16::MAX, Rule::Unknown.as_str())))
        .collect()
}

/// Whether `Prefer: handling=strict` asks to be refused rather than guessed at (RFC 7240 §4.4). Of several the first
/// counts (§2).
pub fn prefers_strict(headers: &HeaderMap) -> bool {
    named(headers, PREFER)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("handling").then(|| value.eq_ignore_ascii_case("strict"))
        })
        .unwrap_or_default()
}

/// The client's patience as `Tollgate-Timeout` states it, in seconds: `2.5`. What is no such number is ignored.
pub fn stated_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = named(headers, TIMEOUT).next()?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(path: &str, upstream_path: Option<&str>) -> Reading {
        Reading {
            scope: ["u".into(), "a".into(), Vec::new()],
            path: Path::parse(path).expect("is a path"),
            base_path: "/v1".into(),
            upstream_path: upstream_path.map(Into::into),
            params: None,
            items: Arc::default(),
            window: None,
            credentials: vec!["api_key".into()],
        }
    }

    #[test]
    fn paths_are_mapped_and_queries_sorted() {
        for (route, replaced, path, query, target) in [
            ("/a", None, "/a", "", "/v1/a"),
            ("/a", Some("/x"), "/a", "b=1", "/v1/x?b=1"),
            ("/a/*", None, "/a/b/c", "", "/v1/a/b/c"),
            ("/a/*", Some("/x/"), "/a/b/c", "", "/v1/x/b/c"),
            ("/a", None, "/a", "b=2&a=1&b=1&&c", "/v1/a?a=1&b=2&b=1&c"),
            ("/a", None, "/a", "api_key=mine&b=1", "/v1/a?b=1"),
            ("/a", None, "/a", "API%2Dkey=mine&%61pi_key", "/v1/a"),
            ("/a", None, "/a", "api_key[]=mine&api_key%5B0%5D=mine&+api_key=mine", "/v1/a"),
            ("/a", None, "/a", "b=1;api_key=mine&c=1;d", "/v1/a?b=1%3Bapi_key=mine&c=1;d"),
            ("/a", None, "/a", "api_key;b=1&api_keys=1", "/v1/a?api_key%3Bb=1&api_keys=1"),
        ] {
            let (question, _) = reading(route, replaced).read(path, query);
            assert_eq!(question.target(), target, "{route} {path}?{query}");
        }
    }

    #[test]
    fn keys_tell_accounts_apart() {
        let (one, mut other) = (reading("/a", None), reading("/a", None));
        other.scope[1] = "b".into();
        assert_eq!(one.read("/a", "x=1").0.key, one.read("/a", "x=1&api_key=k").0.key);
        assert_ne!(one.read("/a", "x=1").0.key, other.read("/a", "x=1").0.key);
    }

    #[test]
    fn preferences_and_patience_are_read() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        for (value, strict) in [
            ("handling=strict", true),
            ("respond-async, Handling=\"strict\"; x=1", true),
            ("handling=lenient, handling=strict", false),
            ("strict", false),
        ] {
            assert_eq!(prefers_strict(&headers("prefer", value)), strict, "{value}");
        }
        for (value, seconds) in
            [("2.5", Some(2.5)), (" 0 ", Some(0.0)), ("-1", None), ("inf", None), ("soon", None)]
        {
            let timeout = stated_timeout(&headers("tollgate-timeout", value));
            assert_eq!(timeout, seconds.map(Duration::from_secs_f64), "{value}");
        }
    }
}
