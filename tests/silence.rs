//! Connections whose clients say nothing for a while: the gate gives back what it takes to talk with them, and nobody can
//! tell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it times with the system's clock")]

mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::gate::{Gate, Setup, one_route};
use support::upstream::{Reply, Upstream};

/// Longer than a client must be silent for it.
const SILENCE: Duration = Duration::from_millis(2200);

async fn start(server: &str) -> (Upstream, Gate) {
    let upstream = Upstream::start(|request| Reply::json(format!("{{\"number\":{}}}", request.number))).await;
    let config = one_route(&upstream.url()) + "methods = [\"GET\", \"POST\"]\n";
    let gate = Setup::new(config).server(server).start().await;
    (upstream, gate)
}

#[tokio::test]
async fn who_was_silent_is_answered_as_before() {
    let (_upstream, gate) = start("").await;
    let mut client = Client::connect(gate.addr()).await;
    assert_eq!(client.get("/r/1", &[]).await.text(), "{\"number\":1}");
    tokio::time::sleep(SILENCE).await;
    // A head in two parts, and another request right behind it.
    client.send(b"GET /r/1 HTT").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.send(b"P/1.1\r\nHost: a\r\n\r\nGET /r/2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read("GET").await.text(), "{\"number\":1}");
    assert_eq!(client.read("GET").await.text(), "{\"number\":2}");
    tokio::time::sleep(SILENCE).await;
    // What must be refused still is.
    client
        .send(b"POST /r/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.read("POST").await.status, 400);
    assert!(client.read_to_close().await.is_empty());
}

#[tokio::test]
async fn a_request_that_is_not_over_is_no_silence() {
    let (upstream, gate) = start("").await;
    let mut client = Client::connect(gate.addr()).await;
    client.send(b"POST /r/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await;
    tokio::time::sleep(SILENCE).await;
    client.send(b"cd").await;
    assert_eq!(client.read("POST").await.status, 200);
    assert_eq!(upstream.requests().last().unwrap().body, b"abcd");
    tokio::time::sleep(SILENCE).await;
    client.send(b"\r\n\r\n").await;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(client.get("/r/1", &[]).await.status, 200);
}

#[tokio::test]
async fn silence_ends_at_the_idle_timeout_or_with_a_drain() {
    let (_upstream, gate) = start("idle_timeout = \"3s\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/1", &[]).await;
    let began = Instant::now();
    assert!(client.read_to_close().await.is_empty());
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&began.elapsed()));

    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/1", &[]).await;
    tokio::time::sleep(SILENCE).await;
    gate.signal("TERM");
    assert!(client.read_to_close().await.is_empty());
}
