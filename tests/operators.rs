//! What operators and callers are shown: metrics after a known sequence, health, ids, times, cache status, and one log
//! line a request that names nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::client::{self, Answer, Client};
use support::gate::{Gate, Setup, sample};
use support::shipped::{self, PATH, cache_status, problem};
use support::upstream::{Reply, Request, Upstream};

/// Answers by what the last filter says: `email=status503@…` is a 503.
fn script(request: &Request) -> Reply {
    let status = request.query().split("email=status").nth(1).and_then(|rest| rest.get(..3)?.parse().ok());
    match status {
        None => Reply::json(format!("[{}]", request.number)),
        Some(599) => Reply::silence(),
        Some(status) => Reply::new(status, format!("{{\"code\":{status}}}")),
    }
}

fn failing(status: u16) -> String {
    format!("{PATH}?email=status{status}@example.com")
}

/// The shipped gate with one declared client, which asks.
async fn start() -> (Upstream, Gate) {
    let upstream = Upstream::start(script).await;
    let config = shipped::whole(&upstream.url()) + "[clients.billing]\nkey = { env = \"BILLING\" }\n";
    let setup = shipped::with_secrets(Setup::new(config)).env("BILLING", "billing-key");
    (upstream, setup.start().await)
}

const BILLING: (&str, &str) = ("Authorization", "Bearer billing-key");

/// Requests with known ends: what is asked, how, and the code and result that are counted.
async fn sequence(gate: &Gate) -> Vec<(Answer, u16, &'static str)> {
    let mut client = Client::connect(gate.addr()).await;
    let mut ended = Vec::new();
    for (method, target, headers, code, result) in [
        ("GET", format!("{PATH}?page=2"), vec![BILLING], 200, "miss"),
        ("GET", format!("{PATH}?page=2"), vec![BILLING], 200, "hit"),
        ("GET", format!("{PATH}?PAGE=2.0&utm=1"), vec![BILLING], 200, "hit"),
        ("HEAD", format!("{PATH}?page=2"), vec![BILLING], 200, "hit"),
        ("GET", format!("{PATH}?page=2"), vec![("X-Tollgate-Key", "billing-key")], 200, "hit"),
        ("GET", failing(404), vec![BILLING], 404, "miss"),
        ("GET", failing(422), vec![BILLING], 422, "miss"),
        ("GET", failing(503), vec![BILLING], 503, "miss"),
        ("GET", failing(599), vec![BILLING], 502, "upstream-broken"),
        (
            "GET",
            format!("{PATH}?page=x"),
            vec![BILLING, ("Prefer", "handling=strict")],
            400,
            "parameter-not-understood",
        ),
        (
            "GET",
            format!("{PATH}?page=9"),
            vec![BILLING, ("Cache-Control", "only-if-cached")],
            504,
            "only-if-cached",
        ),
        ("PUT", PATH.to_owned(), vec![BILLING], 405, "method-not-allowed"),
        ("GET", "/nowhere".to_owned(), vec![BILLING], 404, "no-such-route"),
        ("GET", PATH.to_owned(), vec![], 401, "client-unknown"),
        ("GET", format!("/-/explain?request=GET%20{PATH}"), vec![BILLING], 200, "bypass"),
    ] {
        let answer = client.request(method, &target, &headers, b"").await;
        assert_eq!(answer.status, code, "{target}: {}", answer.text());
        ended.push((answer, code, result));
    }
    ended
}

