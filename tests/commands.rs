//! The commands as they are typed: what they print, how they end, and what they say when something is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use support::client;
use support::gate::{self, Finished, Program, Setup};
use support::shipped::{self, KEY, LOGIN, PATH};

const ROUTE: &str = "[upstreams.u]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\n";

/// Failed with 1 and these words on standard error, and printed nothing else; it never was a panic.
fn assert_failed(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word}\n{}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
}

/// What is wrong, where it stands (the helper's own lines come first), and what is said of it.
#[tokio::test]
async fn every_mistake_names_file_line_and_key() {
    let account = "account = \"a\"\n[upstreams.u.accounts.a]\n";
    for (added, words) in [
        ("[servr]\n".to_owned(), vec!["config.toml:13:2: servr: is not a key", "did you mean `server`?"]),
        (
            "[cache]\nmax_bytes = 5\n".to_owned(),
            vec!["config.toml:14:13: cache.max_bytes: ", "such as \"256MiB\""],
        ),
        (
            "[routes.cache]\nttl = \"30\"\n".to_owned(),
            vec!["config.toml:14:7: routes[r].cache.ttl: ", "no duration"],
        ),
        (
            format!("{account}quota = \"none\"\nheaders.k = {{ env = \"NOWHERE\" }}\n"),
            vec![
                "config.toml:16:21: upstreams.u.accounts.a.headers.k.env: ",
                "`NOWHERE` is not set",
                "\n 16 | headers.k = { env = \"NOWHERE\"\n    |                     ^^^^^^^^^",
            ],
        ),
        (
            format!("{account}quota = \"none\"\nheaders.k = {{ file = \"/nowhere/key\" }}\n"),
            vec![
                "config.toml:16:22: upstreams.u.accounts.a.headers.k.file: ",
                "/nowhere/key",
                "cannot be read",
                "\n 16 | headers.k = { file = \"/nowhere/key\"\n",
            ],
        ),
        (account.to_owned(), vec!["upstreams.u.accounts.a.quota: is missing", "your contract"]),
        (ROUTE.replace("[upstreams.u]\nurl = \"http://127.0.0.1:1\"\n", ""), vec!["\"r\""]),
        (
            "[[routes]]\nname = \"s\"\npath = \"/s\"\nupstream = \"v\"\n".to_owned(),
            vec!["config.toml:16:12: ", "\"v\""],
        ),
        ("[upstreams.v]\nurl = \"nonsense\"\n".to_owned(), vec!["config.toml:14:7: upstreams.v.url: "]),
        ("ttl = \n".to_owned(), vec!["config.toml:13:", "not TOML"]),
    ] {
        for command in ["serve", "check"] {
            let finished = Setup::new(format!("{ROUTE}{added}")).run(&[command]).await;
            assert_failed(&finished, &words);
        }
    }
}

