//! `[server]`, `[admin]`, `[log]` and `[cache]`: the gate itself.

use std::time::Duration;

use super::Environment;
use super::mistakes::Wrong;
use super::plan::{Admin, Cache, Fields, Log, LogFormat, Server, is_loopback};
use super::reader::{Item, Table};
use super::secrets::{Place, credential};
use super::tls;
use super::values;
use crate::rules::forwarded::{Network, NoNetwork};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// `rate_limit_fields`
pub(super) const FIELDS: [(&str, Fields); 4] = [
    ("standard", Fields { standard: true, legacy: false }),
    ("x", Fields { standard: false, legacy: true }),
    ("both", Fields { standard: true, legacy: true }),
    ("none", Fields { standard: false, legacy: false }),
];

/// `[server]`
pub(super) fn server(mut table: Table<'_>, has_clients: bool, environment: &dyn Environment) -> Server {
    let listen_item = table.item("listen");
    let listen = listen_item.as_ref().and_then(|item| item.read(values::address));
    let listen = listen.unwrap_or_else(|| ([127, 0, 0, 1], 8080).into());
    let allow_anonymous = table.or("allow_anonymous", false, Item::boolean);
    if let Some(item) = listen_item.filter(|_| !is_loopback(listen.ip()) && !has_clients && !allow_anonymous)
    {
        let expected = "[clients.NAME] with keys, or allow_anonymous = true to let everybody spend";
        item.tell(Wrong::new(
            format!("{listen} can be reached from elsewhere, and nobody has to say who they are"),
            expected,
        ));
    }
    let max_head_bytes = table.or("max_head_bytes", 64 * KIB, values::size(8 * KIB..=MIB));
    let drain_timeout = table.or("drain_timeout", Duration::from_secs(25), values::some_time);
    let server = Server {
        listen,
        allow_anonymous,
        tls: table.maybe_table("tls").and_then(|table| tls::server(table, environment)),
        rate_limit: table.take("rate_limit", values::rate),
        rate_limit_fields: table.or("rate_limit_fields", FIELDS[0].1, values::word(&FIELDS)),
        header_timeout: table.or("header_timeout", Duration::from_secs(10), values::some_time),
        body_timeout: table.or("body_timeout", Duration::from_secs(30), values::some_time),
        body_total_timeout: table.or("body_total_timeout", Duration::from_secs(300), values::some_time),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(60), values::some_time),
        max_head_bytes,
        max_headers: table.or("max_headers", 100, values::count(1..=10_000)),
        max_target_bytes: table.or("max_target_bytes", 8 * KIB, values::size(64..=max_head_bytes)),
        hosts: table.take("hosts", hosts),
        public_url: table.take("public_url", |item| {
            let base = values::url(item)?;
            Ok(format!("{}://{}{}", base.scheme, base.authority, base.path))
        }),
        trusted_proxies: table.or("trusted_proxies", Vec::new(), networks),
        max_body_bytes: table.or("max_body_bytes", 8 * MIB, values::size(0..=GIB)),
        max_connections: table.or("max_connections", 16_384, values::count(1..=1_000_000)),
        max_waiters_per_key: table.or("max_waiters_per_key", 10_000, values::count(1..=1_000_000)),
        max_waiters: table.or("max_waiters", 20_000, values::count(1..=1_000_000)),
        max_streams: table.or("max_streams", 100, values::count(1..=10_000)),
        // A short drain keeps most of its time for the requests under way.
        drain_delay: table.or("drain_delay", Duration::from_secs(5).min(drain_timeout / 5), |item| {
            let delay = values::duration(item)?;
            if delay < drain_timeout {
                return Ok(delay);
            }
            Err(Wrong::new("leaves nothing of `drain_timeout`", "a duration shorter than that"))
        }),
        drain_timeout,
    };
    table.finish();
    server
}

/// `hosts`, without ports: a gate is asked under its name, wherever it listens.
fn hosts(item: &Item<'_>) -> Result<Vec<String>, Wrong> {
    let expected = "a list of host names such as [\"gate.internal\"], without ports";
    item.items(expected)?
        .iter()
        .map(|item| {
            let host = item.text(expected)?.to_ascii_lowercase();
            let is_host = crate::rules::message::is_host(&host);
            if is_host && (!host.contains(':') || host.ends_with(']')) {
                return Ok(host);
            }
            Err(Wrong::new(format!("{} is no host", values::quoted(&host)), expected))
        })
        .collect()
}

