//! `trusted_proxies`: whose word on the peer is taken, seen by what the limit of each peer counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::client::Client;
use support::gate::{Gate, Setup, one_route};
use support::http2::Http2;
use support::upstream::{Reply, Upstream};

fn setup(url: &str, server: &str) -> Setup {
    Setup::new(one_route(url)).server("rate_limit = { requests = 1, per = \"10m\" }").server(server)
}

async fn from(gate: &Gate, address: &str, headers: &[(&str, &str)]) -> u16 {
    let mut client = Client::connect_from(address.parse().unwrap(), gate.addr()).await;
    client.get("/r/a", headers).await.status
}

#[tokio::test]
async fn the_limit_of_each_peer_counts_whom_a_trusted_proxy_names() {
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let gate = setup(&upstream.url(), "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").start().await;
    for (address, headers, status) in [
        ("127.0.0.1", [("forwarded", "for=192.0.2.1")], 200),
        ("127.0.0.1", [("forwarded", "for=192.0.2.1")], 429),
        ("127.0.0.1", [("forwarded", "for=192.0.2.2, for=192.0.2.1;proto=https, for=10.1.1.1")], 429),
        ("127.0.0.1", [("forwarded", "for=\"[2001:db8::1]:4711\"")], 200),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.9, 192.0.2.2")], 200),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.2")], 429),
        // The proxy itself.
        ("127.0.0.1", [("forwarded", "for=unknown")], 200),
        ("127.0.0.1", [("forwarded", "for=_b")], 429),
        // Whoever is no proxy speaks for nobody.
        ("127.0.0.2", [("forwarded", "for=192.0.2.3")], 200),
        ("127.0.0.2", [("forwarded", "for=192.0.2.4")], 429),
        ("127.0.0.1", [("forwarded", "for=192.0.2.4")], 200),
    ] {
        assert_eq!(from(&gate, address, &headers).await, status, "{address} {headers:?}");
    }
    let second = Http2::connect(gate.addr()).await;
    assert_eq!(second.get("/r/a", &[("forwarded", "for=192.0.2.77")]).await.status, 200);
    assert_eq!(second.get("/r/a", &[("forwarded", "for=192.0.2.77")]).await.status, 429);
}

#[tokio::test]
async fn by_default_nobody_is_trusted() {
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let gate = setup(&upstream.url(), "").start().await;
    assert_eq!(from(&gate, "127.0.0.1", &[("forwarded", "for=192.0.2.1")]).await, 200);
    assert_eq!(from(&gate, "127.0.0.1", &[("x-forwarded-for", "192.0.2.2")]).await, 429);
}

#[tokio::test]
async fn check_prints_networks_and_refuses_what_is_none() {
    let check = async |list: &str| setup("http://127.0.0.1:9", list).run(&["check"]).await;
    let finished = check("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]").await;
    assert!(
        finished.stdout.contains("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1/128\"]"),
        "{finished:?}"
    );
    let finished = check("trusted_proxies = [\"10.0.0.1/8\", \"proxy.internal\"]").await;
    assert!(!finished.status.success());
    for said in
        ["\"10.0.0.1/8\" has bits behind its prefix; expected 10.0.0.0/8", "\"proxy.internal\" is no network"]
    {
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
}
