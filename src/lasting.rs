//! What lives as long as the process. A reload builds a new way of requests around it, and keeps it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::plan::Plan;
use crate::model::urgency::Class;
use crate::rules::beliefs::Beliefs;
use crate::rules::fairness::Payer;
use crate::rules::ledger::QuotaRule;
use crate::stages::attempt::Standing;
use crate::state::clock::Clock;
use crate::state::collecting::Arriving;
use crate::state::compression::Compression;
use crate::state::flights::Flights;
use crate::state::journal::{StateDir, Unusable};
use crate::state::limits::{AddressLimit, Budget, BudgetRule, ClientLimit, RateLimit};
use crate::state::metrics::Metrics;
use crate::state::quota::{Account, AccountMeters, Ceiling, Terms, Windows};
use crate::state::scope::Scope;
use crate::state::store::Store;
use crate::state::tasks::Tasks;

/// Clock, metrics, tasks, entries, flights, accounts.
#[derive(Debug)]
pub struct Lasting {
    /// The time.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Metrics,
    /// The tasks.
    pub tasks: Tasks,
    /// The entries.
    pub store: Store,
    /// Where entries are compressed.
    pub compression: Compression,
    /// Bodies that are being collected.
    pub arriving: Arriving,
    /// The upstream calls that answers are shared from.
    pub flights: Flights,
    /// Accounts by (upstream, account). Each keeps what it has spent, who waits and whether it rests.
    accounts: Mutex<HashMap<(String, String), Arc<Account>>>,
    client_limits: Mutex<HashMap<String, HeldLimit<RateLimit, ClientLimit>>>,
    address_limit: Mutex<HashMap<String, HeldLimit<RateLimit, AddressLimit>>>,
    budgets: Mutex<HashMap<String, HeldLimit<BudgetRule, Budget>>>,
    /// Where ledgers outlive the process.
    state: Option<StateDir>,
    /// Routes that the upstream closes by themselves, by (upstream, route).
    scopes: Mutex<HashMap<(String, String), Scope>>,
    /// Clients by name, as the accounts' lines know them.
    payers: Mutex<HashMap<String, Payer>>,
    /// The upstreams' ceilings by name, with the number they were made from.
    ceilings: Mutex<HashMap<String, (usize, Ceiling)>>,
    /// How the upstreams have been doing, by name and address: others at an address begin anew.
    standings: Mutex<HashMap<(String, String), Standing>>,
    /// What is believed of upstreams' pages, by route.
    beliefs: Mutex<HashMap<String, HeldLimit<u64, Mutex<Beliefs>>>>,
    /// What client keys are digested with: random, new for every process.
    pub pepper: [u8; 32],
}

/// Why a plan could not be provisioned although every line of it is right.
#[derive(Debug)]
pub enum Unprovisioned {
    /// A certificate in `tls.ca` that is none, or a TLS setting that cannot be.
    Tls(String),
    /// `[state] dir` cannot be used.
    State(PathBuf, Unusable),
    /// The system gives no random bytes.
    Random,
    /// A metric that cannot be registered: a mistake in this program.
    Metrics(String),
}

