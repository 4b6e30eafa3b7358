//! The way back: a plan as the text that would make it, every default filled in and every secret masked.

mod pages;

use std::fmt::{Display, Write};
use std::time::Duration;

use super::Plan;
use super::plan::{
    Account, Client, Credential, ForwardHeaders, Http2, Identity, LogFormat, Methods, RateLimit, Roots,
    Route, SecretSource, Upstream,
};
use super::server::FIELDS;
use super::shown::{budget, quota_window, usable};
use super::values::{duration_text, size_text};
use crate::rules::params::{Bare, Below, Kind, OnIgnored, Param, Params, Unknown};
use crate::rules::reuse::Policy;
use crate::rules::slices::Pointer;

impl Plan {
    /// The whole plan as TOML, for `tollgate check` and `GET /config`. It holds no secret, only where each comes from.
    pub fn describe(&self) -> String {
        let mut page = Page::default();
        self.gate(&mut page);
        for (place, upstream) in self.upstreams.iter().enumerate() {
            describe_upstream(upstream, &mut page);
            for account in self.accounts.iter().filter(|account| account.upstream == place) {
                describe_account(upstream, account, &mut page);
            }
        }
        for client in
            self.clients.iter().filter(|client| client.key.is_some() || client.certificate.is_some())
        {
            self.client(client, &mut page);
        }
        for route in &self.routes {
            self.route(route, &mut page);
        }
        for warning in &self.warnings {
            page.comment(&format!("warning: {warning}"));
        }
        page.0
    }

    fn gate(&self, page: &mut Page) {
        let server = &self.server;
        page.header("[server]");
        page.text("listen", server.listen);
        page.line("allow_anonymous", server.allow_anonymous);
        page.maybe("rate_limit", server.rate_limit.map(rate));
        let fields = FIELDS.iter().find(|(_, fields)| *fields == server.rate_limit_fields);
        page.text("rate_limit_fields", fields.map_or("", |(word, _)| word));
        page.duration("header_timeout", server.header_timeout);
        page.duration("body_timeout", server.body_timeout);
        page.duration("body_total_timeout", server.body_total_timeout);
        page.duration("idle_timeout", server.idle_timeout);
        page.size("max_head_bytes", server.max_head_bytes);
        page.line("max_headers", server.max_headers);
        page.size("max_target_bytes", server.max_target_bytes);
        page.maybe("hosts", server.hosts.as_ref().map(|hosts| format!("{hosts:?}")));
        page.maybe("public_url", server.public_url.as_deref().map(quote));
        let proxies: Vec<String> = server.trusted_proxies.iter().map(ToString::to_string).collect();
        page.line("trusted_proxies", format!("{proxies:?}"));
        page.size("max_body_bytes", server.max_body_bytes);
        page.line("max_connections", server.max_connections);
        page.line("max_waiters_per_key", server.max_waiters_per_key);
        page.line("max_waiters", server.max_waiters);
        page.line("max_streams", server.max_streams);
        page.duration("drain_delay", server.drain_delay);
        page.duration("drain_timeout", server.drain_timeout);
        if let Some(tls) = &server.tls {
            page.header("[server.tls]");
            identity("", Some(&tls.identity), page);
            page.maybe("client_ca", tls.client_ca.as_ref().map(|path| quote(path.display())));
        }
        page.header("[admin]");
        page.text("listen", self.admin.listen);
        page.credential("token", self.admin.token.as_ref());
        page.header("[log]");
        page.text("format", if self.log.format == LogFormat::Json { "json" } else { "pretty" });
        page.text("level", &self.log.level);
        page.header("[cache]");
        page.size("max_bytes", usize::try_from(self.cache.max_bytes).unwrap_or(usize::MAX));
        page.size("max_entry_bytes", self.cache.max_entry_bytes);
        page.size("max_inflight_bytes", self.cache.max_inflight_bytes);
        page.header("[state]");
        page.maybe("dir", self.state.dir.as_ref().map(|dir| quote(dir.display())));
        page.line("instances", self.state.instances);
    }

    fn client(&self, client: &Client, page: &mut Page) {
        page.header(&format!("[clients.{}]", key(&client.name)));
        page.credential("key", client.key.as_ref());
        page.maybe("certificate", client.certificate.as_deref().map(quote));
        page.maybe("rate_limit", client.rate_limit.map(rate));
        page.maybe("budget", client.budget.map(budget));
        page.line("weight", client.weight);
        page.text("priority", client.priority.as_str());
        let names = |routes: &Vec<usize>| {
            list(routes.iter().filter_map(|route| self.routes.get(*route)).map(|route| route.name.as_str()))
        };
        page.maybe("routes", client.routes.as_ref().map(names));
        page.line("strict", client.strict);
        page.line("may_refresh", client.may_refresh);
    }

