//! The least an HTTP server in hyper can do: every answer is a status, a `HeaderMap` that is cloned and bytes that are
//! shared. With the gate's builder options, timers, allocator and runtime it is the floor in `benches/compare`; with
//! pages of its own it is the origin there.
//!
//! ```text
//! bare PORT                   pages: `?…per_page=24…` is a page of 24 KiB; at `/list` so many items of nearly a KiB
//! bare PORT HOST:PORT TARGET… the answers that HOST:PORT gives to these targets now: bytes and header lines alike
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a helper of a script: a mistake ends it, and no drain or clock is owed"
)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// An answer, ready.
#[derive(Clone)]
struct Page {
    headers: HeaderMap,
    body: Bytes,
}

/// The defaults of the gate's `[server]`.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().expect("bare PORT [HOST:PORT TARGET…]").parse().expect("PORT");
    let pages: HashMap<String, Page> = match arguments.next() {
        None => HashMap::new(),
        Some(origin) => arguments.map(|target| (target.clone(), copied(&origin, &target))).collect(),
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(serve(port, pages));
}

async fn serve(port: u16, pages: HashMap<String, Page>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    let pages = Arc::new(pages);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let pages = pages.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
            let page = pages.get(target).cloned().unwrap_or_else(|| made(target));
            let mut response = Response::new(Full::new(page.body));
            *response.headers_mut() = page.headers;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

/// A page as an API answers it.
fn made(target: &str) -> Page {
    let parameters = target.split_once('?').map_or("", |(_, query)| query).split('&');
    let kib = parameters.filter_map(|pair| pair.strip_prefix("per_page=")).find_map(|kib| kib.parse().ok());
    let kib: usize = kib.unwrap_or(1).clamp(1, 1024);
    if target.starts_with("/list?") {
        return Page { headers: headers(), body: listed(kib, target).into() };
    }
    let mut body = format!(r#"{{"target":"{target}","text":""#).into_bytes();
    body.resize(kib * 1024 - 2, b'x');
    body.extend_from_slice(b"\"}");
    Page { headers: headers(), body: body.into() }
}

/// The header lines that such an answer usually has.
fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
        (header::ETAG, HeaderValue::from_static("\"5f3a9c1e\"")),
        (header::VARY, HeaderValue::from_static("accept")),
        (header::SERVER, HeaderValue::from_static("origin")),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    ])
}

/// `size` items: 25 of them with what stands between and around them are 24 KiB.
fn listed(size: usize, target: &str) -> String {
    let page = target.split(['?', '&']).find_map(|pair| pair.strip_prefix("page=")?.parse::<usize>().ok());
    let first = (page.unwrap_or(1) - 1) * size;
    let item = |place| format!(r#"{{"id":{},"text":"{:x<957}"}}"#, 10_000_000 + place, "");
    format!("[{}]", (first..first + size).map(item).collect::<Vec<_>>().join(","))
}

/// What `origin` answers to `target`, the lines that hyper writes itself left out.
fn copied(origin: &str, target: &str) -> Page {
    let mut stream = TcpStream::connect(origin).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: {origin}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 200"), "{origin} {target}: {head}");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        if !["date", "content-length", "connection", "transfer-encoding"].contains(&name) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
    }
    Page { headers, body: Bytes::copy_from_slice(&answer[end + 4..]) }
}
