//! The running gate: binds the listeners, owns what runs, and ends it. Readiness, reload and drain.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Environment;
use crate::config::plan::{Plan, Server};
use crate::console::{Operators, Own};
use crate::edge::admin::Admin;
use crate::edge::listener::{Limits, Listener};
use crate::edge::tls::ServerTls;
use crate::edge::upstream::Upstreams;
use crate::handler::Gate;
use crate::lasting::{Lasting, Unprovisioned};
use crate::model::exchange::{Answer, Known};
use crate::model::{Fault, Secret};
use crate::pipeline::{Stages, pipeline};
use crate::provision::provision;
use crate::stages::observe::Respond;
use crate::stages::steps::OwnPages;

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

    /// Serves until an order ends it; whether everything that had begun was answered in time.
    ///
    /// # Errors
    /// What could not be set up; nothing was served then.
    pub async fn serve(self, mut orders: tokio::sync::mpsc::Receiver<Order>) -> Result<bool, StartError> {
        let ready = Arc::new(AtomicBool::new(true));
        let own: Arc<dyn OwnPages> =
            Arc::new(Own { plan: self.plan.clone(), clock: self.lasting.clock.clone() });
        let build = |plan: &Plan| provision(plan, &self.lasting, own.clone(), &self.environment);
        let (stages, upstreams) = build(&self.plan.load()).map_err(StartError::Unprovisioned)?;
        let gate = Arc::new(Gate::new(way(stages, upstreams), self.lasting.clock.clone()));
        let (drain, draining) = watch::channel(false);
        let (stop_admin, admin_stopping) = watch::channel(false);
        let plan = self.plan.load_full();
        self.announce();
        let lasting = &self.lasting;
        let tls = Arc::new(ArcSwapOption::new(tls(&plan).map_err(StartError::Unprovisioned)?));
        let limits = Arc::new(ArcSwap::from_pointee(limits_of(&plan.server)));
        let admin_limits = Arc::new(ArcSwap::from_pointee(admin_limits_of(&plan.server)));
        let listener = |limits: &Arc<ArcSwap<Limits>>, drain| Listener {
            limits: limits.clone(),
            tls: tls.clone(),
            clock: lasting.clock.clone(),
            tasks: lasting.tasks.clone(),
            connections: lasting.metrics.connections.clone(),
            refused: lasting.metrics.refused_connections.clone(),
            outlived: self.outlived,
            drain,
        };
        let console = Operators { plan: self.plan.clone(), lasting: lasting.clone(), ready: ready.clone() };
        let admin = Arc::new(Admin { console: Arc::new(console), token: ArcSwapOption::new(token(&plan)) });
        let gate_listener = listener(&limits, draining);
        let admin_listener = Listener {
            // Not counted: a metric that counts whoever reads it never shows zero.
            tasks: crate::state::tasks::Tasks::new(uncounted()),
            connections: uncounted(),
            tls: Arc::default(),
            ..listener(&admin_limits, admin_stopping)
        };
        let admin_task = admin_listener.tasks.clone().spawn(admin_listener.serve(self.admin, admin.clone()));
        let accepting = gate_listener.serve(self.gate, gate.clone());
        let mut accepting = std::pin::pin!(accepting);
        let whole = loop {
            let order = tokio::select! {
                () = &mut accepting => Order::Stop,
                order = orders.recv() => order.unwrap_or(Order::Drain),
            };
            match order {
                Order::Reload(plan) => {
                    let built = self::tls(&plan).and_then(|renewed| Ok((renewed, build(&plan)?)));
                    let result = match built {
                        Ok((renewed, (stages, upstreams))) => {
                            tls.store(renewed);
                            limits.store(Arc::new(limits_of(&plan.server)));
                            admin_limits.store(Arc::new(admin_limits_of(&plan.server)));
                            admin.token.store(token(&plan));
                            tell_of(&plan, &self.plan.load());
                            gate.take(way(stages, upstreams));
                            self.plan.store(plan);
                            tracing::info!("serving by the new configuration");
                            "ok"
                        }
                        Err(error) => {
                            tracing::error!(%error, "the new configuration was not taken; the old one stays");
                            "failed"
                        }
                    };
                    lasting.metrics.reloads.with_label_values(&[result]).inc();
                }
                Order::ReloadFailed => lasting.metrics.reloads.with_label_values(&["failed"]).inc(),
                Order::Stop => break false,
                Order::Drain => {
                    ready.store(false, Ordering::Relaxed);
                    let server = self.plan.load().server.clone();
                    tracing::info!(delay = ?server.drain_delay, timeout = ?server.drain_timeout, "draining");
                    let drained = async {
                        // Balancers see `/readyz` fail before the door closes; requests are served meanwhile.
                        tokio::select! {
                            () = &mut accepting => {}
                            () = tokio::time::sleep(server.drain_delay) => {
                                let _ = drain.send(true);
                                accepting.await;
                            }
                        }
                        lasting.tasks.idle().await;
                    };
                    break tokio::select! {
                        drained = tokio::time::timeout(server.drain_timeout, drained) => drained.is_ok(),
                        () = second(&mut orders) => false,
                    };
                }
            }
        };
        let _ = stop_admin.send(true);
        let _ = tokio::time::timeout(Duration::from_secs(1), admin_task).await;
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
    provision(plan, &Lasting::new(plan)?, Arc::new(Nothing), environment).map(drop)?;
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
    ];
    for (key, _) in kept.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "this changes at the next start only");
    }
    for warning in &new.warnings {
        tracing::warn!("{warning}");
    }
}

/// What operators must present, if anything.
fn token(plan: &Plan) -> Option<Arc<Secret>> {
    plan.admin.token.as_ref().map(|token| Arc::new(token.value.clone()))
}

/// TLS towards clients, if the plan has any.
fn tls(plan: &Plan) -> Result<Option<Arc<rustls::ServerConfig>>, Unprovisioned> {
    let config = plan.server.tls.as_ref().map(ServerTls::to_config).transpose();
    Ok(config.map_err(|error| Unprovisioned::Tls(error.to_string()))?.map(Arc::new))
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
async fn second(orders: &mut tokio::sync::mpsc::Receiver<Order>) {
    loop {
        match orders.recv().await {
            Some(Order::Drain | Order::Stop) => return,
            Some(_) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

fn limits_of(server: &Server) -> Limits {
    Limits {
        header_timeout: server.header_timeout,
        body_timeout: server.body_timeout,
        idle_timeout: server.idle_timeout,
        max_head_bytes: server.max_head_bytes,
        max_headers: server.max_headers,
        max_body_bytes: server.max_body_bytes as u64,
        max_connections: server.max_connections,
        max_streams: server.max_streams,
    }
}

/// The most connections of operators at once, and the largest body they may send.
const MOST_OPERATORS: usize = 256;
const ADMIN_BODY_BYTES: u64 = 64 << 10;

fn admin_limits_of(server: &Server) -> Limits {
    Limits { max_connections: MOST_OPERATORS, max_body_bytes: ADMIN_BODY_BYTES, ..limits_of(server) }
}

/// A gauge nobody reads.
fn uncounted() -> prometheus::IntGauge {
    prometheus::core::GenericGauge::new("uncounted", "nobody reads this")
        .unwrap_or_else(|_| unreachable!("the name is legal"))
}
