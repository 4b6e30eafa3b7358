//! Plan → running parts: what each stage is given, and what a reload keeps. Nothing here decides anything about a
//! request.

use std::sync::Arc;

use ring::digest;
use rustls::ServerConfig;

use crate::config::Environment;
use crate::config::plan::{Plan, Route as RoutePlan, Server};
use crate::edge::listener::Limits;
use crate::edge::tls::ServerTls;
use crate::edge::upstream::{UpstreamSettings, Upstreams};
use crate::lasting::{Lasting, Unprovisioned};
use crate::model::Secret;
use crate::model::exchange::{ClientId, RouteId};
use crate::pipeline::Stages;
use crate::rules::addresses::{Addresses, Served};
use crate::rules::identity::Clients;
use crate::rules::message::HeadRules;
use crate::rules::routes::Routes;
use crate::rules::slices::Shape;
use crate::rules::understanding::{Items, Reading};
use crate::stages::attempt::AttemptLayer;
use crate::stages::cache::CacheLayer;
use crate::stages::credentials::CredentialsLayer;
use crate::stages::flight::FlightLayer;
use crate::stages::keep::KeepLayer;
use crate::stages::observe::{ObserveLayer, Reports};
use crate::stages::pages::PagesLayer;
use crate::stages::quota::{Purse, QuotaLayer, Share};
use crate::stages::steps::{Authenticate, Inspect, Lane, Lens, LimitClient, OwnPages, Route, Understand};
use crate::state::causes::Causes;
use crate::state::metrics::RouteMeters;
use crate::state::remembered::Remembered;
use crate::state::tells::Tells;

mod accounts;
mod memory;

pub use memory::beliefs;

use accounts::{NO_ACCOUNT_WAIT, accounts};