#[tokio::test]
async fn metrics_count_what_happened_under_the_names_of_the_contract() {
    let (upstream, gate) = start().await;
    let ended = sequence(&gate).await;
    gate.quiet().await;
    let metrics = gate.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        sample(&metrics, name, &labels.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let route = ("route", "conversation-messages");
    for (name, labels, count) in [
        ("tollgate_requests_total", vec![], 15.0),
        ("tollgate_requests_total", vec![route, ("client", "billing"), ("code", "200")], 5.0),
        ("tollgate_requests_total", vec![route, ("client", "billing"), ("code", "404")], 1.0),
        ("tollgate_requests_total", vec![route, ("client", "billing"), ("code", "502")], 1.0),
        ("tollgate_requests_total", vec![route, ("client", "billing"), ("code", "405")], 1.0),
        ("tollgate_requests_total", vec![("route", "none"), ("client", "billing"), ("code", "404")], 1.0),
        ("tollgate_requests_total", vec![("route", "none"), ("client", "unknown"), ("code", "401")], 1.0),
        ("tollgate_request_duration_seconds_count", vec![route, ("result", "hit")], 4.0),
        ("tollgate_request_duration_seconds_count", vec![], 15.0),
        ("tollgate_cache_results_total", vec![route, ("result", "hit")], 4.0),
        ("tollgate_cache_results_total", vec![route, ("result", "miss")], 4.0),
        ("tollgate_cache_results_total", vec![route, ("result", "stale")], 0.0),
        ("tollgate_cache_results_total", vec![route, ("result", "collapsed")], 0.0),
        (
            "tollgate_upstream_requests_total",
            vec![("upstream", "octopush"), ("account", "main"), ("outcome", "2xx")],
            1.0,
        ),
        ("tollgate_upstream_requests_total", vec![("outcome", "4xx")], 2.0),
        ("tollgate_upstream_requests_total", vec![("outcome", "5xx")], 1.0),
        ("tollgate_upstream_requests_total", vec![("outcome", "broken")], 1.0),
        ("tollgate_upstream_duration_seconds_count", vec![("upstream", "octopush")], 4.0),
        ("tollgate_params_total", vec![route, ("param", "page"), ("rule", "reformatted")], 1.0),
        ("tollgate_params_total", vec![route, ("param", "unknown"), ("rule", "unknown")], 1.0),
        ("tollgate_faults_total", vec![("kind", "upstream-broken")], 1.0),
        ("tollgate_faults_total", vec![("kind", "parameter-not-understood")], 1.0),
        ("tollgate_faults_total", vec![("kind", "client-unknown")], 1.0),
        ("tollgate_faults_total", vec![], 6.0),
        ("tollgate_quota_wait_seconds_count", vec![("account", "main")], 5.0),
        ("tollgate_account_paused", vec![("account", "main")], 0.0),
        ("tollgate_queue_length", vec![("account", "main")], 0.0),
        ("tollgate_cache_entries", vec![], 1.0),
        ("tollgate_flights_active", vec![], 0.0),
        ("tollgate_permits", vec![], 0.0),
        ("tollgate_config_reloads_total", vec![], 0.0),
        ("tollgate_build_info", vec![("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(value(name, &labels), count, "{name} {labels:?}\n{metrics}");
    }
    assert_eq!(upstream.count(), 5);
    assert!(value("tollgate_cache_bytes", &[]) > 500.0);
    assert!(value("process_resident_memory_bytes", &[]) > 1e6);
    // Every metric says what it is, and every label is a word of the configuration.
    for line in metrics.lines().filter(|line| line.starts_with("tollgate_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(metrics.contains(&format!("# HELP {family} ")), "{name}");
        for personal in ["status404", "example.com", "utm", "nowhere", "billing-key"] {
            assert!(!line.contains(personal), "{line}");
        }
    }
    assert_eq!(ended.len(), 15);
}

/// A question that names somebody in every way there is, and nobody in the log, the metrics or the answer's head.
#[tokio::test]
async fn each_request_is_one_line_that_names_nobody() {
    let (_upstream, gate) = start().await;
    let ended = sequence(&gate).await;
    let personal = format!(
        "{PATH}?phone_number=+33+6+12+34+56+78&email=ann.smith@example.com&conversation_id=cid_0f8fad5b-d9cb-469f-a165-70867728950e&contact=fid_4711&facebook_id=4712&secret_name=hidden"
    );
    let headers = [BILLING, ("X-Request-Id", "mine-1"), ("User-Agent", "agent-47")];
    let asked = gate.get(&personal, &headers).await;
    assert_eq!(asked.status, 200);
    let lines = gate
        .lines()
        .find("a line a request", |lines| {
            let lines: Vec<Value> = requests(lines);
            (lines.len() == ended.len() + 1).then_some(lines)
        })
        .await;
    let by_id: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["id"].as_str().unwrap(), line)).collect();
    for (answer, code, result) in &ended {
        let line = by_id[answer.header("x-request-id").unwrap()];
        assert_eq!(
            (line["code"].as_u64(), line["result"].as_str()),
            (Some(u64::from(*code)), Some(*result)),
            "{line}"
        );
        assert_eq!(line["level"], "INFO", "{line}");
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
        let is_routed = !matches!(*result, "no-such-route" | "client-unknown" | "bypass");
        assert_eq!(line["route"], if is_routed { "conversation-messages" } else { "none" }, "{line}");
        assert_eq!(line["client"], if *result == "client-unknown" { "unknown" } else { "billing" }, "{line}");
        assert_eq!(line["upstream_ms"].as_f64().is_some(), *result == "miss", "{line}");
        assert_eq!(line["whole"], true, "{line}");
        assert!(
            line["timestamp"].is_string() && line["method"].is_string() && line["wait_ms"].is_number(),
            "{line}"
        );
    }
    assert_eq!(by_id["mine-1"]["result"], "miss");
    let head = String::from_utf8_lossy(&asked.head).into_owned();
    // A date at noon holds some of the words below by itself: "2026 12:00:00".
    let head: Vec<_> = head.lines().filter(|line| !line.starts_with("date:")).collect();
    let shown = gate.lines().text() + &gate.metrics().await + &head.join("\n");
    for personal in [
        "612345678",
        "6+12+34",
        "6 12 34",
        "ann",
        "smith",
        "0f8fad5b",
        "4711",
        "4712",
        "hidden",
        "secret_name",
        "agent-47",
        "status404",
        "page=",
        "PAGE",
        "utm",
        "billing-key",
    ] {
        assert!(!shown.contains(personal), "{personal}");
    }
}

fn requests(lines: &[String]) -> Vec<Value> {
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["message"] == "request").collect()
}

#[tokio::test]
async fn every_answer_has_an_id_that_is_the_callers_if_it_is_a_fit_one() {
    let (upstream, gate) = start().await;
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);
    let mut made = Vec::new();
    for (sent, kept) in [
        (Some("order-7/try:2"), true),
        (Some(longest.as_str()), true),
        (Some(too_long.as_str()), false),
        (Some("two words"), false),
        (Some("caf\u{e9}"), false),
        (Some(""), false),
        (None, false),
        (None, false),
    ] {
        let mut headers = vec![BILLING];
        headers.extend(sent.map(|id| ("X-Request-Id", id)));
        for target in [PATH, "/nowhere"] {
            let answer = gate.get(target, &headers).await;
            let ids = answer.headers.all("x-request-id");
            assert_eq!(ids.len(), 1, "{sent:?}");
            assert_eq!(Some(ids[0]) == sent, kept, "{sent:?}: {ids:?}");
            assert!(ids[0].len() <= 128 && ids[0].bytes().all(|byte| byte.is_ascii_graphic()), "{ids:?}");
            if target == "/nowhere" {
                problem(&answer, 404, "no-such-route");
            }
            if !kept {
                made.push(ids[0].to_owned());
            }
        }
    }
    let count = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), count, "an id was given twice");
    assert!(upstream.requests().iter().all(|request| request.header("x-request-id").is_none()));
}

