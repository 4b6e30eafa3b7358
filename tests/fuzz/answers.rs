//! An upstream that may write anything, on real connections, and the gate's whole way of requests before it: what came
//! of each answer, and of the question that was asked after it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tollgate::config;
use tollgate::edge::listener::{Handler as _, Peer};
use tollgate::handler::Gate;
use tollgate::lasting::Lasting;
use tollgate::model::exchange::{Answer, Known};
use tollgate::model::{Body, Fault};
use tollgate::pipeline::pipeline;
use tollgate::provision::provision;
use tollgate::stages::observe::Reported;
use tollgate::stages::steps::OwnPages;

/// What the upstream does once it has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It closes: a body may end so.
    Close,
    /// It resets the connection: no body ends so.
    Reset,
    /// It waits for the next request.
    Stay,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) length: Option<Vec<u8>>,
    pub(crate) body: Vec<u8>,
    /// Its body came to its end.
    pub(crate) whole: bool,
    /// It is an answer of the upstream's, and none of the gate's own.
    pub(crate) passed: bool,
    /// It comes from memory.
    pub(crate) held: bool,
}

/// The gate and its upstream. Both live only while something is asked.
pub(crate) struct World {
    runtime: Runtime,
    ask: Ask,
    lasting: Lasting,
    said: Said,
}

/// What the upstream answers everything with; `None`: that all is well.
type Said = Arc<Mutex<Option<(Vec<u8>, End)>>>;
type Answering = Pin<Box<dyn Future<Output = Response<Reported>> + Send>>;
type Ask = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// What is said of an account's limits holds for the account that was asked with, so `/plain` has its own. All share the
/// upstream's connections.
const CONFIG: &str = r#"
[upstreams.u]
url = "http://{address}"
timeout = "2s"
breaker_failures = 0
[upstreams.u.accounts.told]
quota = "none"
max_wait = "1ms"
max_pause = "1ms"
[upstreams.u.accounts.plain]
quota = "none"
[[routes]]
name = "kept"
path = "/kept/*"
upstream = "u"
account = "told"
cache = { ttl = "60s" }
[[routes]]
name = "streamed"
path = "/streamed/*"
upstream = "u"
account = "told"
cache = { enabled = false }
[[routes]]
name = "plain"
path = "/plain"
upstream = "u"
account = "plain"
cache = { enabled = false }
"#;

/// It closes, so that bytes under test are the first of a connection: what follows them on it is what matters.
const WELL: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

impl World {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = Said::default();
        let (lasting, ask) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(upstream(listener, said.clone()));
            gate(address)
        });
        Self { runtime, ask, lasting, said }
    }

    /// What a client gets of `target` where the upstream says that all is well.
    pub(crate) fn ask(&self, target: &str) -> Got {
        self.get(target, None)
    }

    /// What a client gets of `target` where the upstream answers with `bytes`.
    pub(crate) fn told(&self, target: &str, bytes: &[u8], end: End) -> Got {
        // Whatever was said of the account's limits before.
        let (_, account) = self.lasting.account_called("told").unwrap();
        account.open_by_hand();
        self.get(target, Some((bytes.to_vec(), end)))
    }

    fn get(&self, target: &str, said: Option<(Vec<u8>, End)>) -> Got {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
        let request = Request::get(target).header(header::HOST, "gate.example").body(Body::Empty).unwrap();
        self.runtime.block_on(async {
            let (head, mut body) = (self.ask)(request).await.into_parts();
            let (mut bytes, mut whole) = (Vec::new(), true);
            while let Some(frame) = body.frame().await {
                match frame.map(http_body::Frame::into_data) {
                    Ok(Ok(data)) => bytes.extend_from_slice(&data),
                    Ok(Err(_)) => {}
                    Err(_) => whole = false,
                }
            }
            let cache = head.headers.get("cache-status");
            Got {
                status: head.status,
                length: head.headers.get(header::CONTENT_LENGTH).map(|length| length.as_bytes().to_vec()),
                body: bytes,
                whole,
                passed: cache.is_some(),
                held: cache.is_some_and(|cache| cache.as_bytes().starts_with(b"tollgate; hit")),
            }
        })
    }
}

fn gate(upstream: SocketAddr) -> (Lasting, Ask) {
    let environment: Arc<dyn config::Environment> = Arc::new(config::System);
    let text = CONFIG.replace("{address}", &upstream.to_string());
    let plan = config::load(&text, "answers", environment.as_ref()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let lasting = Lasting::new(&plan).unwrap();
    let (stages, upstreams) = provision(&plan, &lasting, Arc::new(NoPages), &environment).unwrap();
    let gate = Arc::new(Gate::new(pipeline(stages, upstreams), lasting.clock.clone()));
    let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let ask: Ask = Box::new(move |request| {
        let gate = gate.clone();
        Box::pin(
            async move { gate.handle(request, &Peer { address, certificate: None, interim: None }).await },
        )
    });
    (lasting, ask)
}

/// No pages of the gate's own.
struct NoPages;

impl OwnPages for NoPages {
    fn answer(&self, _: &Known) -> Option<Result<Answer, Fault>> {
        None
    }
}

async fn upstream(listener: TcpListener, said: Said) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(converse(stream, said.clone()));
    }
}

/// Answers each request head: none has a body.
async fn converse(mut stream: TcpStream, said: Said) {
    let mut heard = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut heard).await {
        if !heard.ends_with(b"\r\n\r\n") {
            continue;
        }
        heard.clear();
        let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (bytes, end) = said.unwrap_or((WELL.to_vec(), End::Stay));
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match end {
            End::Stay => {}
            End::Close => return,
            End::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
        }
    }
}
