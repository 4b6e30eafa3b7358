//! Who of those that share an account is served when: weights, classes, leaving, coming back.

use std::sync::Arc;
use std::time::Duration;

use tollgate::model::Moment;

use crate::world::{Config, World, ms, pass, reply, s, settle};

const KEY: &str = "x-tollgate-key";

/// An account of 20 calls a second that clients `c0`, `c1` … of these weights share, the last `batch` of them in no hurry.
fn shared(weights: &[u32], batch: usize, account: &'static str) -> Arc<World> {
    let clients = weights.iter().enumerate().map(|(n, weight)| {
        let priority = if n + batch < weights.len() { "interactive" } else { "batch" };
        format!("[clients.c{n}]\nkey = \"{}\"\nweight = {weight}\npriority = \"{priority}\"\n", key(n))
    });
    let more: String = clients.collect();
    Arc::new(World::new(&Config {
        account,
        cache: "enabled = false",
        more: Box::leak(more.into()),
        ..Config::default()
    }))
}

fn key(n: usize) -> String {
    format!("key-of-client-{n:08}")
}

/// What one of several loops of a client lived through: how long each of its answered requests waited, and for each
/// refusal whether it was served when it came back as told, and when it was told to.
#[derive(Default)]
struct Lived {
    waits: Vec<Duration>,
    came_back: Vec<(bool, Duration)>,
}

/// Asks again and again until `end`, after `pause` each time; whoever is refused comes back when told to.
async fn lives(world: Arc<World>, client: usize, at: usize, pause: Duration, end: Moment) -> Lived {
    let (mut lived, mut n, mut told) = (Lived::default(), 0, None);
    while world.now() < end {
        let target = format!("/r?q={client}.{at}.{n}");
        let got = world.get(&target).with(KEY, &key(client)).with("tollgate-timeout", "30").send().await;
        if let Some(told) = told.take() {
            lived.came_back.push((got.status == 200, told));
        }
        if got.status == 200 {
            lived.waits.push(got.took);
            n += 1;
            tokio::time::sleep(pause).await;
        } else {
            assert_eq!(got.status, 429, "{}", got.text());
            let wait = s(got.header("retry-after").expect("when to come back").parse().expect("seconds"));
            told = Some(wait);
            tokio::time::sleep(wait).await;
        }
    }
    lived
}

fn jain(shares: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) =
        shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

/// Ten clients ask for three times what there is: each has its share by weight, all of it is used, and no interval holds
/// more.
#[tokio::test(start_paused = true)]
async fn clients_share_a_contended_account_by_weight() {
    let weights = [1, 1, 2, 2, 3, 1, 1, 2, 2, 5];
    let world = shared(&weights, 0, "quota = [{ requests = 20, per = \"1s\" }]\nmax_wait = \"30s\"");
    world.upstream.plays(|_| reply(200, "x").after(ms(20)));
    let end = world.now() + s(110);
    let loops = (0..10).flat_map(|client| (0..6).map(move |at| (client, at)));
    let living: Vec<_> = loops
        .map(|(client, at)| (client, tokio::spawn(lives(world.clone(), client, at, ms(0), end))))
        .collect();
    let mut served = [0usize; 10];
    for (client, lived) in living {
        served[client] += lived.await.unwrap().waits.len();
    }
    let shares: Vec<f64> =
        served.iter().zip(weights).map(|(served, weight)| *served as f64 / f64::from(weight)).collect();
    assert!(shares.iter().all(|share| *share >= 100.0), "{shares:?}");
    assert!(jain(&shares) >= 0.995, "{} {shares:?}", jain(&shares));
    let mut sent: Vec<Moment> = world.upstream.heard().iter().map(|heard| heard.at).collect();
    sent.sort();
    assert!(sent.windows(21).all(|run| run[20].since(run[0]) >= s(1)));
    let used = sent.len() as f64 / (20.0 * sent.last().unwrap().since(sent[0]).as_secs_f64());
    assert!(used >= 0.97, "{used}");
    world.quiet().await;
}

