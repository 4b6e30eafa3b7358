//! ★ The way of a request: one function, read from top to bottom.
//!
//! Each line is a stage, in the order in which a request passes them. The right column says what the stage takes and
//! hands on (`model::exchange`), and with which status a request may end there. Above the cache is what clients see;
//! below it is what is stored and what is paid for.

use tower::ServiceBuilder;

use crate::model::exchange::Signed;
use crate::stages::Stage;
use crate::stages::attempt::AttemptLayer;
use crate::stages::cache::CacheLayer;
use crate::stages::credentials::CredentialsLayer;
use crate::stages::flight::FlightLayer;
use crate::stages::keep::KeepLayer;
use crate::stages::observe::{ObserveLayer, Respond};
use crate::stages::pages::PagesLayer;
use crate::stages::quota::QuotaLayer;
use crate::stages::step;
use crate::stages::steps::{Authenticate, Inspect, LimitClient, Route, Understand};
use crate::state::grant::Grant;

/// What each stage is given; made from a plan by `provision`.
#[derive(Debug)]
pub struct Stages {
    /// Reports every request.
    pub observe: ObserveLayer,
    /// What a head must satisfy.
    pub inspect: Inspect,
    /// Who asks.
    pub authenticate: Authenticate,
    /// Which route.
    pub route: Route,
    /// What it means.
    pub understand: Understand,
    /// How often one client may ask.
    pub limit_client: LimitClient,
    /// Which blocks hold what was asked for.
    pub pages: PagesLayer,
    /// What is known already.
    pub cache: CacheLayer,
    /// One call for everyone who asks the same.
    pub flight: FlightLayer,
    /// What of an answer is kept.
    pub keep: KeepLayer,
    /// What is tried again.
    pub attempt: AttemptLayer,
    /// What the account may still spend.
    pub quota: QuotaLayer,
    /// The account's secrets.
    pub credentials: CredentialsLayer,
}

/// The whole way. `upstream` is the innermost stage: sockets in the program, a script in tests, a constant in benches.
pub fn pipeline<U: Stage<Signed<Grant>> + 'static>(stages: Stages, upstream: U) -> impl Respond + 'static {
    ServiceBuilder::new()
        // above the cache: every request
        .layer(stages.observe) //            Arrival            every exit is counted exactly once
        .layer(step(stages.inspect)) //      = Arrival  400 405 414 417 421 501, where hyper leaves the rules of a head to us
        .layer(step(stages.authenticate)) // → Known    401     the client's key is removed here
        .layer(step(stages.route)) //        → Routed   403 404 405
        .layer(step(stages.understand)) //   → Ask      400 413 refuses a parameter only where strictness was asked
        .layer(step(stages.limit_client)) // = Ask      429     hits count: this protects the gate
        .layer(stages.pages) //              → Block    410     or a window cut from blocks in memory; below: blocks, or whole asks
        // the cache
        .layer(stages.cache) //              → Fetch    504     or an answer from memory
        // below the cache: what nobody knows yet
        .layer(stages.flight) //             → Call     503 504 one call per key, in a task of its own
        .layer(stages.keep) //               = Call     502     collects what is shared, stores what may be kept
        .layer(stages.attempt) //            = Call             every try passes all stages below
        .layer(stages.quota) //              → Granted  429 503 only calls really sent spend
        .layer(stages.credentials) //        → Signed   502     innermost: nothing above ever sees a secret
        .service(upstream) //                → Answer   502 504
}
