//! An upstream behind TLS: one under a private authority that the configuration trusts, and those that it must not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::gate::{Gate, Setup};
use support::shipped::problem;
use support::tls::Authority;
use support::upstream::{Reply, Upstream};

const KEY: &str = "s3cret-over-tls";

async fn gate(url: &str, tls: &str, authority: &Authority) -> Gate {
    let config = format!(
        r#"
[upstreams.u]
url = "{url}/base"
connect_timeout = "500ms"
{tls}
[upstreams.u.accounts.a]
headers.api-key = {{ env = "KEY" }}
quota = [{{ requests = 5, per = "10m" }}]
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
account = "a"
[routes.cache]
ttl = "10m"
"#
    );
    Setup::new(config).file("ca.pem", authority.pem()).env("KEY", KEY).start().await
}

const TRUSTED: &str = "tls.ca = \"{folder}/ca.pem\"";

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new("private");
    let upstream = Upstream::start_tls(authority.server(&["localhost"]), |_| Reply::json("[1]")).await;
    let gate = gate(&upstream.url(), TRUSTED, &authority).await;
    for page in 1..=3 {
        let answer = gate.get(&format!("/r/a?page={page}"), &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "[1]"));
    }
    let seen = upstream.requests();
    assert_eq!(seen[0].target, "/base/r/a?page=1");
    assert_eq!(seen[0].headers.all("api-key"), [KEY]);
    let host = upstream.url().replace("https://", "");
    assert_eq!(seen[0].headers.all("host"), [host.as_str()], "the upstream's name, not the gate's");
    assert_eq!(upstream.connections(), 1, "one handshake for three calls");
}

/// No request may reach whoever cannot prove to be the upstream: it would carry the credentials.
#[tokio::test]
async fn whoever_cannot_prove_to_be_the_upstream_sees_no_request() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (what, server, tls) in [
        ("an authority nobody named", ours.server(&["localhost"]), ""),
        ("another authority", theirs.server(&["localhost"]), TRUSTED),
        ("another host's certificate", ours.server(&["elsewhere.example"]), TRUSTED),
        ("an address in place of the name", ours.server(&["127.0.0.1"]), TRUSTED),
    ] {
        let upstream = Upstream::start_tls(server, |_| Reply::json("[1]")).await;
        let gate = gate(&upstream.url(), tls, &ours).await;
        let answer = gate.get("/r/a", &[]).await;
        let document = problem(&answer, 502, "upstream-unreachable");
        assert_eq!(
            (&document["fault"], &document["upstream_called"]),
            (&"upstream".into(), &"no".into()),
            "{what}"
        );
        upstream.handshake_refused().await;
        assert_eq!(upstream.count(), 0, "{what}");
        assert_eq!(gate.metric("tollgate_quota_remaining", &[]).await, 5.0, "{what}: spent nothing");
        assert_eq!(gate.metric("tollgate_upstream_requests_total", &["outcome=\"unreachable\""]).await, 1.0);
    }
}

#[tokio::test]
async fn an_upstream_without_tls_is_not_spoken_to_in_clear() {
    let authority = Authority::new("private");
    let upstream = Upstream::start(|_| Reply::json("[1]")).await;
    let gate =
        gate(&upstream.url().replace("http://127.0.0.1", "https://localhost"), TRUSTED, &authority).await;
    problem(&gate.get("/r/a", &[]).await, 502, "upstream-unreachable");
    assert_eq!(upstream.count(), 0);
}