/// A quiet client in a hurry waits no longer than two grants, whatever a noisy one in none does.
#[tokio::test(start_paused = true)]
async fn a_quiet_interactive_client_hardly_waits_beside_a_noisy_batch() {
    for (loops, pause) in [(60, 0), (30, 1500), (9, 700)] {
        let world = Arc::new(World::new(&Config {
            account: "quota = [{ requests = 10, per = \"1s\" }]",
            cache: "enabled = false",
            more: "[clients.quiet]\nkey = \"key-of-client-00000000\"\n\
                   [clients.noisy]\nkey = \"key-of-client-00000001\"\npriority = \"batch\"\nweight = 1000\n",
            ..Config::default()
        }));
        world.upstream.plays(|_| reply(200, "x").after(ms(20)));
        let end = world.now() + s(60);
        let noisy: Vec<_> =
            (0..loops).map(|at| tokio::spawn(lives(world.clone(), 1, at, ms(pause), end))).collect();
        pass(ms(1020)).await;
        let quiet = lives(world.clone(), 0, 0, ms(730), end).await;
        let mut waits: Vec<_> = quiet.waits.iter().map(|took| *took - ms(20)).collect();
        waits.sort();
        let p99 = waits[waits.len() * 99 / 100];
        assert!(waits.len() > 60 && p99 <= ms(200), "{loops} {pause}: p99 {p99:?} of {}", waits.len());
        for one in noisy {
            one.await.unwrap();
        }
        world.quiet().await;
    }
}

/// Whoever was sent away and obeys is served when it comes back, however much heavier or more urgent the others are; and is not
/// told to come back later than needed.
#[tokio::test(start_paused = true)]
async fn whoever_comes_back_when_told_is_served() {
    // Three batch clients share two calls a second, of which three come within their patience.
    for (weights, batch, percent, median) in [
        ([1; 10], 0, 99, 3),
        ([1, 1, 2, 2, 3, 1, 1, 2, 2, 5], 0, 99, 4),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0, 99, 3),
        ([5, 2, 2, 2, 3, 1, 1, 1, 2, 1], 3, 96, 4),
    ] {
        let world = shared(&weights, batch, "quota = [{ requests = 20, per = \"1s\" }]\nmax_wait = \"1s\"");
        world.upstream.plays(|_| reply(200, "x").after(ms(20)));
        let end = world.now() + s(60);
        let loops = (0..10).flat_map(|client| (0..6).map(move |at| (client, at)));
        let living: Vec<_> =
            loops.map(|(client, at)| tokio::spawn(lives(world.clone(), client, at, ms(0), end))).collect();
        let mut came_back = Vec::new();
        for lived in living {
            came_back.extend(lived.await.unwrap().came_back);
        }
        let served = came_back.iter().filter(|(served, _)| *served).count();
        assert!(came_back.len() > 100, "{}", came_back.len());
        assert!(served * 100 >= came_back.len() * percent, "{weights:?}: {served} of {}", came_back.len());
        // Sixty loops for twenty slots a second: not told to come back in ten.
        let mut told: Vec<_> = came_back.iter().map(|(_, told)| *told).collect();
        told.sort();
        assert!(told[told.len() / 2] <= s(median), "{weights:?}: {:?}", told[told.len() / 2]);
        assert!(world.calls() as f64 >= 0.97 * 20.0 * 60.0 - 20.0, "{weights:?}: {}", world.calls());
        world.quiet().await;
    }
}

