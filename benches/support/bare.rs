//! The least an HTTP server in hyper can do: every answer is a status, a `HeaderMap` that is cloned and bytes that are
//! shared; or the least a proxy can: every request is passed on and its answer passed back. With the gate's builder
//! options, timers, allocator and runtime it is the floor in `benches/compare`; with pages of its own it is the origin
//! there.
//!
//! ```text
//! bare PORT                   pages: `?…per_page=24…` is a page of 24 KiB, under `/items` a list of 24 items of 1 KiB;
//!                             under `/storm` a 429
//! bare --per-core N PORT …    N threads with a runtime and a listening socket each, in place of one runtime over all
//! bare PORT HOST:PORT TARGET… the answers that HOST:PORT gives to these targets now: bytes and header lines alike
//! bare PORT --proxy HOST:PORT what HOST:PORT answers to each request, over connections that are kept
//! bare PORT --held N          `/messages?per_page=1&page=1` to N, made once and held in a hash map: the least a cache can be
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
use std::future::{Ready, ready};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpSocket;

/// The gate's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let mut arguments = std::env::args().skip(1).peekable();
    let per_core = arguments
        .next_if(|word| word == "--per-core")
        .map(|_| arguments.next().and_then(|count| count.parse().ok()).expect("--per-core N"));
    let usage = "bare PORT [HOST:PORT TARGET… | --proxy HOST:PORT | --held N]";
    let port: u16 = arguments.next().expect(usage).parse().expect("PORT");
    let origin = arguments.next();
    if origin.as_deref() == Some("--proxy") {
        return run(per_core, port, passed_on(arguments.next().expect(usage).parse().expect("HOST:PORT")));
    }
    if origin.as_deref() == Some("--held") {
        let count = arguments.next().and_then(|count| count.parse().ok()).expect("--held N");
        return run(per_core, port, held(count));
    }
    let pages: HashMap<String, Page> = match origin {
        None => HashMap::new(),
        Some(origin) => arguments.map(|target| (target.clone(), copied(&origin, &target))).collect(),
    };
    let pages = Arc::new(pages);
    run(per_core, port, move |request| ready(Ok::<_, Infallible>(answered(&pages, &request))));
}

/// Serves `answer` on one runtime over all cores, or on as many runtimes of one thread each.
fn run<A, F, B, E>(per_core: Option<usize>, port: u16, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let Some(threads) = per_core else {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(serve(port, answer));
    };
    let serving = (0..threads).map(|_| {
        let answer = answer.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(port, answer));
        })
    });
    serving.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

async fn serve<A, F, B, E>(port: u16, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    // Several may listen on one port; the kernel shares the connections out.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    let listener = socket.listen(1024).unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service_fn(answer.clone()));
        tokio::spawn(connection);
    }
}

/// The page that is asked for, or the news that it is held already.
fn answered(pages: &HashMap<String, Page>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let page = pages.get(target).cloned().unwrap_or_else(|| made(target));
    let known = request.headers().get(header::IF_NONE_MATCH);
    let held = known.is_some() && known == page.headers.get(header::ETAG);
    let mut response = Response::new(Full::new(if held { Bytes::new() } else { page.body }));
    *response.headers_mut() = page.headers;
    if target.starts_with("/storm") {
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    } else if held {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

/// The pages from 1 to `count`, each under its target with a body of its own; their fields are the same.
fn held(
    count: usize,
) -> impl Fn(Request<Incoming>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> + Clone {
    let page = |page| made(&format!("/messages?per_page=1&page={page}"));
    let headers = page(1).headers;
    let bodies: HashMap<String, Bytes> =
        (1..=count).map(|at| (format!("/messages?per_page=1&page={at}"), page(at).body)).collect();
    let bodies = Arc::new(bodies);
    move |request| {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let mut response = Response::new(Full::default());
        match bodies.get(target) {
            Some(body) => {
                *response.headers_mut() = headers.clone();
                *response.body_mut() = Full::new(body.clone());
            }
            None => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        ready(Ok(response))
    }
}

/// The way to `origin`: hyper's pooled client, as the gate has it, and nothing else.
fn passed_on(origin: Authority) -> impl Fn(Request<Incoming>) -> ResponseFuture + Clone {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .build(tcp);
    move |mut request| {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(origin.clone()));
        *request.uri_mut() = Uri::from_parts(parts).unwrap();
        client.request(request)
    }
}

/// A page as an API answers it: JSON, and the header lines that such an answer usually has.
fn made(target: &str) -> Page {
    let parameter = |name: &str| {
        let pairs = target.split_once('?').map_or("", |(_, query)| query).split('&');
        pairs
            .filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .find_map(|value| value.parse().ok())
    };
    let kib: usize = parameter("per_page").unwrap_or(1).clamp(1, 1024);
    let body = if target.starts_with("/items") {
        let page: usize = parameter("page").unwrap_or(1);
        let items: Vec<String> = (0..kib).map(|at| item((page - 1) * kib + at)).collect();
        format!("[{}]", items.join(",")).into_bytes()
    } else {
        let mut body = format!(r#"{{"target":"{target}","text":""#).into_bytes();
        body.resize(kib * 1024 - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
        (header::ETAG, HeaderValue::from_static("\"5f3a9c1e\"")),
        (header::VARY, HeaderValue::from_static("accept")),
        (header::SERVER, HeaderValue::from_static("origin")),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    ]);
    Page { headers, body: body.into() }
}

/// The `at`-th item of the list, with its comma a KiB.
fn item(at: usize) -> String {
    format!(r#"{{"message_id":"{at:08}","text":"{:x<988}"}}"#, "")
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
