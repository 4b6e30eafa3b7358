//! One service asking one gate.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderMap};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::time::Instant;
use tollgate::rules::slices::{Pointer, Shape};

use super::ledger::{Ledger, Walk, World};
use super::trace::{STEP, Service, Session};

const PATH: &str = "/conversations/messages/list";
/// How many failures of a gate are told one by one.
const FAILURES_TOLD: u64 = 3;
/// How long a service waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One service asking one gate; it has one request under way at most.
pub(crate) struct Player {
    service: Service,
    from: IpAddr,
    gate: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
    ledger: Arc<Mutex<Ledger>>,
    world: Arc<Mutex<World>>,
}

/// A page as it was answered.
struct Page {
    ids: Vec<String>,
    age: Option<u64>,
    /// The token of the walk it belongs to.
    token: Option<String>,
    /// What it said of itself.
    said: String,
}

impl Player {
    pub(crate) fn new(
        service: Service,
        place: usize,
        gate: SocketAddr,
        ledger: Arc<Mutex<Ledger>>,
        world: Arc<Mutex<World>>,
    ) -> Self {
        let from = IpAddr::from([127, 0, 0, 11 + u8::try_from(place).unwrap()]);
        Self { service, from, gate, sender: None, ledger, world }
    }

    /// Reads everything at its time.
    pub(crate) async fn play(mut self, start: Instant, sessions: Vec<Session>) {
        for session in sessions {
            tokio::time::sleep_until(start + session.at).await;
            self.read(&session).await;
        }
    }

    async fn read(&mut self, session: &Session) {
        let mut walk = Walk {
            collection: session.collection(),
            ids: Vec::new(),
            said: Vec::new(),
            carried: self.service.carries,
        };
        let mut token: Option<String> = None;
        let mut next = Instant::now();
        for page in 1..=session.pages {
            tokio::time::sleep_until(next).await;
            next += STEP;
            let mut query = session.query(&self.service, page);
            if let Some(token) = token.as_ref().filter(|_| self.service.carries) {
                query = format!("{query}&tollgate_walk={token}");
            }
            let first = (page - 1) * session.size;
            self.ledger.lock().unwrap().touch(&walk.collection, first, Instant::now());
            let Some(answer) = self.ask(&query).await else {
                self.ledger.lock().unwrap().failed += 1;
                return;
            };
            let late = if page == 1 {
                self.world.lock().unwrap().late(&walk.collection, answer.ids.first())
            } else {
                None
            };
            let mut ledger = self.ledger.lock().unwrap();
            ledger.late = ledger.late.max(late.unwrap_or_default());
            if page > 1 {
                ledger.age_in_walks = ledger.age_in_walks.max(answer.age);
            }
            drop(ledger);
            token = answer.token;
            let short = answer.ids.len() < session.size;
            walk.ids.extend(answer.ids);
            walk.said.push(format!("{query} up to {}: {}", walk.ids.len(), answer.said));
            if short {
                break;
            }
        }
        if session.pages > 1 {
            self.ledger.lock().unwrap().walks.push(walk);
        }
    }

    async fn ask(&mut self, query: &str) -> Option<Page> {
        match tokio::time::timeout(PATIENCE, self.answer(query)).await {
            Ok(Ok(page)) => Some(page),
            Ok(Err(why)) => {
                if self.ledger.lock().unwrap().failed < FAILURES_TOLD {
                    eprintln!("{}: {query}: {why}", self.gate);
                }
                None
            }
            Err(_) => {
                self.sender = None;
                None
            }
        }
    }

    async fn answer(&mut self, query: &str) -> Result<Page, Box<dyn std::error::Error + Send + Sync>> {
        let kept = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = format!("{PATH}?{query}").parse()?;
        request.headers_mut().insert(HOST, HeaderValue::try_from(self.gate.to_string())?);
        let mut response = sender.send_request(request).await?;
        let mut body = BytesMut::new();
        while let Some(frame) = response.body_mut().frame().await {
            body.extend_from_slice(frame?.data_ref().unwrap_or(&Bytes::new()));
        }
        self.sender = Some(sender);
        if !response.status().is_success() {
            return Err(format!("{}: {}", response.status(), String::from_utf8_lossy(&body)).into());
        }
        let text = |name: &str, headers: &HeaderMap| headers.get(name)?.to_str().ok().map(str::to_owned);
        let token = text("tollgate-walk", response.headers());
        let token = token.and_then(|walk| Some(walk.split(';').next()?.trim().trim_matches('"').to_owned()));
        let age = text("age", response.headers()).and_then(|age| age.parse().ok());
        let told = ["tollgate-walk", "cache-status", "age"];
        let said: Vec<_> = told.iter().filter_map(|name| text(name, response.headers())).collect();
        Ok(Page { ids: ids(&body.freeze())?, age, token, said: said.join(" | ") })
    }

    async fn connect(&self) -> std::io::Result<SendRequest<Empty<Bytes>>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.gate).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            // How a connection ends is told to whoever waits for its answer.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// The ids of a page's messages, in order.
fn ids(body: &Bytes) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
    let block = Shape::default().scan(body)?;
    let at = Pointer::parse("/message_id").expect("is a pointer");
    let id = |place| at.texts(block.item(place)).pop();
    Ok((0..block.len()).filter_map(id).collect())
}
