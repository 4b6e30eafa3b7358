//! What the upstream says of its limits, and what the gate does about it.

use std::time::Duration;

use crate::world::{Config, Latch, World, all, ms, pass, reply, s, settle};

fn open(account: &'static str) -> World {
    World::new(&Config { account, cache: "enabled = false", ..Config::default() })
}

/// Whatever a 429 says: the account costs the upstream nothing for as long as it said, and one probe reopens it.
#[tokio::test(start_paused = true)]
async fn a_429_closes_the_account_for_as_long_as_it_says_and_one_probe_reopens_it() {
    let date = "Sun, 06 Nov 1994 08:50:09 GMT";
    for (headers, closed) in [
        (vec![("retry-after", "30")], 30),
        (vec![("retry-after", "7200")], 300),
        (vec![("retry-after", date)], 30),
        // The upstream's clock is wrong by hours, in both fields.
        (
            vec![("retry-after", "Sun, 06 Nov 1994 12:00:40 GMT"), ("date", "Sun, 06 Nov 1994 12:00:00 GMT")],
            40,
        ),
        (vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111809")], 30),
        (vec![("ratelimit", "\"a\";r=0;t=20")], 20),
        (vec![("retry-after", "0")], 1),
        (vec![("retry-after", "soon")], 1),
        (vec![], 1),
    ] {
        let world = open("quota = \"none\"\nmax_wait = \"0s\"");
        let played = headers.clone();
        world.upstream.plays(move |heard| {
            let refusal = |(name, value): &(&'static str, &'static str)| (*name, (*value).to_owned());
            let mut refused = reply(429, "not now");
            refused.headers = played.iter().map(refusal).collect();
            if heard.n == 1 { refused } else { reply(200, "x").after(ms(500)) }
        });
        // One second after the world began: what the dates above count from.
        pass(s(1)).await;
        let got = world.get("/r?q=0").send().await;
        assert_eq!((got.status, got.text()), (429, "not now"), "the upstream's own words");
        let told: u64 = closed;
        for (after, q) in [(0, 1), (told * 500, 2)] {
            pass(ms(after)).await;
            let got = world.get(&format!("/r?q={q}")).send().await;
            assert_eq!(
                (got.status, got.problem().as_str(), got.took),
                (429, "account-paused", s(0)),
                "{headers:?}"
            );
            let wait: u64 = got.header("retry-after").unwrap().parse().unwrap();
            assert_eq!(wait, (told * 1000 - after).div_ceil(1000), "{headers:?}");
        }
        assert_eq!((world.calls(), world.metric("tollgate_account_paused", &[])), (1, 1.0));
        pass(ms(told * 500 + 20)).await;
        // Of a crowd one goes first.
        let crowd: Vec<_> = (3..13).map(|q| world.get(&format!("/r?q={q}")).start()).collect();
        settle().await;
        assert_eq!(world.calls(), 2, "{headers:?}");
        let served = all(crowd).await.iter().filter(|got| got.status == 200).count();
        assert_eq!(served, 1, "nobody waits here: the others are told to come back");
        assert_eq!(world.get("/r?q=99").send().await.status, 200);
        assert_eq!(world.metric("tollgate_account_paused", &[]), 0.0);
        world.quiet().await;
    }
}

/// Who has the patience waits for the account to open, and a call that met the 429 goes again by itself.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_sent_away_waits_again_if_it_may() {
    let world = open("quota = \"none\"\nmax_wait = \"30s\"");
    world
        .upstream
        .plays(|heard| if heard.n == 1 { reply(429, "").with("retry-after", "5") } else { reply(200, "x") });
    let first = world.get("/r?q=1").with("tollgate-timeout", "20").start();
    settle().await;
    let hurried = world.get("/r?q=2").with("tollgate-timeout", "4").send().await;
    assert_eq!((hurried.status, hurried.took, hurried.header("retry-after")), (429, s(0), Some("5")));
    let patient: Vec<_> =
        (3..8).map(|q| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "20").start()).collect();
    let first = first.await.unwrap();
    assert_eq!((first.status, first.took), (200, s(5)));
    assert!(all(patient).await.iter().all(|got| got.status == 200 && got.took == s(5)));
    assert_eq!(world.calls(), 7);
    world.quiet().await;
}

