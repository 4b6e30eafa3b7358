//! quota: `Call → Granted`, or 429, 503. Spends the account's quota for calls that are really sent, and counts them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec};
use tower_layer::Layer;

use super::Stage;
use crate::model::exchange::{Answer, Call, Granted};
use crate::model::fault::Called;
use crate::model::{Fault, FaultKind};
use crate::rules::fairness::Payer;
use crate::rules::ledger::Per;
use crate::rules::window::WindowRule;
use crate::state::clock::Clock;
use crate::state::grant::Grant;
use crate::state::limits::Budget;
use crate::state::quota::{Account, Refused, Want};

/// What the quota knows of a route.
#[derive(Debug, Clone)]
pub struct Purse {
    /// Who pays.
    pub account: Arc<Account>,
    /// The account's name, for those who are refused.
    pub name: String,
    /// Counts its calls.
    pub meters: CallMeters,
}

/// Counts the calls of one account at one upstream.
#[derive(Debug, Clone)]
pub struct CallMeters {
    outcomes: [(&'static str, IntCounter); OUTCOMES.len()],
    duration: Histogram,
}

const OUTCOMES: [&str; 9] =
    ["2xx", "3xx", "4xx", "429", "5xx", "unreachable", "broken", "timeout", "abandoned"];

impl CallMeters {
    /// The handles for these labels.
    pub fn new(requests: &IntCounterVec, duration: Histogram, upstream: &str, account: &str) -> Self {
        let outcomes =
            OUTCOMES.map(|outcome| (outcome, requests.with_label_values(&[upstream, account, outcome])));
        Self { outcomes, duration }
    }

    fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(held, _)| *held == outcome) {
            counter.inc();
        }
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub struct QuotaLayer {
    /// Who pays for each route, by place.
    pub purses: Arc<[Purse]>,
    /// What each client has of it, by place.
    pub shares: Arc<[Share]>,
    /// The time.
    pub clock: Clock,
}

/// What a client has of the accounts.
#[derive(Debug, Clone)]
pub struct Share {
    /// Who it is in their lines.
    pub payer: Payer,
    /// Its part of them when they are contended.
    pub weight: u32,
    /// How many upstream calls it may cause.
    pub budget: Option<Arc<Budget>>,
}

/// The stage.
#[derive(Debug)]
pub struct Quota<S> {
    given: QuotaLayer,
    inner: S,
}

impl<S> Layer<S> for QuotaLayer {
    type Service = Quota<S>;

    fn layer(&self, inner: S) -> Quota<S> {
        Quota { given: self.clone(), inner }
    }
}

/// A call that was begun and is not counted yet: one whose client leaves before the answer is counted as abandoned.
struct Begun<'a>(Option<&'a CallMeters>);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(meters) = self.0 {
            meters.count("abandoned");
        }
    }
}

/// A call that its client's budget counts; given back if it was never sent.
struct Counted<'a> {
    budget: Option<&'a Budget>,
    sent: bool,
}

impl<'a> Counted<'a> {
    fn spend(budget: Option<&'a Budget>) -> Result<Self, (Duration, WindowRule)> {
        budget.map_or(Ok(()), Budget::spend)?;
        Ok(Self { budget, sent: false })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.budget {
            budget.settle(self.sent);
        }
    }
}

impl<S: Stage<Granted<Grant>>> Stage<Call> for Quota<S> {
    async fn call(&self, call: Call) -> Result<Answer, Fault> {
        let Some(purse) = self.given.purses.get(call.route.place()) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        let Some(share) = self.given.shares.get(call.client.place()) else {
            return Err(FaultKind::ClientUnknown.into());
        };
        let began = self.given.clock.now();
        // Before the line: nobody waits for what it may not spend. What is not sent is given back.
        let mut counted = Counted::spend(share.budget.as_deref()).map_err(over_budget)?;
        let want = Want {
            payer: share.payer,
            weight: share.weight,
            urgency: call.urgency.clone(),
            question: call.question.key.hash_word(),
            comes_back: call.validates.is_none(),
        };
        let grant = purse.account.acquire(want).await.map_err(|refused| fault(refused, &purse.name))?;
        counted.sent = true;
        let waited = self.given.clock.now().since(began);
        call.sent.mark();
        let mut begun = Begun(Some(&purse.meters));
        let mut result = self.inner.call(Granted { call, grant }).await;
        begun.0 = None;
        counted.sent = !matches!(&result, Err(fault) if fault.called == Called::No);
        purse.meters.count(outcome(&result));
        if let Ok(answer) = &mut result {
            answer.timing.wait += waited;
            if let Some(upstream) = answer.timing.upstream {
                purse.meters.duration.observe(upstream.as_secs_f64());
            }
        }
        result
    }
}

fn outcome(result: &Result<Answer, Fault>) -> &'static str {
    match result {
        Ok(answer) => match answer.status() {
            StatusCode::TOO_MANY_REQUESTS => "429",
            status if status.is_success() => "2xx",
            status if status.is_redirection() => "3xx",
            status if status.is_client_error() => "4xx",
            _ => "5xx",
        },
        Err(fault) => match fault.kind {
            FaultKind::UpstreamUnreachable => "unreachable",
            FaultKind::UpstreamTimeout => "timeout",
            FaultKind::UpstreamRefusedCredentials => "4xx",
            _ => "broken",
        },
    }
}

/// A window's length in a sentence.
fn spoken(per: &Per) -> String {
    match per {
        Per::Sliding(per) => format!("{per:?}"),
        Per::Calendar(_) => format!("a {per}"),
    }
}

fn over_budget((retry_after, rule): (Duration, WindowRule)) -> Fault {
    Fault::new(FaultKind::BudgetSpent)
        .detail(format!("this client may cause {} upstream calls in {:?}", rule.requests, rule.per))
        .member("policy", "budget")
        .retry_after(retry_after)
}

fn fault(refused: Refused, account: &str) -> Fault {
    match refused {
        Refused::Spent { retry_after, window } => Fault::new(FaultKind::QuotaExceeded)
            .detail(format!(
                "account {account} may be asked {} times in {}",
                window.requests,
                spoken(&window.per)
            ))
            .member("account", account)
            .member("policy", format!("{};w={}", window.requests, window.seconds()))
            .retry_after(retry_after),
        Refused::Full => Fault::new(FaultKind::QueueFull)
            .detail(format!("as many requests as may wait for account {account} already do"))
            .retry_after(Duration::from_secs(1)),
        Refused::Busy => Fault::new(FaultKind::QueueFull)
            .detail(format!("the upstream of account {account} has as many calls as it may have at once"))
            .retry_after(Duration::from_secs(1)),
        Refused::Resting { retry_after } => Fault::new(FaultKind::UpstreamRefusedCredentials)
            .detail(format!("account {account} rests; its credentials were refused twice in a row"))
            .retry_after(retry_after),
        Refused::Paused { retry_after } => Fault::new(FaultKind::AccountPaused)
            .detail(format!("account {account} is left alone until its upstream admits calls again"))
            .member("account", account)
            .retry_after(retry_after),
    }
}
