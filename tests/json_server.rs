//! The gate in front of npm's json-server with 4,862 real text messages: an API nobody here wrote, with its own
//! parameter names. Every answer is compared with asking json-server itself, and json-server's own request log
//! tells which answers cost a request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::client::{Answer, Client};
use support::gate::{Gate, Setup};
use support::json_server::{self, JsonServer};

const KEY: &str = "a-key-json-server-does-not-need";

/// `_page` has no default: json-server pages only when asked to, so `_page=1` and no `_page` are two questions.
/// What it sends with every answer is `Cache-Control: no-cache`, `Pragma: no-cache` and `Expires: -1`.
fn config(url: &str) -> String {
    format!(
        r#"
[upstreams.messages]
url = "{url}"

[upstreams.messages.accounts.main]
headers.x-api-key = {{ env = "MESSAGES_KEY" }}
quota = "none"

[[routes]]
name = "messages"
path = "/messages"
upstream = "messages"
account = "main"

[routes.params]
_page  = {{ type = "integer", min = 1 }}
_limit = {{ type = "integer", min = 1, max = 500 }}
label  = {{ type = "enum", values = ["ham", "spam"] }}
q      = "string"
_sort  = {{ type = "enum", values = ["id", "label", "text", "length"] }}
_order = {{ type = "enum", values = ["asc", "desc"] }}

[routes.cache]
ttl = "5m"
ttl_overrides = ["no-cache"]

[[routes]]
name = "message"
path = "/messages/*"
upstream = "messages"
account = "main"

[routes.cache]
ttl = "5m"
ttl_overrides = ["no-cache"]
"#
    )
}

async fn start() -> (JsonServer, Gate) {
    let upstream = JsonServer::start().await;
    let gate = Setup::new(config(&upstream.url())).env("MESSAGES_KEY", KEY).start().await;
    (upstream, gate)
}

/// Targets in their canonical form, so that json-server is asked the same thing directly and through the gate.
const CANONICAL: [&str; 10] = [
    "/messages?_page=1",
    "/messages?_page=2&_limit=25",
    "/messages?_page=195&_limit=25",
    // Past the end: `[]`, and a `Link` without a value.
    "/messages?_page=196&_limit=25",
    "/messages?_page=3&_limit=10&label=spam",
    "/messages?_page=1&_limit=5&q=free%20entry",
    "/messages?_page=1&_limit=3&q=%C2%A3&_sort=length&_order=desc",
    "/messages?_limit=7&_sort=text&_order=asc",
    "/messages/4862",
    "/messages/4863",
];

#[tokio::test]
async fn answers_are_those_of_json_server_itself_and_cost_one_request_each() {
    let (upstream, gate) = start().await;
    for target in CANONICAL {
        let direct = upstream.get(target, &[]).await;
        let before = upstream.requests().await.len();
        for round in ["first", "second"] {
            let answer = gate.get(target, &[]).await;
            same(&answer, &direct, &format!("{target}, {round}"));
            assert!(!answer.contains(KEY), "{target}: a credential in the answer");
        }
        let cost = upstream.requests().await.split_off(before);
        if direct.status == 200 {
            assert_eq!(cost, [format!("GET {target}")], "the second answer came from memory");
        } else {
            // `ttl` fills the silence of 200 answers alone; a 404 that says `no-cache` is asked again.
            assert_eq!(direct.status, 404);
            assert_eq!(cost.len(), 2, "{target}: {cost:?}");
        }
    }
    assert!(!gate.lines().contains(KEY), "a credential in the log");
}

