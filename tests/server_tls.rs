//! TLS towards clients, their certificates in place of keys, and the gate's own certificate towards an upstream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is not the gate: it starts tasks")]

mod support;

use support::client::Client;
use support::gate::{Gate, Setup};
use support::http2::{Http2, tls};
use support::shipped::problem;
use support::tls::Authority;
use support::upstream::{Reply, Upstream};
use support::{wire, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(url: &str, upstream: &str, clients: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
{upstream}
[upstreams.u.accounts.a]
headers.api-key = "k"
quota = [{{ requests = 1000, per = "10m" }}]
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
account = "a"
[routes.cache]
ttl = "10m"
{clients}
"#
    )
}

const IDENTITY: &str = "tls.certificate = \"{folder}/server.pem\"\ntls.key = \"{folder}/server.key\"";

fn setup(config: String, authority: &Authority) -> Setup {
    let (certificate, key) = authority.identity(&["localhost"]);
    Setup::new(config).server(IDENTITY).file("server.pem", certificate).file("server.key", key)
}

async fn start(server: &str, clients: &str, authority: &Authority) -> (Upstream, Gate) {
    let upstream = Upstream::start(|request| Reply::json(format!("[{}]", request.number))).await;
    let setup = setup(config(&upstream.url(), "", clients), authority).server(server);
    let gate = setup.file("ca.pem", authority.pem()).start().await;
    (upstream, gate)
}

async fn says(gate: &Gate, words: &str) {
    gate.lines().find(words, |lines| lines.iter().any(|line| line.contains(words)).then_some(())).await;
}

/// One request over HTTP/1.1 on a stream: the status and the body.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), target: &str) -> (String, Vec<u8>) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    let head = within("an answer", wire::read_head(stream, &mut buffer)).await.unwrap().unwrap();
    let body = within("a body", wire::read_body(stream, &mut buffer, &head.headers, false)).await;
    assert!(body.complete);
    (head.first, body.bytes)
}

#[tokio::test]
async fn both_protocols_are_served_and_clients_choose() {
    let authority = Authority::new("private");
    let (upstream, gate) = start("", "", &authority).await;
    let second = Http2::connect_tls(gate.addr(), authority.client()).await;
    assert_eq!(second.get("/r/a", &[]).await.text(), "[1]");
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let mut first = tls(gate.addr(), authority.client(), protocols).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ask(&mut first, "/r/a").await, ("HTTP/1.1 200 OK".into(), b"[1]".to_vec()));
        }
    }
    // "… no_application_protocol" (RFC 7301 §3.2), and nothing else is guessed.
    assert!(tls(gate.addr(), authority.client(), &[b"spdy/3"]).await.is_err());
    assert!(tls(gate.addr(), Authority::new("theirs").client(), &[b"h2"]).await.is_err());
    assert_eq!(upstream.count(), 1);
    gate.metric_becomes("tollgate_refused_connections_total", &["reason=\"tls\""], |n| n == 2.0).await;
    // Operators' pages stay in clear text.
    assert_eq!(gate.ask_admin("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn check_says_what_is_wrong_with_certificates() {
    let authority = Authority::new("private");
    let (certificate, key) = authority.identity(&["localhost"]);
    let (_, other_key) = authority.identity(&["localhost"]);
    let client = "[clients.b]\ncertificate = \"b.internal\"";
    for (what, server, clients, files, said) in [
        (
            "another's key",
            IDENTITY,
            "",
            (&certificate, &other_key),
            Some("server.tls.key: does not belong to the certificate"),
        ),
        ("no certificate in the file", IDENTITY, "", (&key, &key), Some("server.tls.certificate: file")),
        ("no key in the file", IDENTITY, "", (&certificate, &certificate), Some("holds no private key")),
        (
            "a key alone",
            "tls.key = \"{folder}/server.key\"",
            "",
            (&certificate, &key),
            Some("server.tls.certificate"),
        ),
        (
            "nobody can present it",
            IDENTITY,
            client,
            (&certificate, &key),
            Some("`client_ca` in [server.tls]"),
        ),
        ("all is well", IDENTITY, "", (&certificate, &key), None),
    ] {
        let setup = Setup::new(config("http://127.0.0.1:9", "", clients)).server(server);
        let setup = setup.file("server.pem", files.0.as_str()).file("server.key", files.1.as_str());
        let finished = setup.run(&["check"]).await;
        assert_eq!(finished.status.success(), said.is_none(), "{what}: {finished:?}");
        assert!(finished.stderr.contains(said.unwrap_or_default()), "{what}: {}", finished.stderr);
        let secret = key.lines().nth(1).unwrap();
        assert!(!finished.stderr.contains(secret) && !finished.stdout.contains(secret), "{what}");
    }
}

const CLIENTS: &str = "
[clients.billing]
certificate = \"billing.internal\"
[clients.search]
key = \"search-key\"
[clients.both]
key = \"both-key\"
certificate = \"both.internal\"";
const CLIENT_CA: &str = "tls.client_ca = \"{folder}/ca.pem\"";

#[tokio::test]
async fn a_certificate_is_another_way_to_be_a_declared_client() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (_upstream, gate) = start(CLIENT_CA, CLIENTS, &ours).await;
    let none = ours.client();
    for (what, config, key, client) in [
        ("a certificate", ours.client_as("billing.internal", &ours), None, Some("billing")),
        ("its name in another case", ours.client_as("BILLING.internal", &ours), None, Some("billing")),
        ("a key", none.clone(), Some("search-key"), Some("search")),
        (
            "a key beside a certificate",
            ours.client_as("billing.internal", &ours),
            Some("search-key"),
            Some("search"),
        ),
        ("a wrong key beside it", ours.client_as("billing.internal", &ours), Some("wrong"), None),
        ("one of two ways", ours.client_as("both.internal", &ours), None, Some("both")),
        ("nobody's certificate", ours.client_as("nobody.internal", &ours), None, None),
        ("neither", none, None, None),
    ] {
        let connection = Http2::connect_tls(gate.addr(), config).await;
        let headers: Vec<_> = key.map(|key| ("x-tollgate-key", key)).into_iter().collect();
        let labels = client.map(|client| format!("client=\"{client}\""));
        let labels: Vec<&str> = labels.as_deref().into_iter().chain(["code=\"200\""]).collect();
        let before = gate.metric("tollgate_requests_total", &labels).await;
        let answer = connection.get("/r/a", &headers).await;
        match client {
            Some(_) => {
                assert_eq!(answer.status, 200, "{what}");
                let wanted = before + 1.0;
                gate.metric_becomes("tollgate_requests_total", &labels, |count| count == wanted).await;
            }
            None => drop(problem(&answer, 401, "client-unknown")),
        }
    }
    // The certificate of an authority that nobody named ends the handshake, whatever key would have come with it.
    let stranger = ours.client_as("billing.internal", &theirs);
    if let Ok(mut stream) = tls(gate.addr(), stranger, &[b"http/1.1"]).await {
        // In TLS 1.3 the client is told after it believes to be through.
        let _ = stream.write_all(b"GET /r/a HTTP/1.1\r\nhost: a\r\nx-tollgate-key: search-key\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    gate.metric_becomes("tollgate_refused_connections_total", &["reason=\"tls\""], |n| n == 1.0).await;
}

