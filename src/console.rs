//! What the pages show: the operators' on the admin listener, and the gate's own under `/-/`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use crate::config::plan::Plan;
use crate::edge::admin::{Console, asked_request};
use crate::explain::{Explanation, Reader};
use crate::hand;
use crate::lasting::Lasting;
use crate::model::exchange::{Answer, Known};
use crate::model::{Body, Fault, FaultKind};
use crate::provision;
use crate::purge::Purge;
use crate::stages::steps::OwnPages;
use crate::usage;

/// The gate's own pages for clients.
#[derive(Debug)]
pub struct Own {
    /// The running plan.
    pub plan: Arc<ArcSwap<Plan>>,
    /// What was counted, and the time.
    pub lasting: Arc<Lasting>,
}

impl OwnPages for Own {
    fn answer(&self, known: &Known) -> Option<Result<Answer, Fault>> {
        let uri = &known.arrival.uri;
        let page = match uri.path() {
            "/-/explain" => self.explain(known, uri.query().unwrap_or_default()),
            "/-/usage" => Ok(usage::page(&self.plan.load(), &self.lasting, Some(known.client))),
            _ => return None,
        };
        if !matches!(known.arrival.method, Method::GET | Method::HEAD) {
            return Some(Err(Fault::new(FaultKind::MethodNotAllowed).allow("GET, HEAD".into())));
        }
        Some(page.map(|page| {
            let headers = HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ]);
            Answer::own(StatusCode::OK, headers, Body::Full(page.into()), self.lasting.clock.now())
        }))
    }
}

impl Own {
    fn explain(&self, known: &Known, query: &str) -> Result<String, Fault> {
        let request = asked_request(query).ok_or_else(|| {
            Fault::new(FaultKind::Malformed)
                .detail("say what to explain: /-/explain?request=GET%20/path%3Fa%3D1")
        })?;
        let explanation = Explanation::of(&self.plan.load(), &request, Reader::Client(known.client));
        let explanation = explanation.map_err(|mistake| Fault::new(FaultKind::Malformed).detail(mistake))?;
        Ok(explanation.to_json())
    }
}

/// What the operators' pages show.
#[derive(Debug)]
pub struct Operators {
    /// The running plan.
    pub plan: Arc<ArcSwap<Plan>>,
    /// What the metrics are about.
    pub lasting: Arc<Lasting>,
    /// Whether the gate takes requests.
    pub ready: Arc<AtomicBool>,
}

impl Console for Operators {
    fn metrics(&self) -> Vec<u8> {
        self.lasting.refresh();
        self.lasting.metrics.to_text()
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn config(&self) -> String {
        self.plan.load().describe()
    }

    fn explain(&self, request: &str) -> Result<String, String> {
        let plan = self.plan.load();
        let explanation = Explanation::of(&plan, request, Reader::Operator)?;
        let route = plan.routes.iter().find(|route| explanation.route() == Some(&route.name));
        let beliefs = route.and_then(|route| provision::beliefs(&plan, route, &self.lasting));
        let learned = beliefs.map(|beliefs| {
            beliefs.lock().unwrap_or_else(PoisonError::into_inner).learned(self.lasting.clock.now())
        });
        Ok(explanation.with_learned(learned.unwrap_or_default()).to_json())
    }

    fn usage(&self) -> String {
        usage::page(&self.plan.load(), &self.lasting, None)
    }

    fn account(&self, path: &str, query: &str) -> Result<String, String> {
        hand::act(&self.lasting, path, query)
    }

    fn purge(&self, query: &str) -> Result<String, String> {
        let purge = Purge::of(&self.plan.load(), query)?;
        let entries = purge.run(&self.lasting.store, self.lasting.clock.now());
        // What was asked for may be about a person; how much went is not.
        tracing::info!(entries, soft = purge.soft, "purged");
        let done = if purge.soft { "expired" } else { "erased" };
        Ok(format!("{{\"{done}\":{entries}}}\n"))
    }
}
