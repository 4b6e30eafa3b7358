//! `[routes.cache]`: when answers are kept and reused.

use std::time::Duration;

use http::StatusCode;

use super::mistakes::Wrong;
use super::params::{self, Declaration};
use super::reader::{Item, Table};
use super::values;
use crate::model::coding::Coding;
use crate::rules::reuse::{Overrides, Policy};
use crate::rules::slices::Pointer;

/// The policy, and where an item names whom it is about.
pub(super) fn read(
    mut table: Table<'_>,
    declaration: Option<&Declaration>,
) -> (Policy, Vec<(Pointer, String)>) {
    let default = Policy::default();
    let ttl = table.take("ttl", values::duration);
    let ttl_for = table.take("ttl_for", ttl_for).unwrap_or_default();
    let overrides = table.item("ttl_overrides");
    if let Some(item) = overrides.as_ref().filter(|_| ttl.is_none() && ttl_for.is_empty()) {
        item.tell(Wrong::new("sets words aside for a ttl that is not there", "`ttl` or `ttl_for` beside it"));
    }
    let declared = |item: &Item<'_>| {
        item.list("header names, such as [\"x-user\"]", |item| {
            values::header_name(item.text("a header name")?)
        })
    };
    let mut identifying = default.identifying;
    identifying.extend(table.take("credential_headers", declared).unwrap_or_default());
    let policy = Policy {
        identifying,
        enabled: table.or("enabled", default.enabled, Item::boolean),
        ttl,
        ttl_for,
        overrides: overrides.and_then(|item| item.read(words)).unwrap_or_default(),
        heuristics: table.or("heuristics", default.heuristics, Item::boolean),
        max_ttl: table.take("max_ttl", values::duration),
        stale_while_revalidate: table.take("stale_while_revalidate", values::duration),
        stale_if_error: table.take("stale_if_error", values::duration),
        stale_if_unreachable: table.or(
            "stale_if_unreachable",
            default.stale_if_unreachable,
            values::duration,
        ),
        honour_request_directives: table.or(
            "honour_request_directives",
            default.honour_request_directives,
            Item::boolean,
        ),
        compress: table.take("compress", codings).unwrap_or_default(),
    };
    let tags = table.take("tags", |item| tags(item, declaration)).unwrap_or_default();
    table.finish();
    (policy, tags)
}

fn ttl_for(item: &Item<'_>) -> Result<Vec<(StatusCode, Duration)>, Wrong> {
    let mut table = item.table("statuses with durations, such as { 404 = \"5s\" }")?;
    let read =
        |(key, item): (&str, Item<'_>)| item.read(|item| Ok((values::status(key)?, values::duration(item)?)));
    Ok(table.rest().into_iter().filter_map(read).collect())
}

fn words(item: &Item<'_>) -> Result<Overrides, Wrong> {
    let known = [("private", 0), ("no-cache", 1), ("max-age=0", 2)];
    let words = item.list("a list of \"private\", \"no-cache\" or \"max-age=0\"", values::word(&known))?;
    let has = |word: u8| words.contains(&word);
    Ok(Overrides { private: has(0), no_cache: has(1), max_age_0: has(2) })
}

fn codings(item: &Item<'_>) -> Result<Vec<Coding>, Wrong> {
    let known = Coding::ALL.map(|coding| (coding.as_str(), coding));
    item.list("a list of \"zstd\", \"br\" or \"gzip\"", values::word(&known))
}

fn tags(item: &Item<'_>, declaration: Option<&Declaration>) -> Result<Vec<(Pointer, String)>, Wrong> {
    let expected = "pointers and parameters, such as { \"/contact/phone\" = \"phone_number\" }";
    let mut table = item.table(expected)?;
    let read = |(key, item): (&str, Item<'_>)| {
        item.read(|item| {
            let pointer = values::pointer(key, "/contact/phone")?;
            let name = params::declared(item, declaration)?;
            Ok((pointer, name))
        })
    };
    Ok(table.rest().into_iter().filter_map(read).collect())
}