#[tokio::test]
async fn several_mistakes_are_told_at_once() {
    let finished =
        Setup::new(format!("{ROUTE}[cache]\nmax_byts = 1\nmax_bytes = 2\n[log]\nformat = \"x\"\n"))
            .run(&["check"])
            .await;
    assert_failed(&finished, &["config.toml:14:", "config.toml:15:", "config.toml:17:"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    // The shipped configuration without its secrets.
    let finished = Setup::new(shipped::config("http://127.0.0.1:1")).run(&["serve"]).await;
    assert_failed(
        &finished,
        &["OCTOPUSH_API_KEY", "OCTOPUSH_API_LOGIN", "accounts.main.headers.api-key.env"],
    );
    // No configuration at all.
    for command in ["serve", "check"] {
        let finished = gate::run(&[command, "--config", "/nowhere/config.toml"]).await;
        assert_failed(&finished, &["/nowhere/config.toml: cannot be read", "--config FILE"]);
    }
}

#[tokio::test]
async fn an_address_in_use_is_told_and_nothing_is_half_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for (server, admin, key) in [(address, free(), "server.listen"), (free(), address, "admin.listen")] {
        let config = format!("[server]\nlisten = \"{server}\"\n[admin]\nlisten = \"{admin}\"\n{ROUTE}");
        std::fs::write(&path, config).unwrap();
        let finished = gate::run(&["serve", "--config", path.to_str().unwrap()]).await;
        assert_failed(&finished, &[key, &address.to_string(), "something else listens"]);
        assert!(!finished.stderr.contains("listening"), "{}", finished.stderr);
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn wrong_words_and_settings_are_refused() {
    for words in [&["serve", "--confg", "x"][..], &["nonsense"], &["explain"], &["demo", "--listen", "here"]]
    {
        let finished = gate::run(words).await;
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
        assert!(finished.stderr.contains("--help"), "{finished:?}");
    }
    let version = gate::run(&["--version"]).await;
    assert_eq!(version.stdout, concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = gate::run(&["--help"]).await;
    for command in ["serve", "check", "explain", "demo"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
    }
    let finished = Setup::new(ROUTE).env("TOLLGATE_LOG_FORMAT", "xml").run(&["serve"]).await;
    assert_failed(&finished, &["TOLLGATE_LOG_FORMAT", "`xml`", "`pretty` or `json`"]);
}

#[tokio::test]
async fn check_prints_the_whole_plan_and_no_secret() {
    let config = shipped::config("http://127.0.0.1:1")
        + "[clients.billing]\nkey = \"l1teral-key\"\n[upstreams.octopush.accounts.other]\nheaders.token = { file = \"{folder}/token\" }\nquota = [{ requests = 7, per = \"1m\" }]\n";
    let setup = || Setup::new(config.clone()).file("token", "f1le-token\n");
    let checked = shipped::with_secrets(setup()).run(&["check"]).await;
    assert!(checked.status.success(), "{checked:?}");
    for line in [
        "headers.api-key = { env = \"OCTOPUSH_API_KEY\" }  # set, masked",
        "key = \"***\"  # literal, masked",
        "drain_timeout = \"25s\"",
        "max_entry_bytes = \"8MiB\"",
        "stale_if_unreachable = \"30s\"",
        "methods = [\"GET\", \"HEAD\"]",
        "quota = \"none\"",
    ] {
        assert!(checked.stdout.lines().any(|printed| printed == line), "{line}\n{}", checked.stdout);
    }
    assert!(
        checked.stdout.contains("# warning: upstreams.octopush.accounts.main: quota = \"none\""),
        "{checked:?}"
    );
    for secret in [KEY, LOGIN, "l1teral-key", "f1le-token"] {
        assert!(!format!("{checked:?}").contains(secret), "{secret}");
    }

    // Without secrets the same, but for saying so.
    let unread = setup().run(&["check", "--without-secrets"]).await;
    assert!(unread.status.success() && unread.stdout.contains("secrets were not read"), "{unread:?}");
    assert!(
        unread.stdout.contains("headers.api-key = { env = \"OCTOPUSH_API_KEY\" }  # not read"),
        "{}",
        unread.stdout
    );
    assert!(!format!("{unread:?}").contains("l1teral-key"));
}

#[tokio::test]
async fn what_check_prints_is_a_configuration_that_means_the_same() {
    let first = Setup::new(shipped::config("http://127.0.0.1:1")).run(&["check", "--without-secrets"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, &first.stdout).unwrap();
    let second = gate::run(&["check", "--without-secrets", "--config", path.to_str().unwrap()]).await;
    // Warnings stand as comments, and a default that is written out may earn one of its own.
    let meant =
        |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(meant(&second.stdout), meant(&first.stdout), "{}", second.stderr);
}

#[tokio::test]
async fn explain_says_what_is_wrong_with_a_request() {
    let explain = async |request: &str| shipped::setup("http://127.0.0.1:1").run(&["explain", request]).await;
    assert_failed(&explain("conversations").await, &["does not begin with `/`"]);
    for (request, words) in [
        ("/nowhere", vec!["404 no-such-route", PATH]),
        (&format!("DELETE {PATH}"), vec!["405 method-not-allowed", "GET, HEAD"]),
        (
            &format!("{PATH}?page=x"),
            vec!["page: \"x\" → 1 (default)", "400 parameter-not-understood", "api-key, api-login"],
        ),
        (&format!("GET {PATH}?email=a b#c|é"), vec!["GET http://127.0.0.1:1/v1/public"]),
    ] {
        let finished = explain(request).await;
        assert!(finished.status.success(), "{finished:?}");
        for word in words {
            assert!(finished.stdout.contains(word), "{word}\n{}", finished.stdout);
        }
    }
}

/// The README's first command: what it prints is pasted into a shell, line by line.
#[tokio::test]
async fn every_line_of_the_demos_tour_does_what_it_promises() {
    const FREE: &str = "127.0.0.1:0";
    let mut demo = Program::start(&["demo", "--listen", FREE, "--admin", FREE, "--upstream", FREE]);
    let commands =
        demo.lines()
            .find("the tour", |lines| {
                lines.iter().any(|line| line.contains("/metrics")).then(|| {
                    lines.iter().filter(|line| line.starts_with("curl ")).cloned().collect::<Vec<_>>()
                })
            })
            .await;
    assert!(commands.len() >= 6, "{commands:?}");
    let mut seen = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let printed = shell(command).await;
        let has = |words: &str| assert!(printed.contains(words), "{command}\nlacks {words}:\n{printed}");
        let kind = if command.contains("Tollgate-Timeout") {
            let codes: Vec<&str> = printed.split_whitespace().collect();
            let count = |code: &str| codes.iter().filter(|printed| **printed == code).count();
            // On a machine too busy to answer within the header's time a 504 is the truth; it must not be the rule.
            assert_eq!(count("200") + count("429") + count("504"), 25, "{printed}");
            assert!(count("200") > count("504") && count("429") >= 10, "{printed}");
            "limit"
        } else if command.contains("/metrics") {
            has("tollgate_cache_results_total{result=\"hit\",route=\"conversation-messages\"}");
            has("tollgate_upstream_requests_total{account=\"main\",outcome=\"2xx\",upstream=\"octopush\"}");
            "metrics"
        } else if command.contains("/-/explain") {
            has("\"canonical\"");
            has("/v1/public/conversations/messages/list?page=1&per_page=100&phone_number=%2B33");
            "explanation"
        } else if command.contains("grep") {
            has("HTTP/1.1 200 OK");
            if at == 0 {
                has("cache-status: tollgate; fwd=uri-miss; fwd-status=200; stored");
                "miss"
            } else {
                has("cache-status: tollgate; hit; ttl=");
                has("age: ");
                if commands[..at].contains(command) {
                    assert!(!printed.contains("tollgate-understood"), "{printed}");
                    "hit"
                } else {
                    has("tollgate-understood: ");
                    if command.contains("=abc") {
                        has("page;from=\"abc\";rule=\"default\"");
                        "wrong parameter"
                    } else {
                        "variant"
                    }
                }
            }
        } else {
            let messages: serde_json::Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(messages.as_array().map(Vec::len), Some(2), "{printed}");
            "messages"
        };
        seen.push(kind);
    }
    for kind in ["miss", "hit", "variant", "wrong parameter", "explanation", "messages", "limit", "metrics"] {
        assert!(seen.contains(&kind), "the tour shows no {kind}: {seen:?}");
    }
    assert_eq!(demo.end("TERM").await.code(), Some(0));
    assert!(!demo.lines().contains("demo-key"), "{}", demo.lines().text());
}

async fn shell(command: &str) -> String {
    let command = command.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]);
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            shell.env_remove(proxy);
        }
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    });
    support::within("a command of the tour", running).await.unwrap()
}

