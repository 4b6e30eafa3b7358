//! Windows cut from blocks, before two versions of npm's json-server with 4,862 real text messages: what the gate
//! answers is compared with what json-server itself answers to the same window, and json-server's own request log says
//! that it was asked for blocks alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use support::client::Answer;
use support::gate::{Gate, Setup};
use support::json_server::JsonServer;

/// A route to `/messages` whose size is said by `size`, with these lines under `[routes.pages]`.
fn config(url: &str, size: &str, pages: &str) -> String {
    format!(
        r#"
[upstreams.messages]
url = "{url}"

[[routes]]
name = "messages"
path = "/messages"
upstream = "messages"

[routes.params]
_page = {{ type = "integer", default = 1, min = 1 }}
{size} = {{ type = "integer", default = 10, min = 1 }}
label = {{ type = "enum", values = ["ham", "spam"] }}

[routes.cache]
ttl = "5m"
ttl_overrides = ["no-cache"]

[routes.pages]
page = "_page"
size = "{size}"
block = 100
id = "/id"
{pages}
"#
    )
}

/// Pages and sizes: within a block, across blocks, the last window, a window that only begins, past the end.
const WINDOWS: [(u64, u64); 14] = [
    (1, 10),
    (2, 25),
    (1, 100),
    (4, 30),
    (2, 150),
    (7, 16),
    (1, 1),
    (100, 1),
    (101, 1),
    (195, 25),
    (98, 50),
    (49, 100),
    (487, 10),
    (17, 300),
];
/// Of those 642 that are spam.
const FILTERED: [(u64, u64); 4] = [(1, 10), (13, 50), (33, 20), (7, 100)];

async fn gate(upstream: &JsonServer, size: &str, pages: &str) -> Gate {
    Setup::new(config(&upstream.url(), size, pages)).start().await
}

/// What json-server was asked: how many whole blocks, and the windows that were forwarded as they were. Nothing was asked
/// for twice.
async fn asked(upstream: &JsonServer, size: &str, before: usize) -> (usize, Vec<String>) {
    let asked = upstream.requests().await.split_off(before);
    let mut seen = std::collections::BTreeSet::new();
    for line in &asked {
        assert!(seen.insert(line.clone()), "asked twice: {line}");
    }
    let (blocks, as_they_were): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|line| line.contains(&format!("{size}=100")));
    (blocks.len(), as_they_were)
}

/// `Link` as relation → the window it leads to.
fn links(answer: &Answer, size: &str) -> BTreeMap<String, (u64, u64)> {
    let value = answer.header("link").unwrap_or_default();
    let read = |link: &str| {
        let (target, relation) = link.split_once('>')?;
        let relation = relation.split("rel=\"").nth(1)?.trim_end_matches('"').to_owned();
        let query = target.split_once('?')?.1;
        let number = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        Some((relation, (number("_page")?, number(size)?)))
    };
    value.split('<').filter_map(|link| read(link.trim_end_matches([' ', ',']))).collect()
}

