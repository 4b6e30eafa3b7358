//! What ends a request, with whose fault it is: one table from a kind to everything that follows from it.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

/// Whose fault it is, as the problem document's `fault` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The caller: another request would be answered.
    Client,
    /// This program or its configuration.
    Gateway,
    /// The API behind it.
    Upstream,
    /// Nobody: a limit somebody set is reached.
    Quota,
}

/// Whether the upstream may have acted, as the problem document's `upstream_called` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Called {
    /// Certainly not.
    #[default]
    No,
    /// It answered.
    Yes,
    /// A request was on its way when things broke.
    Maybe,
}

/// How loudly the log speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A caller's mistake, or a limit doing its work: part of the request's own line.
    Info,
    /// Somebody should look when it persists.
    Warn,
    /// Somebody should look.
    Error,
}

/// What follows from a [`FaultKind`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The status of the answer.
    pub status: StatusCode,
    /// The problem type's last part, also the metric's `kind`.
    pub name: &'static str,
    /// The problem's title, one sentence that never varies.
    pub title: &'static str,
    /// Whose fault.
    pub party: Party,
    /// Whether another try of a safe request can do better, where the fault itself allows one.
    pub retry: bool,
    /// How loudly the log speaks of it.
    pub level: Level,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $kind:ident = $status:ident, $name:literal, $party:ident, $retry:literal, $level:ident, $title:literal;)+) => {
        /// Every way in which the gate itself ends a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultKind { $($(#[doc = $doc])+ $kind,)+ }

        impl FaultKind {
            /// Every kind, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The kind's row of the table.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row {
                        status: StatusCode::$status, name: $name, title: $title,
                        party: Party::$party, retry: $retry, level: Level::$level,
                    },)+
                }
            }
        }
    };
}

