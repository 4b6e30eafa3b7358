//! The gate, nginx `limit_req` and HAProxy as programs, each before an upstream that enforces its own limit over every
//! sliding second and counts what it had to send away. Ten seconds of closed-loop clients over real sockets for each.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{LATENCY, LOOPS, Lived, QUOTA, WEIGHTS, median};

const TIME: Duration = Duration::from_secs(10);

/// A server under measure.
struct Server {
    name: &'static str,
    child: Child,
    port: u16,
    upstream: Arc<Enforcing>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It was started here, and is known by its id.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// An upstream that admits `QUOTA` calls in any second, counted as they arrive, and answers 429 to the others.
#[derive(Default)]
struct Enforcing {
    admitted: Mutex<VecDeque<Instant>>,
    sent_away: Mutex<usize>,
}

impl Enforcing {
    fn admits(&self) -> bool {
        let now = Instant::now();
        let mut admitted = self.admitted.lock().unwrap();
        let lately = admitted.iter().rev().take_while(|at| now.duration_since(**at) < Duration::from_secs(1));
        let admits = lately.count() < QUOTA;
        if admits {
            admitted.push_back(now);
        } else {
            *self.sent_away.lock().unwrap() += 1;
        }
        admits
    }

    async fn start(self: Arc<Self>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.clone().serve(stream));
            }
        });
        port
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut held = Vec::new();
        while read_head(&mut stream, &mut held).await.is_some() {
            let admits = self.admits();
            tokio::time::sleep(LATENCY).await;
            let answer: &[u8] = if admits {
                b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
            } else {
                b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 1\r\n\r\nx"
            };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

/// The next head, without which the connection is over; what came after it stays in `held`.
async fn read_head(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = held.split_off(end + 4);
            return String::from_utf8(std::mem::replace(held, rest)).ok();
        }
        if stream.read_buf(held).await.ok()? == 0 {
            return None;
        }
    }
}

/// Asks `port` once over `stream`, which is opened where there is none: the status and the `Retry-After`.
async fn ask(
    stream: &mut Option<TcpStream>,
    port: u16,
    client: usize,
    target: &str,
) -> Option<(u16, Option<u64>)> {
    if stream.is_none() {
        *stream = Some(TcpStream::connect(("127.0.0.1", port)).await.ok()?);
    }
    let open = stream.as_mut()?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: gate\r\nx-tollgate-key: key-of-client-{client:08}\r\ntollgate-timeout: 60\r\n\r\n"
    );
    open.write_all(request.as_bytes()).await.ok()?;
    let mut held = Vec::new();
    let head = read_head(open, &mut held).await?.to_ascii_lowercase();
    let field =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let length = usize::try_from(field("content-length:")?).ok()?;
    while held.len() < length {
        if open.read_buf(&mut held).await.ok()? == 0 {
            return None;
        }
    }
    if head.contains("connection: close") {
        *stream = None;
    }
    Some((head.split(' ').nth(1)?.parse().ok()?, field("retry-after:")))
}

