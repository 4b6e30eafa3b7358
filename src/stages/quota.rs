//! quota: `Call → Granted`, or 429, 503. Spends the account's quota for calls that are really sent, and counts them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus::IntCounter;
use tower_layer::Layer;

use super::Stage;
use crate::model::exchange::{Answer, Call, Content, Granted};
use crate::model::fault::Called;
use crate::model::urgency::{Class, Urgency};
use crate::model::{Fault, FaultKind, Moment};
use crate::rules::fairness::Payer;
use crate::rules::ledger::Per;
use crate::rules::told::Told;
use crate::rules::window::WindowRule;
use crate::state::causes::{CallMeters, Causes, Reason};
use crate::state::clock::Clock;
use crate::state::grant::{Grant, Probe};
use crate::state::limits::Budget;
use crate::state::quota::{Account, Refused, Want};
use crate::state::scope::{Passed, Scope};

/// What the quota knows of a route.
#[derive(Debug, Clone)]
pub struct Purse {
    /// Who pays.
    pub account: Arc<Account>,
    /// The account's name, for those who are refused.
    pub name: String,
    /// Counts its calls.
    pub meters: CallMeters,
    /// The route's own standing, where a 429 speaks of it alone.
    pub scope: Option<Scope>,
    /// The longest a call waits for it to open.
    pub max_wait: Duration,
    /// The longest the upstream's word closes it.
    pub max_pause: Duration,
}

/// The layer.
#[derive(Debug, Clone)]
pub struct QuotaLayer {
    /// Who may pay for each route, by place: one, or a pool.
    pub purses: Arc<[Vec<Purse>]>,
    /// What each client has of it, by place.
    pub shares: Arc<[Share]>,
    /// Counts the calls of each route and client, by place and place.
    pub causes: Arc<[Vec<Causes>]>,
    /// The time.
    pub clock: Clock,
}

/// How often a call that the upstream sends away waits again.
const MOST_RETURNS: usize = 3;

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
struct Begun<'a> {
    meters: Option<&'a CallMeters>,
    cause: Option<&'a IntCounter>,
}

