//! Under which keys a resource of an upstream may be held: what an unsafe request invalidates (RFC 9111 §4.4).

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap};
use http::uri::{Authority, Scheme};

use super::understanding::Reading;
use crate::model::entry::Group;
use crate::model::exchange::RouteId;
use crate::model::key::Key;

/// A route, as far as it says which resources it serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its upstream's scheme.
    pub scheme: Scheme,
    /// Its upstream's host and port.
    pub authority: Authority,
    /// How it reads requests, hence which keys it makes.
    pub reading: Reading,
}

/// Every route, by place.
#[derive(Debug, Default)]
pub struct Addresses(pub Vec<Served>);

/// "methods … defined as safe: GET, HEAD, OPTIONS, and TRACE" (RFC 9110 §9.2.1); a method unknown here is not.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

impl Addresses {
    /// The keys that an unsafe request for `target` on `route`, answered with `said`, invalidates: "the target URI",
    /// and "the URIs in any Location and Content-Location … header fields" of the same origin (RFC 9111 §4.4). Other
    /// routes of the upstream may hold them too.
    pub fn invalidated(&self, route: RouteId, target: &str, said: &HeaderMap) -> Vec<Key> {
        let Some(place) = self.0.get(route.place()) else { return Vec::new() };
        let locations = [header::LOCATION, header::CONTENT_LOCATION];
        let locations = locations.iter().filter_map(|name| said.get(name)?.to_str().ok());
        let mut targets = vec![target.to_owned()];
        targets.extend(locations.filter_map(|location| place.resolve(target, location)));
        targets.iter().flat_map(|target| self.keys(place, target)).collect()
    }

    /// The groups of an answer by what was asked.
    pub fn groups(&self, route: RouteId, target: &str) -> Vec<Group> {
        self.0.get(route.place()).map_or(Vec::new(), |place| place.reading.groups(target))
    }

    /// The groups that the items of an answer belong to.
    pub fn item_groups(&self, route: RouteId, body: &Bytes) -> Vec<Group> {
        self.0.get(route.place()).map_or(Vec::new(), |place| place.reading.item_groups(body))
    }

    /// The upstream's name on `route`: groups of responses are its own.
    pub fn origin(&self, route: RouteId) -> &[u8] {
        self.0.get(route.place()).map_or(&[], |place| &place.reading.scope[0])
    }

    /// Whether `location` is the target itself: "a Content-Location header field that has the same value as the POST's
    /// target URI" (RFC 9110 §9.3.3).
    pub fn is_same(&self, route: RouteId, target: &str, location: &str) -> bool {
        let place = self.0.get(route.place());
        place.and_then(|place| place.resolve(target, location)).is_some_and(|resolved| resolved == target)
    }

    fn keys<'a>(&'a self, of: &'a Served, target: &str) -> impl Iterator<Item = Key> + use<'a> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        self.0
            .iter()
            .filter(|place| place.scheme == of.scheme && place.authority == of.authority)
            .filter_map(move |place| Some(place.reading.read(&place.reading.path_of(&path)?, &query).0))
            // A window that changed is part of a collection that did.
            .flat_map(|question| std::iter::once(question.key).chain(question.collection))
    }
}

impl Served {
    /// The path and query of `location`, seen from `target`; `None` where it names another origin.
    fn resolve(&self, target: &str, location: &str) -> Option<String> {
        let location = location.split('#').next()?.trim();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        if let Some((scheme, rest)) = location.split_once("://") {
            let same = scheme.eq_ignore_ascii_case(self.scheme.as_str());
            return self.of_authority(rest).filter(|_| same);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return self.of_authority(rest);
        }
        Some(match location.bytes().next() {
            None => query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
            Some(b'/') => without_dots(location),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => {
                let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
                without_dots(&format!("{folder}{location}"))
            }
        })
    }

    fn of_authority(&self, rest: &str) -> Option<String> {
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let port = |text: &str| text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let standard = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = |text: &str| match port(text) {
            Some(port) if port == standard => {
                text.rsplit_once(':').map(|(host, _)| host.to_ascii_lowercase())
            }
            _ => Some(text.to_ascii_lowercase()),
        };
        let same = host(authority) == host(self.authority.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        same.then(|| without_dots(&format!("{slash}{path}")))
    }
}

/// Removes dot segments (RFC 3986 §5.2.4) from a path with its query.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                if kept.len() > 1 {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let path = kept.join("/");
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::rules::routes::Path;

    fn place(path: &str, base: &str) -> Served {
        Served {
            scheme: Scheme::HTTP,
            authority: Authority::from_static("api.test"),
            reading: Reading {
                scope: ["u".into(), "a".into(), path.into()],
                path: Path::parse(path).expect("is a path"),
                base_path: base.into(),
                upstream_path: None,
                params: None,
                items: std::sync::Arc::default(),
                window: None,
                credentials: Vec::new(),
            },
        }
    }

    #[test]
    fn locations_are_resolved_within_their_origin() {
        let place = place("/*", "");
        for (location, resolved) in [
            ("", Some("/a/b?x=1")),
            ("/c", Some("/c")),
            ("c", Some("/a/c")),
            ("../c?y=2#z", Some("/c?y=2")),
            ("./", Some("/a/")),
            ("?y", Some("/a/b?y")),
            ("http://api.test/c", Some("/c")),
            ("HTTP://API.test:80", Some("/")),
            ("//api.test/c", Some("/c")),
            ("http://other.test/c", None),
            ("https://api.test/c", None),
            ("//other.test", None),
        ] {
            assert_eq!(place.resolve("/a/b?x=1", location).as_deref(), resolved, "{location}");
        }
    }

    #[test]
    fn every_route_of_the_upstream_forgets() {
        let addresses = Addresses(vec![place("/*", "/v1"), place("/a", "/v1"), place("/b", "/v1")]);
        let said = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static("/v1/b"))]);
        let keys = addresses.invalidated(RouteId(0), "/v1/a?y=2&x=1", &said);
        let key = |at: usize, path: &str, query: &str| addresses.0[at].reading.read(path, query).0.key;
        assert_eq!(
            keys,
            [key(0, "/a", "x=1&y=2"), key(1, "/a", "x=1&y=2"), key(0, "/b", ""), key(2, "/b", "")]
        );
    }
}
