//! The command line: a command → a plan → run → drain. The only place that exits.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tollgate::config::plan::{Log, LogFormat, Plan};
use tollgate::config::{self, Environment};
use tollgate::demo::show::{Demo, Options};
use tollgate::explain::{Explanation, Reader};
use tollgate::gateway::{Gateway, Order, Sockets, StartError};
use tracing_subscriber::EnvFilter;

/// Chosen by measurement (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One gate in front of a metered third-party API.
#[derive(Parser)]
#[command(name = "tollgate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate.
    Serve {
        /// The configuration.
        #[arg(long, default_value = "config.toml")]
        config: PathBuf,
    },
    /// Load and provision everything, and print the resolved plan with secrets masked.
    Check {
        /// The configuration.
        #[arg(long, default_value = "config.toml")]
        config: PathBuf,
        /// Do not read secrets: for machines that have none.
        #[arg(long)]
        without_secrets: bool,
    },
    /// Show how a request is understood, without asking anybody.
    Explain {
        /// The configuration.
        #[arg(long, default_value = "config.toml")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The request, as in `GET /path?query`.
        request: String,
    },
    /// Run a simulated upstream with generated conversations and the gate in front of it, and print what to try.
    Demo {
        /// Also play several services that call the gate, so that the metrics move.
        #[arg(long)]
        traffic: bool,
        /// Where the gate listens.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: std::net::SocketAddr,
        /// Where the admin pages are.
        #[arg(long, default_value = "127.0.0.1:9090")]
        admin: std::net::SocketAddr,
        /// Where the simulated upstream listens.
        #[arg(long, default_value = "127.0.0.1:8090")]
        upstream: std::net::SocketAddr,
        /// Which conversations are generated: the same seed gives the same ones.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Why the program ends with a failure: what is said, as it stands.
struct Failure(String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Serve { config } => serve(&config),
        Command::Check { config, without_secrets } => check(&config, without_secrets),
        Command::Explain { config, json, request } => explain(&config, json, &request),
        Command::Demo { traffic, listen, admin, upstream, seed } => {
            demo(Options { traffic, listen, admin, upstream, seed })
        }
    };
    match result {
        Ok(code) => code,
        Err(Failure(message)) => {
            let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> Result<ExitCode, Failure> {
    forbid_core_dumps()?;
    use_every_descriptor();
    let environment: Arc<dyn Environment> = Arc::new(config::System);
    let plan = load(path, environment.as_ref())?;
    log(&plan.log, environment.as_ref())?;
    runtime()?.block_on(async {
        let gateway = Gateway::bind(plan, environment.clone(), inherited()?)?;
        let (give, orders) = mpsc::channel(8);
        signals(give, Some(path.to_owned()), environment)?;
        ended(gateway.serve(orders).await)
    })
}

fn check(path: &Path, without_secrets: bool) -> Result<ExitCode, Failure> {
    let environment: Arc<dyn Environment> =
        if without_secrets { Arc::new(config::WithoutSecrets) } else { Arc::new(config::System) };
    let plan = load(path, environment.as_ref())?;
    let description = plan.describe();
    tollgate::gateway::provisions(&plan, &environment)?;
    print(&description);
    Ok(ExitCode::SUCCESS)
}

fn explain(path: &Path, json: bool, request: &str) -> Result<ExitCode, Failure> {
    // Nothing is asked of anybody, so no secret is needed.
    let plan = load(path, &config::WithoutSecrets)?;
    let explanation = Explanation::of(&plan, request, Reader::Operator)?;
    print(&if json { explanation.to_json() } else { explanation.to_string() });
    Ok(ExitCode::SUCCESS)
}

fn demo(options: Options) -> Result<ExitCode, Failure> {
    forbid_core_dumps()?;
    let environment: Arc<dyn Environment> = Arc::new(config::System);
    log(&Log { format: LogFormat::Pretty, level: "warn".into() }, environment.as_ref())?;
    runtime()?.block_on(async {
        let demo = Demo::bind(options).await?;
        let (give, orders) = mpsc::channel(8);
        signals(give, None, environment)?;
        print(demo.tour());
        ended(demo.run(orders).await)
    })
}

/// 0 if everything that had begun was answered.
fn ended(result: Result<bool, StartError>) -> Result<ExitCode, Failure> {
    Ok(if result? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(path: &Path, environment: &dyn Environment) -> Result<Plan, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure(format!(
            "{name}: cannot be read: {error}; say where the configuration is with `--config FILE`"
        ))
    })?;
    Ok(config::load(&text, &name, environment)?)
}

/// Sets the log up. `TOLLGATE_LOG` and `TOLLGATE_LOG_FORMAT` go before the configuration.
fn log(log: &Log, environment: &dyn Environment) -> Result<(), Failure> {
    let level = environment.var("TOLLGATE_LOG").unwrap_or_else(|| log.level.clone());
    let filter =
        EnvFilter::try_new(&level).map_err(|error| Failure(format!("log level `{level}`: {error}")))?;
    let format = match environment.var("TOLLGATE_LOG_FORMAT").as_deref() {
        None => log.format,
        Some("json") => LogFormat::Json,
        Some("pretty") => LogFormat::Pretty,
        Some(other) => {
            return Err(Failure(format!("TOLLGATE_LOG_FORMAT is `{other}`; it can be `pretty` or `json`")));
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
    Ok(())
}

/// The sockets that systemd passed on, if any: the first is the gate's, the second the admin listener's.
fn inherited() -> Result<Sockets, Failure> {
    let mut given = listenfd::ListenFd::from_env();
    let mut take = |at| {
        given
            .take_tcp_listener(at)
            .map_err(|error| Failure(format!("inherited socket {at} is no TCP listener: {error}")))
    };
    Ok(Sockets { gate: take(0)?, admin: take(1)? })
}

/// A core dump would hold every secret.
fn forbid_core_dumps() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|error| Failure(format!("core dumps cannot be switched off: {error}")))
}

/// Each connection needs a descriptor, and the soft limit is often 1,024, far below `max_connections`.
fn use_every_descriptor() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, the gate serves as many as it may, and tells when it cannot accept.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure(format!("no threads can be started: {error}")))
}

/// Turns signals into orders: TERM and INT drain, a second one ends at once; HUP reads the configuration again, where
/// there is one.
fn signals(
    give: mpsc::Sender<Order>,
    config: Option<PathBuf>,
    environment: Arc<dyn Environment>,
) -> Result<(), Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the runtime; counted, it would keep a drain waiting"
    )]
    tokio::spawn(async move {
        loop {
            let order = tokio::select! {
                _ = term.recv() => Order::Drain,
                _ = int.recv() => Order::Drain,
                _ = hup.recv() => match &config {
                    Some(config) => reload(config, environment.as_ref()),
                    None => continue,
                },
            };
            if give.send(order).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn reload(path: &Path, environment: &dyn Environment) -> Order {
    match load(path, environment) {
        Ok(plan) => Order::Reload(Arc::new(plan)),
        Err(Failure(message)) => {
            tracing::error!(
                "the new configuration was not taken; the old one stays:\n{}",
                message.trim_end()
            );
            Order::ReloadFailed
        }
    }
}

fn print(text: &str) {
    // Whoever reads may have stopped reading.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}
