//! How a request is understood, without asking anybody: for `tollgate explain`, the admin listener and `/-/explain`.
//!
//! It reads with the same rules that serve requests, so what is explained is what happens.

use std::fmt::{self, Write as _};

use http::{Method, Uri};
use serde_json::{Map, Value, json};

use crate::config::plan::{Plan, Route};
use crate::model::exchange::{ClientId, Question};
use crate::provision::reading;
use crate::rules::message::{Objection, normalized};
use crate::rules::params::{Params, Understood};
use crate::rules::routes::Routes;
use crate::rules::slices::counting;
use crate::rules::understanding::Reading;

/// Who reads the explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The operator, who may know which credentials are injected.
    Operator,
    /// A client, who may not.
    Client(ClientId),
}

/// What a request means, as facts to be shown: a list of titled parts in reading order.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation(Value);

impl Explanation {
    /// Explains `request`, written as `GET /path?query`; the method may be left out.
    ///
    /// # Errors
    /// What is wrong with the request as written.
    pub fn of(plan: &Plan, request: &str, reader: Reader) -> Result<Self, String> {
        let (method, uri) = parse(request)?;
        let routes = Routes::new(
            (0..)
                .zip(&plan.routes)
                .map(|(at, route)| (route.path.clone(), crate::model::exchange::RouteId(at))),
        );
        let route =
            routes.find(uri.path()).and_then(|at| plan.routes.get(at.place()).map(|route| (at, route)));
        let Some((at, route)) = route else {
            let paths: Vec<_> = plan.routes.iter().map(|route| route.path.to_string()).collect();
            return Ok(Self(json!({
                "request": format!("{method} {uri}"),
                "answer": "404 no-such-route",
                "routes": paths,
            })));
        };
        if let Reader::Client(client) = reader
            && !plan.allows(client, at.place())
        {
            return Ok(Self(json!({ "route": route.name, "answer": "403 route-forbidden" })));
        }
        if !route.methods.allow(&method) {
            return Ok(Self(json!({
                "route": route.name,
                "answer": "405 method-not-allowed",
                "allow": route.methods.to_string(),
            })));
        }
        Ok(Self(explain(plan, route, &method, &uri, reader)))
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.0)
    }
}

