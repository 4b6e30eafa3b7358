//! What right configurations mean.

use std::time::Duration;

use http::{HeaderName, Method};

use super::*;
use crate::config::WithoutSecrets;
use crate::config::plan::{ForwardHeaders, LogFormat, Methods, Pages, RateLimit, SecretSource};
use crate::model::urgency::Class;
use crate::rules::params::{Kind, Unknown};
use crate::rules::reuse::Policy;
use crate::rules::slices::{Counting, Follow, Pointer, Role, Shape};
use crate::rules::window::WindowRule;

#[test]
fn the_shipped_configuration_is_the_octopush_gate() {
    let plan = plan(SHIPPED);
    assert_eq!(plan.server.listen.to_string(), "127.0.0.1:8080");
    let upstream = &plan.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.base_path.as_str()), ("octopush", "/v1/public"));
    assert_eq!(upstream.authority, "api.octopush.com");
    let account = &plan.accounts[0];
    let names: Vec<_> = account.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["api-key", "api-login"]);
    assert_eq!(account.headers[0].1.value.expose(), b"hunter2-key");
    assert_eq!(account.headers[1].1.source, SecretSource::Env("OCTOPUSH_API_LOGIN".into()));
    let [route] = &plan.routes[..] else { panic!("one route") };
    assert_eq!((route.upstream, route.account, route.timeout), (0, Some(0), Duration::from_secs(12)));
    let params = route.params.as_ref().expect("has parameters");
    let declared = ["page", "per_page", "phone_number", "email", "facebook_id", "conversation_id", "contact"];
    assert_eq!(params.names().collect::<Vec<_>>(), declared);
    let window: Vec<_> =
        (0..7).filter(|place| params.param(*place).is_some_and(|param| param.window)).collect();
    assert_eq!(window, [0, 1]);
    assert_eq!(params.understand("per-page=20.0&PAGE=abc&utm=x").query, "page=1&per_page=20");
    let pages = Pages {
        page: 0,
        size: 1,
        counting: Counting::Pages { first: 1 },
        block: 100,
        shape: Shape { id: Pointer::parse("/message_id"), ..Shape::default() },
        headers: Vec::new(),
        settled_ttl: Some(Duration::from_secs(300)),
        max_blocks: 4,
        walk_idle: Duration::from_secs(30),
        walk_total: Duration::from_secs(300),
    };
    assert_eq!(route.pages, Some(pages));
    assert_eq!(route.cache.ttl, Some(Duration::from_secs(30)));
    assert!(
        route.cache.overrides.private && route.cache.overrides.no_cache && !route.cache.overrides.max_age_0
    );
    assert_eq!(route.cache.stale_while_revalidate, Some(Duration::from_secs(60)));
    assert_eq!(route.cache.stale_if_error, Some(Duration::from_secs(600)));
    assert_eq!(plan.clients.len(), 1);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("upstreams.octopush.accounts.main: quota"));
}

#[test]
fn the_shipped_examples_in_comments_are_right_too() {
    let text = SHIPPED.replace("{ env = \"TOLLGATE_BILLING_KEY\" }", "{ env = \"KEY\" }");
    // A line of configuration in a comment is a header, or begins with a key and an equals sign.
    let is_example = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        line.starts_with("[clients")
            || (!key.is_empty() && !key.contains(|char| " `".contains(char)) && key != "tls.ca")
    };
    let text: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| is_example(line)).unwrap_or(line))
        .filter(|line| *line != "quota = \"none\"")
        .collect();
    let text = text.join("\n");
    let plan = plan(&text);
    assert_eq!(
        plan.clients[1].budget,
        Some(crate::config::plan::BudgetRule {
            window: WindowRule::new(5_000, Duration::from_secs(86_400)),
            shadow: false
        })
    );
    assert_eq!(plan.clients[1].routes, Some(vec![0]));
    assert_eq!(plan.accounts[0].quota.len(), 2);
    assert_eq!(plan.accounts[0].price, Some(0.002));
    assert_eq!(plan.server.rate_limit.map(|rate| rate.burst), Some(100));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn without_secrets_the_shipped_configuration_can_be_shown() {
    let plan = load(SHIPPED, "config.toml", &WithoutSecrets).expect("loads");
    assert!(plan.warnings.iter().any(|warning| warning.contains("secrets were not read")));
    let described = plan.describe();
    assert!(
        described.contains("headers.api-key = { env = \"OCTOPUSH_API_KEY\" }  # not read"),
        "{described}"
    );
    // Different clients get different placeholders, so that no key looks like another's.
    let clients = "[clients.a]\nkey = { env = \"A\" }\n[clients.b]\nkey = { file = \"A\" }\n[clients.c]\nkey = { file = \"a\" }";
    assert!(load(&format!("{BASE}{clients}"), "config.toml", &WithoutSecrets).is_ok());
}

