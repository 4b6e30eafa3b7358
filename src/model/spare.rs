//! The same call once more, for when the first was not answered.

use super::Body;
use super::exchange::Call;

impl Call {
    /// The same call, if its body can be sent twice.
    pub fn spare(&self) -> Option<Self> {
        self.body.is_empty().then(|| Self {
            client: self.client,
            route: self.route,
            method: self.method.clone(),
            question: self.question.clone(),
            headers: self.headers.clone(),
            body: Body::Empty,
            urgency: self.urgency.clone(),
            again: true,
            keep: self.keep,
            validates: self.validates.clone(),
            interim: self.interim.clone(),
            sent: self.sent.clone(),
            why: self.why,
        })
    }
}
