//! HTTP/2 over real sockets, from clients and to upstreams: what works as over HTTP/1.1, what RFC 9113 refuses, and what
//! one client can do to others, which is nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use h2::client::Builder;
use support::client::{self, Client};
use support::gate::{Gate, Setup};
use support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Http2, Http2Upstream, PING,
    PREFACE, RST_STREAM, SETTINGS, Told, WINDOW_UPDATE, block, collect, frame, get,
};
use support::shipped::{cache_status, problem};
use support::tls::Authority;
use support::upstream::{Reply, Signal, Upstream};
use support::within;
use tokio::net::TcpStream;

fn config(url: &str, upstream: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}/base"
{upstream}
[upstreams.u.accounts.a]
headers.api-key = {{ env = "KEY" }}
quota = [{{ requests = 1000, per = "10m" }}]
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
account = "a"
[routes.cache]
ttl = "10m"
[[routes]]
name = "w"
path = "/w/*"
upstream = "u"
account = "a"
methods = "all"
forward_headers = "all"
[routes.cache]
enabled = false
"#
    )
}

async fn gate(url: &str, server: &str) -> Gate {
    Setup::new(config(url, "")).env("KEY", "k").server(server).start().await
}

async fn start(server: &str) -> (Upstream, Gate) {
    let upstream = Upstream::start(|request| Reply::json(format!("[{:?}]", request.target))).await;
    let gate = gate(&upstream.url(), server).await;
    (upstream, gate)
}

/// That the gate still serves others, from memory and from upstream.
async fn serves(gate: &Gate) {
    let answer = client::get(gate.addr(), "/r/afterwards", &[]).await;
    assert_eq!((answer.status, answer.complete), (200, true));
}

// ---- clients ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn requests_hits_faults_and_bodies_are_those_of_http1() {
    let (upstream, gate) = start("").await;
    let client = Http2::connect(gate.addr()).await;
    let first = client.get("/r/a?x=1", &[("connection-less", "1")]).await;
    assert_eq!((first.status, first.text().as_str()), (200, "[\"/base/r/a?x=1\"]"));
    assert_eq!(cache_status(&first), "tollgate; fwd=uri-miss; fwd-status=200; stored");
    let hit = client.get("/r/a?x=1", &[]).await;
    assert!(cache_status(&hit).starts_with("tollgate; hit"), "{:?}", hit.headers);
    assert_eq!(hit.body, first.body);
    let same = gate.get("/r/a?x=1", &[]).await;
    assert_eq!(same.body, hit.body, "one memory for both protocols");
    for answer in [&first, &hit] {
        // "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields" (§8.2.2).
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
            assert_eq!(answer.header(name), None);
        }
        assert_eq!(answer.header("content-length"), Some("17"));
        assert!(answer.headers.0.iter().all(|(name, _)| *name == name.to_lowercase()));
    }
    let head = client.request("HEAD", "/r/a?x=1", &[], b"").await.unwrap();
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("17")));
    problem(&client.get("/nowhere", &[]).await, 404, "no-such-route");
    let refused = client.request("POST", "/r/a", &[], b"{}").await.unwrap();
    problem(&refused, 405, "method-not-allowed");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    let posted = client.request("POST", "/w/a", &[("content-type", "text/plain")], b"hello").await.unwrap();
    assert_eq!(posted.status, 200);
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2, "one of them was a hit");
    assert_eq!(seen[1].body, b"hello");
    assert_eq!(seen[0].headers.all("host"), [upstream.address().to_string().as_str()]);
    assert_eq!(seen[0].headers.all("api-key"), ["k"]);
}

#[tokio::test]
async fn many_streams_at_once_are_answered_each_its_own() {
    let (upstream, gate) = start("max_streams = 50").await;
    upstream.hold();
    let client = Http2::connect(gate.addr()).await;
    client.get("/nowhere", &[]).await;
    assert_eq!(client.max_streams(), 50);
    let targets: Vec<_> = (0..200).map(|n| format!("/r/{}", n % 20)).collect();
    let asked = targets.iter().map(|target| client.get(target, &[]));
    let (answers, ()) = tokio::join!(join_all(asked), async {
        // Those that the ceiling on calls lets through.
        upstream.seen(16).await;
        upstream.release();
    });
    for (target, answer) in targets.iter().zip(answers) {
        assert_eq!((answer.status, answer.text()), (200, format!("[\"/base{target}\"]")));
    }
    assert_eq!(upstream.count(), 20, "flights are shared");
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_may_be_sent_again() {
    let (upstream, gate) = start("max_streams = 2").await;
    upstream.hold();
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    // Before the gate's settings are acknowledged: a client that has not read them, or does not care.
    for stream in [1, 3, 5] {
        frames.write(get(stream, &format!("/r/{stream}"), &[])).await.unwrap();
    }
    let reset = frames.find(RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.payload), (5, 7_u32.to_be_bytes().to_vec()), "REFUSED_STREAM");
    upstream.release();
    let mut answered =
        [frames.find(HEADERS).await.unwrap().stream, frames.find(HEADERS).await.unwrap().stream];
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    assert_eq!(upstream.count(), 2);
}

