//! A gate without sockets: the whole pipeline from a short configuration, an upstream that plays a script, clients
//! that send and see plain values.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::task::JoinHandle;
use tollgate::config::plan::Plan;
use tollgate::config::{Environment, load};
use tollgate::lasting::Lasting;
use tollgate::model::cache_status::CacheStatus;
use tollgate::model::exchange::{Answer, Arrival, Content, Known, Notes, Passed, RequestId, Signed, Timing};
use tollgate::model::fault::Called;
use tollgate::model::{Body, BodyError, Fault, FaultKind, Moment};
use tollgate::pipeline::{Stages, pipeline};
use tollgate::provision::provision;
use tollgate::purge::Purge;
use tollgate::stages::Stage;
use tollgate::stages::observe::{Reported, Respond};
use tollgate::stages::steps::OwnPages;
use tollgate::state::clock::Clock;
use tollgate::state::grant::Grant;

/// Seconds.
pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The date at which every world begins: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) const DATE: Duration = Duration::from_secs(784_111_777);

// ---- the configuration -------------------------------------------------------------------------------------------

/// One upstream `u`, one account `a`, one route `r` at `/r`; each field holds further lines of its table.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) upstream: &'static str,
    pub(crate) account: &'static str,
    pub(crate) route: &'static str,
    pub(crate) cache: &'static str,
    /// Whole further tables.
    pub(crate) more: &'static str,
}

impl Default for Config {
    fn default() -> Self {
        Self { upstream: "", account: "quota = \"none\"", route: "", cache: "ttl = \"30s\"", more: "" }
    }
}

impl Config {
    fn to_toml(&self) -> String {
        let Self { upstream, account, route, cache, more } = self;
        // Where all accounts see the same data, the route names none.
        let pays = if upstream.contains("same_data") { "" } else { "account = \"a\"" };
        let ceiling = if upstream.contains("max_concurrent") { "" } else { "max_concurrent = 1000" };
        format!(
            "[upstreams.u]\nurl = \"http://upstream.test/v1\"\n{ceiling}\n{upstream}\n\
             [upstreams.u.accounts.a]\nheaders.x-key = {{ file = \"key\" }}\n{account}\n\
             [[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\n{pays}\n{route}\n\
             [routes.cache]\n{cache}\n{more}\n"
        )
    }
}

/// The files a configuration may read; a test may change them.
#[derive(Default)]
pub(crate) struct Files(Mutex<HashMap<String, String>>);

impl Files {
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.0.lock().unwrap().insert(name.into(), text.into());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }
}

impl Environment for Files {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
        let files = self.0.lock().unwrap();
        let text = path.to_str().and_then(|name| files.get(name));
        text.map(|text| text.clone().into_bytes()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

struct NoPages;

impl OwnPages for NoPages {
    fn answer(&self, _: &Known) -> Option<Result<Answer, Fault>> {
        None
    }
}

// ---- the upstream ------------------------------------------------------------------------------------------------

/// What the upstream received.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// When it was sent.
    pub(crate) at: Moment,
    /// Which call it is, from 1.
    pub(crate) n: usize,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Opens once, for everybody.
#[derive(Debug, Clone)]
pub(crate) struct Latch(Arc<tokio::sync::Semaphore>);

impl Latch {
    pub(crate) fn new() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        let _ = self.0.acquire().await;
    }
}

/// What the upstream does about a call.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Reply(Reply),
    /// No connection is made, after so long.
    Unreachable(Duration),
    /// The gate gives up after so long.
    Timeout(Duration),
    /// The connection breaks before an answer.
    Broken,
    Panic,
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) pieces: Vec<Result<Bytes, BodyError>>,
    /// Until the head.
    pub(crate) latency: Duration,
    /// Until the body, after the head.
    pub(crate) body_latency: Duration,
    /// The head waits for it.
    pub(crate) latch: Option<Latch>,
}

pub(crate) fn reply(status: u16, body: impl Into<String>) -> Reply {
    let body = Bytes::from(body.into());
    Reply {
        status,
        headers: Vec::new(),
        pieces: if body.is_empty() { Vec::new() } else { vec![Ok(body)] },
        latency: Duration::ZERO,
        body_latency: Duration::ZERO,
        latch: None,
    }
}

