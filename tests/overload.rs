//! More than the gate takes on: each limit refuses what is above it in the way it says, is counted, and harms nobody
//! below it. `tests/storm` is all of it at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::client::Client;
use support::gate::{Gate, Setup, sample};
use support::shipped::{cache_status, problem};
use support::upstream::{Reply, Request, Signal, Upstream};
use support::within;

fn config(url: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
[[routes]]
name = "kept"
path = "/kept/*"
upstream = "u"
[routes.cache]
ttl = "10m"
[[routes]]
name = "streamed"
path = "/streamed/*"
upstream = "u"
methods = "all"
cache.enabled = false
"#
    )
}

async fn start(server: &str, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Gate) {
    let upstream = Upstream::start(script).await;
    let gate = Setup::new(config(&upstream.url())).server(server).start().await;
    assert_eq!(gate.get("/kept/held", &[]).await.status, 200);
    gate.metric_becomes("tollgate_connections", &[], |open| open == 0.0).await;
    (upstream, gate)
}

fn page(_: &Request) -> Reply {
    Reply::json("[]")
}

async fn hits(gate: &Gate) {
    let mut client = Client::connect(gate.addr()).await;
    hits_on(&mut client).await;
}

async fn hits_on(client: &mut Client) {
    let answer = client.get("/kept/held", &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(cache_status(&answer).starts_with("tollgate; hit"), "{}", cache_status(&answer));
}

/// So many clients that have asked for what `target` says of their number, and were not answered yet.
async fn waiting(gate: &Gate, count: usize, target: impl Fn(usize) -> String) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = Client::connect(gate.addr()).await;
        client.ask("GET", &target(number), &[], b"").await;
        clients.push(client);
    }
    gate.quiet().await;
    clients
}

async fn refused(gate: &Gate, reason: &str, count: f64) {
    let label = [&*format!("reason=\"{reason}\"")];
    let counted = gate.metric_becomes("tollgate_refused_connections_total", &label, |now| now >= count).await;
    assert_eq!(counted, count, "{reason}");
}

/// Nothing is left of what was begun: no flight, grant or task.
async fn nothing_left(gate: &Gate) {
    for gauge in ["tollgate_connections", "tollgate_flights_active", "tollgate_permits", "tollgate_tasks"] {
        gate.metric_becomes(gauge, &[], |left| left == 0.0).await;
    }
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_closed() {
    let (_upstream, gate) = start("max_connections = 4", page).await;
    let mut within_the_limit = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(gate.addr()).await;
        hits_on(&mut client).await;
        within_the_limit.push(client);
    }
    for count in 1..=3 {
        let mut one_more = Client::connect(gate.addr()).await;
        let said = String::from_utf8(one_more.read_to_close().await).unwrap();
        assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
        assert!(said.contains("\r\nretry-after: 1\r\n") && said.ends_with("\r\n\r\n"), "{said}");
        refused(&gate, "too-many", f64::from(count)).await;
    }
    for client in &mut within_the_limit {
        hits_on(client).await;
    }
    assert_eq!(gate.metric("tollgate_connections", &[]).await, 4.0);
    within_the_limit.pop();
    gate.metric_becomes("tollgate_connections", &[], |open| open == 3.0).await;
    hits(&gate).await;
}

