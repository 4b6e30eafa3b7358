//! The demo itself: a simulated Octopush, and the gate in front of it from the shipped `config.toml`. The one file
//! here that knows the gate.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::conversations::{Contact, Conversations, Size};
use super::octopush::Octopush;
use super::settings::Settings;
use super::tour::{Examples, tour};
use super::traffic::{Service, Traffic};
use crate::config::plan::Plan;
use crate::config::{self, Environment, Mistakes};
use crate::gateway::{Gateway, Order, Sockets, StartError};
use crate::rules::ledger::QuotaRule;

/// The shipped configuration.
const CONFIG: &str = include_str!("../../config.toml");

/// Where the demo runs and what it shows.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where the gate listens.
    pub listen: SocketAddr,
    /// Where the admin pages are.
    pub admin: SocketAddr,
    /// Where the simulated upstream listens.
    pub upstream: SocketAddr,
    /// Which conversations are generated.
    pub seed: u64,
    /// Whether several services call the gate all the time.
    pub traffic: bool,
}

/// Why the demo could not start, with the way out.
#[derive(Debug)]
pub enum DemoError {
    /// The simulated upstream could not listen.
    Upstream(SocketAddr, io::Error),
    /// The gate could not start.
    Gate(StartError),
    /// The shipped configuration has mistakes: a mistake of ours.
    Shipped(Mistakes),
    /// A bound address could not be told.
    Address,
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(address, error) => write!(
                f,
                "the simulated Octopush cannot listen on {address}: {error}\n\
                 give it any free port: tollgate demo --upstream 127.0.0.1:0"
            ),
            Self::Gate(error) => write!(
                f,
                "{error}\ngive the demo any free ports: tollgate demo --listen 127.0.0.1:0 --admin 127.0.0.1:0"
            ),
            Self::Shipped(mistakes) => mistakes.fmt(f),
            Self::Address => f.write_str("the system does not say which address was bound"),
        }
    }
}

impl std::error::Error for DemoError {}

/// A demo that is bound and ready to run.
pub struct Demo {
    gateway: Gateway,
    octopush: Arc<Octopush>,
    listener: TcpListener,
    traffic: Option<Traffic>,
    tour: String,
}

impl Demo {
    /// Binds everything.
    ///
    /// # Errors
    /// What stands in the way, and the way out.
    pub async fn bind(options: Options) -> Result<Self, DemoError> {
        let environment: Arc<dyn Environment> = Arc::new(SimulatedAccount);
        let mut plan =
            config::load(CONFIG, "config.toml", environment.as_ref()).map_err(DemoError::Shipped)?;
        let listener = TcpListener::bind(options.upstream)
            .await
            .map_err(|error| DemoError::Upstream(options.upstream, error))?;
        adapt(&mut plan, &options, listener.local_addr().map_err(|_| DemoError::Address)?)?;
        let gateway = Gateway::bind(plan, environment, Sockets::default()).map_err(DemoError::Gate)?;
        let conversations = Conversations::generate(options.seed, Size::default());
        let examples = Examples::of(&conversations);
        let contacts: Vec<Contact> = conversations.contacts().to_vec();
        let (Some(gate), Some(admin)) = (gateway.address(), gateway.admin_address()) else {
            return Err(DemoError::Address);
        };
        let services = || Traffic { gate, services: Service::all(), contacts, seed: options.seed };
        Ok(Self {
            tour: tour(gate, admin, &examples),
            traffic: options.traffic.then(services),
            octopush: Octopush::new(Settings::default(), conversations),
            gateway,
            listener,
        })
    }

    /// What to try, as curl lines.
    pub fn tour(&self) -> &str {
        &self.tour
    }

    /// Runs until an order ends it; whether everything that had begun was answered in time.
    ///
    /// # Errors
    /// What could not be set up.
    pub async fn run(self, orders: mpsc::Receiver<Order>) -> Result<bool, StartError> {
        // Ends with this function, whatever it is doing.
        let mut playing = JoinSet::new();
        playing.spawn(self.octopush.serve(self.listener, std::future::pending()));
        if let Some(traffic) = self.traffic {
            playing.spawn(async { drop(traffic.play(std::future::pending()).await) });
        }
        self.gateway.serve(orders).await
    }
}

/// An environment that holds the simulated account's credentials.
struct SimulatedAccount;

impl Environment for SimulatedAccount {
    fn var(&self, name: &str) -> Option<String> {
        let Settings { api_key, api_login, .. } = Settings::default();
        match name {
            "OCTOPUSH_API_KEY" => Some(api_key),
            "OCTOPUSH_API_LOGIN" => Some(api_login),
            _ => config::System.var(name),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        config::System.read(path)
    }
}

/// What the demo changes about the shipped configuration: where things are, and what its account may spend.
fn adapt(plan: &mut Plan, options: &Options, upstream: SocketAddr) -> Result<(), DemoError> {
    plan.server.listen = options.listen;
    plan.server.drain_delay = Duration::ZERO;
    plan.admin.listen = options.admin;
    for simulated in &mut plan.upstreams {
        simulated.scheme = http::uri::Scheme::HTTP;
        simulated.authority = upstream.to_string().parse().map_err(|_| DemoError::Address)?;
    }
    for account in &mut plan.accounts {
        account.quota = vec![QuotaRule::sliding(10, Duration::from_secs(1))];
    }
    plan.warnings.clear();
    Ok(())
}
