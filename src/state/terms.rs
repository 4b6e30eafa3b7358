//! How calls wait for an account, what they want of it, and why they do not get it.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::moment::Moment;
use crate::model::urgency::{Class, Urgency};
use crate::rules::fairness::Payer;
use crate::rules::ledger::QuotaRule;

/// The most calls an upstream bears at once. Clones share it.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<Semaphore>);

impl PartialEq for Ceiling {
    /// The same ceiling, not merely the same number.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Ceiling {
    /// At most `calls` at once.
    pub fn new(calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))))
    }

    /// A place under it, once there is one. It is never closed, so there always will be.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }

    /// Whether there is none.
    pub(super) fn is_full(&self) -> bool {
        self.0.available_permits() == 0
    }

    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// How calls may wait for an account; may change while it is used.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The longest a call may wait.
    pub max_wait: Duration,
    /// The most calls that may wait at once.
    pub max_waiting: usize,
    /// The longest the upstream's word closes the account.
    pub max_pause: Duration,
    /// What the upstream bears at once.
    pub ceiling: Ceiling,
}

/// The windows of an account; may change while it is used.
#[derive(Debug)]
pub struct Windows<'a> {
    /// What may be spent.
    pub rules: &'a [QuotaRule],
    /// How many gates spend it.
    pub instances: u32,
    /// What each still admits, as a metric.
    pub remaining: Vec<IntGauge>,
}

/// What an account reports.
#[derive(Debug, Clone)]
pub struct AccountMeters {
    /// Grants that are held.
    pub permits: IntGauge,
    /// Calls that wait, by class.
    pub waiting: [IntGauge; Class::ALL.len()],
    /// How long calls waited, in seconds.
    pub waits: Histogram,
    /// 1 while the account rests or is paused.
    pub paused: IntGauge,
    /// Calls that a window in the shadow would have refused.
    pub shadow: IntCounter,
}

/// Who wants a grant.
#[derive(Debug, Clone)]
pub struct Want {
    /// Whose share it takes.
    pub payer: Payer,
    /// How large that share is, at least 1.
    pub weight: u32,
    /// How urgently, and until when.
    pub urgency: Arc<Urgency>,
    /// What is asked, as a word.
    pub question: u64,
    /// Whether somebody comes back who is told to: not where something stale stands in.
    pub comes_back: bool,
}

/// Why no grant was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// No slot comes free in time.
    Spent {
        /// When one does, from now.
        retry_after: Duration,
        /// The window that admits last.
        window: QuotaRule,
    },
    /// As many calls wait as may.
    Full,
    /// The upstream's ceiling is reached, and stayed so for as long as could be waited.
    Busy,
    /// The upstream refused the account's credentials; so long until the next probe.
    Resting {
        /// How long.
        retry_after: Duration,
    },
    /// What would be spent cannot be written down.
    Unwritable,
    /// The upstream, or an operator, closed the account; so long until it is asked again.
    Paused {
        /// How long.
        retry_after: Duration,
    },
}

/// A grant that comes so shortly before a deadline cannot be answered in time; refusing it then still can be told.
const LAST_MOMENT: Duration = Duration::from_millis(10);

/// Until when a call waits that waits as urgently as this, and no longer than `longest`.
pub(super) fn until(urgency: &Urgency, longest: Moment) -> Moment {
    urgency.deadline().before(LAST_MOMENT).min(longest)
}
