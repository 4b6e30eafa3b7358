//! The stages that only decide, each a [`Decide`] around a rule: who asks, which route, what it means, how often.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};

use super::{Decide, Next};
use crate::model::exchange::{Answer, Arrival, Ask, ClientId, Known, Question, RouteId, Routed};
use crate::model::fields::{WALK, named};
use crate::model::{Body, Fault, FaultKind};
use crate::rules::forwarded::{self, Network};
use crate::rules::identity::{Clients, Sender};
use crate::rules::message::{HeadRules, Objection, forwards_left, normalized};
use crate::rules::params::{Params, Refusal};
use crate::rules::routes::{Methods, Routes};
use crate::rules::understanding::{Reading, prefers_strict, stated_timeout};
use crate::rules::walks;
use crate::state::limits::{AddressLimit, ClientLimit};
use crate::state::remembered::Remembered;

/// inspect: `Arrival = Arrival`, or 400, 405, 414, 417, 421, 501. What it lets through addresses the gate in a form that
/// has one meaning, and its target is written the one way that equivalent ones are.
#[derive(Debug, Clone)]
pub struct Inspect {
    /// What heads are held to.
    pub rules: Arc<HeadRules>,
    /// Whose word on the peer is taken.
    pub proxies: Arc<[Network]>,
}

impl Decide<Box<Arrival>> for Inspect {
    type Out = Box<Arrival>;

    fn decide(&self, mut arrival: Box<Arrival>) -> Next<Box<Arrival>> {
        let Arrival { method, uri, version, headers, .. } = arrival.as_ref();
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let inspected = self.rules.inspect(method, uri, *version, headers).and_then(|()| normalized(target));
        match inspected {
            Ok(None) => {}
            Ok(Some(target)) => match Uri::try_from(target) {
                Ok(uri) => arrival.uri = uri,
                Err(_) => return Next::refuse(FaultKind::Malformed),
            },
            Err(Objection { kind, why }) => {
                let fault = Fault::new(kind).detail(why);
                // "An origin server MUST generate an Allow header field in a 405 response" (RFC 9110 §15.5.6): a tunnel's
                // end is no resource here, and allows nothing.
                let is_tunnel = kind == FaultKind::NoTunnel;
                return Next::refuse(if is_tunnel { fault.allow(String::new()) } else { fault });
            }
        }
        if !self.proxies.is_empty() {
            let peer = forwarded::peer(&self.proxies, arrival.peer.ip(), &arrival.headers);
            arrival.peer.set_ip(peer);
        }
        Next::On(arrival)
    }
}

/// authenticate: `Arrival → Known`, or 401.
#[derive(Debug, Clone)]
pub struct Authenticate {
    /// The declared clients.
    pub clients: Arc<Clients>,
}

impl Decide<Box<Arrival>> for Authenticate {
    type Out = Known;

    fn decide(&self, mut arrival: Box<Arrival>) -> Next<Known> {
        let certificate = arrival.certificate.take();
        let client = match self.clients.identify(&mut arrival.headers, certificate.as_deref()) {
            Sender::Known(client) => client,
            Sender::Keyless => {
                return Next::refuse(Fault::new(FaultKind::ClientUnknown).detail(
                    "send this client's key as `Authorization: Bearer KEY` or `x-tollgate-key: KEY`",
                ));
            }
            Sender::Stranger => {
                return Next::refuse(Fault::new(FaultKind::ClientUnknown).detail("no client has this key"));
            }
        };
        arrival.notes.client.set(client.0);
        Next::On(Known { arrival, client })
    }
}

/// The gate's own pages under `/-/`, answered before any route.
pub trait OwnPages: Send + Sync {
    /// The page that `known` asks for, if there is one at its path.
    fn answer(&self, known: &Known) -> Option<Result<Answer, Fault>>;
}

/// What routing knows of a route.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// The methods it allows.
    pub methods: Methods,
    /// Who may use it; `None`: everybody.
    pub clients: Option<Vec<ClientId>>,
}