#[tokio::test]
async fn a_client_without_certificate_or_key_is_anonymous_where_that_is_allowed() {
    let authority = Authority::new("ours");
    let server = format!("{CLIENT_CA}\nallow_anonymous = true");
    let (_upstream, gate) = start(&server, CLIENTS, &authority).await;
    for config in [authority.client(), authority.client_as("nobody.internal", &authority)] {
        assert_eq!(Http2::connect_tls(gate.addr(), config).await.get("/r/a", &[]).await.status, 200);
    }
    let labels = ["client=\"anonymous\"", "code=\"200\""];
    gate.metric_becomes("tollgate_requests_total", &labels, |count| count == 2.0).await;
}

/// A renewed certificate is for new connections; those that are open go on, and one that is wrong changes nothing.
#[tokio::test]
async fn certificates_are_renewed_without_losing_a_connection() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (upstream, gate) = start("", "", &old).await;
    let mut first = tls(gate.addr(), old.client(), &[b"http/1.1"]).await.unwrap();
    let second = Http2::connect_tls(gate.addr(), old.client()).await;
    assert_eq!(ask(&mut first, "/r/a").await.1, b"[1]");
    upstream.hold();
    let begun = second.begin("/r/under-way").await;
    upstream.seen(2).await;

    let (certificate, key) = new.identity(&["localhost"]);
    std::fs::write(gate.path("server.key"), &key).unwrap();
    gate.signal("HUP");
    says(&gate, "the old one stays").await;
    assert!(
        tls(gate.addr(), old.client(), &[]).await.is_ok(),
        "a key without its certificate changes nothing"
    );

    std::fs::write(gate.path("server.pem"), &certificate).unwrap();
    gate.signal("HUP");
    says(&gate, "serving by the new configuration").await;
    assert!(tls(gate.addr(), old.client(), &[]).await.is_err());
    let renewed = Http2::connect_tls(gate.addr(), new.client()).await;
    assert_eq!(renewed.get("/r/a", &[]).await.text(), "[1]", "what was known is known");
    upstream.release();
    assert_eq!(within("an answer", begun).await.unwrap().status(), 200);
    assert_eq!(second.get("/r/a", &[]).await.text(), "[1]");
    assert_eq!(ask(&mut first, "/r/a").await.1, b"[1]");
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_let_go() {
    let authority = Authority::new("private");
    let (upstream, gate) = start("header_timeout = \"300ms\"", "", &authority).await;
    // A handshake that stalls: nothing at all, or its first bytes.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stalled = Client::connect(gate.addr()).await;
        stalled.send(bytes).await;
        stalled.read_to_close().await;
    }
    // Another protocol: an alert at most, and no answer that could be taken for one.
    for bytes in [&b"GET /r/a HTTP/1.1\r\nhost: a\r\n\r\n"[..], support::http2::PREFACE, &[0; 64]] {
        let mut plain = Client::connect(gate.addr()).await;
        plain.send(bytes).await;
        let said = plain.read_to_close().await;
        assert!(said.len() < 16 && !said.starts_with(b"HTTP"), "{said:?}");
    }
    gate.metric_becomes("tollgate_refused_connections_total", &["reason=\"tls\""], |n| n == 5.0).await;
    gate.metric_becomes("tollgate_connections", &[], |n| n == 0.0).await;
    assert_eq!(upstream.count(), 0);
    assert_eq!(Http2::connect_tls(gate.addr(), authority.client()).await.get("/r/a", &[]).await.status, 200);
}