pub(crate) fn parse(request: &str) -> Result<(Method, Uri), String> {
    let request = request.trim();
    let (method, target) = match request.split_once(' ') {
        Some((method, target)) if !method.contains('/') => (method, target.trim()),
        _ => ("GET", request),
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
    if !target.starts_with('/') {
        return Err(format!("write the request as `GET /path?query`; `{target}` does not begin with `/`"));
    }
    // What a URL may not contain a careless caller may still send; here it is escaped as curl or a browser would.
    let escaped: String = target
        .chars()
        .flat_map(|char| match char {
            ' ' => "%20".chars().collect::<Vec<_>>(),
            '#' => "%23".chars().collect(),
            _ if char.is_control() || !char.is_ascii() || "\"<>\\^`{|}".contains(char) => {
                percent_encoding::utf8_percent_encode(
                    char.encode_utf8(&mut [0; 4]),
                    percent_encoding::NON_ALPHANUMERIC,
                )
                .to_string()
                .chars()
                .collect()
            }
            _ => vec![char],
        })
        .collect();
    let refused = |objection: Objection| format!("`{target}` is refused: {}", objection.why);
    let escaped = normalized(&escaped).map_err(refused)?.unwrap_or(escaped);
    let uri = escaped.parse().map_err(|error| format!("`{target}` is no path and query: {error}"))?;
    Ok((method, uri))
}

fn explain(plan: &Plan, route: &Route, method: &Method, uri: &Uri, reader: Reader) -> Value {
    let reading = reading(plan, route);
    let (question, understood) = reading.read(uri.path(), uri.query().unwrap_or_default());
    let mut explanation = Map::new();
    explanation.insert("route".into(), route.name.clone().into());
    if let (Some(understood), Some(params)) = (&understood, &route.params) {
        explanation.insert("parameters".into(), parameters(params, understood));
        if understood.unknown > 0 {
            explanation.insert(
                "dropped".into(),
                json!({ "unknown_names": understood.unknown, "first": understood.unknown_names }),
            );
        }
        if let Some(refusal) = understood.strict_refusal(params) {
            explanation.insert(
                "under_strict_handling".into(),
                json!({ "answer": "400 parameter-not-understood", "parameter": refusal.name, "expected": refusal.expected, "nearest": refusal.nearest }),
            );
        }
    }
    let blocks = blocks(&reading, route, method, &question);
    let upstream_request = match blocks.first() {
        Some(block) => upstream_request(plan, route, &Method::GET, block, reader),
        None => upstream_request(plan, route, method, &question, reader),
    };
    explanation.insert("upstream_request".into(), upstream_request);
    explanation.insert("key".into(), question.collection.as_ref().unwrap_or(&question.key).digest().into());
    if let Some(window) = question.window {
        let blocks: Vec<_> = blocks.iter().filter_map(|block| block.window).collect();
        let blocks: Vec<_> = blocks.iter().map(|block| format!("{} of {}", block.page, block.size)).collect();
        let blocks =
            if blocks.is_empty() { "none: forwarded as it is asked".into() } else { blocks.join(", ") };
        explanation
            .insert("window".into(), json!({ "page": window.page, "size": window.size, "blocks": blocks }));
    }
    explanation.insert("cache".into(), cache(route, method));
    explanation.insert("limits".into(), limits(plan, route, reader));
    Value::Object(explanation)
}

/// The blocks that a window is cut from, as they are asked for while nothing is known of the list or its upstream: a list
/// that has grown since needs others. None where the window is forwarded as it is asked.
fn blocks(reading: &Reading, route: &Route, method: &Method, question: &Question) -> Vec<Question> {
    let readable = matches!(*method, Method::GET | Method::HEAD);
    let Some(pages) = route.pages.as_ref().filter(|_| route.cache.enabled && readable) else {
        return Vec::new();
    };
    let size = u64::from(pages.block);
    let span = question.window.and_then(|window| pages.counting.span(window));
    let Some(span) = span.filter(|span| span.end - span.start <= size * u64::from(pages.max_blocks)) else {
        return Vec::new();
    };
    let window = |block| pages.counting.window(size * block, size);
    counting::blocks(&span, size).filter_map(|block| reading.with_window(question, window(block))).collect()
}

fn parameters(params: &Params, understood: &Understood) -> Value {
    let mut list = Vec::new();
    for (at, name) in params.names().enumerate() {
        let changes: Vec<_> = understood.changes.iter().filter(|change| change.param == at).collect();
        let value = understood.values.get(at).and_then(Option::as_deref);
        for change in &changes {
            list.push(json!({ "name": name, "raw": change.from, "canonical": change.to, "rule": change.rule.as_str() }));
        }
        if changes.is_empty()
            && let Some(value) = value
        {
            list.push(json!({ "name": name, "canonical": value }));
        }
    }
    list.into()
}

fn upstream_request(
    plan: &Plan,
    route: &Route,
    method: &Method,
    question: &Question,
    reader: Reader,
) -> Value {
    let Some(upstream) = plan.upstreams.get(route.upstream) else { return Value::Null };
    let mut request = Map::new();
    let url = match reader {
        Reader::Operator => format!("{}://{}{}", upstream.scheme, upstream.authority, question.target()),
        Reader::Client(_) => question.target().to_owned(),
    };
    request.insert("line".into(), format!("{method} {url}").into());
    if let (Reader::Operator, Some(account)) = (reader, plan.account_of(route)) {
        let headers: Vec<_> = account.headers.iter().map(|(name, _)| name.as_str()).collect();
        let query: Vec<_> = account.query.iter().map(|(name, _)| name.as_str()).collect();
        request.insert("account".into(), account.name.clone().into());
        request.insert("credentials".into(), json!({ "headers": headers, "query": query }));
    }
    Value::Object(request)
}

fn cache(route: &Route, method: &Method) -> Value {
    if !route.cache.enabled {
        return "off: every request is forwarded".into();
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return format!("{method} is forwarded").into();
    }
    let seconds = |duration: Option<std::time::Duration>| duration.map(|duration| format!("{duration:?}"));
    json!({
        "ttl": seconds(route.cache.ttl),
        "stale_while_revalidate": seconds(route.cache.stale_while_revalidate),
        "stale_if_error": seconds(route.cache.stale_if_error),
    })
}

fn limits(plan: &Plan, route: &Route, reader: Reader) -> Value {
    let mut limits = Map::new();
    if let Reader::Client(client) = reader
        && let Some(limit) = plan.clients.get(client.place()).and_then(|client| client.rate_limit)
    {
        limits.insert(
            "client".into(),
            format!("{} per {:?}, burst {}", limit.requests, limit.per, limit.burst).into(),
        );
    }
    if let Some(account) = plan.account_of(route) {
        let windows: Vec<_> =
            account.quota.iter().map(|window| format!("{} per {}", window.requests, window.per)).collect();
        let quota = if windows.is_empty() { "none".into() } else { windows.join(", ") };
        limits.insert("account_quota".into(), quota.into());
        limits.insert("max_wait".into(), format!("{:?}", account.max_wait).into());
    }
    if let Some(upstream) = plan.upstreams.get(route.upstream) {
        limits.insert("max_concurrent".into(), upstream.max_concurrent.into());
    }
    Value::Object(limits)
}

impl Explanation {
    /// Which route would take the request, if one does.
    pub fn route(&self) -> Option<&str> {
        self.0.get("route")?.as_str()
    }

    /// With what a running gate has learned of the route's upstream, as names and what is so.
    #[must_use]
    pub fn with_learned(mut self, learned: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let learned: Map<_, _> = learned.into_iter().map(|(name, fact)| (name.into(), fact.into())).collect();
        if let (Value::Object(parts), false) = (&mut self.0, learned.is_empty()) {
            parts.insert("learned".into(), learned.into());
        }
        self
    }
}

impl fmt::Display for Explanation {
    /// For a person at a terminal: one fact a line, parameters as `name: raw → canonical (rule)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::Object(parts) = &self.0 else { return write!(f, "{}", self.0) };
        for (title, part) in parts {
            let title = title.replace('_', " ");
            match part {
                Value::Array(items) => {
                    writeln!(f, "{title}")?;
                    for item in items {
                        writeln!(f, "  {}", line(item))?;
                    }
                }
                Value::Object(facts) => {
                    writeln!(f, "{title}")?;
                    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_null()) {
                        writeln!(f, "  {:<22} {}", name.replace('_', " "), line(fact))?;
                    }
                }
                fact => writeln!(f, "{title:<24} {}", line(fact))?,
            }
        }
        Ok(())
    }
}

fn line(fact: &Value) -> String {
    match fact {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(line).collect::<Vec<_>>().join(", "),
        Value::Object(parameter) if parameter.contains_key("canonical") => {
            let text = |name: &str| parameter.get(name).and_then(Value::as_str);
            let mut line = text("name").unwrap_or_default().to_owned() + ": ";
            if let Some(raw) = text("raw") {
                // Writing to a String cannot fail.
                let _ = write!(line, "{raw:?} → ");
            }
            line += text("canonical").unwrap_or("left out");
            if let Some(rule) = text("rule") {
                let _ = write!(line, " ({rule})");
            }
            line
        }
        Value::Object(facts) => {
            let facts: Vec<_> = facts.iter().map(|(name, fact)| format!("{name}: {}", line(fact))).collect();
            facts.join("; ")
        }
        other => other.to_string(),
    }
}
