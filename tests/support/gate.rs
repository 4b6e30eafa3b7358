//! The built program as a process: configured, started, asked, signalled and ended as an operator would.
//!
//! What the program owes: with `TOLLGATE_LOG_FORMAT=json` it logs one JSON object a line, and among them, when a
//! listener is bound, `"message":"listening"` with `"listener":"gate"` or `"admin"` and `"address":"IP:PORT"`.
//! The fields may stand at the top or in an object `fields`, as `tracing-subscriber` has it by default.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Answer};
use super::lines::{Lines, Sink};
use super::within;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");

/// A gate before it is started.
pub struct Setup {
    config: String,
    server: String,
    admin: String,
    env: Vec<(String, OsString)>,
    files: Vec<(String, Vec<u8>)>,
    options: Vec<String>,
    ulimit: Option<String>,
}

/// A gate that runs. Killed when dropped.
pub struct Gate {
    child: Child,
    gate: SocketAddr,
    admin: SocketAddr,
    lines: Lines,
    folder: TempDir,
}

/// The program with any words on its command line, running. Killed when dropped.
pub struct Program {
    child: Child,
    lines: Lines,
}

/// A command that has ended: `check`, `explain`, or a `serve` that did not come up.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// An upstream at `url` and one route before it, `/r/*`, whose answers are kept for ten minutes. Further keys of the route
/// may follow.
pub fn one_route(url: &str) -> String {
    format!(
        r#"
[upstreams.u]
url = "{url}"
[upstreams.u.accounts.a]
headers.api-key = "k"
quota = "none"
[[routes]]
name = "r"
path = "/r/*"
upstream = "u"
account = "a"
cache = {{ ttl = "10m" }}
"#
    )
}

impl Setup {
    /// `config` is everything but the sections `[server]` and `[admin]`, which get ports of the system's choice.
    /// Where it says `{folder}`, the temporary folder's path is put: that of [`Setup::file`]s, for one.
    pub fn new(config: impl Into<String>) -> Self {
        Self {
            config: config.into(),
            server: String::new(),
            admin: String::new(),
            env: Vec::new(),
            files: Vec::new(),
            options: Vec::new(),
            ulimit: None,
        }
    }

    /// More lines for `[server]`.
    #[must_use]
    pub fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self.server.push('\n');
        self
    }

    /// More lines for `[admin]`.
    #[must_use]
    pub fn admin(mut self, lines: &str) -> Self {
        self.admin.push_str(lines);
        self.admin.push('\n');
        self
    }

    /// The program gets no other environment than this.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// A file beside the configuration, such as a certificate.
    #[must_use]
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// One more word on the command line.
    #[must_use]
    pub fn option(mut self, word: &str) -> Self {
        self.options.push(word.to_owned());
        self
    }

    /// The program starts under these limits, as a shell sets them: `-n 64` for so many descriptors.
    #[must_use]
    pub fn ulimit(self, limits: &str) -> Self {
        Self { ulimit: Some(limits.to_owned()), ..self }
    }

    /// `tollgate serve`, until both listeners are bound; fails with what it printed if it does not get there.
    pub async fn start(self) -> Gate {
        let folder = self.folder();
        let mut child = self
            .command(&folder, &["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {PROGRAM}: {e}"));
        let (lines, sink) = Lines::new();
        drain(&mut child, sink);
        Gate::listening(child, lines, folder).await
    }

    /// The same with sockets that it is passed, as systemd does it: file descriptors 3 and 4, and who they are for.
    pub async fn activate(self, gate: &TcpListener, admin: &TcpListener) -> Gate {
        const PASS: &str = "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_FDS=2 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";
        let folder = self.folder();
        let command = self.command(&folder, &["serve"]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", PASS, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.current_dir(folder.path()).env_clear();
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let socket = |listener: &TcpListener| OwnedFd::from(listener.try_clone().unwrap());
        let mut child = shell
            .stdin(socket(gate))
            .stdout(socket(admin))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {PROGRAM}: {e}"));
        let (lines, sink) = Lines::new();
        sink.drain(child.stderr.take().expect("piped"));
        Gate::listening(child, lines, folder).await
    }

    /// Runs `tollgate WORDS… --config FILE` to its end.
    pub async fn run(self, words: &[&str]) -> Finished {
        let folder = self.folder();
        let mut command = self.command(&folder, words);
        command.stdin(Stdio::null());
        finish(command).await
    }

    fn command(&self, folder: &TempDir, words: &[&str]) -> Command {
        let mut command = match &self.ulimit {
            None => Command::new(PROGRAM),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit {limits}; exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.args(words).arg("--config").arg(folder.path().join("config.toml")).args(&self.options);
        command.current_dir(folder.path()).env_clear().env("TOLLGATE_LOG_FORMAT", "json");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().expect("a temporary folder named in UTF-8");
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{}\n[admin]\nlisten = \"127.0.0.1:0\"\n{}\n{}",
            self.server, self.admin, self.config
        );
        std::fs::write(folder.path().join("config.toml"), config.replace("{folder}", path)).unwrap();
        for (name, bytes) in &self.files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }
}

