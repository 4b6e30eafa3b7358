//! The two limits: how often a client may ask, and what the account may spend. The upstream is the simulated Octopush,
//! which counts every sliding interval exactly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks and reads the clock")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    gate_for(url, upstream, account, "").await
}

/// The same with these clients.
async fn gate_for(url: &str, upstream: &str, account: &str, clients: &str) -> Gate {
    let mut config = shipped::whole(url) + clients;
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
    let explained = gate.ask_admin("GET", "/explain?request=GET%20/conversations/messages/list").await.text();
    assert!(explained.contains("\"account_quota\": \"5 per 100ms, 12 per 1s\""), "{explained}");
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

fn client(name: &str, more: &str) -> String {
    format!("\n[clients.{name}]\nkey = \"key-of-client-{name:0>8}\"\n{more}\n")
}

/// Asks new questions one after the other while `more` says so; how many were answered, and with what the others were.
async fn asks(gate: &Gate, name: &str, at: usize, more: impl Fn(usize) -> bool) -> (usize, Vec<Answer>) {
    let (mut served, mut refused) = (0, Vec::new());
    let key = format!("key-of-client-{name:0>8}");
    let mut client = Client::connect(gate.addr()).await;
    for page in (1..).map(|n| at * 10_000 + n) {
        if !more(served) {
            break;
        }
        let asked = format!("{PATH}?page={page}");
        let answer = client.get(&asked, &[("x-tollgate-key", &key), ("tollgate-timeout", "20")]).await;
        if answer.status == 200 {
            served += 1;
        } else {
            let wait = answer.header("retry-after").map_or(1, |wait| wait.parse().unwrap());
            refused.push(answer);
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }
    (served, refused)
}

/// Ten clients want an account several times over, before an upstream that enforces its limit: it never has to, and each client
/// has its share.
#[tokio::test]
async fn ten_clients_share_an_account_by_weight_and_its_upstream_sends_nobody_away() {
    let weights = [1, 1, 2, 2, 3, 1, 1, 2, 2, 5];
    let per = Duration::from_millis(250);
    let limit = Some(Limit { requests: 100, per });
    let settings = Settings { limit, latency: Duration::from_millis(5), ..Settings::plain() };
    let (octopush, url) = octopush(settings).await;
    let clients = weights.iter().enumerate();
    let clients = clients.map(|(n, weight)| client(&format!("c{n}"), &format!("weight = {weight}")));
    let account = "quota = [{ requests = 100, per = \"250ms\" }]\nmax_wait = \"20s\"";
    let gate = gate_for(&url, "max_concurrent = 64", account, &clients.collect::<String>()).await;
    let gate = Arc::new(gate);
    let mut living = tokio::task::JoinSet::new();
    // A hundred grants and more for each unit of weight.
    let served: Arc<[AtomicUsize; 10]> = Arc::default();
    for (client, at) in (0..10).flat_map(|client| (0..12).map(move |at| (client, at))) {
        let (gate, served) = (gate.clone(), served.clone());
        living.spawn(async move {
            let all = |served: &[AtomicUsize; 10]| -> usize {
                served.iter().map(|count| count.load(Ordering::Relaxed)).sum()
            };
            let (_, refused) = asks(&gate, &format!("c{client}"), client * 12 + at, |mine| {
                if mine > 0 {
                    served[client].fetch_add(1, Ordering::Relaxed);
                }
                all(&served) < 2_200
            })
            .await;
            assert!(refused.is_empty(), "{}", refused[0].text());
        });
    }
    while let Some(one) = living.join_next().await {
        one.unwrap();
    }
    let shares: Vec<f64> = served
        .iter()
        .zip(weights)
        .map(|(served, weight)| served.load(Ordering::Relaxed) as f64 / f64::from(weight))
        .collect();
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    assert!(sum * sum / (10.0 * squares) >= 0.99, "{shares:?}");
    assert_eq!(octopush.violations(), 0);
}

/// One client asks without end; nine that ask now and then are answered all the same.
#[tokio::test]
async fn a_noisy_client_takes_nothing_from_nine_quiet_ones() {
    let per = Duration::from_millis(500);
    let limit = Some(Limit { requests: 20, per });
    let (octopush, url) = octopush(Settings { limit, ..Settings::plain() }).await;
    let clients: String = (0..10).map(|n| client(&format!("c{n}"), "")).collect();
    let account = "quota = [{ requests = 20, per = \"500ms\" }]\nmax_wait = \"1s\"";
    let gate = Arc::new(gate_for(&url, "max_concurrent = 64", account, &clients).await);
    let (quiet_are_done, done) = tokio::sync::watch::channel(false);
    let mut noisy = tokio::task::JoinSet::new();
    for at in 0..80 {
        let (gate, done) = (gate.clone(), done.clone());
        noisy.spawn(async move { asks(&gate, "c0", at, |_| !*done.borrow()).await });
    }
    let mut quiet = tokio::task::JoinSet::new();
    for n in 1..10 {
        let gate = gate.clone();
        quiet.spawn(async move { asks(&gate, &format!("c{n}"), 100 + n, |served| served < 6).await });
    }
    while let Some(one) = quiet.join_next().await {
        let (_, refused) = one.unwrap();
        assert!(refused.is_empty(), "{}", refused[0].text());
    }
    quiet_are_done.send(true).unwrap();
    let mut sent_away = 0;
    while let Some(one) = noisy.join_next().await {
        sent_away += one.unwrap().1.len();
    }
    assert!(sent_away > 0, "eighty loops want more than there is");
    assert_eq!(octopush.violations(), 0);
}

/// Whatever a 429 says of when to come back: the upstream is left alone meanwhile, and what clients are told is true.
#[tokio::test]
async fn a_429_is_obeyed_whatever_it_says() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3));
    let mut cases = tokio::task::JoinSet::new();
    for figure in [Some("7200"), Some("0"), Some(date.as_str()), Some("soon"), None] {
        let figure = figure.map(str::to_owned);
        cases.spawn(async move {
            let said = figure.clone();
            let upstream = Upstream::start(move |request| match (&said, request.number) {
                (Some(figure), 1) => Reply::new(429, "no").header("retry-after", figure),
                (None, 1) => Reply::new(429, "no"),
                _ => Reply::json("[]"),
            })
            .await;
            let account =
                "quota = [{ requests = 50, per = \"1s\" }]\nmax_wait = \"100ms\"\nmax_pause = \"2s\"";
            let gate = gate(&upstream.url(), "max_concurrent = 16", account).await;
            assert_eq!(gate.get(&format!("{PATH}?page=1"), &[]).await.status, 429, "{figure:?}");
            let refused = gate.get(&format!("{PATH}?page=2"), &[]).await;
            problem(&refused, 429, "account-paused");
            let wait = retry_after(&refused);
            assert!((1..=2).contains(&wait), "{figure:?}: {wait}");
            assert_eq!(upstream.count(), 1, "{figure:?}");
            tokio::time::sleep(Duration::from_secs(wait)).await;
            assert_eq!(gate.get(&format!("{PATH}?page=2"), &[]).await.status, 200, "{figure:?}");
            assert_eq!(upstream.count(), 2, "{figure:?}");
        });
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}