#[tokio::test]
async fn being_out_of_descriptors_costs_nothing_and_passes() {
    const MOST: usize = 64;
    let upstream = Upstream::start(page).await;
    let gate = Setup::new(config(&upstream.url())).ulimit(&format!("-n {MOST}")).start().await;
    let (mut client, mut operator) =
        (Client::connect(gate.addr()).await, Client::connect(gate.admin()).await);
    client.get("/kept/held", &[]).await;
    // The system connects them; the gate has no descriptors to accept them all with.
    let mut crowd = Vec::new();
    for _ in 0..2 * MOST {
        crowd.push(Client::connect(gate.addr()).await);
    }
    let accept = ["reason=\"accept\""];
    let mut failed = 0.0;
    within("accepting to fail", async {
        while failed == 0.0 {
            let metrics = operator.get("/metrics", &[]).await.text();
            failed = sample(&metrics, "tollgate_refused_connections_total", &accept);
        }
    })
    .await;
    assert!(gate.open_files() >= MOST, "{} open", gate.open_files());
    let before = gate.cpu();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = gate.cpu() - before;
    assert!(spent <= Duration::from_millis(200), "{spent:?} in two seconds of waiting");
    let metrics = operator.get("/metrics", &[]).await.text();
    let tried = sample(&metrics, "tollgate_refused_connections_total", &accept);
    assert!((2.0..=30.0).contains(&tried), "{tried} tries");
    hits_on(&mut client).await;

    drop(crowd);
    hits(&gate).await;
    drop((client, operator));
    nothing_left(&gate).await;
}

#[tokio::test]
async fn above_the_most_waiters_requests_are_shed_and_hits_go_on() {
    let (upstream, gate) = start("max_waiters = 4", page).await;
    upstream.hold();
    let mut clients = waiting(&gate, 4, |number| format!("/kept/{number}")).await;
    upstream.seen(5).await;
    for path in ["/kept/another", "/kept/0", "/streamed/another"] {
        let shed = gate.get(path, &[]).await;
        let document = problem(&shed, 503, "overloaded");
        assert_eq!((&document["fault"], &document["upstream_called"]), (&"gateway".into(), &"no".into()));
        assert_eq!(shed.header("retry-after"), Some("1"));
        hits(&gate).await;
    }
    assert_eq!(gate.metric("tollgate_faults_total", &["kind=\"overloaded\""]).await, 3.0);
    upstream.release();
    for client in &mut clients {
        assert_eq!(client.read("GET").await.status, 200);
    }
    assert_eq!(gate.get("/kept/another", &[]).await.status, 200);
    assert_eq!(upstream.count(), 6);
    drop(clients);
    nothing_left(&gate).await;
}

#[tokio::test]
async fn above_the_most_waiters_of_one_key_requests_are_shed_and_other_keys_go_on() {
    let landing = Signal::new();
    let lands = landing.clone();
    let (upstream, gate) = start("max_waiters_per_key = 3", move |request| match request.path() {
        "/kept/crowded" => page(request).after(&lands),
        _ => page(request),
    })
    .await;
    let mut clients = waiting(&gate, 3, |_| "/kept/crowded".into()).await;
    upstream.seen(2).await;
    for other in ["/kept/0", "/kept/1"] {
        let shed = gate.get("/kept/crowded", &[]).await;
        problem(&shed, 503, "overloaded");
        assert_eq!(shed.header("retry-after"), Some("1"));
        hits(&gate).await;
        assert_eq!(gate.get(other, &[]).await.status, 200);
    }
    // Who leaves makes room.
    clients.pop();
    gate.metric_becomes("tollgate_requests_total", &["code=\"499\""], |left| left == 1.0).await;
    clients.extend(waiting(&gate, 1, |_| "/kept/crowded".into()).await);
    landing.fire();
    for client in &mut clients {
        assert_eq!(client.read("GET").await.status, 200);
    }
    assert_eq!(upstream.requests().iter().filter(|request| request.path() == "/kept/crowded").count(), 1);
    drop(clients);
    nothing_left(&gate).await;
}

const MIB: usize = 1 << 20;

