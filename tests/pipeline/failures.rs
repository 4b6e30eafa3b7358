//! The n-th call fails, for every n and in every way; and an optimisation changes the load, never a success's content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use proptest::prelude::*;
use tollgate::model::BodyError;

use crate::world::{Act, Config, Got, World, all, ms, pass, reply, s, settle};

const CACHE: &str = "ttl = \"10s\"\nstale_while_revalidate = \"5s\"\nstale_if_error = \"60s\"";

/// A morning at the gate: a crowd, hits, another question, a refresh behind a client's back, a refresh that somebody
/// waits for, a client that leaves, a call of its own.
async fn morning(world: &World) -> Vec<Got> {
    let mut got = all(world.crowd(5, "/r?q=a").await).await;
    pass(s(1)).await;
    got.push(world.get("/r?q=a").send().await);
    got.push(world.get("/r?q=b").send().await);
    pass(s(11)).await;
    got.push(world.get("/r?q=a").send().await);
    pass(s(2)).await;
    let leaving = world.get("/r?q=c").start();
    settle().await;
    leaving.abort();
    pass(s(20)).await;
    got.extend(all(world.crowd(3, "/r?q=b").await).await);
    // The listener makes a 500 of a panic in a call of its own.
    got.extend(world.ask(Method::HEAD, "/r?q=d").start().await);
    got.extend(world.ask(Method::POST, "/r").body("x").start().await);
    got
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_in_whichever_way_nothing_is_left_behind() {
    let ways: [(Act, &[u16]); 9] = [
        (Act::Unreachable(ms(200)), &[502]),
        (Act::Timeout(s(4)), &[504]),
        (Act::Broken, &[502]),
        (reply(200, "ha").cut(BodyError::Truncated).into(), &[502]),
        (reply(200, "ha").cut(BodyError::TimedOut).into(), &[504]),
        (reply(500, "sorry").into(), &[500]),
        (reply(429, "slow").into(), &[429]),
        (reply(401, "who?").into(), &[502]),
        (Act::Panic, &[500]),
    ];
    let config = Config {
        account: "quota = [{ requests = 40, per = \"1s\" }]",
        route: "methods = [\"GET\", \"HEAD\", \"POST\"]",
        cache: CACHE,
        ..Config::default()
    };
    for (act, allowed) in ways {
        for nth in 1.. {
            assert!(nth < 30, "{act:?}: a run must come out clean");
            let world = World::new(&config);
            let (failed, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let (played, counter, is_over) = (act.clone(), failed.clone(), over.clone());
            world.upstream.plays(move |heard| {
                if heard.n == nth && !is_over.load(Ordering::Relaxed) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    return played.clone();
                }
                reply(200, heard.target.clone()).after(ms(100)).into()
            });
            for got in morning(&world).await {
                let say = || format!("{act:?} at call {nth}: {got:?}");
                // Half a body that streams breaks off; only what is nobody else's streams.
                let broke_off = got.body.is_err();
                assert!(got.status == 200 || allowed.contains(&got.status), "{}", say());
                if got.status == 200 && !broke_off {
                    assert!(got.text().starts_with("/v1/r"), "never half, never another's: {}", say());
                }
                assert!(
                    !broke_off
                        || got.cache().starts_with("fwd=method")
                        || got.cache().contains("fwd=uri-miss"),
                    "{}",
                    say()
                );
            }
            world.quiet().await;
            over.store(true, Ordering::Relaxed);
            // Whatever broke, a little later all is well, and nothing of the failure was kept.
            pass(s(3)).await;
            for target in ["/r?q=a", "/r?q=b", "/r?q=c", "/r?q=d", "/r?q=e"] {
                let got = world.get(target).send().await;
                assert_eq!(
                    (got.status, got.text()),
                    (200, format!("/v1{target}").as_str()),
                    "{act:?} at call {nth}"
                );
            }
            world.quiet().await;
            pass(s(2)).await;
            assert_eq!(world.metric("tollgate_quota_remaining", &[]), 40.0, "{act:?} at call {nth}");
            if failed.load(Ordering::Relaxed) == 0 {
                break;
            }
        }
    }
}

/// One thing that clients do.
#[derive(Debug, Clone)]
enum Step {
    Ask(u8),
    Crowd(u8, usize),
    Leave(u8),
    Wait(u64),
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Ask),
        2 => (0u8..3, 2usize..6).prop_map(|(q, many)| Step::Crowd(q, many)),
        1 => (0u8..3).prop_map(Step::Leave),
        3 => (1u64..15_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Fail),
    ]
}

