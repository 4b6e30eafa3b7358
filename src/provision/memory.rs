//! What the stages that answer from memory are given of a route.

use std::time::Duration;

use http::header::ACCEPT_ENCODING;

use super::{NO_ACCOUNT_WAIT, reading};
use crate::config::plan::{Plan, Route as RoutePlan};
use crate::lasting::Lasting;
use crate::rules::collection::Paging;
use crate::rules::headers::{ForwardHeaders, Forwarding};
use crate::stages::cache::CacheRules;
use crate::state::paged::{PagedRoute, PagesMeters};

/// When a route's answers are reused.
pub(super) fn cache_rules(plan: &Plan, route: &RoutePlan) -> CacheRules {
    let mut forwarding = forwarding(plan, route);
    // In which coding a block comes is asked for by the gate.
    if let (Some(_), ForwardHeaders::List(names)) = (&route.pages, &mut forwarding.allowed)
        && !names.contains(&ACCEPT_ENCODING)
    {
        names.push(ACCEPT_ENCODING);
    }
    CacheRules { policy: route.cache.clone(), forwarding, patience: patience(plan, route) }
}

fn forwarding(plan: &Plan, route: &RoutePlan) -> Forwarding {
    let account = plan.account_of(route);
    let names = account.map(|account| account.headers.iter().map(|(name, _)| name.clone()).collect());
    Forwarding { allowed: route.forward_headers.clone(), credentials: names.unwrap_or_default() }
}

/// How long a call that nobody waits for may take.
fn patience(plan: &Plan, route: &RoutePlan) -> Duration {
    plan.account_of(route).map_or(NO_ACCOUNT_WAIT, |account| account.max_wait)
        + plan.upstreams[route.upstream].timeout
}

/// How a route's windows are cut, where it has pages and a memory to cut them from.
pub(super) fn paged(plan: &Plan, route: &RoutePlan, lasting: &Lasting) -> Option<PagedRoute> {
    let pages = route.pages.as_ref().filter(|_| route.cache.enabled)?;
    let mut settled = route.cache.clone();
    settled.ttl = pages.settled_ttl.or(settled.ttl);
    let upstream = &plan.upstreams[route.upstream];
    let name = format!("{} {}{} {}", upstream.name, upstream.authority, upstream.base_path, route.name);
    Some(PagedRoute {
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
        forwarding: forwarding(plan, route),
        patience: patience(plan, route),
        max_entry_bytes: plan.cache.max_entry_bytes,
        beliefs: lasting.beliefs(&name, pages.block.into()),
        meters: PagesMeters::new(&lasting.metrics, &route.name),
    })
}
