//! What is spent, and who waits for it.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::model::Moment;

use crate::world::{Act, Config, Latch, World, all, ms, pass, reply, s, settle};

const NOTHING_KEPT: &str = "enabled = false";

fn spending(account: &'static str) -> World {
    World::new(&Config { account, cache: NOTHING_KEPT, ..Config::default() })
}

/// No interval of length `per` holds more than `requests` of these moments.
fn never_exceeded(moments: &mut [Moment], requests: usize, per: Duration) -> Result<(), String> {
    moments.sort();
    for run in moments.windows(requests + 1) {
        let span = run[requests].since(run[0]);
        if span < per {
            return Err(format!("{} calls within {span:?}", requests + 1));
        }
    }
    Ok(())
}

/// A deterministic stream of numbers, so that a failure can be played again.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 + Send {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below.max(1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The window law at the upstream, wherever between sending and answer it counts: many clients, random moments,
    /// latencies and failures, some clients leaving.
    #[test]
    fn the_upstream_never_sees_more_than_the_windows_admit(seed in any::<u64>(), counts_at in 0u64..=100) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = spending(
                "quota = [{ requests = 5, per = \"1s\" }, { requests = 12, per = \"4s\" }]\nmax_wait = \"3s\"",
            );
            let mut roll = dice(seed);
            let latencies: Vec<u64> = (0..400).map(|_| roll(700)).collect();
            let played = latencies.clone();
            world.upstream.plays(move |heard| {
                let latency = ms(played[heard.n]);
                match played[heard.n + 1] % 10 {
                    0 => Act::Timeout(latency),
                    1 => reply(500, "").after(latency).into(),
                    _ => {
                        let mut reply = reply(200, "x").after(latency);
                        reply.body_latency = ms(played[heard.n + 2]);
                        reply.into()
                    }
                }
            });
            let mut crowd = Vec::new();
            for n in 0..150 {
                tokio::time::sleep(ms(roll(3) * roll(120))).await;
                crowd.push(world.get(&format!("/r?q={n}")).start());
                if roll(8) == 0 {
                    let leaves: usize = roll(crowd.len() as u64).try_into().unwrap();
                    crowd[leaves].abort();
                }
            }
            for one in crowd {
                let _ = one.await;
            }
            let heard = world.upstream.heard();
            let mut counted: Vec<Moment> =
                heard.iter().map(|heard| heard.at + ms(latencies[heard.n]) * u32::try_from(counts_at).unwrap() / 100).collect();
            prop_assert!(counted.len() > 10, "calls are made: {}", counted.len());
            // A client that leaves cuts its call short: counted no later than the moment it left, which only brings
            // it forward; sending is what is certain then.
            let mut sent: Vec<Moment> = heard.iter().map(|heard| heard.at).collect();
            for (requests, per) in [(5, s(1)), (12, s(4))] {
                let law = never_exceeded(&mut sent, requests, per);
                prop_assert!(law.is_ok(), "sent: {law:?}");
            }
            if world.metric("tollgate_requests_total", &["code=\"499\""]) == 0.0 {
                for (requests, per) in [(5, s(1)), (12, s(4))] {
                    let law = never_exceeded(&mut counted, requests, per);
                    prop_assert!(law.is_ok(), "counted: {law:?}");
                }
            }
            world.quiet().await;
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let world = spending("quota = [{ requests = 2, per = \"1s\" }]\nmax_wait = \"60s\"");
    let world = std::sync::Arc::new(world);
    world.upstream.plays(|_| reply(200, "x").after(ms(30)));
    let mut crowd = Vec::new();
    for n in 0..20 {
        crowd.push(world.get(&format!("/r?q={n:02}")).with("tollgate-timeout", "60").start());
        settle().await;
    }
    all(crowd).await;
    let order: Vec<_> = world.upstream.heard().iter().map(|heard| heard.target.clone()).collect();
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(order, sorted);
    world.quiet().await;
}

/// A refusal comes at once, and whoever comes back when it says is served.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_immediate_and_its_retry_after_is_true() {
    let world = spending("quota = [{ requests = 3, per = \"10s\" }]\nmax_wait = \"2s\"");
    for q in ["/r?q=1", "/r?q=2", "/r?q=3"] {
        assert_eq!(world.get(q).send().await.status, 200);
        pass(ms(500)).await;
    }
    let refused = world.get("/r?q=4").send().await;
    assert_eq!((refused.status, refused.problem().as_str(), refused.took), (429, "quota-exceeded", s(0)));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(wait, 9, "the first slot is free 10 s after its answer, in 8.5 s");
    assert!(refused.text().contains("\"policy\":\"3;w=10\""), "{}", refused.text());
    pass(s(wait)).await;
    let back = world.get("/r?q=4").send().await;
    assert_eq!((back.status, back.took), (200, s(0)));
    assert_eq!(world.calls(), 4);
    world.quiet().await;
}

