//! The support under test: what the other tests stand on must itself see and send what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::client::{self, Client};
use support::gate;
use support::json_server::{self, JsonServer};
use support::tls::Authority;
use support::upstream::{Reply, Signal, Upstream};

#[tokio::test]
async fn a_request_is_recorded_as_it_was_sent_and_answered_as_scripted() {
    let upstream = Upstream::start(|request| {
        Reply::json(format!("{{\"n\":{}}}", request.number)).header("X-Twice", "a").header("X-Twice", "b")
    })
    .await;
    let mut client = Client::connect(upstream.address()).await;
    let first = client.get("/list?b=2&a=%31", &[("X-Odd-CASE", "1"), ("x-odd-case", "2")]).await;
    let second = client.request("POST", "/list", &[], b"hello").await;

    assert_eq!((first.status, first.text().as_str()), (200, "{\"n\":1}"));
    assert_eq!(first.headers.all("x-twice"), ["a", "b"]);
    assert_eq!(second.json()["n"], 2);
    let seen = upstream.requests();
    assert_eq!((seen[0].path(), seen[0].query()), ("/list", "b=2&a=%31"));
    assert_eq!(seen[0].headers.0[1], ("X-Odd-CASE".to_owned(), "1".to_owned()));
    assert_eq!(seen[0].headers.all("X-Odd-Case"), ["1", "2"]);
    assert_eq!((seen[1].method.as_str(), seen[1].body.as_slice()), ("POST", b"hello".as_slice()));
    assert_eq!((seen[1].connection, upstream.connections()), (1, 1), "both on one connection");
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_and_broken_ones_are_known_as_such() {
    let upstream = Upstream::start(|request| {
        let reply = Reply::ok(vec![b'x'; 3000]);
        match request.path() {
            "/length" => reply,
            "/chunked" => reply.chunked(),
            "/close" => reply.until_close(),
            "/length/cut" => reply.truncate(2999),
            "/chunked/cut" => reply.chunked().truncate(2048),
            "/raw" => Reply::raw("HTTP/1.1 299 Odd\r\n\r\nas is"),
            _ => Reply::new(304, ""),
        }
    })
    .await;
    for (target, length, complete) in [
        ("/length", 3000, true),
        ("/chunked", 3000, true),
        ("/close", 3000, true),
        ("/length/cut", 2999, false),
        ("/chunked/cut", 2048, false),
        ("/raw", 5, true),
        ("/304", 0, true),
    ] {
        let answer = client::get(upstream.address(), target, &[]).await;
        assert_eq!((answer.body.len(), answer.complete), (length, complete), "{target}");
    }
    let head = client::request(upstream.address(), "HEAD", "/length", &[], b"").await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("3000"), 0));
}

#[tokio::test]
async fn silence_is_no_answer() {
    let upstream = Upstream::start(|_| Reply::silence()).await;
    let mut client = Client::connect(upstream.address()).await;
    client.ask("GET", "/", &[], b"").await;
    assert!(client.try_read("GET").await.is_none());
}

#[tokio::test]
async fn replies_wait_for_what_they_are_told_to_wait_for() {
    let (head, body) = (Signal::new(), Signal::new());
    let (before_head, before_body) = (head.clone(), body.clone());
    let upstream =
        Upstream::start(move |_| Reply::ok("late").after(&before_head).body_after(&before_body)).await;
    upstream.hold();
    let mut client = Client::connect(upstream.address()).await;
    client.ask("GET", "/", &[], b"").await;
    assert_eq!(upstream.seen(1).await.len(), 1, "recorded while held");
    upstream.release();
    head.fire();
    assert_eq!(client.read_head().await.0, 200);
    body.fire();
    // The body alone is left on the wire.
    client.ask("GET", "/", &[], b"").await;
    upstream.seen(2).await;
    drop(upstream);
    assert!(client.read_to_close().await.starts_with(b"late"));
}

#[tokio::test]
async fn a_killed_upstream_refuses_and_a_restarted_one_serves_on_the_same_port() {
    let mut upstream = Upstream::start(|_| Reply::ok("up")).await;
    let mut idle = Client::connect(upstream.address()).await;
    assert_eq!(idle.get("/", &[]).await.text(), "up");
    upstream.kill().await;
    assert!(!Client::connects(upstream.address()).await);
    assert!(idle.read_to_close().await.is_empty(), "idle connections are dropped");
    upstream.restart().await;
    assert_eq!(client::get(upstream.address(), "/", &[]).await.text(), "up");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn behind_tls_only_who_trusts_the_authority_is_served() {
    use std::sync::Arc;
    use support::{wire, within};
    use tokio::io::AsyncWriteExt;

    let authority = Authority::new("the one");
    let upstream = Upstream::start_tls(authority.server(&["localhost"]), |_| Reply::ok("secret")).await;
    assert!(upstream.url().starts_with("https://localhost:"));
    for (trusted, served) in [(Authority::new("another"), false), (authority, true)] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(upstream.address()).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(connected.is_ok(), served);
        match connected {
            Err(_) => upstream.handshake_refused().await,
            Ok(mut stream) => {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                let mut buffer = Vec::new();
                let head = within("a head", wire::read_head(&mut stream, &mut buffer)).await;
                let headers = head.unwrap().unwrap().headers;
                let body = wire::read_body(&mut stream, &mut buffer, &headers, false).await;
                assert_eq!(body.bytes, b"secret");
            }
        }
    }
}

#[test]
fn addresses_are_read_from_the_log() {
    let lines = [
        "not JSON",
        r#"{"level":"INFO","message":"listening","listener":"admin","address":"127.0.0.1:9090"}"#,
        r#"{"level":"INFO","fields":{"message":"listening","listener":"gate","address":"127.0.0.1:8080"}}"#,
    ]
    .map(str::to_owned);
    assert_eq!(gate::listening(&lines, "admin"), Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(gate::listening(&lines, "gate"), Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(gate::listening(&lines[..1], "gate"), None);
}

#[test]
fn samples_are_summed_over_the_labels_that_were_not_named() {
    let text = "# TYPE x_total counter\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"3\"} 4\nx_total_more 9\nx 5\n";
    assert_eq!(gate::sample(text, "x_total", &["a=\"1\""]), 7.0);
    assert_eq!(gate::sample(text, "x_total", &["a=\"1\"", "b=\"3\""]), 4.0);
    assert_eq!(gate::sample(text, "x", &[]), 5.0);
    assert_eq!(gate::sample(text, "x_total", &["a=\"9\""]), 0.0);
}

#[tokio::test]
async fn json_server_serves_the_real_messages_and_logs_every_request() {
    let messages = json_server::messages();
    assert_eq!(messages.len(), 4862);
    let server = JsonServer::start().await;
    let page = server.get("/messages?_page=2&_limit=25", &[]).await;
    assert_eq!(page.json().as_array().unwrap().as_slice(), &messages[25..50]);
    assert_eq!(page.header("x-total-count"), Some("4862"));
    assert_eq!(server.requests().await, ["GET /messages?_page=2&_limit=25"]);
}
