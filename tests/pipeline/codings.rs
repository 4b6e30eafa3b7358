//! What is compressed once it is stored, and who is given it.

use std::io::Read as _;
use std::pin::Pin;

use http_body::Body as _;

use crate::world::{Ask, Config, World, pass, reply, s};

fn compressing() -> World {
    playing("ttl = \"30s\"\ncompress = [\"zstd\", \"gzip\"]")
}

fn playing(cache: &'static str) -> World {
    let world = World::new(&Config { cache, ..Config::default() });
    world.upstream.plays(|heard| match heard.header("if-none-match") {
        Some(_) => reply(304, "").with("etag", "\"a\"").with("x-call", heard.n.to_string()),
        None => reply(200, "to be compressed, ".repeat(500))
            .with("content-type", "application/json")
            .with("etag", "\"a\"")
            .with("x-call", heard.n.to_string()),
    });
    world
}

/// Status, fields and body of an answer that may be any bytes.
async fn bytes(ask: Ask) -> (u16, http::HeaderMap, Vec<u8>) {
    let (head, mut body) = ask.head().await.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    (head.status.as_u16(), head.headers, bytes)
}

fn field<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_hit_comes_in_the_coding_that_its_client_likes() {
    let world = compressing();
    // Compressing goes on beside the first answer, and may be done before it: that one asks for none.
    let plain = world.get("/r").send().await;
    assert_eq!(plain.header("content-encoding"), None);
    world.quiet().await;
    for (accepted, coding, tag) in [
        ("gzip", Some("gzip"), "\"a-gzip\""),
        ("gzip, deflate, br, zstd", Some("zstd"), "\"a-zstd\""),
        ("br", None, "\"a\""),
    ] {
        let ask = || world.get("/r").with("accept-encoding", accepted);
        let (status, headers, body) = bytes(ask()).await;
        assert_eq!((status, field(&headers, "content-encoding")), (200, coding), "{accepted}");
        assert_eq!(field(&headers, "vary"), Some("accept-encoding"));
        assert_eq!(field(&headers, "etag"), Some(tag));
        assert!(field(&headers, "cache-status").is_some_and(|status| status.contains("hit")));
        if coding == Some("gzip") {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            assert!(text == plain.text() && body.len() < text.len() / 10);
        }
        // Each is validated by its own tag, and by no other's.
        assert_eq!(bytes(ask().with("if-none-match", tag)).await.0, 304);
        assert_eq!(bytes(ask().with("if-none-match", "\"a-br\"")).await.0, 200);
    }
    let (_, headers, body) = bytes(world.get("/r")).await;
    assert_eq!((field(&headers, "content-encoding"), body.len()), (None, plain.text().len()));
    assert_eq!(world.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_304_keeps_the_codings_and_changes_their_fields() {
    let world = compressing();
    world.get("/r").send().await;
    world.quiet().await;
    pass(s(31)).await;
    let ask = || world.get("/r").with("accept-encoding", "gzip");
    for calls in [2, 2] {
        let (status, headers, _) = bytes(ask()).await;
        assert_eq!((status, field(&headers, "content-encoding")), (200, Some("gzip")));
        assert_eq!((field(&headers, "x-call"), field(&headers, "etag")), (Some("2"), Some("\"a-gzip\"")));
        assert_eq!(world.calls(), calls);
    }
    let asked = world.upstream.heard();
    assert_eq!(asked[1].header("if-none-match"), Some("\"a\""), "the upstream knows its own tag alone");
}

#[tokio::test(start_paused = true)]
async fn codings_are_counted_in_what_the_cache_holds() {
    // Compressing may be done before the first answer: what is held without any is told by a world that does none.
    let held = async |world: World| {
        world.get("/r").send().await;
        world.quiet().await;
        world.metric("tollgate_cache_bytes", &[])
    };
    let (plain, coded) = (held(playing("ttl = \"30s\"")).await, held(compressing()).await);
    assert!(coded > plain + 1000.0, "{plain} {coded}");
}
