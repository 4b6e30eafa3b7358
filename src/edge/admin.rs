//! The operators' pages: metrics, health, the plan, explanations. What they show is made elsewhere.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq as _;

use super::listener::{Handler, Peer};
use crate::model::{Body, Secret};

/// What the pages show.
pub trait Console: Send + Sync + 'static {
    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> Vec<u8>;
    /// Whether the gate takes requests.
    fn is_ready(&self) -> bool;
    /// The plan, secrets masked.
    fn config(&self) -> String;
    /// How the request `GET /path?query` is understood, as JSON.
    ///
    /// # Errors
    /// What is wrong with the request as written.
    fn explain(&self, request: &str) -> Result<String, String>;
    /// Who asked what, what it cost and what it saved, as JSON.
    fn usage(&self) -> String;
    /// Does to an account what the path after `/accounts/` and the query say; says as JSON what was done.
    ///
    /// # Errors
    /// What is wrong with them.
    fn account(&self, path: &str, query: &str) -> Result<String, String>;
    /// Erases what the query names; says as JSON how many entries went.
    ///
    /// # Errors
    /// What is wrong with the query.
    fn purge(&self, query: &str) -> Result<String, String>;
}

/// The handler of the admin listener.
pub struct Admin {
    /// What the pages show.
    pub console: Arc<dyn Console>,
    /// What callers must present, if anything; replaced by a reload.
    pub token: ArcSwapOption<Secret>,
}

/// The pages, for those who ask for another.
const PAGES: &str = "/metrics /livez /readyz /usage /config /explain?request=GET%20/path /purge?request=GET%20/path /accounts/NAME/pause?for=10m\n";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Handler for Admin {
    type Body = Body;

    async fn handle(&self, request: Request<Body>, _: &Peer) -> Response<Body> {
        match self.answer(&request) {
            Answered::Now(page) => page,
            Answered::Purging => self.purge(request.uri().query().unwrap_or_default()).await,
        }
    }
}

/// What became of a request.
enum Answered {
    /// Its answer.
    Now(Response<Body>),
    /// It purges, which takes as long as there are entries.
    Purging,
}

impl Admin {
    fn answer(&self, request: &Request<Body>) -> Answered {
        match (request.uri().path(), request.method()) {
            ("/purge", &Method::POST) if self.admits(request.headers()) => Answered::Purging,
            _ => Answered::Now(self.page(request)),
        }
    }

    /// Erases what the query names, beside the workers that answer requests: it may have to look at every entry.
    async fn purge(&self, query: &str) -> Response<Body> {
        let (console, query) = (self.console.clone(), query.to_owned());
        match tokio::task::spawn_blocking(move || console.purge(&query)).await {
            Ok(Ok(purged)) => page(StatusCode::OK, JSON, purged),
            Ok(Err(mistake)) => page(StatusCode::BAD_REQUEST, TEXT, mistake + "\n"),
            Err(_) => {
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "purging met a mistake of this program\n")
            }
        }
    }

    fn page(&self, request: &Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/livez" if get => return page(StatusCode::OK, TEXT, "alive\n"),
            "/readyz" if get && self.console.is_ready() => return page(StatusCode::OK, TEXT, "ready\n"),
            "/readyz" if get => return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
            _ => {}
        }
        if !self.admits(request.headers()) {
            let mut refused = page(
                StatusCode::UNAUTHORIZED,
                TEXT,
                "send the admin token as `Authorization: Bearer TOKEN`\n",
            );
            let challenge = HeaderValue::from_static("Bearer realm=\"tollgate admin\"");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return refused;
        }
        match path {
            "/metrics" | "/config" | "/explain" | "/usage" if !get => {
                let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "this page is read with GET\n");
                refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                refused
            }
            "/metrics" => {
                page(StatusCode::OK, crate::state::metrics::Metrics::TEXT_FORMAT, self.console.metrics())
            }
            "/usage" => page(StatusCode::OK, JSON, self.console.usage()),
            "/config" => page(StatusCode::OK, TEXT, self.console.config()),
            "/explain" => self.explain(request.uri().query().unwrap_or_default()),
            "/purge" => {
                let mut refused =
                    page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "purging is asked for with POST\n");
                refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                refused
            }
            _ if path.starts_with("/accounts/") && *request.method() != Method::POST => {
                let mut refused =
                    page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "accounts are changed with POST\n");
                refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                refused
            }
            _ if path.starts_with("/accounts/") => {
                let (path, query) = (&path["/accounts/".len()..], request.uri().query().unwrap_or_default());
                match self.console.account(path, query) {
                    Ok(done) => page(StatusCode::OK, JSON, done),
                    Err(mistake) => page(StatusCode::BAD_REQUEST, TEXT, mistake + "\n"),
                }
            }
            _ => page(StatusCode::NOT_FOUND, TEXT, format!("the admin listener has {PAGES}")),
        }
    }

    fn explain(&self, query: &str) -> Response<Body> {
        match asked_request(query).map(|request| self.console.explain(&request)) {
            Some(Ok(explanation)) => page(StatusCode::OK, JSON, explanation),
            Some(Err(mistake)) => page(StatusCode::BAD_REQUEST, TEXT, mistake + "\n"),
            None => page(
                StatusCode::BAD_REQUEST,
                TEXT,
                "say what to explain: /explain?request=GET%20/path%3Fa%3D1\n",
            ),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token.load_full() else { return true };
        let presented = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let presented =
            presented.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        presented.is_some_and(|(_, presented)| presented.trim_ascii().ct_eq(token.expose()).into())
    }
}

/// The decoded value of `request` in a query.
pub fn asked_request(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("request="))?.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

fn page(status: StatusCode, kind: &'static str, text: impl Into<Vec<u8>>) -> Response<Body> {
    let mut response = Response::new(Body::Full(text.into().into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
