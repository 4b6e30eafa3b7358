//! Windows cut from blocks, over sockets: before upstreams of every habit, what the gate answers is compared with what
//! the upstream itself answers; and a list of 200,000 items is walked whole in little memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use serde_json::{Value, json};
use support::client::{self, Client};
use support::gate::{Gate, Setup};
use support::shipped::{self, PATH};
use support::upstream::{Reply, Request, Upstream};
use tokio::net::TcpListener;
use tollgate::demo::conversations::{Conversations, Size};
use tollgate::demo::octopush::{BASE, Octopush};
use tollgate::demo::settings::{Oversize, PastEnd, Settings};

// ---- Octopush -----------------------------------------------------------------------------------------------------

/// Pages and sizes: within a block, across two, the last one, past the end, larger than anything the upstream gives.
const ASKED: [(u64, u64); 12] = [
    (1, 20),
    (3, 20),
    (2, 70),
    (1, 100),
    (7, 40),
    (5, 50),
    (13, 20),
    (14, 20),
    (40, 50),
    (1, 150),
    (3, 150),
    (2, 100),
];

#[tokio::test]
async fn octopush_of_any_habit_is_answered_for() {
    for past_end in [PastEnd::Empty, PastEnd::LastPage, PastEnd::NotFound, PastEnd::BadRequest] {
        for (max_per_page, oversize) in
            [(None, Oversize::Clamp), (Some(30), Oversize::Clamp), (Some(60), Oversize::Refuse)]
        {
            let settings = Settings { past_end, max_per_page, oversize, ..Settings::plain() };
            let octopush =
                Octopush::new(settings, Conversations::generate(5, Size { contacts: 9, messages: 250 }));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let served = tokio::spawn(octopush.clone().serve(listener, async { drop(ended.await) }));
            let demo = Settings::default();
            let gate = Setup::new(shipped::config(&format!("http://{address}")))
                .env("OCTOPUSH_API_KEY", &demo.api_key)
                .env("OCTOPUSH_API_LOGIN", &demo.api_login)
                .start()
                .await;
            let secrets = [("api-key", demo.api_key.as_str()), ("api-login", demo.api_login.as_str())];
            let mut calls = 0;
            for round in 0..3 {
                let before = octopush.calls();
                for (page, size) in ASKED {
                    let query = format!("?page={page}&per_page={size}");
                    let direct = client::get(address, &format!("{BASE}{PATH}{query}"), &secrets).await;
                    let answer = gate.get(&format!("{PATH}{query}"), &[]).await;
                    let case = format!("{past_end:?} {max_per_page:?} {oversize:?} {query}, round {round}");
                    assert_eq!((answer.status, answer.complete), (direct.status, true), "{case}");
                    assert_eq!(answer.json(), direct.json(), "{case}");
                }
                calls = octopush.calls() - before - ASKED.len() as u64;
            }
            // What an upstream refuses is kept for nobody; all else is known by then.
            let refused =
                matches!(past_end, PastEnd::NotFound | PastEnd::BadRequest) || oversize == Oversize::Refuse;
            assert!(
                refused || calls == 0,
                "{past_end:?} {max_per_page:?} {oversize:?}: {calls} calls once more"
            );
            end.send(()).unwrap();
            served.await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_learned_of_an_upstream_is_explained_to_operators() {
    let settings = Settings { max_per_page: Some(30), ..Settings::plain() };
    let octopush = Octopush::new(settings, Conversations::generate(5, Size { contacts: 9, messages: 100 }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(octopush.serve(listener, std::future::pending()));
    let demo = Settings::default();
    let gate = Setup::new(shipped::config(&format!("http://{address}")))
        .env("OCTOPUSH_API_KEY", &demo.api_key)
        .env("OCTOPUSH_API_LOGIN", &demo.api_login)
        .start()
        .await;
    let explained = async |method: &str| {
        let target = format!("/explain?request={method}%20{PATH}");
        gate.ask_admin("GET", &target).await.json()
    };
    assert_eq!(explained("GET").await.get("learned"), None);
    // On the way it is found out how many come at once: then the list is read anew.
    for page in (1..=5).chain(1..=5) {
        gate.get(&format!("{PATH}?page={page}&per_page=30"), &[]).await;
    }
    let learned = json!({
        "items_at_once": "30, cuts what asks for more",
        "past_the_end": "an empty list",
        "link": "is not given",
    });
    assert_eq!(explained("GET").await["learned"], learned);
    // What HEAD asks for is cut from blocks too.
    let head = explained("HEAD").await;
    assert_eq!((&head["window"]["blocks"], &head["learned"]), (&json!("1 of 100"), &learned));
    assert!(head["upstream_request"]["line"].as_str().unwrap().starts_with("GET "), "{head}");
}

// ---- other ways to count and to wrap ------------------------------------------------------------------------------

/// How a list is asked for and answered.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// What `[routes.pages]` says of it.
    pages: &'static str,
    /// Which items a question asks for: so many behind so many.
    span: fn(u64, u64) -> (u64, u64),
    /// The answer with these items of so many in all.
    wrap: fn(&[u64], (u64, u64), u64) -> Value,
}

const MESSAGES: u64 = 64;

const WAYS: [Way; 4] = [
    Way {
        pages: "page = \"at\"\nfirst = 0",
        span: |at, size| (at * size, size),
        wrap: |items, _, _| json!(items.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>()),
    },
    Way {
        pages: "offset = \"at\"",
        span: |at, size| (at, size),
        wrap: |items, _, _| json!(items.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>()),
    },
    Way {
        pages: "page = \"at\"\nitems = \"/data\"\nlinks = \"page\"\n\
            members = { total = \"/meta/total\", page = \"/meta/page\", last = \"/meta/last_page\", \
            more = \"/meta/has_more\", next = \"/next\", prev = \"/prev\", constant = [\"/object\"] }",
        span: |at, size| ((at - 1) * size, size),
        wrap: |items, (from, size), total| {
            let (page, more) = (from / size + 1, from + size < total);
            let leads = |there: bool, page: u64| if there { json!(page) } else { Value::Null };
            json!({
                "object": "list",
                "data": items.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
                "meta": { "total": total, "page": page, "last_page": total.div_ceil(size).max(1), "has_more": more },
                "next": leads(more, page + 1),
                "prev": leads(page > 1, page.saturating_sub(1)),
            })
        },
    },
    Way {
        pages: "offset = \"at\"\nitems = \"/items\"\n\
            members = { count = \"/count\", page = \"/offset\", size = \"/limit\", more = \"/has_more\" }",
        span: |at, size| (at, size),
        wrap: |items, (from, size), total| {
            let list: Vec<_> = items.iter().map(|id| json!({ "id": id })).collect();
            json!({ "offset": from, "limit": size, "count": list.len(), "has_more": from + size < total, "items": list })
        },
    },
];

fn number(request: &Request, name: &str) -> u64 {
    let value = request.query().split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.expect("is always sent").parse().unwrap()
}

/// A gate before `url` whose route `/m` is paged as these lines say.
async fn gate(url: &str, cache: &str, pages: &str) -> Gate {
    let config = format!(
        "{cache}\n[upstreams.u]\nurl = \"{url}\"\n\
        [[routes]]\nname = \"m\"\npath = \"/m\"\nupstream = \"u\"\n\
        [routes.params]\nat = {{ type = \"integer\", default = 1, min = 0 }}\n\
        size = {{ type = \"integer\", default = 10, min = 1 }}\n\
        [routes.cache]\nttl = \"5m\"\n\
        [routes.pages]\nsize = \"size\"\nid = \"/id\"\n{pages}\n"
    );
    Setup::new(config).start().await
}

#[tokio::test]
async fn every_way_to_count_and_to_wrap_is_answered_for() {
    for way in WAYS {
        let upstream = Upstream::start(move |request| {
            let (from, size) = (way.span)(number(request, "at"), number(request, "size"));
            let ids: Vec<u64> = (from..MESSAGES.min(from.saturating_add(size))).collect();
            Reply::json((way.wrap)(&ids, (from, size), MESSAGES).to_string())
        })
        .await;
        let gate = gate(&upstream.url(), "", &format!("block = 20\n{}", way.pages)).await;
        let asked = [(1, 10), (3, 7), (2, 20), (1, 30), (4, 16), (3, 20), (2, 50), (9, 10), (64, 1), (63, 5)];
        for round in 0..3 {
            let before = upstream.count();
            for (at, size) in asked {
                let target = format!("/m?at={at}&size={size}");
                let direct = client::get(upstream.address(), &target, &[]).await;
                let answer = gate.get(&target, &[]).await;
                assert_eq!(
                    (answer.status, answer.complete),
                    (200, true),
                    "{way:?} {target}: {}",
                    answer.text()
                );
                assert_eq!(answer.json(), direct.json(), "{way:?} {target}");
            }
            let calls = upstream.count() - before - asked.len();
            // What lies past the end was found out on the way.
            assert!(round < 2 || calls == 0, "{way:?}: {calls} calls once more");
        }
    }
}

// ---- a long walk --------------------------------------------------------------------------------------------------

const LONG: u64 = 200_000;
const BLOCK: u64 = 1000;

/// Ninety-nine bytes.
fn item(id: u64) -> String {
    format!("{{\"id\":1{id:06},\"text\":\"{}\"}}", "x".repeat(75))
}

/// An upstream with a list of so many.
async fn long(count: u64) -> Upstream {
    Upstream::start(move |request| {
        let from = (number(request, "at") - 1) * number(request, "size");
        let items: Vec<_> = (from..count.min(from + number(request, "size"))).map(item).collect();
        Reply::json(format!("[{}]", items.join(",")))
    })
    .await
}

/// Walks it whole, in pages of 640; every item comes once.
async fn walk(gate: &Gate, count: u64) {
    let (mut client, mut token, mut next) = (Client::connect(gate.addr()).await, None::<String>, 0);
    for page in 1..=count.div_ceil(640) {
        let target = format!("/m?at={page}&size=640");
        let held = token.iter().map(|token| ("tollgate-walk", token.as_str())).collect::<Vec<_>>();
        let answer = client.get(&target, &held).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        token = answer.header("tollgate-walk").map(str::to_owned);
        for id in answer.text().split("{\"id\":1").skip(1).map(|item| &item[..6]) {
            assert_eq!(id, format!("{next:06}"), "{target}");
            next += 1;
        }
    }
    assert_eq!(next, count);
}

#[tokio::test]
async fn a_list_of_200_000_items_is_walked_in_little_memory() {
    let upstream = long(LONG).await;
    // A collection takes a quarter of the cache at most, and 20 MB are far more than that.
    let gate =
        gate(&upstream.url(), "[cache]\nmax_bytes = \"16MiB\"", &format!("page = \"at\"\nblock = {BLOCK}"))
            .await;
    let before = gate.memory("VmRSS");
    walk(&gate, LONG).await;
    let held = gate.metric("tollgate_cache_bytes", &[]).await;
    assert!(held <= f64::from((4 << 20) + (64 << 10)), "{held} bytes are kept");
    let grown = gate.memory("VmHWM").saturating_sub(before) >> 20;
    assert!(grown <= 40, "{grown} MiB more at the height of it");
    assert_eq!(upstream.count() as u64, LONG / BLOCK + 1, "each block once, and one behind the last");
}

#[tokio::test]
async fn an_item_takes_eight_bytes_beside_its_own() {
    let count = 20 * BLOCK;
    let upstream = long(count).await;
    let gate = gate(&upstream.url(), "", &format!("page = \"at\"\nblock = {BLOCK}")).await;
    walk(&gate, count).await;
    let held = gate.metric("tollgate_cache_bytes", &[]).await;
    // An item and its comma are a hundred bytes. What is kept of a block, its fields and places, is little beside a thousand.
    let beside = (held - (100 * count) as f64) / count as f64;
    assert!(beside <= 8.0 + 2.0, "{beside} bytes an item");
}
