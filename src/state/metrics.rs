//! Every metric: its name, its labels, and handles resolved once so that counting is an atomic addition.
//!
//! Labels come from configuration alone: routes, clients, upstreams, accounts, parameters; never from a request.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Seconds, from a hit in memory to a patient wait.
const BUCKETS: [f64; 15] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

/// The gate's metrics. Clones share them; a reload keeps them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// `tollgate_requests_total{route,client,code}`
    pub requests: IntCounterVec,
    /// `tollgate_request_duration_seconds{route,result}`
    pub request_duration: HistogramVec,
    /// `tollgate_cache_results_total{route,result}`
    pub cache_results: IntCounterVec,
    /// `tollgate_upstream_requests_total{upstream,account,outcome}`
    pub upstream_requests: IntCounterVec,
    /// `tollgate_upstream_duration_seconds{upstream}`
    pub upstream_duration: HistogramVec,
    /// `tollgate_quota_remaining{account,window}`
    pub quota_remaining: IntGaugeVec,
    /// `tollgate_quota_wait_seconds{account}`
    pub quota_wait: HistogramVec,
    /// `tollgate_usage_total{client,route,result}`
    pub usage: IntCounterVec,
    /// `tollgate_calls_total{client,route,reason}`
    pub calls: IntCounterVec,
    /// `tollgate_shadow_total{limit}`
    pub shadow: IntCounterVec,
    /// `tollgate_params_total{route,param,rule}`
    pub params: IntCounterVec,
    /// `tollgate_faults_total{kind}`
    pub faults: IntCounterVec,
    /// `tollgate_stale_total{route,reason}`
    pub stale: IntCounterVec,
    /// `tollgate_pages_shifts_total{route}`
    pub shifts: IntCounterVec,
    /// `tollgate_pages_restarts_total{route,reason}`
    pub restarts: IntCounterVec,
    /// `tollgate_pages_beliefs_total{route,belief}`
    pub beliefs: IntCounterVec,
    /// `tollgate_pages_forwarded_total{route,reason}`
    pub forwarded: IntCounterVec,
    /// `tollgate_pages_unsliceable_total{route,reason}`
    pub unsliceable: IntCounterVec,
    /// `tollgate_walks_total{route,state}`
    pub walks: IntCounterVec,
    /// `tollgate_walks_open`
    pub walks_open: IntGauge,
    /// `tollgate_walks_ambiguous`
    pub walks_ambiguous: IntGauge,
    /// `tollgate_pages_blocks_total{route}`
    pub blocks: IntCounterVec,
    /// `tollgate_pages_calls_saved{route}`
    pub calls_saved: IntGaugeVec,
    /// `tollgate_account_paused{account}`
    pub account_paused: IntGaugeVec,
    /// `tollgate_breaker_open{upstream}`
    pub breaker_open: IntGaugeVec,
    /// `tollgate_retries_total{upstream}`
    pub retries: IntCounterVec,
    /// `tollgate_queue_length{account,class}`
    pub queue_length: IntGaugeVec,
    /// `tollgate_cache_bytes`
    pub cache_bytes: IntGauge,
    /// `tollgate_cache_entries`
    pub cache_entries: IntGauge,
    /// `tollgate_flights_active`
    pub flights: IntGauge,
    /// `tollgate_permits`
    pub permits: IntGauge,
    /// `tollgate_tasks`
    pub tasks: IntGauge,
    /// `tollgate_connections`
    pub connections: IntGauge,
    /// `tollgate_refused_connections_total{reason}`
    pub refused_connections: IntCounterVec,
    /// `tollgate_config_reloads_total{result}`
    pub reloads: IntCounterVec,
}

/// Registers metrics; a name that is taken twice is a mistake in this file that every test would meet.
struct Maker(Registry);

