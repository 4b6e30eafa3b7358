//! The simulated Octopush over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::conversations::{Conversations, Size};
use super::octopush::Octopush;
use super::settings::{Failing, Failure, Limit, Order, Oversize, PastEnd, Settings};
use super::traffic::{Service, Traffic};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const MESSAGES: usize = 230;

/// A server on a port of its own; dropping the tasks ends it.
async fn start(settings: Settings) -> std::io::Result<(Arc<Octopush>, SocketAddr, JoinSet<()>)> {
    let conversations = Conversations::generate(5, Size { contacts: 20, messages: MESSAGES });
    let octopush = Octopush::new(settings, conversations);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&octopush).serve(listener, std::future::pending()));
    Ok((octopush, address, tasks))
}

const CREDENTIALS: &str = "api-key: demo-key\r\napi-login: demo@example.com\r\n";

fn head(query: &str, headers: &str) -> String {
    format!("GET /v1/public/conversations/messages/list?{query} HTTP/1.1\r\nhost: octopush\r\n{headers}\r\n")
}

/// Sends a request on a connection of its own and reads until the server closes it: the head, and the body.
async fn exchange(address: SocketAddr, request: &str) -> std::io::Result<(String, String)> {
    let request = request.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}

/// The ids of a page.
async fn ids(address: SocketAddr, query: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let (_, body) = exchange(address, &head(query, CREDENTIALS)).await?;
    let items: Vec<Value> = serde_json::from_str(&body)?;
    Ok(items.iter().filter_map(|item| item["message_id"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_page_is_an_array_with_no_word_on_caching() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    let (answered, body) = exchange(address, &head("", CREDENTIALS)).await?;
    assert!(answered.starts_with("HTTP/1.1 200 OK\r\n"), "{answered}");
    let mut names: Vec<&str> =
        answered.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["connection", "content-length", "content-type", "date"]);
    assert!(answered.contains("content-type: application/json; charset=utf-8"));
    assert_eq!(serde_json::from_str::<Vec<Value>>(&body)?.len(), 50);

    let seen = octopush.seen();
    assert_eq!((octopush.calls(), seen.len()), (1, 1));
    assert_eq!(
        (seen[0].path.as_str(), seen[0].query.as_str()),
        ("/v1/public/conversations/messages/list", "")
    );
    assert_eq!(seen[0].headers["api-key"], "demo-key");
    Ok(())
}

#[tokio::test]
async fn pages_follow_each_other_and_arrivals_shift_them() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    let mut all = Vec::new();
    for page in 1..=3 {
        all.extend(ids(address, &format!("per_page=100&page={page}")).await?);
    }
    assert_eq!(all.len(), MESSAGES);
    assert_eq!(ids(address, "per_page=7.0&page=3abc").await?, all[14..21]);

    let arrived = octopush.arrive(2);
    assert_eq!(ids(address, "per_page=5").await?, [&arrived[..], &all[..3]].concat());
    octopush.set(|settings| settings.order = Order::OldestFirst);
    all.reverse();
    assert_eq!(ids(address, "per_page=5").await?, all[..5]);
    Ok(())
}

#[tokio::test]
async fn past_the_end_and_past_the_largest_size() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    let last = ids(address, "page=5").await?;
    assert_eq!(last.len(), 30);
    let answer = async |query: &str| exchange(address, &head(query, CREDENTIALS)).await;
    for (habit, status, body) in [
        (PastEnd::Empty, "200", Some("[]")),
        (PastEnd::NotFound, "404", Some(r#"{"code":404,"message":"not found"}"#)),
        (PastEnd::BadRequest, "400", Some(r#"{"code":400,"message":"invalid page number"}"#)),
        (PastEnd::LastPage, "200", None),
    ] {
        octopush.set(|settings| settings.past_end = habit);
        let (answered, got) = answer("page=6").await?;
        assert_eq!(answered.get(9..12), Some(status), "{habit:?}");
        match body {
            Some(body) => assert_eq!(got, body, "{habit:?}"),
            None => assert_eq!(ids(address, "page=6").await?, last),
        }
        // An empty list has a first page whatever the habit.
        assert_eq!(answer("phone_number=%2B33199009999").await?.1, "[]");
    }

    octopush.set(|settings| settings.max_per_page = Some(30));
    assert_eq!(ids(address, "per_page=500").await?.len(), 30);
    octopush.set(|settings| settings.oversize = Oversize::Refuse);
    assert!(answer("per_page=31").await?.0.starts_with("HTTP/1.1 422 "));
    assert_eq!(ids(address, "per_page=30").await?.len(), 30);
    Ok(())
}

#[tokio::test]
async fn strangers_and_spendthrifts_are_refused() -> Outcome {
    let limit = Limit { requests: 2, per: Duration::from_secs(600) };
    let (octopush, address, _tasks) = start(Settings { limit: Some(limit), ..Settings::plain() }).await?;
    let (answered, body) = exchange(address, &head("", "api-key: demo-key\r\n")).await?;
    assert!(answered.starts_with("HTTP/1.1 401 "));
    assert_eq!(body, r#"{"code":401,"message":"unauthorized"}"#);

    // The stranger took no room.
    assert_eq!(ids(address, "per_page=1").await?.len(), 1);
    assert_eq!(ids(address, "per_page=1").await?.len(), 1);
    let (answered, body) = exchange(address, &head("", CREDENTIALS)).await?;
    assert!(answered.starts_with("HTTP/1.1 429 ") && answered.contains("\r\nretry-after: 600"), "{answered}");
    assert_eq!(body, r#"{"code":429,"message":"too many requests"}"#);
    assert_eq!((octopush.calls(), octopush.refused(), octopush.violations()), (4, 1, 1));
    Ok(())
}

#[tokio::test]
async fn every_way_to_fail() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    let fail = |failure| {
        octopush.set(|settings| {
            settings.failing = Failing::Next(1);
            settings.failure = failure;
        });
    };

    fail(Failure::Status(503));
    let (answered, body) = exchange(address, &head("", CREDENTIALS)).await?;
    assert!(answered.starts_with("HTTP/1.1 503 "));
    assert_eq!(body, r#"{"code":503,"message":"service unavailable"}"#);

    fail(Failure::Reset);
    let reset = exchange(address, &head("", CREDENTIALS)).await;
    assert_eq!(reset.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));

    fail(Failure::Truncate);
    let (answered, body) = exchange(address, &head("", CREDENTIALS)).await?;
    let declared =
        answered.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or_default();
    assert_eq!(declared.parse::<usize>()? / 2, body.len());

    // Every call, since there is no telling when this one is far enough to be the next.
    octopush.set(|settings| (settings.failing, settings.failure) = (Failing::Every(1), Failure::Hang));
    let request = head("", CREDENTIALS);
    let hung = tokio::time::timeout(Duration::from_millis(50), exchange(address, &request)).await;
    assert!(hung.is_err());
    octopush.set(|settings| settings.failing = Failing::Never);
    assert_eq!(ids(address, "").await?.len(), 50);
    Ok(())
}

#[tokio::test]
async fn a_test_can_hold_answers_until_it_has_seen_enough() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    octopush.hold();
    let mut callers = JoinSet::new();
    for _ in 0..3 {
        callers.spawn(async move { exchange(address, &head("", CREDENTIALS)).await.is_ok() });
    }
    octopush.reached(3).await;
    assert!(callers.try_join_next().is_none());
    let arrived = octopush.arrive(1);
    octopush.release();
    assert_eq!(callers.join_all().await, [true; 3]);
    assert_eq!(octopush.peak(), 3);
    assert_eq!(ids(address, "per_page=1").await?, arrived);
    Ok(())
}

#[tokio::test]
async fn a_connection_carries_several_requests_and_ends_with_the_server() -> Outcome {
    let octopush =
        Octopush::new(Settings::plain(), Conversations::generate(5, Size { contacts: 1, messages: 0 }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&octopush).serve(listener, async {
        let _ = stopped.await;
    }));
    for _ in 0..2 {
        stream.write_all(head("", CREDENTIALS).as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n[]") {
            assert_ne!(stream.read_buf(&mut answer).await?, 0, "closed too early");
        }
    }
    drop(stop);
    tasks.join_next().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(octopush.calls(), 2);
    Ok(())
}

/// Without a gate in between the services meet a path that does not exist: enough to see that they call.
#[tokio::test]
async fn traffic_flows_until_it_is_stopped() -> Outcome {
    let (octopush, address, _tasks) = start(Settings::plain()).await?;
    let contacts = octopush.conversations(|conversations| conversations.contacts().to_vec());
    let mut services = Service::all();
    for service in &mut services {
        service.think = Duration::from_millis(2);
        service.headers.insert("x-tollgate-key", http::HeaderValue::from_static("a-key"));
    }
    let traffic = Traffic { gate: address, services, contacts, seed: 3 };
    let tally = traffic.play(octopush.reached(60)).await;
    let answered = tally.by_status.get(&404).copied().unwrap_or(0);
    assert!(tally.requests >= 60 && answered >= 50 && tally.unanswered == 0, "{tally:?}");
    assert_eq!(tally.by_status.len(), 1, "{tally:?}");

    let seen = octopush.seen();
    for service in Service::all() {
        let of_service = |seen: &&super::octopush::Seen| seen.headers["user-agent"] == service.name;
        assert!(seen.iter().any(|seen| of_service(&seen)), "{} never called", service.name);
    }
    assert!(
        seen.iter()
            .all(|seen| seen.path == super::traffic::PATH && seen.headers["x-tollgate-key"] == "a-key")
    );
    Ok(())
}
