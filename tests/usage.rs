//! Who asked what, what it cost and what it saved: the page, the metrics and what the upstream received say the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use serde_json::Value;
use support::client::Client;
use support::gate::Setup;
use support::upstream::{Reply, Upstream};

fn route<'a>(usage: &'a Value, client: &str, route: &str) -> &'a Value {
    let clients = usage["clients"].as_array().unwrap();
    let client = clients.iter().find(|held| held["client"] == client).unwrap_or_else(|| panic!("{usage}"));
    client["routes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|held| held["route"] == route)
        .unwrap_or_else(|| panic!("{usage}"))
}

fn total(usage: &Value, of: impl Fn(&Value) -> u64) -> u64 {
    let routes =
        usage["clients"].as_array().unwrap().iter().flat_map(|client| client["routes"].as_array().unwrap());
    routes.map(of).sum()
}

#[tokio::test]
async fn usage_reconciles_with_what_the_upstream_received() {
    let upstream = Upstream::start(|request| {
        let held = Reply::ok("x").header("cache-control", "max-age=60");
        match request.query() {
            query if query.contains("stale") => Reply::ok("x")
                .header("cache-control", "max-age=0, stale-while-revalidate=60")
                .header("etag", "\"1\""),
            query if query.contains("checked") => {
                Reply::ok("x").header("cache-control", "no-cache").header("etag", "\"1\"")
            }
            query if query.contains("broken") => Reply::new(500, "broken"),
            _ => held,
        }
    })
    .await;
    let account = "headers.k = \"secret-key\"\nquota = [{ requests = 1000, per = \"1s\" }]\nprice = 0.25\n";
    let routes = ["a", "b"].map(|name| {
        format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"u\"\naccount = \"m\"\nmethods = \"all\"\n[routes.cache]\nenabled = true\n")
    });
    let config = format!(
        "[upstreams.u]\nurl = \"{}\"\n[upstreams.u.accounts.m]\n{account}\
         [clients.one]\nkey = \"key-of-one\"\n[clients.two]\nkey = \"key-of-two\"\nbudget = {{ requests = 3, per = \"1h\" }}\n{}",
        upstream.url(),
        routes.concat()
    );
    let gate = Setup::new(config).start().await;
    let ask = async |key: &str, target: &str| gate.get(target, &[("x-tollgate-key", key)]).await.status;
    for q in ["/a?q=1", "/a?q=1", "/a?q=1", "/a?stale", "/a?stale", "/a?checked", "/a?checked", "/b?broken"] {
        ask("key-of-one", q).await;
    }
    for q in ["/a?q=1", "/b?q=2", "/b?q=3", "/b?q=4", "/b?q=5"] {
        ask("key-of-two", q).await;
    }
    let mut crowd = tokio::task::JoinSet::new();
    upstream.hold();
    for _ in 0..5 {
        let address = gate.addr();
        crowd.spawn(async move {
            Client::connect(address).await.get("/a?q=crowd", &[("x-tollgate-key", "key-of-one")]).await.status
        });
    }
    gate.metric_becomes("tollgate_flights_active", &[], |flights| flights == 1.0).await;
    upstream.release();
    while let Some(status) = crowd.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    gate.quiet().await;
    let usage = gate.ask_admin("GET", "/usage").await.json();
    let calls = |route: &Value| route["upstream_calls"]["total"].as_u64().unwrap();
    assert_eq!(total(&usage, calls), upstream.count() as u64, "{usage}");
    assert_eq!(total(&usage, |route| route["requests"].as_u64().unwrap()), 8 + 5 + 5, "{usage}");
    let one = route(&usage, "one", "a");
    assert_eq!((&one["requests"], &one["hits"], &one["stale"]), (&12.into(), &2.into(), &1.into()), "{one}");
    let reasons = &one["upstream_calls"]["by_reason"];
    assert_eq!((&reasons["refresh"], &reasons["revalidation"]), (&1.into(), &1.into()), "{one}");
    // Some of the crowd came after the flight had landed; none of them cost anything.
    let saved = one["calls_saved"].as_u64().unwrap();
    assert_eq!(saved, 2 + 1 + 4, "{one}");
    assert_eq!(one["cost_saved"].as_f64(), Some(0.25 * 7.0), "{one}");
    let two = route(&usage, "two", "b");
    assert_eq!((&two["requests"], &two["refused"], calls(two)), (&4.into(), &1.into(), 3), "{two}");
    assert_eq!(two["cost"].as_f64(), Some(0.75), "{two}");
    // The metrics are the same counters, and a client sees its own alone.
    for (client, name) in [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")] {
        let labels = [format!("client=\"{client}\""), format!("route=\"{name}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let entry = route(&usage, client, name);
        assert_eq!(gate.metric("tollgate_calls_total", &labels).await, calls(entry) as f64);
        assert_eq!(gate.metric("tollgate_usage_total", &labels).await, entry["requests"].as_f64().unwrap());
    }
    let own = gate.get("/-/usage", &[("x-tollgate-key", "key-of-two")]).await;
    assert_eq!(own.status, 200);
    let own = own.json();
    assert_eq!(own["clients"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!(route(&own, "two", "b"), two);
    assert_eq!(gate.get("/-/usage", &[]).await.status, 401);
}

/// A limit in the shadow counts what it would refuse, and refuses nothing.
#[tokio::test]
async fn limits_in_the_shadow_refuse_nobody() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let config = format!(
        "[upstreams.u]\nurl = \"{}\"\n[upstreams.u.accounts.m]\nheaders.k = \"secret-key\"\n\
         quota = [{{ requests = 2, per = \"1h\", shadow = true }}, {{ requests = 100, per = \"1s\" }}]\n\
         [clients.c]\nkey = \"key-of-c\"\nrate_limit = {{ requests = 1, per = \"1h\", shadow = true }}\n\
         budget = {{ requests = 3, per = \"1h\", shadow = true }}\n\
         [[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\naccount = \"m\"\n",
        upstream.url()
    );
    let gate = Setup::new(config).start().await;
    for q in 0..5 {
        assert_eq!(gate.get(&format!("/r?q={q}"), &[("x-tollgate-key", "key-of-c")]).await.status, 200);
    }
    for (limit, count) in [("quota of m", 3.0), ("rate_limit of c", 4.0), ("budget of c", 2.0)] {
        assert_eq!(
            gate.metric("tollgate_shadow_total", &[&format!("limit=\"{limit}\"")]).await,
            count,
            "{limit}"
        );
    }
}