/// Provisions `plan`: the stages, and the innermost one.
///
/// # Errors
/// What could not be set up; nothing that runs was changed then.
pub fn provision(
    plan: &Plan,
    lasting: &Lasting,
    own: Arc<dyn OwnPages>,
    environment: &Arc<dyn Environment>,
) -> Result<(Stages, Upstreams), Unprovisioned> {
    let clock = &lasting.clock;
    let clients: Vec<String> = plan.clients.iter().map(|client| client.name.clone()).collect();
    let reports = Reports {
        routes: plan
            .routes
            .iter()
            .map(|route| RouteMeters::new(&lasting.metrics, &route.name, &clients))
            .collect(),
        none: RouteMeters::new(&lasting.metrics, "none", &clients),
        params: plan.routes.iter().map(parameter_names).collect(),
        faults: lasting.metrics.faults.clone(),
        tells: Vec::new(),
        clock: clock.clone(),
    };
    let keys = plan
        .clients
        .iter()
        .zip(0..)
        .filter_map(|(client, at)| Some((&client.key.as_ref()?.value, ClientId(at))));
    let certificates = plan
        .clients
        .iter()
        .zip(0..)
        .filter_map(|(client, at)| Some((client.certificate.clone()?, ClientId(at))));
    let routes = plan.routes.iter().zip(0..).map(|(route, at)| (route.path.clone(), RouteId(at)));
    let upstreams = plan.upstreams.iter().map(|upstream| UpstreamSettings {
        scheme: upstream.scheme.clone(),
        authority: upstream.authority.clone(),
        connect_timeout: upstream.connect_timeout,
        timeout: upstream.timeout,
        total_timeout: upstream.total_timeout,
        idle_timeout: upstream.idle_timeout,
        max_idle: upstream.max_concurrent,
        http2: upstream.http2,
        tls: (upstream.scheme == http::uri::Scheme::HTTPS).then(|| upstream.tls.clone()),
    });
    let by_route = plan.routes.iter().map(|route| route.upstream).collect();
    let upstreams = Upstreams::new(upstreams, by_route, clock.clone())
        .map_err(|error| Unprovisioned::Tls(error.to_string()))?;
    let may_refresh: Arc<[bool]> =
        plan.clients.iter().map(|client| client.may_refresh || nobody_declared(plan)).collect();
    // Last, since it is the one thing here that what already runs can see.
    let (purses, vaults) = accounts(plan, lasting, environment)?;
    let tells = |pool: &Vec<Purse>| {
        Tells::new(pool.iter().map(|purse| purse.account.clone()).collect(), plan.server.rate_limit_fields)
    };
    let reports = Reports { tells: purses.iter().map(tells).collect(), ..reports };
    let stages = Stages {
        observe: ObserveLayer { reports: Arc::new(reports) },
        inspect: Inspect {
            rules: Arc::new(HeadRules {
                max_target_bytes: plan.server.max_target_bytes,
                max_headers: plan.server.max_headers,
                hosts: plan.server.hosts.clone(),
            }),
            proxies: plan.server.trusted_proxies.as_slice().into(),
        },
        authenticate: Authenticate {
            clients: Arc::new(Clients::new(keys, certificates, plan.server.allow_anonymous, &lasting.pepper)),
        },
        route: Route {
            routes: Arc::new(Routes::new(routes)),
            lanes: (0..).zip(&plan.routes).map(|(at, route)| lane(plan, at, route)).collect(),
            own,
        },
        understand: Understand {
            lenses: plan.routes.iter().map(|route| lens(plan, route)).collect(),
            strict: plan.clients.iter().map(|client| client.strict).collect(),
            remembered: Arc::new(Remembered::new(plan.cache.max_bytes)),
        },
        limit_client: LimitClient {
            declared: plan
                .clients
                .iter()
                .map(|client| Some(lasting.client_limit(&client.name, client.rate_limit?)))
                .collect(),
            addresses: plan.server.rate_limit.map(|limit| lasting.address_limit(limit)),
        },
        pages: PagesLayer {
            routes: plan
                .routes
                .iter()
                .map(|route| memory::paged(plan, route, lasting).map(Arc::new))
                .collect(),
            may_refresh: may_refresh.clone(),
            store: lasting.store.clone(),
            clock: clock.clone(),
            tasks: lasting.tasks.clone(),
        },
        cache: CacheLayer {
            routes: plan.routes.iter().map(|route| memory::cache_rules(plan, route)).collect(),
            may_refresh,
            classes: plan.clients.iter().map(|client| client.priority).collect(),
            store: lasting.store.clone(),
            clock: clock.clone(),
            tasks: lasting.tasks.clone(),
        },
        flight: FlightLayer {
            store: lasting.store.clone(),
            clock: clock.clone(),
            tasks: lasting.tasks.clone(),
            aloft: lasting.flights.clone(),
            max_waiters_per_key: plan.server.max_waiters_per_key,
            max_waiters: plan.server.max_waiters,
        },
        keep: KeepLayer {
            policies: plan.routes.iter().map(|route| route.cache.clone()).collect(),
            store: lasting.store.clone(),
            clock: clock.clone(),
            max_entry_bytes: plan.cache.max_entry_bytes,
            arriving: lasting.arriving.clone(),
            addresses: Arc::new(Addresses(plan.routes.iter().map(|route| served(plan, route)).collect())),
            compression: lasting.compression.clone(),
        },
        attempt: AttemptLayer {
            standings: plan
                .routes
                .iter()
                .map(|route| {
                    let upstream = &plan.upstreams[route.upstream];
                    (lasting.standing(&upstream.name, upstream.authority.as_str()), upstream.breaker_failures)
                })
                .collect(),
            clock: clock.clone(),
        },
        quota: QuotaLayer {
            purses,
            causes: plan
                .routes
                .iter()
                .map(|route| {
                    let causes = |client| Causes::new(&lasting.metrics.calls, client, &route.name);
                    clients.iter().map(|client| causes(client)).collect()
                })
                .collect(),
            shares: plan
                .clients
                .iter()
                .map(|client| Share {
                    payer: lasting.payer(&client.name),
                    weight: client.weight,
                    budget: client.budget.map(|rule| lasting.budget(&client.name, rule)),
                })
                .collect(),
            clock: clock.clone(),
        },
        credentials: CredentialsLayer { vaults },
    };
    Ok((stages, upstreams))
}

