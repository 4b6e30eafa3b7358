//! The innermost stage: `Signed → Answer` over pooled connections, HTTP/1.1 or HTTP/2, clear or TLS.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;

use super::arriving::{Arriving, Pace};
use super::connect::{Served, Timed, TimedOut};
use super::tls::UpstreamTls;
use crate::model::body::{Body, BodyError};
use crate::model::cache_status::CacheStatus;
use crate::model::exchange::{Answer, Content, Passed, Signed, Timing};
use crate::model::fault::Called;
use crate::model::{Fault, FaultKind, Interim};
use crate::rules::headers::{add_via, strip_hop_by_hop};
use crate::rules::message::{distrust, unite_lengths};
use crate::stages::Stage;
use crate::state::clock::Clock;
use crate::state::grant::Grant;

/// How many interim responses an answer may have; an upstream that says more never answers.
const MOST_INTERIM: usize = 1000;

/// What the edge knows of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long its answer's head may take from the sending, and how long its body may fall silent.
    pub timeout: Duration,
    /// How long its answer's body may take in all.
    pub total_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// The most connections kept idle.
    pub max_idle: usize,
    /// Which HTTP it speaks.
    pub http2: Http2,
    /// TLS towards it; `None` where it speaks in clear text.
    pub tls: Option<UpstreamTls>,
}

/// `http2`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// As TLS negotiates it; HTTP/1.1 in clear text.
    Negotiated,
    /// Never.
    Never,
    /// Always, in clear text too ("prior knowledge", RFC 9113 §3.3).
    Always,
}

/// The largest head of an upstream's answer, in bytes, and the most fields of it.
const MAX_HEAD_BYTES: u16 = 60 << 10;
const MAX_HEADERS: usize = 128;
/// How often an HTTP/2 connection with calls on it is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(15);

/// All upstreams.
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    /// Each route's upstream, by place.
    by_route: Vec<usize>,
    clock: Clock,
}

struct Upstream {
    settings: UpstreamSettings,
    /// What its requests say as `Host`, where all of them are HTTP/1.1: hyper would write it anew for each.
    host: Option<HeaderValue>,
    /// What it is called towards hyper, whose pool hashes the name of each request twice, byte by byte: one letter, since
    /// there is a pool for each upstream, unless HTTP/2 sends it.
    called: Authority,
    client: Client<Timed<HttpsConnector<HttpConnector>>, Body>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<_> = self.upstreams.iter().map(|upstream| &upstream.settings).collect();
        f.debug_struct("Upstreams").field("settings", &settings).finish_non_exhaustive()
    }
}

impl UpstreamSettings {
    /// What requests say as `Host`, where all of them are HTTP/1.1: without the port that its scheme stands for.
    fn host(&self) -> Option<HeaderValue> {
        let (clear, usual) = if self.scheme == Scheme::HTTP { (true, 80) } else { (false, 443) };
        if self.http2 == Http2::Always || (self.http2 == Http2::Negotiated && !clear) {
            return None;
        }
        let name = self.authority.host();
        match self.authority.port_u16().filter(|port| *port != usual) {
            Some(port) => HeaderValue::try_from(format!("{name}:{port}")).ok(),
            None => HeaderValue::try_from(name).ok(),
        }
    }
}

impl Upstreams {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A certificate to trust that is none.
    pub fn new(
        upstreams: impl IntoIterator<Item = UpstreamSettings>,
        by_route: Vec<usize>,
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let upstreams = upstreams.into_iter().map(Upstream::new).collect::<Result<_, _>>()?;
        Ok(Self { upstreams, by_route, clock })
    }
}

