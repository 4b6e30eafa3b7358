//! The command line: a command → a plan → run → drain. The only place that exits.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tollgate::config::plan::{Log, LogFormat, Plan};
use tollgate::config::{self, Environment};
use tollgate::demo::conversations::{Conversations, Size};
use tollgate::demo::octopush::Octopush;
use tollgate::demo::settings::Settings;
use tollgate::demo::tour::{Examples, tour};
use tollgate::demo::traffic::{Service, Traffic};
use tollgate::explain::{Explanation, Reader};
use tollgate::gateway::{Gateway, Order};
use tracing_subscriber::EnvFilter;

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
    /// Run a simulated Octopush with generated conversations and the gate in front of it, and print what to try.
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
        /// Where the simulated Octopush listens.
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
            demo(traffic, [listen, admin, upstream], seed)
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
    let environment: Arc<dyn Environment> = Arc::new(config::System);
    let plan = load(path, environment.as_ref())?;
    log(&plan.log, environment.as_ref())?;
    runtime()?.block_on(async {
        let gateway = Gateway::bind(plan, environment.clone()).await?;
        let (give, orders) = mpsc::channel(8);
        let signals = signals(give, path.to_owned(), environment)?;
        let whole = gateway.serve(orders).await;
        signals.abort();
        Ok(if whole? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn check(path: &Path, without_secrets: bool) -> Result<ExitCode, Failure> {
    let environment: Arc<dyn Environment> =
        if without_secrets { Arc::new(config::WithoutSecrets) } else { Arc::new(config::System) };
    let plan = load(path, environment.as_ref())?;
    let description = plan.describe();
    tollgate::gateway::provisions(&plan, environment)?;
    print(&description);
    for warning in &plan.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(path: &Path, json: bool, request: &str) -> Result<ExitCode, Failure> {
    // Nothing is asked of anybody, so no secret is needed.
    let plan = load(path, &config::WithoutSecrets)?;
    let explanation = Explanation::of(&plan, request, Reader::Operator)?;
    print(&if json { explanation.to_json() } else { explanation.to_string() });
    Ok(ExitCode::SUCCESS)
}

fn demo(
    traffic: bool,
    [listen, admin, upstream]: [std::net::SocketAddr; 3],
    seed: u64,
) -> Result<ExitCode, Failure> {
    let environment = Arc::new(demo_environment::Demo);
    let mut plan = config::load(demo_environment::CONFIG, "config.toml", environment.as_ref())?;
    log(&Log { format: LogFormat::Pretty, level: "warn".into() }, environment.as_ref())?;
    runtime()?.block_on(async {
        let octopush = TcpListener::bind(upstream).await.map_err(|error| {
            Failure(format!("the simulated Octopush cannot listen on {upstream}: {error}; give it another address with `--upstream 127.0.0.1:0`"))
        })?;
        demo_environment::adapt(&mut plan, [listen, admin, octopush.local_addr()?])?;
        let gateway = Gateway::bind(plan, environment.clone()).await.map_err(|error| {
            Failure(format!("{error}\nfor the demo: `--listen 127.0.0.1:0` and `--admin 127.0.0.1:0` take any free ones"))
        })?;
        let conversations = Conversations::generate(seed, Size::default());
        let examples = Examples::of(&conversations);
        let (Some(gate), Some(pages)) = (gateway.address(), gateway.admin_address()) else {
            return Err(Failure("the gate has no address".into()));
        };
        let contacts = conversations.contacts().to_vec();
        let simulated = Octopush::new(Settings::default(), conversations);
        let (give, orders) = mpsc::channel(8);
        let signals = signals(give, PathBuf::new(), environment)?;
        print(&tour(gate, pages, &examples));
        let mut playing = tokio::task::JoinSet::new();
        playing.spawn(simulated.serve(octopush, std::future::pending()));
        if traffic {
            let services = Traffic { gate, services: Service::all(), contacts, seed };
            playing.spawn(async move {
                let _ = services.play(std::future::pending()).await;
            });
        }
        let whole = gateway.serve(orders).await;
        playing.shutdown().await;
        signals.abort();
        Ok(if whole? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// What the demo changes about the shipped configuration: where things are, and what its Octopush admits.
mod demo_environment {
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use tollgate::config::Environment;
    use tollgate::config::plan::Plan;
    use tollgate::rules::window::WindowRule;

    /// The shipped configuration.
    pub(super) const CONFIG: &str = include_str!("../config.toml");

    /// An environment that holds the simulated account's credentials.
    pub(super) struct Demo;

    impl Environment for Demo {
        fn var(&self, name: &str) -> Option<String> {
            let settings = tollgate::demo::settings::Settings::default();
            match name {
                "OCTOPUSH_API_KEY" => Some(settings.api_key),
                "OCTOPUSH_API_LOGIN" => Some(settings.api_login),
                _ => tollgate::config::System.var(name),
            }
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            tollgate::config::System.read(path)
        }
    }

    pub(super) fn adapt(
        plan: &mut Plan,
        [listen, admin, upstream]: [SocketAddr; 3],
    ) -> Result<(), super::Failure> {
        plan.server.listen = listen;
        plan.admin.listen = admin;
        plan.server.drain_delay = Duration::ZERO;
        for simulated in &mut plan.upstreams {
            simulated.scheme = http::uri::Scheme::HTTP;
            simulated.authority = upstream.to_string().parse()?;
        }
        for account in &mut plan.accounts {
            account.quota = vec![WindowRule { requests: 10, per: Duration::from_secs(1) }];
        }
        plan.warnings.clear();
        Ok(())
    }
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
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init()
        }
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure(format!("no threads can be started: {error}")))
}

/// Turns signals into orders: TERM and INT drain, a second one ends at once; HUP reads the configuration again.
fn signals(
    give: mpsc::Sender<Order>,
    path: PathBuf,
    environment: Arc<dyn Environment>,
) -> Result<tokio::task::AbortHandle, Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    let mut tasks = tokio::task::JoinSet::new();
    let handle = tasks.spawn(async move {
        loop {
            let order = tokio::select! {
                _ = term.recv() => Order::Drain,
                _ = int.recv() => Order::Drain,
                _ = hup.recv() => reload(&path, environment.as_ref()),
            };
            if give.send(order).await.is_err() {
                return;
            }
        }
    });
    tasks.detach_all();
    Ok(handle)
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