impl Reply {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn after(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    pub(crate) fn held_by(mut self, latch: &Latch) -> Self {
        self.latch = Some(latch.clone());
        self
    }

    /// The body breaks off after what it has.
    pub(crate) fn cut(mut self, error: BodyError) -> Self {
        self.pieces.push(Err(error));
        self
    }
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

type Play = Box<dyn Fn(&Heard) -> Act + Send + Sync>;

/// The innermost stage: records what it receives and does as its play says.
pub(crate) struct Upstream {
    clock: Clock,
    heard: Mutex<Vec<Heard>>,
    play: Mutex<Play>,
}

impl Upstream {
    pub(crate) fn plays<A: Into<Act>>(&self, play: impl Fn(&Heard) -> A + Send + Sync + 'static) {
        *self.play.lock().unwrap() = Box::new(move |heard| play(heard).into());
    }

    pub(crate) fn calls(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn hear(&self, signed: &Signed<Grant>) -> Act {
        let mut all = self.heard.lock().unwrap();
        let heard = Heard {
            method: signed.method.clone(),
            target: String::from_utf8(signed.target.expose().to_vec()).unwrap(),
            headers: signed.headers.clone(),
            at: self.clock.now(),
            n: all.len() + 1,
        };
        all.push(heard.clone());
        drop(all);
        (self.play.lock().unwrap())(&heard)
    }
}

impl Stage<Signed<Grant>> for Upstream {
    async fn call(&self, signed: Signed<Grant>) -> Result<Answer, Fault> {
        let act = self.hear(&signed);
        let Signed { why, mut grant, .. } = signed;
        let sent = self.clock.now();
        grant.sent();
        let reply = match act {
            Act::Reply(reply) => reply,
            Act::Unreachable(after) => {
                tokio::time::sleep(after).await;
                grant.unsent();
                return Err(FaultKind::UpstreamUnreachable.into());
            }
            Act::Timeout(after) => {
                tokio::time::sleep(after).await;
                return Err(Fault::new(FaultKind::UpstreamTimeout).called(Called::Maybe));
            }
            Act::Broken => return Err(Fault::new(FaultKind::UpstreamBroken).called(Called::Maybe)),
            Act::Panic => panic!("the script says so"),
        };
        if !reply.latency.is_zero() {
            tokio::time::sleep(reply.latency).await;
        }
        if let Some(latch) = &reply.latch {
            latch.pass().await;
        }
        grant.answered();
        let arrived = self.clock.now();
        let mut headers = HeaderMap::new();
        for (name, value) in &reply.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let body = if reply.pieces.is_empty() {
            Body::Empty
        } else {
            Body::stream(Pieces {
                pieces: reply.pieces.into_iter().collect(),
                pause: Some(Box::pin(tokio::time::sleep(reply.body_latency))),
                _grant: grant,
            })
        };
        Ok(Answer {
            content: Content::Passed(Box::new(Passed {
                status: StatusCode::from_u16(reply.status).unwrap(),
                headers,
                body,
                arrived,
            })),
            cache: CacheStatus::Forwarded { why, status: reply.status, stored: false, collapsed: false },
            timing: Timing { wait: Duration::ZERO, upstream: Some(arrived.since(sent)) },
        })
    }
}

/// A body in pieces that holds its call's place until it ends.
struct Pieces {
    pieces: std::collections::VecDeque<Result<Bytes, BodyError>>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    _grant: Grant,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        Poll::Ready(self.pieces.pop_front().map(|piece| piece.map(Frame::data)))
    }
}

// ---- the gate ----------------------------------------------------------------------------------------------------

type Answering = Pin<Box<dyn Future<Output = Response<Reported>> + Send>>;
type Gate = Arc<dyn Fn(Box<Arrival>) -> Answering + Send + Sync>;

/// A gate, its upstream, and what both stand on.
pub(crate) struct World {
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) files: Arc<Files>,
    /// As it was begun with.
    plan: Plan,
    gate: Mutex<Gate>,
}

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        Self::tweaked(config, |_| {})
    }

    /// A world with these files beside `key`.
    pub(crate) fn with_files(config: &Config, more: &[(&str, &str)]) -> Self {
        let files = Files::default();
        more.iter().for_each(|(name, text)| files.write(name, text));
        Self::of(config, files, |_| {})
    }

    /// A world some of whose stages are given something else than `provision` would give them.
    pub(crate) fn tweaked(config: &Config, tweak: impl FnOnce(&mut Stages)) -> Self {
        Self::of(config, Files::default(), tweak)
    }

    fn of(config: &Config, files: Files, tweak: impl FnOnce(&mut Stages)) -> Self {
        let files = Arc::new(files);
        files.write("key", "hunter2-key");
        let plan =
            load(&config.to_toml(), "test.toml", files.as_ref()).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut lasting = Lasting::new(&plan).unwrap();
        lasting.clock = Clock::dated(SystemTime::UNIX_EPOCH + DATE);
        let upstream = Arc::new(Upstream {
            clock: lasting.clock.clone(),
            heard: Mutex::default(),
            play: Mutex::new(Box::new(|heard| reply(200, format!("{} #{}", heard.target, heard.n)).into())),
        });
        let lasting = Arc::new(lasting);
        let gate = Mutex::new(build(config, &lasting, &files, &upstream, tweak));
        Self { lasting, upstream, files, plan, gate }
    }

    /// What `POST /purge?QUERY` does; how many entries it was.
    pub(crate) fn purge(&self, query: &str) -> usize {
        Purge::of(&self.plan, query).unwrap().run(&self.lasting.store, self.now())
    }

    /// What a reload does: another plan around what lasts.
    pub(crate) fn reload(&self, config: &Config) {
        *self.gate.lock().unwrap() = build(config, &self.lasting, &self.files, &self.upstream, |_| {});
    }

    pub(crate) fn get(&self, target: &str) -> Ask {
        self.ask(Method::GET, target)
    }

    pub(crate) fn ask(&self, method: Method, target: &str) -> Ask {
        let arrival = Arrival {
            method,
            uri: target.parse().unwrap(),
            headers: HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("gate"))]),
            body: Body::Empty,
            certificate: None,
            version: http::Version::HTTP_11,
            peer: "127.0.0.1:1".parse().unwrap(),
            at: self.lasting.clock.now(),
            notes: Notes::new(RequestId::Given(HeaderValue::from_static("id"))),
            interim: None,
        };
        let lasting = self.lasting.clone();
        Ask { gate: self.gate.lock().unwrap().clone(), lasting, arrival: Box::new(arrival) }
    }

    /// `count` clients that ask the same at once, in this order.
    pub(crate) async fn crowd(&self, count: usize, target: &str) -> Vec<JoinHandle<Got>> {
        let crowd = (0..count).map(|_| self.get(target).start()).collect();
        settle().await;
        crowd
    }

    pub(crate) fn now(&self) -> Moment {
        self.lasting.clock.now()
    }

    pub(crate) fn calls(&self) -> usize {
        self.upstream.calls()
    }

    /// The sum of all metrics called `name` whose labels hold every one of `labels`, such as `code="200"`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.lasting.refresh();
        let text = String::from_utf8(self.lasting.metrics.to_text()).unwrap();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// How many requests were counted.
    pub(crate) fn counted(&self) -> f64 {
        self.metric("tollgate_requests_total", &[])
    }

    /// Waits until no task is left; then nothing may be held any longer.
    pub(crate) async fn quiet(&self) {
        tokio::time::timeout(s(3600), self.lasting.tasks.idle()).await.expect("every task ends");
        settle().await;
        for gauge in
            ["tollgate_flights_active", "tollgate_permits", "tollgate_tasks", "tollgate_queue_length"]
        {
            assert_eq!(self.metric(gauge, &[]), 0.0, "{gauge}");
        }
        assert_eq!(self.lasting.arriving.bytes(), 0, "bytes of bodies that arrive");
    }
}

