//! What an account has spent outlives the gate: restarts, `kill -9`, a disk that takes nothing more; and what an operator
//! does by hand does too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it reads the clock")]

mod support;

use std::path::Path;

use support::gate::{Gate, Setup};
use support::shipped::problem;
use support::upstream::{Reply, Upstream};

/// A gate before `url` whose account has `quota`, with its ledgers in `dir`.
fn setup(url: &str, quota: &str, dir: &Path) -> Setup {
    Setup::new(format!(
        "[state]\ndir = {dir:?}\n[upstreams.u]\nurl = \"{url}\"\n[upstreams.u.accounts.a]\nheaders.x-key = \"secret-key\"\n\
         quota = {quota}\nmax_wait = \"0s\"\n[[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\naccount = \"a\"\n\
         [routes.cache]\nttl = \"0s\"\nstale_if_error = \"0s\"\n"
    ))
}

async fn statuses(gate: &Gate, from: usize, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for q in from..from + count {
        statuses.push(gate.get(&format!("/r?q={q}"), &[]).await.status);
    }
    statuses
}

const DAY: &str = "[{ requests = 40, per = \"day\", resets = \"00:00 Europe/Paris\" }]";

/// However often the gate is killed in the middle of its work, the day's quota is never exceeded.
#[tokio::test]
async fn a_killed_gate_never_spends_more_than_the_day_has() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let dir = tempfile::tempdir().unwrap();
    let mut q = 0;
    for life in 0..6 {
        let mut gate = setup(&upstream.url(), DAY, dir.path()).start().await;
        let got = statuses(&gate, q, 9).await;
        q += 9;
        if life < 4 {
            assert!(got.iter().all(|status| *status == 200), "{life}: {got:?}");
        }
        // Some are killed with a call under way.
        let held = format!("/r?q=held{life}");
        if life % 2 == 0 {
            upstream.hold();
            let mut client = support::client::Client::connect(gate.addr()).await;
            let before = upstream.count();
            client.ask("GET", &held, &[], b"").await;
            if life < 4 {
                upstream.seen(before + 1).await;
            }
            upstream.release();
        }
        gate.signal("KILL");
        gate.wait().await;
    }
    assert!(upstream.count() <= 40, "{}", upstream.count());
    let gate = setup(&upstream.url(), DAY, dir.path()).start().await;
    assert_eq!(
        gate.metric("tollgate_quota_remaining", &["account=\"a\""]).await,
        40.0 - upstream.count() as f64
    );
    let refused = gate.get("/r?q=last", &[]).await;
    let document = problem(&refused, 429, "quota-exceeded");
    assert_eq!(document["policy"], "40;w=86400");
}

/// A gate that ends in peace loses nothing of a lease; one that is killed loses at most one.
#[tokio::test]
async fn a_lease_is_lost_to_a_kill_and_kept_by_a_drain() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    for (signal, left) in [("TERM", 9_997.0), ("KILL", 9_990.0)] {
        let dir = tempfile::tempdir().unwrap();
        let quota = "[{ requests = 10000, per = \"month\" }]";
        let mut gate = setup(&upstream.url(), quota, dir.path()).server("drain_delay = \"0s\"").start().await;
        assert_eq!(statuses(&gate, 0, 3).await, [200, 200, 200]);
        gate.signal(signal);
        gate.wait().await;
        let gate = setup(&upstream.url(), quota, dir.path()).start().await;
        assert_eq!(gate.metric("tollgate_quota_remaining", &[]).await, left, "{signal}");
    }
}

/// A long window that slides is kept as well.
#[tokio::test]
async fn a_long_sliding_window_outlives_a_restart() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let dir = tempfile::tempdir().unwrap();
    let quota = "[{ requests = 5, per = \"2h\" }, { requests = 100, per = \"1s\" }]";
    let mut gate = setup(&upstream.url(), quota, dir.path()).start().await;
    assert_eq!(statuses(&gate, 0, 3).await, [200, 200, 200]);
    gate.signal("KILL");
    gate.wait().await;
    let gate = setup(&upstream.url(), quota, dir.path()).start().await;
    assert_eq!(statuses(&gate, 3, 4).await, [200, 200, 429, 429]);
}

