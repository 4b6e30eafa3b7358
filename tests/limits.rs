//! The two limits: how often a client may ask, and what the account may spend. The upstream is the simulated Octopush,
//! which counts every sliding interval exactly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks and reads the clock")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::client::{Answer, Client};
use support::gate::{Gate, Setup};
use support::shipped::{self, PATH, cache_status, problem};
use support::upstream::{Reply, Upstream};
use tokio::net::TcpListener;
use tollgate::demo::conversations::{Conversations, Size};
use tollgate::demo::octopush::Octopush;
use tollgate::demo::settings::{Counted, Enforcement, Limit, Settings};

/// A simulated Octopush on a port of its own, for as long as the test runs.
async fn octopush(settings: Settings) -> (Arc<Octopush>, String) {
    let conversations = Conversations::generate(5, Size { contacts: 20, messages: 200 });
    let octopush = Octopush::new(settings, conversations);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(octopush.clone().serve(listener, std::future::pending()));
    (octopush, url)
}

/// The shipped gate with an account of these limits.
async fn gate(url: &str, upstream: &str, account: &str) -> Gate {
    let mut config = shipped::whole(url);
    for (shipped, instead) in [
        ("\nmax_concurrent = 16", upstream),
        ("\nquota = \"none\"\n", "\n"),
        ("\nmax_wait = \"2s\"", account),
    ] {
        assert!(config.contains(shipped), "{shipped}");
        config = config.replacen(shipped, &format!("\n{instead}"), 1);
    }
    let demo = Settings::default();
    Setup::new(config)
        .env("OCTOPUSH_API_KEY", demo.api_key)
        .env("OCTOPUSH_API_LOGIN", demo.api_login)
        .start()
        .await
}

/// So many different questions at once, each on a connection of its own.
async fn ask_at_once(gate: &Gate, questions: usize) -> Vec<Answer> {
    let mut asking = tokio::task::JoinSet::new();
    for page in 1..=questions {
        let address = gate.addr();
        asking.spawn(
            async move { Client::connect(address).await.get(&format!("{PATH}?page={page}"), &[]).await },
        );
    }
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        answers.push(answer.unwrap());
    }
    answers
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("when to come back").parse().unwrap()
}

#[tokio::test]
async fn a_declared_client_has_a_limit_of_its_own_and_hits_count() {
    let upstream = Upstream::start(|_| Reply::json("[]")).await;
    let config = shipped::whole(&upstream.url())
        + r#"
[clients.modest]
key = { env = "MODEST" }
rate_limit = { requests = 1, per = "10m", burst = 3 }
[clients.free]
key = { env = "FREE" }
"#;
    let setup = shipped::with_secrets(Setup::new(config)).env("MODEST", "key-m").env("FREE", "key-f");
    let gate = setup.start().await;
    let (modest, free) = ([("X-Tollgate-Key", "key-m")], [("X-Tollgate-Key", "key-f")]);
    for _ in 0..3 {
        assert_eq!(gate.get(PATH, &modest).await.status, 200);
    }
    for _ in 0..3 {
        let refused = gate.get(PATH, &modest).await;
        let document = problem(&refused, 429, "client-limit");
        assert_eq!((&document["fault"], &document["upstream_called"]), (&"quota".into(), &"no".into()));
        assert!((590..=600).contains(&retry_after(&refused)), "{}", retry_after(&refused));
    }
    assert_eq!(gate.get(PATH, &free).await.status, 200);
    assert_eq!(upstream.count(), 1);
    assert_eq!(gate.metric("tollgate_requests_total", &["client=\"modest\"", "code=\"429\""]).await, 3.0);
    assert_eq!(gate.metric("tollgate_faults_total", &["kind=\"client-limit\""]).await, 3.0);
}