/// Plays `steps` under `cache`: every success must be what the upstream said of that question at most `oldest` ago.
async fn play(
    cache: &'static str,
    oldest: std::time::Duration,
    steps: &[Step],
) -> Result<(usize, Vec<u16>), TestCaseError> {
    // Without the breaker: which call it refuses depends on how many were made before, so it would blur the count.
    let world = World::new(&Config { cache, upstream: "breaker_failures = 0", ..Config::default() });
    let failing = Arc::new(AtomicBool::new(false));
    let now_failing = failing.clone();
    world.upstream.plays(move |heard| {
        if now_failing.load(Ordering::Relaxed) {
            return Act::Unreachable(ms(20));
        }
        // What the upstream knows changes with the time: its answer names the question and its own moment.
        reply(200, format!("{} at {}", heard.target, heard.at.as_nanos())).after(ms(50)).into()
    });
    let mut statuses = Vec::new();
    for step in steps {
        let (q, got) = match step {
            Step::Wait(millis) => {
                pass(ms(*millis)).await;
                continue;
            }
            Step::Fail(fails) => {
                // A call under way lands first, so that a failure belongs to its step.
                pass(ms(100)).await;
                failing.store(*fails, Ordering::Relaxed);
                continue;
            }
            Step::Leave(q) => {
                let leaving = world.get(&format!("/r?q={q}")).start();
                settle().await;
                leaving.abort();
                continue;
            }
            Step::Ask(q) => (q, vec![world.get(&format!("/r?q={q}")).send().await]),
            Step::Crowd(q, many) => (q, all(world.crowd(*many, &format!("/r?q={q}")).await).await),
        };
        for got in got {
            statuses.push(got.status);
            if got.status != 200 {
                let failed = got.status == 502 && failing.load(Ordering::Relaxed);
                prop_assert!(failed, "only while the upstream fails: {:?}", got);
                continue;
            }
            let (question, moment) = got.text().split_once(" at ").unwrap();
            prop_assert_eq!(question, format!("/v1/r?q={q}"));
            let told = tollgate::model::Moment::from_nanos(moment.parse().unwrap());
            prop_assert!(world.now().since(told) <= oldest + ms(100), "{:?} is too old under {}", got, cache);
        }
    }
    world.quiet().await;
    Ok((world.calls(), statuses))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 7: with everything off, with memory, with stale answers too: the same successes within their allowed
    /// age, never a failure more, and never a call more.
    #[test]
    fn an_optimisation_changes_the_load_and_no_content(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut calls = BTreeMap::new();
            for (at, (cache, oldest)) in [
                ("enabled = false", s(0)),
                ("ttl = \"10s\"\nstale_if_unreachable = \"0s\"", s(10)),
                ("ttl = \"10s\"\nstale_if_error = \"30s\"", s(40)),
                ("ttl = \"10s\"\nstale_while_revalidate = \"20s\"\nstale_if_error = \"30s\"", s(40)),
            ].into_iter().enumerate() {
                calls.insert(at, play(cache, oldest, &steps).await?);
            }
            let failures = |at: usize| calls[&at].1.iter().filter(|status| **status != 200).count();
            prop_assert!(calls[&1].0 <= calls[&0].0, "memory saves calls: {calls:?}");
            prop_assert!(failures(1) <= failures(0) && failures(2) <= failures(1) && failures(3) <= failures(1), "{calls:?}");
            Ok(())
        })?;
    }
}
