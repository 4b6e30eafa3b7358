//! The account's secrets over the wire: clients can neither supply, override, strip nor see them, a refusal by the
//! upstream is the gate's affair, and nothing the program shows or logs holds one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use support::client::{self, Client};
use support::gate::Setup;
use support::shipped::{self, KEY, LOGIN, PATH, cache_status, problem};
use support::upstream::{Reply, Request, Upstream};

/// Everything passes that may: all header fields, and queries as they are.
fn open(url: &str, credentials: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
[upstreams.u.accounts.a]
{credentials}
quota = "none"
[[routes]]
name = "open"
path = "/open/*"
upstream = "u"
account = "a"
methods = "all"
forward_headers = "all"
"#
    )
}

const HEADER: &str = "headers.Api-Key = { env = \"KEY\" }";

async fn echoing() -> Upstream {
    Upstream::start(|request| Reply::json(format!("{{\"number\":{}}}", request.number))).await
}

#[tokio::test]
async fn a_client_can_neither_supply_nor_override_nor_strip_a_credential() {
    let upstream = echoing().await;
    let gate = Setup::new(open(&upstream.url(), HEADER)).env("KEY", KEY).start().await;
    let mut client = Client::connect(gate.addr()).await;
    for headers in [
        vec![],
        vec![("api-key", "mine")],
        vec![("API-KEY", "mine")],
        vec![("Api_Key", "mine"), ("api_key", "mine")],
        vec![("api-key", "mine"), ("api-key", "mine too")],
        vec![("api-key", "mine"), ("Connection", "api-key")],
        vec![("Connection", "keep-alive, Api-Key, x-other"), ("X-Other", "1")],
        vec![("Connection", "api_key, api-key")],
    ] {
        for (method, body) in [("GET", &b""[..]), ("POST", b"x=1")] {
            let before = upstream.count();
            let answer = client.request(method, "/open/a", &headers, body).await;
            assert_eq!(answer.status, 200, "{headers:?}");
            let seen = upstream.requests().split_off(before).pop().expect("a call");
            assert_eq!(seen.headers.all("api-key"), [KEY], "{headers:?}");
            assert!(!seen.contains("mine") && !seen.contains("api_key"), "{headers:?}: {seen:?}");
            assert_eq!(seen.header("x-other"), None);
            assert!(!seen.header("connection").unwrap_or_default().to_ascii_lowercase().contains("key"));
        }
    }
}

#[tokio::test]
async fn credentials_in_the_query_replace_every_copy_of_the_clients() {
    let upstream = echoing().await;
    let credentials = "query.api_key = { env = \"KEY\" }\nquery.login = { env = \"LOGIN\" }";
    let config = open(&upstream.url(), credentials)
        + "[[routes]]\nname = \"passing\"\npath = \"/passing\"\nupstream = \"u\"\naccount = \"a\"\nunknown = \"pass\"\n[routes.params]\npage = \"integer\"\n";
    let secret = "k3y+of/the account&=";
    let gate = Setup::new(config).env("KEY", secret).env("LOGIN", LOGIN).start().await;
    let added = "api_key=k3y%2Bof%2Fthe%20account%26%3D&login=login%40account.example";
    let mut client = Client::connect(gate.addr()).await;
    for path in ["/open/a", "/passing"] {
        for query in [
            "page=1",
            "page=1&api_key=mine",
            "api-key=mine&page=1&API_KEY=mine&login=mine",
            "%61pi%5Fkey=mine&page=1&l%4Fgin",
            "api%2Dkey=mine&page=1&LOGIN=mine&api_key",
        ] {
            let before = upstream.count();
            let answer = client.get(&format!("{path}?{query}"), &[("Cache-Control", "no-cache")]).await;
            assert_eq!(answer.status, 200, "{query}");
            let seen = upstream.requests().split_off(before).pop().expect("a call");
            assert_eq!(seen.query(), format!("page=1&{added}"), "{path}?{query}");
            assert!(!answer.contains("k3y"), "{answer:?}");
        }
    }
}

/// An upstream that shows its caller's credentials in fields of the answer.
#[tokio::test]
async fn an_answer_that_echoes_a_credential_has_it_removed() {
    let upstream = Upstream::start(|request: &Request| {
        let key = request.header("api-key").unwrap_or_default();
        Reply::new(302, "moved")
            .header("X-Echo", key)
            .header("X-Sentence", &format!("you are {key}, are you not"))
            .header("Set-Cookie", &format!("key={key}; Path=/"))
            .header(
                "Location",
                &format!("https://elsewhere.example/a?api_key={}&b=1#c", key.replace('3', "%33")),
            )
            .header("X-Harmless", "stays")
    })
    .await;
    let gate = Setup::new(open(&upstream.url(), HEADER)).env("KEY", KEY).start().await;
    for method in ["GET", "HEAD", "POST"] {
        let answer = client::request(gate.addr(), method, "/open/a", &[], b"").await;
        assert_eq!(answer.status, 302, "a redirect is passed, not followed");
        assert!(!answer.contains(KEY) && !answer.contains("k%33y"), "{answer:?}");
        assert_eq!(answer.header("location"), Some("https://elsewhere.example/a?b=1#c"));
        assert_eq!(answer.header("x-harmless"), Some("stays"));
    }
    assert_eq!(upstream.count(), 3);
}