/// RFC 9113 §8.3.1: "the entity in the `:authority`" is whom the request is for.
#[tokio::test]
async fn whom_a_request_is_for_is_told_once() {
    let (_upstream, gate) = start("hosts = [\"gate.example\"]").await;
    let fields = |authority: Option<&'static str>, host: &[&'static str]| {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/r/a")];
        fields.extend(authority.map(|name| (":authority", name)));
        fields.extend(host.iter().map(|name| ("host", *name)));
        block(&fields)
    };
    for (what, fields, status) in [
        ("an authority", fields(Some("gate.example"), &[]), 200),
        ("with a port", fields(Some("gate.example:8080"), &[]), 200),
        ("another's", fields(Some("elsewhere.example"), &[]), 421),
        ("a host in place of it", fields(None, &["gate.example"]), 200),
        ("both, the same", fields(Some("gate.example"), &["gate.example"]), 200),
        ("both, not the same", fields(Some("gate.example"), &["elsewhere.example"]), 400),
        ("neither", fields(None, &[]), 400),
        ("a doubled host", fields(Some("gate.example"), &["gate.example", "gate.example"]), 400),
    ] {
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await.unwrap();
        let head = frames.find(HEADERS).await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(status_of(&head.payload), status, "{what}");
    }
}

/// The status in a header block's first byte or bytes: from the static table, or a literal with an indexed name.
fn status_of(block: &[u8]) -> u16 {
    // The table's size may be told first.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    match block[at] {
        0x88 => 200,
        0x89 => 204,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => {
            // `:status` is index 8; the value is Huffman-coded, or plain.
            let length = usize::from(block[at + 1] & 0x7f);
            let value = &block[at + 2..at + 2 + length];
            if block[at + 1] & 0x80 == 0 {
                return String::from_utf8_lossy(value).parse().unwrap();
            }
            digits(value)
        }
    }
}

/// Three digits in HPACK's Huffman code: 0, 1, 2 take five bits, 3 to 9 six (RFC 7541, appendix B).
fn digits(coded: &[u8]) -> u16 {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |code, _| code << 1 | bits.next().unwrap());
        let digit = if five < 3 { five } else { (five << 1 | bits.next().unwrap()) - 0x19 + 3 };
        number = number * 10 + digit;
    }
    number
}

/// "Any message containing connection-specific header fields MUST be treated as malformed" (§8.2.2), as is what §8.3 and
/// §8.2 say of pseudo-header fields and names: a stream error of type PROTOCOL_ERROR, and nothing goes upstream.
#[tokio::test]
async fn malformed_requests_are_stream_errors() {
    let (upstream, gate) = start("").await;
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", "gate.example"), (":path", "/r/a")];
    let with = |more: &[(&'static str, &'static str)]| block(&[&good, more].concat());
    for (what, fields) in [
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("te beside trailers", with(&[("te", "gzip")])),
        ("an upper-case name", with(&[("Accept", "*/*")])),
        ("a line break in a value", with(&[("accept", "a\r\nb: c")])),
        ("a pseudo-field after a field", with(&[("accept", "*/*"), (":path", "/r/b")])),
        ("a doubled pseudo-field", with(&[(":path", "/r/b")])),
        ("an unknown pseudo-field", with(&[(":secret", "x")])),
        ("a response's pseudo-field", with(&[(":status", "200")])),
        ("no path", block(&good[..3])),
        ("an empty path", block(&[&good[..3], &[(":path", "")]].concat())),
        ("no method", block(&good[1..])),
        ("no scheme", block(&[good[0], good[2], good[3]])),
        ("a length without a body", with(&[("content-length", "5")])),
    ] {
        let name_is_wrong =
            matches!(what, "an upper-case name" | "a line break in a value" | "an unknown pseudo-field");
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await.unwrap();
        let refused = loop {
            match frames.read().await {
                Some(frame) if matches!(frame.kind, RST_STREAM | GOAWAY) => break frame,
                Some(frame) if frame.kind == HEADERS => {
                    panic!("{what}: answered {}", status_of(&frame.payload))
                }
                Some(_) => {}
                None => panic!("{what}: the connection ended without a word"),
            }
        };
        let code = &refused.payload[refused.payload.len() - 4..];
        assert_eq!(code, 1_u32.to_be_bytes(), "{what}: {refused:?}");
        // What cannot be decoded may end the connection (§5.4.2); otherwise it goes on.
        if refused.kind == GOAWAY {
            assert!(name_is_wrong, "{what}: {refused:?}");
            continue;
        }
        frames.write(get(3, "/nowhere", &[("te", "trailers")])).await.unwrap();
        assert_eq!(frames.find(HEADERS).await.map(|head| head.stream), Some(3), "{what}");
    }
    assert_eq!(upstream.count(), 0);
}