#[tokio::test]
async fn every_spelling_of_a_question_is_one_request_in_json_servers_log() {
    let (upstream, gate) = start().await;
    let direct = upstream.get("/messages?_page=2&_limit=25&label=spam", &[]).await;
    let before = upstream.requests().await.len();
    for spelling in [
        "/messages?_page=2&_limit=25&label=spam",
        "/messages?label=spam&_limit=25&_page=2",
        "/messages?_page=2.0&_limit=%2025%20&label=SPAM",
        "/messages?_PAGE=page2&_Limit=25abc&Label=%22spam%22",
        "/messages?_page=7&_page=2&_limit=25&label=spam",
        "/messages?_page=+2&_limit=2.5e1&label=Spam&utm_source=x&_=1700000000",
        "/messages?_page=%EF%BC%92&_limit=25&label=sp%61m&q=",
    ] {
        let answer = gate.get(spelling, &[]).await;
        same(&answer, &direct, spelling);
    }
    assert_eq!(upstream.requests().await.split_off(before), ["GET /messages?_page=2&_limit=25&label=spam"]);
}

#[tokio::test]
async fn hits_are_marked_and_do_not_reach_json_server() {
    let (upstream, gate) = start().await;
    let target = "/messages?_page=4&_limit=50";
    let mut client = Client::connect(gate.addr()).await;
    let miss = client.get(target, &[]).await;
    assert!(cache_status(&miss).contains("fwd="), "{}", cache_status(&miss));
    for _ in 0..100 {
        // As the copied samples of many an API send it; `honour_request_directives` is off.
        let hit = client.get(target, &[("Cache-Control", "no-cache")]).await;
        assert!(cache_status(&hit).starts_with("tollgate; hit"), "{}", cache_status(&hit));
        assert!(hit.header("age").and_then(|age| age.parse::<u32>().ok()).is_some(), "a hit says its age");
        same(&hit, &miss, target);
    }
    assert_eq!(upstream.requests().await, [format!("GET {target}")]);
    assert_eq!(
        gate.metric("tollgate_cache_results_total", &["route=\"messages\"", "result=\"hit\""]).await,
        100.0
    );
    assert_eq!(
        gate.metric("tollgate_cache_results_total", &["route=\"messages\"", "result=\"miss\""]).await,
        1.0
    );
    assert_eq!(gate.metric("tollgate_upstream_requests_total", &["upstream=\"messages\""]).await, 1.0);
}

#[tokio::test]
async fn all_messages_read_page_by_page_through_the_gate_are_all_messages() {
    let (upstream, gate) = start().await;
    let expected = json_server::messages();
    let mut client = Client::connect(gate.addr()).await;
    for round in 1..=2 {
        let mut read: Vec<Value> = Vec::new();
        for page in 1.. {
            let answer = client.get(&format!("/messages?_page={page}&_limit=100"), &[]).await;
            assert_eq!(answer.header("x-total-count"), Some("4862"));
            let items = answer.json();
            let items = items.as_array().expect("an array");
            if items.is_empty() {
                break;
            }
            read.extend_from_slice(items);
        }
        assert!(read == expected, "round {round}: {} messages read, or others", read.len());
    }
    // 49 pages and the empty one after them.
    assert_eq!(upstream.requests().await.len(), 50, "the second round cost nothing");
}

#[tokio::test]
async fn what_the_gate_does_not_serve_never_reaches_json_server() {
    let (upstream, gate) = start().await;
    let mut client = Client::connect(gate.addr()).await;
    let unknown = client.get("/db", &[]).await;
    assert_eq!(unknown.status, 404);
    let delete = client.request("DELETE", "/messages/1", &[], b"").await;
    assert_eq!((delete.status, delete.header("allow")), (405, Some("GET, HEAD")));
    for problem in [unknown, delete] {
        assert_eq!(problem.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem.json()["upstream_called"], "no");
    }
    assert!(upstream.requests().await.is_empty());
}

/// Status, content and the fields that belong to the content; what a cache adds may differ.
fn same(answer: &Answer, direct: &Answer, what: &str) {
    assert_eq!(answer.status, direct.status, "{what}: {}", answer.text());
    assert!(answer.complete && direct.complete, "{what}: a truncated body");
    assert_eq!(answer.json(), direct.json(), "{what}");
    assert_eq!(answer.body, direct.body, "{what}: the bytes too");
    for name in ["content-type", "etag", "link", "x-total-count", "vary"] {
        assert_eq!(answer.headers.all(name), direct.headers.all(name), "{what}: {name}");
    }
}

fn cache_status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}