/// One loop of a client. Whoever is told nothing comes back after a second.
async fn lives(port: u16, client: usize, at: usize, end: Instant) -> Lived {
    let (mut lived, mut n, mut returning, mut stream) = (Lived::default(), 0, false, None);
    while Instant::now() < end {
        let answer = ask(&mut stream, port, client, &format!("/r?q={client}.{at}.{n}")).await;
        if answer.is_none() {
            stream = None;
        }
        let (status, retry) = answer.unwrap_or((0, None));
        if returning {
            lived.returns += 1;
            lived.served_at_return += usize::from(status == 200);
        }
        returning = status != 200;
        if status == 200 {
            n += 1;
            lived.waits.push(Duration::ZERO);
        } else {
            let wait = Duration::from_secs(retry.unwrap_or(1));
            lived.told.push(wait);
            tokio::time::sleep(wait).await;
        }
    }
    lived
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn start(
    name: &'static str,
    dir: &Path,
    command: impl FnOnce(u16, u16, &Path) -> Command,
) -> Option<Server> {
    let upstream = Arc::new(Enforcing::default());
    let (port, origin) = (free_port().await, upstream.clone().start().await);
    let child = command(port, origin, dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let server = Server { name, child, port, upstream };
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

fn gate(port: u16, origin: u16, dir: &Path) -> Command {
    let clients = WEIGHTS
        .iter()
        .enumerate()
        .map(|(n, weight)| format!("[clients.c{n}]\nkey = \"key-of-client-{n:08}\"\nweight = {weight}\n"));
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [upstreams.u]\nurl = \"http://127.0.0.1:{origin}\"\nmax_concurrent = 1000\n[upstreams.u.accounts.a]\n\
         quota = [{{ requests = {QUOTA}, per = \"1s\" }}]\nmax_wait = \"1s\"\n{}\
         [[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\naccount = \"a\"\n[routes.cache]\nenabled = false\n",
        clients.collect::<String>()
    );
    std::fs::write(dir.join("gate.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env("TOLLGATE_LOG", "error").args(["serve", "--config"]).arg(dir.join("gate.toml"));
    command
}

fn nginx(port: u16, origin: u16, dir: &Path) -> Command {
    let at = dir.display();
    let temps = ["client_body", "fastcgi", "uwsgi", "scgi", "proxy"];
    let temps: String = temps.iter().map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).collect();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temps}\
         limit_req_zone $server_name zone=account:1m rate={QUOTA}r/s;\n\
         upstream u {{ server 127.0.0.1:{origin}; keepalive 64; }}\n\
         server {{ listen 127.0.0.1:{port}; server_name gate;\n\
         location / {{ limit_req zone=account burst={QUOTA}; limit_req_status 429; proxy_pass http://u;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    command
}

fn haproxy(port: u16, origin: u16, dir: &Path) -> Command {
    let config = format!(
        "defaults\nmode http\ntimeout connect 5s\ntimeout client 60s\ntimeout server 60s\n\
         frontend f\nbind 127.0.0.1:{port}\n\
         stick-table type string len 8 size 1k expire 10s store http_req_rate(1s)\n\
         http-request deny deny_status 429 if {{ str(a),table_http_req_rate(f) ge {QUOTA} }}\n\
         http-request track-sc0 str(a)\ndefault_backend b\nbackend b\nserver o 127.0.0.1:{origin}\n"
    );
    std::fs::write(dir.join("haproxy.cfg"), config).unwrap();
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    command
}

/// Installs what is missing, and says what each of the three made of the same load.
pub(crate) fn measure() {
    let is_there = ["/usr/sbin/nginx", "/usr/sbin/haproxy"].iter().all(|program| Path::new(program).exists());
    if !is_there {
        let install = "apt-get -qq update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
                       apt-get -qq install --no-install-recommends -y nginx-light haproxy >/dev/null";
        let _ = Command::new("sh").args(["-c", install]).status();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    println!("        as programs, {} loops, {TIME:?}:", WEIGHTS.len() * LOOPS);
    runtime.block_on(async {
        let started = [
            start("Tollgate", dir.path(), gate).await,
            start("nginx limit_req", dir.path(), nginx).await,
            start("HAProxy", dir.path(), haproxy).await,
        ];
        for server in started.into_iter().flatten() {
            let began = Instant::now();
            let living: Vec<_> = (0..WEIGHTS.len() * LOOPS)
                .map(|at| tokio::spawn(lives(server.port, at % WEIGHTS.len(), at, began + TIME)))
                .collect();
            let (mut all, mut by_weight) = (Lived::default(), vec![0.0; WEIGHTS.len()]);
            for (at, one) in living.into_iter().enumerate() {
                let one = one.await.unwrap();
                by_weight[at % WEIGHTS.len()] += one.waits.len() as f64 / f64::from(WEIGHTS[at % WEIGHTS.len()]);
                all.told.extend(one.told);
                all.returns += one.returns;
                all.served_at_return += one.served_at_return;
            }
            let admitted = server.upstream.admitted.lock().unwrap();
            let used = admitted.iter().filter(|at| **at < began + TIME).count();
            println!(
                "        {:16} {:5.1} % of the quota, {} violations, Jain's index by weight {:.3}, {} refusals (median {:?}), \
                 {:.1} % served at the first return",
                server.name,
                100.0 * used as f64 / (QUOTA as f64 * TIME.as_secs_f64()),
                server.upstream.sent_away.lock().unwrap(),
                crate::jain(&by_weight),
                all.told.len(),
                median(all.told),
                100.0 * all.served_at_return as f64 / all.returns.max(1) as f64,
            );
        }
    });
}