/// route: `Known → Routed`, or 404, 405, 403.
#[derive(Clone)]
pub struct Route {
    /// Where each path leads.
    pub routes: Arc<Routes>,
    /// The routes, by place.
    pub lanes: Arc<[Lane]>,
    /// What is answered here.
    pub own: Arc<dyn OwnPages>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Decide<Known> for Route {
    type Out = Routed;

    fn decide(&self, known: Known) -> Next<Routed> {
        let path = known.arrival.uri.path();
        if path.starts_with("/-/")
            && let Some(result) = self.own.answer(&known)
        {
            return Next::End(result);
        }
        let method = &known.arrival.method;
        if path == "*" {
            // OPTIONS of the gate as a whole: "a 'ping' or 'no-op' type of method" (RFC 9110 §9.3.7).
            return Next::End(Ok(no_content(HeaderMap::new(), &known)));
        }
        let found = self.routes.find(path);
        let Some((route, lane)) = found.and_then(|route| Some((route, self.lanes.get(route.place())?)))
        else {
            return Next::refuse(FaultKind::NoSuchRoute);
        };
        known.arrival.notes.route.set(route.0);
        if lane.clients.as_ref().is_some_and(|clients| !clients.contains(&known.client)) {
            let fault = Fault::new(FaultKind::RouteForbidden);
            return Next::refuse(
                fault.detail(format!("route {} is not among this client's `routes`", lane.name)),
            );
        }
        if !lane.methods.allow(method) {
            return Next::refuse(method_not_allowed(lane, method));
        }
        if forwards_left(method, &known.arrival.headers) == Some(0) {
            // "… the intermediary MUST NOT forward the request; instead, the intermediary MUST respond as the final
            // recipient" (RFC 9110 §7.6.2).
            let allow = HeaderValue::try_from(lane.methods.to_string()).ok();
            return Next::End(Ok(no_content(
                allow.map(|allow| (header::ALLOW, allow)).into_iter().collect(),
                &known,
            )));
        }
        Next::On(Routed { arrival: known.arrival, client: known.client, route })
    }
}

fn no_content(headers: HeaderMap, known: &Known) -> Answer {
    Answer::own(StatusCode::NO_CONTENT, headers, Body::Empty, known.arrival.at)
}

fn method_not_allowed(lane: &Lane, method: &Method) -> Fault {
    let methods = lane.methods.to_string();
    let fault = Fault::new(FaultKind::MethodNotAllowed).allow(methods.clone());
    // TRACE and CONNECT cannot be added: the first shows what was injected, the second is no request to an API.
    let advice = match *method {
        Method::TRACE | Method::CONNECT => format!("route {} allows {methods}", lane.name),
        _ => format!("route {} allows {methods}; its operator can add {method} to `methods`", lane.name),
    };
    fault.detail(advice)
}

/// What understanding knows of a route.
#[derive(Debug, Clone)]
pub struct Lens {
    /// How its requests are read.
    pub reading: Reading,
    /// The longest a client waits where it does not say.
    pub timeout: Duration,
    /// The largest request body.
    pub max_body_bytes: u64,
}

/// understand: `Routed → Ask`, or 400 where strictness was asked for.
#[derive(Debug, Clone)]
pub struct Understand {
    /// The routes, by place.
    pub lenses: Arc<[Lens]>,
    /// Which clients are strict, by place.
    pub strict: Arc<[bool]>,
    /// What was understood before.
    pub remembered: Arc<Remembered>,
}

impl Decide<Routed> for Understand {
    type Out = Box<Ask>;