#[tokio::test]
async fn arrays_are_sliced_as_json_server_0_17_would_have() {
    let upstream = JsonServer::start().await;
    let gate = gate(&upstream, "_limit", "headers = { total = \"x-total-count\" }").await;
    let targets = WINDOWS.iter().map(|(page, size)| format!("/messages?_page={page}&_limit={size}"));
    let filtered =
        FILTERED.iter().map(|(page, size)| format!("/messages?_page={page}&_limit={size}&label=spam"));
    let mut direct = Vec::new();
    for target in targets.chain(filtered) {
        direct.push((upstream.get(&target, &[]).await, target));
    }
    let before = upstream.requests().await.len();
    for (direct, target) in &direct {
        let answer = gate.get(target, &[]).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{target}: {}", answer.text());
        assert_eq!(answer.json(), direct.json(), "{target}");
        assert_eq!(answer.header("x-total-count"), direct.header("x-total-count"), "{target}");
        assert_eq!(answer.header("content-type"), direct.header("content-type"), "{target}");
        let ours = links(&answer, "_limit");
        for (relation, window) in links(direct, "_limit") {
            assert_eq!(ours.get(&relation), Some(&window), "{target}: {relation}");
        }
        // Where json-server leads nowhere, neither does the gate.
        for relation in ["prev", "next"] {
            let leads = links(direct, "_limit").contains_key(relation);
            assert!(leads || !ours.contains_key(relation), "{target}: {relation}");
        }
    }
    // 642 messages are 7 blocks; of all 4,862 the windows lie in 13, and one more answer may have taught where they end.
    let (blocks, as_they_were) = asked(&upstream, "_limit", before).await;
    assert!(blocks <= 22, "{blocks} blocks");
    // Whether json-server gives more than a block's size at once, only its own answers prove.
    assert_eq!(as_they_were, ["GET /messages?_page=2&_limit=150", "GET /messages?_page=17&_limit=300"]);
}

#[tokio::test]
async fn a_slice_has_a_tag_of_its_own_and_is_not_sent_twice() {
    let upstream = JsonServer::start().await;
    let gate = gate(&upstream, "_limit", "headers = { total = \"x-total-count\" }").await;
    let (one, two) = ("/messages?_page=2&_limit=20", "/messages?_page=3&_limit=20");
    gate.get(one, &[]).await;
    let first = gate.get(one, &[]).await;
    let tag = first.header("etag").expect("has a tag").to_owned();
    assert!(tag.starts_with('"'), "a strong tag: {tag}");
    assert_ne!(gate.get(two, &[]).await.header("etag"), Some(tag.as_str()));
    let again = gate.get(one, &[("If-None-Match", tag.as_str())]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(tag.as_str()));
    let changed = gate.get(two, &[("If-None-Match", tag.as_str())]).await;
    assert_eq!((changed.status, changed.json().as_array().map(Vec::len)), (200, Some(20)));
}

#[tokio::test]
async fn envelopes_are_rewritten_as_json_server_1_would_have() {
    let upstream = JsonServer::start_1().await;
    let members = "items = \"/data\"\nlinks = \"page\"\nmembers = { total = \"/items\", pages = \"/pages\", first = \"/first\", prev = \"/prev\", next = \"/next\", last = \"/last\" }";
    let gate = gate(&upstream, "_per_page", members).await;
    // Past the end json-server 1.0 gives the last page again.
    let past = [(50, 100), (300, 25), (5_000, 10)];
    let all = WINDOWS.iter().chain(&past);
    let targets = all.map(|(page, size)| format!("/messages?_page={page}&_per_page={size}"));
    let filtered =
        FILTERED.iter().map(|(page, size)| format!("/messages?_page={page}&_per_page={size}&label=spam"));
    let mut direct = Vec::new();
    for target in targets.chain(filtered) {
        direct.push((upstream.get(&target, &[]).await, target));
    }
    for (direct, target) in &direct {
        let answer = gate.get(target, &[]).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{target}: {}", answer.text());
        assert_eq!(answer.json(), direct.json(), "{target}");
    }
}

#[tokio::test]
async fn a_member_that_nobody_declared_is_passed_as_it_was_asked_for() {
    let upstream = JsonServer::start_1().await;
    let members = "items = \"/data\"\nlinks = \"page\"\nmembers = { total = \"/items\", first = \"/first\", prev = \"/prev\", next = \"/next\", last = \"/last\" }";
    let gate = gate(&upstream, "_per_page", members).await;
    for target in ["/messages?_page=2&_per_page=30", "/messages?_page=3&_per_page=20"] {
        let direct = upstream.get(target, &[]).await;
        for _ in 0..2 {
            assert_eq!(gate.get(target, &[]).await.json(), direct.json(), "{target}");
        }
    }
}
