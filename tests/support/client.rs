//! A client of few words: it sends the bytes it is given and reads one answer at a time, as it was sent.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::wire::{self, Headers};
use super::within;

/// One answer. `complete` is false when the connection broke before the promised end of the body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub complete: bool,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// `GET target` on a connection of its own; panics if there is no answer.
pub async fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    request(address, "GET", target, headers, b"").await
}

/// One request on a connection of its own; panics if there is no answer.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    Client::connect(address).await.request(method, target, headers, body).await
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("no connection to {address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// From another of this machine's own addresses, such as `127.0.0.2`.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = within("a connection", socket.connect(address)).await;
        Self { stream: stream.unwrap(), buffer: Vec::new() }
    }

    /// Whether anybody listens there.
    pub async fn connects(address: SocketAddr) -> bool {
        within("a connection or its refusal", TcpStream::connect(address)).await.is_ok()
    }

    pub async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, b"").await
    }

    /// Sends a request with a `Host`, unless `headers` have one, and reads its answer.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.ask(method, target, headers, body).await;
        self.read(method).await
    }

    /// Sends a request as [`Client::request`] does, and reads nothing yet.
    pub async fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.send(&message(method, target, headers, body)).await;
    }

    /// `GET target`; `None` if the peer closes before it has answered.
    pub async fn try_get(&mut self, target: &str) -> Option<Answer> {
        let message = message("GET", target, &[], b"");
        within("the peer to read", self.stream.write_all(&message)).await.ok()?;
        self.try_read("GET").await
    }

    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("the peer to read", self.stream.write_all(bytes))
            .await
            .expect("the peer closed while being sent to");
    }

    /// Reads the answer to a request made with `method`; panics if the connection closes before its head.
    pub async fn read(&mut self, method: &str) -> Answer {
        self.try_read(method).await.expect("the connection closed without an answer")
    }

    /// Reads an answer, interim ones (1xx) included; `None` if the connection closes before a whole head.
    pub async fn try_read(&mut self, method: &str) -> Option<Answer> {
        let (stream, buffer) = (&mut self.stream, &mut self.buffer);
        let head = within("an answer", wire::read_head(stream, buffer)).await.ok()??;
        let status = status(&head.first);
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let body = if bodiless {
            wire::Body { bytes: Vec::new(), complete: true }
        } else {
            within("the answer's body", wire::read_body(stream, buffer, &head.headers, true)).await
        };
        Some(Answer {
            status,
            headers: head.headers,
            head: head.raw,
            body: body.bytes,
            complete: body.complete,
        })
    }

    /// Reads the head only, leaving the body on the wire: `(status, headers)`.
    pub async fn read_head(&mut self) -> (u16, Headers) {
        let head = within("an answer's head", wire::read_head(&mut self.stream, &mut self.buffer)).await;
        let head = head.expect("a broken head").expect("the connection closed without an answer");
        (status(&head.first), head.headers)
    }

    /// Reads what is still sent until the peer closes.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        let _ = within("the peer to close", self.stream.read_to_end(&mut rest)).await;
        rest
    }

    /// Says that nothing more will be sent, as `shutdown(SHUT_WR)` does.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// Whether these bytes stand anywhere in the answer, head or body.
    pub fn contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.head).contains(text) || self.text().contains(text)
    }
}

fn message(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut message = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let mut field = |name: &str, value: &str| {
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    };
    let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !given("host") {
        field("Host", "gate.example");
    }
    if !body.is_empty() && !given("content-length") && !given("transfer-encoding") {
        field("Content-Length", &body.len().to_string());
    }
    for (name, value) in headers {
        field(name, value);
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body);
    message
}

fn status(line: &str) -> u16 {
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.unwrap_or_else(|| panic!("not a status line: {line:?}"))
}