#[tokio::test]
async fn clients_that_do_not_read_are_cut_off_and_cost_no_memory() {
    const READERS: usize = 12;
    let (upstream, gate) =
        start("body_timeout = \"1s\"", |request| match request.path().rsplit_once('/').unwrap().1 {
            "large" => Reply::ok(vec![b'x'; 7 * MIB]),
            "endless" => Reply::ok(vec![b'x'; 24 * MIB]),
            _ => page(request),
        })
        .await;
    assert_eq!(gate.get("/kept/large", &[]).await.body.len(), 7 * MIB);
    let before = gate.memory("VmRSS");
    let mut clients = waiting(&gate, READERS, |_| "/kept/large".into()).await;
    clients.extend(waiting(&gate, READERS, |_| "/streamed/endless".into()).await);
    // One who reads is answered while the others do not.
    hits(&gate).await;
    assert_eq!(gate.get("/kept/large", &[]).await.body.len(), 7 * MIB);
    assert_eq!(gate.get("/kept/new", &[]).await.status, 200);
    refused(&gate, "blocked", 2.0 * READERS as f64).await;
    nothing_left(&gate).await;
    let grown = gate.memory("VmHWM").saturating_sub(before) / MIB as u64;
    assert!(grown < 48, "{grown} MiB for {READERS} copies each of 7 and of 24 MiB");
    // None of them can take what it has for the whole.
    for client in &mut clients {
        assert!(client.read_to_close().await.len() < 7 * MIB);
    }
    assert_eq!(upstream.count(), 3 + READERS);
}

#[tokio::test]
async fn clients_that_do_not_send_are_told_so_and_harm_nobody() {
    const WRITERS: usize = 12;
    let (_upstream, gate) = start("body_timeout = \"1s\"", page).await;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        let mut client = Client::connect(gate.addr()).await;
        client
            .send(b"POST /streamed/a HTTP/1.1\r\nHost: gate.example\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        clients.push(client);
    }
    gate.quiet().await;
    hits(&gate).await;
    assert_eq!(gate.get("/kept/new", &[]).await.status, 200);
    assert_eq!(gate.get("/streamed/new", &[]).await.status, 200);
    for client in &mut clients {
        problem(&client.read("POST").await, 408, "slow-request");
    }
    drop(clients);
    nothing_left(&gate).await;
}

#[tokio::test]
async fn slow_heads_are_refused_and_harm_nobody() {
    const HEADS: usize = 100;
    let (_upstream, gate) = start("header_timeout = \"1s\"", page).await;
    let mut clients = Vec::new();
    for number in 0..HEADS {
        let mut client = Client::connect(gate.addr()).await;
        // Cut anywhere.
        let head = b"GET /kept/held HTTP/1.1\r\nHost: gate.example\r\nx: y\r\n";
        client.send(&head[..1 + number % head.len()]).await;
        clients.push(client);
    }
    hits(&gate).await;
    for client in &mut clients {
        let said = String::from_utf8(client.read_to_close().await).unwrap();
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("\r\nconnection: close\r\n"), "{said:?}");
    }
    refused(&gate, "slow-head", HEADS as f64).await;
    drop(clients);
    nothing_left(&gate).await;
}

#[tokio::test]
async fn descriptors_return_to_where_they_were() {
    let landing = Signal::new();
    let lands = landing.clone();
    let (upstream, gate) = start("", move |request| match request.path() {
        "/kept/late" => page(request).after(&lands),
        _ => page(request),
    })
    .await;
    let before = gate.open_files();
    let mut clients = waiting(&gate, 100, |_| "/kept/late".into()).await;
    for bytes in [
        &b""[..],
        b"G",
        b"GET /kept/held HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0",
    ] {
        for _ in 0..20 {
            let mut client = Client::connect(gate.addr()).await;
            client.send(bytes).await;
            clients.push(client);
        }
    }
    upstream.seen(2).await;
    gate.quiet().await;
    assert!(gate.open_files() >= before + 100, "{} open", gate.open_files());
    drop(clients);
    landing.fire();
    nothing_left(&gate).await;
    within("the last descriptor to be closed", async {
        while gate.open_files() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The soft limit is what programs start with that know no better; 1,024 of old.
#[tokio::test]
async fn no_core_is_dumped_and_every_descriptor_there_is_may_be_used() {
    let upstream = Upstream::start(page).await;
    let gate = Setup::new(config(&upstream.url())).ulimit("-S -n 64").start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    let [soft, hard] = &limit("Max open files")[..] else { panic!("{limits}") };
    assert_eq!(soft, hard);
}
