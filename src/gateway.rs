//! The running gate: binds the listeners, owns what runs, and ends it. Readiness, reload and drain.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::config::Environment;
use crate::config::plan::Plan;
use crate::console::{Operators, Own};
use crate::edge::admin::Admin;
use crate::edge::listener::{Drain, Limits, Listener};
use crate::edge::upstream::Upstreams;
use crate::handler::Gate;
use crate::lasting::{Lasting, Unprovisioned};
use crate::model::Fault;
use crate::model::exchange::{Answer, Known};
use crate::pipeline::{Stages, pipeline};
use crate::provision::{admin_limits_of, limits_of, provision, tls, token};
use crate::stages::observe::Respond;
use crate::stages::steps::OwnPages;
use crate::state::tasks::Tasks;

/// A gate that is bound and provisioned, and serves when told to.
pub struct Gateway {
    plan: Arc<ArcSwap<Plan>>,
    lasting: Arc<Lasting>,
    environment: Arc<dyn Environment>,
    gate: TcpListener,
    admin: TcpListener,
    /// Whether the clients' socket outlives the process.
    outlived: bool,
}

/// Sockets that outlive the process (systemd's socket activation), in place of binding.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub gate: Option<net::TcpListener>,
    /// For operators.
    pub admin: Option<net::TcpListener>,
}

