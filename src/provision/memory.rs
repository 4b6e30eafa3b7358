//! What the stages that answer from memory are given of a route.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderName};

use super::{NO_ACCOUNT_WAIT, reading};
use crate::config::plan::{Plan, Route as RoutePlan};
use crate::lasting::Lasting;
use crate::rules::beliefs::Beliefs;
use crate::rules::collection::Paging;
use crate::rules::headers::{ForwardHeaders, Forwarding};
use crate::stages::cache::CacheRules;
use crate::state::paged::{PagedRoute, PagesMeters, RouteNumber};

/// When a route's answers are reused.
pub(super) fn cache_rules(plan: &Plan, route: &RoutePlan) -> CacheRules {
    let mut allowed = route.forward_headers.clone();
    // In which coding a block comes is asked for by the gate.
    if let (Some(_), ForwardHeaders::List(names)) = (&route.pages, &mut allowed)
        && !names.contains(&ACCEPT_ENCODING)
    {
        names.push(ACCEPT_ENCODING);
    }
    let forwarding = Forwarding::new(allowed, credentials(plan, route));
    CacheRules {
        policy: route.cache.clone(),
        identifying: identifying(route, &forwarding),
        forwarding,
        patience: patience(plan, route),
    }
}

/// Names under which credentials are injected.
fn credentials(plan: &Plan, route: &RoutePlan) -> Vec<HeaderName> {
    let account = plan.account_of(route);
    account.map_or(Vec::new(), |account| account.headers.iter().map(|(name, _)| name.clone()).collect())
}

/// The fields that say who asks, as far as they may cross.
fn identifying(route: &RoutePlan, forwarding: &Forwarding) -> Vec<HeaderName> {
    route.cache.identifying.iter().filter(|name| forwarding.may_send(name)).cloned().collect()
}

/// How long a call that nobody waits for may take.
fn patience(plan: &Plan, route: &RoutePlan) -> Duration {
    plan.account_of(route).map_or(NO_ACCOUNT_WAIT, |account| account.max_wait)
        + plan.upstreams[route.upstream].timeout
}

/// What is believed of a route's upstream, where it is paged.
pub fn beliefs(plan: &Plan, route: &RoutePlan, lasting: &Lasting) -> Option<Arc<Mutex<Beliefs>>> {
    let pages = route.pages.as_ref().filter(|_| route.cache.enabled)?;
    let upstream = &plan.upstreams[route.upstream];
    let name = format!("{} {}{} {}", upstream.name, upstream.authority, upstream.base_path, route.name);
    Some(lasting.beliefs(&name, pages.block.into()))
}

/// How a route's windows are cut, where it has pages and a memory to cut them from.
pub(super) fn paged(plan: &Plan, route: &RoutePlan, lasting: &Lasting) -> Option<PagedRoute> {
    let pages = route.pages.as_ref().filter(|_| route.cache.enabled)?;
    let forwarding = Forwarding::new(route.forward_headers.clone(), credentials(plan, route));
    let mut settled = route.cache.clone();
    settled.ttl = pages.settled_ttl.or(settled.ttl);
    let size = route.params.as_ref()?.param(pages.size)?.name.as_str();
    Some(PagedRoute {
        number: RouteNumber::next(),
        paging: Paging {
            reading: reading(plan, route),
            counting: pages.counting,
            shape: pages.shape.clone(),
            headers: pages.headers.clone(),
            block: pages.block.into(),
            max_blocks: pages.max_blocks.into(),
            edges: route.cache.clone(),
            settled,
            walk_idle: pages.walk_idle,
            walk_total: pages.walk_total,
            base: plan.server.public_url.clone().unwrap_or_default(),
        },
        identifying: identifying(route, &forwarding),
        forwarding,
        patience: patience(plan, route),
        max_entry_bytes: plan.cache.max_entry_bytes,
        beliefs: beliefs(plan, route, lasting)?,
        shapes: lasting.store.shapes().clone(),
        meters: PagesMeters::new(&lasting.metrics, &route.name, size),
    })
}
