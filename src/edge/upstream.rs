//! The innermost stage: `Signed → Answer` over pooled connections, HTTP/1.1, plain or TLS.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::CertificateDer;

use super::arriving::Arriving;
use crate::model::body::{Body, BodyError};
use crate::model::exchange::{Answer, CacheStatus, Content, Passed, Signed, Timing};
use crate::model::fault::Called;
use crate::model::{Fault, FaultKind};
use crate::rules::headers::strip_hop_by_hop;
use crate::rules::message::{distrust, unite_lengths};
use crate::stages::Stage;
use crate::state::clock::Clock;
use crate::state::quota::Grant;

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
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// The most connections kept idle.
    pub max_idle: usize,
    /// Certificates to trust beside the bundled roots, DER.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// The largest head of an upstream's answer, in bytes, and the most fields of it.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// All upstreams.
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    /// Each route's upstream, by place.
    by_route: Vec<usize>,
    clock: Clock,
}

struct Upstream {
    settings: UpstreamSettings,
    client: Client<connect::Timed<HttpsConnector<HttpConnector>>, Body>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<_> = self.upstreams.iter().map(|upstream| &upstream.settings).collect();
        f.debug_struct("Upstreams").field("settings", &settings).finish_non_exhaustive()
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
        let tls = tls_client(&settings.extra_roots)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.max_idle)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http1_max_headers(MAX_HEADERS)
            .build(connect::Timed::new(connector, settings.connect_timeout));
        Ok(Self { settings, client })
    }

    fn uri(&self, target: &[u8]) -> Option<Uri> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.settings.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        Uri::from_parts(parts).ok()
    }
}

fn tls_client(extra_roots: &[CertificateDer<'static>]) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra_roots {
        roots.add(certificate.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Stage<Signed<Grant>> for Upstreams {
    async fn call(&self, signed: Signed<Grant>) -> Result<Answer, Fault> {
        let Signed { method, target, headers, body, route, why, mut grant } = signed;
        let place = self.by_route.get(usize::from(route.0));
        let Some(upstream) = place.and_then(|place| self.upstreams.get(*place)) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        let uri = upstream.uri(target.expose()).ok_or(FaultKind::Malformed)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let connection = capture_connection(&mut request);
        let sent = self.clock.now();
        grant.sent();
        let answer = tokio::time::timeout(upstream.settings.timeout, upstream.client.request(request)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let fault = fault_of(&error);
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
            if let Some(connected) = connection.connection_metadata().as_ref() {
                connected.poison();
            }
            return Err(Fault::new(FaultKind::UpstreamBroken).called(Called::Yes).detail(why));
        }
        let arrived = self.clock.now();
        let (headers, status, body) = received(response, upstream.settings.timeout, grant);
        Ok(Answer {
            content: Content::Passed(Passed { status, headers, body, arrived }),
            cache: CacheStatus::Forwarded { why, status: status.as_u16(), stored: false, collapsed: false },
            timing: Timing { wait: Duration::ZERO, upstream: Some(arrived.since(sent)) },
        })
    }
}

fn received(
    response: Response<Incoming>,
    silence: Duration,
    grant: Grant,
) -> (HeaderMap, http::StatusCode, Body) {
    let (parts, incoming) = response.into_parts();
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    unite_lengths(&mut headers);
    let body = if incoming.is_end_stream() {
        Body::Empty
    } else {
        // The body's own length counts; on a body that was announced by length it is the same.
        Body::stream(Arriving::new(incoming, silence, grant, None))
    };
    if matches!(body, Body::Stream(_)) && body.size_hint().exact().is_none() {
        headers.remove(header::CONTENT_LENGTH);
    }
    (headers, parts.status, body)
}

/// What went wrong, and whether the upstream may have acted.
fn fault_of(error: &Error) -> Fault {
    if error.is_connect() {
        let timed_out = causes(error).any(|cause| cause.is::<connect::TimedOut>());
        let detail = if timed_out { "connecting took too long" } else { "no connection could be made" };
        return Fault::new(FaultKind::UpstreamUnreachable).detail(detail);
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
        // The connection was closed before anything was sent on it.
        Some(error) if error.is_canceled() => Fault::new(FaultKind::UpstreamUnreachable),
        Some(error) if error.is_incomplete_message() || error.is_closed() => {
            Fault::new(FaultKind::UpstreamBroken)
                .called(Called::Maybe)
                .detail("the connection closed before an answer")
        }
        Some(error) if error.is_parse() => Fault::new(FaultKind::UpstreamBroken)
            .called(Called::Yes)
            .detail("the answer is not HTTP/1.1 as the gate takes it"),
        _ => Fault::new(FaultKind::UpstreamBroken).called(Called::Maybe),
    }
}

fn causes<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error: &&'a (dyn std::error::Error + 'static)| (*error).source())
}

/// Connecting within a time, TLS included.
mod connect {
    use std::fmt;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use http::Uri;
    use tower_service::Service;

    type BoxError = Box<dyn std::error::Error + Send + Sync>;

    /// A connector that gives up after `limit`.
    #[derive(Clone)]
    pub(super) struct Timed<C> {
        connector: C,
        limit: Duration,
    }

    /// Connecting took too long.
    #[derive(Debug)]
    pub(super) struct TimedOut;

    impl<C> Timed<C> {
        pub(super) fn new(connector: C, limit: Duration) -> Self {
            Self { connector, limit }
        }
    }

    impl fmt::Display for TimedOut {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("connecting took too long")
        }
    }

    impl std::error::Error for TimedOut {}

    impl<C> Service<Uri> for Timed<C>
    where
        C: Service<Uri, Error: Into<BoxError>, Future: Send + 'static> + Send,
    {
        type Response = C::Response;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.connector.poll_ready(cx).map_err(Into::into)
        }

        fn call(&mut self, uri: Uri) -> Self::Future {
            let (connecting, limit) = (self.connector.call(uri), self.limit);
            Box::pin(async move {
                match tokio::time::timeout(limit, connecting).await {
                    Ok(connected) => connected.map_err(Into::into),
                    Err(_) => Err(TimedOut.into()),
                }
            })
        }
    }
}
