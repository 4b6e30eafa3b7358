//! One call for everyone who asks the same, whoever comes and goes; and what cannot be shared is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use support::client::{self, Answer, Client};
use support::gate::{Gate, Setup};
use support::shipped::{cache_status, problem};
use support::upstream::{Reply, Request, Signal, Upstream};

/// Two routes to the same upstream: one with a `ttl`, one that obeys the upstream alone.
fn config(url: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
[[routes]]
name = "kept"
path = "/kept/*"
upstream = "u"
[routes.cache]
ttl = "10m"
[[routes]]
name = "plain"
path = "/plain/*"
upstream = "u"
[[routes]]
name = "written"
path = "/written/*"
upstream = "u"
methods = ["GET", "HEAD", "POST", "PUT"]
forward_headers = ["content-type"]
[routes.cache]
ttl = "10m"
"#
    )
}

async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Gate) {
    let upstream = Upstream::start(script).await;
    let gate = Setup::new(config(&upstream.url())).start().await;
    (upstream, gate)
}

/// So many clients that have asked for `target`, and of which none was answered yet.
async fn crowd(gate: &Gate, count: usize, target: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(gate.addr()).await;
        client.ask("GET", target, &[], b"").await;
        clients.push(client);
    }
    gate.quiet().await;
    clients
}

async fn answers(clients: &mut [Client]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for client in clients {
        answers.push(client.read("GET").await);
    }
    answers
}

fn numbered(request: &Request) -> Reply {
    Reply::json(format!("{{\"number\":{}}}", request.number))
}

#[tokio::test]
async fn sixty_four_clients_at_once_cause_one_call() {
    let (upstream, gate) = start(numbered).await;
    upstream.hold();
    let mut clients = crowd(&gate, 64, "/kept/a").await;
    assert_eq!(upstream.seen(1).await.len(), 1);
    assert_eq!(gate.metric("tollgate_flights_active", &[]).await, 1.0);
    upstream.release();
    let answers = answers(&mut clients).await;
    assert_eq!(upstream.count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == "{\"number\":1}"));
    let told = |word: &str| answers.iter().filter(|answer| cache_status(answer).ends_with(word)).count();
    assert_eq!((told("; stored"), told("; collapsed")), (1, 63));
    assert_eq!(gate.metric("tollgate_flights_active", &[]).await, 0.0);
    assert_eq!(gate.metric("tollgate_cache_results_total", &["result=\"collapsed\""]).await, 63.0);
    assert_eq!(gate.metric("tollgate_upstream_requests_total", &[]).await, 1.0);
}