impl Upstream {
    fn new(settings: UpstreamSettings) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Without TLS a configuration is needed all the same; it trusts nobody and is never used.
        let tls = match &settings.tls {
            Some(tls) => tls.to_config()?,
            None => UpstreamTls::unused().to_config()?,
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = match settings.http2 {
            Http2::Negotiated => builder.enable_all_versions().wrap_connector(tcp),
            Http2::Never => builder.enable_http1().wrap_connector(tcp),
            Http2::Always => builder.enable_http2().wrap_connector(tcp),
        };
        let mut to = http::uri::Parts::default();
        to.scheme = Some(settings.scheme.clone());
        to.authority = Some(settings.authority.clone());
        to.path_and_query = Some(PathAndQuery::from_static("/"));
        // A scheme, an authority and a path are an address.
        let to = Uri::from_parts(to).unwrap_or_default();
        let host = settings.host();
        let called = if host.is_some() { Authority::from_static("u") } else { settings.authority.clone() };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.max_idle)
            .http1_max_buf_size(MAX_HEAD_BYTES.into())
            .http1_max_headers(MAX_HEADERS)
            .http2_only(settings.http2 == Http2::Always)
            .http2_max_header_list_size(MAX_HEAD_BYTES.into())
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(settings.connect_timeout)
            .build(Timed::new(connector, to, settings.connect_timeout));
        Ok(Self { settings, host, called, client })
    }

    fn pace(&self, clock: &Clock) -> Pace {
        Pace { silence: self.settings.timeout, total: self.settings.total_timeout, clock: clock.clone() }
    }

    fn uri(&self, target: &[u8]) -> Option<Uri> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.called.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        Uri::from_parts(parts).ok()
    }
}

impl Stage<Signed<Grant>> for Upstreams {
    async fn call(&self, signed: Signed<Grant>) -> Result<Answer, Fault> {
        let Signed { method, target, headers, body, route, interim, why, mut grant } = signed;
        let place = self.by_route.get(route.place());
        let Some(upstream) = place.and_then(|place| self.upstreams.get(*place)) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        let uri = upstream.uri(target.expose()).ok_or(FaultKind::Malformed)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        // "A user agent SHOULD send Content-Length in a request when the method defines a meaning for enclosed content"
        // (§8.6), also where there is none: some servers answer 411 otherwise.
        if request.body().is_empty()
            && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
        {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(host) = &upstream.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        let flooded = Arc::new(Notify::new());
        let (said_so_far, floods) = (AtomicUsize::new(0), flooded.clone());
        hyper::ext::on_informational(&mut request, move |said| {
            match (said_so_far.fetch_add(1, Ordering::Relaxed), &interim) {
                (MOST_INTERIM.., _) => floods.notify_one(),
                (_, Some(interim)) => relay(interim, said.status(), said.headers()),
                (_, None) => {}
            }
        });
        let sent = self.clock.now();
        grant.sent();
        let connection = capture_connection(&mut request);
        let answering = tokio::time::timeout(upstream.settings.timeout, upstream.client.request(request));
        let answer = tokio::select! {
            biased;
            answer = answering => answer,
            // Whoever reads them has no time left to look at a clock.
            () = flooded.notified() => {
                poison(&connection);
                let fault = Fault::new(FaultKind::UpstreamBroken).called(Called::Yes);
                return Err(fault.detail("the upstream sends interim responses without end"));
            }
        };
        let response = match answer {
            Ok(Ok(response)) => {
                was_reused(response.extensions());
                response
            }
            Ok(Err(error)) => {
                let mut marks = http::Extensions::new();
                if let Some(connected) = error.connect_info() {
                    connected.get_extras(&mut marks);
                }
                let fault = fault_of(&error, was_reused(&marks));
                if fault.called == Called::No {
                    grant.unsent();
                }
                return Err(fault);
            }
            Err(_) => return Err(Fault::new(FaultKind::UpstreamTimeout).called(Called::Maybe)),
        };
        grant.answered();
        if let Some(why) = distrust(response.status(), response.headers()) {
            // Its body may have ended elsewhere than hyper thinks: nothing else is read from there.
            poison(&connection);
            return Err(Fault::new(FaultKind::UpstreamBroken).called(Called::Yes).detail(why));
        }
        let arrived = self.clock.now();
        let (headers, status, body) = received(response, upstream.pace(&self.clock), grant);
        Ok(Answer {
            content: Content::Passed(Box::new(Passed { status, headers, body, arrived })),
            cache: CacheStatus::Forwarded { why, status: status.as_u16(), stored: false, collapsed: false },
            timing: Timing { wait: Duration::ZERO, upstream: Some(arrived.since(sent)) },
        })
    }
}

/// Nothing else is asked on the captured connection.
fn poison(connection: &CaptureConnection) {
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.poison();
    }
}

/// Whether the connection that bears these marks had served before; counts this request.
fn was_reused(marks: &http::Extensions) -> bool {
    marks.get::<Served>().is_some_and(Served::again)
}

