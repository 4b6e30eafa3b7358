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
use tower_layer::Layer;

use super::Stage;
use crate::model::body::{Body, BodyError};
use crate::model::cache_status::CacheStatus;
use crate::model::exchange::{Answer, Arrival, Content, Passed, RequestId, Sliced, Timing};
use crate::model::fields::{CACHE_STATUS, Delivery, REQUEST_ID, SERVER_TIMING, UNDERSTOOD};
use crate::model::{Fault, Short};

mod report;

pub use report::Reports;
use report::{Answered, Report, Reporting, Unanswered};

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
    /// The response to `arrival`. It takes a share of the whole way, which its report then holds: one count of a
    /// reference that all workers share, and not two.
    fn respond(self: Arc<Self>, arrival: Box<Arrival>) -> impl Future<Output = Response<Reported>> + Send;
}

impl<S: Send + Sync> Reporting for Observe<S> {
    fn reports(&self) -> &Reports {
        &self.reports
    }
}

impl<S: Stage<Box<Arrival>> + 'static> Respond for Observe<S> {
    async fn respond(self: Arc<Self>, arrival: Box<Arrival>) -> Response<Reported> {
        // Boxed: an answer is moved several times before its first byte is written.
        let report = Box::new(Report::new(&arrival));
        let unanswered = Unanswered { report: &report, reports: &self.reports };
        let result = self.inner.call(arrival).await;
        // It keeps references alone. What takes its place reports whatever happens from here on, a panic included.
        std::mem::forget(unanswered);
        let mut ending = Answered { report, way: self };
        let Answered { report, way } = &mut ending;
        let reports = way.reports();
        report.take(&result);
        let gate = reports.clock.now().since(report.began);
        let is_free = matches!(&result, Ok(answer) if answer.cache.is_from_memory());
        let (status, mut headers, body) = match result {
            Ok(answer) => answered(answer, gate, &report.notes.id),
            Err(fault) => refused(&fault, gate, &report.notes.id),
        };
        let changes = report.notes.changes();
        if let Some(told) = changes.and_then(|changes| changes.told.clone()) {
            headers.append(UNDERSTOOD, told);
        }
        // What comes from memory costs the account nothing, and says nothing of it.
        if !is_free
            && let Some(route) = report.notes.route.place()
            && let Some(Some(tells)) = reports.tells.get(route)
        {
            tells.write(&mut headers);
        }
        // A body that is all here is taken at once, and needs no second look at the clock.
        report.took = (!matches!(body, Body::Stream(_))).then_some(gate);
        // Of a body that is not there, or that HEAD leaves out, nothing will be read.
        report.whole = body.is_empty() || report.method == http::Method::HEAD;
        let mut response = Response::new(Reported { body, answered: Some(ending) });
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
        Content::Sliced(sliced) if cache.is_from_memory() => {
            let Sliced { like, age, body, told } = *sliced;
            let mut headers = like.fields.to_answer(delivery(age, cache, (total, timing), id));
            told.write(&mut headers);
            return (like.status, headers, body);
        }
        content => {
            let Passed { status, headers, body, .. } = content.into_passed(cache);
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
    answered: Option<Answered>,
}

impl Reported {
    /// A body that needs no report: its request was reported already.
    pub fn unreported(body: Body) -> Self {
        Self { body, answered: None }
    }
}

impl HttpBody for Reported {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, answered } = self.as_mut().get_mut();
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let (Some(Answered { report, .. }), Poll::Ready(polled)) = (answered, &polled) {
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
