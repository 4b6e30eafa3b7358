//! `[upstreams.NAME]` and their accounts: where the money goes.

use std::time::Duration;

use http::header::HeaderName;
use http::uri::{Authority, Scheme};

use super::Environment;
use super::mistakes::Wrong;
use super::plan::{Account, Credential, Http2, Upstream};
use super::quota::quota;
use super::reader::{Item, Table};
use super::secrets::{Place, credential};
use super::tls;
use super::values::{self, Base};
use crate::rules::breaker;

/// All upstreams, and all their accounts in one list.
pub(super) fn read(root: &mut Table<'_>, environment: &dyn Environment) -> (Vec<Upstream>, Vec<Account>) {
    let (mut upstreams, mut accounts) = (Vec::new(), Vec::new());
    for (name, mut table) in root.named_tables("upstreams") {
        let place = upstreams.len();
        let of_this = table.named_tables("accounts");
        let of_this: Vec<_> =
            of_this.into_iter().map(|(name, table)| account(name, table, place, environment)).collect();
        let upstream = upstream(name, table, environment);
        if upstream.scheme == Scheme::HTTP
            && !is_here(&upstream.authority)
            && of_this.iter().any(has_credentials)
        {
            root.notes.warn(format!("upstream `{name}`: credentials travel in clear over http"));
        }
        if upstream.same_data && of_this.iter().any(|other| !is_sent_alike(&of_this[0], other)) {
            let what = "has accounts that send their credentials under different names";
            let wrong = Wrong::new(what, "the same names for all of them, where same_data = true");
            root.notes.tell(&(0..0), &format!("upstreams.{name}"), wrong);
        }
        upstreams.push(upstream);
        accounts.extend(of_this);
    }
    (upstreams, accounts)
}

fn upstream(name: &str, mut table: Table<'_>, environment: &dyn Environment) -> Upstream {
    let url = table.must("url", "a URL such as \"https://api.example.com/v1\"", values::url);
    let base = url.unwrap_or_else(|| Base {
        scheme: Scheme::HTTPS,
        authority: Authority::from_static("upstream.invalid"),
        path: String::new(),
    });
    let tls = tls::upstream(table.table("tls"), base.scheme == Scheme::HTTPS, environment);
    let versions = [("negotiated", Http2::Negotiated), ("never", Http2::Never), ("always", Http2::Always)];
    let upstream = Upstream {
        name: name.into(),
        scheme: base.scheme,
        authority: base.authority,
        base_path: base.path,
        connect_timeout: table.or("connect_timeout", Duration::from_secs(2), values::some_time),
        timeout: table.or("timeout", Duration::from_secs(10), values::some_time),
        total_timeout: table.or("total_timeout", Duration::from_secs(300), values::some_time),
        max_concurrent: table.or("max_concurrent", 16, values::count(1..=65_536)),
        breaker_failures: table.or("breaker_failures", breaker::FAILURES, values::count(0..=10_000)),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(60), values::some_time),
        same_data: table.or("same_data", false, Item::boolean),
        http2: table.or("http2", Http2::Negotiated, values::word(&versions)),
        tls,
    };
    table.finish();
    upstream
}

fn account(name: &str, mut table: Table<'_>, upstream: usize, environment: &dyn Environment) -> Account {
    let headers = credentials(table.table("headers"), environment, Place::Header, values::header_name);
    let query = credentials(table.table("query"), environment, Place::Query, |name| {
        if name.is_empty() {
            return Err(Wrong::new("has no name", "the name of a query parameter, such as \"token\""));
        }
        Ok(name.to_owned())
    });
    let expected = "your contract: quota = [{ requests = 10, per = \"1s\" }], or quota = \"none\"";
    let quota = table.must("quota", expected, |item| quota(item, expected));
    if quota.as_ref().is_some_and(Vec::is_empty) {
        table
            .notes
            .warn(format!("{}: quota = \"none\": nothing keeps this account from being used up", table.path));
    }
    let account = Account {
        name: name.into(),
        upstream,
        headers,
        query,
        quota: quota.unwrap_or_default(),
        max_wait: table.or("max_wait", Duration::from_secs(2), values::duration),
        max_waiting: table.or("max_waiting", 1_000, values::count(0..=1_000_000)),
        max_pause: table.or("max_pause", Duration::from_secs(300), values::some_time),
        price: table.take("price", |item| {
            let expected = "what a call costs, such as 0.002";
            let price = item.number(expected)?;
            if price >= 0.0 { Ok(price) } else { Err(Wrong::new("is below zero", expected)) }
        }),
    };
    table.finish();
    account
}

/// Credentials by the name they are sent under.
fn credentials<N: PartialEq>(
    mut table: Table<'_>,
    environment: &dyn Environment,
    place: Place,
    name: impl Fn(&str) -> Result<N, Wrong>,
) -> Vec<(N, Credential)> {
    let mut list: Vec<(N, Credential)> = Vec::new();
    for (key, item) in table.rest() {
        let read =
            item.read(|item| Ok((name(key).map_err(Wrong::secret)?, credential(environment, place)(item)?)));
        let Some((name, credential)) = read else { continue };
        if list.iter().any(|(held, _)| *held == name) {
            item.tell(Wrong::new("is the same header twice", "each header once, whatever its case").secret());
        }
        list.push((name, credential));
    }
    list
}

/// Whether two accounts differ in their secrets alone.
fn is_sent_alike(one: &Account, other: &Account) -> bool {
    let headers =
        |account: &Account| account.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let query = |account: &Account| account.query.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    headers(one) == headers(other) && query(one) == query(other)
}

fn has_credentials(account: &Account) -> bool {
    !account.headers.is_empty() || !account.query.is_empty()
}

/// Whether an authority is this machine.
fn is_here(authority: &Authority) -> bool {
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(super::plan::is_loopback)
}

/// The names of an account's header credentials.
pub(super) fn header_names(account: &Account) -> impl Iterator<Item = &HeaderName> {
    account.headers.iter().map(|(name, _)| name)
}
