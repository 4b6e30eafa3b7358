//! Ends and reloads under load: every request that has begun is answered, nothing is dropped, and a configuration
//! with a mistake changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::client::{self, Client};
use support::gate::{Gate, Setup};
use support::shipped::{cache_status, problem};
use support::upstream::{Reply, Request, Signal, Upstream};
use support::within;

fn config(url: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
[upstreams.u.accounts.a]
headers.api-key = {{ file = "{{folder}}/key" }}
quota = [{{ requests = 1000, per = "10m" }}]
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
account = "a"
[routes.cache]
ttl = "10m"
[[routes]]
name = "streamed"
path = "/streamed/*"
upstream = "u"
account = "a"
"#
    )
}

async fn start(server: &str, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Gate) {
    let upstream = Upstream::start(script).await;
    let setup = Setup::new(config(&upstream.url())).file("key", "first-key").server(server);
    (upstream, setup.start().await)
}

fn numbered(request: &Request) -> Reply {
    Reply::json(format!("{{\"number\":{}}}", request.number))
}

async fn closed(gate: &Gate) {
    within("the listener to close", async {
        while Client::connects(gate.addr()).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn says(gate: &Gate, words: &str) {
    gate.lines().find(words, |lines| lines.iter().any(|line| line.contains(words)).then_some(())).await;
}

const AT_ONCE: &str = "drain_delay = \"0s\"\ndrain_timeout = \"10m\"";

#[tokio::test]
async fn whatever_has_begun_is_answered_and_then_the_gate_ends_well() {
    for signal in ["TERM", "INT"] {
        let rest = Signal::new();
        let before_body = rest.clone();
        let (upstream, mut gate) = start(AT_ONCE, move |request| match request.path() {
            "/streamed/a" => Reply::ok(vec![b'x'; 200_000]).chunked().body_after(&before_body),
            _ => numbered(request),
        })
        .await;
        // A body that has begun to stream.
        let mut streaming = Client::connect(gate.addr()).await;
        streaming.ask("GET", "/streamed/a", &[], b"").await;
        assert_eq!(streaming.read_head().await.0, 200);
        // A connection between two requests, and one before its first.
        let mut idle = Client::connect(gate.addr()).await;
        idle.get("/r/warm", &[]).await;
        let mut silent = Client::connect(gate.addr()).await;
        // A flight with two clients, a request with half its head sent, one with half its body.
        upstream.hold();
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect(gate.addr()).await;
            client.ask("GET", "/r/held", &[], b"").await;
            waiting.push(client);
        }
        let mut half = Client::connect(gate.addr()).await;
        half.send(b"GET /r/half HTTP/1.1\r\nHost: ga").await;
        let mut one = Client::connect(gate.addr()).await;
        one.send(b"G").await;
        upstream.seen(3).await;
        gate.quiet().await;

        gate.signal(signal);
        closed(&gate).await;
        assert!(idle.read_to_close().await.is_empty() && silent.read_to_close().await.is_empty());
        assert_eq!(gate.ask_admin("GET", "/readyz").await.status, 503);
        assert_eq!(gate.ask_admin("GET", "/livez").await.status, 200);

        upstream.release();
        for client in &mut waiting {
            let answer = client.read("GET").await;
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        }
        half.send(b"te\r\n\r\n").await;
        one.send(b"ET /r/one HTTP/1.1\r\nHost: gate\r\n\r\n").await;
        for client in [&mut half, &mut one] {
            let answer = client.read("GET").await;
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
            assert!(client.read_to_close().await.is_empty());
        }
        rest.fire();
        let streamed = streaming.read_to_close().await;
        assert!(streamed.len() > 200_000 && streamed.ends_with(b"\r\n0\r\n\r\n"), "{}", streamed.len());
        assert_eq!(gate.wait().await.code(), Some(0));
    }
}

#[tokio::test]
async fn under_load_no_request_that_was_read_goes_unanswered() {
    const CLIENTS: usize = 16;
    let (_upstream, mut gate) = start("drain_delay = \"100ms\"\ndrain_timeout = \"10m\"", numbered).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut load = tokio::task::JoinSet::new();
    for at in 0..CLIENTS {
        let (answered, address) = (answered.clone(), gate.addr());
        load.spawn(async move {
            let mut client = Client::connect(address).await;
            // Some hit, some miss, some stream.
            for count in 0.. {
                let target = match at % 3 {
                    0 => "/r/same".to_owned(),
                    1 => format!("/r/{at}-{}", count % 40),
                    _ => format!("/streamed/{at}"),
                };
                let Some(answer) = client.try_get(&target).await else { return };
                // An account that is used up answers too.
                assert!(answer.complete && matches!(answer.status, 200 | 429), "{answer:?}");
                answered.fetch_add(1, Ordering::SeqCst);
                if answer.header("connection") == Some("close") {
                    assert!(client.read_to_close().await.is_empty());
                    return;
                }
            }
        });
    }
    within("load", async {
        while answered.load(Ordering::SeqCst) < 500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    gate.signal("TERM");
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert_eq!(gate.wait().await.code(), Some(0));
    // What the gate says it was asked is what the clients were answered: nothing was read and dropped.
    let said = gate.lines().all().iter().filter(|line| line.contains("\"message\":\"request\"")).count();
    assert_eq!(said, answered.load(Ordering::SeqCst));
    assert!(!gate.lines().contains("\"code\":499"));
}

#[tokio::test]
async fn balancers_learn_of_the_end_while_requests_are_still_served() {
    let (_upstream, mut gate) = start("drain_delay = \"10m\"\ndrain_timeout = \"20m\"", numbered).await;
    assert_eq!(gate.ask_admin("GET", "/readyz").await.status, 200);
    let mut kept = Client::connect(gate.addr()).await;
    kept.get("/r/a", &[]).await;
    gate.signal("TERM");
    within("/readyz to fail", async {
        while gate.ask_admin("GET", "/readyz").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Whoever comes is served, and told to come by another connection next time: one that is idle when the delay is over
    // would be closed while its client may be about to ask.
    let again = kept.get("/r/kept", &[]).await;
    assert_eq!((again.status, again.header("connection")), (200, Some("close")));
    assert_eq!(kept.read_to_close().await, b"");
    for count in 0..3 {
        let answer = gate.get(&format!("/r/new/{count}"), &[]).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    assert_eq!(gate.ask_admin("GET", "/livez").await.status, 200);
    // The second signal does not wait for anything.
    gate.signal("TERM");
    gate.wait().await;
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (upstream, mut gate) = start(AT_ONCE, numbered).await;
        upstream.hold();
        let mut client = Client::connect(gate.addr()).await;
        client.ask("GET", "/r/a", &[], b"").await;
        upstream.seen(1).await;
        gate.signal(first);
        says(&gate, "draining").await;
        gate.signal(second);
        assert_eq!(gate.wait().await.code(), Some(1), "something was left unanswered");
        assert_eq!(text(&client.read_to_close().await), "");
    }
}

#[tokio::test]
async fn whoever_never_ends_is_left_behind_when_the_time_is_over() {
    let (upstream, mut gate) = start("drain_delay = \"0s\"\ndrain_timeout = \"200ms\"", numbered).await;
    upstream.hold();
    let mut client = Client::connect(gate.addr()).await;
    client.ask("GET", "/r/a", &[], b"").await;
    upstream.seen(1).await;
    gate.signal("TERM");
    assert_eq!(gate.wait().await.code(), Some(1));
    assert_eq!(text(&client.read_to_close().await), "");
}

/// Puts `new` in place of `old` in the gate's configuration and has it read again.
async fn reload(gate: &Gate, changes: &[(&str, &str)], result: &str) {
    let path = gate.path("config.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    // In place of the old one at once, as an editor does it.
    std::fs::write(gate.path("new.toml"), text).unwrap();
    std::fs::rename(gate.path("new.toml"), path).unwrap();
    let label = [&*format!("result=\"{result}\"")];
    let before = gate.metric("tollgate_config_reloads_total", &label).await;
    gate.signal("HUP");
    gate.metric_becomes("tollgate_config_reloads_total", &label, |count| count == before + 1.0).await;
}

#[tokio::test]
async fn whoever_asks_after_a_reload_waits_for_the_call_that_began_before_it() {
    let (upstream, gate) = start("", numbered).await;
    upstream.hold();
    let mut clients = Vec::new();
    for limit in [("[server]", "[server]\nmax_waiters = 9"), ("max_waiters = 9", "max_waiters = 4")] {
        for _ in 0..2 {
            let mut client = Client::connect(gate.addr()).await;
            client.ask("GET", "/r/a", &[], b"").await;
            clients.push(client);
        }
        gate.quiet().await;
        reload(&gate, &[limit], "ok").await;
    }
    // Those who came before the reload count for its limits too.
    problem(&client::get(gate.addr(), "/r/b", &[]).await, 503, "overloaded");
    upstream.release();
    for mut client in clients {
        assert_eq!(client.read("GET").await.text(), "{\"number\":1}");
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(gate.metric("tollgate_flights_active", &[]).await, 0.0);
}

#[tokio::test]
async fn a_reload_judges_what_is_held_by_the_new_rules_and_keeps_what_was_spent() {
    let (upstream, gate) = start("", numbered).await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    assert!(cache_status(&client.get("/r/a", &[]).await).starts_with("tollgate; hit"));
    assert_eq!(gate.metric("tollgate_quota_remaining", &[]).await, 999.0);

    reload(&gate, &[("ttl = \"10m\"", "ttl = \"0s\"")], "ok").await;
    let stale = client.get("/r/a", &[]).await;
    assert_eq!((stale.text().as_str(), cache_status(&stale).contains("fwd=stale")), ("{\"number\":2}", true));
    assert_eq!(gate.metric("tollgate_quota_remaining", &[]).await, 998.0, "the account is the same");

    // Back again: what is held is fresh once more, for it was kept.
    reload(&gate, &[("ttl = \"0s\"", "ttl = \"10m\"\nstale_if_error = \"1m\"")], "ok").await;
    let hit = client.get("/r/a", &[]).await;
    assert!(cache_status(&hit).starts_with("tollgate; hit"), "{}", cache_status(&hit));

    // Another meaning of the same request is another question.
    let params =
        [("[routes.cache]", "[routes.params]\npage = { type = \"integer\", default = 1 }\n[routes.cache]")];
    reload(&gate, &params, "ok").await;
    let asked = client.get("/r/a", &[]).await;
    assert!(cache_status(&asked).contains("fwd=uri-miss"), "{}", cache_status(&asked));

    // Secrets are read again.
    std::fs::write(gate.path("key"), "second-key").unwrap();
    reload(&gate, &[], "ok").await;
    client.get("/r/b", &[]).await;
    assert_eq!(upstream.requests().last().unwrap().header("api-key"), Some("second-key"));
    assert_eq!(gate.metric("tollgate_config_reloads_total", &["result=\"failed\""]).await, 0.0);
    assert!(gate.ask_admin("GET", "/config").await.text().contains("stale_if_error = \"60s\""));
}

#[tokio::test]
async fn a_reload_that_changes_windows_spends_no_window_twice_and_opens_no_account() {
    let (upstream, gate) = start("", numbered).await;
    for n in 0..3 {
        assert_eq!(client::get(gate.addr(), &format!("/r/{n}"), &[]).await.status, 200);
    }
    gate.ask_admin("POST", "/accounts/a/pause?for=1h").await;
    reload(&gate, &[("requests = 1000", "requests = 3")], "ok").await;
    problem(&client::get(gate.addr(), "/r/3", &[]).await, 429, "account-paused");
    gate.ask_admin("POST", "/accounts/a/resume").await;
    problem(&client::get(gate.addr(), "/r/3", &[]).await, 429, "quota-exceeded");
    reload(&gate, &[("requests = 3", "requests = 4")], "ok").await;
    assert_eq!(client::get(gate.addr(), "/r/4", &[]).await.status, 200);
    problem(&client::get(gate.addr(), "/r/5", &[]).await, 429, "quota-exceeded");
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing_and_is_told() {
    let (upstream, gate) = start("", numbered).await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    let config = gate.ask_admin("GET", "/config").await.text();
    for (old, new, told) in [
        ("ttl = \"10m\"", "ttl = \"10\"", "routes[r].cache.ttl"),
        ("ttl = \"10\"", "tll = \"10m\"", "did you mean `ttl`"),
        ("tll = \"10m\"", "ttl = ", "not TOML"),
        ("ttl = ", "ttl = \"1s\"\n[routes.cache.tags]\n\"x\" = \"y\"", "config.toml:"),
    ] {
        reload(&gate, &[(old, new)], "failed").await;
        says(&gate, told).await;
        assert!(cache_status(&client.get("/r/a", &[]).await).starts_with("tollgate; hit"));
        assert_eq!(gate.ask_admin("GET", "/config").await.text(), config);
    }
    // A secret that is gone is a mistake too; so is a configuration that is.
    std::fs::remove_file(gate.path("key")).unwrap();
    reload(&gate, &[("ttl = \"1s\"\n[routes.cache.tags]\n\"x\" = \"y\"", "ttl = \"1s\"")], "failed").await;
    std::fs::remove_file(gate.path("config.toml")).unwrap();
    gate.signal("HUP");
    let failed = ["result=\"failed\""];
    gate.metric_becomes("tollgate_config_reloads_total", &failed, |count| count == 6.0).await;
    assert!(cache_status(&client.get("/r/a", &[]).await).starts_with("tollgate; hit"));
    assert_eq!(gate.ask_admin("GET", "/readyz").await.status, 200);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn no_request_fails_while_configurations_come_and_go() {
    const CLIENTS: usize = 8;
    let (_upstream, gate) = start("", numbered).await;
    reload(&gate, &[("requests = 1000, per = \"10m\"", "requests = 1000000, per = \"10m\"")], "ok").await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for at in 0..CLIENTS {
        let (over, answered, address) = (over.clone(), answered.clone(), gate.addr());
        load.spawn(async move {
            let mut kept = Client::connect(address).await;
            for count in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let target = format!("/{}/{at}-{}", ["r", "streamed"][count % 2], count % 20);
                let answer = if count % 5 == 0 {
                    client::get(address, &target, &[]).await
                } else {
                    kept.get(&target, &[]).await
                };
                assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..5 {
        let before = answered.load(Ordering::SeqCst);
        reload(&gate, &[("ttl = \"10m\"", "ttl = \"0s\"")], "ok").await;
        reload(&gate, &[("ttl = \"0s\"", "ttl = nonsense")], "failed").await;
        reload(&gate, &[("ttl = nonsense", "ttl = \"10m\"")], "ok").await;
        within("load", async {
            while answered.load(Ordering::SeqCst) < before + 100 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
}

/// A request that comes too late finds the door closed, not a broken answer.
#[tokio::test]
async fn a_faulty_request_during_the_drain_is_answered_like_any_other() {
    let (_upstream, mut gate) = start(AT_ONCE, numbered).await;
    let mut late = Client::connect(gate.addr()).await;
    late.send(b"DELETE /r/a HTTP/1.1\r\n").await;
    gate.quiet().await;
    gate.signal("TERM");
    closed(&gate).await;
    late.send(b"Host: gate\r\n\r\n").await;
    problem(&late.read("DELETE").await, 405, "method-not-allowed");
    assert_eq!(gate.wait().await.code(), Some(0));
}
