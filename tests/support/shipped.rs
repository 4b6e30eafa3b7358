//! The configuration that is shipped, as it stands, but for where it listens and whom it calls.

use super::client::Answer;
use super::gate::Setup;

pub const PATH: &str = "/conversations/messages/list";
pub const KEY: &str = "k3y-of-the-account";
pub const LOGIN: &str = "login@account.example";

/// The shipped text without its listeners, its upstream being at `url`.
pub fn config(url: &str) -> String {
    let mut text = include_str!("../../config.toml").to_owned();
    for (shipped, instead) in [
        ("[server]\nlisten = \"127.0.0.1:8080\"\n", ""),
        ("[admin]\nlisten = \"127.0.0.1:9090\"\n", ""),
        ("https://api.octopush.com", url),
    ] {
        assert!(text.contains(shipped), "config.toml no longer says {shipped:?}");
        text = text.replacen(shipped, instead, 1);
    }
    text
}

/// The same, but that each window is a question of its own: for what is about questions, calls and limits.
pub fn whole(url: &str) -> String {
    let text = config(url);
    let pages = text.find("[routes.pages]").expect("config.toml has pages");
    text[..pages].to_owned()
}

/// A gate with that, its two secrets in the environment.
pub fn setup(url: &str) -> Setup {
    with_secrets(Setup::new(config(url)))
}

pub fn with_secrets(setup: Setup) -> Setup {
    setup.env("OCTOPUSH_API_KEY", KEY).env("OCTOPUSH_API_LOGIN", LOGIN)
}

/// What `Cache-Status` says.
pub fn cache_status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

/// Asserts that `answer` is the problem `kind` with this status, and returns its document.
pub fn problem(answer: &Answer, status: u16, kind: &str) -> serde_json::Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let document = answer.json();
    assert_eq!(document["type"], format!("urn:tollgate:problem:{kind}"), "{document}");
    assert_eq!(document["status"], status, "{document}");
    let id = answer.header("x-request-id").expect("every answer has an id");
    assert_eq!(document["instance"], format!("urn:tollgate:request:{id}"), "{document}");
    document
}
