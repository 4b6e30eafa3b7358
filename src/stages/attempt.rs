//! attempt: `Call = Call`, or 503. Every try passes all stages below. What may be sent again is, while retries stay
//! under a tenth of calls; an upstream that keeps failing is left alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tower_layer::Layer;

use super::Stage;
use crate::model::exchange::{Answer, Call};
use crate::model::{Fault, FaultKind};
use crate::rules::breaker::{Breaker, Failure};
use crate::rules::retry::{self, Again, Ration};
use crate::state::clock::Clock;

/// How an upstream has been doing. Clones share it.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Held>);

#[derive(Debug)]
struct Held {
    health: Mutex<Health>,
    open: IntGauge,
    retries: IntCounter,
}

#[derive(Debug, Default)]
struct Health {
    breaker: Breaker,
    ration: Ration,
}

/// The layer.
#[derive(Debug, Clone)]
pub struct AttemptLayer {
    /// How each route's upstream has been doing, by place, and how many failures in a row are too many of it.
    pub standings: Arc<[(Standing, u32)]>,
    /// The time.
    pub clock: Clock,
}

/// The stage.
#[derive(Debug)]
pub struct Attempt<S> {
    given: AttemptLayer,
    inner: S,
}

impl<S> Layer<S> for AttemptLayer {
    type Service = Attempt<S>;

    fn layer(&self, inner: S) -> Attempt<S> {
        Attempt { given: self.clone(), inner }
    }
}

impl Standing {
    /// An upstream nothing is known of.
    pub fn new(open: IntGauge, retries: IntCounter) -> Self {
        Self(Arc::new(Held { health: Mutex::default(), open, retries }))
    }

    // A panic elsewhere must not close an upstream: the state is consistent after every statement.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, clock: &Clock) -> Result<(), Fault> {
        let mut health = self.health();
        health
            .breaker
            .admit(clock.now())
            .map_err(|wait| Fault::new(FaultKind::BreakerOpen).retry_after(wait))?;
        health.ration.earn();
        Ok(())
    }

    fn judge(&self, result: &Result<Answer, Fault>, (question, most): (u64, u32), clock: &Clock) {
        let mut health = self.health();
        match sign(result, question) {
            Sign::Well => health.breaker.answered(),
            Sign::Failing(failure) => health.breaker.failed(failure, most, clock.now()),
            Sign::None => {}
        }
        self.0.open.set(health.breaker.is_open().into());
    }

    fn spend_retry(&self) -> bool {
        let spent = self.health().ration.spend();
        if spent {
            self.0.retries.inc();
        }
        spent
    }

    /// What puts a paused upstream back to work by an operator's hand.
    pub fn reset(&self) {
        self.health().breaker = Breaker::default();
        self.0.open.set(0);
    }
}

impl<S: Stage<Call>> Stage<Call> for Attempt<S> {
    async fn call(&self, call: Call) -> Result<Answer, Fault> {
        let Some((standing, most)) = self.given.standings.get(call.route.place()) else {
            return Err(FaultKind::NoSuchRoute.into());
        };
        standing.admit(&self.given.clock)?;
        let (spare, method, question) = (call.again(), call.method.clone(), call.question.key.hash_word());
        let result = self.inner.call(call).await;
        standing.judge(&result, (question, *most), &self.given.clock);
        let (Some(call), Err(fault)) = (spare, &result) else { return result };
        match retry::decide(&method, fault) {
            Again::No => return result,
            Again::Renewed => {}
            Again::AtOnce | Again::After(_) if !standing.spend_retry() => return result,
            Again::AtOnce => {}
            Again::After(longest) => tokio::time::sleep(jittered(longest)).await,
        }
        standing.admit(&self.given.clock)?;
        let result = self.inner.call(call).await;
        standing.judge(&result, (question, *most), &self.given.clock);
        result
    }
}

/// What a result says of its upstream.
enum Sign {
    Well,
    Failing(Failure),
    /// Nothing: it was never asked.
    None,
}

fn sign(result: &Result<Answer, Fault>, question: u64) -> Sign {
    match result {
        Ok(answer) if matches!(answer.status().as_u16(), 502..=504) => {
            Sign::Failing(Failure::Question(question))
        }
        Ok(_) => Sign::Well,
        Err(fault) => match fault.kind {
            FaultKind::UpstreamUnreachable => Sign::Failing(Failure::Connect),
            FaultKind::UpstreamTimeout | FaultKind::UpstreamBroken => {
                Sign::Failing(Failure::Question(question))
            }
            FaultKind::UpstreamRefusedCredentials if fault.called == crate::model::fault::Called::Yes => {
                Sign::Well
            }
            _ => Sign::None,
        },
    }
}

/// Full jitter: anything from nothing to `longest`.
fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(fastrand::f64())
}