/// Malformed as well (§8.2.1, §8.3.1), though parsers let it pass: 400, and nothing goes upstream.
#[tokio::test]
async fn what_parsers_let_pass_is_refused() {
    let (upstream, gate) = start("").await;
    let head = |method, authority, path, more: &[(&'static str, &'static str)]| {
        let good = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)];
        block(&[&good, more].concat())
    };
    let with = |more: &[(&'static str, &'static str)]| head("GET", "gate.example", "/w/a", more);
    for (what, fields, status) in [
        ("a space before a value", with(&[("accept", " a/b")]), 400),
        ("a space behind a value", with(&[("accept", "a/b ")]), 400),
        ("a tab behind a value", with(&[("x-any", "a\t")]), 400),
        (
            "a scheme of another protocol",
            block(&[(":method", "GET"), (":scheme", "ftp"), (":authority", "g"), (":path", "/w/a")]),
            400,
        ),
        ("userinfo", head("GET", "u:p@gate.example", "/w/a", &[]), 400),
        ("a query without a path", head("GET", "gate.example", "?w=a", &[]), 400),
        ("an asterisk for GET", head("GET", "gate.example", "*", &[]), 400),
        ("an asterisk for OPTIONS", head("OPTIONS", "gate.example", "*", &[]), 204),
        ("a tunnel", block(&[(":method", "CONNECT"), (":authority", "gate.example:443")]), 405),
        ("TRACE", head("TRACE", "gate.example", "/w/a", &[]), 405),
        ("an unknown expectation", with(&[("expect", "tea")]), 417),
        (
            "OPTIONS that may go no further",
            head("OPTIONS", "gate.example", "/w/a", &[("max-forwards", "0")]),
            204,
        ),
    ] {
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await.unwrap();
        let head = frames.find(HEADERS).await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(status_of(&head.payload), status, "{what}");
    }
    assert_eq!(upstream.count(), 0);
    // What is refused before its parser says more was never a request.
    for (what, fields) in [
        (
            "a second request within the path",
            head("GET", "gate.example", "/w/a HTTP/1.1\r\n\r\nGET /w/b", &[]),
        ),
        ("a path without a slash", head("GET", "gate.example", "w/a", &[])),
        (
            "a second request within the method",
            head("GET /w/b HTTP/1.1\r\n\r\nGET", "gate.example", "/w/a", &[]),
        ),
        ("a field within the authority", head("GET", "gate.example\r\nx: y", "/w/a", &[])),
        (
            "a target in place of the scheme",
            block(&[
                (":method", "GET"),
                (":scheme", "http://other/a?"),
                (":authority", "g"),
                (":path", "/w/a"),
            ]),
        ),
        (
            "a tunnel by another protocol",
            block(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "g"),
                (":path", "/w/a"),
            ]),
        ),
        ("two lengths that differ", with(&[("content-length", "0"), ("content-length", "1")])),
        ("a name with a line break", with(&[("x\r\ny", "a")])),
    ] {
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await.unwrap();
        let refused = async {
            while let Some(frame) = frames.read().await {
                assert_ne!(frame.kind, HEADERS, "{what}: answered");
                if matches!(frame.kind, RST_STREAM | GOAWAY) {
                    return;
                }
            }
        };
        within("a refusal", refused).await;
    }
    gate.quiet().await;
    assert_eq!(upstream.count(), 0);
}

/// A body that is longer or shorter than its `content-length` is malformed (§8.1.1), however its frames are cut.
#[tokio::test]
async fn bodies_that_contradict_their_length_never_reach_the_upstream_whole() {
    let (upstream, gate) = start("").await;
    let head = |length| {
        block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "gate.example"),
            (":path", "/w/a"),
            ("content-length", length),
        ])
    };
    for (length, data) in [("5", &b"four"[..]), ("3", b"four")] {
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(frame(HEADERS, END_HEADERS, 1, &head(length))).await.unwrap();
        frames.write(frame(DATA, END_STREAM, 1, data)).await.unwrap();
        let reset = frames.find(RST_STREAM).await.expect("a stream error");
        assert_eq!(reset.stream, 1);
    }
    gate.quiet().await;
    assert!(upstream.requests().iter().all(|request| request.body != b"four"));
}

