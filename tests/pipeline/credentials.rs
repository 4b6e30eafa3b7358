//! What the upstream sees and the client does not.

use crate::world::{Act, Config, World, all, ms, pass, reply, s, settle};

fn config() -> Config {
    Config {
        account: "quota = \"none\"\nheaders.x-login = { file = \"login\" }\nquery.token = { file = \"token\" }",
        route: "forward_headers = \"all\"",
        ..Config::default()
    }
}

/// `config` reads its secrets when it is loaded, so they are there from the start.
fn world(config: &Config) -> World {
    World::with_files(config, &[("login", "hunter2-login"), ("token", "hunter2 token")])
}

#[tokio::test(start_paused = true)]
async fn each_credential_is_there_once_whatever_the_client_sent() {
    let world = world(&config());
    let asks = [
        world.get("/r?a=1"),
        world.get("/r?a=1").with("x-key", "mine").with("x-key", "again").with("x-login", "me"),
        world.get("/r?a=1").with("X_KEY".to_lowercase().leak(), "mine"),
        world.get("/r?token=mine&a=1"),
        world.get("/r?%74oken=mine&a=1&TOKEN=x&tok%65n"),
        world.get("/r?a=1").with("connection", "x-key, x-login"),
    ];
    for (at, ask) in asks.into_iter().enumerate() {
        // No second answer from memory: the same question each time, so ask past its lifetime.
        pass(s(31)).await;
        assert_eq!(ask.send().await.status, 200);
        let heard = world.upstream.heard();
        assert_eq!(heard.len(), at + 1, "one question, however it is dressed");
        let heard = heard.last().unwrap();
        assert_eq!(heard.target, "/v1/r?a=1&token=hunter2%20token");
        assert_eq!(heard.headers.get_all("x-key").iter().collect::<Vec<_>>(), ["hunter2-key"]);
        assert_eq!(heard.headers.get_all("x-login").iter().collect::<Vec<_>>(), ["hunter2-login"]);
        assert_eq!(heard.headers.get("x_key"), None);
        assert!(heard.headers["x-key"].is_sensitive());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_echoes_them_tells_no_client() {
    let world = world(&config());
    world.upstream.plays(|heard| {
        reply(301, "moved")
            .with("location", format!("{}&b=2", heard.target))
            .with("x-debug", format!("key={}", heard.header("x-key").unwrap()))
            .with("link", "</r?token=hunter2+token>; rel=next")
            .with("x-other", "stays")
    });
    let got = world.get("/r?a=1").send().await;
    assert_eq!(got.header("location"), Some("/v1/r?a=1&b=2"));
    assert_eq!((got.header("x-debug"), got.header("x-other")), (None, Some("stays")));
    assert!(!format!("{got:?}").contains("hunter2"), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_is_read_again_and_the_call_made_once_more() {
    let world = world(&config());
    world.upstream.plays(|heard| match heard.header("x-key") {
        Some("hunter3-key") => reply(200, "well").after(ms(5)),
        _ => reply(401, "who?").after(ms(5)),
    });
    world.files.write("key", "hunter3-key\n");
    let got = all(world.crowd(8, "/r").await).await;
    assert!(got.iter().all(|got| got.text() == "well"));
    assert_eq!(world.calls(), 2);
    assert_eq!(world.get("/r?q=2").send().await.text(), "well", "the new one is kept");
    assert_eq!(world.calls(), 3);
    assert_eq!(world.metric("tollgate_account_paused", &[]), 0.0);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_secret_that_is_refused_too_is_tried_once_only() {
    let world = world(&config());
    world.upstream.plays(|_| reply(401, "who?"));
    world.files.write("key", "hunter3-key");
    let got = world.get("/r").send().await;
    assert_eq!((got.status, got.problem().as_str()), (502, "upstream-refused-credentials"));
    assert!(!format!("{got:?}").contains("hunter"), "{got:?}");
    assert_eq!(world.calls(), 2);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_body_is_not_sent_twice() {
    let world = world(&Config { route: "methods = [\"POST\"]", ..config() });
    world.upstream.plays(|_| reply(401, "who?"));
    world.files.write("key", "hunter3-key");
    assert_eq!(world.ask(http::Method::POST, "/r").body("x").send().await.status, 502);
    assert_eq!(world.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_again_stays_what_it_was() {
    let world = world(&config());
    world.files.remove("key");
    world.upstream.plays(|heard| if heard.n == 1 { reply(401, "") } else { reply(200, "well") });
    assert_eq!(world.get("/r").send().await.status, 502);
    assert_eq!(world.get("/r").send().await.text(), "well");
}

/// The story of an account whose credentials are wrong: two refusals, rest, one probe at a time, recovery.
#[tokio::test(start_paused = true)]
async fn two_refusals_rest_the_account_until_a_probe_is_accepted() {
    let world = world(&config());
    world.upstream.plays(|_| reply(401, "who?"));
    for q in ["/r?q=1", "/r?q=2"] {
        assert_eq!(world.get(q).send().await.status, 502);
    }
    assert_eq!(world.metric("tollgate_account_paused", &[]), 1.0);
    let resting = world.get("/r?q=3").send().await;
    assert_eq!((resting.status, resting.header("retry-after")), (502, Some("1")));
    assert!(resting.text().contains("\"upstream_called\":\"no\""), "{}", resting.text());
    assert_eq!(world.calls(), 2);
    // One probe, however many come.
    pass(s(1)).await;
    let crowd: Vec<_> = (0..5).map(|q| world.get(&format!("/r?q=1{q}")).start()).collect();
    assert!(all(crowd).await.iter().all(|got| got.status == 502));
    assert_eq!(world.calls(), 3);
    pass(s(2)).await;
    world.upstream.plays(|_| reply(200, "well"));
    assert_eq!(world.get("/r?q=4").send().await.text(), "well");
    assert_eq!(world.get("/r?q=5").send().await.text(), "well");
    assert_eq!(world.metric("tollgate_account_paused", &[]), 0.0);
    world.quiet().await;
}

/// Whoever waits in line when the account comes to rest is not sent: each would be one more refusal.
#[tokio::test(start_paused = true)]
async fn those_who_wait_in_line_rest_too() {
    let account = "quota = [{ requests = 1, per = \"1s\" }]\nmax_wait = \"20s\"";
    let world = world(&Config { account, ..config() });
    world.upstream.plays(|_| reply(401, "who?"));
    let crowd: Vec<_> = (0..8).map(|q| world.get(&format!("/r?q={q}")).start()).collect();
    settle().await;
    assert!(all(crowd).await.iter().all(|got| got.status == 502));
    assert!(world.calls() <= 3, "two refusals and at most one probe, not {}", world.calls());
    world.quiet().await;
}

/// A probe that could not be sent was none.
#[tokio::test(start_paused = true)]
async fn a_refused_place_in_line_is_no_probe() {
    let account = "quota = [{ requests = 2, per = \"60s\" }]\nmax_wait = \"1s\"";
    let world = world(&Config { account, ..config() });
    world.upstream.plays(|_| reply(401, "who?"));
    for q in ["/r?q=1", "/r?q=2"] {
        world.get(q).send().await;
    }
    pass(s(2)).await;
    for _ in 0..10 {
        assert_eq!(world.get("/r?q=3").send().await.problem(), "quota-exceeded");
    }
    pass(s(58)).await;
    world.upstream.plays(|_| Act::from(reply(200, "well")));
    assert_eq!(
        world.get("/r?q=4").send().await.text(),
        "well",
        "the probe was not used up by calls never sent"
    );
    world.quiet().await;
}
