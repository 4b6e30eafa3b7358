//! npm's `json-server`, 0.17 or a beta of 1.0, with 4,862 real text messages: upstreams nobody here wrote. `tests/json-server/` says
//! where the messages come from; `./test` fetches both, and nothing here works without.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::client::{self, Answer};
use super::lines::Lines;

/// A running json-server. It ends when dropped, and by itself if the test is killed.
pub struct JsonServer {
    child: Child,
    address: SocketAddr,
    lines: Lines,
    marks: AtomicUsize,
}

impl JsonServer {
    /// 0.17: bare arrays, `Link` and `X-Total-Count`, nothing past the end.
    pub async fn start() -> Self {
        Self::run("server.js", "json-server").await
    }

    /// 1.0: an envelope, the last page again past the end.
    pub async fn start_1() -> Self {
        Self::run("server-1.mjs", "json-server-1").await
    }

    async fn run(script: &str, package: &str) -> Self {
        let folder = folder();
        let package = folder.join("node_modules").join(package).join("package.json");
        assert!(
            package.exists() && database_file().exists(),
            "json-server or its messages are missing in {}: run ./test, which fetches them",
            folder.display()
        );
        let mut child = Command::new("node")
            .arg(folder.join(script))
            .arg(database_file())
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node, which ./test asks for");
        let (lines, sink) = Lines::new();
        sink.clone().drain(child.stdout.take().expect("piped"));
        sink.drain(child.stderr.take().expect("piped"));
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address: unbound, lines, marks: AtomicUsize::new(0) };
        let port = server.lines.find("json-server to listen", |lines| {
            lines.iter().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        });
        let port: u16 = port.await;
        server.address.set_port(port);
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks it directly, by its own address, which it puts into `Link`. These requests stand in its log too.
    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let host = self.address.to_string();
        let headers = [&[("Host", host.as_str())], headers].concat();
        client::get(self.address, target, &headers).await
    }

    /// Its request log, `METHOD TARGET` a line, whole at the time of the call.
    pub async fn requests(&self) -> Vec<String> {
        // One process writes the log in order, so all is read that came before a request of our own.
        let mark = format!("/mark-{}", self.marks.fetch_add(1, Ordering::SeqCst));
        self.get(&mark, &[]).await;
        let line = format!("GET {mark}");
        let lines =
            self.lines.find("a mark in the log", |lines| lines.contains(&line).then(|| lines.to_vec()));
        let lines = lines.await;
        let asked = lines.into_iter().filter(|line| line.contains(" /") && !line.contains(" /mark-"));
        asked.collect()
    }
}

impl Drop for JsonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The messages that json-server serves, in its order.
pub fn messages() -> Vec<Value> {
    let bytes = std::fs::read(database_file()).expect("the messages, which ./test fetches");
    let database: Value = serde_json::from_slice(&bytes).unwrap();
    database["messages"].as_array().expect("an array of messages").clone()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json-server")
}

fn database_file() -> std::path::PathBuf {
    folder().join(".corpus/db.json")
}