/// Answers 401 to every key but those in the set.
async fn choosy(keys: &[&str]) -> (Upstream, Arc<Mutex<BTreeSet<String>>>) {
    let known: Arc<Mutex<BTreeSet<String>>> =
        Arc::new(Mutex::new(keys.iter().map(|key| (*key).to_owned()).collect()));
    let accepted = known.clone();
    let upstream = Upstream::start(move |request: &Request| {
        let key = request.header("api-key").unwrap_or_default();
        if accepted.lock().unwrap().contains(key) {
            Reply::json(format!("[{}]", request.number))
        } else {
            Reply::new(401, format!("{{\"code\":401,\"message\":\"unauthorized {key}\"}}"))
                .header("WWW-Authenticate", "Key realm=\"upstream\"")
        }
    })
    .await;
    (upstream, known)
}

fn replace(known: &Mutex<BTreeSet<String>>, key: &str) {
    let mut known = known.lock().unwrap();
    known.clear();
    known.insert(key.to_owned());
}

#[tokio::test]
async fn a_refused_credential_is_the_gates_affair_and_rests_the_account_after_two() {
    let (upstream, known) = choosy(&[]).await;
    let gate = Setup::new(open(&upstream.url(), HEADER)).env("KEY", KEY).start().await;
    let paused = ["account=\"a\""];
    let mut client = Client::connect(gate.addr()).await;
    for count in 1..=2 {
        let answer = client.get("/open/a", &[]).await;
        let document = problem(&answer, 502, "upstream-refused-credentials");
        assert_eq!((&document["fault"], &document["upstream_called"]), (&"gateway".into(), &"yes".into()));
        assert_eq!(answer.header("www-authenticate"), None, "the challenge is not the client's");
        assert!(!answer.contains(KEY) && !answer.contains("unauthorized"), "{answer:?}");
        assert_eq!(upstream.count(), count);
        assert_eq!(gate.metric("tollgate_account_paused", &paused).await == 1.0, count == 2);
    }
    // Rests: whoever comes now costs no call, and is told for how long.
    let answer = client.get("/open/b", &[]).await;
    let document = problem(&answer, 502, "upstream-refused-credentials");
    assert_eq!(document["upstream_called"], "no");
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    assert_eq!(upstream.count(), 2);
    // The upstream knows the key again: the next probe finds it out.
    replace(&known, KEY);
    let mut answered = None;
    support::within("a probe", async {
        while answered.is_none() {
            let answer = client.get("/open/a", &[]).await;
            if answer.status == 200 {
                answered = Some(answer);
            } else {
                assert_eq!(upstream.count(), 2, "no call while resting");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    })
    .await;
    assert_eq!(upstream.count(), 3);
    assert_eq!(gate.metric("tollgate_account_paused", &paused).await, 0.0);
    assert_eq!(client.get("/open/c", &[]).await.status, 200);
}

#[tokio::test]
async fn a_rotated_secret_is_read_again_without_a_failing_answer() {
    let (upstream, known) = choosy(&["first-key"]).await;
    let credentials = "headers.api-key = { file = \"{folder}/key\" }";
    let gate = Setup::new(open(&upstream.url(), credentials)).file("key", "first-key\n").start().await;
    let mut client = Client::connect(gate.addr()).await;
    assert_eq!(client.get("/open/a", &[]).await.status, 200);

    std::fs::write(gate.path("key"), "second-key\n").unwrap();
    replace(&known, "second-key");
    let rotated = client.get("/open/b", &[]).await;
    assert_eq!((rotated.status, rotated.text().as_str()), (200, "[3]"), "refused once, then read again");
    assert_eq!(client.get("/open/c", &[]).await.text(), "[4]", "the new one is kept");

    // A request with a body cannot be sent twice: it is told, and the next one passes.
    std::fs::write(gate.path("key"), "third-key").unwrap();
    replace(&known, "third-key");
    let unlucky = client.request("POST", "/open/d", &[], b"order=1").await;
    problem(&unlucky, 502, "upstream-refused-credentials");
    assert_eq!(client.request("POST", "/open/d", &[], b"order=1").await.status, 200);
    assert_eq!(gate.metric("tollgate_account_paused", &["account=\"a\""]).await, 0.0);
    for key in ["first-key", "second-key", "third-key"] {
        assert!(!gate.lines().contains(key), "{key} in the log");
    }
}

#[tokio::test]
async fn clients_get_what_is_held_while_credentials_are_refused() {
    let (upstream, known) = choosy(&[KEY]).await;
    let config = open(&upstream.url(), HEADER) + "[routes.cache]\nttl = \"0s\"\nstale_if_error = \"10m\"\n";
    let gate = Setup::new(config).env("KEY", KEY).start().await;
    let mut client = Client::connect(gate.addr()).await;
    let held = client.get("/open/a", &[]).await;
    assert_eq!(held.status, 200);
    replace(&known, "another");
    for _ in 0..3 {
        let stale = client.get("/open/a", &[]).await;
        assert_eq!((stale.status, &stale.body), (200, &held.body));
        assert!(cache_status(&stale).ends_with("; detail=paused"), "{}", cache_status(&stale));
    }
    // Another question has nothing to fall back to.
    problem(&client.get("/open/b", &[]).await, 502, "upstream-refused-credentials");
}

#[tokio::test]
async fn a_403_is_an_answer_and_rests_nothing() {
    let upstream = Upstream::start(|_| Reply::new(403, "{\"code\":403}").header("X-Why", "not yours")).await;
    let gate = Setup::new(open(&upstream.url(), HEADER)).env("KEY", KEY).start().await;
    for count in 1..=4 {
        let answer = gate.get("/open/a", &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, "{\"code\":403}"));
        assert_eq!(answer.header("x-why"), Some("not yours"));
        assert_eq!(upstream.count(), count);
    }
    assert_eq!(gate.metric("tollgate_account_paused", &[]).await, 0.0);
}

/// Everything that can be seen of a gate from outside, at the loudest log level, after every kind of outcome.
#[tokio::test]
async fn no_secret_is_shown_anywhere() {
    const CLIENT: &str = "cl1ent-s3cret";
    const ADMIN: &str = "adm1n-s3cret";
    let (upstream, known) = choosy(&[KEY]).await;
    let config = shipped::config(&upstream.url()) + "[clients.billing]\nkey = { env = \"CLIENT\" }\n";
    let setup = || {
        shipped::with_secrets(Setup::new(config.clone()))
            .admin("token = { env = \"ADMIN\" }")
            .env("CLIENT", CLIENT)
            .env("ADMIN", ADMIN)
            .env("TOLLGATE_LOG", "trace")
    };
    let mut gate = setup().start().await;
    let mut shown = Vec::new();
    let key = [("Authorization", "Bearer cl1ent-s3cret")];
    let mut client = Client::connect(gate.addr()).await;
    for target in [
        format!("{PATH}?page=2"),
        format!("{PATH}?page=2"),
        format!("{PATH}?page=abc&api-key={KEY}"),
        "/nowhere".to_owned(),
        format!("/-/explain?request=GET%20{PATH}"),
    ] {
        shown.push(client.get(&target, &key).await);
    }
    shown.push(client.get(PATH, &[("x-tollgate-key", "wrong")]).await);
    shown.push(client.get(&format!("{PATH}?page=0"), &[key[0], ("Prefer", "handling=strict")]).await);
    replace(&known, "another");
    for page in 3..7 {
        shown.push(client.get(&format!("{PATH}?page={page}"), &key).await);
    }
    assert_eq!(shown.last().unwrap().status, 502);
    let token = [("Authorization", "Bearer adm1n-s3cret")];
    for page in ["/metrics", "/config", "/readyz", "/livez", "/nothing"] {
        shown.push(client::get(gate.admin(), page, &token).await);
    }
    let explained = format!("/explain?request=GET%20{PATH}%3Fpage%3D2");
    shown.push(client::get(gate.admin(), &explained, &token).await);
    shown.push(client::get(gate.admin(), "/metrics", &[]).await);
    assert_eq!(shown.last().unwrap().status, 401);
    // A reload goes over every secret once more.
    gate.signal("HUP");
    gate.lines()
        .find("the reload", |lines| {
            lines.iter().any(|line| line.contains("serving by the new configuration")).then_some(())
        })
        .await;
    let checked = setup().run(&["check"]).await;
    assert!(checked.status.success() && checked.stdout.contains("OCTOPUSH_API_KEY"), "{checked:?}");
    let explained = setup().run(&["explain", &format!("GET {PATH}?page=2")]).await;
    assert!(explained.status.success() && explained.stdout.contains("api-key"), "{explained:?}");
    gate.signal("TERM");
    gate.signal("TERM");
    gate.wait().await;
    let log = gate.lines().text();
    assert!(log.contains("\"level\":\"INFO\""), "{log}");
    let mut texts: Vec<String> = vec![log, format!("{checked:?}"), format!("{explained:?}")];
    texts.extend(
        shown.iter().map(|answer| format!("{}{}", String::from_utf8_lossy(&answer.head), answer.text())),
    );
    for text in texts {
        for secret in [KEY, LOGIN, CLIENT, ADMIN] {
            assert!(!text.contains(secret), "{secret} in:\n{text}");
        }
    }
}