    fn decide(&self, routed: Routed) -> Next<Box<Ask>> {
        let Routed { arrival, client, route } = routed;
        let Some(lens) = self.lenses.get(route.place()) else {
            return Next::refuse(FaultKind::NoSuchRoute);
        };
        let Arrival { method, mut uri, version, headers, body, peer, at, notes, interim, .. } = *arrival;
        let walk = lens.reading.window.and_then(|_| walk(&mut uri, &headers));
        let strict = self.strict.get(client.place()).is_some_and(|strict| *strict);
        let question = match self.question(lens, (route, &uri), strict || prefers_strict(&headers)) {
            Ok(question) => question,
            Err(fault) => return Next::refuse(fault),
        };
        if question.changes.is_some() {
            let _ = notes.changed.set(question.clone());
        }
        if http_body::Body::size_hint(&body).lower() > lens.max_body_bytes {
            let fault = Fault::new(FaultKind::BodyTooLarge);
            return Next::refuse(fault.detail(format!("at most {} bytes", lens.max_body_bytes)));
        }
        let stated = stated_timeout(&headers).filter(|stated| *stated < lens.timeout);
        let (deadline, hurried) = (at + stated.unwrap_or(lens.timeout), stated.is_some());
        Next::On(Box::new(Ask {
            client,
            route,
            method,
            version,
            question,
            headers,
            body,
            at,
            deadline,
            hurried,
            peer,
            interim,
            walk,
        }))
    }
}

/// The token of the walk that a request goes on with: from its query, which is then without it, or else from its field.
fn walk(uri: &mut Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let taken = uri.query().and_then(|query| walks::taken_from(uri.path(), query));
    if let Some((target, token)) = taken
        && let Ok(without) = Uri::try_from(target)
    {
        *uri = without;
        return Some(token);
    }
    named(headers, WALK).next().cloned()
}

impl Understand {
    /// What `uri` means, from memory where this spelling of it was read before.
    fn question(
        &self,
        lens: &Lens,
        (route, uri): (RouteId, &Uri),
        strict: bool,
    ) -> Result<Arc<Question>, Fault> {
        let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
        if let Some(question) = self.remembered.find(route, target, strict) {
            return Ok(question);
        }
        let (mut question, understood) = lens.reading.read(uri.path(), uri.query().unwrap_or_default());
        if let (Some(understood), Some(params)) = (&understood, &lens.reading.params) {
            let refusal = match strict {
                true => understood.strict_refusal(params),
                false => understood.required_refusal(params),
            };
            if let Some(refusal) = refusal {
                return Err(not_understood(&refusal, params));
            }
        }
        question.spelling = self.remembered.spelling(route, target, strict);
        let question = Arc::new(question);
        self.remembered.keep(&question);
        Ok(question)
    }
}

fn not_understood(refusal: &Refusal, params: &Params) -> Fault {
    let fault = Fault::new(FaultKind::ParameterNotUnderstood);
    // The name of an unknown parameter is the caller's own text: it goes back to the caller and nowhere else.
    let detail = match &refusal.nearest {
        _ if params.names().any(|name| name == refusal.name) => {
            format!("{} should be {}", refusal.name, refusal.expected)
        }
        Some(nearest) => format!("no parameter has this name; the nearest is {nearest}"),
        None => "no parameter has this name".to_owned(),
    };
    let fault = fault.detail(detail).member("parameter", refusal.name.clone());
    let fault = fault.member("expected", refusal.expected.clone());
    match &refusal.nearest {
        Some(nearest) => fault.member("nearest", nearest.clone()),
        None => fault,
    }
}

/// client limit: `Ask = Ask`, or 429. Protects the gate from one client; hits count.
#[derive(Debug, Clone)]
pub struct LimitClient {
    /// The declared clients' limits, by place.
    pub declared: Arc<[Option<Arc<ClientLimit>>]>,
    /// Everybody else's, by address.
    pub addresses: Option<Arc<AddressLimit>>,
}

impl Decide<Box<Ask>> for LimitClient {
    type Out = Box<Ask>;

    fn decide(&self, ask: Box<Ask>) -> Next<Box<Ask>> {
        match self.check(&ask) {
            Ok(()) => Next::On(ask),
            Err(wait) => Next::refuse(Fault::new(FaultKind::ClientLimit).retry_after(wait)),
        }
    }
}

impl LimitClient {
    fn check(&self, ask: &Ask) -> Result<(), Duration> {
        match (self.declared.get(ask.client.place()), &self.addresses) {
            (Some(Some(limit)), _) => limit.check(ask.at),
            (_, Some(addresses)) if ask.client == ClientId(0) => addresses.check(ask.peer.ip(), ask.at),
            _ => Ok(()),
        }
    }
}
