//! What is answered from memory, and until when.

use http::Method;

use crate::world::{Act, Config, Got, World, all, ms, pass, reply, s, settle};

fn caching(cache: &'static str) -> World {
    World::new(&Config { cache, ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn fresh_until_its_ttl_and_not_a_moment_longer() {
    let world = caching("ttl = \"30s\"");
    assert_eq!(world.get("/r").send().await.cache(), "fwd=uri-miss; fwd-status=200; stored");
    for (wait, cache, age) in
        [(0, "hit; ttl=30", "0"), (10_500, "hit; ttl=19", "10"), (19_499, "hit; ttl=0", "29")]
    {
        pass(ms(wait)).await;
        let got = world.get("/r").send().await;
        assert_eq!((got.cache(), got.header("age")), (cache, Some(age)));
    }
    pass(ms(1)).await;
    assert_eq!(world.get("/r").send().await.cache(), "fwd=stale; fwd-status=200; stored");
    assert_eq!(world.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn age_begins_with_what_the_upstream_says_of_it() {
    // (Date's seconds before the world's, Age, → the age on arrival): the larger counts (RFC 9111 §4.2.3).
    for (old, age, expected) in [(0, None, 0), (0, Some("7"), 7), (20, Some("7"), 20), (5, Some("7"), 7)] {
        let world = caching("");
        world.upstream.plays(move |_| {
            let date = std::time::SystemTime::UNIX_EPOCH + crate::world::DATE + s(1) - s(old);
            let reply = reply(200, "x")
                .with("cache-control", "max-age=100")
                .with("date", httpdate::fmt_http_date(date));
            age.map_or(reply.clone(), |age| reply.with("age", age))
        });
        world.get("/r").send().await;
        pass(s(3)).await;
        let got = world.get("/r").send().await;
        let expected = expected + 3;
        assert_eq!(got.header("age"), Some(expected.to_string().as_str()));
        assert_eq!(got.cache(), format!("hit; ttl={}", 100 - expected));
        assert_eq!(got.headers.get_all("age").iter().count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_refreshed_by_exactly_one_call_behind_the_clients_backs() {
    let world = caching("ttl = \"30s\"\nstale_while_revalidate = \"60s\"");
    world.upstream.plays(|heard| reply(200, format!("#{}", heard.n)).after(s(1)));
    world.get("/r").send().await;
    // Its age runs from its head's arrival, and what the call took is part of it (RFC 9111 §4.2.3).
    pass(s(30)).await;
    let got = all(world.crowd(32, "/r").await).await;
    for got in got {
        assert_eq!((got.text(), got.cache(), got.took), ("#1", "hit; ttl=-1; detail=revalidating", s(0)));
    }
    assert_eq!(world.calls(), 2);
    world.quiet().await;
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=29");
    // Nobody asked for 30 + 60 s: the next one waits.
    pass(s(90)).await;
    let late = world.get("/r").send().await;
    assert_eq!((late.text(), late.cache()), ("#3", "fwd=stale; fwd-status=200; stored"));
    world.quiet().await;
    assert_eq!(world.metric("tollgate_stale_total", &["reason=\"revalidating\""]), 32.0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_postpones_the_next_and_says_why() {
    let world = caching("ttl = \"30s\"\nstale_while_revalidate = \"60s\"");
    world.get("/r").send().await;
    world.upstream.plays(|_| Act::Unreachable(ms(1)));
    pass(s(30)).await;
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=-1; detail=revalidating");
    world.quiet().await;
    for _ in 0..10 {
        assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=-1; detail=unreachable");
    }
    world.quiet().await;
    assert_eq!(world.calls(), 2, "one failure speaks for a second");
    pass(s(1)).await;
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=-2; detail=revalidating");
    world.quiet().await;
    assert_eq!(world.calls(), 3);
}

/// What each failure means for a client where something stale is held: (how the upstream fails, over its lifetime
/// by, what the client sees). `stale_if_error` is 100 s.
#[tokio::test(start_paused = true)]
async fn stale_stands_in_for_failures_within_its_window() {
    let stale = |how: &str, detail: &str, over: u64| format!("{how}; ttl=-{over}; detail={detail}");
    // The third column is how `Cache-Status` begins where the call was made: `hit` is only what nobody was asked about.
    let cases: [(Act, &str, &str, u16); 8] = [
        (Act::Unreachable(s(0)), "unreachable", "hit", 502),
        (Act::Timeout(s(0)), "unreachable", "fwd=stale", 504),
        (Act::Broken, "unreachable", "fwd=stale", 502),
        (Act::Panic, "upstream-error", "fwd=stale", 500),
        (reply(500, "").into(), "upstream-error", "fwd=stale; fwd-status=500", 500),
        (reply(503, "").into(), "upstream-error", "fwd=stale; fwd-status=503", 503),
        (reply(429, "").into(), "paused", "fwd=stale; fwd-status=429", 429),
        (reply(401, "").into(), "paused", "fwd=stale", 502),
    ];
    for (act, reason, called, status) in cases {
        let world = caching("ttl = \"30s\"\nstale_if_error = \"100s\"");
        world.get("/r").send().await;
        let played = act.clone();
        world.upstream.plays(move |_| played.clone());
        pass(s(31)).await;
        assert_eq!(world.get("/r").send().await.cache(), stale(called, reason, 1), "{act:?}");
        // While the failure speaks nobody asks; then somebody does.
        assert_eq!(world.get("/r").send().await.cache(), stale("hit", reason, 1), "{act:?}");
        assert_eq!(world.calls(), 2, "{act:?}");
        pass(s(1)).await;
        assert_eq!(world.get("/r").send().await.cache(), stale(called, reason, 2), "{act:?}");
        pass(s(97) + ms(999)).await;
        assert_eq!(world.get("/r").send().await.cache(), stale(called, reason, 100), "{act:?}");
        pass(ms(1)).await;
        assert_eq!(world.get("/r").send().await.status, status, "{act:?}");
        world.quiet().await;
    }
}

/// A 404 is an answer, not a failure.
#[tokio::test(start_paused = true)]
async fn an_answer_is_never_replaced_by_something_stale() {
    for status in [200, 301, 400, 403, 404, 410, 501] {
        let world = caching("ttl = \"30s\"\nstale_if_error = \"100s\"");
        world.get("/r").send().await;
        world.upstream.plays(move |_| reply(status, "now"));
        pass(s(31)).await;
        let got = world.get("/r").send().await;
        assert_eq!((got.status, got.text()), (status, "now"));
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_has_a_window_of_its_own_where_nobody_set_one() {
    let world = caching("ttl = \"30s\"");
    world.get("/r").send().await;
    pass(s(59) + ms(999)).await;
    world.upstream.plays(|_| reply(500, "sorry"));
    assert_eq!(world.get("/r").send().await.status, 500, "an error is passed on");
    world.upstream.plays(|_| Act::Unreachable(s(0)));
    pass(ms(0)).await;
    // The error's timer does not turn an error into an outage.
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=-30; detail=unreachable");
    pass(s(1)).await;
    assert_eq!(world.get("/r").send().await.status, 502);
}

/// The window ends when the answer is given, not when the call began.
#[tokio::test(start_paused = true)]
async fn a_slow_failure_does_not_stretch_the_window() {
    let world = caching("ttl = \"30s\"\nstale_if_error = \"10s\"");
    world.get("/r").send().await;
    world.upstream.plays(|_| Act::Timeout(s(10)));
    pass(s(35)).await;
    let got = world.get("/r").send().await;
    assert_eq!((got.status, got.took), (504, s(10)), "15 s over when the call had failed");
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_quota_is_answered_with_what_is_held_and_no_call() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 1, per = \"1h\" }]",
        cache: "ttl = \"30s\"\nstale_if_error = \"100s\"",
        ..Config::default()
    });
    world.get("/r").send().await;
    pass(s(40)).await;
    let got = world.get("/r").send().await;
    assert_eq!((got.cache(), got.took), ("hit; ttl=-10; detail=quota", s(0)));
    pass(s(90)).await;
    let got = world.get("/r").send().await;
    assert_eq!((got.status, got.problem().as_str()), (429, "quota-exceeded"));
    assert_eq!(got.header("retry-after"), Some("3470"));
    assert_eq!(world.calls(), 1);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_lower_the_window_and_never_widen_it() {
    let world = caching("ttl = \"30s\"\nstale_if_error = \"100s\"");
    world.get("/r").send().await;
    world.upstream.plays(|_| reply(500, ""));
    for (over, wish, served) in [
        (5, "stale-if-error=5", false),
        (6, "stale-if-error=60", true),
        (60, "stale-if-error=0", false),
        (99, "stale-if-error=999", true),
        (100, "stale-if-error=999", false),
    ] {
        let since = world.now().since(world.upstream.heard()[0].at);
        pass(s(30 + over) - since).await;
        let got = world.get("/r").with("cache-control", wish).send().await;
        assert_eq!(got.status == 200, served, "{over} {wish}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_calls() {
    let world = caching("ttl = \"30s\"\nstale_if_error = \"100s\"");
    let only = || world.get("/r").with("cache-control", "only-if-cached").send();
    let got = only().await;
    assert_eq!((got.status, got.problem().as_str()), (504, "only-if-cached"));
    world.get("/r").send().await;
    assert_eq!(only().await.cache(), "hit; ttl=30");
    pass(s(30)).await;
    assert_eq!(only().await.status, 504);
    assert_eq!(world.calls(), 1);
}

/// `cache-control` of a request costs calls: it counts only where the route honours it and the client may.
#[tokio::test(start_paused = true)]
async fn directives_that_cost_calls_need_two_permissions() {
    const CLIENTS: &str = "[clients.may]\nkey = \"key-of-may-01234567\"\nmay_refresh = true\n\
                           [clients.may_not]\nkey = \"key-of-maynot-01234\"\n";
    const HONOUR: &str = "ttl = \"30s\"\nhonour_request_directives = true";
    for (cache, key, said, calls) in [
        (HONOUR, "key-of-may-01234567", "no-cache", 2),
        (HONOUR, "key-of-may-01234567", "max-age=4", 2),
        (HONOUR, "key-of-may-01234567", "max-age=5", 1),
        (HONOUR, "key-of-maynot-01234", "no-cache", 1),
        (HONOUR, "key-of-maynot-01234", "max-age=0", 1),
        ("ttl = \"30s\"", "key-of-may-01234567", "no-cache", 1),
        ("ttl = \"30s\"", "key-of-may-01234567", "max-age=0", 1),
    ] {
        let world = World::new(&Config { cache, more: CLIENTS, ..Config::default() });
        let ask = || world.get("/r").with("x-tollgate-key", key);
        ask().send().await;
        pass(s(5)).await;
        let got = ask().with("cache-control", said).send().await;
        assert_eq!(world.calls(), calls, "{key} {said}");
        let why = if calls == 2 { "fwd=request; fwd-status=200; stored" } else { "hit; ttl=25" };
        assert_eq!(got.cache(), why, "{key} {said}");
        assert_eq!(ask().send().await.text(), got.text(), "what was fetched is kept for the others");
    }
}

#[tokio::test(start_paused = true)]
async fn no_store_of_a_client_that_may_say_so_keeps_nothing() {
    let config = Config {
        cache: "ttl = \"30s\"\nhonour_request_directives = true",
        more: "[clients.may]\nkey = \"key-of-may-01234567\"\nmay_refresh = true\n\
               [clients.other]\nkey = \"key-of-other-0123456\"\n",
        ..Config::default()
    };
    let may = World::new(&config);
    may.get("/r")
        .with("x-tollgate-key", "key-of-may-01234567")
        .with("cache-control", "no-store")
        .send()
        .await;
    may.get("/r").with("x-tollgate-key", "key-of-may-01234567").send().await;
    assert_eq!(may.calls(), 2);
    for said in ["no-store", "max-age=60"] {
        may.get("/r?q=1")
            .with("x-tollgate-key", "key-of-other-0123456")
            .with("cache-control", said)
            .send()
            .await;
    }
    assert_eq!(may.calls(), 3, "others' word is not heard");
    // Where no client is declared, the route's word can only be about everybody.
    let open = caching("ttl = \"30s\"\nhonour_request_directives = true");
    open.get("/r").with("cache-control", "no-store").send().await;
    open.get("/r").send().await;
    assert_eq!(open.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_what_get_left_and_leaves_nothing() {
    let world = caching("ttl = \"30s\"");
    let got = world.ask(Method::HEAD, "/r").send().await;
    assert_eq!((got.status, world.calls()), (200, 1));
    assert_eq!(world.upstream.heard()[0].method, Method::HEAD);
    assert_eq!(world.get("/r").send().await.cache(), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(world.ask(Method::HEAD, "/r").send().await.cache(), "hit; ttl=30");
    assert_eq!(world.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_forwarded_of_a_clients_own_identity_is_never_shared() {
    for field in ["authorization", "cookie"] {
        let world = World::new(&Config {
            route: "forward_headers = [\"authorization\", \"cookie\"]",
            cache: "ttl = \"30s\"\nttl_overrides = [\"private\", \"no-cache\", \"max-age=0\"]\nstale_while_revalidate = \"60s\"",
            ..Config::default()
        });
        world.upstream.plays(move |heard| {
            reply(200, format!("for {}", heard.header(field).unwrap_or("anybody"))).after(ms(10))
        });
        let ask = |who: &str| world.get("/r").with(field, who);
        // Each gets their own, one after the other and at once.
        assert_eq!(ask("ann").send().await.text(), "for ann");
        assert_eq!(ask("bob").send().await.text(), "for bob");
        assert_eq!(world.get("/r").send().await.text(), "for anybody");
        assert_eq!(ask("ann").send().await.text(), "for ann", "not what anybody got");
        let crowd: Vec<_> = ["ann", "bob", "cid"].map(|who| ask(who).start()).into();
        let got: Vec<_> = all(crowd).await.iter().map(|got| got.text().to_owned()).collect();
        assert_eq!(got, ["for ann", "for bob", "for cid"]);
        assert_eq!(world.get("/r").send().await.text(), "for anybody");
        assert_eq!(world.calls(), 7);
        // The upstream's own word shares it (RFC 9111 §3.5).
        world.upstream.plays(|_| reply(200, "for all").with("cache-control", "public, max-age=60"));
        assert_eq!(world.get("/r?q=2").with(field, "ann").send().await.text(), "for all");
        assert!(world.get("/r?q=2").with(field, "bob").send().await.cache().starts_with("hit"));
        world.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_key_is_no_identity_towards_the_upstream() {
    let world = World::new(&Config {
        route: "forward_headers = \"all\"",
        more: "[clients.one]\nkey = \"key-of-one-01234567\"\n[clients.two]\nkey = \"key-of-two-01234567\"\n",
        ..Config::default()
    });
    for (name, value) in
        [("authorization", "Bearer key-of-one-01234567"), ("x-tollgate-key", "key-of-two-01234567")]
    {
        assert_eq!(world.get("/r").with(name, value).send().await.status, 200);
    }
    assert_eq!(world.calls(), 1, "both share one answer");
    let heard = &world.upstream.heard()[0];
    assert_eq!((heard.header("authorization"), heard.header("x-tollgate-key")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn other_methods_and_bodies_pass_by() {
    let world =
        World::new(&Config { route: "methods = [\"GET\", \"POST\", \"DELETE\"]", ..Config::default() });
    for method in [Method::POST, Method::DELETE] {
        for _ in 0..2 {
            let got = world.ask(method.clone(), "/r").body("x").send().await;
            assert_eq!(got.cache(), "fwd=method; fwd-status=200");
        }
    }
    assert_eq!(world.get("/r").body("x").send().await.cache(), "fwd=bypass; fwd-status=200");
    assert_eq!(world.calls(), 5);
    assert_eq!(world.get("/r").send().await.cache(), "fwd=uri-miss; fwd-status=200; stored");
    let off = caching("enabled = false");
    for _ in 0..2 {
        assert_eq!(off.get("/r").send().await.cache(), "fwd=bypass; fwd-status=200");
    }
}

/// Freshness is judged by the plan that runs, not by the plan under which an answer was stored.
#[tokio::test(start_paused = true)]
async fn another_plan_acts_on_what_is_held() {
    let config = |cache| Config { cache, ..Config::default() };
    let world = World::new(&config(
        "ttl = \"100s\"\nttl_overrides = [\"private\"]\nstale_while_revalidate = \"50s\"",
    ));
    world.upstream.plays(|heard| {
        let private = if heard.target.contains("private") { "private" } else { "" };
        reply(200, "x").with("cache-control", private)
    });
    world.get("/r").send().await;
    world.get("/r?private").send().await;
    pass(s(20)).await;
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=80");
    world.reload(&config("ttl = \"30s\"\nttl_overrides = [\"private\"]"));
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=10");
    world.reload(&config("ttl = \"10s\"\nttl_overrides = [\"private\"]"));
    pass(ms(0)).await;
    // A word that is no longer set aside counts again: not even stale.
    world.reload(&config("ttl = \"100s\"\nstale_while_revalidate = \"10m\"\nstale_if_error = \"10m\""));
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=80");
    let private = world.get("/r?private").send().await;
    assert_eq!(private.cache(), "fwd=stale; fwd-status=200");
    world.upstream.plays(|_| Act::Unreachable(s(0)));
    assert_eq!(world.get("/r?private").send().await.status, 502, "a private answer does not stand in either");
    world.quiet().await;
}

/// What the upstream may set, and what the operator's word changes about it.
#[tokio::test(start_paused = true)]
async fn the_upstreams_words_count_unless_set_aside() {
    const ASIDE: &str = "ttl = \"30s\"\nttl_overrides = [\"private\", \"no-cache\", \"max-age=0\"]";
    for (cache, said, after, second) in [
        ("", "max-age=10", 9, "hit; ttl=1"),
        ("", "max-age=10", 10, "fwd=stale"),
        ("", "max-age=10, s-maxage=20", 19, "hit; ttl=1"),
        ("", "max-age=0", 0, "fwd=uri-miss"),
        ("", "", 0, "fwd=uri-miss"),
        ("", "max-age=10, stale-while-revalidate=5", 14, "hit; ttl=-4; detail=revalidating"),
        ("", "max-age=10, stale-while-revalidate=5", 15, "fwd=stale"),
        ("", "max-age=10, must-revalidate, stale-while-revalidate=5", 10, "fwd=stale"),
        ("max_ttl = \"5s\"", "max-age=10", 5, "fwd=stale"),
        ("max_ttl = \"5s\"", "max-age=3", 3, "fwd=stale"),
        ("ttl = \"30s\"", "max-age=10", 10, "fwd=stale"),
        ("ttl = \"30s\"", "private", 0, "fwd=uri-miss"),
        ("ttl = \"30s\"", "no-cache", 0, "fwd=uri-miss"),
        ("ttl = \"30s\"\nstale_while_revalidate = \"60s\"", "no-cache", 0, "fwd=uri-miss"),
        ("ttl = \"30s\"\nstale_while_revalidate = \"60s\"", "no-cache, max-age=9", 0, "fwd=uri-miss"),
        ("ttl = \"30s\"", "no-store", 0, "fwd=uri-miss"),
        (ASIDE, "private", 29, "hit; ttl=1"),
        (ASIDE, "no-cache", 29, "hit; ttl=1"),
        (ASIDE, "max-age=0", 29, "hit; ttl=1"),
        (ASIDE, "private, no-cache, max-age=0", 30, "fwd=stale"),
        (ASIDE, "no-store", 0, "fwd=uri-miss"),
    ] {
        let world = caching(cache);
        world.upstream.plays(move |_| reply(200, "x").with("cache-control", said));
        world.get("/r").send().await;
        pass(s(after)).await;
        let got: Got = world.get("/r").send().await;
        assert!(got.cache().starts_with(second), "{cache:?} {said:?}: {} is not {second}", got.cache());
        settle().await;
        world.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_with_credentials_asks_about_what_is_held_and_takes_it_from_nobody() {
    let world = World::new(&Config {
        route: "forward_headers = [\"authorization\"]",
        cache: "heuristics = false",
        ..Config::default()
    });
    world.upstream.plays(|heard| {
        let known = heard.header("if-none-match") == Some("\"a\"");
        let reply = if known { reply(304, "") } else { reply(200, format!("#{}", heard.n)) };
        reply.with("etag", "\"a\"").with("cache-control", "max-age=10")
    });
    world.get("/r").send().await;
    pass(s(20)).await;
    let own = world.get("/r").with("authorization", "x").send().await;
    assert_eq!((own.text(), own.cache()), ("#1", "fwd=stale; fwd-status=304"));
    // What was stored without credentials is still held, and still only asked about.
    let again = world.get("/r").send().await;
    assert_eq!((again.text(), again.cache()), ("#1", "fwd=stale; fwd-status=304; stored"));
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=10");
    assert_eq!(world.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_answer_that_would_be_somebody_elses() {
    let world = caching("heuristics = false");
    world
        .upstream
        .plays(|heard| reply(200, format!("#{}", heard.n)).with("cache-control", "no-store").after(s(1)));
    let first = all(world.crowd(8, "/r").await).await;
    assert!(first.iter().any(|got| got.took == s(2)), "they found out by waiting");
    let second = all(world.crowd(8, "/r").await).await;
    assert!(second.iter().all(|got| got.took == s(1)), "now they know");
    assert_eq!(world.calls(), 16);
    world.quiet().await;
}

/// RFC 9211: each outcome is told as what happened, one after another on one key.
#[tokio::test(start_paused = true)]
async fn cache_status_is_true_of_every_outcome() {
    let world = World::new(&Config {
        route: "forward_headers = \"all\"\nmethods = [\"GET\", \"POST\"]",
        cache: "honour_request_directives = true\nstale_if_error = \"60s\"",
        ..Config::default()
    });
    world.upstream.plays(|heard| {
        let status = match heard.header("if-none-match") {
            _ if heard.n > 6 => 503,
            Some("\"a\"") => 304,
            _ => 200,
        };
        let body = if status == 304 { "" } else { "x" };
        let reply = reply(status, body).with("etag", "\"a\"").with("vary", "accept");
        reply.with("cache-control", if heard.method == Method::POST { "no-store" } else { "max-age=10" })
    });
    let none = ("x-none", "");
    for (after, (name, value), told) in [
        (0, none, "fwd=uri-miss; fwd-status=200; stored"),
        (0, none, "hit; ttl=10"),
        (4, none, "hit; ttl=6"),
        (0, ("accept", "a/b"), "fwd=vary-miss; fwd-status=200; stored"),
        (0, ("cache-control", "no-cache"), "fwd=request; fwd-status=304; stored"),
        (0, ("if-none-match", "\"a\""), "hit; ttl=10"),
        (0, ("range", "bytes=0-0"), "hit; ttl=10"),
        (12, ("cache-control", "max-stale=5"), "hit; ttl=-2"),
        (0, none, "fwd=stale; fwd-status=304; stored"),
        (0, ("cache-control", "no-store"), "hit; ttl=10"),
        // It erases what is held; from the seventh call on the upstream fails.
        (0, ("x-post", ""), "fwd=method; fwd-status=200"),
        (0, none, "fwd=uri-miss; fwd-status=200; stored"),
        (11, none, "fwd=stale; fwd-status=503; ttl=-1; detail=upstream-error"),
        (0, none, "hit; ttl=-1; detail=upstream-error"),
    ] {
        pass(s(after)).await;
        let method = if name == "x-post" { Method::POST } else { Method::GET };
        let got = world.ask(method, "/r").with(name, value).send().await;
        assert_eq!(got.cache(), told, "{name}: {value}, call {}", world.calls());
    }
    let off = World::new(&Config { cache: "enabled = false", ..Config::default() });
    assert_eq!(off.get("/r").send().await.cache(), "fwd=bypass; fwd-status=200");
}

/// What only the operator's word shares is not given to somebody the upstream knows, by whatever field the route says so.
#[tokio::test(start_paused = true)]
async fn a_field_that_says_who_asks_counts_as_authorization() {
    let world = World::new(&Config {
        route: "forward_headers = \"all\"",
        cache: "ttl = \"30s\"\ncredential_headers = [\"x-user\"]",
        ..Config::default()
    });
    world.get("/r").send().await;
    for name in ["x-user", "authorization", "cookie"] {
        for _ in 0..2 {
            let got = world.get("/r").with(name, "ana").send().await;
            assert_eq!(got.cache(), "fwd=request; fwd-status=200", "{name}");
        }
    }
    assert_eq!((world.get("/r").send().await.cache(), world.calls()), ("hit; ttl=30", 7));
}

/// A soft purge ends freshness and leaves what may be given stale, which is counted from then on.
#[tokio::test(start_paused = true)]
async fn what_was_purged_softly_is_stale_from_then_on() {
    let world = caching("ttl = \"30s\"\nstale_if_error = \"100s\"");
    world.upstream.plays(|heard| match heard.header("if-none-match") {
        Some("\"a\"") if heard.n > 2 => reply(304, ""),
        _ if heard.n == 2 => reply(503, ""),
        _ => reply(200, "one").with("etag", "\"a\""),
    });
    world.get("/r").send().await;
    pass(s(5)).await;
    assert_eq!(
        (world.purge("soft=true&request=GET /r"), world.purge("soft=true&request=GET /r?q=1")),
        (1, 0)
    );
    let stale = world.get("/r").send().await;
    assert_eq!(stale.cache(), "fwd=stale; fwd-status=503; ttl=-1; detail=upstream-error");
    pass(s(2)).await;
    assert_eq!(world.get("/r").send().await.cache(), "fwd=stale; fwd-status=304; stored");
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=30");
    assert_eq!(world.purge("request=GET /r"), 1);
    assert_eq!(world.get("/r").send().await.cache(), "fwd=uri-miss; fwd-status=200; stored");
}