impl Maker {
    fn keep<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let metric = made?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels))
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        make.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = make.gauges("tollgate_build_info", "Which version runs; always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            requests: make.counter(
                "tollgate_requests_total",
                "Requests, by how they ended; code 499: the client left.",
                &["route", "client", "code"],
            )?,
            request_duration: make.histogram(
                "tollgate_request_duration_seconds",
                "From a request's head to its answer's last byte.",
                &["route", "result"],
            )?,
            cache_results: make.counter(
                "tollgate_cache_results_total",
                "Answers, by how the cache took part.",
                &["route", "result"],
            )?,
            upstream_requests: make.counter(
                "tollgate_upstream_requests_total",
                "Calls sent upstream, by the answer's class or what went wrong.",
                &["upstream", "account", "outcome"],
            )?,
            upstream_duration: make.histogram(
                "tollgate_upstream_duration_seconds",
                "From a call's sending to its answer's head.",
                &["upstream"],
            )?,
            quota_remaining: make.gauges(
                "tollgate_quota_remaining",
                "Calls that a window of an account still admits.",
                &["account", "window"],
            )?,
            quota_wait: make.histogram(
                "tollgate_quota_wait_seconds",
                "How long calls waited for the account.",
                &["account"],
            )?,
            usage: make.counter(
                "tollgate_usage_total",
                "Requests of each client, by how the cache took part.",
                &["client", "route", "result"],
            )?,
            calls: make.counter(
                "tollgate_calls_total",
                "Calls sent upstream for each client, by why.",
                &["client", "route", "reason"],
            )?,
            shadow: make.counter(
                "tollgate_shadow_total",
                "What limits in the shadow would have refused.",
                &["limit"],
            )?,
            params: make.counter(
                "tollgate_params_total",
                "Parameters that were not sent as they came, by the rule that changed them.",
                &["route", "param", "rule"],
            )?,
            faults: make.counter(
                "tollgate_faults_total",
                "Requests that the gate itself ended, by problem type.",
                &["kind"],
            )?,
            stale: make.counter("tollgate_stale_total", "Stale answers, by reason.", &["route", "reason"])?,
            shifts: make.counter(
                "tollgate_pages_shifts_total",
                "Refreshed first blocks that showed how many items had arrived.",
                &["route"],
            )?,
            restarts: make.counter(
                "tollgate_pages_restarts_total",
                "Collections that started over, by reason.",
                &["route", "reason"],
            )?,
            beliefs: make.counter(
                "tollgate_pages_beliefs_total",
                "What was learned of an upstream's pages.",
                &["route", "belief"],
            )?,
            forwarded: make.counter(
                "tollgate_pages_forwarded_total",
                "Windows that were forwarded as they were asked, by reason.",
                &["route", "reason"],
            )?,
            unsliceable: make.counter(
                "tollgate_pages_unsliceable_total",
                "Answers that no window can be cut from, by reason.",
                &["route", "reason"],
            )?,
            walks: make.counter(
                "tollgate_walks_total",
                "Windows that were answered, by how their generation was chosen; `ended`: a token's was gone.",
                &["route", "state"],
            )?,
            walks_open: make.gauge("tollgate_walks_open", "Pages that somebody is due to read next.")?,
            walks_ambiguous: make.gauge(
                "tollgate_walks_ambiguous",
                "Those of them that are due in one of several generations.",
            )?,
            blocks: make.counter(
                "tollgate_pages_blocks_total",
                "Blocks that windows were cut from; one counts for each window.",
                &["route"],
            )?,
            calls_saved: make.gauges(
                "tollgate_pages_calls_saved",
                "Windows that were cut from blocks, less the calls that blocks were asked for with.",
                &["route"],
            )?,
            account_paused: make.gauges(
                "tollgate_account_paused",
                "1 while an account rests.",
                &["account"],
            )?,
            breaker_open: make.gauges(
                "tollgate_breaker_open",
                "1 while an upstream is left alone.",
                &["upstream"],
            )?,
            retries: make.counter("tollgate_retries_total", "Calls that were sent again.", &["upstream"])?,
            queue_length: make.gauges(
                "tollgate_queue_length",
                "Calls that wait for the account.",
                &["account", "class"],
            )?,
            cache_bytes: make.gauge("tollgate_cache_bytes", "Bytes that entries keep, overhead included.")?,
            cache_entries: make.gauge("tollgate_cache_entries", "Keys that have entries.")?,
            flights: make.gauge("tollgate_flights_active", "Upstream calls that answers are shared from.")?,
            permits: make.gauge("tollgate_permits", "Grants that are held.")?,
            tasks: make.gauge("tollgate_tasks", "Tasks the gate started that have not ended.")?,
            connections: make.gauge("tollgate_connections", "Connections of clients.")?,
            refused_connections: make.counter(
                "tollgate_refused_connections_total",
                "Connections ended before a request was understood.",
                &["reason"],
            )?,
            reloads: make.counter(
                "tollgate_config_reloads_total",
                "Reloads of the configuration.",
                &["result"],
            )?,
            registry: make.0,
        })
    }

    /// All metrics in Prometheus' text format.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 << 10);
        // Writing to memory cannot fail, and what the registry holds was checked when it was registered.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// What `Content-Type` that text has.
    pub const TEXT_FORMAT: &'static str = prometheus::TEXT_FORMAT;
}

