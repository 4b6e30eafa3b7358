//! credentials: `Granted → Signed`. Innermost, so that no secret can reach a key, an entry, a log or a fault: they are
//! added here on the way down, and an answer that echoes one has it removed here on the way up.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tower_layer::Layer;

use super::Stage;
use crate::model::exchange::{Answer, Call, Content, Granted, Signed};
use crate::model::fault::Called;
use crate::model::interim::TakesInterim;
use crate::model::{Fault, FaultKind, Interim, Secret};
use crate::rules::headers::remove_echoes;
use crate::state::grant::Grant;

/// What is added to every call of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Fields, each replacing every copy of its name.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Query parameters, encoded and ready to be appended: `name=value&name=value`.
    pub query: Option<Secret>,
    /// Every secret by itself, to be recognised in an answer.
    pub secrets: Vec<Secret>,
}

/// An account's credentials, which can be read again.
pub struct Vault {
    held: ArcSwap<Credentials>,
    read: Box<dyn Fn() -> Option<Credentials> + Send + Sync>,
}

impl Vault {
    /// Holds `credentials`; `read` reads them again from where they came, or says that it cannot.
    pub fn new(
        credentials: Credentials,
        read: impl Fn() -> Option<Credentials> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { held: ArcSwap::from_pointee(credentials), read: Box::new(read) })
    }

    /// Reads them again; whether they are others than the `used` ones.
    fn renew(&self, used: &Credentials) -> bool {
        if let Some(read) = (self.read)()
            && read != **self.held.load()
        {
            self.held.store(Arc::new(read));
        }
        **self.held.load() != *used
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(***)")
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub struct CredentialsLayer {
    /// The credentials of each account that may pay for a route, by place and place; none where its upstream needs none.
    pub vaults: Arc<[Vec<Arc<Vault>>]>,
}

/// The stage.
#[derive(Debug)]
pub struct Sign<S> {
    vaults: Arc<[Vec<Arc<Vault>>]>,
    inner: S,
}

impl<S> Layer<S> for CredentialsLayer {
    type Service = Sign<S>;

    fn layer(&self, inner: S) -> Sign<S> {
        Sign { vaults: self.vaults.clone(), inner }
    }
}

impl<S: Stage<Signed<Grant>>> Stage<Granted<Grant>> for Sign<S> {
    async fn call(&self, granted: Granted<Grant>) -> Result<Answer, Fault> {
        let Granted { call, grant } = granted;
        let account = grant.shared_account();
        let Some(vault) = self.vaults.get(call.route.place()).and_then(|pool| pool.get(grant.member()))
        else {
            return self.inner.call(sign(call, grant, &Credentials::default())?).await;
        };
        let credentials = vault.held.load_full();
        let mut call = call;
        call.interim =
            call.interim.map(|to| Interim::to(Arc::new(Clean { to, credentials: credentials.clone() })));
        let mut answer = self.inner.call(sign(call, grant, &credentials)?).await?;
        if let Content::Passed(passed) = &mut answer.content {
            if passed.status == StatusCode::UNAUTHORIZED {
                // The upstream does not know the caller: a 401 speaks of what was injected (design §9).
                let renewed = vault.renew(&credentials);
                account.refused(renewed);
                let fault = Fault::new(FaultKind::UpstreamRefusedCredentials).called(Called::Yes);
                return Err(if renewed { fault.resendable() } else { fault });
            }
            // An upstream that fails has not looked at them.
            if !passed.status.is_server_error() {
                account.accepted();
            }
            remove_echoes(&mut passed.headers, &credentials.secrets);
        }
        Ok(answer)
    }
}

/// Removes credentials that an interim response echoes.
#[derive(Debug)]
struct Clean {
    to: Interim,
    credentials: Arc<Credentials>,
}

impl TakesInterim for Clean {
    fn take(&self, _: u64, status: StatusCode, headers: &HeaderMap) {
        let mut headers = headers.clone();
        remove_echoes(&mut headers, &self.credentials.secrets);
        self.to.take(status, &headers);
    }

    fn current(&self) -> u64 {
        0
    }
}

fn sign(call: Call, grant: Grant, credentials: &Credentials) -> Result<Signed<Grant>, Fault> {
    let Call { route, method, question, headers, body, interim, why, .. } = call;
    let mut headers = Arc::unwrap_or_clone(headers);
    for (name, secret) in &credentials.headers {
        // Configuration refuses a secret that is no header value, so this is a mistake of ours if it happens.
        let mut value = HeaderValue::from_bytes(secret.expose()).map_err(|_| FaultKind::Internal)?;
        value.set_sensitive(true);
        headers.insert(name.clone(), value);
    }
    let mut target = question.target().to_owned();
    if let Some(query) = credentials.query.as_ref().and_then(|query| std::str::from_utf8(query.expose()).ok())
    {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(query);
    }
    Ok(Signed { method, target: Secret::new(target.into_bytes()), headers, body, route, interim, why, grant })
}