/// An upstream that never says how long is asked with growing gaps, by one call at a time.
#[tokio::test(start_paused = true)]
async fn without_a_figure_probes_go_with_growing_gaps() {
    let world = open("quota = \"none\"\nmax_wait = \"0s\"");
    world.upstream.plays(|_| reply(429, ""));
    for n in 0..1200 {
        assert_eq!(world.get(&format!("/r?q={n}")).send().await.status, 429);
        pass(ms(100)).await;
    }
    let sent: Vec<_> = world.upstream.heard().iter().map(|heard| heard.at).collect();
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    for (gap, least) in gaps.iter().zip([1, 2, 4, 8, 16, 32, 60]) {
        assert!(*gap >= s(least) && *gap < s(least) + ms(300), "{gaps:?}");
    }
    assert_eq!(gaps.len(), 6, "{gaps:?}");
    world.quiet().await;
}

/// What is held stands in for a closed account, and costs it nothing.
#[tokio::test(start_paused = true)]
async fn something_stale_stands_in_for_a_closed_account() {
    let world = World::new(&Config {
        account: "quota = \"none\"",
        cache: "ttl = \"10s\"\nstale_if_error = \"1h\"",
        ..Config::default()
    });
    world.get("/r").send().await;
    world.upstream.plays(|_| reply(503, "").with("retry-after", "60"));
    pass(s(11)).await;
    for _ in 0..5 {
        let got = world.get("/r").send().await;
        assert_eq!(got.status, 200);
        pass(s(5)).await;
    }
    assert!(world.get("/r").send().await.cache().ends_with("detail=paused"));
    assert_eq!(world.calls(), 2);
    world.quiet().await;
}

/// A probe that is never answered finds nothing out, and the next one is not kept waiting for it.
#[tokio::test(start_paused = true)]
async fn a_lost_probe_makes_room_for_the_next() {
    let world = open("quota = \"none\"\nmax_wait = \"0s\"");
    world.upstream.plays(|heard| match heard.n {
        1 => reply(429, "").with("retry-after", "2"),
        2 => reply(200, "x").after(s(3600)),
        _ => reply(200, "x"),
    });
    world.get("/r?q=1").send().await;
    pass(s(2)).await;
    let probe = world.get("/r?q=2").start();
    settle().await;
    probe.abort();
    settle().await;
    assert_eq!(world.get("/r?q=3").send().await.status, 429);
    pass(s(1)).await;
    assert_eq!(world.get("/r?q=4").send().await.status, 200);
    assert_eq!(world.calls(), 3);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_may_be_closed_alone() {
    let world = World::new(&Config {
        account: "quota = \"none\"\nmax_wait = \"0s\"",
        route: "pauses = \"route\"",
        cache: "enabled = false",
        more: "[[routes]]\nname = \"b\"\npath = \"/b\"\nupstream = \"u\"\naccount = \"a\"\n[routes.cache]\nenabled = false\n",
        ..Config::default()
    });
    world
        .upstream
        .plays(|heard| if heard.n == 1 { reply(429, "").with("retry-after", "10") } else { reply(200, "x") });
    assert_eq!(world.get("/r?q=1").send().await.status, 429);
    let closed = world.get("/r?q=2").with("tollgate-timeout", "5").send().await;
    assert_eq!((closed.problem().as_str(), closed.header("retry-after")), ("account-paused", Some("10")));
    assert_eq!(world.get("/b?q=1").send().await.status, 200);
    pass(s(10)).await;
    assert_eq!(world.get("/r?q=3").send().await.status, 200);
    world.quiet().await;
}

/// What the upstream says is left only ever lowers what the gate has left.
#[tokio::test(start_paused = true)]
async fn what_is_left_by_the_upstreams_word_is_not_exceeded() {
    let world = open("quota = [{ requests = 100, per = \"60s\" }]\nmax_wait = \"0s\"");
    world.upstream.plays(|heard| {
        let left = 4usize.saturating_sub(heard.n);
        reply(200, "x")
            .with("ratelimit", format!("\"m\";r={left};t=30"))
            .with("ratelimit-policy", "\"m\";q=100;w=60")
    });
    let mut got = Vec::new();
    for q in 0..8 {
        got.push(world.get(&format!("/r?q={q}")).send().await);
    }
    let statuses: Vec<_> = got.iter().map(|got| got.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429, 429, 429]);
    assert_eq!(got[5].header("retry-after"), Some("30"));
    assert_eq!(world.calls(), 4);
    world.quiet().await;
}

