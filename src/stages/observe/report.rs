//! What is said of a request when it is over, and when that is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;

use crate::model::cache_status::Stale;
use crate::model::exchange::{Answer, Arrival, Notes, Timing};
use crate::model::fault::{Called, Level};
use crate::model::{Fault, FaultKind, Moment};
use crate::state::clock::Clock;
use crate::state::metrics::RouteMeters;
use crate::state::tells::Tells;

/// What is counted.
#[derive(Debug)]
pub struct Reports {
    /// The routes' handles, by place.
    pub routes: Vec<RouteMeters>,
    /// What is counted for requests no route took.
    pub none: RouteMeters,
    /// The routes' parameters, by place, to name them in the counter.
    pub params: Vec<Vec<String>>,
    /// `tollgate_faults_total{kind}`
    pub faults: IntCounterVec,
    /// What clients are told of the routes' accounts, by place.
    pub tells: Vec<Option<Tells>>,
    /// The time.
    pub clock: Clock,
}

/// Where a report is said.
pub(super) trait Reporting: Send + Sync {
    /// What counts it.
    fn reports(&self) -> &Reports;
}

/// What code a request is counted with whose client left before its answer.
const LEFT: u16 = 499;

/// A request that has no answer yet; reported when this is dropped, as one whose client left.
pub(super) struct Unanswered<'a> {
    pub(super) report: &'a Report,
    pub(super) reports: &'a Reports,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.report.say(self.reports);
    }
}

/// A request that has its answer; reported when this is dropped, so that nothing ends unsaid.
pub(super) struct Answered {
    pub(super) report: Box<Report>,
    pub(super) way: Arc<dyn Reporting>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.report.say(self.way.reports());
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

/// What is said of a request when it is over.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) notes: Arc<Notes>,
    pub(super) began: Moment,
    pub(super) method: http::Method,
    pub(super) code: u16,
    pub(super) result: &'static str,
    pub(super) stale: Option<&'static str>,
    pub(super) fault: Option<(&'static str, Level, Called)>,
    pub(super) timing: Timing,
    pub(super) bytes: u64,
    pub(super) whole: bool,
    /// How long it took, where that is known before it is over.
    pub(super) took: Option<Duration>,
}

impl Report {
    /// Of a request nothing is known of but how it came: its client may leave before its answer.
    pub(super) fn new(arrival: &Arrival) -> Self {
        Self {
            notes: arrival.notes.clone(),
            began: arrival.at,
            method: arrival.method.clone(),
            code: LEFT,
            result: "fault",
            stale: None,
            fault: None,
            timing: Timing::default(),
            bytes: 0,
            whole: false,
            took: None,
        }
    }

    /// Takes what it came to.
    pub(super) fn take(&mut self, result: &Result<Answer, Fault>) {
        match result {
            Ok(answer) => {
                self.code = answer.status().as_u16();
                self.result = answer.cache.result();
                self.timing = answer.timing;
                self.stale = answer.cache.stale().map(Stale::as_str);
            }
            Err(fault) => {
                let row = fault.kind.row();
                self.code = row.status.as_u16();
                self.fault = Some((row.name, row.level, fault.called));
            }
        }
    }

    /// Counts and logs it.
    fn say(&self, reports: &Reports) {
        let (mut code, mut fault) = (self.code, self.fault);
        if std::thread::panicking() {
            let row = FaultKind::Internal.row();
            (code, fault) = (row.status.as_u16(), Some((row.name, row.level, Called::Maybe)));
        }
        let (client, route) = (self.notes.client.place(), self.notes.route.place());
        let meters = route.and_then(|route| reports.routes.get(route)).unwrap_or(&reports.none);
        let duration = self.took.unwrap_or_else(|| reports.clock.now().since(self.began));
        meters.count(client, code, self.result, duration.as_secs_f64());
        if let Some(reason) = self.stale {
            meters.count_stale(reason);
        }
        if let Some((kind, ..)) = fault {
            reports.faults.with_label_values(&[kind]).inc();
        }
        let changes = self.notes.changes();
        if let (Some(route), Some(changes)) = (route, changes) {
            for (param, rule) in &changes.counted {
                let name = reports.params.get(route).and_then(|names| names.get(usize::from(*param)));
                meters.count_param(name.map_or("unknown", String::as_str), rule);
            }
        }
        let (route, client) = (meters.name(), meters.client(client));
        let millis = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(
            target: "tollgate::request",
            id = self.notes.id.text(),
            method = self.method.as_str(),
            route,
            client,
            code,
            result = fault.map_or(self.result, |(kind, ..)| kind),
            duration_ms = millis(duration),
            wait_ms = millis(self.timing.wait),
            upstream_ms = self.timing.upstream.map(millis),
            bytes = self.bytes,
            whole = self.whole,
            "request"
        );
        match fault {
            Some((kind, Level::Warn, called)) => {
                tracing::warn!(target: "tollgate::fault", id = self.notes.id.text(), route, kind, called = called.as_str(), "fault");
            }
            Some((kind, Level::Error, called)) => {
                tracing::error!(target: "tollgate::fault", id = self.notes.id.text(), route, kind, called = called.as_str(), "fault");
            }
            _ => {}
        }
    }
}