#[tokio::test]
async fn answers_tell_how_the_cache_took_part_and_where_the_time_went() {
    let upstream = Upstream::start(|request: &Request| {
        let reply = Reply::json("[]")
            .header("Age", "7")
            .header("Via", "1.1 origin")
            .header("X-Request-Id", "upstream's");
        if request.path() == "/aged" { reply.header("Cache-Control", "max-age=60") } else { reply }
    })
    .await;
    let config = format!(
        r#"
[upstreams.u]
url = "{}"
[[routes]]
name = "aged"
path = "/aged"
upstream = "u"
methods = ["GET", "POST"]
[[routes]]
name = "off"
path = "/off"
upstream = "u"
cache.enabled = false
[[routes]]
name = "stale"
path = "/stale"
upstream = "u"
[routes.cache]
ttl = "0s"
stale_if_error = "10m"
"#,
        upstream.url()
    );
    let gate = Setup::new(config).start().await;
    let mut client = Client::connect(gate.addr()).await;
    for (method, target, status, timing) in [
        ("GET", "/aged", "tollgate; fwd=uri-miss; fwd-status=200; stored", "gate wait upstream"),
        ("GET", "/aged", "tollgate; hit; ttl=", "gate"),
        ("POST", "/aged", "tollgate; fwd=method; fwd-status=200", "gate wait upstream"),
        ("GET", "/off", "tollgate; fwd=bypass; fwd-status=200", "gate wait upstream"),
        ("GET", "/stale", "tollgate; fwd=uri-miss; fwd-status=200; stored", "gate wait upstream"),
        ("GET", "/stale", "tollgate; fwd=stale; fwd-status=200; stored", "gate wait upstream"),
    ] {
        let answer = client.request(method, target, &[], b"").await;
        assert!(cache_status(&answer).starts_with(status), "{target}: {}", cache_status(&answer));
        assert!(
            status.ends_with('=') || cache_status(&answer) == status,
            "{target}: {}",
            cache_status(&answer)
        );
        assert_eq!(answer.headers.all("via"), ["1.1 origin", "1.1 tollgate"]);
        assert_eq!(names(&answer), timing, "{target}: {:?}", answer.header("server-timing"));
        let age: u64 = answer.header("age").unwrap().parse().unwrap();
        assert!((7..30).contains(&age), "{age}");
        assert_ne!(answer.header("x-request-id"), Some("upstream's"));
        if let Some(ttl) = cache_status(&answer).split("ttl=").nth(1) {
            assert!((30..=53).contains(&ttl.parse::<i64>().unwrap()), "{ttl}: 60 less what it was old");
        }
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.header("via").is_none_or(|via| via.contains("tollgate")))
    );
    // The gate's own words name no cache.
    let own = client.get("/nowhere", &[]).await;
    assert_eq!((own.header("cache-status"), own.header("via"), names(&own).as_str()), (None, None, "gate"));
    assert_eq!(own.header("cache-control"), Some("no-store"));
}

