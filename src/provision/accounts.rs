//! Who pays for each route, and with which secrets.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::config::plan::{Account as AccountPlan, Credential, Plan};
use crate::config::{Environment, Place};
use crate::lasting::{Lasting, Unprovisioned};
use crate::model::Secret;
use crate::stages::credentials::{Credentials, Vault};
use crate::stages::quota::Purse;
use crate::state::causes::CallMeters;
use crate::state::quota::{Account, Ceiling, Terms};

/// How long a call may wait at an upstream without accounts.
pub(super) const NO_ACCOUNT_WAIT: Duration = Duration::from_secs(2);
/// The longest an upstream without accounts may close itself by a word.
const NO_ACCOUNT_PAUSE: Duration = Duration::from_secs(300);
/// How many calls may wait at an upstream without accounts.
const NO_ACCOUNT_WAITING: usize = 1000;

/// The credentials of those who may pay for each route, by place.
pub(super) type Vaults = Arc<[Vec<Arc<Vault>>]>;
/// Who may pay for each route, by place.
pub(super) type Purses = Arc<[Vec<Purse>]>;

/// Who pays for each route and with which secrets, by place.
pub(super) fn accounts(
    plan: &Plan,
    lasting: &Lasting,
    environment: &Arc<dyn Environment>,
) -> Result<(Purses, Vaults), Unprovisioned> {
    let ceilings: Vec<Ceiling> = plan
        .upstreams
        .iter()
        .map(|upstream| lasting.ceiling(&upstream.name, upstream.max_concurrent))
        .collect();
    let purse = |name: &str, upstream: usize, account: Arc<Account>, (max_wait, max_pause)| Purse {
        account,
        name: name.to_owned(),
        scope: None,
        max_wait,
        max_pause,
        meters: CallMeters::new(
            &lasting.metrics.upstream_requests,
            lasting.metrics.upstream_duration.with_label_values(&[&plan.upstreams[upstream].name]),
            &plan.upstreams[upstream].name,
            name,
        ),
    };
    let held: Vec<(Purse, Arc<Vault>)> = plan
        .accounts
        .iter()
        .map(|account| {
            let label = label(plan, account);
            let name = (plan.upstreams[account.upstream].name.clone(), account.name.clone());
            let terms = Terms {
                max_wait: account.max_wait,
                max_waiting: account.max_waiting,
                max_pause: account.max_pause,
                ceiling: ceilings[account.upstream].clone(),
            };
            let quota = lasting.account(name, (&account.quota, plan.state.instances), terms, &label)?;
            Ok((
                purse(&label, account.upstream, quota, (account.max_wait, account.max_pause)),
                vault(account, environment),
            ))
        })
        .collect::<Result<_, _>>()?;
    let routes = plan.routes.iter().map(|route| match route.account {
        Some(account) => {
            let name = || (plan.upstreams[route.upstream].name.clone(), route.name.clone());
            let scope = route.pauses_alone.then(|| lasting.scope(name()));
            let only = [account];
            let places: &[usize] = if route.pool.is_empty() { &only } else { &route.pool };
            let members = places.iter().filter_map(|place| held.get(*place));
            let members = members
                .map(|(purse, vault)| (Purse { scope: scope.clone(), ..purse.clone() }, vault.clone()));
            Ok(members.unzip())
        }
        None => {
            let upstream = &plan.upstreams[route.upstream];
            let terms = Terms {
                max_wait: NO_ACCOUNT_WAIT,
                max_waiting: NO_ACCOUNT_WAITING,
                max_pause: NO_ACCOUNT_PAUSE,
                ceiling: ceilings[route.upstream].clone(),
            };
            let account = lasting.account((upstream.name.clone(), String::new()), (&[], 1), terms, "none")?;
            let purse = purse("none", route.upstream, account, (NO_ACCOUNT_WAIT, NO_ACCOUNT_PAUSE));
            Ok((vec![purse], Vec::new()))
        }
    });
    let (purses, vaults): (Vec<_>, Vec<_>) =
        routes.collect::<Result<Vec<_>, Unprovisioned>>()?.into_iter().unzip();
    Ok((purses.into(), vaults.into()))
}

/// An account's name in metrics and faults: with its upstream's where another upstream has one of the same name.
fn label(plan: &Plan, account: &AccountPlan) -> String {
    let alone = plan.accounts.iter().filter(|other| other.name == account.name).count() == 1;
    if alone {
        account.name.clone()
    } else {
        format!("{}.{}", plan.upstreams[account.upstream].name, account.name)
    }
}

fn vault(account: &AccountPlan, environment: &Arc<dyn Environment>) -> Arc<Vault> {
    let (headers, query, environment) = (account.headers.clone(), account.query.clone(), environment.clone());
    let held = |headers: Vec<_>, query: Vec<(String, Secret)>| {
        let pairs: Vec<Vec<u8>> = query
            .iter()
            .map(|(name, secret)| {
                let encode = |bytes| percent_encode(bytes, UNRESERVED).to_string();
                format!("{}={}", encode(name.as_bytes()), encode(secret.expose())).into_bytes()
            })
            .collect();
        let secrets = headers
            .iter()
            .map(|(_, secret): &(_, Secret)| secret)
            .chain(query.iter().map(|(_, secret)| secret));
        Credentials {
            secrets: secrets.cloned().collect(),
            query: (!pairs.is_empty()).then(|| Secret::new(pairs.join(&b'&'))),
            headers,
        }
    };
    let first = held(
        headers.iter().map(|(name, held)| (name.clone(), held.value.clone())).collect(),
        query.iter().map(|(name, held)| (name.clone(), held.value.clone())).collect(),
    );
    Vault::new(first, move || {
        let again = |held: &Credential, place| held.reload(environment.as_ref(), place);
        let headers = headers.iter().map(|(name, held)| Some((name.clone(), again(held, Place::Header)?)));
        let query = query.iter().map(|(name, held)| Some((name.clone(), again(held, Place::Query)?)));
        Some(held(headers.collect::<Option<_>>()?, query.collect::<Option<_>>()?))
    })
}

/// Everything but RFC 3986's unreserved characters is encoded.
const UNRESERVED: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
