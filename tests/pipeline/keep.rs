//! What of an answer is kept.

use bytes::Bytes;
use tollgate::model::BodyError;

use crate::world::{Config, Got, Latch, Reply, World, all, pass, reply, s, settle};

const PRIVATE_ASIDE: &str = "ttl = \"30s\"\nttl_overrides = [\"private\"]";

fn small(bytes: &'static str) -> World {
    World::new(&Config { more: bytes, ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn a_body_is_kept_up_to_the_limit_and_passed_beyond_it() {
    for (length, announced, kept) in
        [(1024, false, true), (1025, false, false), (5000, true, false), (0, false, true)]
    {
        let world = small("[cache]\nmax_entry_bytes = \"1KiB\"");
        world.upstream.plays(move |_| {
            let mut reply = reply(200, "");
            // In pieces that do not end where the limit does.
            let whole = "x".repeat(length);
            reply.pieces =
                whole.as_bytes().chunks(300).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            if announced { reply.with("content-length", length.to_string()) } else { reply }
        });
        let got = world.get("/r").send().await;
        assert_eq!(got.text().len(), length);
        assert_eq!(got.cache().ends_with("stored"), kept, "{length}");
        assert_eq!(world.get("/r").send().await.cache().starts_with("hit"), kept, "{length}");
        world.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_arrive_at_once_share_one_allowance() {
    let world = small("[cache]\nmax_entry_bytes = \"1KiB\"\nmax_inflight_bytes = \"2KiB\"");
    let latch = Latch::new();
    let held = latch.clone();
    world.upstream.plays(move |_| reply(200, "x".repeat(900)).held_by(&held));
    let crowd: Vec<_> =
        ["/r?q=1", "/r?q=2", "/r?q=3", "/r?q=4"].map(|target| world.get(target).start()).into();
    settle().await;
    latch.open();
    let got = all(crowd).await;
    assert!(got.iter().all(|got| got.text().len() == 900));
    world.quiet().await;
    // One after the other all of them fit.
    for target in ["/r?q=5", "/r?q=6", "/r?q=7", "/r?q=8"] {
        assert!(world.get(target).send().await.cache().ends_with("stored"));
    }
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_fit_the_allowance_streams_and_is_whole() {
    let world = small("[cache]\nmax_entry_bytes = \"1KiB\"\nmax_inflight_bytes = \"1KiB\"");
    // The first holds nearly all of the allowance while its end is awaited.
    world.upstream.plays(|heard| {
        let mut reply = reply(200, "x".repeat(600));
        if heard.n == 1 {
            reply.body_latency = s(5);
        }
        reply.pieces.push(Ok(Bytes::from(vec![b'y'; 300])));
        reply
    });
    let first = world.get("/r?q=1").start();
    pass(s(1)).await;
    let second = world.get("/r?q=2").send().await;
    assert_eq!(second.text().len(), 900);
    assert_eq!(first.await.unwrap().text().len(), 900);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_body_is_a_fault_and_leaves_nothing() {
    for (error, status, problem) in [
        (BodyError::Truncated, 502, "upstream-broken"),
        (BodyError::TooLarge, 502, "upstream-broken"),
        (BodyError::TimedOut, 504, "upstream-timeout"),
    ] {
        let world = World::new(&Config::default());
        world.upstream.plays(move |heard| match heard.n {
            1 => reply(200, "half").cut(error),
            _ => reply(200, "whole"),
        });
        for got in all(world.crowd(4, "/r").await).await {
            assert_eq!((got.status, got.problem().as_str()), (status, problem));
            assert!(got.text().contains("\"upstream_called\":\"yes\""));
        }
        assert_eq!(world.calls(), 1);
        world.quiet().await;
        assert_eq!(world.get("/r").send().await.text(), "whole");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_body_that_streams_breaks_off_and_never_looks_whole() {
    let world = World::new(&Config { cache: "enabled = false", ..Config::default() });
    world.upstream.plays(|_| reply(200, "half").cut(BodyError::Truncated));
    let got = world.get("/r").send().await;
    assert_eq!((got.status, got.body), (200, Err(BodyError::Truncated)));
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_body_is_answered_with_what_is_held() {
    let world = World::new(&Config { cache: "ttl = \"30s\"\nstale_if_error = \"1m\"", ..Config::default() });
    world.get("/r").send().await;
    world.upstream.plays(|_| reply(200, "half").cut(BodyError::Truncated));
    pass(s(40)).await;
    let got = world.get("/r").send().await;
    assert_eq!((got.text(), got.cache()), ("/v1/r #1", "fwd=stale; ttl=-10; detail=unreachable"));
    world.quiet().await;
}

/// (what the route says, what the upstream says, kept, the cookie reaches the first client)
#[tokio::test(start_paused = true)]
async fn a_cookie_is_one_clients_own() {
    for (cache, said, kept, cookie) in [
        ("ttl = \"30s\"", "", true, false),
        (PRIVATE_ASIDE, "private", false, true),
        (PRIVATE_ASIDE, "private, max-age=60", false, true),
        ("ttl = \"30s\"", "max-age=60", true, false),
        ("", "max-age=60", true, true),
        ("", "", false, true),
    ] {
        let world = World::new(&Config { cache, ..Config::default() });
        world.upstream.plays(move |heard| {
            reply(200, "x").with("cache-control", said).with("set-cookie", format!("sid={}", heard.n))
        });
        let crowd = world.crowd(3, "/r").await;
        let got = all(crowd).await;
        assert_eq!(world.calls(), if kept { 1 } else { 3 }, "{cache:?} {said:?}");
        assert_eq!(got[0].header("set-cookie").is_some(), cookie, "{cache:?} {said:?}");
        let again = world.get("/r").send().await;
        assert_eq!(again.cache().starts_with("hit"), kept, "{cache:?} {said:?}");
        world.quiet().await;
    }
}

/// (status, kept under `ttl`, kept by the upstream's own `max-age`)
#[tokio::test(start_paused = true)]
async fn statuses_are_kept_as_the_contract_says() {
    for (status, under_ttl, by_max_age) in [
        (200, true, true),
        (203, false, true),
        (204, false, true),
        (206, false, false),
        (301, false, true),
        (302, false, true),
        (304, false, false),
        (400, false, true),
        (401, false, false),
        (403, false, true),
        (404, true, true),
        (410, false, true),
        (418, false, true),
        (428, false, false),
        (429, false, false),
        (431, false, false),
        (500, false, true),
        (503, false, true),
        (511, false, false),
    ] {
        for (said, kept) in [("", under_ttl), ("max-age=60", by_max_age)] {
            let world = World::new(&Config {
                cache: "ttl = \"30s\"\nttl_for = { 404 = \"5s\" }",
                ..Config::default()
            });
            world.upstream.plays(move |_| reply(status, "x").with("cache-control", said));
            let got = world.get("/r").send().await;
            assert_eq!(got.status, if status == 401 { 502 } else { status });
            assert_eq!(got.cache().ends_with("stored"), kept, "{status} {said:?}");
            world.get("/r").send().await;
            assert_eq!(world.calls(), if kept { 1 } else { 2 }, "{status} {said:?}");
            world.quiet().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fields_of_one_delivery_are_made_anew() {
    let world = World::new(&Config::default());
    world
        .upstream
        .plays(|_| reply(200, "four").with("content-length", "4").with("age", "3").with("x-own", "1"));
    world.get("/r").send().await;
    pass(s(2)).await;
    let got = world.get("/r").send().await;
    assert_eq!(
        (got.header("age"), got.header("x-own"), got.header("content-length")),
        (Some("5"), Some("1"), None)
    );
}

/// What the upstream says of its account's limits is about one moment, and what it says to the gate is for the gate.
#[tokio::test(start_paused = true)]
async fn words_for_the_gate_and_about_one_moment_are_not_replayed() {
    let fields = ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-rate-limit-reset"];
    let told = |got: &Got| fields.iter().filter(|name| got.header(name).is_some()).count();
    let world = World::new(&Config::default());
    world.upstream.plays(move |heard| {
        let status = if heard.target.ends_with("q=busy") { 429 } else { 200 };
        let reply = reply(status, "x").with("tollgate-cache-control", "stale-if-error=5").with("x-rate", "1");
        fields.iter().fold(reply, |reply, name| reply.with(name, "9"))
    });
    for _ in 0..2 {
        let got = world.get("/r").send().await;
        assert_eq!((told(&got), got.header("x-rate")), (0, Some("1")));
        assert_eq!(got.header("tollgate-cache-control"), None);
        // What is told and not kept says all of it.
        let busy = world.get("/r?q=busy").send().await;
        assert_eq!((busy.status, told(&busy), busy.header("tollgate-cache-control")), (429, 4, None));
    }
    assert_eq!(world.calls(), 3);
}

/// RFC 9111 §3.3, §3.4: what a part lacks is asked for alone, under a strong validator; where something else comes, the
/// whole is. Each case: the part's tag, what the upstream says to the request for the rest, and all that it was asked.
#[tokio::test(start_paused = true)]
async fn a_part_is_completed_by_what_it_lacks() {
    let rest = || {
        let reply = reply(206, "56789").with("content-range", "bytes 5-9/10").with("etag", "\"a\"");
        reply.with("cache-control", "max-age=60")
    };
    let whole = || reply(200, "0123456789").with("etag", "\"b\"").with("cache-control", "max-age=60");
    let cases: [(&str, Reply, &[Option<&str>], &str); 7] = [
        ("\"a\"", rest(), &[Some("bytes=5-")], "fwd=partial; fwd-status=206; stored"),
        ("\"a\"", whole(), &[Some("bytes=5-")], "fwd=partial; fwd-status=200; stored"),
        // An upstream that does not mind `If-Range`, or whose answer leaves a gap.
        ("\"c\"", rest(), &[Some("bytes=5-"), None], "fwd=partial; fwd-status=200; stored"),
        (
            "\"a\"",
            reply(206, "9").with("content-range", "bytes 9-9/10").with("etag", "\"a\""),
            &[Some("bytes=5-"), None],
            "fwd=partial; fwd-status=200; stored",
        ),
        ("\"a\"", reply(416, ""), &[Some("bytes=5-"), None], "fwd=partial; fwd-status=200; stored"),
        // Without a strong validator nothing may be joined, so nothing is asked for alone.
        ("W/\"a\"", rest(), &[None], "fwd=partial; fwd-status=200; stored"),
        ("no tag", rest(), &[None], "fwd=partial; fwd-status=200; stored"),
    ];
    for (tag, second, asked, cache) in cases {
        let world =
            World::new(&Config { route: "forward_headers = \"all\"", cache: "", ..Config::default() });
        let replies = (tag.to_owned(), second.clone());
        world.upstream.plays(move |heard| match (heard.n, heard.header("range")) {
            (1, _) => reply(206, "01234")
                .with("content-range", "bytes 0-4/10")
                .with("etag", replies.0.clone())
                .with("cache-control", "max-age=60"),
            (_, Some(_)) => replies.1.clone(),
            (_, None) => whole(),
        });
        world.get("/r").with("range", "bytes=0-4").send().await;
        let crowd = all(world.crowd(2, "/r").await).await;
        let heard = world.upstream.heard();
        let ranges: Vec<_> = heard[1..].iter().map(|heard| heard.header("range")).collect();
        assert_eq!(ranges, asked, "{tag} {second:?}");
        let conditions = heard[1..].iter().map(|heard| heard.header("if-range"));
        assert!(conditions.zip(asked).all(|(tagged, range)| tagged == range.map(|_| tag)), "{heard:?}");
        assert!(crowd.iter().all(|got| (got.status, got.text()) == (200, "0123456789")), "{crowd:?}");
        assert!(crowd.iter().all(|got| got.header("content-range").is_none()), "{crowd:?}");
        assert_eq!(crowd[0].cache(), cache);
        assert!(world.get("/r").send().await.cache().starts_with("hit"));
        assert!(world.get("/r").with("range", "bytes=3-6").send().await.text() == "3456");
        world.quiet().await;
    }
}