#[test]
fn what_is_not_stated_has_its_default() {
    let plan = with("");
    let server = &plan.server;
    for (name, found, default) in [
        ("header_timeout", server.header_timeout, 10),
        ("body_timeout", server.body_timeout, 30),
        ("idle_timeout", server.idle_timeout, 60),
        ("drain_delay", server.drain_delay, 5),
        ("drain_timeout", server.drain_timeout, 25),
        ("connect_timeout", plan.upstreams[0].connect_timeout, 2),
        ("timeout", plan.upstreams[0].timeout, 10),
        ("upstream idle_timeout", plan.upstreams[0].idle_timeout, 60),
        ("route timeout", plan.routes[0].timeout, 10),
    ] {
        assert_eq!(found, Duration::from_secs(default), "{name}");
    }
    for (name, found, default) in [
        ("max_head_bytes", server.max_head_bytes, 64 << 10),
        ("max_headers", server.max_headers, 100),
        ("max_target_bytes", server.max_target_bytes, 8 << 10),
        ("max_body_bytes", server.max_body_bytes, 8 << 20),
        ("max_connections", server.max_connections, 16_384),
        ("max_entry_bytes", plan.cache.max_entry_bytes, 8 << 20),
        ("max_inflight_bytes", plan.cache.max_inflight_bytes, 64 << 20),
        ("max_concurrent", plan.upstreams[0].max_concurrent, 16),
    ] {
        assert_eq!(found, default, "{name}");
    }
    assert_eq!(plan.cache.max_bytes, 256 << 20);
    assert_eq!(server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(plan.admin.listen.to_string(), "127.0.0.1:9090");
    assert!(!server.allow_anonymous && server.rate_limit.is_none() && plan.admin.token.is_none());
    assert_eq!((plan.log.format, plan.log.level.as_str()), (LogFormat::Pretty, "info"));
    let route = &plan.routes[0];
    assert_eq!(route.methods, Methods::List(vec![Method::GET, Method::HEAD]));
    let ForwardHeaders::List(names) = &route.forward_headers else { panic!("a list") };
    assert_eq!(names, &["accept", "accept-language", "content-type"]);
    assert_eq!(route.cache, Policy::default());
    assert_eq!((route.unknown, route.account), (Unknown::Drop, None));
    assert!(route.params.is_none() && route.pages.is_none() && route.upstream_path.is_none());
    let plan = with("[upstreams.u.accounts.a]\nquota = \"none\"");
    assert_eq!((plan.accounts[0].max_wait, plan.accounts[0].max_waiting), (Duration::from_secs(2), 1_000));
    assert_eq!((plan.routes[0].account, plan.routes[0].timeout), (Some(0), Duration::from_secs(12)));
}

#[test]
fn defaults_give_way_to_what_was_stated() {
    let plan = with("[server]\ndrain_timeout = \"2s\"\n[cache]\nmax_bytes = \"1MiB\"");
    assert_eq!(plan.server.drain_delay, Duration::from_millis(400));
    assert_eq!(plan.cache.max_entry_bytes, 1 << 20);
    assert_eq!(
        with("[cache]\nmax_bytes = \"1GiB\"\nmax_entry_bytes = \"100MiB\"").cache.max_inflight_bytes,
        100 << 20
    );
}

#[test]
fn every_key_is_read() {
    let plan = with(
        r#"account = "a"
upstream_path = "/v2/r"
methods = ["GET", "POST", "GET"]
forward_headers = ["accept", "x-trace"]
timeout = "3s"
unknown = "pass"
[routes.params]
z = { type = "integer", default = 1, min = 1, max = 9, below = "default", on_ignored = "refuse" }
y = { type = "number", min = 0, max = 1.5, default = 0.5 }
x = { type = "enum", values = ["a", "b"], default = "a" }
w = { type = "string", max_length = 10 }
v = { type = "phone", bare = "keep", country = "33" }
u = { type = "boolean", default = true }
t = "datetime"
s = "uuid"
size = { type = "integer", default = 10 }
l = { type = "list", of = ["s", "v"] }
[routes.cache]
ttl = "1m"
ttl_for = { 404 = "5s", 301 = "1d" }
ttl_overrides = ["max-age=0"]
max_ttl = "1h"
stale_if_unreachable = "0s"
honour_request_directives = true
credential_headers = ["x-user"]
tags = { "/a/b" = "v" }
[routes.pages]
page = "z"
size = "size"
block = 50
first = 0
id = "/id"
items = "/list/items"
members = { total = "/list/total", next = "/links/next", more = "/more", constant = ["/object", "/a~1b"] }
links = "page"
headers = { total = "x-total-count", page = "x-page" }
settled_ttl = "5m"
[[routes]]
name = "below"
path = "/below/*"
upstream = "u"
account = "b"
upstream_path = "/other/"
methods = "all"
forward_headers = "all"
cache.enabled = false
[upstreams.u.accounts.a]
headers.X-Key = { file = "secret" }
query.token = "hunter2-literal"
quota = [{ requests = 10, per = "1s" }, { requests = 100, per = "24h" }]
max_wait = "0s"
max_waiting = 0
price = 1
[upstreams.u.accounts.b]
quota = "none"
[upstreams.s]
url = "https://[::1]:8443/base/"
tls.ca = "ca.pem"
[clients.c]
key = { env = "KEY" }
rate_limit = { requests = 5, per = "1s" }
budget = { requests = 9, per = "month" }
weight = 3
priority = "batch"
routes = ["below"]
strict = true
may_refresh = true
[server]
listen = "0.0.0.0:80"
public_url = "https://gate.example/api/"
rate_limit = { requests = 1, per = "1s", burst = 7 }
[admin]
listen = "0.0.0.0:81"
token = "hunter2-token"
[log]
format = "json"
level = "info,tollgate=debug"
"#,
    );
    let (route, below) = (&plan.routes[0], &plan.routes[1]);
    let params = route.params.as_ref().expect("has parameters");
    assert_eq!(params.names().collect::<Vec<_>>(), ["z", "y", "x", "w", "v", "u", "t", "s", "size", "l"]);
    assert!(matches!(params.param(9).expect("is there").kind, Kind::List { .. }));
    assert_eq!(params.param(5).expect("is there").default.as_deref(), Some("true"));
    assert_eq!(route.methods, Methods::List(vec![Method::GET, Method::POST]));
    assert_eq!(route.unknown, Unknown::Pass);
    assert_eq!(route.cache.ttl_for.len(), 2);
    let at = |text| Pointer::parse(text).expect("is a pointer");
    let pages = Pages {
        page: 0,
        size: 8,
        counting: Counting::Pages { first: 0 },
        block: 50,
        shape: Shape {
            items: Some(at("/list/items")),
            members: vec![
                (Role::Total, at("/list/total")),
                (Role::More, at("/more")),
                (Role::Next, at("/links/next")),
                (Role::Constant, at("/object")),
                (Role::Constant, at("/a~1b")),
            ],
            follow: Follow::Page,
            id: Some(at("/id")),
        },
        headers: vec![
            (Role::Total, HeaderName::from_static("x-total-count")),
            (Role::Page, HeaderName::from_static("x-page")),
        ],
        settled_ttl: Some(Duration::from_secs(300)),
        max_blocks: 4,
        walk_idle: Duration::from_secs(30),
        walk_total: Duration::from_secs(300),
    };
    assert_eq!(route.pages, Some(pages));
    assert_eq!(route.tags, [(at("/a/b"), "v".into())]);
    assert_eq!((below.account, below.upstream_path.as_deref()), (Some(1), Some("/other/")));
    assert_eq!((&below.methods, &below.forward_headers), (&Methods::All, &ForwardHeaders::All));
    assert!(!below.cache.enabled);
    assert_eq!(plan.server.public_url.as_deref(), Some("https://gate.example/api"));
    let account = &plan.accounts[0];
    assert_eq!(account.headers[0].1.value.expose(), b"hunter2-file");
    assert_eq!((account.quota.len(), account.max_waiting, account.price), (2, 0, Some(1.0)));
    assert_eq!((plan.upstreams[1].base_path.as_str(), plan.upstreams[1].tls.extra_roots.len()), ("/base", 1));
    assert_eq!(plan.upstreams[1].authority, "[::1]:8443");
    let client = &plan.clients[1];
    assert_eq!(
        client.rate_limit,
        Some(RateLimit { requests: 5, per: Duration::from_secs(1), burst: 5, shadow: false })
    );
    assert_eq!(client.budget.map(|budget| budget.window.per), Some(Duration::from_secs(31 * 86_400)));
    assert_eq!((client.weight, client.priority, &client.routes), (3, Class::Batch, &Some(vec![1])));
    assert!(plan.warnings.iter().any(|warning| warning.contains("upstream `s` is used by no route")));

    // No formatting shows a secret, and what `describe` writes means the same plan.
    let described = plan.describe();
    for text in [&described, &format!("{plan:?}"), &format!("{plan:#?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("104, 117, 110, 116, 101, 114, 50"), "bytes of a secret: {text}");
    }
    let again = super::plan(&described);
    assert_eq!(again.describe(), described);
}

#[test]
fn a_window_may_be_an_offset() {
    let plan = with(
        "params.skip = { type = \"integer\", default = 0 }\nparams.n = { type = \"integer\", default = 20 }\npages = { offset = \"skip\", size = \"n\" }",
    );
    let pages = plan.routes[0].pages.as_ref().expect("has pages");
    assert_eq!((pages.page, pages.size, pages.counting), (0, 1, Counting::Items));
    assert_eq!(super::plan(&plan.describe()).routes[0].pages, plan.routes[0].pages);
}

#[test]
fn a_secret_is_read_again() {
    let plan = with("[clients.c]\nkey = { file = \"secret\" }\n[clients.d]\nkey = \"literal\"");
    let mut later = world();
    later.files.insert("secret", b"rotated\r\n".to_vec());
    let reload = |client: usize, environment: &Fake| {
        let key = plan.clients[client].key.as_ref().expect("has a key");
        key.reload(environment, crate::config::Place::Header).map(|secret| secret.expose().to_vec())
    };
    assert_eq!(reload(1, &later), Some(b"rotated".to_vec()));
    assert_eq!(reload(2, &later), Some(b"literal".to_vec()));
    later.files.insert("secret", b"\n".to_vec());
    assert_eq!(reload(1, &later), None);
    later.files.remove("secret");
    assert_eq!(reload(1, &later), None);
}

#[test]
fn credentials_in_clear_are_warned_of() {
    let upstream = |url: &str| {
        format!(
            "[upstreams.x]\nurl = \"{url}\"\n[upstreams.x.accounts.a]\nheaders.k = \"hunter2\"\nquota = \"none\""
        )
    };
    for (url, warned) in
        [("http://h", true), ("https://h", false), ("http://localhost:1", false), ("http://[::1]:1", false)]
    {
        let plan = with(&upstream(url));
        assert_eq!(plan.warnings.iter().any(|warning| warning.contains("in clear")), warned, "{url}");
    }
}
