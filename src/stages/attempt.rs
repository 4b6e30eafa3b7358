//! attempt: `Call = Call`, or 502, 503, 504. Every try passes all stages below; a call whose credentials turned out to
//! have been renewed is tried once more with the new ones.

use tower_layer::Layer;

use super::Stage;
use crate::model::exchange::{Answer, Call};
use crate::model::{Body, Fault, FaultKind};

/// The layer.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLayer;

/// The stage.
#[derive(Debug)]
pub struct Attempt<S> {
    inner: S,
}

impl<S> Layer<S> for AttemptLayer {
    type Service = Attempt<S>;

    fn layer(&self, inner: S) -> Attempt<S> {
        Attempt { inner }
    }
}

impl<S: Stage<Call>> Stage<Call> for Attempt<S> {
    async fn call(&self, call: Call) -> Result<Answer, Fault> {
        let again = again(&call);
        match self.inner.call(call).await {
            Err(fault) if fault.kind == FaultKind::UpstreamRefusedCredentials && fault.renewed => match again
            {
                Some(call) => self.inner.call(call).await,
                None => Err(fault),
            },
            result => result,
        }
    }
}

/// The same call once more, if its body can be sent twice.
fn again(call: &Call) -> Option<Call> {
    call.body.is_empty().then(|| Call {
        client: call.client,
        route: call.route,
        method: call.method.clone(),
        question: call.question.clone(),
        headers: call.headers.clone(),
        body: Body::Empty,
        deadline: call.deadline,
        keep: call.keep,
        why: call.why,
    })
}