/// Clients are told what the gate's windows admit, and not what the upstream said of one moment.
#[tokio::test(start_paused = true)]
async fn clients_are_told_what_is_left() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 3, per = \"10s\" }, { requests = 100, per = \"1h\" }]\nmax_wait = \"0s\"",
        more: "[server]\nrate_limit_fields = \"both\"\n",
        ..Config::default()
    });
    world
        .upstream
        .plays(|_| reply(200, "x").with("ratelimit", "\"theirs\";r=77").with("x-ratelimit-limit", "78"));
    let first = world.get("/r?q=1").send().await;
    assert_eq!(first.header("ratelimit"), Some("\"10s\";r=2;t=10, \"3600s\";r=99;t=3600"));
    assert_eq!(first.header("ratelimit-policy"), Some("\"10s\";q=3;w=10, \"3600s\";q=100;w=3600"));
    let x =
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| first.header(name));
    assert_eq!(x, [Some("3"), Some("2"), Some("10")]);
    let hit = world.get("/r?q=1").send().await;
    assert_eq!((hit.header("ratelimit"), hit.header("x-ratelimit-limit")), (None, None), "it cost nothing");
    for q in [2, 3, 4] {
        world.get(&format!("/r?q={q}")).send().await;
    }
    let refused = world.get("/r?q=5").send().await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "quota-exceeded"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"10s\";r=0;t="), "{:?}", refused.headers);
    world.quiet().await;
}

/// Nobody is told that the upstream is busy where its ceiling has room: not even whose time is over in a moment in which the
/// line is looked at for another reason, while a probe is out.
#[tokio::test(start_paused = true)]
async fn whose_time_ends_while_a_probe_is_out_is_told_to_come_back() {
    let world = open("quota = \"none\"\nmax_wait = \"2s\"");
    let latch = Latch::new();
    let held = latch.clone();
    world.upstream.plays(move |heard| match heard.n {
        1 => reply(429, "not now").with("retry-after", "3"),
        _ => reply(200, "x").held_by(&held),
    });
    assert_eq!(world.get("/r?q=1").send().await.status, 429);
    pass(s(3)).await;
    let probe = world.get("/r?q=2").start();
    settle().await;
    assert_eq!(world.calls(), 2);
    tokio::time::advance(Duration::from_micros(400)).await;
    let hurried = world.get("/r?q=3").start();
    settle().await;
    // Its time is over, and its timer, which counts whole milliseconds, has not said so yet.
    tokio::time::advance(s(2) + Duration::from_micros(100)).await;
    let patient = world.get("/r?q=4").start();
    let hurried = hurried.await.unwrap();
    assert_eq!((hurried.status, hurried.problem().as_str()), (429, "account-paused"));
    assert_eq!(hurried.header("retry-after"), Some("1"));
    latch.open();
    for got in [probe, patient] {
        assert_eq!(got.await.unwrap().status, 200);
    }
    world.quiet().await;
}
