//! What an operator erases by hand, exactly: everything held for one request, for one value of a parameter, or of one
//! group (`Cache-Groups`, `Surrogate-Key`). Calls under way bring none of it back.

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::config::plan::Plan;
use crate::explain;
use crate::model::exchange::RouteId;
use crate::model::{Key, Moment};
use crate::provision::reading;
use crate::rules::groups;
use crate::rules::routes::Routes;
use crate::state::store::Store;

/// What is to be erased.
#[derive(Debug, PartialEq)]
pub enum Purge {
    /// Whatever is held under these keys, every variant and part of it: a question's, and its collection's.
    Keys(Vec<Key>),
    /// Whatever belongs to one of these groups.
    Groups(Vec<Bytes>),
}

/// How a purge is asked for.
const USAGE: &str = "say what to purge: /purge?request=GET%20/path%3Fa%3D1, /purge?tag=PARAMETER%3DVALUE or /purge?group=NAME";

impl Purge {
    /// Reads the query of `POST /purge`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(plan: &Plan, query: &str) -> Result<Self, String> {
        let (what, value) = query.split_once('=').filter(|(_, value)| !value.contains('&')).ok_or(USAGE)?;
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8_lossy();
        match what {
            "request" => Self::request(plan, &value),
            "tag" => Self::tag(plan, &value),
            "group" => {
                let group = |upstream: &str| groups::scoped(upstream.as_bytes(), value.as_bytes());
                Ok(Self::Groups(plan.upstreams.iter().map(|upstream| group(&upstream.name)).collect()))
            }
            _ => Err(USAGE.into()),
        }
    }

    /// Erases it from `store` at `now`; how many entries went.
    pub fn run(&self, store: &Store, now: Moment) -> usize {
        match self {
            Self::Keys(keys) => keys.iter().map(|key| store.remove(key, now)).sum(),
            Self::Groups(groups) => groups.iter().map(|group| store.remove_group(group, now)).sum(),
        }
    }

    fn request(plan: &Plan, request: &str) -> Result<Self, String> {
        let (_, uri) = explain::parse(request)?;
        let routes = plan.routes.iter().zip(0..).map(|(route, at)| (route.path.clone(), RouteId(at)));
        let found = Routes::new(routes).find(uri.path()).and_then(|at| plan.routes.get(at.place()));
        let route = found.ok_or("no route has this path")?;
        let (question, _) = reading(plan, route).read(uri.path(), uri.query().unwrap_or_default());
        Ok(Self::Keys(std::iter::once(question.key).chain(question.collection).collect()))
    }

    /// `NAME=VALUE`, read as each route that declares the parameter reads it.
    fn tag(plan: &Plan, tag: &str) -> Result<Self, String> {
        let (name, value) = tag.split_once('=').ok_or(USAGE)?;
        let encoded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let query = format!("{}={}", encoded(name), encoded(value));
        let groups: Vec<Bytes> = plan
            .routes
            .iter()
            .filter(|route| route.params.as_ref().is_some_and(|params| params.get(name).is_some()))
            .flat_map(|route| {
                let reading = reading(plan, route);
                let (question, _) = reading.read(&route.path.to_string(), &query);
                reading.tags(&question.target)
            })
            .collect();
        if groups.is_empty() {
            return Err(format!("no route has a parameter {name} that understands this value"));
        }
        Ok(Self::Groups(groups))
    }
}
