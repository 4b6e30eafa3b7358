//! What an operator erases by hand, exactly: everything held for one request, for one value of a parameter, or of one
//! group (`Cache-Groups`, `Surrogate-Key`). Calls under way bring none of it back.

use percent_encoding::percent_decode_str;

use crate::config::plan::Plan;
use crate::explain;
use crate::model::entry::Group;
use crate::model::exchange::RouteId;
use crate::model::{Key, Moment};
use crate::provision::reading;
use crate::rules::groups;
use crate::rules::routes::Routes;
use crate::state::store::Store;

/// What an operator wants gone.
#[derive(Debug, PartialEq)]
pub struct Purge {
    /// Which entries.
    pub which: Which,
    /// Their freshness ends and they stay: to be asked about, and given where something stale may be.
    pub soft: bool,
}

/// Which entries are to go.
#[derive(Debug, PartialEq)]
pub enum Which {
    /// Whatever is held under these keys, every variant and part of it: a question's, and its collection's.
    Keys(Vec<Key>),
    /// Whatever belongs to one of these groups.
    Groups(Vec<Group>),
}

/// How a purge is asked for.
const USAGE: &str = "say what to purge: /purge?request=GET%20/path%3Fa%3D1, /purge?tag=PARAMETER%3DVALUE or /purge?group=NAME; /purge?soft=true&… ends its freshness and keeps it";

impl Purge {
    /// Reads the query of `POST /purge`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(plan: &Plan, query: &str) -> Result<Self, String> {
        let (soft, query) = query.strip_prefix("soft=true&").map_or((false, query), |rest| (true, rest));
        let (what, value) = query.split_once('=').filter(|(_, value)| !value.contains('&')).ok_or(USAGE)?;
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8_lossy();
        let which = match what {
            "request" => Which::request(plan, &value),
            "tag" => Which::tag(plan, &value),
            "group" => {
                let group = |upstream: &str| groups::named(upstream.as_bytes(), value.as_bytes());
                Ok(Which::Groups(plan.upstreams.iter().map(|upstream| group(&upstream.name)).collect()))
            }
            _ => Err(USAGE.into()),
        };
        Ok(Self { which: which?, soft })
    }

    /// Does it to `store` at `now`; how many entries that was.
    pub fn run(&self, store: &Store, now: Moment) -> usize {
        match (&self.which, self.soft) {
            (Which::Keys(keys), false) => keys.iter().map(|key| store.remove(key, now)).sum(),
            (Which::Keys(keys), true) => keys.iter().map(|key| store.expire(key, now)).sum(),
            (Which::Groups(groups), false) => {
                groups.iter().map(|group| store.remove_group(*group, now)).sum()
            }
            (Which::Groups(groups), true) => groups.iter().map(|group| store.expire_group(*group, now)).sum(),
        }
    }
}

impl Which {
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
        let groups: Vec<Group> = plan
            .routes
            .iter()
            .filter(|route| route.params.as_ref().is_some_and(|params| params.get(name).is_some()))
            .flat_map(|route| {
                let reading = reading(plan, route);
                let (question, _) = reading.read(&route.path.to_string(), &query);
                reading.groups(question.target())
            })
            .collect();
        if groups.is_empty() {
            return Err(format!("no route has a parameter {name} that understands this value"));
        }
        Ok(Self::Groups(groups))
    }
}