#[tokio::test]
async fn a_demo_with_traffic_moves_the_metrics() {
    const FREE: &str = "127.0.0.1:0";
    let mut demo =
        Program::start(&["demo", "--traffic", "--listen", FREE, "--admin", FREE, "--upstream", FREE]);
    let admin = demo
        .lines()
        .find("the tour", |lines| {
            let line = lines.iter().find(|line| line.contains("/metrics"))?;
            line.split("http://").nth(1)?.split('/').next()?.parse::<SocketAddr>().ok()
        })
        .await;
    support::within("traffic", async {
        loop {
            let metrics = client::get(admin, "/metrics", &[]).await.text();
            let results = |result: &str| {
                gate::sample(&metrics, "tollgate_cache_results_total", &[&format!("result=\"{result}\"")])
            };
            if results("sliced") > 5.0
                && results("miss") > 2.0
                && gate::sample(&metrics, "tollgate_params_total", &[]) > 5.0
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(demo.end("INT").await.code(), Some(0));
}

#[tokio::test]
async fn a_demo_whose_ports_are_taken_says_the_way_out() {
    const FREE: &str = "127.0.0.1:0";
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--listen", "--admin", "--upstream"] {
        let mut words = vec!["demo"];
        for port in ["--listen", "--admin", "--upstream"] {
            words.extend([port, if port == option { &address } else { FREE }]);
        }
        let finished = gate::run(&words).await;
        assert_failed(&finished, &[&address, &format!("{option} 127.0.0.1:0")]);
    }
}
