//! `[[routes]]`: what may be asked, and of whom.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::mistakes::{Wrong, nearest};
use super::plan::{Account, ForwardHeaders, Methods, Route, Upstream};
use super::reader::{Item, Table};
use super::upstreams::header_names;
use super::{pages, params, reuse, values};
use crate::rules::params::Unknown;
use crate::rules::routes::Path;

/// All routes, in written order.
pub(super) fn read(root: &mut Table<'_>, upstreams: &[Upstream], accounts: &[Account]) -> Vec<Route> {
    let expected = "[[routes]], each with a name, a path and an upstream";
    let tables = root.must("routes", expected, |item| {
        item.items(expected)?.into_iter().map(|item| item.table(expected)).collect::<Result<Vec<_>, _>>()
    });
    let notes = root.notes;
    let mut routes: Vec<Route> = Vec::new();
    for table in tables.unwrap_or_default() {
        let route = read_one(table, upstreams, accounts, &routes);
        routes.push(route);
    }
    if routes.len() > usize::from(u16::MAX) {
        notes.tell(&(0..0), "routes", Wrong::new("are too many", "at most 65,535"));
    }
    for (place, upstream) in upstreams.iter().enumerate() {
        if !routes.iter().any(|route| route.upstream == place) {
            notes.warn(format!("upstream `{}` is used by no route", upstream.name));
        }
    }
    routes
}

fn read_one(mut table: Table<'_>, upstreams: &[Upstream], accounts: &[Account], before: &[Route]) -> Route {
    let name = table.must("name", "a name that no other route has", |item| route_name(item, before));
    if let Some(name) = &name {
        // The name tells more than the route's number.
        table.path = format!("routes[{name}]");
    }
    let path =
        table.must("path", "a path such as \"/messages\" or \"/v1/*\"", |item| route_path(item, before));
    let path = path.unwrap_or_else(|| Path::Exact("/".into()));
    let upstream = table.must("upstream", "the name of an upstream", |item| find_upstream(item, upstreams));
    let account_item = table.item("account");
    let account = upstream
        .and_then(|upstream| find_account(account_item.as_ref(), upstream, upstreams, accounts, &table));
    let pages = table.maybe_table("pages").map(pages::read);
    let windows: Vec<_> = pages.iter().flat_map(|pages| [&pages.page, &pages.size]).flatten().collect();
    let windows: Vec<_> = windows.iter().filter_map(|item| item.text("").ok()).collect();
    let words = [("drop", Unknown::Drop), ("pass", Unknown::Pass)];
    let unknown_item = table.item("unknown");
    let unknown = unknown_item.as_ref().and_then(|item| item.read(values::word(&words))).unwrap_or_default();
    let declared = table.maybe_table("params").map(|table| params::read(table, unknown, &windows));
    if let Some(item) = unknown_item.filter(|_| declared.is_none()) {
        item.tell(Wrong::new(
            "is about parameters beside [routes.params]",
            "[routes.params]; without it the whole query passes",
        ));
    }
    let credentials = account.and_then(|account| accounts.get(account));
    if let (Some(account), Some(declared)) = (credentials, &declared) {
        for (name, _) in account.query.iter().filter(|(name, _)| declared.params.get(name).is_some()) {
            let what = format!("declares `{name}`, which is a credential of account `{}`", account.name);
            table.notes.tell(&table.at, &table.path, Wrong::new(what, "parameters that clients may set"));
        }
    }
    let cache = table.table("cache");
    let (cache, tags) = reuse::read(cache, declared.as_ref());
    if pages.is_some() && !cache.compress.is_empty() {
        let what = "compresses answers that are cut from larger ones";
        table.notes.tell(&table.at, &table.path, Wrong::new(what, "`cache.compress` or [routes.pages]"));
    }
    let pages = pages.and_then(|pages| pages.resolve(declared.as_ref()));
    let longest =
        upstream.and_then(|place| upstreams.get(place)).map_or(Duration::ZERO, |upstream| upstream.timeout)
            + credentials.map_or(Duration::ZERO, |account| account.max_wait);
    let route = Route {
        name: name.unwrap_or_default(),
        upstream_path: table.take("upstream_path", |item| upstream_path(item, &path)),
        path,
        upstream: upstream.unwrap_or_default(),
        account,
        pool: match upstream.filter(|upstream| account_item.is_none() && upstreams[*upstream].same_data) {
            Some(upstream) => {
                (0..accounts.len()).filter(|place| accounts[*place].upstream == upstream).collect()
            }
            None => Vec::new(),
        },
        methods: table.or("methods", Methods::List(vec![Method::GET, Method::HEAD]), methods),
        forward_headers: table
            .take("forward_headers", |item| forward_headers(item, credentials))
            .unwrap_or_else(|| {
                ForwardHeaders::List(vec![
                    http::header::ACCEPT,
                    http::header::ACCEPT_LANGUAGE,
                    http::header::CONTENT_TYPE,
                ])
            }),
        params: declared.map(|declared| Arc::new(declared.params)),
        unknown,
        cache,
        tags,
        pages,
        timeout: table.or("timeout", longest, values::some_time),
        pauses_alone: table.or("pauses", false, values::word(&[("account", false), ("route", true)])),
    };
    table.finish();
    route
}

