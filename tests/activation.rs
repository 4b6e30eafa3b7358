//! Sockets that outlive the process, as systemd passes them: a restart refuses nobody, and what is wrong with them is
//! said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::client::{self, Client};
use support::gate::{Gate, Setup, one_route};
use support::upstream::{Reply, Upstream};
use support::within;

fn setup(url: &str) -> Setup {
    Setup::new(one_route(url)).server("drain_delay = \"0s\"")
}

/// The sockets, as a supervisor holds them.
struct Held {
    gate: TcpListener,
    admin: TcpListener,
}

impl Held {
    fn new() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self { gate: bind(), admin: bind() }
    }

    async fn start(&self, upstream: &Upstream) -> Gate {
        let gate = setup(&upstream.url()).activate(&self.gate, &self.admin).await;
        assert_eq!(gate.addr(), self.gate.local_addr().unwrap(), "`server.listen` gives way");
        assert_eq!(gate.admin(), self.admin.local_addr().unwrap());
        gate
    }
}

#[tokio::test]
async fn sockets_that_are_passed_are_served() {
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let held = Held::new();
    // Whoever comes before the program has started waits.
    let early = tokio::spawn({
        let address = held.gate.local_addr().unwrap();
        async move { client::get(address, "/r/early", &[]).await }
    });
    let gate = held.start(&upstream).await;
    assert_eq!(within("an answer", early).await.unwrap().status, 200);
    assert_eq!(gate.get("/r/a", &[]).await.status, 200);
    assert_eq!(gate.ask_admin("GET", "/readyz").await.status, 200);
}

/// The old gate answers what it began, those who come meanwhile wait in the socket, and the new gate answers them.
#[tokio::test]
async fn those_who_come_during_a_restart_wait_for_the_next_gate() {
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let held = Held::new();
    let mut old = held.start(&upstream).await;
    upstream.hold();
    let mut begun = Client::connect(old.addr()).await;
    begun.ask("GET", "/r/begun", &[], b"").await;
    upstream.seen(1).await;
    old.signal("TERM");
    old.lines()
        .find("draining", |lines| lines.iter().any(|line| line.contains("draining")).then_some(()))
        .await;
    old.quiet().await;
    let mut waiting = Vec::new();
    for number in 0..50 {
        let mut client = Client::connect(old.addr()).await;
        client.ask("GET", &format!("/r/{number}"), &[], b"").await;
        waiting.push(client);
    }
    upstream.release();
    assert_eq!(begun.read("GET").await.status, 200);
    assert!(old.wait().await.success());
    let calls = upstream.count();
    assert_eq!(calls, 1, "those who wait are not the old gate's");
    let new = held.start(&upstream).await;
    for client in &mut waiting {
        assert_eq!(client.read("GET").await.status, 200);
    }
    assert_eq!(new.metric("tollgate_requests_total", &["code=\"200\""]).await, 50.0);
}

/// Under load: every request of every client is answered, through three restarts.
#[tokio::test]
async fn restarts_under_load_refuse_nobody() {
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let held = Held::new();
    let mut gate = held.start(&upstream).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gate.addr();
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A connection of its own for each: one that idles may be closed at any time.
                    let answer =
                        client::get(address, &format!("/r/{number}"), &[("connection", "close")]).await;
                    assert_eq!((answer.status, answer.complete), (200, true));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        within("some requests", async {
            while answered.load(Ordering::Relaxed) < before + 100 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        gate.signal("TERM");
        assert!(gate.wait().await.success());
        gate = held.start(&upstream).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        within("a client", client).await.expect("every request was answered");
    }
    assert!(answered.load(Ordering::Relaxed) >= 300);
}

#[tokio::test]
async fn what_is_no_listener_is_refused_with_its_place() {
    let program = env!("CARGO_BIN_EXE_tollgate");
    let folder = tempfile::tempdir().unwrap();
    let config = r#"
[admin]
listen = "127.0.0.1:0"
[upstreams.u]
url = "http://127.0.0.1:9"
[upstreams.u.accounts.a]
headers.api-key = "k"
quota = "none"
[[routes]]
name = "r"
path = "/r"
upstream = "u"
account = "a"
"#;
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let output = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"",
            "sh",
        ])
        .args([program, "serve"])
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("inherited socket 0 is no TCP listener"), "{said}");
}