#[tokio::test]
async fn callers_without_a_name_are_limited_by_address() {
    let upstream = Upstream::start(|_| Reply::json("[]")).await;
    let gate = shipped::with_secrets(Setup::new(shipped::whole(&upstream.url())))
        .server("rate_limit = { requests = 1, per = \"10m\", burst = 2 }")
        .start()
        .await;
    for address in ["127.0.0.1", "127.0.0.2"] {
        for (count, status) in [200, 200, 429].into_iter().enumerate() {
            // A connection each: the address counts, whatever its port.
            let mut client = Client::connect_from(address.parse().unwrap(), gate.addr()).await;
            assert_eq!(client.get(PATH, &[]).await.status, status, "{address} {count}");
        }
    }
}

#[tokio::test]
async fn retry_after_of_a_client_limit_is_true() {
    let upstream = Upstream::start(|_| Reply::json("[]")).await;
    let gate = shipped::with_secrets(Setup::new(shipped::whole(&upstream.url())))
        .server("rate_limit = { requests = 1, per = \"1s\" }")
        .start()
        .await;
    assert_eq!(gate.get(PATH, &[]).await.status, 200);
    let refused = gate.get(PATH, &[]).await;
    assert_eq!((refused.status, retry_after(&refused)), (429, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.get(PATH, &[]).await.status, 200);
}

/// Whichever moment of a call the upstream counts, it never counts more than the contract says.
#[tokio::test]
async fn the_upstream_never_sees_more_than_the_quota_in_any_interval() {
    let mut cases = tokio::task::JoinSet::new();
    for counted in [Counted::OnArrival, Counted::OnAnswer] {
        cases.spawn(async move {
            let per = Duration::from_millis(400);
            let (octopush, url) = octopush(Settings {
                limit: Some(Limit { requests: 10, per }),
                enforcement: Enforcement::CountOnly,
                counted,
                latency: Duration::from_millis(5),
                latency_jitter: Duration::from_millis(60),
                ..Settings::default()
            })
            .await;
            let account = "quota = [{ requests = 10, per = \"400ms\" }]\nmax_wait = \"15s\"";
            let gate = gate(&url, "max_concurrent = 64", account).await;
            let began = Instant::now();
            let answers = ask_at_once(&gate, 40).await;
            assert!(answers.iter().all(|answer| answer.status == 200), "waiting costs time, not answers");
            assert!(began.elapsed() >= per * 3, "{:?}", began.elapsed());
            assert_eq!((octopush.calls(), octopush.violations()), (40, 0), "{counted:?}");
            let waited = answers.iter().filter_map(|answer| {
                let waited = answer.header("server-timing")?.split("wait;dur=").nth(1)?;
                waited.split(',').next()?.parse::<f64>().ok().filter(|milliseconds| *milliseconds > 300.0)
            });
            assert!(waited.count() >= 30);
            assert_eq!(gate.metric("tollgate_quota_wait_seconds_count", &["account=\"main\""]).await, 40.0);
            assert_eq!(gate.metric("tollgate_queue_length", &[]).await, 0.0);
        });
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test]
async fn every_window_of_a_quota_must_admit() {
    let (octopush, url) = octopush(Settings {
        limit: Some(Limit { requests: 12, per: Duration::from_secs(1) }),
        ..Settings::plain()
    })
    .await;
    let quota =
        "quota = [{ requests = 5, per = \"100ms\" }, { requests = 12, per = \"1s\" }]\nmax_wait = \"15s\"";
    let gate = gate(&url, "", quota).await;
    let began = Instant::now();
    let answers = ask_at_once(&gate, 15).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((octopush.violations(), octopush.refused()), (0, 0));
}

#[tokio::test]
async fn what_cannot_succeed_in_time_is_refused_at_once_and_truthfully() {
    let (octopush, url) = octopush(Settings::plain()).await;
    let gate = gate(&url, "", "quota = [{ requests = 2, per = \"10m\" }]\nmax_wait = \"10m\"").await;
    let ask =
        async |page: usize, headers: &[(&str, &str)]| gate.get(&format!("{PATH}?page={page}"), headers).await;
    assert_eq!((ask(1, &[]).await.status, ask(2, &[]).await.status), (200, 200));
    assert_eq!(gate.metric("tollgate_quota_remaining", &["account=\"main\""]).await, 0.0);
    for timeout in ["2", "0.05", "0"] {
        let refused = ask(3, &[("Tollgate-Timeout", timeout)]).await;
        let document = problem(&refused, 429, "quota-exceeded");
        assert_eq!((&document["fault"], &document["upstream_called"]), (&"quota".into(), &"no".into()));
        assert_eq!((&document["account"], &document["policy"]), (&"main".into(), &"2;w=600".into()));
        assert!((580..=600).contains(&retry_after(&refused)), "{}", retry_after(&refused));
    }
    // Hits are free, spelled whichever way, and so is asking for their heads.
    for _ in 0..20 {
        let hit = gate.get(&format!("{PATH}?PAGE=2.0"), &[]).await;
        assert!(cache_status(&hit).starts_with("tollgate; hit"), "{}", cache_status(&hit));
    }
    assert_eq!(octopush.calls(), 2);
}

#[tokio::test]
async fn retry_after_of_a_quota_is_true() {
    let (_octopush, url) = octopush(Settings::plain()).await;
    let gate = gate(&url, "", "quota = [{ requests = 1, per = \"1s\" }]\nmax_wait = \"50ms\"").await;
    assert_eq!(gate.get(&format!("{PATH}?page=1"), &[]).await.status, 200);
    let refused = gate.get(&format!("{PATH}?page=2"), &[]).await;
    assert_eq!((refused.status, retry_after(&refused)), (429, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.get(&format!("{PATH}?page=2"), &[]).await.status, 200);
}

#[tokio::test]
async fn a_spent_quota_is_covered_by_what_is_held_without_a_call() {
    let upstream = Upstream::start(|_| Reply::json("[]")).await;
    let config = shipped::whole(&upstream.url())
        .replace("\nquota = \"none\"", "\nquota = [{ requests = 1, per = \"10m\" }]")
        .replace("ttl = \"30s\"", "ttl = \"0s\"")
        .replace("stale_while_revalidate = \"60s\"", "");
    let gate = shipped::with_secrets(Setup::new(config)).start().await;
    assert_eq!(gate.get(PATH, &[]).await.status, 200);
    for _ in 0..5 {
        let stale = gate.get(PATH, &[]).await;
        assert_eq!(stale.status, 200);
        assert!(cache_status(&stale).ends_with("; detail=quota"), "{}", cache_status(&stale));
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(gate.metric("tollgate_stale_total", &["reason=\"quota\""]).await, 5.0);
}

#[tokio::test]
async fn no_more_calls_at_once_than_the_upstream_bears() {
    let (octopush, url) = octopush(Settings::plain()).await;
    let gate = gate(&url, "max_concurrent = 3", "quota = \"none\"\nmax_wait = \"15s\"").await;
    octopush.hold();
    let mut clients = Vec::new();
    for page in 1..=12 {
        let mut client = Client::connect(gate.addr()).await;
        client.ask("GET", &format!("{PATH}?page={page}"), &[], b"").await;
        clients.push(client);
    }
    octopush.reached(3).await;
    gate.quiet().await;
    assert_eq!((octopush.calls(), gate.metric("tollgate_permits", &[]).await), (3, 3.0));
    assert_eq!(gate.metric("tollgate_queue_length", &["account=\"main\""]).await, 9.0);
    octopush.release();
    for client in &mut clients {
        assert_eq!(client.read("GET").await.status, 200);
    }
    assert_eq!((octopush.calls(), octopush.peak()), (12, 3));
    gate.metric_becomes("tollgate_permits", &[], |permits| permits == 0.0).await;
}

#[tokio::test]
async fn the_line_is_bounded_and_whoever_leaves_it_leaves_no_trace() {
    let (octopush, url) = octopush(Settings::plain()).await;
    let account = "quota = \"none\"\nmax_wait = \"15s\"\nmax_waiting = 2";
    let gate = gate(&url, "max_concurrent = 1", account).await;
    octopush.hold();
    let ask = async |page: usize| {
        let mut client = Client::connect(gate.addr()).await;
        client.ask("POST", "/nowhere", &[], b"").await;
        assert_eq!(client.read("POST").await.status, 404);
        client.ask("HEAD", &format!("{PATH}?page={page}"), &[], b"").await;
        client
    };
    let mut first = ask(1).await;
    octopush.reached(1).await;
    let waiting = |count: f64| gate.metric_becomes("tollgate_queue_length", &[], move |now| now == count);
    let mut second = ask(2).await;
    waiting(1.0).await;
    let third = ask(3).await;
    waiting(2.0).await;
    let refused = gate.get(&format!("{PATH}?page=4"), &[]).await;
    let document = problem(&refused, 503, "queue-full");
    assert_eq!((&document["upstream_called"], retry_after(&refused) >= 1), (&"no".into(), true));
    drop(third);
    waiting(1.0).await;
    octopush.release();
    assert_eq!((first.read("HEAD").await.status, second.read("HEAD").await.status), (200, 200));
    waiting(0.0).await;
    assert_eq!(octopush.calls(), 2);
}

#[tokio::test]
async fn a_full_upstream_is_a_503_once_patience_ends() {
    let (octopush, url) = octopush(Settings::plain()).await;
    let gate = gate(&url, "max_concurrent = 1", "quota = \"none\"\nmax_wait = \"50ms\"").await;
    octopush.hold();
    let mut first = Client::connect(gate.addr()).await;
    first.ask("GET", &format!("{PATH}?page=1"), &[], b"").await;
    octopush.reached(1).await;
    let refused = gate.get(&format!("{PATH}?page=2"), &[]).await;
    problem(&refused, 503, "queue-full");
    assert!(retry_after(&refused) >= 1);
    octopush.release();
    assert_eq!(first.read("GET").await.status, 200);
    assert_eq!(gate.get(&format!("{PATH}?page=2"), &[]).await.status, 200);
}

#[tokio::test]
async fn a_call_that_never_left_spends_nothing() {
    let mut upstream = Upstream::start(|_| Reply::json("[]")).await;
    let gate = gate(&upstream.url(), "", "quota = [{ requests = 1, per = \"10m\" }]").await;
    upstream.kill().await;
    // One failure more would open the breaker.
    for page in 1..=4 {
        problem(&gate.get(&format!("{PATH}?page={page}"), &[]).await, 502, "upstream-unreachable");
    }
    assert_eq!(gate.metric("tollgate_quota_remaining", &["account=\"main\""]).await, 1.0);
    upstream.restart().await;
    assert_eq!(gate.get(&format!("{PATH}?page=1"), &[]).await.status, 200);
    assert_eq!(gate.get(&format!("{PATH}?page=2"), &[]).await.status, 429);
}

/// An answer of 429 by the upstream itself is passed as it came, with its own advice; then it is not asked for so long.
#[tokio::test]
async fn the_upstreams_own_429_is_passed_and_not_kept() {
    let (octopush, url) = octopush(Settings {
        limit: Some(Limit { requests: 1, per: Duration::from_secs(600) }),
        ..Settings::plain()
    })
    .await;
    let gate = gate(&url, "", "quota = \"none\"").await;
    assert_eq!(gate.get(&format!("{PATH}?page=1"), &[]).await.status, 200);
    let refused = gate.get(&format!("{PATH}?page=2"), &[]).await;
    assert_eq!((refused.status, refused.json()["code"].as_u64()), (429, Some(429)));
    assert!(retry_after(&refused) > 590);
    for page in 2..5 {
        let refused = gate.get(&format!("{PATH}?page={page}"), &[]).await;
        let document = problem(&refused, 429, "account-paused");
        assert_eq!((&document["fault"], &document["account"]), (&"quota".into(), &"main".into()));
        assert!(
            (290..=300).contains(&retry_after(&refused)),
            "as long as `max_pause`: {}",
            retry_after(&refused)
        );
    }
    assert_eq!(octopush.calls(), 2);
    assert_eq!(gate.metric("tollgate_account_paused", &["account=\"main\""]).await, 1.0);
}