impl Gate {
    /// Waits until both listeners are there.
    async fn listening(child: Child, lines: Lines, folder: TempDir) -> Self {
        // Owned from here on, so that a failure below leaves no process behind.
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gate = Self { child, gate: unbound, admin: unbound, lines, folder };
        gate.gate = gate.lines.find("the gate listens", |lines| listening(lines, "gate")).await;
        gate.admin = gate.lines.find("the admin listens", |lines| listening(lines, "admin")).await;
        gate
    }

    /// Where the gate listens.
    pub fn addr(&self) -> SocketAddr {
        self.gate
    }

    /// Where its admin listener listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("the gate runs").count()
    }

    /// A line of `/proc/PID/status` that speaks of memory, in bytes.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the gate runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux tells");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// The CPU time it has used, of the user's and the system's: proc(5) counts it in hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the gate runs");
        let (_, rest) = stat.rsplit_once(") ").expect("the name stands in brackets");
        let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Everything printed so far.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// A path in the folder that the configuration lies in, which is named `config.toml`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        client::get(self.gate, target, headers).await
    }

    pub async fn ask_admin(&self, method: &str, target: &str) -> Answer {
        client::request(self.admin, method, target, &[], b"").await
    }

    pub async fn metrics(&self) -> String {
        let answer = self.ask_admin("GET", "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// The sum over the samples of `name` whose labels contain every one of `labels`, each written `name="value"`.
    /// Labels that were never used have no sample: that is 0, so look at a metric before and after.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sample(&self.metrics().await, name, labels)
    }

    /// Asks for the metric until `wanted` holds, for what settles after an answer was sent.
    pub async fn metric_becomes(&self, name: &str, labels: &[&str], wanted: impl Fn(f64) -> bool) -> f64 {
        within(&format!("{name}{labels:?} to become as wanted"), async {
            loop {
                let value = self.metric(name, labels).await;
                if wanted(value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Waits until the gate has read everything it was sent and done all it could about it: nothing lies unread in
    /// its sockets, and every thread of it sleeps. What still goes on then waits for somebody else.
    pub async fn quiet(&self) {
        within("the gate to fall quiet", async {
            while unread(self.gate) || awake(self.id()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Sends a signal by name: `TERM`, `INT`, `HUP`, `KILL`.
    pub fn signal(&self, name: &str) {
        send(name, self.child.id());
    }

    /// Waits until the process has ended by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        within("the gate to end", self.lines.end()).await;
        // Its output is closed, so it is gone or about to be.
        let deadline = Instant::now() + super::DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gate closed its output and goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Program {
    /// Starts `tollgate WORDS…` in an empty environment.
    pub fn start(words: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(words).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {PROGRAM}: {e}"));
        let (lines, sink) = Lines::new();
        drain(&mut child, sink);
        Self { child, lines }
    }

    /// Everything printed so far.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Sends a signal by name, and waits until the process has ended.
    pub async fn end(&mut self, signal: &str) -> ExitStatus {
        send(signal, self.child.id());
        within("the program to end", self.lines.end()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `tollgate WORDS…` to its end, with no configuration but what `words` name.
pub async fn run(words: &[&str]) -> Finished {
    let mut command = Command::new(PROGRAM);
    command.args(words).env_clear().stdin(Stdio::null());
    finish(command).await
}

/// The sum over the samples of `name` in an exposition whose labels contain every one of `labels`.
pub fn sample(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    let values = exposition.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let every = labels.iter().all(|label| found.split(',').any(|f| f == *label));
        every.then(|| value.split_whitespace().next()?.parse::<f64>().ok()).flatten()
    });
    values.sum()
}

/// The address that a listener of this name was bound to, if these lines tell.
pub fn listening(lines: &[String], listener: &str) -> Option<SocketAddr> {
    lines.iter().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let fields = event.get("fields").unwrap_or(&event);
        let says = |name: &str| fields.get(name).and_then(Value::as_str);
        (says("message") == Some("listening") && says("listener") == Some(listener))
            .then(|| says("address")?.parse().ok())
            .flatten()
    })
}

fn send(signal: &str, process: u32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
    assert!(status.expect("the command kill").success(), "no process to send {signal} to");
}

/// Whether bytes, or connections, wait to be read at a local address (proc(5), `/proc/net/tcp`).
fn unread(address: SocketAddr) -> bool {
    const LISTENS: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let port = format!(":{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, queues, ..] = columns[..] else { return false };
        let received = queues.split_once(':').map_or("", |(_, received)| received);
        // Of a listener the queue counts the connections that nobody has accepted.
        local.ends_with(&port) && (state == LISTENS || state == ESTABLISHED) && received != "00000000"
    })
}

const ESTABLISHED: &str = "01";

/// Whether any thread of a process runs, or is about to.
fn awake(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state is the first word behind the name, which stands in brackets.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('S'))
    })
}

fn drain(child: &mut Child, sink: Sink) {
    sink.clone().drain(child.stdout.take().expect("piped"));
    sink.drain(child.stderr.take().expect("piped"));
}

async fn finish(mut command: Command) -> Finished {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {PROGRAM}: {e}"));
    let id = child.id();
    let reading = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(super::DEADLINE, reading).await {
        Ok(output) => Finished::from(output.unwrap().unwrap()),
        Err(_) => {
            let _ = Command::new("kill").arg("-KILL").arg(id.to_string()).status();
            panic!("the command did not end by itself: {command:?}");
        }
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
