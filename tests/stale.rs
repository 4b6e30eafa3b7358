//! When the upstream is slow, broken or gone: what is held serves for as long as the policy says, then the failure is
//! told, and everything recovers by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks and reads the clock")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::client::{Answer, Client};
use support::gate::{Gate, Setup};
use support::shipped::{cache_status, problem};
use support::upstream::{Reply, Request, Upstream};
use support::within;

fn config(url: &str, upstream: &str, cache: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
{upstream}
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
[routes.cache]
{cache}
"#
    )
}

/// What the upstream answers from now on; `None`: a number that grows.
type Weather = Arc<Mutex<Option<Reply>>>;

async fn start(upstream: &str, cache: &str) -> (Upstream, Weather, Gate) {
    let weather = Weather::default();
    let now = weather.clone();
    let scripted = Upstream::start(move |request: &Request| {
        let fine = || Reply::json(format!("{{\"number\":{}}}", request.number));
        now.lock().unwrap().clone().unwrap_or_else(fine)
    })
    .await;
    let gate = Setup::new(config(&scripted.url(), upstream, cache)).start().await;
    (scripted, weather, gate)
}

fn becomes(weather: &Weather, reply: Option<Reply>) {
    *weather.lock().unwrap() = reply;
}

/// Asks until `wanted` holds, for what comes with time alone.
async fn until(client: &mut Client, target: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    within("the answer to become as wanted", async {
        loop {
            let answer = client.get(target, &[]).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn detail(answer: &Answer) -> Option<&str> {
    cache_status(answer).split("; detail=").nth(1)
}

#[tokio::test]
async fn a_stale_answer_comes_at_once_and_is_refreshed_by_one_call() {
    let (upstream, _, gate) = start("", "ttl = \"0s\"\nstale_while_revalidate = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    assert_eq!(client.get("/r/a", &[]).await.text(), "{\"number\":1}");
    upstream.hold();
    for _ in 0..10 {
        let stale = client.get("/r/a", &[]).await;
        assert_eq!((stale.text().as_str(), detail(&stale)), ("{\"number\":1}", Some("revalidating")));
        assert!(cache_status(&stale).starts_with("tollgate; hit; ttl="), "{}", cache_status(&stale));
        assert!(stale.header("age").is_some());
    }
    upstream.seen(2).await;
    gate.quiet().await;
    assert_eq!(upstream.count(), 2, "ten clients, one refresh");
    upstream.release();
    gate.metric_becomes("tollgate_tasks", &[], |tasks| tasks <= 1.0).await;
    upstream.hold();
    assert_eq!(client.get("/r/a", &[]).await.text(), "{\"number\":2}", "what the refresh brought");
    upstream.release();
    let labels = ["route=\"r\"", "reason=\"revalidating\""];
    assert_eq!(gate.metric("tollgate_stale_total", &labels).await, 11.0);
}

#[tokio::test]
async fn a_refresh_that_fails_harms_nobody_and_is_not_repeated_by_each() {
    let (upstream, weather, gate) = start("", "ttl = \"0s\"\nstale_while_revalidate = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    becomes(&weather, Some(Reply::new(500, "broken")));
    let began = Instant::now();
    until(&mut client, "/r/a", |answer| detail(answer) == Some("upstream-error")).await;
    for _ in 0..100 {
        assert_eq!(client.get("/r/a", &[]).await.text(), "{\"number\":1}");
    }
    let allowed = 2 + began.elapsed().as_secs();
    assert!(upstream.count() as u64 <= 1 + allowed, "one call a second at most, not {}", upstream.count());
    becomes(&weather, None);
    until(&mut client, "/r/a", |answer| answer.text() != "{\"number\":1}").await;
}

/// Every way to fail, with the word it is told by where something stale serves, and the answer where nothing does.
#[tokio::test]
async fn every_failure_is_covered_by_what_is_held() {
    let mut cases = tokio::task::JoinSet::new();
    for (reply, reason, status, kind) in [
        (Some(Reply::new(500, "broken")), "upstream-error", 500, None),
        (Some(Reply::new(502, "broken")), "upstream-error", 502, None),
        (Some(Reply::new(503, "broken")), "upstream-error", 503, None),
        (Some(Reply::new(504, "broken")), "upstream-error", 504, None),
        (Some(Reply::silence()), "unreachable", 502, Some("upstream-broken")),
        (Some(Reply::ok("half").truncate(2)), "unreachable", 502, Some("upstream-broken")),
        (Some(Reply::raw("nonsense\r\n\r\n")), "unreachable", 502, Some("upstream-broken")),
        (None, "unreachable", 502, Some("upstream-unreachable")),
    ] {
        // Each waits for its own recovery, so they wait together.
        cases.spawn(covered(reply, reason, status, kind));
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

async fn covered(reply: Option<Reply>, reason: &str, status: u16, kind: Option<&str>) {
    let (mut upstream, weather, gate) = start("", "ttl = \"0s\"\nstale_if_error = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    let held = client.get("/r/held", &[]).await;
    match reply {
        Some(reply) => becomes(&weather, Some(reply)),
        None => upstream.kill().await,
    }
    for _ in 0..20 {
        let stale = client.get("/r/held", &[]).await;
        assert_eq!((stale.status, &stale.body), (200, &held.body), "{reason}");
        assert_eq!(detail(&stale), Some(reason));
    }
    let lowered = client.get("/r/held", &[("Cache-Control", "stale-if-error=0")]).await;
    let nothing = client.get("/r/else", &[]).await;
    for answer in [lowered, nothing] {
        assert_eq!(answer.status, status, "{reason}: {}", answer.text());
        if let Some(kind) = kind {
            problem(&answer, status, kind);
        }
    }
    // And back, by itself.
    becomes(&weather, None);
    upstream.restart().await;
    let fresh = until(&mut client, "/r/held", |answer| answer.body != held.body).await;
    assert_eq!((fresh.status, detail(&fresh)), (200, None));
    assert!(gate.metric("tollgate_stale_total", &[&format!("reason=\"{reason}\"")]).await >= 20.0);
}

#[tokio::test]
async fn a_silent_upstream_is_a_504_and_covered_too() {
    let (upstream, _, gate) = start("timeout = \"100ms\"", "ttl = \"0s\"\nstale_if_error = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/held", &[]).await;
    upstream.hold();
    let document = problem(&client.get("/r/else", &[]).await, 504, "upstream-timeout");
    assert_eq!((&document["fault"], &document["upstream_called"]), (&"upstream".into(), &"maybe".into()));
    let stale = client.get("/r/held", &[]).await;
    assert_eq!((stale.status, detail(&stale)), (200, Some("unreachable")));
    upstream.release();
    until(&mut client, "/r/held", |answer| detail(answer).is_none()).await;
}

/// For so long as a failure speaks for the next requests, they cost no call.
#[tokio::test]
async fn a_failing_upstream_is_asked_about_once_a_second() {
    let (upstream, weather, gate) = start("", "ttl = \"0s\"\nstale_if_error = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    becomes(&weather, Some(Reply::new(503, "broken")));
    let (began, before) = (Instant::now(), upstream.count());
    let mut asked = 0;
    within("a second call", async {
        while upstream.count() < before + 2 {
            assert_eq!(client.get("/r/a", &[]).await.status, 200);
            asked += 1;
        }
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(1), "the second call came after {:?}", began.elapsed());
    assert!(asked > 10, "{asked}");
}

#[tokio::test]
async fn beyond_the_policy_the_failure_is_told() {
    let (mut upstream, _, gate) = start("", "ttl = \"0s\"\nstale_if_error = \"1s\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    upstream.kill().await;
    let stale = client.get("/r/a", &[]).await;
    assert_eq!((stale.status, detail(&stale)), (200, Some("unreachable")));
    let failed = until(&mut client, "/r/a", |answer| {
        // While it serves, it is never older than allowed.
        answer.status != 200 || {
            assert_eq!(answer.header("age"), Some("0"));
            false
        }
    })
    .await;
    problem(&failed, 502, "upstream-unreachable");
    upstream.restart().await;
    assert_eq!(client.get("/r/a", &[]).await.status, 200, "nothing stands between them any longer");
}

#[tokio::test]
async fn without_a_word_on_errors_only_silence_is_covered() {
    let (mut upstream, weather, gate) =
        start("", "ttl = \"0s\"\nstale_while_revalidate = \"1ms\"\nstale_if_unreachable = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    client.get("/r/a", &[]).await;
    becomes(&weather, Some(Reply::new(500, "broken")));
    until(&mut client, "/r/a", |answer| answer.status == 500).await;
    upstream.kill().await;
    let stale = until(&mut client, "/r/a", |answer| answer.status == 200).await;
    assert_eq!(detail(&stale), Some("unreachable"));
}

#[tokio::test]
async fn answers_that_are_no_failures_replace_what_is_held() {
    let (_upstream, weather, gate) = start("", "ttl = \"0s\"\nstale_if_error = \"10m\"").await;
    let mut client = Client::connect(gate.addr()).await;
    for status in [400, 404, 410, 422, 501] {
        becomes(&weather, None);
        assert_eq!(client.get("/r/a", &[]).await.status, 200);
        becomes(&weather, Some(Reply::new(status, "no")));
        let answer = client.get("/r/a", &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "no"));
    }
}

#[tokio::test]
async fn only_if_cached_never_costs_a_call() {
    let (upstream, _, gate) = start("", "ttl = \"10m\"").await;
    let only = [("Cache-Control", "only-if-cached")];
    problem(&gate.get("/r/a", &only).await, 504, "only-if-cached");
    assert_eq!(upstream.count(), 0);
    gate.get("/r/a", &[]).await;
    assert_eq!(gate.get("/r/a", &only).await.status, 200);
    assert_eq!(upstream.count(), 1);
}

/// The upstream killed under load: stale answers within the policy, then problems, then recovery; nothing is left over.
#[tokio::test]
async fn an_upstream_killed_under_load_is_survived_without_a_trace() {
    const CLIENTS: usize = 8;
    let cache = "ttl = \"100ms\"\nstale_while_revalidate = \"100ms\"\nstale_if_error = \"1s\"";
    let (mut upstream, _, gate) = start("timeout = \"2s\"", cache).await;
    let tasks = gate.metric("tollgate_tasks", &[]).await;
    let (over, fresh, stale, failed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let counted = Arc::new((over, fresh, stale, failed));
    let mut load = tokio::task::JoinSet::new();
    for at in 0..CLIENTS {
        let (counted, address) = (counted.clone(), gate.addr());
        load.spawn(async move {
            let (over, fresh, stale, failed) = &*counted;
            let mut client = Client::connect(address).await;
            while !over.load(Ordering::SeqCst) {
                let answer = client.get(&format!("/r/{}", at % 4), &[]).await;
                match (answer.status, detail(&answer)) {
                    (200, None | Some("revalidating")) => fresh.fetch_add(1, Ordering::SeqCst),
                    (200, Some("unreachable" | "upstream-error" | "breaker")) => {
                        let age: u64 = answer.header("age").unwrap().parse().unwrap();
                        assert!(age <= 1, "{age} s old");
                        stale.fetch_add(1, Ordering::SeqCst)
                    }
                    (503, _) => {
                        assert_eq!(answer.json()["type"], "urn:tollgate:problem:breaker-open");
                        failed.fetch_add(1, Ordering::SeqCst)
                    }
                    (502 | 504, _) => {
                        let kind = answer.json()["type"].as_str().unwrap().to_owned();
                        assert!(kind.starts_with("urn:tollgate:problem:upstream-"), "{kind}");
                        failed.fetch_add(1, Ordering::SeqCst)
                    }
                    _ => panic!("{answer:?}"),
                };
                // The load's own pace.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let grows = async |counter: &AtomicUsize, by: usize, what: &str| {
        let wanted = counter.load(Ordering::SeqCst) + by;
        within(what, async {
            while counter.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    let (over, fresh, stale, failed) = &*counted;
    grows(fresh, 200, "fresh answers").await;
    assert_eq!((stale.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (0, 0));
    upstream.kill().await;
    grows(stale, 20, "stale answers").await;
    grows(failed, 50, "problems").await;
    upstream.restart().await;
    let before = upstream.count();
    upstream.seen(before + 4).await;
    grows(fresh, 200, "recovery").await;
    let failures = failed.load(Ordering::SeqCst);
    grows(fresh, 200, "answers").await;
    assert_eq!(failed.load(Ordering::SeqCst), failures, "recovered for good");
    over.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    for (gauge, before) in
        [("tollgate_flights_active", 0.0), ("tollgate_permits", 0.0), ("tollgate_tasks", tasks)]
    {
        gate.metric_becomes(gauge, &[], |now| now == before).await;
    }
}