/// With a line before it, the figure counts the line.
#[tokio::test(start_paused = true)]
async fn the_figure_counts_those_who_wait_already() {
    let world = spending("quota = [{ requests = 1, per = \"2s\" }]\nmax_wait = \"5s\"");
    assert_eq!(world.get("/r?q=0").send().await.status, 200);
    let line: Vec<_> = (1..=2).map(|q| world.get(&format!("/r?q={q}")).start()).collect();
    settle().await;
    let refused = world.get("/r?q=3").send().await;
    assert_eq!((refused.status, refused.took), (429, s(0)), "slots come free in 2 s, 4 s, and 6 s");
    assert_eq!(refused.header("retry-after"), Some("6"));
    pass(s(6)).await;
    assert_eq!(world.get("/r?q=3").send().await.status, 200);
    assert!(all(line).await.iter().all(|got| got.status == 200));
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded() {
    let world = spending("quota = [{ requests = 1, per = \"2s\" }]\nmax_wait = \"60s\"\nmax_waiting = 3");
    let crowd: Vec<_> =
        (0..4).map(|q| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "60").start()).collect();
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &[]), 3.0);
    let refused = world.get("/r?q=9").send().await;
    assert_eq!((refused.status, refused.problem().as_str(), refused.took), (503, "queue-full", s(0)));
    assert!(refused.header("retry-after").is_some());
    assert!(all(crowd).await.iter().all(|got| got.status == 200));
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_line_makes_room() {
    let world = spending("quota = [{ requests = 1, per = \"2s\" }]\nmax_wait = \"60s\"");
    let ask = |q: &str| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "60").start();
    let first = ask("first");
    settle().await;
    let (leaving, staying) = (ask("leaving"), ask("staying"));
    settle().await;
    leaving.abort();
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &[]), 1.0);
    assert_eq!((first.await.unwrap().took, staying.await.unwrap().took), (s(0), s(2)));
    assert_eq!(world.calls(), 2, "nothing was spent for the one who left");
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_costs_nothing() {
    let world = spending("quota = [{ requests = 2, per = \"1h\" }]\nmax_wait = \"60s\"");
    world.upstream.plays(|_| Act::Unreachable(s(3)));
    let ask = |q: &str| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "30").start();
    let (one, two) = (ask("1"), ask("2"));
    settle().await;
    assert_eq!(world.metric("tollgate_quota_remaining", &[]), 0.0);
    for got in [one.await.unwrap(), two.await.unwrap()] {
        assert_eq!((got.status, got.problem().as_str()), (502, "upstream-unreachable"));
    }
    assert_eq!(world.metric("tollgate_quota_remaining", &[]), 2.0);
    for _ in 0..10 {
        let problem = world.get("/r?q=3").send().await.problem();
        assert!(["upstream-unreachable", "breaker-open"].contains(&problem.as_str()), "never 429: {problem}");
    }
    world.quiet().await;
}

/// A slot that comes back sooner than its window said goes to whoever waits.
#[tokio::test(start_paused = true)]
async fn a_slot_given_back_is_taken_at_once() {
    let world = spending("quota = [{ requests = 1, per = \"5s\" }]\nmax_wait = \"60s\"");
    world.upstream.plays(|heard| if heard.n == 1 { Act::Unreachable(s(3)) } else { reply(200, "x").into() });
    let ask = |q: &str| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "60").start();
    let first = ask("1");
    settle().await;
    let second = ask("2");
    assert_eq!(first.await.unwrap().status, 502);
    let second = second.await.unwrap();
    assert_eq!((second.status, second.took), (200, s(3)));
    world.quiet().await;
}