/// Frames that no client may send end their stream or their connection with an error (§5, §6), whatever code the library has
/// for it; nothing of them goes upstream, and others are served.
#[tokio::test]
async fn frames_out_of_place_end_their_stream_or_their_connection() {
    const PRIORITY: u8 = 2;
    const PUSH_PROMISE: u8 = 5;
    const PADDED: u8 = 8;
    let (upstream, gate) = start("").await;
    let fields: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":authority", "gate.example"), (":path", "/w/a")];
    let post = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let with_trailers = |flags, trailers: &[(&str, &str)]| {
        let (body, trailers) = (frame(DATA, 0, 1, b"hi"), frame(HEADERS, flags, 1, &block(trailers)));
        [&post[..], &body, &trailers].concat()
    };
    let nowhere = |stream| get(stream, "/nowhere", &[]);
    for (what, bytes) in [
        ("DATA behind the end", [nowhere(1), frame(DATA, 0, 1, b"hi")].concat()),
        ("a second head behind the end", nowhere(1).repeat(2)),
        ("DATA of no stream", frame(DATA, END_STREAM, 0, b"hi")),
        ("DATA before a head", frame(DATA, END_STREAM, 1, b"hi")),
        ("a head of no stream", nowhere(0)),
        ("a stream of the server's", nowhere(2)),
        ("a stream below the last", [nowhere(3), nowhere(1)].concat()),
        ("a stream that depends on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block(&fields))),
        (
            "something within a head",
            [frame(HEADERS, END_STREAM, 1, &block(&fields)), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("a window that opens by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a short ping", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a setting cut short", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        (
            "padding longer than its frame",
            [&post[..], &frame(DATA, PADDED | END_STREAM, 1, &[9, 1])].concat(),
        ),
        ("trailers that do not end the stream", with_trailers(END_HEADERS, &[("x-t", "a")])),
    ] {
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        frames.write(&bytes).await.unwrap();
        let error = loop {
            match frames.read().await {
                Some(frame) if frame.kind == RST_STREAM => break frame.payload,
                Some(frame) if frame.kind == GOAWAY => break frame.payload[4..8].to_vec(),
                Some(_) => {}
                None => panic!("{what}: the connection ended without a word"),
            }
        };
        assert_ne!(error, [0; 4], "{what}");
    }
    serves(&gate).await;
    gate.quiet().await;
    assert!(!upstream.requests().iter().any(|request| request.body == b"hi"));
    // A pseudo-field in trailers the library drops without a word; the gate passes no trailers on.
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    frames
        .write(with_trailers(END_HEADERS | END_STREAM, &[(":path", "/w/b"), ("api-key", "mine")]))
        .await
        .unwrap();
    assert_eq!(frames.find(HEADERS).await.map(|head| status_of(&head.payload)), Some(200));
    let passed = upstream.requests().pop().unwrap();
    assert_eq!(
        (passed.path(), &*passed.body, passed.headers.all("api-key")),
        ("/base/w/a", &b"hi"[..], vec!["k"])
    );
    assert!(!passed.contains("mine") && !passed.contains("/w/b"));
}

/// A `:path` is "a sequence of … pchar" (§8.3.1, RFC 3986 §3.3): what has another byte is refused, or passed on as it
/// came, or encoded. Of a fragment alone the gate never hears, for its parser cuts it off: what is asked is what stands
/// before it, upstream and in memory alike.
#[tokio::test]
async fn no_byte_of_a_path_makes_it_another() {
    let (upstream, gate) = start("").await;
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    for (stream, byte) in (1..).step_by(2).zip((0..=127).map(char::from).chain(['é'])) {
        let target = format!("/w/a{byte}b?c{byte}d");
        let (before, mut utf8) = (upstream.count(), [0; 4]);
        frames.write(get(stream, &target, &[])).await.unwrap();
        let answer = loop {
            match frames.read().await {
                Some(frame) if frame.stream != stream => {}
                Some(frame) if frame.kind == RST_STREAM => break None,
                Some(frame) if frame.kind == HEADERS => break Some(status_of(&frame.payload)),
                Some(_) => {}
                None => panic!("{byte:?}: the connection ended"),
            }
        };
        let heard: Vec<_> = upstream.requests().drain(before..).map(|request| request.target).collect();
        match (byte, answer) {
            ('#', _) => assert_eq!((answer, heard), (Some(200), vec!["/base/w/a".to_owned()])),
            (_, Some(200)) => {
                let encoded = percent_encoding::utf8_percent_encode(byte.encode_utf8(&mut utf8), TARGET);
                assert_eq!(heard, [format!("/base/w/a{encoded}b?c{encoded}d")], "{byte:?}");
            }
            (_, refused) => {
                assert!(matches!(refused, None | Some(400)), "{byte:?}: {refused:?}");
                assert_eq!(heard, [""; 0], "{byte:?}");
                assert!(!(byte.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?".contains(byte)), "{byte:?}");
            }
        }
    }
    let kept = Http2::connect(gate.addr()).await.get("/r/a", &[]).await;
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    frames.write(get(1, "/r/a#b", &[])).await.unwrap();
    assert_eq!(frames.find(DATA).await.map(|data| data.payload), Some(kept.body), "one entry");
    assert_eq!(upstream.requests().last().map(|request| request.target.clone()), Some("/base/r/a".into()));
}

/// What stands in a target as it is: everything ASCII that is not refused.
const TARGET: &percent_encoding::AsciiSet = percent_encoding::CONTROLS;

/// "the cookie-pairs … MUST be concatenated into a single byte string using the two-octet delimiter `; `" before they go
/// to a connection that is not HTTP/2 (§8.2.3).
#[tokio::test]
async fn split_cookies_are_one_again_upstream() {
    let (upstream, gate) = start("").await;
    let client = Http2::connect(gate.addr()).await;
    client.get("/w/a", &[("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")]).await;
    assert_eq!(upstream.requests()[0].headers.all("cookie"), ["a=b; c=d; e=f"]);
}

/// The list's limit counts every field, cookies too (§6.5.2): 431, where the client can be told.
#[tokio::test]
async fn header_lists_are_limited() {
    let (upstream, gate) = start("max_head_bytes = \"16KiB\"").await;
    let cookie = &*"c".repeat(1000);
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    frames.write(get(1, "/w/small", &[("cookie", cookie); 12])).await.unwrap();
    assert_eq!(status_of(&frames.find(HEADERS).await.unwrap().payload), 200);
    let large = block(&[("cookie", cookie); 24]);
    let begin = get(3, "/w/large", &[]);
    let mut head = begin.clone();
    head[4] = END_STREAM;
    frames.write(head).await.unwrap();
    let (one, two) = large.split_at(16_000);
    frames.write(frame(CONTINUATION, 0, 3, one)).await.unwrap();
    frames.write(frame(CONTINUATION, END_HEADERS, 3, two)).await.unwrap();
    let refused = frames.find(HEADERS).await.expect("an answer");
    assert_eq!((refused.stream, status_of(&refused.payload)), (3, 431));
    frames.write(get(5, "/w/small", &[])).await.unwrap();
    assert_eq!(frames.find(HEADERS).await.map(|head| head.stream), Some(5));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn the_number_of_fields_is_limited_as_on_http1() {
    let (upstream, gate) = start("max_headers = 20").await;
    let client = Http2::connect(gate.addr()).await;
    let names: Vec<String> = (0..30).map(|n| format!("x-{n}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
    assert_eq!(client.get("/w/a", &fields[..10]).await.status, 200);
    assert_eq!(client.get("/w/a", &fields).await.status, 431);
    assert_eq!(upstream.count(), 1);
}

/// CVE-2023-44487: streams that are reset as soon as they are opened.
#[tokio::test]
async fn rapid_resets_end_the_connection_and_harm_nobody() {
    let (upstream, gate) = start("").await;
    let neighbour = Http2::connect(gate.addr()).await;
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    let mut storm = Vec::new();
    for stream in (1..20_000).step_by(2) {
        storm.extend(get(stream, "/w/x", &[]));
        storm.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    // The gate may close before it has read all of it.
    let _ = frames.write(storm).await;
    let _ = frames.rest().await;
    gate.metric_becomes("tollgate_refused_connections_total", &["reason=\"http2\""], |n| n == 1.0).await;
    assert_eq!(neighbour.get("/r/a", &[]).await.status, 200);
    serves(&gate).await;
    assert!(upstream.count() < 1000, "{} of 10,000 were asked", upstream.count());
    gate.metric_becomes("tollgate_permits", &[], |n| n == 0.0).await;
}

/// A head that never ends (CVE-2024-27316).
#[tokio::test]
async fn endless_continuations_end_the_connection() {
    let (upstream, gate) = start("").await;
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    let mut head = get(1, "/w/x", &[]);
    head[4] = END_STREAM;
    frames.write(head).await.unwrap();
    let piece = frame(CONTINUATION, 0, 1, &block(&[("x-more", &*"m".repeat(8000))]));
    let mut sent = 0;
    while frames.write(&piece).await.is_ok() {
        sent += 1;
        assert!(sent < 4000, "32 MB of one head were taken");
    }
    let _ = frames.rest().await;
    serves(&gate).await;
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn floods_of_pings_settings_and_empty_frames_cost_their_sender_only() {
    let (_upstream, gate) = start("body_timeout = \"1s\"").await;
    let neighbour = Http2::connect(gate.addr()).await;
    for (what, piece) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
    ] {
        // Never reads what it is answered.
        let mut frames = Frames::connect(gate.addr(), &[]).await;
        let flood = piece.repeat(1000);
        let flooding = async {
            for _ in 0..300 {
                if frames.write(&flood).await.is_err() {
                    return;
                }
            }
        };
        let (answer, ()) = tokio::join!(neighbour.get("/r/a", &[]), async {
            let _ = tokio::time::timeout(Duration::from_secs(4), flooding).await;
        });
        assert_eq!(answer.status, 200, "{what}");
        serves(&gate).await;
    }
}

/// A client that asks and never opens its window is cut by the timer, and nobody else notices.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let upstream = Upstream::start(|_| Reply::ok(vec![b'x'; 500_000])).await;
    let gate = gate(&upstream.url(), "body_timeout = \"300ms\"").await;
    let neighbour = Http2::connect(gate.addr()).await;
    assert_eq!(neighbour.get("/r/a", &[]).await.body.len(), 500_000);
    for (what, target, window) in [
        ("a hit, no window", "/r/a", 0),
        ("a hit, a small window", "/r/a", 1000),
        ("a stream, no window", "/w/a", 0),
        ("a stream, a small window", "/w/a", 1000),
    ] {
        // SETTINGS_INITIAL_WINDOW_SIZE
        let mut frames = Frames::connect(gate.addr(), &[(4, window)]).await;
        frames.write(get(1, target, &[])).await.unwrap();
        let rest = frames.rest().await;
        let taken: usize = rest.iter().filter(|f| f.kind == DATA).map(|f| f.payload.len()).sum();
        assert_eq!(taken, window as usize, "{what}");
        assert!(!rest.iter().any(|f| f.kind == DATA && f.flags & END_STREAM != 0), "{what}: looks whole");
        assert_eq!(neighbour.get("/r/a", &[]).await.body.len(), 500_000, "{what}");
    }
    assert_eq!(gate.metric("tollgate_refused_connections_total", &["reason=\"blocked\""]).await, 4.0);
    gate.metric_becomes("tollgate_permits", &[], |n| n == 0.0).await;
}

/// Slow is not stalled: as long as a client takes something its answer goes on, longer than any idle connection stays.
#[tokio::test]
async fn a_slow_client_gets_all_of_a_large_hit() {
    let upstream = Upstream::start(|_| Reply::ok(vec![b'x'; 3_000_000])).await;
    let gate = gate(&upstream.url(), "body_timeout = \"600ms\"\nidle_timeout = \"500ms\"").await;
    assert_eq!(gate.get("/r/a", &[]).await.body.len(), 3_000_000);
    let mut builder = Builder::new();
    builder.initial_window_size(65_535).initial_connection_window_size(200_000);
    let slow = Http2::over(TcpStream::connect(gate.addr()).await.unwrap(), &builder).await;
    let response = within("a head", slow.begin("/r/a").await).await.unwrap();
    let mut incoming = response.into_body();
    let mut taken = 0;
    while let Some(data) = incoming.data().await {
        let data = data.unwrap_or_else(|error| panic!("after {taken} bytes: {error}"));
        taken += data.len();
        // Time is what this test is about: some two seconds in all.
        if taken % 100_000 < data.len() {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        incoming.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(taken, 3_000_000);
}

#[tokio::test]
async fn the_preface_meets_the_deadline_of_a_head_and_may_come_in_pieces() {
    let (_upstream, gate) = start("header_timeout = \"300ms\"").await;
    let mut slow = Client::connect(gate.addr()).await;
    slow.send(&PREFACE[..10]).await;
    let answer =
        slow.try_read("GET").await.expect("408, in HTTP/1.1, which is all that is known of this client");
    assert_eq!(answer.status, 408);
    let (_upstream, gate) = start("").await;
    let mut pieces = Frames::silent(gate.addr()).await;
    for byte in PREFACE {
        pieces.write([*byte]).await.unwrap();
        gate.quiet().await;
    }
    pieces.write(frame(SETTINGS, 0, 0, &[])).await.unwrap();
    pieces.write(get(1, "/r/a", &[])).await.unwrap();
    assert_eq!(status_of(&pieces.find(HEADERS).await.unwrap().payload), 200);
    // Something that only begins like it is a request of HTTP/1.1, and none that is served.
    let mut other = Client::connect(gate.addr()).await;
    other.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert_eq!(other.try_read("GET").await.map(|answer| answer.status), Some(400));
    serves(&gate).await;
}

#[tokio::test]
async fn a_client_that_has_finished_sending_is_still_answered() {
    let (upstream, gate) = start("").await;
    upstream.hold();
    let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1, "/r/a", &[])].concat()).await.unwrap();
    upstream.seen(1).await;
    stream.shutdown().await.unwrap();
    upstream.release();
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest)).await.unwrap();
    // A client that is gone looks the same; what matters is that nothing is left of it.
    gate.metric_becomes("tollgate_connections", &[], |n| n == 0.0).await;
    serves(&gate).await;
}

const AT_ONCE: &str = "drain_delay = \"0s\"\ndrain_timeout = \"15s\"";

#[tokio::test]
async fn a_drain_answers_what_was_begun_and_says_goaway() {
    let rest = Signal::new();
    let before_body = rest.clone();
    let upstream = Upstream::start(move |request| match request.path() {
        "/base/w/late" => Reply::ok(vec![b'x'; 300_000]).body_after(&before_body),
        _ => Reply::json("[1]"),
    })
    .await;
    let mut gate = gate(&upstream.url(), AT_ONCE).await;
    let (idle, busy) = (Http2::connect(gate.addr()).await, Http2::connect(gate.addr()).await);
    assert_eq!(idle.get("/r/a", &[]).await.status, 200);
    let streaming = within("a head", busy.begin("/w/late").await).await.unwrap();
    upstream.hold();
    let asked = tokio::spawn({
        let busy = busy.clone();
        async move { busy.get("/r/b", &[]).await }
    });
    upstream.seen(3).await;
    gate.signal("TERM");
    assert_eq!(idle.ended().await, Ok(()));
    upstream.release();
    rest.fire();
    // Both at once: they share the connection's window.
    let (asked, streamed) = tokio::join!(within("an answer", asked), within("a body", collect(streaming)));
    let (asked, streamed) = (asked.unwrap(), streamed.unwrap());
    assert_eq!((asked.status, asked.complete), (200, true));
    assert_eq!((streamed.body.len(), streamed.complete), (300_000, true));
    assert_eq!(busy.ended().await, Ok(()));
    assert!(gate.wait().await.success());
}

/// A client that no longer answers does not hold a drain up.
#[tokio::test]
async fn a_client_that_ignores_goaway_does_not_hold_a_drain_up() {
    let (_upstream, mut gate) = start(AT_ONCE).await;
    let mut frames = Frames::connect(gate.addr(), &[]).await;
    frames.write(get(1, "/r/a", &[])).await.unwrap();
    assert!(frames.find(HEADERS).await.is_some());
    gate.signal("TERM");
    assert!(frames.find(GOAWAY).await.is_some());
    assert!(gate.wait().await.success(), "it was asked for nothing any more");
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let (_upstream, gate) = start("idle_timeout = \"300ms\"").await;
    let client = Http2::connect(gate.addr()).await;
    assert_eq!(client.get("/r/a", &[]).await.status, 200);
    assert_eq!(client.ended().await, Ok(()));
    // One that never asks anything.
    let mut silent = Frames::connect(gate.addr(), &[]).await;
    assert!(silent.find(GOAWAY).await.is_some());
    let _ = silent.rest().await;
    gate.metric_becomes("tollgate_connections", &[], |n| n == 0.0).await;
}

// ---- upstreams --------------------------------------------------------------------------------------------------

async fn before(url: &str, upstream: &str, authority: Option<&Authority>) -> Gate {
    let setup = Setup::new(config(url, upstream)).env("KEY", "k");
    let ca = authority.map(Authority::pem).unwrap_or_default();
    setup.file("ca.pem", ca).start().await
}

fn answer(body: &str) -> Told {
    Told::Answer(200, vec![("content-type", "application/json")], body.into())
}

const TRUSTED: &str = "tls.ca = \"{folder}/ca.pem\"";

#[tokio::test]
async fn tls_negotiates_http2_with_an_upstream() {
    let authority = Authority::new("private");
    let server = authority.server(&["localhost"]);
    let upstream = Http2Upstream::start_tls(server, |_, _| answer("[2]")).await;
    let gate = before(&upstream.url(), TRUSTED, Some(&authority)).await;
    let asked = (0..10).map(|n| format!("/w/{n}"));
    let answers = join_all(
        asked.map(async |target| gate.get(&target, &[("connection", "x-own"), ("x-own", "1")]).await),
    )
    .await;
    assert!(answers.iter().all(|answer| (answer.status, answer.text().as_str()) == (200, "[2]")));
    for asked in upstream.requests() {
        assert_eq!(asked.uri.scheme_str(), Some("https"));
        assert_eq!(
            asked.uri.authority().map(ToString::to_string),
            Some(upstream.url().replace("https://", ""))
        );
        for name in ["host", "connection", "x-own", "te", "transfer-encoding"] {
            assert_eq!(asked.headers.first(name), None, "{name}");
        }
        assert_eq!(asked.headers.all("api-key"), ["k"]);
    }
    let posted = client::request(gate.addr(), "POST", "/w/p", &[], b"a body").await;
    assert_eq!(posted.status, 200);
    assert_eq!(upstream.requests().last().unwrap().body, b"a body");
    let head = client::request(gate.addr(), "HEAD", "/r/h", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn http2_never_and_always() {
    let authority = Authority::new("private");
    // One that would rather speak HTTP/2.
    let mut both = (*authority.server(&["localhost"])).clone();
    both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let first = Upstream::start_tls(both.into(), |_| Reply::json("[1]")).await;
    let gate = before(&first.url(), &format!("http2 = \"never\"\n{TRUSTED}"), Some(&authority)).await;
    assert_eq!(gate.get("/r/a", &[]).await.text(), "[1]");
    // In clear text there is no negotiation.
    let second = Http2Upstream::start(|_, _| answer("[2]")).await;
    let gate = before(&second.url(), "http2 = \"always\"", None).await;
    for page in 0..5 {
        assert_eq!(gate.get(&format!("/r/a?page={page}"), &[]).await.text(), "[2]");
    }
    assert!(second.requests().iter().all(|asked| asked.connection == 1), "one connection carries them all");
    // Without it the upstream speaks first, of settings, to a gate that speaks HTTP/1.1: that is no answer, and where it is
    // heard before the request is sent, no connection to send it on.
    let gate = before(&second.url(), "", None).await;
    let refused = gate.get("/r/a", &[]).await;
    let kind = match refused.json()["upstream_called"] == "no" {
        true => "upstream-unreachable",
        false => "upstream-broken",
    };
    problem(&refused, 502, kind);
    assert_eq!(second.requests().len(), 5, "nothing that is HTTP/2 came of it");
}

/// "The received-protocol … is the version of the message received" (RFC 9110 §7.6.3): the upstream's, whatever the client
/// speaks, and as well where the answer comes from memory.
#[tokio::test]
async fn via_tells_in_which_version_an_answer_was_received() {
    let fields = vec![("etag", "\"1\""), ("via", "1.0 fred")];
    let new = Http2Upstream::start(move |_, _| Told::Answer(200, fields.clone(), b"[2]".to_vec())).await;
    let old = Upstream::start(|_| Reply::json("[1]").header("etag", "\"1\"")).await;
    for (url, upstream, via) in [
        (new.url(), "http2 = \"always\"", &["1.0 fred", "2 tollgate"][..]),
        (old.url(), "", &["1.1 tollgate"][..]),
    ] {
        let gate = before(&url, upstream, None).await;
        let client = Http2::connect(gate.addr()).await;
        for (target, fields, status, memory) in [
            ("/r/a", &[][..], 200, false),
            ("/r/a", &[][..], 200, true),
            ("/r/a", &[("if-none-match", "\"1\"")][..], 304, true),
            ("/w/a", &[][..], 200, false),
        ] {
            let answer = client.get(target, fields).await;
            assert_eq!((answer.status, cache_status(&answer).contains("; hit")), (status, memory));
            assert_eq!(answer.headers.all("via"), via);
            assert_eq!(gate.get(target, fields).await.headers.all("via"), via);
        }
    }
}

/// However an answer breaks, it is never stored and never looks whole; nor is a call that may have been acted on sent
/// again.
#[tokio::test]
async fn answers_that_break_are_502_or_visibly_broken() {
    for (what, told) in [
        ("reset in the body", Told::ResetAfter(100_000, 10_000)),
        ("goaway in the body", Told::GoAwayAfter(100_000, 10_000)),
        ("a body that ends early", Told::Answer(200, vec![("content-length", "100")], b"short".to_vec())),
        ("reset before the head", Told::Reset(h2::Reason::INTERNAL_ERROR)),
        ("cancelled", Told::Reset(h2::Reason::CANCEL)),
        ("asked for HTTP/1.1", Told::Reset(h2::Reason::HTTP_1_1_REQUIRED)),
    ] {
        let upstream = Http2Upstream::start(move |_, asked| match asked.uri.path() {
            "/base/r/good" => answer("[2]"),
            _ => told.clone(),
        })
        .await;
        let gate = before(&upstream.url(), "http2 = \"always\"", None).await;
        assert_eq!(gate.get("/r/good", &[]).await.status, 200);
        for round in 1..=2 {
            let held = gate.get("/r/bad", &[]).await;
            problem(&held, 502, "upstream-broken");
            assert_eq!(upstream.requests().len(), 1 + round, "{what}: asked anew, and once each time");
        }
        // No head at all is as visible as a body without its end.
        let streamed = Client::connect(gate.addr()).await.try_get("/w/bad").await;
        assert!(streamed.is_none_or(|a| a.status == 502 || !a.complete), "{what}");
        assert_eq!(gate.get("/r/good?again=1", &[]).await.status, 200, "{what}: the upstream goes on");
        assert_eq!(gate.metric("tollgate_cache_entries", &[]).await, 2.0, "{what}");
        gate.metric_becomes("tollgate_permits", &[], |n| n == 0.0).await;
    }
}
