//! Which route serves a path: exact paths first, then the longest prefix. No scan over routes, however many.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;
use http::Method;

use crate::model::exchange::RouteId;
use crate::rules::message::normalized_path;

/// A route's `path`: one path, or with `/*` at its end everything below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Path {
    /// Exactly this path.
    Exact(String),
    /// Every path that begins with this one, which ends with `/`.
    Below(String),
}

impl Path {
    /// Reads `path` as a configuration writes it; `None` if it does not begin with `/`, has a `*` anywhere but at the
    /// end, a query, a fragment, is not written the one way that requests' paths are, or lies under the reserved `/-/`.
    pub fn parse(path: &str) -> Option<Self> {
        let plain = path.starts_with('/')
            && !path.starts_with("/-/")
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'))
            && normalized_path(path).is_ok_and(|written| written == path);
        match path.strip_suffix('*') {
            _ if !plain => None,
            Some(below) if below.ends_with('/') && !below.contains('*') => Some(Self::Below(below.into())),
            None if !path.contains('*') => Some(Self::Exact(path.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Below(path) => write!(f, "{path}*"),
        }
    }
}

/// The methods a route allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// `"all"`: every method but TRACE, which would show what the gate injects, and CONNECT, which asks for a tunnel.
    All,
    /// These.
    List(Vec<Method>),
}

impl Methods {
    /// Whether `method` is allowed.
    pub fn allow(&self, method: &Method) -> bool {
        match self {
            Self::All => !matches!(*method, Method::TRACE | Method::CONNECT),
            Self::List(methods) => methods.contains(method),
        }
    }
}

impl fmt::Display for Methods {
    /// As `Allow` lists them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            Self::List(methods) => {
                let names: Vec<_> = methods.iter().map(Method::as_str).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// All routes by path.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<str>, RouteId, RandomState>,
    below: HashMap<Box<str>, RouteId, RandomState>,
}

impl Routes {
    /// The table of these paths; of equal ones the first counts (configuration refuses the second).
    pub fn new(paths: impl IntoIterator<Item = (Path, RouteId)>) -> Self {
        let mut routes = Self::default();
        for (path, route) in paths {
            match path {
                Path::Exact(path) => routes.exact.entry(path.into()).or_insert(route),
                Path::Below(path) => routes.below.entry(path.into()).or_insert(route),
            };
        }
        routes
    }

    /// The route that serves `path`. One look-up for an exact path, one for each `/` of a deeper one.
    pub fn find(&self, path: &str) -> Option<RouteId> {
        if let Some(route) = self.exact.get(path) {
            return Some(*route);
        }
        if self.below.is_empty() {
            return None;
        }
        path.rmatch_indices('/').find_map(|(at, _)| self.below.get(&path[..=at]).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_or_refused() {
        for (path, read) in [
            ("/a", Some(Path::Exact("/a".into()))),
            ("/", Some(Path::Exact("/".into()))),
            ("/a/*", Some(Path::Below("/a/".into()))),
            ("/*", Some(Path::Below("/".into()))),
            ("a", None),
            ("/a*", None),
            ("/*/a", None),
            ("/a?b", None),
            ("/-/explain", None),
            ("/a b", None),
        ] {
            assert_eq!(Path::parse(path), read, "{path}");
        }
    }

    #[test]
    fn the_exact_path_wins_then_the_longest_prefix() {
        let paths = ["/a/b", "/a/*", "/a/b/*", "/*"];
        let routes = Routes::new(
            (0..).zip(paths).map(|(at, path)| (Path::parse(path).expect("is a path"), RouteId(at))),
        );
        for (path, found) in
            [("/a/b", 0), ("/a/c", 1), ("/a/", 1), ("/a/b/c/d", 2), ("/a/b/", 2), ("/x", 3), ("/a", 3)]
        {
            assert_eq!(routes.find(path), Some(RouteId(found)), "{path}");
        }
        assert_eq!(Routes::new([(Path::Exact("/a".into()), RouteId(0))]).find("/a/"), None);
    }
}
