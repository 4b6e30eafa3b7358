//! Parameters over the wire: spellings of one question are one entry and one call, what was done is told, strictness
//! refuses, and what is explained is what happens. The configuration is the shipped one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::client::{self, Client};
use support::gate::Setup;
use support::shipped::{self, KEY, LOGIN, PATH, cache_status, problem};
use support::upstream::{Reply, Upstream};

const SPELLED: &str = "per-page=20.0&PAGE=abc&phone_number=+33+6+12+34+56+78&utm_source=x&email=";
const CANONICAL: &str = "page=1&per_page=20&phone_number=%2B33612345678";
/// The block that holds what either asks for.
const BLOCK: &str = "page=1&per_page=100&phone_number=%2B33612345678";

async fn upstream() -> Upstream {
    // More than any window asked for here, so that nobody needs to know where a list ends.
    Upstream::start(|request| {
        let items: Vec<_> =
            (0..60).map(|at| format!("{{\"message_id\":{}}}", 60 * request.number + at)).collect();
        Reply::json(format!("[{}]", items.join(",")))
    })
    .await
}

/// The first promise of all: two spellings, one entry, one call, with both credentials and for nobody's eyes.
#[tokio::test]
async fn a_careless_spelling_and_the_canonical_one_are_one_entry_and_one_call() {
    for order in [[SPELLED, CANONICAL], [CANONICAL, SPELLED]] {
        let upstream = upstream().await;
        let gate = shipped::setup(&upstream.url()).start().await;
        let mut answers = Vec::new();
        for query in order {
            answers.push(gate.get(&format!("{PATH}?{query}"), &[]).await);
        }
        assert_eq!(answers[0].body, answers[1].body);
        assert_eq!(cache_status(&answers[0]), "tollgate; fwd=uri-miss; fwd-status=200; stored");
        assert!(cache_status(&answers[1]).starts_with("tollgate; hit; ttl="), "{answers:?}");

        let seen = upstream.requests();
        assert_eq!(seen.len(), 1, "one call");
        assert_eq!(seen[0].target, format!("/v1/public{PATH}?{BLOCK}"));
        assert_eq!(seen[0].headers.all("api-key"), [KEY]);
        assert_eq!(seen[0].headers.all("api-login"), [LOGIN]);
        assert_eq!(gate.metric("tollgate_cache_entries", &[]).await, 1.0, "one entry");
        for answer in &answers {
            assert!(answer.status == 200 && !answer.contains(KEY) && !answer.contains(LOGIN), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn every_answer_says_what_was_understood_and_names_nobody() {
    let upstream = upstream().await;
    let gate = shipped::setup(&upstream.url()).start().await;
    for (query, understood) in [
        (CANONICAL, None),
        (
            SPELLED,
            Some(
                "per_page;from=\"20.0\";rule=\"reformatted\", page;from=\"abc\";rule=\"default\", \
                 phone_number;rule=\"phone\", email;rule=\"ignored\", unknown;n=1",
            ),
        ),
        ("page=0&per_page=0", Some("page;from=\"0\";rule=\"clamped\", per_page;from=\"0\";rule=\"default\"")),
        ("email=Ann%20%3Cann@EXAMPLE.com%3E", Some("email;rule=\"email\"")),
        ("a=1&b=2&a=3", Some("unknown;n=3")),
        (
            "facebook_id=12&conversation_id=",
            Some("facebook_id;rule=\"prefixed\", conversation_id;rule=\"ignored\""),
        ),
    ] {
        // A miss and a hit say the same.
        for _ in 0..2 {
            let answer = gate.get(&format!("{PATH}?{query}"), &[]).await;
            assert_eq!(members(answer.header("tollgate-understood")), members(understood), "{query}");
        }
    }
    let params = |param: &str, rule: &str| [format!("param=\"{param}\""), format!("rule=\"{rule}\"")];
    for (param, rule, count) in [
        ("page", "default", 2.0),
        ("page", "clamped", 2.0),
        ("per_page", "reformatted", 2.0),
        ("phone_number", "phone", 2.0),
        ("email", "ignored", 2.0),
        ("unknown", "unknown", 4.0),
    ] {
        let labels = params(param, rule);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(gate.metric("tollgate_params_total", &labels).await, count, "{param} {rule}");
    }
}

/// The members of a list, in no order: which parameter is named first is nobody's business.
fn members(list: Option<&str>) -> Vec<&str> {
    let mut members: Vec<&str> = list.map(|list| list.split(", ").collect()).unwrap_or_default();
    members.sort_unstable();
    members
}

/// The parameter that is named, and the declared name nearest to it.
type Refused = (&'static str, Option<&'static str>);

/// What strict handling makes of queries: `None` where they pass.
const STRICT: [(&str, Option<Refused>); 10] = [
    ("page=1&per_page=20", None),
    ("PAGE=2.0&Per-Page=%2020&phone_number=+33+6+12+34+56+78", None),
    ("page=abc", Some(("page", None))),
    ("page=0", Some(("page", None))),
    ("page=1&page=2", Some(("page", None))),
    ("per_page=-5", Some(("per_page", None))),
    ("phone_number=nobody", Some(("phone_number", None))),
    ("email=", Some(("email", None))),
    ("emial=a@b.com", Some(("emial", Some("email")))),
    ("utm_source=x", Some(("utm_source", None))),
];

fn assert_refused(answer: &client::Answer, parameter: &str, nearest: Option<&str>) {
    let document = problem(answer, 400, "parameter-not-understood");
    assert_eq!(document["parameter"], parameter, "{document}");
    assert!(document["expected"].as_str().is_some_and(|expected| !expected.is_empty()), "{document}");
    assert_eq!(document.get("nearest").and_then(|nearest| nearest.as_str()), nearest, "{document}");
    assert_eq!((&document["fault"], &document["upstream_called"]), (&"client".into(), &"no".into()));
}

#[tokio::test]
async fn a_request_may_ask_to_be_refused_rather_than_guessed_at() {
    let upstream = upstream().await;
    let gate = shipped::setup(&upstream.url()).start().await;
    for (query, refused) in STRICT {
        let before = upstream.count();
        let answer = gate.get(&format!("{PATH}?{query}"), &[("Prefer", "handling=strict")]).await;
        match refused {
            None => assert_eq!(answer.status, 200, "{query}: {}", answer.text()),
            Some((parameter, nearest)) => {
                assert_refused(&answer, parameter, nearest);
                assert_eq!(upstream.count(), before, "{query}");
            }
        }
        // Lenient handling is the default, and stays so for others.
        let lenient = gate.get(&format!("{PATH}?{query}"), &[("Prefer", "handling=lenient")]).await;
        assert_eq!(lenient.status, 200, "{query}: {}", lenient.text());
    }
}

#[tokio::test]
async fn a_client_may_be_strict_by_declaration() {
    let upstream = upstream().await;
    let config = shipped::config(&upstream.url())
        + "[clients.careful]\nkey = { env = \"CAREFUL\" }\nstrict = true\n[clients.easy]\nkey = { env = \"EASY\" }\n";
    let gate = shipped::with_secrets(Setup::new(config))
        .env("CAREFUL", "careful-client")
        .env("EASY", "easy-client")
        .start()
        .await;
    for (query, refused) in STRICT {
        let target = format!("{PATH}?{query}");
        let careful = gate.get(&target, &[("Authorization", "Bearer careful-client")]).await;
        match refused {
            None => assert_eq!(careful.status, 200, "{query}: {}", careful.text()),
            Some((parameter, nearest)) => assert_refused(&careful, parameter, nearest),
        }
        let easy = gate.get(&target, &[("X-Tollgate-Key", "easy-client")]).await;
        assert_eq!(easy.status, 200, "{query}: {}", easy.text());
        let strict = [("X-Tollgate-Key", "easy-client"), ("Prefer", "handling=strict")];
        assert_eq!(gate.get(&target, &strict).await.status == 400, refused.is_some(), "{query}");
    }
    assert!(upstream.requests().iter().all(|request| !request.contains("-client")), "a client's key left");
    let unknown = gate.get(PATH, &[]).await;
    problem(&unknown, 401, "client-unknown");
    assert!(unknown.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer")));
}

#[tokio::test]
async fn a_parameter_may_refuse_by_itself() {
    let upstream = upstream().await;
    let config = shipped::config(&upstream.url())
        .replace("email = \"email\"", "email = { type = \"email\", on_ignored = \"refuse\" }");
    let gate = shipped::with_secrets(Setup::new(config)).start().await;
    assert_refused(&gate.get(&format!("{PATH}?email=nobody&page=abc"), &[]).await, "email", None);
    assert_refused(&gate.get(&format!("{PATH}?email="), &[]).await, "email", None);
    // An ignored filter of another name, an unknown one and a repaired one pass as ever.
    for query in ["phone_number=nobody", "utm_source=x", "Email=%20ann@example.com", ""] {
        assert_eq!(gate.get(&format!("{PATH}?{query}"), &[]).await.status, 200, "{query}");
    }
}

/// The command, the operators' page and the clients' page explain requests; then each is made.
#[tokio::test]
async fn what_is_explained_is_what_the_upstream_receives() {
    let upstream = upstream().await;
    let gate = shipped::setup(&upstream.url()).start().await;
    let mut client = Client::connect(gate.addr()).await;
    for query in [
        "",
        CANONICAL,
        SPELLED,
        "contact=fid_7,+33612345678;ANN@Example.com&contact=fid_7",
        "conversation_id=CID_0F8FAD5BD9CB469FA16570867728950E&api-key=mine",
        "page=1e0&per_page=0x10&facebook_id=8",
        "email=a%2Bb%25@example.com&page=%zz",
    ] {
        let target = format!("{PATH}?{query}");
        let asked = format!("GET {target}");
        let escaped: String = asked.bytes().map(|byte| format!("%{byte:02X}")).collect();

        let by_command = shipped::setup(&upstream.url()).run(&["explain", "--json", &asked]).await;
        assert!(by_command.status.success(), "{by_command:?}");
        let by_command: serde_json::Value = serde_json::from_str(&by_command.stdout).unwrap();
        let by_admin = gate.ask_admin("GET", &format!("/explain?request={escaped}")).await.json();
        let by_gate = client.get(&format!("/-/explain?request={escaped}"), &[]).await.json();
        let before = upstream.count();
        let answer = client.get(&target, &[]).await;
        assert_eq!(answer.status, 200, "{query}");
        let seen = upstream.requests().split_off(before);
        // Only a question that was asked before under another spelling costs nothing.
        let Some(seen) = seen.first() else {
            assert!(cache_status(&answer).contains("hit"), "{query}");
            continue;
        };
        let line = format!("GET {}{}", upstream.url(), seen.target);
        assert_eq!(by_command["upstream_request"]["line"], line, "{query}");
        assert_eq!(by_admin, by_command, "{query}");
        assert_eq!(by_gate["upstream_request"]["line"], format!("GET {}", seen.target), "{query}");
        assert_eq!(by_gate["key"], by_admin["key"], "{query}");
        assert_eq!(
            by_admin["upstream_request"]["credentials"]["headers"],
            serde_json::json!(["api-key", "api-login"])
        );
        assert!(
            by_gate["upstream_request"].get("credentials").is_none(),
            "clients learn no credential's name"
        );
        for explanation in [by_command, by_gate] {
            let text = explanation.to_string();
            assert!(!text.contains(KEY) && !text.contains(LOGIN), "{text}");
        }
    }
    // Explaining spends nothing, and is refused in words where there is nothing to explain.
    let spent = upstream.count();
    assert_eq!(client.get("/-/explain", &[]).await.status, 400);
    assert_eq!(gate.ask_admin("GET", "/explain").await.status, 400);
    assert_eq!(upstream.count(), spent);
}

#[tokio::test]
async fn an_explanation_at_a_terminal_has_one_fact_a_line() {
    let upstream = upstream().await;
    let finished = shipped::setup(&upstream.url()).run(&["explain", &format!("GET {PATH}?{SPELLED}")]).await;
    assert!(finished.status.success(), "{finished:?}");
    for line in [
        "route                    conversation-messages",
        "  page: \"abc\" → 1 (default)",
        "  per_page: \"20.0\" → 20 (reformatted)",
        "  phone_number: \" 33 6 12 34 56 78\" → +33612345678 (phone)",
        "  email: \"\" → left out (ignored)",
    ] {
        assert!(finished.stdout.lines().any(|printed| printed == line), "{line}\n{}", finished.stdout);
    }
}

/// Undeclared names are dropped from key and call, or pass where the route says so.
#[tokio::test]
async fn unknown_names_are_dropped_or_passed_as_the_route_says() {
    let upstream = upstream().await;
    let passing =
        shipped::config(&upstream.url()).replace("[routes.params]", "unknown = \"pass\"\n[routes.params]");
    let gate = shipped::with_secrets(Setup::new(passing)).start().await;
    for (query, sent) in [
        ("utm_source=x&page=2&per_page=20", "page=1&per_page=100&utm_source=x"),
        ("z=1&a=2&PAGE=2&per_page=20", "page=1&per_page=100&a=2&z=1"),
    ] {
        let before = upstream.count();
        gate.get(&format!("{PATH}?{query}"), &[]).await;
        assert_eq!(upstream.requests()[before].query(), sent);
    }
    let gate = shipped::setup(&upstream.url()).start().await;
    let before = upstream.count();
    for query in ["utm_source=x", "utm_source=y&gclid=1", ""] {
        gate.get(&format!("{PATH}?{query}"), &[]).await;
    }
    let seen = upstream.requests().split_off(before);
    assert_eq!(seen.iter().map(|request| request.query()).collect::<Vec<_>>(), ["page=1&per_page=100"]);
}
