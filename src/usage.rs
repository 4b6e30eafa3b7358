//! `/usage` and `/-/usage`: who asked what, what it cost and what it saved. The same counters as the metrics, read together.

use serde_json::{Map, Value, json};

use crate::config::plan::{Client, Plan, Route};
use crate::lasting::Lasting;
use crate::model::exchange::ClientId;
use crate::state::causes::Reason;

/// Results that cost no call: the answer came from memory, or by somebody else's call.
const SAVING: [(&str, &str); 4] =
    [("hits", "hit"), ("slices", "sliced"), ("stale", "stale"), ("shared_flights", "collapsed")];

/// The usage of every client on every route that was asked at all, or of one client, as JSON.
pub fn page(plan: &Plan, lasting: &Lasting, reader: Option<ClientId>) -> String {
    let clients =
        (0..).zip(&plan.clients).filter(|(place, _)| reader.is_none_or(|reader| reader == ClientId(*place)));
    let clients: Vec<Value> = clients
        .filter_map(|(_, client)| {
            let routes: Vec<Value> =
                plan.routes.iter().filter_map(|route| usage(plan, lasting, client, route)).collect();
            (reader.is_some() || !routes.is_empty())
                .then(|| json!({ "client": client.name, "routes": routes }))
        })
        .collect();
    format!("{}\n", json!({ "clients": clients }))
}

fn usage(plan: &Plan, lasting: &Lasting, client: &Client, route: &Route) -> Option<Value> {
    let metrics = &lasting.metrics;
    let result = |result: &str| metrics.usage.with_label_values(&[&client.name, &route.name, result]).get();
    let calls =
        |reason: Reason| metrics.calls.with_label_values(&[&client.name, &route.name, reason.as_str()]).get();
    let requests: u64 = crate::state::metrics::RESULTS.iter().map(|word| result(word)).sum();
    let by_reason: Map<String, Value> =
        Reason::ALL.iter().map(|reason| (reason.as_str().to_owned(), calls(*reason).into())).collect();
    let spent: u64 = Reason::ALL.iter().map(|reason| calls(*reason)).sum();
    if requests + spent == 0 {
        return None;
    }
    let saved: u64 = SAVING.iter().map(|(_, word)| result(word)).sum();
    let mut usage = json!({
        "route": route.name,
        "requests": requests,
        "refused": result("fault"),
        "upstream_calls": { "total": spent, "by_reason": by_reason },
        "calls_saved": saved,
    });
    for (name, word) in SAVING {
        usage[name] = result(word).into();
    }
    if let Some(price) = plan.account_of(route).and_then(|account| account.price) {
        // Numbers of calls stay far below what a float counts exactly.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let cost = |calls: u64| calls as f64 * price;
        usage["cost"] = cost(spent).into();
        usage["cost_saved"] = cost(saved).into();
    }
    Some(usage)
}
