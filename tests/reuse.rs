//! What is held, asked about, cut, joined and erased, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::client::Client;
use support::gate::{Gate, Setup};
use support::shipped::cache_status;
use support::upstream::{Reply, Request, Upstream};

async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Gate) {
    let upstream = Upstream::start(script).await;
    let config = format!(
        r#"
[upstreams.u]
url = "{}"

[[routes]]
name = "asked"
path = "/asked"
upstream = "u"
[routes.params]
page = {{ type = "integer", default = 1 }}
phone = "phone"

[[routes]]
name = "all"
path = "/*"
upstream = "u"
methods = "all"
forward_headers = "all"
"#,
        upstream.url()
    );
    let gate = Setup::new(config).start().await;
    (upstream, gate)
}

#[tokio::test]
async fn what_has_a_validator_is_asked_about_and_a_304_renews_its_fields() {
    let (upstream, gate) = start(|request| {
        let reply = match request.header("if-none-match") {
            Some("\"a\"") => Reply::new(304, "").header("Link", "<new>"),
            _ => Reply::ok("body").header("Link", "<old>").header("Content-Type", "a/b"),
        };
        reply.header("ETag", "\"a\"").header("Cache-Control", "no-cache")
    })
    .await;
    let first = gate.get("/r", &[]).await;
    assert_eq!(
        (first.header("link"), cache_status(&first)),
        (Some("<old>"), "tollgate; fwd=uri-miss; fwd-status=200; stored")
    );
    for _ in 0..2 {
        let again = gate.get("/r", &[]).await;
        assert_eq!((again.status, again.text().as_str()), (200, "body"));
        assert_eq!((again.header("link"), again.header("content-type")), (Some("<new>"), Some("a/b")));
        assert_eq!(cache_status(&again), "tollgate; fwd=stale; fwd-status=304; stored");
    }
    // The client's own condition is answered here, whatever the gate asks upstream.
    let known = gate.get("/r", &[("If-None-Match", "\"x\", \"a\"")]).await;
    assert_eq!((known.status, known.header("etag"), known.body.len()), (304, Some("\"a\""), 0));
    assert_eq!(upstream.requests().last().unwrap().header("if-none-match"), Some("\"a\""));
    assert_eq!(gate.metric("tollgate_cache_results_total", &["result=\"revalidated\""]).await, 3.0);
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_from_what_is_held() {
    let (upstream, gate) = start(|_| {
        let reply = Reply::ok("0123456789").header("ETag", "\"a\"").header("Content-Type", "a/b");
        reply.header("Cache-Control", "max-age=60")
    })
    .await;
    gate.get("/r", &[]).await;
    for (headers, status, range, body) in [
        (&[("If-None-Match", "\"a\"")][..], 304, None, ""),
        (&[("If-None-Match", "\"b\"")], 200, None, "0123456789"),
        (&[("If-Match", "\"b\"")], 412, None, ""),
        (&[("Range", "bytes=2-3")], 206, Some("bytes 2-3/10"), "23"),
        (&[("Range", "bytes=-1")], 206, Some("bytes 9-9/10"), "9"),
        (&[("Range", "bytes=10-")], 416, Some("bytes */10"), ""),
        (&[("Range", "bytes=2-3"), ("If-Range", "\"b\"")], 200, None, "0123456789"),
        (&[("Range", "bytes=2-3"), ("If-Range", "\"a\"")], 206, Some("bytes 2-3/10"), "23"),
        (&[("Range", "bytes=2-3"), ("If-None-Match", "\"a\"")], 304, None, ""),
    ] {
        let answer = gate.get("/r", headers).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{headers:?}");
        assert_eq!(answer.header("content-range"), range, "{headers:?}");
        assert!(cache_status(&answer).starts_with("tollgate; hit"), "{headers:?}");
    }
    let several = gate.get("/r", &[("Range", "bytes=0-0, 8-")]).await;
    assert!(several.header("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    assert!(several.text().contains("content-range: bytes 8-9/10\r\n\r\n89\r\n"), "{}", several.text());
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn parts_with_the_same_strong_validator_become_the_whole() {
    let (upstream, gate) = start(|request| {
        let (range, body) = match request.header("range") {
            Some("bytes=0-4") => ("bytes 0-4/10", "01234"),
            Some("bytes=5-9") => ("bytes 5-9/10", "56789"),
            _ => return Reply::new(500, "asked for more than is missing"),
        };
        let reply = Reply::new(206, body).header("Content-Range", range).header("ETag", "\"a\"");
        reply.header("Cache-Control", "max-age=60")
    })
    .await;
    for (range, body) in
        [("bytes=0-4", "01234"), ("bytes=1-2", "12"), ("bytes=5-9", "56789"), ("bytes=3-6", "3456")]
    {
        let answer = gate.get("/r", &[("Range", range)]).await;
        assert_eq!((answer.status, answer.text().as_str()), (206, body), "{range}");
    }
    let whole = gate.get("/r", &[]).await;
    assert_eq!(
        (whole.status, whole.text().as_str(), whole.header("content-range")),
        (200, "0123456789", None)
    );
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_unsafe_request_that_succeeds_erases_what_it_names() {
    let (upstream, gate) = start(|request| match request.method.as_str() {
        "GET" => Reply::ok(format!("{}", request.number))
            .header("Cache-Control", "max-age=60")
            .header("Cache-Groups", "\"g\""),
        "PUT" => Reply::new(500, "no"),
        "PATCH" => Reply::ok("done").header("Cache-Group-Invalidation", "\"g\""),
        _ => Reply::ok("done").header("Location", "/other"),
    })
    .await;
    let mut client = Client::connect(gate.addr()).await;
    for (method, refetched) in
        [("PUT", &[][..]), ("POST", &["/r", "/other"]), ("PATCH", &["/r", "/other", "/third"])]
    {
        for target in ["/r", "/other", "/third"] {
            client.get(target, &[]).await;
        }
        client.request(method, "/r", &[], b"x").await;
        let before = upstream.count();
        for target in ["/r", "/other", "/third"] {
            client.get(target, &[]).await;
        }
        let asked: Vec<_> =
            upstream.requests()[before..].iter().map(|request| request.path().to_owned()).collect();
        assert_eq!(asked, refetched, "{method}");
    }
}

#[tokio::test]
async fn an_operator_purges_by_request_by_parameter_and_by_group() {
    let (upstream, gate) =
        start(|_| Reply::ok("held").header("Cache-Control", "max-age=60").header("Surrogate-Key", "one two"))
            .await;
    for (purge, answer, asked_again) in [
        ("/purge?request=GET%20/asked%3Fphone=%252B33612345678", (200, "{\"erased\":1}\n"), 1),
        ("/purge?tag=phone%3D%2B33%206%2012%2034%2056%2078", (200, "{\"erased\":2}\n"), 2),
        ("/purge?group=two", (200, "{\"erased\":3}\n"), 3),
        // Softly: what stays is asked for again all the same.
        ("/purge?soft=true&group=two", (200, "{\"expired\":3}\n"), 3),
        ("/purge?soft=true&request=GET%20/other", (200, "{\"expired\":0}\n"), 0),
        ("/purge?group=tw", (200, "{\"erased\":0}\n"), 0),
        ("/purge?tag=phone%3Dx", (400, "no route has a parameter phone that understands this value\n"), 0),
    ] {
        let all = [
            "/asked?phone=%2B33612345678",
            "/asked?phone=0033612345678&page=2",
            "/other?phone=%2B33612345678",
        ];
        for target in all {
            gate.get(target, &[]).await;
        }
        let before = upstream.count();
        let purged = gate.ask_admin("POST", purge).await;
        assert_eq!((purged.status, purged.text().as_str()), answer, "{purge}");
        for target in all {
            gate.get(target, &[]).await;
        }
        assert_eq!(upstream.count() - before, asked_again, "{purge}");
    }
    let get = gate.ask_admin("GET", "/purge?group=two").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert!(!gate.lines().text().contains("612345678"));
}

#[tokio::test]
async fn interim_responses_reach_the_client_that_caused_them_and_are_not_kept() {
    let (upstream, gate) = start(|_| {
        Reply::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nbody",
        )
    })
    .await;
    let mut client = Client::connect(gate.addr()).await;
    for target in ["/a", "/b"] {
        client.ask("GET", target, &[], b"").await;
        let (status, hints) = client.read_head().await;
        assert_eq!((status, hints.all("link"), hints.all("x-hop").len()), (103, vec!["<a>"], 0), "{target}");
        assert_eq!(client.read_head().await.0, 102, "{target}");
        let answer = client.read("GET").await;
        assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "body", None));
    }
    // From memory there is nothing to say before, and HTTP/1.0 knows no such thing.
    assert_eq!(client.get("/a", &[]).await.status, 200);
    client.send(b"GET /c HTTP/1.0\r\nHost: gate\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&client.read_to_close().await).starts_with("HTTP/1.0 200"));
    assert_eq!(upstream.count(), 3);
}
