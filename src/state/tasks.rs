//! Every task the gate starts, counted: so that a drain knows when it is done, and a leak shows on a metric.

use std::future::Future;
use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Starts tasks and counts those that have not ended. Clones share the count.
#[derive(Debug, Clone)]
pub struct Tasks {
    alive: IntGauge,
    ended: Arc<Notify>,
}

/// Counts one for as long as it lives: panics and cancellation included.
struct Alive(Tasks);

impl Tasks {
    /// Counts into `alive`.
    pub fn new(alive: IntGauge) -> Self {
        Self { alive, ended: Arc::new(Notify::new()) }
    }

    /// Starts a task.
    #[expect(clippy::disallowed_methods, reason = "this is the place that starts tasks")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.alive.inc();
        let alive = Alive(self.clone());
        tokio::spawn(async move {
            let _alive = alive;
            future.await
        })
    }

    /// How many have not ended.
    pub fn alive(&self) -> i64 {
        self.alive.get()
    }

    /// Waits until none is left.
    pub async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before looking, so that an end between the two is not missed.
            ended.as_mut().enable();
            if self.alive() <= 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.dec();
        self.0.ended.notify_waiters();
    }
}