fn route_name(item: &Item<'_>, before: &[Route]) -> Result<String, Wrong> {
    let expected = "a name that no other route has";
    let name = item.text(expected)?;
    values::name(name)?;
    if before.iter().any(|route| route.name == name) {
        return Err(Wrong::new(format!("route {name:?} is declared already"), expected));
    }
    Ok(name.into())
}

fn route_path(item: &Item<'_>, before: &[Route]) -> Result<Path, Wrong> {
    let expected = "a path such as \"/messages\" or \"/v1/*\", not under /-/";
    let text = item.text(expected)?;
    let path = Path::parse(text)
        .ok_or_else(|| Wrong::new(format!("{} is no path", values::quoted(text)), expected))?;
    match before.iter().find(|route| route.path == path) {
        Some(other) => {
            Err(Wrong::new(format!("is the path of route `{}` too", other.name), "a path of its own"))
        }
        None => Ok(path),
    }
}

fn find_upstream(item: &Item<'_>, upstreams: &[Upstream]) -> Result<usize, Wrong> {
    let expected = "the name of an upstream, declared as [upstreams.NAME]";
    let name = item.text(expected)?;
    upstreams.iter().position(|upstream| upstream.name == name).ok_or_else(|| {
        let near = nearest(name, upstreams.iter().map(|upstream| upstream.name.as_str()));
        Wrong::new(format!("upstream {} does not exist", values::quoted(name)), expected).near(near)
    })
}

/// The account a route names, or the only one there is; of a pool the first.
fn find_account(
    item: Option<&Item<'_>>,
    upstream: usize,
    upstreams: &[Upstream],
    accounts: &[Account],
    table: &Table<'_>,
) -> Option<usize> {
    let here: Vec<_> =
        accounts.iter().enumerate().filter(|(_, account)| account.upstream == upstream).collect();
    let names = || here.iter().map(|(_, account)| account.name.as_str());
    let of = upstreams.get(upstream).map_or("", |upstream| upstream.name.as_str());
    let Some(item) = item else {
        if let [(only, _)] = here[..] {
            return Some(only);
        }
        if upstreams.get(upstream).is_some_and(|upstream| upstream.same_data) {
            return here.first().map(|(first, _)| *first);
        }
        if here.len() > 1 {
            table.missing("account", &format!("one of {}", names().collect::<Vec<_>>().join(", ")));
        }
        return None;
    };
    item.read(|item| {
        let expected = format!("an account of upstream `{of}`");
        let name = item.text(&expected)?;
        if let Some((place, _)) = here.iter().find(|(_, account)| account.name == name) {
            return Ok(*place);
        }
        let elsewhere = accounts.iter().find(|account| account.name == name);
        let elsewhere = elsewhere.and_then(|account| upstreams.get(account.upstream));
        let what = match elsewhere {
            Some(other) => format!("account {} belongs to upstream `{}`", values::quoted(name), other.name),
            None => format!("account {} does not exist", values::quoted(name)),
        };
        Err(Wrong::new(what, expected).near(nearest(name, names())))
    })
}

fn upstream_path(item: &Item<'_>, path: &Path) -> Result<String, Wrong> {
    let below = matches!(path, Path::Below(_));
    let expected =
        if below { "a path that ends with `/`, such as \"/v2/\"" } else { "a path such as \"/v2/messages\"" };
    let text = item.text(expected)?;
    match Path::parse(text) {
        Some(Path::Exact(text)) if !below || text.ends_with('/') => Ok(text),
        Some(Path::Below(text)) if below => Ok(text),
        _ => {
            Err(Wrong::new(format!("{} cannot be put in place of `{path}`", values::quoted(text)), expected))
        }
    }
}

fn methods(item: &Item<'_>) -> Result<Methods, Wrong> {
    let expected = "a list such as [\"GET\", \"POST\"], or \"all\"";
    if item.is_text() {
        return values::word(&[("all", Methods::All)])(item)
            .map_err(|_| Wrong::new("is neither a list nor \"all\"", expected));
    }
    let mut methods = Vec::new();
    for method in item.list(expected, values::method)? {
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    if methods.is_empty() {
        Err(Wrong::new("is an empty list", expected))
    } else {
        Ok(Methods::List(methods))
    }
}

fn forward_headers(item: &Item<'_>, account: Option<&Account>) -> Result<ForwardHeaders, Wrong> {
    let expected = "a list such as [\"accept\"], or \"all\"";
    if item.is_text() {
        let all = values::word(&[("all", ForwardHeaders::All)])(item);
        return all.map_err(|_| Wrong::new("is neither a list nor \"all\"", expected));
    }
    let names = item.list(expected, |item| {
        let name = values::header_name(item.text("a header name")?)?;
        if account.is_some_and(|account| header_names(account).any(|own| *own == name)) {
            return Err(Wrong::new(
                format!("`{name}` is a credential, which clients cannot set"),
                "other headers",
            ));
        }
        Ok(name)
    })?;
    Ok(ForwardHeaders::List(names))
}
