//! How windows are shown: as configuration writes them, and what they bear.

use std::time::Duration;

use super::plan::{Account, BudgetRule, QuotaRule, Upstream};
use super::print::{duration, quote};
use crate::rules::ledger::Per;
use crate::rules::window::Counted;

pub(super) fn budget(rule: BudgetRule) -> String {
    let BudgetRule { window, shadow } = rule;
    let shadow = if shadow { ", shadow = true" } else { "" };
    format!("{{ requests = {}, per = {}{shadow} }}", window.requests, duration(window.per))
}

pub(super) fn quota_window(rule: &QuotaRule) -> String {
    let mut keys = vec![format!("requests = {}", rule.requests)];
    match &rule.per {
        Per::Sliding(per) => keys.push(format!("per = {}", duration(*per))),
        Per::Calendar(resets) => {
            keys.push(format!("per = {}", quote(&rule.per)));
            let zone = resets.zone.iana_name().unwrap_or("UTC");
            keys.push(format!("resets = {}", quote(format!("{} {zone}", resets.at.strftime("%H:%M")))));
        }
    }
    if let Counted::Sent(margin) = rule.counted {
        keys.push(format!("count_until = \"sent\", margin = {}", duration(margin)));
    }
    if rule.reserve > 0 {
        keys.push(format!("reserve = \"{}%\"", rule.reserve));
    }
    if rule.shadow {
        keys.push("shadow = true".into());
    }
    format!("{{ {} }}", keys.join(", "))
}

/// How many calls a second an account bears for long, when an answer takes so long: a slot is held from the sending until its
/// window has passed after the answer.
pub(super) fn usable(upstream: &Upstream, account: &Account, latency: Duration) -> f64 {
    let ceiling = Duration::from_secs(1).as_secs_f64() / latency.as_secs_f64()
        * f64::from(u32::try_from(upstream.max_concurrent).unwrap_or(u32::MAX));
    let rate = |rule: &QuotaRule| {
        let held = match (&rule.per, rule.counted) {
            (Per::Sliding(per), Counted::Answer) => *per + latency,
            (Per::Sliding(per), Counted::Sent(margin)) => *per + margin,
            (Per::Calendar(_), _) => Duration::from_secs(rule.seconds()),
        };
        f64::from(rule.requests) / held.as_secs_f64()
    };
    account.quota.iter().filter(|rule| !rule.shadow).map(rate).fold(ceiling, f64::min)
}
