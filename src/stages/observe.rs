//! observe: the outermost stage. Gives every request its id, turns what came back into a response, and reports every
//! exit exactly once: answered, refused, broken off, or left by its client.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus::IntCounterVec;
use tower_layer::Layer;

use super::Stage;
use crate::model::body::{Body, BodyError};
use crate::model::cache_status::{CacheStatus, Stale};
use crate::model::exchange::{Answer, Arrival, Content, Notes, Passed, RequestId, Timing};
use crate::model::fault::{Called, Level};
use crate::model::fields::{CACHE_STATUS, Delivery, REQUEST_ID, SERVER_TIMING, UNDERSTOOD};
use crate::model::{Fault, FaultKind, Moment, Short};
use crate::state::clock::Clock;
use crate::state::metrics::RouteMeters;
use crate::state::tells::Tells;

/// What is counted.
#[derive(Debug)]
pub struct Reports {
    /// The routes' handles, by place.
    pub routes: Vec<RouteMeters>,
    /// What is counted for requests no route took.
    pub none: RouteMeters,
    /// The routes' parameters, by place, to name them in the counter.
    pub params: Vec<Vec<String>>,
    /// `tollgate_faults_total{kind}`
    pub faults: IntCounterVec,
    /// What clients are told of the routes' accounts, by place.
    pub tells: Vec<Option<Tells>>,
    /// The time.
    pub clock: Clock,
}

/// The layer.
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    /// What is counted.
    pub reports: Arc<Reports>,
}

/// The stage.
#[derive(Debug)]
pub struct Observe<S> {
    reports: Arc<Reports>,
    inner: S,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { reports: self.reports.clone(), inner }
    }
}

/// Answers a request whatever happens: the outermost stage, where faults become responses.
pub trait Respond: Send + Sync {
    /// The response to `arrival`.
    fn respond(&self, arrival: Box<Arrival>) -> impl Future<Output = Response<Reported>> + Send;
}

impl<S: Stage<Box<Arrival>>> Respond for Observe<S> {
    async fn respond(&self, arrival: Box<Arrival>) -> Response<Reported> {
        // Boxed: an answer is moved several times before its first byte is written.
        let mut report = Box::new(Report {
            reports: self.reports.clone(),
            notes: arrival.notes.clone(),
            began: arrival.at,
            method: arrival.method.clone(),
            code: LEFT,
            result: "fault",
            stale: None,
            fault: None,
            timing: Timing::default(),
            bytes: 0,
            whole: false,
            took: None,
        });
        let result = self.inner.call(arrival).await;
        report.take(&result);
        let gate = report.reports.clock.now().since(report.began);
        let (status, mut headers, body) = match result {
            Ok(answer) => answered(answer, gate, &report.notes.id),
            Err(fault) => refused(&fault, gate, &report.notes.id),
        };
        let changes = report.notes.question.get().and_then(|question| question.changes.as_ref());
        if let Some(told) = changes.and_then(|changes| changes.told.clone()) {
            headers.append(UNDERSTOOD, told);
        }
        // A hit costs the account nothing, and says nothing of it.
        if !matches!(report.result, "hit" | "stale")
            && let Some(route) = report.notes.route.get()
            && let Some(Some(tells)) = report.reports.tells.get(route.place())
        {
            tells.write(&mut headers);
        }
        // A body that is all here is taken at once, and needs no second look at the clock.
        report.took = (!matches!(body, Body::Stream(_))).then_some(gate);
        // Of a body that is not there, or that HEAD leaves out, nothing will be read.
        report.whole = body.is_empty() || report.method == http::Method::HEAD;
        let mut response = Response::new(Reported { body, report: Some(report) });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn answered(answer: Answer, total: Duration, id: &RequestId) -> (StatusCode, HeaderMap, Body) {
    let Answer { content, cache, timing } = answer;
    let (status, mut headers, body) = match content {
        // The way of nearly every answer.
        Content::Held(entry, age) if cache.is_from_memory() => {
            let headers = entry.fields.to_answer(delivery(age, cache, (total, timing), id));
            return (entry.status, headers, Body::Full(entry.body.clone()));
        }
        Content::Held(entry, age) => {
            let mut headers = entry.fields.to_map(8);
            // "The presence of an Age header field implies that the response was not generated or validated by the
            // origin server for this request" (RFC 9111 §5.1).
            if age >= Duration::from_secs(1) {
                headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
            }
            (entry.status, headers, Body::Full(entry.body.clone()))
        }
        Content::Passed(passed) => {
            let Passed { status, headers, body, .. } = *passed;
            (status, headers, body)
        }
    };
    if cache != CacheStatus::Own {
        headers.append(CACHE_STATUS, written(|value| push_cache_status(value, cache)));
    }
    headers.insert(REQUEST_ID, id.to_value());
    headers.insert(SERVER_TIMING, written(|value| push_server_timing(value, total, timing)));
    (status, headers, body)
}

fn refused(fault: &Fault, total: Duration, id: &RequestId) -> (StatusCode, HeaderMap, Body) {
    let status = fault.kind.row().status;
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // A fault speaks of one moment; nobody downstream should keep it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = fault.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(Ok(methods)) = fault.allowed_methods().map(HeaderValue::try_from) {
        headers.insert(header::ALLOW, methods);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tollgate\""));
    }
    if fault.kind.ends_connection() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(REQUEST_ID, id.to_value());
    headers.insert(SERVER_TIMING, written(|value| push_server_timing(value, total, Timing::default())));
    let problem = fault.to_problem(&id.text());
    (status, headers, Body::Full(problem.into()))
}