/// Without close_notify an answer that ends with its connection would look whole: none does.
#[tokio::test]
async fn a_broken_answer_is_visibly_broken_over_tls() {
    let authority = Authority::new("private");
    let upstream = Upstream::start(|_| Reply::ok(vec![b'x'; 400_000]).truncate(300_000)).await;
    let config = config(&upstream.url(), "", "[routes.cache]")
        .replace("ttl = \"10m\"\n[routes.cache]", "enabled = false");
    let gate = setup(config, &authority).start().await;
    let second = Http2::connect_tls(gate.addr(), authority.client()).await;
    let answer = second.request("GET", "/r/a", &[], b"").await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.complete));
    let mut first = tls(gate.addr(), authority.client(), &[b"http/1.1"]).await.unwrap();
    first.write_all(b"GET /r/a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut buffer = Vec::new();
    if let Ok(Some(head)) = within("a head", wire::read_head(&mut first, &mut buffer)).await {
        let body = within("a body", wire::read_body(&mut first, &mut buffer, &head.headers, true)).await;
        assert!(!body.complete);
    }
}

// ---- the gate's own certificate ---------------------------------------------------------------------------------

#[tokio::test]
async fn the_gate_shows_its_certificate_to_an_upstream_that_asks() {
    let authority = Authority::new("private");
    let upstream = Upstream::start_tls(authority.strict_server(), |_| Reply::json("[1]")).await;
    let (certificate, key) = authority.identity(&["tollgate.internal"]);
    let (other, other_key) = Authority::new("theirs").identity(&["tollgate.internal"]);
    let shown = "tls.certificate = \"{folder}/own.pem\"\ntls.key = \"{folder}/own.key\"";
    for (what, tls, (certificate, key), served) in [
        ("its own", shown, (&certificate, &key), true),
        ("none", "", (&certificate, &key), false),
        ("another authority's", shown, (&other, &other_key), false),
    ] {
        let tls = format!("tls.ca = \"{{folder}}/ca.pem\"\n{tls}");
        let setup = Setup::new(config(&upstream.url(), &tls, "")).file("ca.pem", authority.pem());
        let setup = setup.file("own.pem", certificate.as_str()).file("own.key", key.as_str());
        let gate = setup.start().await;
        let answer = gate.get("/r/a", &[]).await;
        assert_eq!(answer.status, if served { 200 } else { 502 }, "{what}");
        assert_eq!(upstream.count(), 1, "{what}");
    }
}

#[tokio::test]
async fn the_platform_s_authorities_can_be_trusted() {
    let authority = Authority::new("of this platform");
    let upstream = Upstream::start_tls(authority.server(&["localhost"]), |_| Reply::json("[1]")).await;
    let folder = tempfile::tempdir().unwrap();
    let (some, none) = (folder.path().join("some.pem"), folder.path().join("none.pem"));
    std::fs::write(&some, authority.pem()).unwrap();
    std::fs::write(&none, "").unwrap();
    let platform = || config(&upstream.url(), "tls.roots = \"platform\"", "");
    let gate = Setup::new(platform()).env("SSL_CERT_FILE", &some).start().await;
    assert_eq!(gate.get("/r/a", &[]).await.text(), "[1]");
    let checked = Setup::new(platform()).env("SSL_CERT_FILE", &none).run(&["check"]).await;
    assert!(!checked.status.success());
    assert!(checked.stderr.contains("no certificates of authorities"), "{}", checked.stderr);
}