faults! {
    /// The request's head breaks HTTP's rules or names no host.
    Malformed = BAD_REQUEST, "malformed-request", Client, false, Info, "The request is malformed.";
    /// A parameter could not be understood and strictness was asked for.
    ParameterNotUnderstood = BAD_REQUEST, "parameter-not-understood", Client, false, Info, "A parameter could not be understood.";
    /// No client key, or one that nobody holds.
    ClientUnknown = UNAUTHORIZED, "client-unknown", Client, false, Info, "The gate does not know this client.";
    /// A declared client on a route that is not its own.
    RouteForbidden = FORBIDDEN, "route-forbidden", Client, false, Info, "This client may not use this route.";
    /// No route has this path.
    NoSuchRoute = NOT_FOUND, "no-such-route", Client, false, Info, "The gate has no such route.";
    /// The route does not allow this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", Client, false, Info, "The route does not allow this method.";
    /// The request's body took too long to arrive.
    SlowRequest = REQUEST_TIMEOUT, "slow-request", Client, false, Info, "The request did not arrive in time.";
    /// The request's body is larger than the gate takes.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", Client, false, Info, "The request's body is too large.";
    /// The request's target is longer than the gate takes.
    TargetTooLong = URI_TOO_LONG, "target-too-long", Client, false, Info, "The request's target is too long.";
    /// The request has more header fields than the gate takes.
    TooManyFields = REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-fields", Client, false, Info, "The request has too many header fields.";
    /// An `Expect` other than `100-continue`.
    ExpectationUnknown = EXPECTATION_FAILED, "expectation-unknown", Client, false, Info, "The gate does not know this expectation.";
    /// The target names a host that the gate does not answer for.
    Misdirected = MISDIRECTED_REQUEST, "misdirected-request", Client, false, Info, "The gate does not answer for this host.";
    /// A CONNECT: the gate opens no tunnels.
    NoTunnel = METHOD_NOT_ALLOWED, "no-tunnel", Client, false, Info, "The gate opens no tunnels.";
    /// A transfer coding other than `chunked`.
    CodingUnknown = NOT_IMPLEMENTED, "transfer-coding-unknown", Client, false, Info, "The gate does not know this transfer coding.";
    /// The walk that the token names cannot go on.
    WalkEnded = GONE, "walk-ended", Client, false, Info, "This walk has ended; start again at page 1.";
    /// The client asked more often than its own limit allows.
    ClientLimit = TOO_MANY_REQUESTS, "client-limit", Quota, false, Info, "This client asks more often than it may.";
    /// The account's quota is spent and waiting would not help in time.
    QuotaExceeded = TOO_MANY_REQUESTS, "quota-exceeded", Quota, false, Info, "The account's quota is spent for now.";
    /// The upstream, or an operator, closed the account for a while.
    AccountPaused = TOO_MANY_REQUESTS, "account-paused", Quota, false, Info, "The account is paused.";
    /// The client has caused as many upstream calls as it may.
    BudgetSpent = TOO_MANY_REQUESTS, "budget-spent", Quota, false, Info, "This client has caused as many upstream calls as it may for now.";
    /// The answer did not come within the time the client gave.
    ClientTimeout = GATEWAY_TIMEOUT, "client-timeout", Client, false, Info, "The answer did not come within the client's own time.";
    /// What would be spent of the account cannot be written down.
    LedgerUnwritable = SERVICE_UNAVAILABLE, "ledger-unwritable", Gateway, false, Error, "The gate cannot write down what it would spend.";
    /// As many asks as may wait for the account already do.
    QueueFull = SERVICE_UNAVAILABLE, "queue-full", Quota, false, Warn, "Too many requests wait for the account.";
    /// The client allowed answers from the cache alone and there is none.
    OnlyIfCached = GATEWAY_TIMEOUT, "only-if-cached", Client, false, Info, "The gate holds no such answer, and the request forbids asking for it.";
    /// No connection to the upstream could be made.
    UpstreamUnreachable = BAD_GATEWAY, "upstream-unreachable", Upstream, true, Warn, "The upstream cannot be reached.";
    /// The upstream's answer broke off or breaks HTTP's rules.
    UpstreamBroken = BAD_GATEWAY, "upstream-broken", Upstream, true, Warn, "The upstream's answer is broken.";
    /// The upstream refuses the gate's own credentials.
    UpstreamRefusedCredentials = BAD_GATEWAY, "upstream-refused-credentials", Gateway, true, Error, "The upstream refuses the gate's credentials.";
    /// The upstream did not answer in time.
    UpstreamTimeout = GATEWAY_TIMEOUT, "upstream-timeout", Upstream, false, Warn, "The upstream did not answer in time.";
    /// The upstream failed so often in a row that it is left alone for a while.
    BreakerOpen = SERVICE_UNAVAILABLE, "breaker-open", Upstream, false, Info, "The upstream has failed repeatedly and is left alone for now.";
    /// As many requests wait for answers as the gate takes on.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", Gateway, false, Warn, "The gate has as many requests waiting as it takes on.";
    /// The gate is closing.
    Draining = SERVICE_UNAVAILABLE, "draining", Gateway, false, Info, "The gate is closing.";
    /// A mistake in this program: the request met a panic, or a flight that vanished.
    Internal = INTERNAL_SERVER_ERROR, "internal", Gateway, false, Error, "The gate failed.";
}

/// What ended one request. Cheap to clone, because a flight's failure is told to every waiter.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which row of the table.
    pub kind: FaultKind,
    /// Whether the upstream may have acted.
    pub called: Called,
    /// Whether the same call may be sent again: the upstream has not answered it, or what it refused has changed.
    pub resendable: bool,
    /// What the row cannot know. Boxed: most results are not faults, and should not be as wide as one.
    more: Option<Box<More>>,
}

#[derive(Debug, Clone, Default)]
struct More {
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    members: Vec<(&'static str, String)>,
}

impl FaultKind {
    /// Whether nothing more may be read from the client's connection: where one request ends and the next begins is in
    /// doubt, or what is left of this one is not worth waiting for.
    pub const fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Malformed | Self::NoTunnel | Self::CodingUnknown | Self::SlowRequest | Self::BodyTooLarge
        )
    }
}

