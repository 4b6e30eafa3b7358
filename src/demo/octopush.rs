//! The simulated Octopush: one endpoint, strict about who asks and lenient about what is asked.
//!
//! It counts and remembers what it received, it can hold its answers back until a test has seen enough, and its
//! conversations go on while it runs. It knows nothing of the gate in front of it.
//!
//! ```no_run
//! # use tollgate::demo::{conversations::{Conversations, Size}, octopush::Octopush, settings::Settings};
//! # async fn example() -> std::io::Result<()> {
//! let octopush = Octopush::new(Settings::plain(), Conversations::generate(1, Size::default()));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! octopush.serve(listener, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

use std::error::Error;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::{BufMut, BytesMut};
use http::header::{ALLOW, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::asked::Asked;
use super::books::{Books, Present, lock};
pub use super::books::{REMEMBERED, Seen};
use super::conversations::Conversations;
use super::limit::{Enforcement, Place};
use super::reply::{Broken, Reply, json, problem};
use super::settings::{Counted, Failing, Failure, Order, Oversize, PastEnd, RetryAfter, Settings};

/// What the endpoints' paths begin with.
pub const BASE: &str = "/v1/public";
const LIST: &str = "/v1/public/conversations/messages/list";

/// The server. Every clone of its `Arc` is the same one.
#[derive(Debug)]
pub struct Octopush {
    settings: Mutex<Arc<Settings>>,
    conversations: Mutex<Conversations>,
    books: Mutex<Books>,
    /// Requests received: a channel, so that a test can wait for one to arrive.
    calls: watch::Sender<u64>,
    /// Whether answers are held back.
    held: watch::Sender<bool>,
}

impl Octopush {
    /// A server with these habits and conversations. It serves once [`Octopush::serve`] runs.
    #[must_use]
    pub fn new(settings: Settings, conversations: Conversations) -> Arc<Self> {
        Arc::new(Self {
            settings: Mutex::new(Arc::new(settings)),
            conversations: Mutex::new(conversations),
            books: Mutex::new(Books::new(0x0C70)),
            calls: watch::Sender::new(0),
            held: watch::Sender::new(false),
        })
    }

    /// Serves until `stop` resolves, then drops every connection, answered or not.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(Arc::clone(&self).converse(stream));
                    }
                    // Out of descriptors, most likely: some connection has to end first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
            }
        }
        connections.shutdown().await;
    }

    /// Changes the behaviour, from the next request on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut lock(&self.settings)));
    }

    /// Reads or changes the conversations; what happens inside happens between two answers.
    pub fn conversations<T>(&self, act: impl FnOnce(&mut Conversations) -> T) -> T {
        act(&mut lock(&self.conversations))
    }

    /// New messages arrive; their ids, newest first.
    pub fn arrive(&self, count: usize) -> Vec<String> {
        self.conversations(|conversations| conversations.arrive(count))
    }

    /// How many requests were received, whatever became of them.
    #[must_use]
    pub fn calls(&self) -> u64 {
        *self.calls.borrow()
    }

    /// Waits until so many requests were received since the start.
    pub async fn reached(&self, calls: u64) {
        // The sender lives as long as self, so there is no other way for this to end.
        let _ = self.calls.subscribe().wait_for(|&received| received >= calls).await;
    }

    /// From now on requests are received, counted and remembered, and not answered before [`Octopush::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Answers what was held back, and everything from now on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// How many calls went beyond the limit, over any sliding interval, refused or not.
    #[must_use]
    pub fn violations(&self) -> u64 {
        lock(&self.books).violations
    }

    /// How many calls were answered 429.
    #[must_use]
    pub fn refused(&self) -> u64 {
        lock(&self.books).refused
    }

    /// The most requests that were in progress at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        lock(&self.books).peak
    }

    /// The last [`REMEMBERED`] requests, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.books).seen.iter().cloned().collect()
    }

    async fn converse(self: Arc<Self>, stream: TcpStream) {
        // Answers are written whole: waiting to fill a packet only adds latency that nobody asked for.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request: Request<Incoming>| {
            let octopush = Arc::clone(&self);
            Box::pin(async move { octopush.answer(&request.into_parts().0).await })
        });
        let mut connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
        let broken = ended.err().and_then(|error| error.source()?.downcast_ref::<Broken>().copied());
        if broken == Some(Broken::Reset) {
            // Without lingering, closing a socket resets the connection.
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }

    async fn answer(&self, request: &Parts) -> Result<Response<Reply>, Broken> {
        let _present = Present::enter(&self.books, &self.calls, request);
        let settings = Arc::clone(&lock(&self.settings));
        if let Some(refusal) = refuse(request, &settings) {
            return Ok(refusal);
        }
        if settings.counted == Counted::OnArrival
            && let Some(refusal) = self.count(&settings)
        {
            return Ok(refusal);
        }
        let latency = self.latency(&settings);
        // A timer of zero still takes its millisecond.
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // The sender lives as long as self, so this ends when answers are released.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        if settings.counted == Counted::OnAnswer
            && let Some(refusal) = self.count(&settings)
        {
            return Ok(refusal);
        }
        match self.failure() {
            None => Ok(self.list(request, &settings)),
            Some(Failure::Status(code)) => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let reason = status.canonical_reason().unwrap_or("failed").to_ascii_lowercase();
                Ok(problem(status, &reason))
            }
            Some(Failure::Reset) => Err(Broken::Reset),
            Some(Failure::Hang) => std::future::pending().await,
            Some(Failure::Truncate) => {
                let mut response = self.list(request, &settings);
                response.body_mut().truncate();
                Ok(response)
            }
        }
    }

    /// Counts a call towards the limit; the refusal if it is beyond.
    fn count(&self, settings: &Settings) -> Option<Response<Reply>> {
        let limit = settings.limit?;
        let mut books = lock(&self.books);
        // Read under the lock: calls are counted in the order of their times.
        let (now, date) = clock();
        let Place::Beyond { wait } = books.window.count(limit, settings.enforcement, now) else {
            return None;
        };
        books.violations += 1;
        if settings.enforcement == Enforcement::CountOnly {
            return None;
        }
        books.refused += 1;
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        if let Some(value) = retry_after(&settings.retry_after, wait, date) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        Some(response)
    }

    fn latency(&self, settings: &Settings) -> Duration {
        let jitter = u64::try_from(settings.latency_jitter.as_micros()).unwrap_or(u64::MAX);
        settings.latency + Duration::from_micros(lock(&self.books).dice.below(jitter))
    }

    /// Whether this call fails, and how.
    fn failure(&self) -> Option<Failure> {
        let mut settings = lock(&self.settings);
        let mut books = lock(&self.books);
        books.admitted += 1;
        let fails = match settings.failing {
            Failing::Never | Failing::Next(0) => false,
            Failing::Every(nth) => books.admitted.is_multiple_of(nth),
            Failing::Percent(percent) => books.dice.chance(percent),
            Failing::Next(left) => {
                Arc::make_mut(&mut settings).failing = Failing::Next(left - 1);
                true
            }
        };
        fails.then_some(settings.failure)
    }

    fn list(&self, request: &Parts, settings: &Settings) -> Response<Reply> {
        let mut asked = Asked::read(request.uri.query().unwrap_or_default());
        if let Some(most) = settings.max_per_page.filter(|&most| asked.per_page > most) {
            match settings.oversize {
                Oversize::Clamp => asked.per_page = most.max(1),
                Oversize::Refuse => {
                    return problem(StatusCode::UNPROCESSABLE_ENTITY, "per_page is too large");
                }
            }
        }
        let conversations = lock(&self.conversations);
        let mut messages = conversations.find(&asked.filters);
        if settings.order == Order::OldestFirst {
            messages.reverse();
        }
        let last = messages.len().div_ceil(asked.per_page).max(1);
        if asked.page > last {
            match settings.past_end {
                PastEnd::Empty => {}
                PastEnd::LastPage => asked.page = last,
                PastEnd::NotFound => return problem(StatusCode::NOT_FOUND, "not found"),
                PastEnd::BadRequest => return problem(StatusCode::BAD_REQUEST, "invalid page number"),
            }
        }
        let start = (asked.page - 1).saturating_mul(asked.per_page);
        let mut array = BytesMut::with_capacity(64 * 1024);
        array.put_u8(b'[');
        for (place, message) in messages.iter().skip(start).take(asked.per_page).enumerate() {
            if place > 0 {
                array.put_u8(b',');
            }
            array.put_slice(&message.json);
        }
        array.put_u8(b']');
        json(StatusCode::OK, array.freeze())
    }
}