/// `trusted_proxies`
fn networks(item: &Item<'_>) -> Result<Vec<Network>, Wrong> {
    let expected = "a list of networks such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
    item.list(expected, |item| {
        let text = item.text(expected)?;
        text.parse().map_err(|wrong| match wrong {
            NoNetwork::Unreadable => Wrong::new(format!("{} is no network", values::quoted(text)), expected),
            NoNetwork::Beyond(network) => Wrong::new(
                format!("{} has bits behind its prefix", values::quoted(text)),
                format!("{network}, or a longer prefix"),
            ),
        })
    })
}

/// `[admin]`
pub(super) fn admin(mut table: Table<'_>, server: &Server, environment: &dyn Environment) -> Admin {
    let listen_item = table.item("listen");
    let listen = listen_item.as_ref().and_then(|item| item.read(values::address));
    let listen = listen.unwrap_or_else(|| ([127, 0, 0, 1], 9090).into());
    let token_item = table.item("token");
    let token = token_item.as_ref().and_then(|item| item.read(credential(environment, Place::Key)));
    let is_open = !is_loopback(listen.ip()) && token_item.is_none();
    if let Some(item) = listen_item.as_ref().filter(|_| is_open) {
        let what = format!("{listen} can be reached from elsewhere");
        item.tell(Wrong::new(what, "`token` beside it, such as token = { env = \"TOLLGATE_ADMIN_TOKEN\" }"));
    }
    if listen == server.listen && listen.port() != 0 {
        let wrong = Wrong::new(format!("{listen} is the address of [server] too"), "an address of its own");
        match &listen_item {
            Some(item) => item.tell(wrong),
            None => table.notes.tell(&table.at, "admin.listen", wrong),
        }
    }
    table.finish();
    Admin { listen, token }
}

/// `[log]`
pub(super) fn log(mut table: Table<'_>) -> Log {
    let format = values::word(&[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)]);
    let log = Log {
        format: table.or("format", LogFormat::Pretty, format),
        level: table.or("level", "info".into(), level),
    };
    table.finish();
    log
}

fn level(item: &Item<'_>) -> Result<String, Wrong> {
    let text = item.text(EXPECTED_LEVEL)?;
    match check_level(text) {
        Ok(()) => Ok(text.into()),
        Err((what, near)) => Err(Wrong::new(what, EXPECTED_LEVEL).near(near)),
    }
}

const EXPECTED_LEVEL: &str =
    "off, error, warn, info, debug, trace, or directives such as \"info,tollgate=debug\"";

/// Whether `text` is what `tracing_subscriber::EnvFilter` reads, and meant so: it takes any single word for the name of
/// a module, so that a misspelt level would silence the log; here a single word is a level.
fn check_level(text: &str) -> Result<(), (String, Option<&'static str>)> {
    let levels: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !levels.contains(&level.as_str()) {
            let near = super::mistakes::nearest(&level, levels);
            return Err((format!("{} is no level", values::quoted(part)), near));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(_) => Err((format!("{} is no filter", values::quoted(text)), None)),
    }
}

/// Checks a log level that stands elsewhere than in a configuration.
///
/// # Errors
/// What is wrong with it and what was expected.
pub fn log_level(text: &str) -> Result<(), String> {
    check_level(text).map_err(|(what, near)| {
        let near = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
        format!("{what}; expected {EXPECTED_LEVEL}{near}")
    })
}

/// `[cache]`
pub(super) fn cache(mut table: Table<'_>) -> Cache {
    let max_bytes = table.or("max_bytes", 256 * MIB, values::size(64 * KIB..=1024 * GIB));
    // Defaults give way to what was stated; two statements must agree.
    let default_entry = (8 * MIB).min(max_bytes);
    let max_entry_bytes = table.or("max_entry_bytes", default_entry, values::size(KIB..=max_bytes.min(GIB)));
    let default_inflight = (64 * MIB).max(max_entry_bytes);
    let max_inflight_bytes =
        table.or("max_inflight_bytes", default_inflight, values::size(max_entry_bytes..=64 * GIB));
    table.finish();
    Cache { max_bytes: max_bytes as u64, max_entry_bytes, max_inflight_bytes }
}