/// The metrics of `Server-Timing`, each with a duration in milliseconds.
fn names(answer: &Answer) -> String {
    let timing = answer.header("server-timing").expect("every answer says where the time went");
    let names: Vec<&str> = timing
        .split(", ")
        .map(|metric| {
            let (name, duration) = metric.split_once(";dur=").unwrap();
            assert!(duration.parse::<f64>().unwrap() >= 0.0, "{timing}");
            name
        })
        .collect();
    names.join(" ")
}

#[tokio::test]
async fn the_operators_pages_are_where_the_contract_says() {
    let (_upstream, gate) = start().await;
    for (page, status, words) in [
        ("/livez", 200, "alive"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, "# TYPE tollgate_requests_total counter"),
        ("/config", 200, "headers.api-key = { env = \"OCTOPUSH_API_KEY\" }  # set, masked"),
        ("/explain?request=GET%20/nowhere", 200, "404 no-such-route"),
        ("/explain?request=nonsense", 400, "does not begin with `/`"),
        ("/usage", 200, "{\"clients\":["),
        ("/", 404, "/metrics /livez /readyz /usage /config"),
    ] {
        let answer = gate.ask_admin("GET", page).await;
        assert_eq!(
            (answer.status, answer.text().contains(words)),
            (status, true),
            "{page}: {}",
            answer.text()
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{page}");
        let head = gate.ask_admin("HEAD", page).await;
        assert_eq!(
            (head.status, head.header("content-type")),
            (status, answer.header("content-type")),
            "{page}"
        );
    }
    let post = gate.ask_admin("POST", "/metrics").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    // Not on the clients' side.
    problem(&gate.get("/metrics", &[BILLING]).await, 404, "no-such-route");
}

#[tokio::test]
async fn a_token_keeps_strangers_out_and_health_open() {
    let upstream = Upstream::start(script).await;
    let gate = shipped::setup(&upstream.url())
        .admin("token = { env = \"ADMIN\" }")
        .env("ADMIN", "admin-token")
        .start()
        .await;
    for (page, open) in
        [("/livez", true), ("/readyz", true), ("/metrics", false), ("/config", false), ("/x", false)]
    {
        for (sent, admitted) in [
            (None, false),
            (Some("Bearer admin-toke"), false),
            (Some("Bearer admin-token2"), false),
            (Some("Basic admin-token"), false),
            (Some("Bearer admin-token"), true),
        ] {
            let headers: Vec<_> = sent.map(|sent| ("Authorization", sent)).into_iter().collect();
            let answer = client::get(gate.admin(), page, &headers).await;
            assert_eq!(answer.status != 401, open || admitted, "{page} {sent:?}");
            assert_eq!(answer.header("www-authenticate").is_some(), answer.status == 401);
        }
    }
}

/// A client that leaves is counted, with the code of those who did not stay for an answer.
#[tokio::test]
async fn a_client_that_left_is_counted_and_logged_once() {
    let (upstream, gate) = start().await;
    upstream.hold();
    let mut client = Client::connect(gate.addr()).await;
    client.ask("GET", PATH, &[BILLING], b"").await;
    upstream.seen(1).await;
    drop(client);
    let labels = ["client=\"billing\"", "code=\"499\"", "route=\"conversation-messages\""];
    gate.metric_becomes("tollgate_requests_total", &labels, |count| count == 1.0).await;
    let lines =
        gate.lines().find("its line", |lines| Some(requests(lines)).filter(|lines| !lines.is_empty())).await;
    assert_eq!((lines.len(), &lines[0]["code"]), (1, &499.into()), "{lines:?}");
    upstream.release();
}