/// A call that was sent is spent, also if nobody waited for its end.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_left_is_spent() {
    let world = spending("quota = [{ requests = 1, per = \"10s\" }]");
    world.upstream.plays(|_| reply(200, "x").after(s(4)));
    let left = world.get("/r?q=1").start();
    pass(s(1)).await;
    left.abort();
    settle().await;
    let refused = world.get("/r?q=2").send().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(world.metric("tollgate_upstream_requests_total", &["outcome=\"abandoned\""]), 1.0);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_accounts_patience_or_the_clients() {
    for (timeout, took) in [("1.5", s(1)), ("60", s(3))] {
        let world = spending("quota = [{ requests = 1, per = \"1s\" }]\nmax_wait = \"3s\"");
        let latch = Latch::new();
        let held = latch.clone();
        world.upstream.plays(move |_| reply(200, "x").held_by(&held));
        let first = world.get("/r?q=1").with("tollgate-timeout", "60").start();
        settle().await;
        // The call under way may give its slot back at the earliest a second from now: worth waiting, in vain. Then
        // the next second is looked at, if there is one.
        let got = world.get("/r?q=2").with("tollgate-timeout", timeout).send().await;
        assert_eq!((got.status, got.took), (429, took), "{}", got.text());
        assert!(got.header("retry-after").is_some());
        latch.open();
        assert!(first.await.unwrap().status == 200 || timeout == "60");
        assert_eq!(world.calls(), 1);
        world.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_of_one_upstream_share_its_ceiling() {
    let world = World::new(&Config {
        upstream: "max_concurrent = 2",
        cache: NOTHING_KEPT,
        more: "[upstreams.u.accounts.b]\nquota = \"none\"\n[[routes]]\nname = \"b\"\npath = \"/b\"\nupstream = \"u\"\naccount = \"b\"\n[routes.cache]\nenabled = false\n",
        ..Config::default()
    });
    let latch = Latch::new();
    let held = latch.clone();
    world.upstream.plays(move |_| reply(200, "x").held_by(&held));
    let crowd: Vec<_> = ["/r?q=1", "/b?q=1"].map(|target| world.get(target).start()).into();
    settle().await;
    assert_eq!((world.calls(), world.metric("tollgate_permits", &[])), (2, 2.0));
    let busy = world.get("/b?q=2").send().await;
    assert_eq!((busy.status, busy.problem().as_str(), busy.took), (503, "queue-full", s(2)));
    let waiting = world.get("/r?q=3").start();
    settle().await;
    assert_eq!(world.calls(), 2);
    latch.open();
    assert!(all(crowd).await.iter().all(|got| got.status == 200));
    assert_eq!(waiting.await.unwrap().status, 200);
    world.quiet().await;
}

/// A call is under way until its answer's last byte.
#[tokio::test(start_paused = true)]
async fn a_body_on_its_way_counts_towards_the_ceiling() {
    let world =
        World::new(&Config { upstream: "max_concurrent = 1", cache: NOTHING_KEPT, ..Config::default() });
    let first = world.get("/r?q=1").head().await;
    let second = world.get("/r?q=2").start();
    pass(s(1)).await;
    assert_eq!(world.calls(), 1);
    drop(first);
    assert_eq!(second.await.unwrap().status, 200);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_counts_calls_and_not_answers() {
    let world = World::new(&Config {
        more: "[clients.one]\nkey = \"key-of-one-01234567\"\nbudget = { requests = 2, per = \"1h\" }\n\
               [clients.two]\nkey = \"key-of-two-01234567\"\n",
        ..Config::default()
    });
    let ask = |key: &str, q: u32| world.get(&format!("/r?q={q}")).with("x-tollgate-key", key).send();
    let (one, two) = ("key-of-one-01234567", "key-of-two-01234567");
    for _ in 0..5 {
        assert_eq!(ask(one, 1).await.status, 200);
    }
    assert_eq!(ask(one, 2).await.status, 200);
    let refused = ask(one, 3).await;
    assert_eq!((refused.status, refused.problem().as_str(), refused.took), (429, "budget-spent", s(0)));
    assert_eq!(refused.header("retry-after"), Some("3600"));
    assert!(refused.text().contains("\"policy\":\"budget\""));
    assert_eq!(ask(one, 1).await.status, 200, "what is held is free");
    assert_eq!(ask(two, 3).await.status, 200);
    assert_eq!(ask(one, 3).await.status, 200, "what another paid for is held too");
    assert_eq!(world.calls(), 3);
    pass(s(3600)).await;
    assert_eq!(ask(one, 4).await.status, 200);
    world.quiet().await;
}

/// A refresh that nobody waits for spends too, and an empty account does not hurry after it.
#[tokio::test(start_paused = true)]
async fn refreshes_are_spent_like_any_call() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 2, per = \"1h\" }]",
        cache: "ttl = \"10s\"\nstale_while_revalidate = \"1h\"",
        ..Config::default()
    });
    world.get("/r").send().await;
    for _ in 0..5 {
        pass(s(11)).await;
        assert_eq!(world.get("/r").send().await.status, 200);
        world.quiet().await;
    }
    assert_eq!(world.calls(), 2);
    assert!(world.get("/r").send().await.cache().ends_with("detail=quota"));
    world.quiet().await;
}