    fn route(&self, route: &Route, page: &mut Page) {
        page.header("[[routes]]");
        page.text("name", &route.name);
        page.text("path", &route.path);
        page.text("upstream", self.upstreams.get(route.upstream).map_or("", |upstream| &upstream.name));
        let named = self.account_of(route).filter(|_| route.pool.is_empty());
        page.maybe("account", named.map(|account| quote(&account.name)));
        page.maybe("upstream_path", route.upstream_path.as_deref().map(quote));
        page.line(
            "methods",
            match &route.methods {
                Methods::All => quote("all"),
                Methods::List(methods) => list(methods),
            },
        );
        page.line(
            "forward_headers",
            match &route.forward_headers {
                ForwardHeaders::All => quote("all"),
                ForwardHeaders::List(names) => list(names),
            },
        );
        page.duration("timeout", route.timeout);
        page.text("pauses", if route.pauses_alone { "route" } else { "account" });
        if let Some(params) = &route.params {
            page.text("unknown", if route.unknown == Unknown::Pass { "pass" } else { "drop" });
            page.header("[routes.params]");
            for param in (0..).map_while(|place| params.param(place)) {
                page.line(&key(&param.name), describe_param(param));
            }
        }
        describe_policy(&route.cache, &route.tags, page);
        if let (Some(pages), Some(params)) = (&route.pages, &route.params) {
            pages::describe(pages, params, page);
        }
    }
}

fn describe_upstream(upstream: &Upstream, page: &mut Page) {
    page.header(&format!("[upstreams.{}]", key(&upstream.name)));
    page.text("url", format_args!("{}://{}{}", upstream.scheme, upstream.authority, upstream.base_path));
    page.duration("connect_timeout", upstream.connect_timeout);
    page.duration("timeout", upstream.timeout);
    page.duration("total_timeout", upstream.total_timeout);
    page.line("breaker_failures", upstream.breaker_failures);
    page.line("max_concurrent", upstream.max_concurrent);
    page.duration("idle_timeout", upstream.idle_timeout);
    page.line("same_data", upstream.same_data);
    let versions = [(Http2::Negotiated, "negotiated"), (Http2::Never, "never"), (Http2::Always, "always")];
    let version = versions.iter().find(|(version, _)| *version == upstream.http2);
    page.text("http2", version.map_or("", |(_, word)| word));
    if upstream.scheme == http::uri::Scheme::HTTPS {
        page.text("tls.roots", if upstream.tls.roots == Roots::Platform { "platform" } else { "bundled" });
        page.maybe("tls.ca", upstream.tls.ca.as_ref().map(|path| quote(path.display())));
        identity("tls.", upstream.tls.identity.as_deref(), page);
    }
}

fn identity(at: &str, identity: Option<&Identity>, page: &mut Page) {
    page.maybe(&format!("{at}certificate"), identity.map(|identity| quote(identity.certificate.display())));
    page.maybe(&format!("{at}key"), identity.map(|identity| quote(identity.key.display())));
}

fn describe_account(upstream: &Upstream, account: &Account, page: &mut Page) {
    page.header(&format!("[upstreams.{}.accounts.{}]", key(&upstream.name), key(&account.name)));
    for (name, credential) in &account.headers {
        page.credential(&format!("headers.{}", key(name.as_str())), Some(credential));
    }
    for (name, credential) in &account.query {
        page.credential(&format!("query.{}", key(name)), Some(credential));
    }
    match &account.quota[..] {
        [] => page.text("quota", "none"),
        windows => page.line("quota", format_args!("[{}]", joined(windows.iter().map(quota_window)))),
    }
    page.duration("max_wait", account.max_wait);
    page.line("max_waiting", account.max_waiting);
    page.duration("max_pause", account.max_pause);
    page.maybe("price", account.price.map(number));
    if !account.quota.is_empty() {
        let usable = |millis| usable(upstream, account, Duration::from_millis(millis));
        page.comment(&format!(
            "usable: {:.4} calls a second at 50ms an answer, {:.4} at 200ms, {:.4} at 1s",
            usable(50),
            usable(200),
            usable(1_000)
        ));
    }
}

fn describe_policy(policy: &Policy, tags: &[(Pointer, String)], page: &mut Page) {
    page.header("[routes.cache]");
    page.line("enabled", policy.enabled);
    page.maybe("ttl", policy.ttl.map(duration));
    for (status, ttl) in &policy.ttl_for {
        page.duration(&format!("ttl_for.{}", status.as_u16()), *ttl);
    }
    let aside = policy.overrides;
    let words = [("private", aside.private), ("no-cache", aside.no_cache), ("max-age=0", aside.max_age_0)];
    let words: Vec<_> = words.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect();
    page.maybe("ttl_overrides", Some(list(&words)).filter(|_| !words.is_empty()));
    page.line("heuristics", policy.heuristics);
    page.maybe("max_ttl", policy.max_ttl.map(duration));
    page.maybe("stale_while_revalidate", policy.stale_while_revalidate.map(duration));
    page.maybe("stale_if_error", policy.stale_if_error.map(duration));
    page.duration("stale_if_unreachable", policy.stale_if_unreachable);
    page.line("honour_request_directives", policy.honour_request_directives);
    let codings: Vec<_> = policy.compress.iter().map(|coding| coding.as_str()).collect();
    page.line("compress", list(&codings));
    let known = Policy::default().identifying;
    let declared: Vec<_> = policy.identifying.iter().filter(|name| !known.contains(name)).collect();
    page.maybe("credential_headers", Some(list(&declared)).filter(|_| !declared.is_empty()));
    for (pointer, name) in tags {
        page.text(&format!("tags.{}", key(&pointer.to_string())), name);
    }
}

