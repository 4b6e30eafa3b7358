//! What clients are told of an account's windows: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers), and `X-RateLimit-*` by choice.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::quota::Account;
use crate::rules::headers::strip_limits;
use crate::rules::ledger::Standing;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Which fields are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// `RateLimit` and `RateLimit-Policy`.
    pub standard: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, of the tightest window.
    pub legacy: bool,
}

/// Tells of the accounts that a route may use.
#[derive(Debug, Clone)]
pub struct Tells {
    accounts: Vec<Arc<Account>>,
    policy: HeaderValue,
    fields: Fields,
}

impl Tells {
    /// Tells of `accounts`, of which the one with most left is told; `None` where there is nothing to tell.
    pub fn new(accounts: Vec<Arc<Account>>, fields: Fields) -> Option<Self> {
        let windows = accounts.first()?.standing();
        let mut policy = String::new();
        for window in &windows {
            let comma = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, "{comma}\"{}\";q={};w={}", window.name, window.requests, window.seconds);
        }
        let policy = HeaderValue::try_from(policy).ok()?;
        let told = fields.standard || fields.legacy;
        (told && !windows.is_empty()).then_some(Self { accounts, policy, fields })
    }

    /// Writes the fields, in place of the upstream's own.
    pub fn write(&self, headers: &mut HeaderMap) {
        strip_limits(headers);
        let left = |windows: &Vec<Standing>| windows.iter().map(|window| window.remaining).min();
        let Some(windows) = self.accounts.iter().map(|account| account.standing()).max_by_key(left) else {
            return;
        };
        if self.fields.standard {
            let mut told = String::new();
            for window in &windows {
                let comma = if told.is_empty() { "" } else { ", " };
                let _ = write!(told, "{comma}\"{}\";r={}", window.name, window.remaining);
                if let Some(reset) = window.reset {
                    let _ = write!(told, ";t={}", whole_seconds(reset));
                }
            }
            if let Ok(told) = HeaderValue::try_from(told) {
                headers.insert(RATE_LIMIT, told);
                headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
            }
        }
        let share =
            |window: &&Standing| u64::from(window.remaining) * 1_000_000 / u64::from(window.requests.max(1));
        if let Some(window) = windows.iter().min_by_key(share).filter(|_| self.fields.legacy) {
            headers.insert(X_LIMIT, window.requests.into());
            headers.insert(X_REMAINING, window.remaining.into());
            headers.insert(X_RESET, window.reset.map_or(0, whole_seconds).into());
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