impl Begun<'_> {
    fn ended(mut self, outcome: &str, sent: bool) {
        if let Some(meters) = self.meters.take() {
            meters.count(outcome);
        }
        if let Some(cause) = self.cause.take().filter(|_| sent) {
            cause.inc();
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(meters) = self.meters {
            meters.count("abandoned");
        }
        if let Some(cause) = self.cause {
            cause.inc();
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
    async fn call(&self, mut call: Call) -> Result<Answer, Fault> {
        let Some(pool) = self.given.purses.get(call.route.place()) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        let Some(share) = self.given.shares.get(call.client.place()) else {
            return Err(FaultKind::ClientUnknown.into());
        };
        let mut returns = 0;
        loop {
            let (spare, urgency) = (call.again().filter(|_| returns < MOST_RETURNS), call.urgency.clone());
            let Some((member, purse)) = choose(pool, urgency.class()) else {
                return Err(FaultKind::NoSuchRoute.into());
            };
            let (result, away) = Box::pin(self.once((member, purse), share, call)).await;
            let opens = |purse: &Purse| purse.opens_for(&urgency, &self.given.clock);
            let again = match away {
                Away::No => false,
                // Nothing says that waiting would help; another account may.
                Away::Somehow => pool.len() > 1 && pool.iter().any(opens),
                Away::Until => pool.iter().any(opens),
            };
            match spare {
                Some(spare) if again => call = spare,
                _ => return result,
            }
            // What was sent away gives its place up before it waits again.
            drop(result);
            returns += 1;
        }
    }
}

/// Whether the upstream sent a call away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    No,
    /// Without saying until when.
    Somehow,
    /// Until a moment it named.
    Until,
}

/// Who pays: of a pool the one that can soonest, and of those the one with most left.
fn choose(pool: &[Purse], class: Class) -> Option<(usize, &Purse)> {
    if pool.len() < 2 {
        return pool.first().map(|purse| (0, purse));
    }
    pool.iter().enumerate().min_by_key(|(_, purse)| {
        let (at, left) = purse.account.prospect(class);
        (at, u64::MAX - left)
    })
}

impl<S: Stage<Granted<Grant>>> Quota<S> {
    /// Waits, spends and sends; whether the upstream sent the call away.
    async fn once(
        &self,
        (member, purse): (usize, &Purse),
        share: &Share,
        call: Call,
    ) -> (Result<Answer, Fault>, Away) {
        let began = self.given.clock.now();
        let scope = match &purse.scope {
            Some(scope) => match scope.pass(purse.until(&call.urgency, began)).await {
                Ok(passed) => Some(passed),
                Err(retry_after) => {
                    return (Err(fault(Refused::Paused { retry_after }, &purse.name)), Away::No);
                }
            },
            None => None,
        };
        // Before the line: nobody waits for what it may not spend. What is not sent is given back.
        let mut counted = match Counted::spend(share.budget.as_deref()) {
            Ok(counted) => counted,
            Err(over) => return (Err(over_budget(over)), Away::No),
        };
        let want = Want {
            payer: share.payer,
            weight: share.weight,
            urgency: call.urgency.clone(),
            question: call.question.key.hash_word(),
            comes_back: call.validates.is_none(),
        };
        let mut grant = match purse.account.acquire(want).await {
            Ok(grant) => grant.of_member(member),
            Err(refused) => return (Err(fault(refused, &purse.name)), Away::No),
        };
        counted.sent = true;
        let waited = self.given.clock.now().since(began);
        call.sent.mark();
        let probe = grant.take_probe();
        let causes =
            self.given.causes.get(call.route.place()).and_then(|route| route.get(call.client.place()));
        let cause = causes.map(|causes| causes.of(Reason::of(&call, probe.is_some())));
        let begun = Begun { meters: Some(&purse.meters), cause };
        let mut result = self.inner.call(Granted { call, grant }).await;
        counted.sent = !matches!(&result, Err(fault) if fault.called == Called::No);
        begun.ended(outcome(&result), counted.sent);
        if let Ok(answer) = &mut result {
            answer.timing.wait += waited;
            if let Some(upstream) = answer.timing.upstream {
                purse.meters.duration.observe(upstream.as_secs_f64());
            }
        }
        let away = self.hear(purse, &result, (probe, scope));
        (result, away)
    }

    /// What an answer says of the upstream's limits; whether it sends the call away. A probe that was not answered has found
    /// nothing out.
    fn hear(
        &self,
        purse: &Purse,
        result: &Result<Answer, Fault>,
        (probe, scope): (Option<Probe>, Option<Passed>),
    ) -> Away {
        let (status, told) = match result {
            Ok(Answer { content: Content::Passed(passed), .. }) => {
                (passed.status, Told::of(&passed.headers, self.given.clock.wall()))
            }
            Err(fault)
                if fault.kind == FaultKind::UpstreamRefusedCredentials && fault.called == Called::Yes =>
            {
                (StatusCode::UNAUTHORIZED, Told::default())
            }
            _ => return Away::No,
        };
        let sent_away = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            // One without a figure is the breaker's affair, and tells a probe nothing.
            StatusCode::SERVICE_UNAVAILABLE if told.retry_after.is_none() => return Away::No,
            status => status == StatusCode::SERVICE_UNAVAILABLE,
        };
        let away = match told.comes_back() {
            _ if !sent_away => Away::No,
            Some(wait) if !wait.is_zero() => Away::Until,
            _ => Away::Somehow,
        };
        match scope {
            Some(scope) if sent_away => {
                scope.sent_away(told.comes_back(), purse.max_pause);
                purse.account.hear(&told, false, probe);
            }
            scope => {
                if let Some(scope) = scope {
                    scope.answered();
                }
                purse.account.hear(&told, sent_away, probe);
            }
        }
        away
    }
}

impl Purse {
    /// Whether a call that was sent away may pass in time if it waits again.
    fn opens_for(&self, urgency: &Urgency, clock: &Clock) -> bool {
        let until = self.until(urgency, clock.now());
        self.scope.as_ref().is_none_or(|scope| scope.opens_by(until)) && self.account.opens_for(urgency)
    }

    /// Until when a call waits that began to at `began`.
    fn until(&self, urgency: &Urgency, began: Moment) -> Moment {
        urgency.deadline().min(began + self.max_wait)
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
        Refused::Unwritable => {
            let fault = Fault::new(FaultKind::LedgerUnwritable).retry_after(Duration::from_secs(5));
            fault.detail(format!("the ledger of account {account} cannot be written; see state.dir"))
        }
        Refused::Paused { retry_after } => Fault::new(FaultKind::AccountPaused)
            .detail(format!("account {account} is left alone until its upstream admits calls again"))
            .member("account", account)
            .retry_after(retry_after),
    }
}