/// Passes an interim response on: "A proxy MUST forward 1xx responses unless the proxy itself requested the generation of
/// the 1xx response" (RFC 9110 §15.2), as it does with 100; nobody asked for a 101.
fn relay(to: &Interim, status: http::StatusCode, headers: &HeaderMap) {
    if !matches!(status.as_u16(), 100 | 101) {
        let mut headers = headers.clone();
        strip_hop_by_hop(&mut headers);
        // "A server MUST NOT send a Content-Length header field in any response with a status code of 1xx" (§8.6).
        headers.remove(header::CONTENT_LENGTH);
        to.take(status, &headers);
    }
}

fn received(response: Response<Incoming>, pace: Pace, grant: Grant) -> (HeaderMap, http::StatusCode, Body) {
    let (parts, incoming) = response.into_parts();
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    unite_lengths(&mut headers);
    add_via(&mut headers, parts.version);
    let body = if incoming.is_end_stream() {
        Body::Empty
    } else {
        // The body's own length counts; on a body that was announced by length it is the same.
        Body::stream(Arriving::new(incoming, pace, grant, None))
    };
    if matches!(body, Body::Stream(_)) && body.size_hint().exact().is_none() {
        headers.remove(header::CONTENT_LENGTH);
    }
    (headers, parts.status, body)
}

/// What went wrong, whether the upstream may have acted, and whether sending it again is worth while: where nothing was
/// sent, or a connection that had `served` before was closed without an answer.
fn fault_of(error: &Error, served: bool) -> Fault {
    if error.is_connect() {
        let timed_out = causes(error).any(|cause| cause.is::<TimedOut>());
        let detail = if timed_out { "connecting took too long" } else { "no connection could be made" };
        return Fault::new(FaultKind::UpstreamUnreachable).detail(detail).resendable();
    }
    let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    // What the client's own body did to the call.
    match causes(error).find_map(|cause| cause.downcast_ref::<BodyError>()) {
        Some(BodyError::TimedOut) => return Fault::new(FaultKind::SlowRequest).called(Called::Maybe),
        Some(BodyError::TooLarge) => return Fault::new(FaultKind::BodyTooLarge).called(Called::Maybe),
        Some(BodyError::Truncated) => return Fault::new(FaultKind::Malformed).called(Called::Maybe),
        None => {}
    }
    match hyper {
        Some(error) if error.is_canceled() => Fault::new(FaultKind::UpstreamUnreachable)
            .detail("the connection ended before anything was sent on it")
            .resendable(),
        Some(error) if error.is_incomplete_message() || error.is_closed() || is_reset(error) => {
            let fault = Fault::new(FaultKind::UpstreamBroken).called(Called::Maybe);
            let fault = fault.detail("the connection closed before an answer");
            if served { fault.resendable() } else { fault }
        }
        Some(error) if error.is_parse() => Fault::new(FaultKind::UpstreamBroken)
            .called(Called::Yes)
            .detail("the answer is not HTTP/1.1 as the gate takes it"),
        _ => Fault::new(FaultKind::UpstreamBroken).called(Called::Maybe),
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), BrokenPipe | ConnectionAborted | ConnectionReset))
}

fn causes<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error: &&'a (dyn std::error::Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_written_as_hyper_would_unless_http2_names_it() {
        for (scheme, authority, http2, host) in [
            ("http", "api.example", Http2::Negotiated, Some("api.example")),
            ("http", "api.example:80", Http2::Never, Some("api.example")),
            ("http", "api.example:443", Http2::Never, Some("api.example:443")),
            ("https", "api.example:443", Http2::Never, Some("api.example")),
            ("https", "[::1]:8443", Http2::Never, Some("[::1]:8443")),
            ("https", "api.example", Http2::Negotiated, None),
            ("http", "api.example", Http2::Always, None),
        ] {
            let second = Duration::from_secs(1);
            let settings = UpstreamSettings {
                scheme: scheme.parse().expect("is a scheme"),
                authority: authority.parse().expect("is an authority"),
                connect_timeout: second,
                timeout: second,
                total_timeout: second,
                idle_timeout: second,
                max_idle: 1,
                http2,
                tls: None,
            };
            assert_eq!(settings.host(), host.map(HeaderValue::from_static), "{scheme} {authority}");
        }
    }
}