fn describe_param(param: &Param) -> String {
    let mut keys = Vec::new();
    let mut add =
        |name: &str, value: Option<String>| keys.extend(value.map(|value| format!("{name} = {value}")));
    let below = |below: &Below| Some(quote(if *below == Below::Default { "default" } else { "clamp" }));
    let kind = match &param.kind {
        Kind::Integer { min, max, below: rule } => {
            add("min", min.map(|min| min.to_string()));
            add("max", max.map(|max| max.to_string()));
            add("below", below(rule).filter(|_| min.is_some()));
            "integer"
        }
        Kind::Number { min, max, below: rule } => {
            add("min", min.map(number));
            add("max", max.map(number));
            add("below", below(rule).filter(|_| min.is_some()));
            "number"
        }
        Kind::Boolean => "boolean",
        Kind::Enum { values } => {
            add("values", Some(list(values)));
            "enum"
        }
        Kind::Datetime => "datetime",
        Kind::String { max_length } => {
            add("max_length", max_length.map(|length| length.to_string()));
            "string"
        }
        Kind::Uuid => "uuid",
        Kind::Phone { bare, country } => {
            add("bare", Some(quote(if *bare == Bare::Keep { "keep" } else { "international" })));
            add("country", country.as_deref().map(quote));
            "phone"
        }
        Kind::Email => "email",
        Kind::Prefixed { prefix } => {
            add("prefix", Some(quote(prefix)));
            "prefixed"
        }
        Kind::PrefixedUuid { prefix } => {
            add("prefix", Some(quote(prefix)));
            "prefixed_uuid"
        }
        Kind::List { of } => {
            add("of", Some(list(of)));
            "list"
        }
    };
    // Numbers of any precision stay text: TOML's have 64 bits.
    let is_plain = matches!(param.kind, Kind::Integer { .. } | Kind::Boolean);
    add(
        "default",
        param.default.as_deref().map(|default| if is_plain { default.into() } else { quote(default) }),
    );
    add("on_ignored", Some(quote(if param.on_ignored == OnIgnored::Refuse { "refuse" } else { "ignore" })));
    format!("{{ type = {}, {} }}", quote(kind), keys.join(", "))
}

/// The text so far.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn header(&mut self, header: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.write(format_args!("{gap}{header}\n"));
    }

    fn comment(&mut self, comment: &str) {
        self.write(format_args!("# {comment}\n"));
    }

    fn line(&mut self, key: &str, value: impl Display) {
        self.write(format_args!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.line(key, quote(value));
    }

    fn maybe(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.line(key, duration(value));
    }

    fn size(&mut self, key: &str, value: usize) {
        self.text(key, size_text(value));
    }

    fn credential(&mut self, key: &str, credential: Option<&Credential>) {
        let Some(credential) = credential else { return };
        let state = if credential.is_placeholder() { "not read" } else { "set, masked" };
        match &credential.source {
            SecretSource::Env(name) => self.line(key, format_args!("{{ env = {} }}  # {state}", quote(name))),
            SecretSource::File(path) => {
                self.line(key, format_args!("{{ file = {} }}  # {state}", quote(path.display())));
            }
            SecretSource::Literal => self.line(key, "\"***\"  # literal, masked"),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.0.write_fmt(text);
    }
}

/// A basic string of TOML.
pub(super) fn quote(value: impl Display) -> String {
    let mut quoted = String::from('"');
    for char in value.to_string().chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(char))),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// A key, quoted where it must be.
fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if bare { name.into() } else { quote(name) }
}

fn joined(values: impl IntoIterator<Item = String>) -> String {
    values.into_iter().collect::<Vec<_>>().join(", ")
}

fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    format!("[{}]", joined(values.into_iter().map(quote)))
}

pub(super) fn duration(value: Duration) -> String {
    quote(duration_text(value))
}

/// As TOML writes a float; `{:?}` keeps the point of a whole one.
fn number(value: f64) -> String {
    format!("{value:?}")
}

fn rate(limit: RateLimit) -> String {
    let RateLimit { requests, per, burst, shadow } = limit;
    let shadow = if shadow { ", shadow = true" } else { "" };
    format!("{{ requests = {requests}, per = {}, burst = {burst}{shadow} }}", duration(per))
}

fn name(params: &Params, place: usize) -> String {
    params.param(place).map(|param| param.name.clone()).unwrap_or_default()
}