/// What is new on every answer from memory: each value in an allocation of its own, since slices of one would count
/// references.
fn delivery(age: Duration, cache: CacheStatus, time: (Duration, Timing), id: &RequestId) -> Delivery {
    Delivery {
        age: written(|value| value.push_decimal(age.as_secs(), 1)),
        cache_status: written(|value| push_cache_status(value, cache)),
        server_timing: written(|value| push_server_timing(value, time.0, time.1)),
        request_id: id.to_value(),
    }
}

/// What has room for the longest value.
type Text = Short<128>;

fn written(write: impl FnOnce(&mut Text)) -> HeaderValue {
    let mut text = Text::new();
    write(&mut text);
    text.into_value("")
}

fn push_cache_status(value: &mut Text, cache: CacheStatus) {
    match cache {
        CacheStatus::Hit { ttl: ttl @ 0.., stale: None } => {
            value.push("tollgate; hit; ttl=");
            value.push_decimal(ttl.unsigned_abs(), 1);
        }
        // Writing to a Short cannot fail.
        _ => drop(write!(value, "tollgate; {cache}")),
    }
}

/// `gate;dur=0.2, wait;dur=1200, upstream;dur=83`, in milliseconds.
fn push_server_timing(value: &mut Text, total: Duration, timing: Timing) {
    let upstream = timing.upstream.unwrap_or_default();
    let gate = total.saturating_sub(timing.wait + upstream);
    value.push("gate;dur=");
    push_millis(value, gate);
    if !timing.wait.is_zero() {
        value.push(", wait;dur=");
        push_millis(value, timing.wait);
    }
    if timing.upstream.is_some() {
        value.push(", upstream;dur=");
        push_millis(value, upstream);
    }
}

/// Milliseconds with three decimals.
fn push_millis(value: &mut Text, duration: Duration) {
    let micros = duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros());
    value.push_decimal(micros / 1000, 1);
    value.push(".");
    value.push_decimal(micros % 1000, 3);
}

/// A response's body that reports when it has ended, or when nobody wants it any longer.
#[derive(Debug)]
pub struct Reported {
    body: Body,
    report: Option<Box<Report>>,
}

impl Reported {
    /// A body that needs no report: its request was reported already.
    pub fn unreported(body: Body) -> Self {
        Self { body, report: None }
    }
}

impl HttpBody for Reported {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, report } = self.as_mut().get_mut();
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let (Some(report), Poll::Ready(polled)) = (report, &polled) {
            match polled {
                Some(Ok(frame)) => {
                    report.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    report.whole = body.is_end_stream();
                }
                Some(Err(_)) => report.whole = false,
                None => report.whole = true,
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What code a request is counted with whose client left before its answer.
const LEFT: u16 = 499;

/// What is said of a request when it is over; said when this is dropped, so that nothing ends unsaid.
#[derive(Debug)]
struct Report {
    reports: Arc<Reports>,
    notes: Arc<Notes>,
    began: Moment,
    method: http::Method,
    code: u16,
    result: &'static str,
    stale: Option<&'static str>,
    fault: Option<(&'static str, Level, Called)>,
    timing: Timing,
    bytes: u64,
    whole: bool,
    /// How long it took, where that is known before it is over.
    took: Option<Duration>,
}

impl Report {
    fn take(&mut self, result: &Result<Answer, Fault>) {
        match result {
            Ok(answer) => {
                self.code = answer.status().as_u16();
                self.result = answer.cache.result();
                self.timing = answer.timing;
                self.stale = answer.cache.stale().map(Stale::as_str);
            }
            Err(fault) => {
                let row = fault.kind.row();
                self.code = row.status.as_u16();
                self.fault = Some((row.name, row.level, fault.called));
            }
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let row = FaultKind::Internal.row();
            (self.code, self.fault) = (row.status.as_u16(), Some((row.name, row.level, Called::Maybe)));
        }
        let reports = &self.reports;
        let (client, route) = (self.notes.client.get(), self.notes.route.get());
        let client = client.map(|client| client.place());
        let meters = route.and_then(|route| reports.routes.get(route.place())).unwrap_or(&reports.none);
        let duration = self.took.unwrap_or_else(|| reports.clock.now().since(self.began));
        meters.count(client, self.code, self.result, duration.as_secs_f64());
        if let Some(reason) = self.stale {
            meters.count_stale(reason);
        }
        if let Some((kind, ..)) = self.fault {
            reports.faults.with_label_values(&[kind]).inc();
        }
        let changes = self.notes.question.get().and_then(|question| question.changes.as_ref());
        if let (Some(route), Some(changes)) = (route, changes) {
            for (param, rule) in &changes.counted {
                let name = reports.params.get(route.place()).and_then(|names| names.get(usize::from(*param)));
                meters.count_param(name.map_or("unknown", String::as_str), rule);
            }
        }
        let (route, client) = (meters.name(), meters.client(client));
        let millis = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(
            target: "tollgate::request",
            id = self.notes.id.text(),
            method = self.method.as_str(),
            route,
            client,
            code = self.code,
            result = self.fault.map_or(self.result, |(kind, ..)| kind),
            duration_ms = millis(duration),
            wait_ms = millis(self.timing.wait),
            upstream_ms = self.timing.upstream.map(millis),
            bytes = self.bytes,
            whole = self.whole,
            "request"
        );
        match self.fault {
            Some((kind, Level::Warn, called)) => {
                tracing::warn!(target: "tollgate::fault", id = self.notes.id.text(), route, kind, called = called.as_str(), "fault");
            }
            Some((kind, Level::Error, called)) => {
                tracing::error!(target: "tollgate::fault", id = self.notes.id.text(), route, kind, called = called.as_str(), "fault");
            }
            _ => {}
        }
    }
}