impl Fault {
    /// A fault that happened before any upstream was called.
    pub const fn new(kind: FaultKind) -> Self {
        Self { kind, called: Called::No, resendable: false, more: None }
    }

    /// What happened, for the one who reads the answer. Never a secret, a query value or upstream internals.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().detail = Some(detail.into());
        self
    }

    /// When coming back is worth while, as far as the gate knows.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.more_mut().retry_after = Some(wait);
        self
    }

    /// The methods a 405 lists in `Allow`.
    #[must_use]
    pub fn allow(mut self, methods: String) -> Self {
        self.more_mut().allow = Some(methods);
        self
    }

    /// A further member of the problem document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.more_mut().members.push((name, value.into()));
        self
    }

    /// The same call may be sent again.
    #[must_use]
    pub fn resendable(mut self) -> Self {
        self.resendable = true;
        self
    }

    /// Whether the upstream may have acted.
    #[must_use]
    pub fn called(mut self, called: Called) -> Self {
        self.called = called;
        self
    }

    /// How long to wait, rounded up to whole seconds and never zero: what `Retry-After` says.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.more.as_ref()?.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The methods a 405 lists.
    pub fn allowed_methods(&self) -> Option<&str> {
        self.more.as_ref()?.allow.as_deref()
    }

    /// The problem document (RFC 9457), `instance` being the request's id.
    pub fn to_problem(&self, instance: &str) -> String {
        let row = self.kind.row();
        let more = self.more.as_deref();
        let mut problem = serde_json::Map::new();
        problem.insert("type".into(), format!("urn:tollgate:problem:{}", row.name).into());
        problem.insert("title".into(), row.title.into());
        problem.insert("status".into(), row.status.as_u16().into());
        if let Some(detail) = more.and_then(|more| more.detail.as_deref()) {
            problem.insert("detail".into(), detail.into());
        }
        problem.insert("instance".into(), format!("urn:tollgate:request:{instance}").into());
        problem.insert("fault".into(), row.party.as_str().into());
        problem.insert("upstream_called".into(), self.called.as_str().into());
        for (name, value) in more.map(|more| more.members.as_slice()).unwrap_or_default() {
            problem.insert((*name).into(), value.as_str().into());
        }
        serde_json::Value::Object(problem).to_string()
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self::new(kind)
    }
}

impl Party {
    /// The word in the problem document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
            Self::Quota => "quota",
        }
    }
}

impl Called {
    /// The word in the problem document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Maybe => "maybe",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_an_error_status() {
        let names: HashSet<_> = FaultKind::ALL.iter().map(|kind| kind.row().name).collect();
        assert_eq!(names.len(), FaultKind::ALL.len());
        for kind in FaultKind::ALL {
            let row = kind.row();
            assert!(row.status.is_client_error() || row.status.is_server_error(), "{row:?}");
            assert_eq!(row.status == StatusCode::INTERNAL_SERVER_ERROR, *kind == FaultKind::Internal);
        }
    }

    #[test]
    fn a_problem_says_what_rfc_9457_and_the_contract_ask_for() {
        let fault = Fault::new(FaultKind::QuotaExceeded)
            .detail("10 per 1s")
            .retry_after(Duration::from_millis(1200))
            .member("policy", "10;w=1");
        let problem: serde_json::Value = serde_json::from_str(&fault.to_problem("r-1")).expect("is JSON");
        assert_eq!(
            problem,
            serde_json::json!({
                "type": "urn:tollgate:problem:quota-exceeded",
                "title": "The account's quota is spent for now.",
                "status": 429,
                "detail": "10 per 1s",
                "instance": "urn:tollgate:request:r-1",
                "fault": "quota",
                "upstream_called": "no",
                "policy": "10;w=1",
            })
        );
        assert_eq!(fault.retry_after_seconds(), Some(2));
    }
}
