//! Several accounts that see the same data: any of them pays.

use crate::world::{Config, World, pass, reply, s};

/// Accounts `a` and `b` of one pool, each with `quota`.
fn pool(quota: &str) -> World {
    let account = format!("quota = {quota}\nmax_wait = \"0s\"");
    let more = format!("[upstreams.u.accounts.b]\nheaders.x-key = \"hunter3-key\"\n{account}\n");
    World::new(&Config {
        upstream: "same_data = true",
        account: Box::leak(account.into()),
        more: Box::leak(more.into()),
        ..Config::default()
    })
}

fn keys(world: &World) -> Vec<String> {
    world.upstream.heard().iter().map(|heard| heard.header("x-key").unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_one_with_most_left_pays_and_the_answers_are_shared() {
    let world = pool("[{ requests = 3, per = \"10s\" }]");
    for q in 0..6 {
        assert_eq!(world.get(&format!("/r?q={q}")).send().await.status, 200);
        assert!(world.get(&format!("/r?q={q}")).send().await.cache().starts_with("hit"), "whoever paid");
    }
    let (a, b) = ("hunter2-key", "hunter3-key");
    assert_eq!(keys(&world), [a, b, a, b, a, b]);
    pass(s(4)).await;
    let refused = world.get("/r?q=9").send().await;
    assert_eq!(
        (refused.status, refused.problem().as_str(), refused.header("retry-after")),
        (429, "quota-exceeded", Some("6"))
    );
    pass(s(6)).await;
    assert_eq!(world.get("/r?q=9").send().await.status, 200);
    world.quiet().await;
}

/// A call that one account's limit sends away goes to another at once; when all are closed, clients are told the earliest
/// reopening.
#[tokio::test(start_paused = true)]
async fn a_closed_account_leaves_the_work_to_the_others() {
    let world = pool("\"none\"");
    world.upstream.plays(|heard| match (heard.header("x-key"), heard.n) {
        (Some("hunter2-key"), _) => reply(429, "").with("retry-after", "60"),
        (_, n) if n >= 6 => reply(429, "").with("retry-after", "20"),
        _ => reply(200, "x"),
    });
    for q in 0..4 {
        let got = world.get(&format!("/r?q={q}")).send().await;
        assert_eq!((got.status, got.took), (200, s(0)), "{q}");
    }
    assert_eq!(world.calls(), 5, "one was sent away");
    assert_eq!(world.get("/r?q=7").send().await.status, 429);
    pass(s(5)).await;
    let told = world.get("/r?q=8").send().await;
    assert_eq!((told.problem().as_str(), told.header("retry-after")), ("account-paused", Some("15")));
    assert_eq!(world.calls(), 6);
    world.quiet().await;
}
