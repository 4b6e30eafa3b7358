//! One call for everyone who asks the same.

use tokio::task::JoinHandle;

use crate::world::{Act, Config, Latch, World, all, ms, pass, reply, s, settle};

#[tokio::test(start_paused = true)]
async fn sixty_four_clients_cause_one_call() {
    let world = World::new(&Config::default());
    world.upstream.plays(|_| reply(200, "one").after(ms(100)));
    let got = all(world.crowd(64, "/r?q=1").await).await;
    assert_eq!(world.calls(), 1);
    assert!(got.iter().all(|got| got.status == 200 && got.text() == "one"));
    let collapsed =
        got.iter().filter(|got| got.cache() == "fwd=uri-miss; fwd-status=200; stored; collapsed").count();
    assert_eq!(collapsed, 63);
    // What the call took is part of its age (RFC 9111 §4.2.3).
    assert_eq!(world.get("/r?q=1").send().await.cache(), "hit; ttl=29");
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_client_leaves_and_the_others_are_answered() {
    let world = World::new(&Config::default());
    let latch = Latch::new();
    let held = latch.clone();
    world.upstream.plays(move |_| reply(200, "one").held_by(&held));
    let mut crowd = world.crowd(8, "/r").await;
    crowd.remove(0).abort();
    settle().await;
    latch.open();
    assert!(all(crowd).await.iter().all(|got| got.text() == "one"));
    assert_eq!(world.calls(), 1);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn every_client_leaves_and_the_answer_is_kept() {
    let world = World::new(&Config::default());
    world.upstream.plays(|_| reply(200, "one").after(s(1)));
    for one in world.crowd(8, "/r").await {
        one.abort();
    }
    world.quiet().await;
    assert_eq!(world.get("/r").send().await.cache(), "hit; ttl=29");
    assert_eq!(world.calls(), 1);
    assert_eq!(world.metric("tollgate_requests_total", &["code=\"499\""]), 8.0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_everyone_once_and_remembered_by_nobody() {
    for (act, status, problem) in [
        (Act::Unreachable(ms(50)), 502, Some("upstream-unreachable")),
        (Act::Timeout(s(1)), 504, Some("upstream-timeout")),
        (Act::Broken, 502, Some("upstream-broken")),
        (Act::Panic, 500, Some("internal")),
        (reply(500, "sorry").after(ms(10)).into(), 500, None),
        (reply(503, "sorry").with("retry-after", "7").after(ms(10)).into(), 503, None),
        (reply(429, "slow down").with("retry-after", "7").after(ms(10)).into(), 429, None),
        (reply(401, "who?").after(ms(10)).into(), 502, Some("upstream-refused-credentials")),
    ] {
        let world = World::new(&Config::default());
        let played = act.clone();
        world
            .upstream
            .plays(move |heard| if heard.n == 1 { played.clone() } else { reply(200, "well").into() });
        let got = all(world.crowd(16, "/r").await).await;
        assert_eq!(world.calls(), 1, "{act:?}");
        for got in got {
            assert_eq!(got.status, status, "{act:?}");
            match problem {
                Some(problem) => assert_eq!(got.problem(), problem),
                None => assert_ne!(got.header("content-type"), Some("application/problem+json")),
            }
            assert_eq!(got.header("retry-after").is_some(), matches!(status, 429 | 503), "{act:?}");
        }
        world.quiet().await;
        // As long as the upstream asked not to be asked.
        pass(s(7)).await;
        let after = world.get("/r").send().await;
        assert_eq!((after.status, after.text(), world.calls()), (200, "well", 2), "{act:?}");
        world.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_goes_to_its_own_client_and_the_others_go_at_once() {
    let world = World::new(&Config::default());
    let latch = Latch::new();
    let held = latch.clone();
    world.upstream.plays(move |heard| {
        let reply = reply(200, format!("#{}", heard.n)).with("cache-control", "no-store").after(s(1));
        if heard.n == 1 { reply.held_by(&held) } else { reply }
    });
    let crowd = world.crowd(8, "/r").await;
    assert_eq!(world.calls(), 1);
    pass(s(2)).await;
    latch.open();
    settle().await;
    assert_eq!(world.calls(), 8, "all at once, not one after the other");
    let mut bodies: Vec<_> = all(crowd).await.iter().map(|got| got.text().to_owned()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 8, "nobody got another's answer");
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_is_dropped_if_its_client_has_left() {
    let world = World::new(&Config::default());
    world.upstream.plays(|_| reply(200, "mine").with("cache-control", "private").after(s(1)));
    let first = world.get("/r").start();
    settle().await;
    let second = world.get("/r").start();
    settle().await;
    first.abort();
    assert_eq!(second.await.unwrap().text(), "mine");
    assert_eq!(world.calls(), 2);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_no_longer_than_it_said_and_its_flight_goes_on() {
    let world = World::new(&Config::default());
    world.upstream.plays(|_| reply(200, "late").after(s(5)));
    let hasty = world.get("/r").with("tollgate-timeout", "1").start();
    let patient = world.get("/r").start();
    let hasty = hasty.await.unwrap();
    assert_eq!((hasty.status, hasty.problem(), hasty.took), (504, "client-timeout".into(), s(1)));
    let patient = patient.await.unwrap();
    assert_eq!((patient.text(), patient.took), ("late", s(5)));
    assert_eq!(world.calls(), 1);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_gave_up_waiting_does_not_speak_for_a_patient_passenger() {
    let config = Config {
        account: "quota = [{ requests = 1, per = \"3s\" }]\nmax_wait = \"20s\"",
        ..Config::default()
    };
    let world = World::new(&config);
    world.get("/r?q=first").send().await;
    pass(s(1)).await;
    // The pilot's patience cannot reach the next slot, in 2 s; the passenger's can.
    let slow = world.get("/r?q=slow").start();
    settle().await;
    let hasty = world.get("/r").with("tollgate-timeout", "4").start();
    settle().await;
    let patient = world.get("/r").start();
    settle().await;
    let hasty = hasty.await.unwrap();
    assert_eq!((hasty.status, hasty.problem().as_str()), (429, "quota-exceeded"), "{hasty:?}");
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!(patient.await.unwrap().status, 200);
    assert_eq!(world.calls(), 3);
    world.quiet().await;
}

/// One client's empty purse is no news to another.
#[tokio::test(start_paused = true)]
async fn a_pilot_over_its_own_budget_does_not_speak_for_a_passenger_within_its_own() {
    let config = Config {
        account: "quota = [{ requests = 1, per = \"1s\" }]",
        more: "[clients.poor]\nkey = \"poor-key-0123456789\"\nbudget = { requests = 1, per = \"1h\" }\n\
               [clients.rich]\nkey = \"rich-key-0123456789\"\n",
        ..Config::default()
    };
    let world = World::new(&config);
    let ask = |target: &str, key: &str| world.get(target).with("x-tollgate-key", key);
    assert_eq!(ask("/r?q=1", "poor-key-0123456789").send().await.status, 200);
    // It waits for the account, and learns of its own budget only then.
    let poor = ask("/r?q=2", "poor-key-0123456789").start();
    settle().await;
    let rich = ask("/r?q=2", "rich-key-0123456789").start();
    settle().await;
    let poor = poor.await.unwrap();
    assert_eq!((poor.status, poor.problem().as_str()), (429, "budget-spent"));
    assert_eq!(rich.await.unwrap().status, 200);
    assert_eq!(world.calls(), 2);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_refused_at_once() {
    let world = World::tweaked(&Config::default(), |stages| stages.flight.max_waiters = 3);
    world.upstream.plays(|_| reply(200, "one").after(s(1)));
    let crowd = world.crowd(3, "/r").await;
    let refused = world.get("/r").send().await;
    assert_eq!((refused.status, refused.problem(), refused.took), (503, "overloaded".into(), s(0)));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Who leaves makes room.
    crowd[1].abort();
    settle().await;
    let fourth = world.get("/r").start();
    assert_eq!(fourth.await.unwrap().text(), "one");
    assert_eq!(world.calls(), 1);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn passengers_whose_fields_select_another_answer_fetch_for_themselves() {
    let world = World::new(&Config::default());
    world.upstream.plays(|heard| {
        let language = heard.header("accept-language").unwrap_or("none").to_owned();
        reply(200, language).with("vary", "accept-language").after(s(1))
    });
    let ask = |language: &str| world.get("/r").with("accept-language", language).start();
    let crowd: Vec<_> = ["fr", "fr", "de", "de"].map(ask).into();
    let got = all(crowd).await;
    assert_eq!(got.iter().map(|got| got.text()).collect::<Vec<_>>(), ["fr", "fr", "de", "de"]);
    assert_eq!(world.calls(), 2, "one for those who fit, one for those who do not");
    for language in ["fr", "de"] {
        let again = world.get("/r").with("accept-language", language).send().await;
        assert_eq!((again.text(), again.cache().starts_with("hit")), (language, true));
    }
    world.quiet().await;
}

/// RFC 9110 §5.3: several lines of a field are one list, so the second line selects as much as the first does.
#[tokio::test(start_paused = true)]
async fn every_line_of_a_field_selects() {
    let world = World::new(&Config::default());
    world.upstream.plays(|heard| {
        let lines = heard.headers.get_all("accept").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
        reply(200, lines.join(", ")).with("vary", "accept")
    });
    let ask =
        |lines: &[&str]| lines.iter().fold(world.get("/r"), |ask, line| ask.with("accept", line)).send();
    assert_eq!(ask(&["a/a", "b/b"]).await.text(), "a/a, b/b");
    assert_eq!(ask(&["a/a", "c/c"]).await.text(), "a/a, c/c");
    assert_eq!(ask(&["a/a"]).await.text(), "a/a");
    assert!(ask(&["a/a, b/b"]).await.cache().starts_with("hit"), "the same list in one line");
    assert_eq!(world.calls(), 3);
}

/// Between a client's look at the store and its look at the flights, somebody else's flight may land.
#[tokio::test(start_paused = true)]
async fn what_lands_between_the_two_looks_is_found() {
    let world =
        World::new(&Config { cache: "ttl = \"30s\"\nstale_while_revalidate = \"60s\"", ..Config::default() });
    world.upstream.plays(|heard| reply(200, format!("#{}", heard.n)).after(s(1)));
    let crowd = world.crowd(2, "/r").await;
    pass(ms(1)).await;
    // Whoever asks at the very moment of the landing finds a flight, or its entry; never neither.
    let late: Vec<_> = (0..50)
        .map(|at| {
            let ask = world.get("/r");
            tokio::spawn(async move {
                tokio::time::sleep(ms(999)).await;
                for _ in 0..at {
                    tokio::task::yield_now().await;
                }
                ask.send().await
            })
        })
        .collect();
    assert!(all(crowd).await.iter().chain(&all(late).await).all(|got| got.text() == "#1"));
    assert_eq!(world.calls(), 1);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_a_call_of_its_own_harms_nobody_else() {
    let world = World::new(&Config { route: "methods = [\"GET\", \"POST\"]", ..Config::default() });
    world.upstream.plays(|heard| match heard.n {
        1 => Act::Panic,
        _ => reply(200, "well").into(),
    });
    let posted = world.ask(http::Method::POST, "/r").body("x").start();
    assert!(posted.await.is_err(), "the listener catches it and answers 500");
    world.quiet().await;
    assert_eq!(world.metric("tollgate_requests_total", &["code=\"500\""]), 1.0);
    assert_eq!(world.get("/r").send().await.text(), "well");
    world.quiet().await;
}

/// The key of a flight names the variant, once it is known that there are several.
#[tokio::test(start_paused = true)]
async fn variants_that_are_known_fly_beside_each_other() {
    let world = World::new(&Config::default());
    world.upstream.plays(|heard| {
        let language = heard.header("accept-language").unwrap_or("none").to_owned();
        reply(200, language).with("vary", "accept-language").after(s(1))
    });
    world.get("/r").with("accept-language", "fr").send().await;
    pass(s(30)).await;
    let ask = |language: &str| world.get("/r").with("accept-language", language).start();
    let got = all(["fr", "de", "DE", "de", "it"].map(ask).into()).await;
    assert_eq!(got.iter().map(|got| got.text()).collect::<Vec<_>>(), ["fr", "de", "de", "de", "it"]);
    assert!(got.iter().all(|got| got.took == s(1)), "nobody waited for another's variant: {got:?}");
    assert_eq!(world.calls(), 4);
    world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_sent_is_called_back_when_nobody_waits_for_it() {
    let config = Config {
        account: "quota = [{ requests = 1, per = \"10s\" }]\nmax_wait = \"20s\"",
        upstream: "timeout = \"30s\"",
        ..Config::default()
    };
    let world = World::new(&config);
    world.get("/r?q=first").send().await;
    let mut crowd = world.crowd(3, "/r?q=second").await;
    let last = crowd.pop().unwrap();
    crowd.iter().for_each(JoinHandle::abort);
    pass(s(1)).await;
    assert_eq!(world.metric("tollgate_flights_active", &[]), 1.0, "one still waits");
    last.abort();
    settle().await;
    assert_eq!(world.metric("tollgate_flights_active", &[]), 0.0);
    world.quiet().await;
    pass(s(20)).await;
    assert_eq!(world.calls(), 1, "the slot was not spent for nobody");
    assert_eq!(world.get("/r?q=second").send().await.text(), "/v1/r?q=second #2");
    world.quiet().await;
}

/// Whoever asks after a purge is not answered by a call that began before it; whoever asked before it is.
#[tokio::test(start_paused = true)]
async fn a_purge_voids_the_flights_that_began_before_it() {
    for by_group in [false, true] {
        let world = World::new(&Config::default());
        world
            .upstream
            .plays(|heard| reply(200, format!("#{}", heard.n)).with("cache-groups", "\"g\"").after(s(2)));
        let before = world.crowd(2, "/r").await;
        pass(s(1)).await;
        assert_eq!(world.purge(if by_group { "group=g" } else { "request=GET /r" }), 0);
        pass(ms(1)).await;
        let after = world.crowd(2, "/r").await;
        assert!(all(before).await.iter().all(|got| got.text() == "#1"));
        let after = all(after).await;
        assert!(after.iter().all(|got| got.text() == "#2"), "{by_group} {after:?}");
        assert_eq!(world.calls(), 2);
        assert_eq!(world.get("/r").send().await.text(), "#2");
        world.quiet().await;
    }
}

/// Fields that are for the first requester alone leave an entry for the others: they do not each call.
#[tokio::test(start_paused = true)]
async fn what_is_stored_without_some_fields_answers_those_who_waited() {
    let world = World::new(&Config { cache: "", ..Config::default() });
    world.upstream.plays(|_| {
        let reply = reply(200, "one").with("cache-control", "max-age=60, private=\"x-own\"");
        reply.with("x-own", "1").after(s(1))
    });
    let got = all(world.crowd(8, "/r").await).await;
    assert_eq!(world.calls(), 1);
    assert_eq!(got.iter().filter(|got| got.header("x-own").is_some()).count(), 1);
    assert!(got.iter().all(|got| got.text() == "one"));
    world.quiet().await;
}