fn build(
    config: &Config,
    lasting: &Arc<Lasting>,
    files: &Arc<Files>,
    upstream: &Arc<Upstream>,
    tweak: impl FnOnce(&mut Stages),
) -> Gate {
    let plan = load(&config.to_toml(), "test.toml", files.as_ref()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let environment: Arc<dyn Environment> = files.clone();
    let (mut stages, _) = provision(&plan, lasting, Arc::new(NoPages), &environment).unwrap();
    tweak(&mut stages);
    let way = Arc::new(pipeline(stages, upstream.clone()));
    Arc::new(move |arrival| {
        let way = way.clone();
        Box::pin(async move { way.respond(arrival).await })
    })
}

/// Lets every task run that can.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Moves the time on, and lets run what that wakes.
pub(crate) async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
    settle().await;
}

// ---- the clients -------------------------------------------------------------------------------------------------

/// A request about to be sent.
pub(crate) struct Ask {
    gate: Gate,
    lasting: Arc<Lasting>,
    arrival: Box<Arrival>,
}

/// What a client got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<String, BodyError>,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Ask {
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.arrival.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn body(mut self, body: &'static str) -> Self {
        self.arrival.body = Body::Full(Bytes::from_static(body.as_bytes()));
        self
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Got {
        let (lasting, began) = (self.lasting.clone(), self.lasting.clock.now());
        let response = self.head().await;
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let body = loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => break Ok(String::from_utf8(bytes).unwrap()),
                Some(Err(error)) => break Err(error),
                Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            }
        };
        let took = lasting.clock.now().since(began);
        Got { status: parts.status.as_u16(), headers: parts.headers, body, took }
    }

    /// Sends it and reads the head alone.
    pub(crate) async fn head(mut self) -> Response<Reported> {
        self.arrival.at = self.lasting.clock.now();
        (self.gate)(self.arrival).await
    }

    /// Sends it from a task of its own.
    pub(crate) fn start(self) -> JoinHandle<Got> {
        tokio::spawn(self.send())
    }
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        self.body.as_ref().expect("the body is whole")
    }

    /// `Cache-Status` without the cache's name.
    pub(crate) fn cache(&self) -> &str {
        self.header("cache-status").map_or("", |value| value.strip_prefix("tollgate; ").unwrap())
    }

    /// The problem type's last part.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(self.text()).unwrap();
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

/// What everybody of a crowd got.
pub(crate) async fn all(crowd: Vec<JoinHandle<Got>>) -> Vec<Got> {
    let mut got = Vec::new();
    for one in crowd {
        got.push(one.await.expect("the client's task lives"));
    }
    got
}