/// How a route of `plan` reads its requests.
pub fn reading(plan: &Plan, route: &RoutePlan) -> Reading {
    let upstream = &plan.upstreams[route.upstream];
    let account = plan.account_of(route);
    // Part of every key: a changed upstream, account or parameter rule makes other questions of the same requests.
    let meaning = format!(
        "{}://{}{} {:?} {:?}",
        upstream.scheme,
        upstream.authority,
        upstream.base_path,
        plan.accounts_of(route).iter().map(|account| (&account.headers, &account.query)).collect::<Vec<_>>(),
        route.params,
    );
    let meaning = digest::digest(&digest::SHA256, meaning.as_bytes());
    Reading {
        scope: [
            upstream.name.clone().into_bytes(),
            // A pool's name is no account's: names have no `*`.
            match account {
                Some(_) if !route.pool.is_empty() => b"*".to_vec(),
                Some(account) => account.name.clone().into_bytes(),
                None => Vec::new(),
            },
            meaning.as_ref().iter().copied().take(MEANING_BYTES).collect(),
        ],
        path: route.path.clone(),
        base_path: upstream.base_path.clone(),
        upstream_path: route.upstream_path.clone(),
        params: route.params.clone(),
        items: Arc::new(Items {
            shape: route.pages.as_ref().map(|pages| Shape { id: None, ..pages.shape.clone() }),
            tags: route.tags.clone(),
        }),
        window: route.pages.as_ref().map(|pages| (pages.page, pages.size)),
        credentials: account
            .map_or(Vec::new(), |account| account.query.iter().map(|(name, _)| name.clone()).collect()),
    }
}

fn lane(plan: &Plan, at: usize, route: &RoutePlan) -> Lane {
    let restricted = plan.clients.iter().any(|client| client.routes.is_some());
    let allowed = (0..)
        .zip(&plan.clients)
        .map(|(client, _)| ClientId(client))
        .filter(|client| plan.allows(*client, at));
    Lane {
        name: route.name.clone(),
        methods: route.methods.clone(),
        clients: restricted.then(|| allowed.collect()),
    }
}

fn lens(plan: &Plan, route: &RoutePlan) -> Lens {
    Lens {
        reading: reading(plan, route),
        timeout: route.timeout,
        max_body_bytes: plan.server.max_body_bytes as u64,
    }
}

/// Where no client is declared, a route's `honour_request_directives` can only mean everybody.
fn nobody_declared(plan: &Plan) -> bool {
    plan.clients.len() == 1
}

fn served(plan: &Plan, route: &RoutePlan) -> Served {
    let upstream = &plan.upstreams[route.upstream];
    Served {
        scheme: upstream.scheme.clone(),
        authority: upstream.authority.clone(),
        reading: reading(plan, route),
    }
}

fn parameter_names(route: &RoutePlan) -> Vec<String> {
    route.params.iter().flat_map(|params| params.names()).map(str::to_owned).collect()
}

/// What operators must present, if anything.
pub fn token(plan: &Plan) -> Option<Arc<Secret>> {
    plan.admin.token.as_ref().map(|token| Arc::new(token.value.clone()))
}

/// TLS towards clients, if the plan has any.
///
/// # Errors
/// A certificate or key that cannot be used.
pub fn tls(plan: &Plan) -> Result<Option<Arc<ServerConfig>>, Unprovisioned> {
    let config = plan.server.tls.as_ref().map(ServerTls::to_config).transpose();
    Ok(config.map_err(|error| Unprovisioned::Tls(error.to_string()))?.map(Arc::new))
}

/// What connections of clients are held to.
pub fn limits_of(server: &Server) -> Limits {
    Limits {
        header_timeout: server.header_timeout,
        body_timeout: server.body_timeout,
        body_total_timeout: server.body_total_timeout,
        idle_timeout: server.idle_timeout,
        max_head_bytes: server.max_head_bytes,
        max_headers: server.max_headers,
        max_body_bytes: server.max_body_bytes as u64,
        max_connections: server.max_connections,
        max_streams: server.max_streams,
    }
}

/// The most connections of operators at once, and the largest body they may send.
const MOST_OPERATORS: usize = 256;
/// How much of a digest of a route's rules stands in every key: nobody finds two alike.
const MEANING_BYTES: usize = 16;
const ADMIN_BODY_BYTES: u64 = 64 << 10;

/// What connections of operators are held to.
pub fn admin_limits_of(server: &Server) -> Limits {
    Limits { max_connections: MOST_OPERATORS, max_body_bytes: ADMIN_BODY_BYTES, ..limits_of(server) }
}