/// Who lets itself be sent away and comes back gets no more than who waits.
#[tokio::test(start_paused = true)]
async fn nobody_gains_a_share_by_being_sent_away() {
    let world = shared(&[1, 1], 0, "quota = [{ requests = 20, per = \"1s\" }]\nmax_wait = \"10s\"");
    world.upstream.plays(|_| reply(200, "x").after(ms(20)));
    let end = world.now() + s(60);
    let patient: Vec<_> = (0..40).map(|at| tokio::spawn(lives(world.clone(), 0, at, ms(0), end))).collect();
    let hasty: Vec<_> = (0..400)
        .map(|at| {
            let world = world.clone();
            tokio::spawn(async move {
                let (mut served, mut n) = (0, 0);
                while world.now() < end {
                    n += 1;
                    // Two questions, each twice: as it was told to the first time, and with another in between.
                    let target = format!("/r?q=hasty.{at}.{}", n / 2);
                    let got =
                        world.get(&target).with(KEY, &key(1)).with("tollgate-timeout", "0.3").send().await;
                    served += usize::from(got.status == 200);
                    let wait = got.header("retry-after").map_or(0, |wait| wait.parse().expect("seconds"));
                    tokio::time::sleep(s(wait.min(2))).await;
                }
                served
            })
        })
        .collect();
    let (mut of_patient, mut of_hasty) = (0, 0);
    for one in patient {
        of_patient += one.await.unwrap().waits.len();
    }
    for one in hasty {
        of_hasty += one.await.unwrap();
    }
    assert!(of_patient + 20 >= of_hasty, "{of_patient} and {of_hasty}");
    assert!(of_patient + of_hasty >= 1130, "{of_patient} and {of_hasty}");
    world.quiet().await;
}

/// A refresh that nobody waits for queues behind everybody, until somebody wants what it brings.
#[tokio::test(start_paused = true)]
async fn whoever_joins_a_queued_call_raises_it() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 1, per = \"10s\" }]\nmax_wait = \"100s\"",
        cache: "ttl = \"10s\"\nstale_while_revalidate = \"15s\"",
        ..Config::default()
    });
    world.get("/r?q=held").send().await;
    pass(s(21)).await;
    // A slot is taken, then a refresh waits, and behind it a stranger.
    let ask = |q: &str| world.get(&format!("/r?q={q}")).with("tollgate-timeout", "100").start();
    world.get("/r?q=first").send().await;
    assert_eq!(world.get("/r?q=held").send().await.cache(), "hit; ttl=-11; detail=revalidating");
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &["class=\"refresh\""]), 1.0);
    let stranger = ask("stranger");
    pass(s(5)).await;
    // Too old to be given now: this client waits for the refresh, which came before the stranger.
    let wants = ask("held");
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &["class=\"interactive\""]), 2.0);
    let (wants, stranger) = (wants.await.unwrap(), stranger.await.unwrap());
    assert_eq!((wants.status, wants.took, stranger.status), (200, s(5), 200));
    let order: Vec<_> = world.upstream.heard().iter().map(|heard| heard.target.clone()).collect();
    assert_eq!(order, ["/v1/r?q=held", "/v1/r?q=first", "/v1/r?q=held", "/v1/r?q=stranger"]);
    world.quiet().await;
}

/// A queued call waits as long as the most patient of those who want it, and no longer than anybody does.
#[tokio::test(start_paused = true)]
async fn a_queued_call_is_as_patient_as_its_passengers() {
    let world = World::new(&Config {
        account: "quota = [{ requests = 1, per = \"10s\" }]\nmax_wait = \"100s\"",
        cache: "ttl = \"30s\"",
        ..Config::default()
    });
    world.get("/r?q=1").send().await;
    pass(s(1)).await;
    let pilot = world.get("/r?q=2").with("tollgate-timeout", "9.5").start();
    settle().await;
    let passenger = world.get("/r?q=2").with("tollgate-timeout", "60").start();
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &[]), 1.0, "one call for both");
    assert_eq!((pilot.await.unwrap().took, passenger.await.unwrap().took), (s(9), s(9)));
    // Everybody leaves: nothing is spent.
    let crowd = world.crowd(5, "/r?q=3").await;
    let crowd: Vec<_> =
        crowd.into_iter().chain([world.get("/r?q=3").with("tollgate-timeout", "60").start()]).collect();
    settle().await;
    for one in &crowd {
        one.abort();
    }
    settle().await;
    assert_eq!(world.metric("tollgate_queue_length", &[]), 0.0);
    pass(s(20)).await;
    assert_eq!(world.calls(), 2);
    world.quiet().await;
}
