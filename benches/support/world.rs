//! What benches stand on: the whole way of a request as the shipped configuration makes it, and in the place of the
//! upstream a constant.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tollgate::config::plan::{Plan, RateLimit};
use tollgate::config::{self, Environment, WithoutSecrets};
use tollgate::lasting::Lasting;
use tollgate::model::cache_status::CacheStatus;
use tollgate::model::exchange::{Answer, Content, Known, Passed, Signed, Timing};
use tollgate::model::{Body, Fault};
use tollgate::pipeline::pipeline;
use tollgate::provision::provision;
use tollgate::stages::Stage;
use tollgate::stages::observe::Respond;
use tollgate::stages::steps::OwnPages;
use tollgate::state::clock::Clock;
use tollgate::state::grant::Grant;

/// The route's path.
#[allow(dead_code, reason = "not every bench asks the shipped route")]
pub(crate) const PATH: &str = "/conversations/messages/list";

/// The whole way of a request before a constant of this many bytes, and what lasts beside it.
pub(crate) fn way(plan: &Plan, bytes: usize) -> (impl Respond + use<>, Lasting, Bytes) {
    let environment: Arc<dyn Environment> = Arc::new(WithoutSecrets);
    let lasting = Lasting::new(plan).unwrap();
    let (stages, _) = provision(plan, &lasting, Arc::new(NoPages), &environment).unwrap();
    let body = Bytes::from(vec![b'x'; bytes]);
    let constant = Constant { clock: lasting.clock.clone(), body: body.clone() };
    (pipeline(stages, constant), lasting, body)
}

/// The shipped configuration, with a limit of each client that is never reached, and its pages cached as they are asked for.
#[allow(dead_code, reason = "not every bench runs the shipped configuration")]
pub(crate) fn plan() -> Plan {
    let mut plan = config::load(include_str!("../../config.toml"), "config.toml", &WithoutSecrets).unwrap();
    let limit = RateLimit {
        requests: 1_000_000_000,
        per: Duration::from_secs(1),
        burst: 1_000_000_000,
        shadow: false,
    };
    plan.server.rate_limit = Some(limit);
    plan.routes[0].cache.ttl = Some(Duration::from_secs(3600));
    plan.routes[0].pages = None;
    plan.routes[0].tags.clear();
    plan
}

/// The shipped pages: every window is cut from blocks of a hundred.
#[allow(dead_code, reason = "not every bench cuts pages")]
pub(crate) fn cut_pages(plan: &mut Plan) {
    let shipped = config::load(include_str!("../../config.toml"), "config.toml", &WithoutSecrets).unwrap();
    plan.routes[0].pages = shipped.routes[0].pages.clone();
}

/// From where is asked.
pub(crate) fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000))
}

/// No pages of the gate's own.
struct NoPages;

impl OwnPages for NoPages {
    fn answer(&self, _: &Known) -> Option<Result<Answer, Fault>> {
        None
    }
}

/// An upstream that always answers the same, at once.
struct Constant {
    clock: Clock,
    body: Bytes,
}

impl Stage<Signed<Grant>> for Constant {
    async fn call(&self, signed: Signed<Grant>) -> Result<Answer, Fault> {
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
            (header::DATE, HeaderValue::from_static("Fri, 01 Jan 2100 00:00:00 GMT")),
            (header::ETAG, HeaderValue::from_static("\"5f3a9c1e\"")),
            (header::VARY, HeaderValue::from_static("accept")),
            (header::VIA, HeaderValue::from_static("1.1 tollgate")),
            (header::SERVER, HeaderValue::from_static("origin")),
            (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
        ]);
        let target = std::str::from_utf8(signed.target.expose()).unwrap();
        let body = Body::Full(block(target).unwrap_or_else(|| self.body.clone()));
        let passed = Passed { status: StatusCode::OK, headers, body, arrived: self.clock.now() };
        Ok(Answer {
            content: Content::Passed(Box::new(passed)),
            cache: CacheStatus::Forwarded { why: signed.why, status: 200, stored: false, collapsed: false },
            timing: Timing::default(),
        })
    }
}

/// A hundred messages, where a block of so many is asked for.
fn block(target: &str) -> Option<Bytes> {
    let (_, query) = target.split_once('?')?;
    let page = query.split('&').find_map(|pair| pair.strip_prefix("page="))?.parse::<usize>().ok()?;
    query.contains("per_page=100").then(|| {
        let messages = (0..100).map(|at| format!(r#"{{"message_id":"m{page}-{at}","text":"{:x<200}"}}"#, ""));
        format!("[{}]", messages.collect::<Vec<_>>().join(",")).into()
    })
}
