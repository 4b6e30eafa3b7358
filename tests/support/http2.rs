//! HTTP/2 in the test's hands, on both sides: a client and an upstream that ask and answer as programs do (by the crate
//! `h2`), and [`Frames`], plain frames for what no program should send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request, Response};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::Answer;
use super::upstream::Signal;
use super::wire::Headers;
use super::within;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// One connection of a client. Clones share it.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Bytes>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

impl Http2 {
    /// In clear text, knowing that HTTP/2 is spoken.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, &Builder::new()).await
    }

    /// Over TLS, which must choose HTTP/2.
    pub async fn connect_tls(address: SocketAddr, config: ClientConfig) -> Self {
        let stream = tls(address, config, &[b"h2", b"http/1.1"]).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream, &Builder::new()).await
    }

    pub async fn over(stream: impl Stream, builder: &Builder) -> Self {
        let (send, connection) = within("an HTTP/2 handshake", builder.handshake(stream)).await.unwrap();
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            // A client may be about to say something when the gate has closed: the last `PING`'s answer, say.
            let too_late = |error: &h2::Error| {
                error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
            };
            let result = match connection.await {
                Err(error) if !too_late(&error) => Err(error.to_string()),
                _ => Ok(()),
            };
            end.send_replace(Some(result));
        });
        Self { send, ended }
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, b"").await.expect("an answer")
    }

    pub async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) -> Result<Answer, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://gate.example{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(()).unwrap(), body).await
    }

    /// Sends a request as it stands, and collects its answer.
    pub async fn send(&self, request: Request<()>, body: &'static [u8]) -> Result<Answer, h2::Error> {
        let asked = async {
            let mut send = self.send.clone().ready().await?;
            let (response, mut stream) = send.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(Bytes::from_static(body), true)?;
            }
            collect(response.await?).await
        };
        within("an answer", asked).await
    }

    /// Begins a request whose answer is not read: what is returned keeps it open.
    pub async fn begin(&self, target: &str) -> h2::client::ResponseFuture {
        let request = Request::get(format!("http://gate.example{target}")).body(()).unwrap();
        let mut send = within("a stream", self.send.clone().ready()).await.unwrap();
        send.send_request(request, true).unwrap().0
    }

    /// How many requests the server lets this connection have at once.
    pub fn max_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Waits until the connection has ended: well, or with what error.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        within("the connection to end", ended.wait_for(Option::is_some)).await.unwrap().clone().unwrap()
    }
}

/// The whole answer. An error within its body makes it incomplete.
pub async fn collect(response: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut complete) = (Vec::new(), true);
    while let Some(data) = incoming.data().await {
        match data {
            Ok(data) => {
                incoming.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers: spelled(&head.headers),
        head: Vec::new(),
        body,
        complete,
    })
}

fn spelled(headers: &HeaderMap) -> Headers {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Headers(headers.iter().map(field).collect())
}