/// Why a gate could not start. Nothing of it runs then.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be listened on.
    Bind {
        /// `server.listen` or `admin.listen`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The plan could not be provisioned.
    Unprovisioned(Unprovisioned),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { key, address, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "{key}: something else listens on {address}; stop it, or set `{key}` to another address (port 0: any free one)"
            ),
            Self::Bind { key, address, error } => write!(f, "{key}: cannot listen on {address}: {error}"),
            Self::Unprovisioned(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// What the outside tells a running gate.
#[derive(Debug, Clone)]
pub enum Order {
    /// Serve by this plan from now on.
    Reload(Arc<Plan>),
    /// The new configuration has mistakes, which were reported: count it.
    ReloadFailed,
    /// Answer what has begun, then end.
    Drain,
    /// End now.
    Stop,
}

impl Gateway {
    /// Binds both listeners for `plan`. Nothing is served before [`Gateway::serve`].
    ///
    /// # Errors
    /// What stands in the way.
    pub fn bind(plan: Plan, environment: Arc<dyn Environment>, given: Sockets) -> Result<Self, StartError> {
        let lasting = Lasting::new(&plan).map_err(StartError::Unprovisioned)?;
        let outlived = given.gate.is_some();
        let gate = listen("server.listen", plan.server.listen, given.gate)?;
        let admin = listen("admin.listen", plan.admin.listen, given.admin)?;
        let plan = Arc::new(ArcSwap::from_pointee(plan));
        Ok(Self { plan, lasting: Arc::new(lasting), environment, gate, admin, outlived })
    }

    /// Where clients reach it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.gate.local_addr().ok()
    }

    /// Where operators reach it.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// Serves until an order ends it; whether everything that had begun was answered in time. What was not is
    /// never answered: its connection ends with the runtime.
    ///
    /// # Errors
    /// What could not be set up; nothing was served then.
    pub async fn serve(self, mut orders: Orders) -> Result<bool, StartError> {
        self.announce();
        let Self { plan, lasting, environment, gate, admin, outlived } = self;
        let running = Running::new(plan, lasting, environment, way).map_err(StartError::Unprovisioned)?;
        let (drain, draining) = watch::channel(Drain::Not);
        let (stop_admin, admin_stopping) = watch::channel(Drain::Not);
        let operators = running.admin_listener(admin_stopping);
        let operators = operators.tasks.clone().spawn(operators.serve(admin, running.admin.clone()));
        let listener = Listener { outlived, ..running.listener(draining) };
        let accepting = listener.serve(gate, running.gate.clone());
        let mut accepting = std::pin::pin!(accepting);
        let whole = loop {
            let order = tokio::select! {
                () = &mut accepting => Order::Stop,
                order = orders.recv() => order.unwrap_or(Order::Drain),
            };
            match order {
                Order::Reload(plan) => running.reload(plan),
                Order::ReloadFailed => running.count_reload("failed"),
                Order::Stop => break false,
                Order::Drain => break running.drain(accepting, &drain, &mut orders).await,
            }
        };
        // What is cut short goes on spending until the end: then what was leased counts as spent.
        match whole {
            true => running.lasting.settle(),
            false => running.gate.stop(),
        }
        let _ = stop_admin.send(Drain::Now);
        let _ = tokio::time::timeout(Duration::from_secs(1), operators).await;
        Ok(whole)
    }

    fn announce(&self) {
        for (listener, address) in [("gate", self.address()), ("admin", self.admin_address())] {
            if let Some(address) = address {
                tracing::info!(listener, %address, "listening");
            }
        }
        for warning in &self.plan.load().warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// Where orders come from.
pub type Orders = mpsc::Receiver<Order>;

/// What a serving gate consists of, and what a reload replaces in it.
struct Running<P> {
    plan: Arc<ArcSwap<Plan>>,
    lasting: Arc<Lasting>,
    environment: Arc<dyn Environment>,
    own: Arc<dyn OwnPages>,
    /// Makes the way of requests from what was provisioned.
    way: fn(Stages, Upstreams) -> P,
    gate: Arc<Gate<P>>,
    admin: Arc<Admin>,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    limits: Arc<ArcSwap<Limits>>,
    admin_limits: Arc<ArcSwap<Limits>>,
    ready: Arc<AtomicBool>,
}

impl<P: Respond + 'static> Running<P> {
    fn new(
        plan: Arc<ArcSwap<Plan>>,
        lasting: Arc<Lasting>,
        environment: Arc<dyn Environment>,
        way: fn(Stages, Upstreams) -> P,
    ) -> Result<Self, Unprovisioned> {
        let own: Arc<dyn OwnPages> = Arc::new(Own { plan: plan.clone(), lasting: lasting.clone() });
        let first = plan.load_full();
        let (stages, upstreams) = provision(&first, &lasting, own.clone(), &environment)?;
        let ready = Arc::new(AtomicBool::new(true));
        let console = Operators { plan: plan.clone(), lasting: lasting.clone(), ready: ready.clone() };
        Ok(Self {
            gate: Arc::new(Gate::new(way(stages, upstreams), lasting.clock.clone())),
            admin: Arc::new(Admin { console: Arc::new(console), token: ArcSwapOption::new(token(&first)) }),
            tls: Arc::new(ArcSwapOption::new(tls(&first)?)),
            limits: Arc::new(ArcSwap::from_pointee(limits_of(&first.server))),
            admin_limits: Arc::new(ArcSwap::from_pointee(admin_limits_of(&first.server))),
            plan,
            lasting,
            environment,
            own,
            way,
            ready,
        })
    }

    fn listener(&self, drain: watch::Receiver<Drain>) -> Listener {
        let metrics = &self.lasting.metrics;
        Listener {
            limits: self.limits.clone(),
            tls: self.tls.clone(),
            clock: self.lasting.clock.clone(),
            tasks: self.lasting.tasks.clone(),
            connections: metrics.connections.clone(),
            refused: metrics.refused_connections.clone(),
            outlived: false,
            drain,
        }
    }

    fn admin_listener(&self, drain: watch::Receiver<Drain>) -> Listener {
        Listener {
            limits: self.admin_limits.clone(),
            tls: Arc::default(),
            // Not counted: a metric that counts whoever reads it never shows zero.
            tasks: Tasks::new(uncounted()),
            connections: uncounted(),
            ..self.listener(drain)
        }
    }

    /// Serves by `plan` from now on, if it can be provisioned.
    fn reload(&self, plan: Arc<Plan>) {
        // Accounts come last in provisioning, so what fails before them has changed nothing that runs.
        let built = tls(&plan).and_then(|renewed| {
            Ok((renewed, provision(&plan, &self.lasting, self.own.clone(), &self.environment)?))
        });
        match built {
            Ok((renewed, (stages, upstreams))) => {
                self.tls.store(renewed);
                self.limits.store(Arc::new(limits_of(&plan.server)));
                self.admin_limits.store(Arc::new(admin_limits_of(&plan.server)));
                self.admin.token.store(token(&plan));
                tell_of(&plan, &self.plan.load());
                self.gate.take((self.way)(stages, upstreams));
                self.plan.store(plan);
                tracing::info!("serving by the new configuration");
                self.count_reload("ok");
            }
            Err(error) => {
                tracing::error!(%error, "the new configuration was not taken; the old one stays");
                self.count_reload("failed");
            }
        }
    }

    fn count_reload(&self, result: &str) {
        self.lasting.metrics.reloads.with_label_values(&[result]).inc();
    }

    /// Answers what has begun, then ends; whether that was in time and nobody was in a hurry.
    async fn drain(
        &self,
        mut accepting: Pin<&mut impl Future<Output = ()>>,
        drain: &watch::Sender<Drain>,
        orders: &mut Orders,
    ) -> bool {
        self.ready.store(false, Ordering::Relaxed);
        let _ = drain.send(Drain::Soon);
        let server = self.plan.load().server.clone();
        tracing::info!(delay = ?server.drain_delay, timeout = ?server.drain_timeout, "draining");
        let drained = async {
            // Balancers see `/readyz` fail before the door closes; requests are served meanwhile.
            tokio::select! {
                () = &mut accepting => {}
                () = tokio::time::sleep(server.drain_delay) => {
                    let _ = drain.send(Drain::Now);
                    accepting.await;
                }
            }
            self.lasting.tasks.idle().await;
        };
        tokio::select! {
            drained = tokio::time::timeout(server.drain_timeout, drained) => drained.is_ok(),
            () = second(orders) => false,
        }
    }
}

/// Whether `plan` can be provisioned, without binding or serving anything.
///
/// # Errors
/// What stands in the way.
pub fn provisions(plan: &Plan, environment: &Arc<dyn Environment>) -> Result<(), Unprovisioned> {
    struct Nothing;
    impl OwnPages for Nothing {
        fn answer(&self, _: &Known) -> Option<Result<Answer, Fault>> {
            None
        }
    }
    provision(plan, &Lasting::rehearsal(plan)?, Arc::new(Nothing), environment).map(drop)?;
    tls(plan).map(drop)
}

/// The way of requests that the program takes: over sockets.
fn way(stages: Stages, upstreams: Upstreams) -> impl Respond + 'static {
    pipeline(stages, upstreams)
}

/// Tells what a reload cannot change, and what the new plan warns of.
fn tell_of(new: &Plan, old: &Plan) {
    let kept = [
        ("server.listen", new.server.listen != old.server.listen),
        ("admin.listen", new.admin.listen != old.admin.listen),
        ("cache.max_bytes", new.cache.max_bytes != old.cache.max_bytes),
        ("cache.max_inflight_bytes", new.cache.max_inflight_bytes != old.cache.max_inflight_bytes),
        ("log", new.log != old.log),
        ("state.dir", new.state.dir != old.state.dir),
    ];
    for (key, _) in kept.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "this changes at the next start only");
    }
    for warning in &new.warnings {
        tracing::warn!("{warning}");
    }
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listener on `address`, or the one that was `given` in its place.
fn listen(
    key: &'static str,
    address: SocketAddr,
    given: Option<net::TcpListener>,
) -> Result<TcpListener, StartError> {
    let listen = || {
        if let Some(given) = given {
            given.set_nonblocking(true)?;
            return TcpListener::from_std(given);
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted gate takes its address over from connections that are still closing.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|error| StartError::Bind { key, address, error })
}

/// Waits for an order that ends a drain at once: any second one to drain or stop.
async fn second(orders: &mut Orders) {
    loop {
        match orders.recv().await {
            Some(Order::Drain | Order::Stop) => return,
            Some(_) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

/// A gauge nobody reads.
fn uncounted() -> prometheus::IntGauge {
    prometheus::core::GenericGauge::new("uncounted", "nobody reads this")
        .unwrap_or_else(|_| unreachable!("the name is legal"))
}