/// Two gates on one directory would spend one account twice: the second does not start, but may be checked.
#[tokio::test]
async fn no_two_gates_share_a_directory() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = setup(&upstream.url(), DAY, dir.path()).start().await;
    let second = setup(&upstream.url(), DAY, dir.path()).run(&["serve"]).await;
    assert!(!second.status.success() && second.stderr.contains("another gate uses it"), "{}", second.stderr);
    let checked = setup(&upstream.url(), DAY, dir.path()).run(&["check"]).await;
    assert!(checked.status.success(), "{}", checked.stderr);
    drop(gate);
    std::fs::write(dir.path().join("u.a.ledger"), "lease what .\n").unwrap();
    let wrong = setup(&upstream.url(), DAY, dir.path()).run(&["serve"]).await;
    assert!(!wrong.status.success() && wrong.stderr.contains("line 1"), "{}", wrong.stderr);
}

#[tokio::test]
async fn a_calendar_quota_without_a_place_for_its_ledger_does_not_provision() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = setup(&upstream.url(), DAY, &file).run(&["check"]).await;
    assert!(!refused.status.success() && refused.stderr.contains("state.dir"), "{}", refused.stderr);
}

/// Where nothing more can be written, calls stop when what was written is spent; what is held is still given.
#[tokio::test]
async fn a_full_disk_stops_calls_and_not_answers() {
    let upstream = Upstream::start(|_| Reply::ok("x").header("cache-control", "max-age=60")).await;
    let dir = tempfile::tempdir().unwrap();
    // No file may grow beyond a block; the signal that says so is ignored, so that writing fails as on a full disk.
    let setup = setup(&upstream.url(), "[{ requests = 400, per = \"day\" }]", dir.path());
    let gate = setup.ulimit("-f 1 && trap '' XFSZ").start().await;
    let got = statuses(&gate, 0, 60).await;
    let spent = got.iter().take_while(|status| **status == 200).count();
    assert!((10..60).contains(&spent) && got[spent..].iter().all(|status| *status == 503), "{got:?}");
    assert_eq!(upstream.count(), spent, "nothing is spent that was not written down");
    let refused = gate.get("/r?q=99", &[]).await;
    assert_eq!(problem(&refused, 503, "ledger-unwritable")["upstream_called"], "no");
    assert_eq!(gate.get("/r?q=0", &[]).await.status, 200, "what is held is given");
    assert_eq!(upstream.count(), spent);
}

/// An operator's hand: closing, opening and correcting, kept over a restart.
#[tokio::test]
async fn what_an_operator_does_by_hand_is_kept() {
    let upstream = Upstream::start(|_| Reply::ok("x")).await;
    let dir = tempfile::tempdir().unwrap();
    let mut gate = setup(&upstream.url(), DAY, dir.path()).start().await;
    for (method, path, status) in [
        ("GET", "/accounts/a/pause?for=10m", 405),
        ("POST", "/accounts/b/pause?for=10m", 400),
        ("POST", "/accounts/a/pause?for=soon", 400),
        ("POST", "/accounts/a/ledger?window=week&spent=3", 400),
        ("POST", "/accounts/a/ledger?window=day&spent=38", 200),
        ("POST", "/accounts/a/pause?for=10m", 200),
    ] {
        assert_eq!(gate.ask_admin(method, path).await.status, status, "{method} {path}");
    }
    for restart in [false, true] {
        if restart {
            gate.signal("KILL");
            gate.wait().await;
            gate = setup(&upstream.url(), DAY, dir.path()).start().await;
        }
        let paused = gate.get("/r?q=1", &[]).await;
        problem(&paused, 429, "account-paused");
        let wait: u64 = paused.header("retry-after").unwrap().parse().unwrap();
        assert!((500..=600).contains(&wait), "{wait}");
        assert_eq!(gate.metric("tollgate_account_paused", &["account=\"a\""]).await, 1.0);
    }
    assert_eq!(gate.ask_admin("POST", "/accounts/a/resume").await.status, 200);
    assert_eq!(statuses(&gate, 0, 4).await, [200, 200, 429, 429]);
    assert_eq!(upstream.count(), 2);
}