/// A TLS connection that offers these protocols to `localhost`.
pub async fn tls(
    address: SocketAddr,
    mut config: ClientConfig,
    protocols: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

// ---- an upstream ------------------------------------------------------------------------------------------------

/// What the upstream does with one request.
#[derive(Clone)]
pub enum Told {
    /// Answers with this.
    Answer(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// The same, once this has happened.
    After(Signal, Vec<u8>),
    /// Promises this many bytes, sends so many, and resets the stream.
    ResetAfter(usize, usize),
    /// Promises this many bytes, sends so many, and ends the connection with an error.
    GoAwayAfter(usize, usize),
    /// Resets the stream before a head.
    Reset(h2::Reason),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub connection: usize,
    pub method: String,
    pub uri: http::Uri,
    pub headers: Headers,
    pub body: Vec<u8>,
}

/// An upstream that speaks HTTP/2 and nothing else.
pub struct Http2Upstream {
    address: SocketAddr,
    is_tls: bool,
    seen: watch::Receiver<Vec<Asked>>,
    task: JoinHandle<()>,
}

type Script = dyn Fn(usize, &Asked) -> Told + Send + Sync;

impl Http2Upstream {
    /// `script` is told which request it is, from 1.
    pub async fn start(script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(script), None).await
    }

    /// The same behind TLS, where HTTP/2 is what `config` offers.
    pub async fn start_tls(
        config: Arc<ServerConfig>,
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::listen(Arc::new(script), Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(script: Arc<Script>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_tls = tls.is_some();
        let (record, seen) = watch::channel(Vec::new());
        let record = Arc::new(record);
        let connections = AtomicUsize::new(0);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (script, record, tls) = (script.clone(), record.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, connection, script, record).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, connection, script, record).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, is_tls, seen, task }
    }

    pub fn url(&self) -> String {
        match self.is_tls {
            false => format!("http://{}", self.address),
            true => format!("https://localhost:{}", self.address.port()),
        }
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.seen.borrow().clone()
    }

    pub async fn seen(&self, count: usize) -> Vec<Asked> {
        let mut seen = self.seen.clone();
        let what = format!("{count} requests at the upstream");
        within(&what, seen.wait_for(|requests| requests.len() >= count)).await.unwrap().clone()
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection. A stream that wants the whole connection to end says so through a channel.
async fn converse(
    stream: impl Stream,
    number: usize,
    script: Arc<Script>,
    record: Arc<watch::Sender<Vec<Asked>>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (end, mut ends) = mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                tokio::spawn(answer(request, respond, number, script.clone(), record.clone(), end.clone()));
            }
            Some(()) = ends.recv() => connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR),
        }
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    connection: usize,
    script: Arc<Script>,
    record: Arc<watch::Sender<Vec<Asked>>>,
    end: mpsc::Sender<()>,
) {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(data)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let headers = spelled(&head.headers);
    let asked = Asked { connection, method: head.method.to_string(), uri: head.uri, headers, body };
    let mut count = 0;
    record.send_modify(|seen| {
        seen.push(asked.clone());
        count = seen.len();
    });
    let mut promise = |length: usize| {
        let head = Response::builder().header("content-length", length).body(()).unwrap();
        respond.send_response(head, false)
    };
    match script(count, &asked) {
        Told::Answer(status, headers, body) => {
            let mut head = Response::builder().status(status);
            for (name, value) in headers {
                head = head.header(name, value);
            }
            let empty = body.is_empty() || asked.method == "HEAD";
            let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), empty) else { return };
            if !empty {
                let _ = stream.send_data(body.into(), true);
            }
        }
        Told::After(signal, body) => {
            signal.wait().await;
            let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
            let _ = stream.send_data(body.into(), true);
        }
        Told::ResetAfter(promised, sent) => {
            let Ok(mut stream) = promise(promised) else { return };
            let _ = stream.send_data(vec![b'x'; sent].into(), false);
            // What is reset is not sent any more: the data must have left before.
            while stream.capacity() > 0 {
                tokio::task::yield_now().await;
            }
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        Told::GoAwayAfter(promised, sent) => {
            let Ok(mut stream) = promise(promised) else { return };
            let _ = stream.send_data(vec![b'x'; sent].into(), false);
            let _ = end.send(()).await;
            std::future::pending::<()>().await;
        }
        Told::Reset(reason) => respond.send_reset(reason),
    }
}

// ---- frames -----------------------------------------------------------------------------------------------------

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Flags; the first means ACK on SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection of plain frames.
pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// A client that has said hello, with these settings.
    pub async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(address).await;
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.write([PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await.unwrap();
        frames
    }

    /// A connection on which nothing was said.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("the gate to read", self.stream.write_all(bytes.as_ref())).await
    }

    /// The next frame; `None` when the connection has ended, however it did.
    pub async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<9>() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                    let frame =
                        Frame { kind: head[3], flags: head[4], stream, payload: rest[..length].to_vec() };
                    self.buffer.drain(..9 + length);
                    return Some(frame);
                }
            }
            match within("a frame", self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads on to a frame of this kind; `None` if the connection ends before.
    pub async fn find(&mut self, kind: u8) -> Option<Frame> {
        loop {
            match self.read().await? {
                found if found.kind == kind => return Some(found),
                _ => {}
            }
        }
    }

    /// Everything there is until the connection ends.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.read().await {
            frames.push(frame);
        }
        frames
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block in HPACK's plainest form: every field spelled out, nothing remembered (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| {
            [&[0][..], &length(name.len()), name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
        })
        .collect()
}

/// A whole request without a body.
pub fn get(stream: u32, target: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "gate.example"), (":path", target)];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&fields, more].concat()))
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![u8::try_from(value).unwrap()];
    }
    value -= 127;
    let mut bytes = vec![127];
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}