/// Handles of one route: resolved when the plan is built.
#[derive(Debug)]
pub struct RouteMeters {
    name: String,
    metrics: Metrics,
    results: [(&'static str, IntCounter, Histogram); RESULTS.len()],
    /// `200` for each client, the way of nearly every request.
    ok: Vec<IntCounter>,
    /// What each client got, by the place of the result.
    usage: Vec<[IntCounter; RESULTS.len()]>,
    clients: Vec<String>,
}

/// Every `result` an answer can have, and `fault`.
pub const RESULTS: [&str; 8] =
    ["hit", "sliced", "miss", "stale", "revalidated", "collapsed", "bypass", "fault"];

impl RouteMeters {
    /// The handles of the route called `name` for these clients.
    pub fn new(metrics: &Metrics, name: &str, clients: &[String]) -> Self {
        Self {
            results: RESULTS.map(|result| {
                (
                    result,
                    metrics.cache_results.with_label_values(&[name, result]),
                    metrics.request_duration.with_label_values(&[name, result]),
                )
            }),
            ok: clients
                .iter()
                .map(|client| metrics.requests.with_label_values(&[name, client, "200"]))
                .collect(),
            usage: clients
                .iter()
                .map(|client| RESULTS.map(|result| metrics.usage.with_label_values(&[client, name, result])))
                .collect(),
            name: name.to_owned(),
            clients: clients.to_vec(),
            metrics: metrics.clone(),
        }
    }

    /// A request of the client at `client` ended with `code` after `seconds`; `result` says how the cache took part.
    pub fn count(&self, client: Option<usize>, code: u16, result: &str, seconds: f64) {
        match client.and_then(|client| self.ok.get(client)) {
            Some(counter) if code == 200 => counter.inc(),
            _ => {
                let client =
                    client.and_then(|client| self.clients.get(client)).map_or("unknown", String::as_str);
                self.metrics
                    .requests
                    .with_label_values(&[self.name.as_str(), client, &code.to_string()])
                    .inc();
            }
        }
        if let Some(place) = self.results.iter().position(|(held, ..)| *held == result) {
            let (_, counter, histogram) = &self.results[place];
            counter.inc();
            histogram.observe(seconds);
            if let Some(usage) = client.and_then(|client| self.usage.get(client)) {
                usage[place].inc();
            }
        }
    }

    /// A stale answer was given for `reason`.
    pub fn count_stale(&self, reason: &'static str) {
        self.metrics.stale.with_label_values(&[self.name.as_str(), reason]).inc();
    }

    /// A parameter was not sent as it came.
    pub fn count_param(&self, param: &str, rule: &str) {
        self.metrics.params.with_label_values(&[self.name.as_str(), param, rule]).inc();
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the client at `client`.
    pub fn client(&self, client: Option<usize>) -> &str {
        client.and_then(|client| self.clients.get(client)).map_or("unknown", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Metrics::new().expect("every name is legal and taken once");
        let route = RouteMeters::new(&metrics, "r", &["anonymous".into()]);
        route.count(Some(0), 200, "hit", 0.001);
        route.count(None, 404, "fault", 0.001);
        let text = String::from_utf8(metrics.to_text()).expect("is text");
        for line in [
            "tollgate_requests_total{client=\"anonymous\",code=\"200\",route=\"r\"} 1",
            "tollgate_requests_total{client=\"unknown\",code=\"404\",route=\"r\"} 1",
            "tollgate_cache_results_total{result=\"hit\",route=\"r\"} 1",
            "tollgate_flights_active 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