impl std::fmt::Display for Unprovisioned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => write!(f, "TLS towards an upstream cannot be set up: {error}"),
            Self::State(dir, why) => {
                write!(f, "state.dir: {} cannot hold the ledgers: {why}", dir.display())
            }
            Self::Random => f.write_str("the system gives no random bytes"),
            Self::Metrics(error) => write!(f, "metrics cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for Unprovisioned {}

/// A limit of a client's, with the rule it was made from.
type HeldLimit<R, L> = (R, Arc<L>);

impl Lasting {
    /// Everything new, as `plan` sizes it.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn new(plan: &Plan) -> Result<Self, Unprovisioned> {
        let wrong = |why| Unprovisioned::State(plan.state.dir.clone().unwrap_or_default(), why);
        let state = plan.state.dir.as_deref().map(StateDir::lock).transpose().map_err(wrong)?;
        Ok(Self { state, ..Self::rehearsal(plan)? })
    }

    /// The same without a place for ledgers, which is only looked at: for a plan that is tried out beside a running gate.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn rehearsal(plan: &Plan) -> Result<Self, Unprovisioned> {
        let wrong = |why| Unprovisioned::State(plan.state.dir.clone().unwrap_or_default(), why);
        plan.state.dir.as_deref().map(StateDir::try_out).transpose().map_err(wrong)?;
        let metrics = Metrics::new().map_err(|error| Unprovisioned::Metrics(error.to_string()))?;
        let mut pepper = [0; 32];
        SystemRandom::new().fill(&mut pepper).map_err(|_| Unprovisioned::Random)?;
        let tasks = Tasks::new(metrics.tasks.clone());
        Ok(Self {
            clock: Clock::system(),
            compression: Compression::new(tasks.clone()),
            tasks,
            store: Store::new(plan.cache.max_bytes),
            arriving: Arriving::new(plan.cache.max_inflight_bytes),
            flights: Flights::new(metrics.flights.clone()),
            accounts: Mutex::default(),
            client_limits: Mutex::default(),
            address_limit: Mutex::default(),
            budgets: Mutex::default(),
            state: None,
            scopes: Mutex::default(),
            payers: Mutex::default(),
            ceilings: Mutex::default(),
            standings: Mutex::default(),
            beliefs: Mutex::default(),
            metrics,
            pepper,
        })
    }

    /// Brings up to date what the metrics show as it is at this moment.
    pub fn refresh(&self) {
        self.store.settle();
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.cache_bytes.set(gauge(self.store.bytes()));
        self.metrics.cache_entries.set(gauge(self.store.entries()));
        let (open, ambiguous) = self.store.walks(self.clock.now());
        self.metrics.walks_open.set(gauge(open));
        self.metrics.walks_ambiguous.set(gauge(ambiguous));
        for account in self.accounts.lock().unwrap_or_else(PoisonError::into_inner).values() {
            account.refresh();
        }
    }

    /// The limit of the client called `name`, kept if its rule is the same.
    pub fn client_limit(&self, name: &str, rule: RateLimit) -> Arc<ClientLimit> {
        let shadow = self.metrics.shadow.with_label_values(&[&format!("rate_limit of {name}")]);
        keep(&self.client_limits, name, rule, |rule| ClientLimit::new(rule, shadow))
    }

    /// The limit of everybody else, by address; kept if its rule is the same.
    pub fn address_limit(&self, rule: RateLimit) -> Arc<AddressLimit> {
        let shadow = self.metrics.shadow.with_label_values(&["server.rate_limit"]);
        keep(&self.address_limit, "", rule, |rule| AddressLimit::new(rule, shadow))
    }

    /// What the client called `name` may cause, kept if its rule is the same.
    pub fn budget(&self, name: &str, rule: BudgetRule) -> Arc<Budget> {
        let shadow = self.metrics.shadow.with_label_values(&[&format!("budget of {name}")]);
        keep(&self.budgets, name, rule, |rule| Budget::new(rule, &self.clock, shadow))
    }

    /// Who the client called `name` is in the accounts' lines: the same over reloads, whatever its place in the plan.
    pub fn payer(&self, name: &str) -> Payer {
        let mut payers = self.payers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Payer(u32::try_from(payers.len()).unwrap_or(u32::MAX));
        *payers.entry(name.to_owned()).or_insert(next)
    }

    /// What is believed of the pages of the route called `name`, kept if its blocks have as many items.
    pub fn beliefs(&self, name: &str, block: u64) -> Arc<Mutex<Beliefs>> {
        keep(&self.beliefs, name, block, |block| Mutex::new(Beliefs::new(block)))
    }

    /// The ceiling of the upstream called `name`, kept if its number is the same.
    pub fn ceiling(&self, name: &str, calls: usize) -> Ceiling {
        let mut ceilings = self.ceilings.lock().unwrap_or_else(PoisonError::into_inner);
        match ceilings.get(name) {
            Some((held, ceiling)) if *held == calls => ceiling.clone(),
            _ => {
                let ceiling = Ceiling::new(calls);
                ceilings.insert(name.to_owned(), (calls, ceiling.clone()));
                ceiling
            }
        }
    }

    /// How the upstream called `name` at `address` has been doing.
    pub fn standing(&self, name: &str, address: &str) -> Standing {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = &self.metrics;
        let new = || {
            Standing::new(
                metrics.breaker_open.with_label_values(&[name]),
                metrics.retries.with_label_values(&[name]),
            )
        };
        standings.entry((name.to_owned(), address.to_owned())).or_insert_with(new).clone()
    }

    /// How the route called `name` of an upstream stands with it, where its standing is its own.
    pub fn scope(&self, name: (String, String)) -> Scope {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.entry(name).or_insert_with(|| Scope::new(self.clock.clone())).clone()
    }

    /// The account called `name` of an upstream: kept, with what was spent of it, also if its windows change.
    ///
    /// # Errors
    /// Its ledger cannot be used.
    pub fn account(
        &self,
        name: (String, String),
        (rules, instances): (&[QuotaRule], u32),
        terms: Terms,
        label: &str,
    ) -> Result<Arc<Account>, Unprovisioned> {
        let metrics = &self.metrics;
        let remaining = rules
            .iter()
            .map(|rule| format!("{}/{}", rule.requests, rule.per))
            .map(|window| metrics.quota_remaining.with_label_values(&[label, &window]));
        let windows = Windows { rules, instances, remaining: remaining.collect() };
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&name) {
            account.adapt(windows, terms);
            return Ok(account.clone());
        }
        let meters = AccountMeters {
            permits: metrics.permits.clone(),
            waiting: Class::ALL.map(|class| metrics.queue_length.with_label_values(&[label, class.as_str()])),
            waits: metrics.quota_wait.with_label_values(&[label]),
            paused: metrics.account_paused.with_label_values(&[label]),
            shadow: metrics.shadow.with_label_values(&[&format!("quota of {label}")]),
        };
        let file = format!("{}.{}", name.0, name.1);
        let journal = self.state.as_ref().map(|state| state.journal(&file, self.clock.wall())).transpose();
        let journal = journal.map_err(|why| Unprovisioned::State(file.into(), why))?;
        let basics = (self.clock.clone(), self.tasks.clone(), journal);
        let account = Account::new(windows, terms, basics, (label, meters));
        accounts.insert(name, account.clone());
        Ok(account)
    }

    /// The account that metrics call `label`, with the name of its upstream.
    pub fn account_called(&self, label: &str) -> Option<(String, Arc<Account>)> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = accounts.iter().find(|(_, account)| account.name() == label);
        found.map(|((upstream, _), account)| (upstream.clone(), account.clone()))
    }

    /// Closes the breaker of the upstream called `name`.
    pub fn reset_standing(&self, name: &str) {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.iter().filter(|((held, _), _)| held == name).for_each(|(_, standing)| standing.reset());
    }

    /// Writes down what nobody will spend any more: the last thing a gate does.
    pub fn settle(&self) {
        for account in self.accounts.lock().unwrap_or_else(PoisonError::into_inner).values() {
            account.settle();
        }
    }
}

/// What is held under `name` if it was made from the same rule, else a new one.
fn keep<R: Copy + PartialEq, L>(
    held: &Mutex<HashMap<String, HeldLimit<R, L>>>,
    name: &str,
    rule: R,
    new: impl FnOnce(R) -> L,
) -> Arc<L> {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    match held.get(name) {
        Some((of, limit)) if *of == rule => limit.clone(),
        _ => {
            let limit = Arc::new(new(rule));
            held.insert(name.to_owned(), (rule, limit.clone()));
            limit
        }
    }
}
