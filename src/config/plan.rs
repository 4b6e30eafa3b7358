//! The plan: a configuration as meant. Every name is resolved, every secret is read, every default is filled in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;
use http::uri::{Authority, Scheme};

pub use crate::edge::tls::{Identity, Roots, ServerTls, UpstreamTls};
pub use crate::edge::upstream::Http2;
use crate::model::exchange::ClientId;
use crate::model::secret::Secret;
use crate::model::urgency::Class;
use crate::rules::forwarded::Network;
pub use crate::rules::headers::ForwardHeaders;
pub use crate::rules::ledger::QuotaRule;
use crate::rules::params::{Params, Unknown};
use crate::rules::reuse;
pub use crate::rules::routes::Methods;
use crate::rules::routes::Path;
use crate::rules::slices::{Counting, Pointer, Role, Shape};
pub use crate::state::limits::{BudgetRule, RateLimit};
pub use crate::state::tells::Fields;

/// Everything the gate does, as one value. Indices between its lists are checked when it is made.
#[derive(Debug)]
pub struct Plan {
    /// The listener for clients.
    pub server: Server,
    /// The listener for operators.
    pub admin: Admin,
    /// How the log looks.
    pub log: Log,
    /// What memory may be used for answers.
    pub cache: Cache,
    /// What outlives the process.
    pub state: State,
    /// The APIs.
    pub upstreams: Vec<Upstream>,
    /// Their accounts, of all upstreams in one list.
    pub accounts: Vec<Account>,
    /// Who may ask; the first is `anonymous`.
    pub clients: Vec<Client>,
    /// What may be asked.
    pub routes: Vec<Route>,
    /// What the operator should know although nothing is wrong.
    pub warnings: Vec<String>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether callers without a key are served although clients are declared, or although the address is not loopback.
    pub allow_anonymous: bool,
    /// TLS towards clients; `None`: clear text.
    pub tls: Option<ServerTls>,
    /// The limit of each peer address that is no declared client.
    pub rate_limit: Option<RateLimit>,
    /// Which fields tell clients what is left of the account.
    pub rate_limit_fields: Fields,
    /// How long a request's head may take, from its first byte.
    pub header_timeout: Duration,
    /// How long a request's body may fall silent.
    pub body_timeout: Duration,
    /// How long a request's body may take in all.
    pub body_total_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_head_bytes: usize,
    /// The most header fields of a request.
    pub max_headers: usize,
    /// The longest target, in bytes.
    pub max_target_bytes: usize,
    /// The hosts it answers for, in lower case; `None`: any.
    pub hosts: Option<Vec<String>>,
    /// Where clients find the gate, without a `/` at its end: `Link` begins with it. `None`: links are relative.
    pub public_url: Option<String>,
    /// Whose `Forwarded` names the peer.
    pub trusted_proxies: Vec<Network>,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most requests that may wait for an upstream's answer to one question.
    pub max_waiters_per_key: usize,
    /// The most requests that may wait for upstreams in all.
    pub max_waiters: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// How long `/readyz` fails before listeners close.
    pub drain_delay: Duration,
    /// How long draining may take in all.
    pub drain_timeout: Duration,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must present; required off loopback.
    pub token: Option<Credential>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Which lines appear, as `tracing_subscriber::EnvFilter` reads it: `info`, `tollgate=debug`.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person at a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[cache]`
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    /// The most bytes all entries may keep, overhead included.
    pub max_bytes: u64,
    /// The largest body that is kept.
    pub max_entry_bytes: usize,
    /// The most bytes of bodies that may be arriving to be kept.
    pub max_inflight_bytes: usize,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where ledgers are kept; `None`: in memory alone.
    pub dir: Option<PathBuf>,
    /// How many gates spend the same accounts, this one included: each has an equal part.
    pub instances: u32,
}

/// `[upstreams.NAME]`
#[derive(Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port, as `Host` says them.
    pub authority: Authority,
    /// What stands before every path: empty, or a path that begins with `/` and does not end with one.
    pub base_path: String,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a call may take from grant to the last byte of its head, and how long its body may fall silent.
    pub timeout: Duration,
    /// How long an answer's body may take in all.
    pub total_timeout: Duration,
    /// The most calls at once.
    pub max_concurrent: usize,
    /// How many failures in a row make the gate leave it alone for a while; zero: none do.
    pub breaker_failures: u32,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Whether all its accounts see the same data, so that any of them may pay for any route.
    pub same_data: bool,
    /// Which HTTP it speaks.
    pub http2: Http2,
    /// TLS towards it.
    pub tls: UpstreamTls,
}

/// `[upstreams.NAME.accounts.NAME]`
#[derive(Debug)]
pub struct Account {
    /// Its name, unique within its upstream.
    pub name: String,
    /// Its upstream, by place.
    pub upstream: usize,
    /// Credentials sent as header fields, in declared order.
    pub headers: Vec<(HeaderName, Credential)>,
    /// Credentials sent as query parameters, in declared order.
    pub query: Vec<(String, Credential)>,
    /// What may be spent: all windows must admit. Empty: `quota = "none"`.
    pub quota: Vec<QuotaRule>,
    /// The longest a call may wait for the account.
    pub max_wait: Duration,
    /// The most calls that may wait at once.
    pub max_waiting: usize,
    /// The longest the upstream's word closes the account.
    pub max_pause: Duration,
    /// What a call costs, in the operator's currency.
    pub price: Option<f64>,
}

/// A secret and where it comes from, so that it can be read again.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Where it comes from.
    pub source: SecretSource,
    /// What was read.
    pub value: Secret,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable, by name.
    Env(String),
    /// A file, by path.
    File(PathBuf),
    /// The configuration itself.
    Literal,
}

/// `[clients.NAME]`
#[derive(Debug)]
pub struct Client {
    /// Its name; `anonymous` for the first.
    pub name: String,
    /// The DNS name that its certificate carries.
    pub certificate: Option<String>,
    /// Its key; none for `anonymous`, and where the certificate is enough.
    pub key: Option<Credential>,
    /// How often it may ask. None for `anonymous`, whose limit is `server.rate_limit`, of each peer address.
    pub rate_limit: Option<RateLimit>,
    /// How many upstream calls it may cause.
    pub budget: Option<BudgetRule>,
    /// Its share of the accounts when they are contended.
    pub weight: u32,
    /// Whose calls go first.
    pub priority: Class,
    /// The routes it may use, by place; `None`: all.
    pub routes: Option<Vec<usize>>,
    /// Whether a parameter that cannot be understood is a 400.
    pub strict: bool,
    /// Whether its `cache-control: no-cache` is honoured where the route honours it.
    pub may_refresh: bool,
}

/// `[[routes]]`
#[derive(Debug)]
pub struct Route {
    /// Its name, unique.
    pub name: String,
    /// Which paths it serves.
    pub path: Path,
    /// Its upstream, by place.
    pub upstream: usize,
    /// Its account, by place; `None` where the upstream has none.
    pub account: Option<usize>,
    /// The accounts that may pay, by place, where several give the same answers; else empty.
    pub pool: Vec<usize>,
    /// The path asked of the upstream in place of the request's own; for a `/*` path, what replaces the part before `*`.
    pub upstream_path: Option<String>,
    /// The methods it allows.
    pub methods: Methods,
    /// The request fields that are forwarded.
    pub forward_headers: ForwardHeaders,
    /// How parameters are understood; `None`: the query passes, sorted by name.
    pub params: Option<Arc<Params>>,
    /// What becomes of undeclared parameters; `params` knows it too.
    pub unknown: Unknown,
    /// When answers are kept and reused.
    pub cache: reuse::Policy,
    /// Where an item names whom it is about, as (JSON pointer, parameter that reads it).
    pub tags: Vec<(Pointer, String)>,
    /// Which parameters say page and size.
    pub pages: Option<Pages>,
    /// Whether the upstream's 429 closes this route alone, and not its account.
    pub pauses_alone: bool,
    /// The longest a client waits in all, where it does not say.
    pub timeout: Duration,
}

/// `[routes.pages]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// The parameter that says the page, or the items before it, by place in `params`.
    pub page: usize,
    /// The parameter that says the size, by place in `params`.
    pub size: usize,
    /// What the first of them counts.
    pub counting: Counting,
    /// Items of a block.
    pub block: u32,
    /// Where items lie, where they name themselves, and what stands around them.
    pub shape: Shape,
    /// The response fields that say something of a window.
    pub headers: Vec<(Role, HeaderName)>,
    /// How old an item deeper than the first block may be.
    pub settled_ttl: Option<Duration>,
    /// The most blocks that are asked for to answer one request.
    pub max_blocks: u32,
    /// How long a walk may pause.
    pub walk_idle: Duration,
    /// How long a walk may last.
    pub walk_total: Duration,
}

impl Plan {
    /// The account of a route, if its upstream has any.
    pub fn account_of(&self, route: &Route) -> Option<&Account> {
        self.accounts.get(route.account?)
    }

    /// Every account that may pay for a route.
    pub fn accounts_of(&self, route: &Route) -> Vec<&Account> {
        let only: Vec<usize> = route.account.into_iter().collect();
        let places = if route.pool.is_empty() { &only } else { &route.pool };
        places.iter().filter_map(|place| self.accounts.get(*place)).collect()
    }

    /// Whether `client` may use the route at `route`.
    pub fn allows(&self, client: ClientId, route: usize) -> bool {
        let client = self.clients.get(client.place());
        client.is_some_and(|client| client.routes.as_ref().is_none_or(|routes| routes.contains(&route)))
    }
}

/// Whether an address can be reached from this machine alone.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The statuses `ttl_for` may name: those a cache may keep.
pub fn may_be_kept(status: StatusCode) -> bool {
    !status.is_informational()
        && !status.is_server_error()
        && !matches!(status.as_u16(), 206 | 304 | 401 | 403 | 428 | 429 | 431)
}