#[tokio::test]
async fn the_flight_outlives_the_client_that_began_it() {
    let (upstream, gate) = start(numbered).await;
    upstream.hold();
    let first = crowd(&gate, 1, "/kept/a").await;
    upstream.seen(1).await;
    let mut others = crowd(&gate, 63, "/kept/a").await;
    drop(first);
    gate.metric_becomes("tollgate_requests_total", &["code=\"499\""], |left| left == 1.0).await;
    upstream.release();
    let answers = answers(&mut others).await;
    assert!(answers.iter().all(|answer| answer.text() == "{\"number\":1}"));
    assert!(answers.iter().all(|answer| cache_status(answer).ends_with("; collapsed")));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_flight_that_everybody_left_is_kept_for_the_next() {
    let (upstream, gate) = start(numbered).await;
    upstream.hold();
    let clients = crowd(&gate, 3, "/kept/a").await;
    upstream.seen(1).await;
    drop(clients);
    gate.metric_becomes("tollgate_requests_total", &["code=\"499\""], |left| left == 3.0).await;
    upstream.release();
    gate.metric_becomes("tollgate_flights_active", &[], |active| active == 0.0).await;
    let next = gate.get("/kept/a", &[]).await;
    assert!(cache_status(&next).starts_with("tollgate; hit"), "{}", cache_status(&next));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_failure_is_told_to_everyone_who_waited_and_cost_one_call() {
    for (reply, status, kind, says_when) in [
        (Reply::new(500, "broken"), 500, None, false),
        (Reply::new(503, "busy"), 503, None, false),
        (Reply::new(503, "busy").header("Retry-After", "7"), 503, None, true),
        (Reply::new(429, "slow down"), 429, None, false),
        (Reply::silence(), 502, Some("upstream-broken"), false),
        (Reply::ok("half of it").truncate(4), 502, Some("upstream-broken"), false),
        (Reply::raw("HTTP/9.9 what\r\n\r\n"), 502, Some("upstream-broken"), false),
    ] {
        let replied = reply.clone();
        let (upstream, gate) = start(move |_| replied.clone()).await;
        upstream.hold();
        let mut clients = crowd(&gate, 16, "/kept/a").await;
        upstream.release();
        for answer in answers(&mut clients).await {
            assert_eq!(answer.status, status, "{}", answer.text());
            if let Some(kind) = kind {
                assert_eq!(problem(&answer, status, kind)["fault"], "upstream");
            }
        }
        assert_eq!(upstream.count(), 1, "{status} {kind:?}");
        let next = gate.get("/kept/a", &[]).await;
        if says_when {
            // The upstream said when to come back: until then it is asked nothing.
            problem(&next, 429, "account-paused");
            assert_eq!(upstream.count(), 1, "{status} {kind:?}");
        } else {
            // Nobody keeps a failure: the next one asks anew.
            assert_eq!(next.status, status);
            assert_eq!(upstream.count(), 2, "{status} {kind:?}");
        }
    }
}

/// Who waited for an answer that turned out to be somebody else's goes on alone, and they all go at once.
#[tokio::test]
async fn what_cannot_be_shared_is_not_and_nobody_queues_for_it() {
    const CLIENTS: usize = 16;
    for (target, name, value) in [
        ("/kept/a", "Cache-Control", "no-store"),
        ("/kept/a", "Cache-Control", "private, max-age=60"),
        ("/kept/a", "Vary", "*"),
        ("/plain/a", "Cache-Control", "private"),
        ("/plain/a", "X-No-Lifetime", "at all"),
    ] {
        let everybody = Signal::new();
        let gathered = everybody.clone();
        let (upstream, gate) = start(move |request| {
            let reply = numbered(request).header(name, value);
            if request.number == 1 { reply } else { reply.after(&gathered) }
        })
        .await;
        upstream.hold();
        let mut clients = crowd(&gate, CLIENTS, target).await;
        assert_eq!(upstream.seen(1).await.len(), 1, "{name}: {value}");
        upstream.release();
        upstream.seen(CLIENTS).await;
        everybody.fire();
        let answers = answers(&mut clients).await;
        let bodies: BTreeSet<String> = answers.iter().map(Answer::text).collect();
        assert_eq!(bodies.len(), CLIENTS, "{name}: {value}: an answer was given to two");
        assert!(
            answers.iter().all(|answer| cache_status(answer) == "tollgate; fwd=uri-miss; fwd-status=200")
        );
        assert_eq!(gate.metric("tollgate_cache_entries", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn each_client_waits_as_long_as_it_wants_to() {
    let (upstream, gate) = start(numbered).await;
    let hurried = [("Tollgate-Timeout", "0.05")];
    for hurried_first in [true, false] {
        upstream.hold();
        let (target, before) = (format!("/kept/{hurried_first}"), upstream.count());
        let mut patient = Client::connect(gate.addr()).await;
        let mut client = Client::connect(gate.addr()).await;
        if hurried_first {
            client.ask("GET", &target, &hurried, b"").await;
            upstream.seen(before + 1).await;
            patient.ask("GET", &target, &[], b"").await;
        } else {
            patient.ask("GET", &target, &[], b"").await;
            upstream.seen(before + 1).await;
            client.ask("GET", &target, &hurried, b"").await;
        }
        let document = problem(&client.read("GET").await, 504, "client-timeout");
        assert_eq!((&document["fault"], &document["upstream_called"]), (&"client".into(), &"maybe".into()));
        gate.quiet().await;
        upstream.release();
        let answer = patient.read("GET").await;
        assert_eq!(answer.status, 200);
        assert_eq!(upstream.count(), before + 1, "the flight went on");
        assert!(cache_status(&gate.get(&target, &hurried).await).starts_with("tollgate; hit"));
    }
}

#[tokio::test]
async fn a_truncated_answer_is_never_stored_nor_passed_for_a_whole_one() {
    let (upstream, gate) = start(|request| {
        let reply = Reply::ok(vec![b'x'; 8000]).truncate(5000);
        let reply = if request.path().contains("chunked") { reply.chunked() } else { reply };
        if request.path().contains("streamed") { reply.header("Cache-Control", "no-store") } else { reply }
    })
    .await;
    for target in ["/kept/length", "/kept/chunked"] {
        for count in [1, 2] {
            let before = upstream.count();
            let document = problem(&gate.get(target, &[]).await, 502, "upstream-broken");
            assert_eq!(document["upstream_called"], "yes");
            assert_eq!(upstream.count(), before + 1, "{target} {count}: stored");
        }
    }
    // What is streamed has begun already: the connection breaks, so that nobody takes the half for the whole.
    for target in ["/kept/streamed/length", "/kept/streamed/chunked", "/plain/length"] {
        let mut client = Client::connect(gate.addr()).await;
        let answer = client.get(target, &[]).await;
        assert_eq!((answer.status, answer.complete), (200, false), "{target}");
        assert!(answer.body.len() <= 5000);
        assert!(client.read_to_close().await.is_empty(), "{target}");
    }
    assert_eq!(gate.metric("tollgate_cache_entries", &[]).await, 0.0);
    gate.metric_becomes("tollgate_permits", &[], |permits| permits == 0.0).await;
}

#[tokio::test]
async fn what_is_too_large_to_keep_streams_unshared() {
    const LARGE: usize = 1 << 20;
    let (head, rest) = (Signal::new(), Signal::new());
    let (before_head, before_body) = (head.clone(), rest.clone());
    let upstream = Upstream::start(move |request| {
        let reply = Reply::ok(vec![b'0' + u8::try_from(request.number % 10).unwrap(); LARGE]);
        match request.path() {
            "/kept/chunked" => reply.chunked(),
            "/kept/slow" => reply.after(&before_head).body_after(&before_body),
            _ => reply,
        }
    })
    .await;
    let config = config(&upstream.url()) + "[cache]\nmax_entry_bytes = \"64KiB\"\n";
    let gate = Setup::new(config).start().await;
    for target in ["/kept/length", "/kept/chunked"] {
        for _ in 0..2 {
            let before = upstream.count();
            let answer = gate.get(target, &[]).await;
            assert_eq!((answer.status, answer.complete, answer.body.len()), (200, true, LARGE), "{target}");
            assert!(answer.body.windows(2).all(|pair| pair[0] == pair[1]), "{target}");
            assert_eq!(cache_status(&answer), "tollgate; fwd=uri-miss; fwd-status=200");
            assert_eq!(upstream.count(), before + 1);
        }
    }
    // The head is passed on before the body has come.
    head.fire();
    let mut client = Client::connect(gate.addr()).await;
    client.ask("GET", "/kept/slow", &[("Connection", "close")], b"").await;
    let (status, headers) = client.read_head().await;
    assert_eq!((status, headers.first("content-length")), (200, Some("1048576")));
    assert_eq!(gate.metric("tollgate_permits", &[]).await, 1.0, "under way until its last byte");
    rest.fire();
    // Exactly the promised bytes are left on the wire.
    assert_eq!(client.read_to_close().await.len(), LARGE);
    gate.metric_becomes("tollgate_permits", &[], |permits| permits == 0.0).await;
}

#[tokio::test]
async fn head_asks_for_itself_unless_the_answer_is_held() {
    let (upstream, gate) = start(numbered).await;
    let mut client = Client::connect(gate.addr()).await;
    let head = client.request("HEAD", "/kept/a", &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("12")));
    assert_eq!(upstream.requests()[0].method, "HEAD");
    let get = client.get("/kept/a", &[]).await;
    assert_eq!((get.text().as_str(), upstream.count()), ("{\"number\":2}", 2), "HEAD is not kept for GET");
    let head = client.request("HEAD", "/kept/a", &[], b"").await;
    assert!(cache_status(&head).starts_with("tollgate; hit"), "{}", cache_status(&head));
    assert_eq!((head.header("content-length"), upstream.count()), (Some("12"), 2));
    assert_eq!(client.get("/kept/a", &[]).await.text(), "{\"number\":2}", "the connection is intact");
}

#[tokio::test]
async fn requests_with_bodies_go_alone_and_whole() {
    let (upstream, gate) = start(numbered).await;
    let mut client = Client::connect(gate.addr()).await;
    let large = vec![b'z'; 300_000];
    let chunks = b"5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n";
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for (method, headers, sent, received) in [
        ("POST", vec![form], &b"a=1&b=2"[..], &b"a=1&b=2"[..]),
        ("POST", vec![form], b"a=1&b=2", b"a=1&b=2"),
        ("PUT", vec![form], &large, &large),
        ("POST", vec![("Transfer-Encoding", "chunked")], chunks, b"hello there"),
        ("POST", vec![("Content-Length", "0")], b"", b""),
        ("GET", vec![], b"odd", b"odd"),
    ] {
        let before = upstream.count();
        let answer = client.request(method, "/written/a?b=2&a=1", &headers, sent).await;
        assert_eq!(answer.status, 200, "{method}");
        // A GET's method would do; its body is what no key holds.
        let why = if method == "GET" { "bypass" } else { "method" };
        assert_eq!(cache_status(&answer), format!("tollgate; fwd={why}; fwd-status=200"), "{method}");
        let seen = upstream.requests().split_off(before);
        assert_eq!(seen.len(), 1, "{method}: each costs its call");
        assert_eq!((seen[0].method.as_str(), seen[0].query()), (method, "a=1&b=2"));
        assert_eq!(seen[0].body, received, "{method}");
        let kind = headers.first().filter(|(name, _)| *name == "Content-Type").map(|(_, value)| *value);
        assert_eq!(seen[0].header("content-type"), kind);
    }
    // None of them was kept for those who only read.
    let before = upstream.count();
    let read = client.get("/written/a?b=2&a=1", &[]).await;
    assert!(cache_status(&read).contains("fwd=uri-miss"), "{}", cache_status(&read));
    assert_eq!(upstream.count(), before + 1);
}

#[tokio::test]
async fn an_idempotency_key_reaches_the_upstream_on_unsafe_methods() {
    let (upstream, gate) = start(numbered).await;
    let headers = [("Idempotency-Key", "\"order-7\"")];
    client::request(gate.addr(), "POST", "/written/a", &headers, b"x=1").await;
    assert_eq!(upstream.requests()[0].header("idempotency-key"), Some("\"order-7\""));
}

#[tokio::test]
async fn methods_that_the_route_does_not_allow_are_told_who_can_add_them() {
    let (upstream, gate) = start(numbered).await;
    for method in ["POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let answer = client::request(gate.addr(), method, "/kept/a", &[], b"").await;
        let document = problem(&answer, 405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
        let detail = format!("route kept allows GET, HEAD; its operator can add {method} to `methods`");
        assert_eq!(document["detail"], detail);
    }
    let answer = client::request(gate.addr(), "DELETE", "/written/a", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST, PUT")));
    let trace = client::request(gate.addr(), "TRACE", "/kept/a", &[], b"").await;
    assert_eq!((trace.status, trace.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(upstream.count(), 0);
}