/// What is refused before it costs anything: another path, another method, other credentials.
fn refuse(request: &Parts, settings: &Settings) -> Option<Response<Reply>> {
    if request.uri.path() != LIST {
        return Some(problem(StatusCode::NOT_FOUND, "not found"));
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    // A header sent twice is nobody's: which of the two was checked, and which was meant?
    let is = |name: &str, expected: &str| {
        let mut values = request.headers.get_all(name).iter();
        values.next().is_some_and(|value| value == expected) && values.next().is_none()
    };
    let known = is("api-key", &settings.api_key) && is("api-login", &settings.api_login);
    (!known).then(|| problem(StatusCode::UNAUTHORIZED, "unauthorized"))
}

fn retry_after(habit: &RetryAfter, wait: Duration, now: SystemTime) -> Option<HeaderValue> {
    const SECOND: Duration = Duration::from_secs(1);
    match habit {
        RetryAfter::Seconds => Some(wait.as_millis().div_ceil(1_000).max(1).to_string()),
        RetryAfter::Date => Some(httpdate::fmt_http_date(now + wait + SECOND)),
        RetryAfter::Absent => None,
        RetryAfter::Text(text) => Some(text.clone()),
    }
    .and_then(|value| HeaderValue::try_from(value).ok())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a third party has its own clock; the gate's is none of its business"
)]
fn clock() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::super::conversations::Size;
    use super::super::limit::Limit;
    use super::*;

    const FIXED: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn retry_after_is_never_too_early() {
        for (wait, seconds, date) in [
            (0, "1", "Thu, 01 Jan 1970 00:00:01 GMT"),
            (1, "1", "Thu, 01 Jan 1970 00:00:01 GMT"),
            (1_000, "1", "Thu, 01 Jan 1970 00:00:02 GMT"),
            (1_001, "2", "Thu, 01 Jan 1970 00:00:02 GMT"),
        ] {
            let wait = Duration::from_millis(wait);
            let value = |habit| retry_after(&habit, wait, FIXED);
            assert_eq!(value(RetryAfter::Seconds), HeaderValue::from_str(seconds).ok());
            assert_eq!(value(RetryAfter::Date), HeaderValue::from_str(date).ok());
            assert_eq!(value(RetryAfter::Absent), None);
            assert_eq!(value(RetryAfter::Text("soon".to_owned())), Some(HeaderValue::from_static("soon")));
            assert_eq!(value(RetryAfter::Text("\n".to_owned())), None);
        }
    }

    fn request(method: Method, path: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = path.parse().unwrap_or_default();
        for (name, value) in headers {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    #[test]
    fn strict_about_who_asks() {
        const KEY: (&str, &str) = ("api-key", "demo-key");
        const LOGIN: (&str, &str) = ("api-login", "demo@example.com");
        for (method, path, headers, status) in [
            (Method::GET, LIST, vec![KEY, LOGIN], None),
            (Method::HEAD, LIST, vec![("accept", "*/*"), LOGIN, KEY], None),
            (Method::GET, LIST, vec![], Some(401)),
            (Method::GET, LIST, vec![KEY], Some(401)),
            (Method::GET, LIST, vec![LOGIN], Some(401)),
            (Method::GET, LIST, vec![KEY, KEY, LOGIN], Some(401)),
            (Method::GET, LIST, vec![KEY, LOGIN, ("api-login", "other@example.com")], Some(401)),
            (Method::GET, LIST, vec![("api-key", "demo-key, demo-key"), LOGIN], Some(401)),
            (Method::GET, LIST, vec![("api-key", "DEMO-KEY"), LOGIN], Some(401)),
            (Method::GET, LIST, vec![("api_key", "demo-key"), LOGIN], Some(401)),
            (Method::POST, LIST, vec![KEY, LOGIN], Some(405)),
            (Method::DELETE, LIST, vec![], Some(405)),
            (Method::GET, "/v1/public/conversations/messages/list/", vec![KEY, LOGIN], Some(404)),
            (Method::GET, "/conversations/messages/list", vec![KEY, LOGIN], Some(404)),
            (Method::POST, "/v1/public/wallet/check-balance", vec![KEY, LOGIN], Some(404)),
        ] {
            let refusal = refuse(&request(method.clone(), path, &headers), &Settings::default());
            let refused = refusal.map(|response| response.status().as_u16());
            assert_eq!(refused, status, "{method} {path} {headers:?}");
        }
    }

    #[test]
    fn refusals_are_counted_and_so_are_violations_nobody_refused() {
        let octopush =
            Octopush::new(Settings::default(), Conversations::generate(1, Size { contacts: 1, messages: 0 }));
        octopush.set(|settings| {
            settings.limit = Some(Limit { requests: 2, per: Duration::from_secs(3_600) });
        });
        let count = || {
            let settings = Arc::clone(&lock(&octopush.settings));
            octopush.count(&settings).map(|refusal| refusal.headers().get(RETRY_AFTER).cloned())
        };
        assert_eq!([count(), count()], [None, None]);
        assert_eq!(count(), Some(Some(HeaderValue::from_static("3600"))));
        octopush.set(|settings| settings.enforcement = Enforcement::CountOnly);
        assert_eq!(count(), None);
        assert_eq!((octopush.refused(), octopush.violations()), (1, 2));
    }

    #[test]
    fn failures_follow_their_plan() {
        let octopush =
            Octopush::new(Settings::plain(), Conversations::generate(1, Size { contacts: 1, messages: 0 }));
        let fails = |failing, calls: usize| {
            octopush.set(|settings| settings.failing = failing);
            (0..calls).map(|_| octopush.failure().is_some()).collect::<Vec<_>>()
        };
        assert_eq!(fails(Failing::Never, 2), [false, false]);
        assert_eq!(fails(Failing::Every(2), 4), [false, true, false, true]);
        assert_eq!(fails(Failing::Every(0), 1), [false]);
        assert_eq!(fails(Failing::Next(2), 3), [true, true, false]);
        assert_eq!(fails(Failing::Percent(100), 1), [true]);
        assert_eq!(fails(Failing::Percent(0), 1), [false]);
    }
}
