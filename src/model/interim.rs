//! Interim responses (RFC 9110 §15.2) on their way to the client that caused them: `102`, `103` and their like. They are
//! relayed and never kept.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderMap;

/// Whoever passes interim responses on: a connection, or a flight with several clients aboard.
pub trait TakesInterim: fmt::Debug + Send + Sync {
    /// Passes one on to `request`; nothing happens if that is over.
    fn take(&self, request: u64, status: StatusCode, headers: &HeaderMap);

    /// The request that is under way.
    fn current(&self) -> u64;
}

/// Where one request's interim responses go.
#[derive(Debug, Clone)]
pub struct Interim {
    to: Arc<dyn TakesInterim>,
    request: u64,
}

impl Interim {
    /// To the request under way at `to`.
    pub fn to(to: Arc<dyn TakesInterim>) -> Self {
        Self { request: to.current(), to }
    }

    /// Passes one on.
    pub fn take(&self, status: StatusCode, headers: &HeaderMap) {
        self.to.take(self.request, status, headers);
    }
}
