//! What is counted: every request once, however it ends.

use http::Method;
use http_body::Body as _;
use tollgate::model::BodyError;

use crate::world::{Act, Config, World, all, ms, pass, reply, s, settle};

fn open() -> World {
    World::new(&Config { route: "methods = [\"GET\", \"HEAD\", \"POST\"]", ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_counted_once_with_its_code_and_result() {
    let world = open();
    world.upstream.plays(|heard| match heard.target.as_str() {
        "/v1/r?q=404" => reply(404, "no").into(),
        "/v1/r?q=500" => reply(500, "sorry").into(),
        "/v1/r?q=gone" => Act::Unreachable(ms(1)),
        _ => Act::from(reply(200, "x").after(ms(100))),
    });
    let mut total = 0.0;
    for (method, target, code, label, result) in [
        (Method::GET, "/r", "200", "r", "miss"),
        (Method::GET, "/r", "200", "r", "hit"),
        (Method::HEAD, "/r", "200", "r", "hit"),
        (Method::POST, "/r", "200", "r", "bypass"),
        (Method::GET, "/r?q=404", "404", "r", "miss"),
        (Method::GET, "/r?q=500", "500", "r", "miss"),
        (Method::GET, "/r?q=gone", "502", "r", "fault"),
        (Method::DELETE, "/r", "405", "r", "fault"),
        (Method::GET, "/nowhere", "404", "none", "fault"),
    ] {
        let labels = [format!("code=\"{code}\""), format!("route=\"{label}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let result = [format!("result=\"{result}\""), format!("route=\"{label}\"")];
        let result: Vec<&str> = result.iter().map(String::as_str).collect();
        let before = world.metric("tollgate_requests_total", &labels);
        let of_result = world.metric("tollgate_cache_results_total", &result);
        world.ask(method.clone(), target).send().await;
        total += 1.0;
        assert_eq!(world.metric("tollgate_requests_total", &labels), before + 1.0, "{method} {target}");
        assert_eq!(
            world.metric("tollgate_cache_results_total", &result),
            of_result + 1.0,
            "{method} {target}"
        );
        assert_eq!(world.counted(), total, "{method} {target}");
        assert_eq!(world.metric("tollgate_request_duration_seconds_count", &[]), total, "{method} {target}");
    }
    assert_eq!(world.metric("tollgate_faults_total", &[]), 3.0);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_counted_wherever_it_leaves() {
    let config = Config {
        account: "quota = [{ requests = 1, per = \"5s\" }]\nmax_wait = \"60s\"",
        route: "methods = [\"GET\", \"POST\"]",
        ..Config::default()
    };
    let world = World::new(&config);
    world.upstream.plays(|_| reply(200, "x").after(s(1)));
    // Waiting for its own flight, for another's, for the quota, for a call of its own.
    let crowd = [
        world.get("/r").start(),
        world.get("/r").start(),
        world.get("/r?q=2").with("tollgate-timeout", "60").start(),
        world.ask(Method::POST, "/r").with("tollgate-timeout", "60").body("x").start(),
    ];
    settle().await;
    for (at, one) in crowd.into_iter().enumerate() {
        one.abort();
        settle().await;
        assert_eq!(
            world.metric("tollgate_requests_total", &["code=\"499\""]),
            f64::from(u32::try_from(at).unwrap()) + 1.0
        );
    }
    world.quiet().await;
    assert_eq!(world.counted(), 4.0);
    assert_eq!(world.metric("tollgate_faults_total", &[]), 0.0, "leaving is no fault of the gate's");
}

/// A body that is dropped half-way, or breaks off, or is read to its end: one count, when it is over.
#[tokio::test(start_paused = true)]
async fn a_response_is_counted_when_its_body_is_over() {
    let world = World::new(&Config { cache: "enabled = false", ..Config::default() });
    world.upstream.plays(|heard| {
        let mut reply = reply(200, "half");
        reply.body_latency = s(1);
        if heard.n == 2 { reply.cut(BodyError::Truncated) } else { reply }
    });
    let dropped = world.get("/r").head().await;
    pass(s(5)).await;
    assert_eq!(world.counted(), 0.0, "it is under way");
    assert!(!dropped.body().is_end_stream());
    drop(dropped);
    assert_eq!(world.counted(), 1.0);
    assert!(world.get("/r").send().await.body.is_err());
    assert_eq!(world.counted(), 2.0);
    assert_eq!(world.get("/r").send().await.text(), "half");
    assert_eq!(world.counted(), 3.0);
    assert_eq!(world.metric("tollgate_requests_total", &["code=\"200\""]), 3.0);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_500_for_each_who_met_it() {
    let world = open();
    world.upstream.plays(|_| Act::Panic);
    assert!(all(world.crowd(3, "/r").await).await.iter().all(|got| got.status == 500));
    assert!(world.ask(Method::POST, "/r").body("x").start().await.is_err());
    assert_eq!(world.metric("tollgate_requests_total", &["code=\"500\""]), 4.0);
    assert_eq!(world.counted(), 4.0);
    assert_eq!(world.metric("tollgate_faults_total", &["kind=\"internal\""]), 4.0);
    world.quiet().await;
}

/// What a call became at the upstream: (what happened, the outcome counted). Nothing is counted twice or not at all.
#[tokio::test(start_paused = true)]
async fn every_call_has_one_outcome() {
    for (act, outcome) in [
        (Act::from(reply(204, "")), "2xx"),
        (reply(304, "").into(), "3xx"),
        (reply(404, "").into(), "4xx"),
        (reply(401, "").into(), "4xx"),
        (reply(429, "").into(), "429"),
        (reply(503, "").into(), "5xx"),
        (Act::Unreachable(ms(1)), "unreachable"),
        (Act::Timeout(ms(1)), "timeout"),
        (Act::Broken, "broken"),
        (Act::Panic, "abandoned"),
    ] {
        let world = World::new(&Config::default());
        world.upstream.plays(move |_| act.clone());
        world.get("/r").send().await;
        world.quiet().await;
        let label = format!("outcome=\"{outcome}\"");
        assert_eq!(world.metric("tollgate_upstream_requests_total", &[&label]), 1.0, "{outcome}");
        assert_eq!(world.metric("tollgate_upstream_requests_total", &[]), 1.0, "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_own_limit_counts_answers_from_memory_too() {
    let world = World::new(&Config {
        more: "[clients.one]\nkey = \"key-of-one-01234567\"\nrate_limit = { requests = 1, per = \"1s\", burst = 3 }\n",
        ..Config::default()
    });
    let ask = || world.get("/r").with("x-tollgate-key", "key-of-one-01234567").send();
    for _ in 0..3 {
        assert_eq!(ask().await.status, 200);
    }
    let refused = ask().await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "client-limit"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    pass(s(1)).await;
    assert_eq!(ask().await.status, 200);
    assert_eq!(world.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn server_timing_says_where_the_time_went() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 1, per = \"2s\" }]\nmax_wait = \"5s\"",
        ..Config::default()
    });
    world.upstream.plays(|_| reply(200, "x").after(ms(250)));
    assert_eq!(
        world.get("/r?q=1").send().await.header("server-timing"),
        Some("gate;dur=0.000, upstream;dur=250.000")
    );
    let waited = world.get("/r?q=2").send().await;
    assert_eq!(
        waited.header("server-timing"),
        Some("gate;dur=0.000, wait;dur=2000.000, upstream;dur=250.000")
    );
    assert_eq!(world.get("/r?q=2").send().await.header("server-timing"), Some("gate;dur=0.000"));
}

/// Every answer, faults included, names its request; nothing of a fault may be kept downstream.
#[tokio::test(start_paused = true)]
async fn every_answer_names_its_request() {
    let world = open();
    for (method, target) in [(Method::GET, "/r"), (Method::GET, "/nowhere"), (Method::DELETE, "/r")] {
        let got = world.ask(method, target).send().await;
        assert_eq!(got.header("x-request-id"), Some("id"));
        if got.status >= 400 {
            assert_eq!(got.header("cache-control"), Some("no-store"));
            assert!(got.text().contains("\"instance\":\"urn:tollgate:request:id\""));
        }
    }
}
