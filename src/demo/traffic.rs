//! Several services calling the gate, each with its own way of asking.
//!
//! They want the same things and spell them differently, as services written by different people do: another case,
//! an unescaped `+`, sizes as decimals, parameters nobody declared, another order. A gate that understands them pays
//! once where they would have paid five times. This traffic is synthetic; see [`super::conversations`] for its data.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::books::lock;
use super::conversations::Contact;
use super::dice::{Dice, Zipf};
use super::spelling::{Filter, Question};
pub use super::spelling::{Names, Numbers, Phones, Spelling};

/// The path the gate serves the list of messages on.
pub const PATH: &str = "/conversations/messages/list";

/// How long a service waits for an answer. More than any gate should take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service inside the company.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it calls itself, in `User-Agent`.
    pub name: &'static str,
    /// How it writes a question.
    pub spelling: Spelling,
    /// The page sizes it asks for.
    pub sizes: &'static [usize],
    /// How many pages it reads of one list, at most.
    pub walk: usize,
    /// How often, of a hundred, it asks for everything and not for one contact.
    pub everything: u64,
    /// How long it pauses between two requests, in the mean.
    pub think: Duration,
    /// What it sends along, its key for the gate for example.
    pub headers: HeaderMap,
}

impl Service {
    /// Five services, about twenty requests a second in all.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let service = |name, spelling, sizes, think| Self {
            name,
            spelling,
            sizes,
            walk: 1,
            everything: 10,
            think: Duration::from_millis(think),
            headers: HeaderMap::new(),
        };
        let plain = Spelling::plain();
        vec![
            service("billing", plain, &[50], 400),
            service(
                "support-desk",
                Spelling { names: Names::Camel, phones: Phones::Spaced, leaves_defaults_out: true, ..plain },
                &[20, 50],
                250,
            ),
            Self {
                walk: 6,
                everything: 60,
                ..service(
                    "crm-sync",
                    Spelling { names: Names::Kebab, phones: Phones::Zeroes, ..plain },
                    &[100],
                    150,
                )
            },
            Self {
                everything: 50,
                ..service(
                    "dashboard",
                    Spelling { numbers: Numbers::Decimal, phones: Phones::RawPlus, junk: true, ..plain },
                    &[10, 20],
                    200,
                )
            },
            Self {
                walk: 2,
                ..service(
                    "old-portal",
                    Spelling {
                        names: Names::Upper,
                        phones: Phones::Bare,
                        numbers: Numbers::Sloppy,
                        reversed: true,
                        ..plain
                    },
                    &[25, 50],
                    350,
                )
            },
        ]
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests begun.
    pub requests: u64,
    /// Answers read to their end, by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests whose connection failed, or that took longer than anybody waits.
    pub unanswered: u64,
}

/// Who calls whom about what.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Where the gate listens.
    pub gate: SocketAddr,
    /// Who calls. Each has one request in progress at most.
    pub services: Vec<Service>,
    /// Whom they ask about, most popular first. With none, they ask for everything.
    pub contacts: Vec<Contact>,
    /// What they ask, and in which order, depends on this alone.
    pub seed: u64,
}

impl Traffic {
    /// Calls until `stop` resolves; requests that are then in progress are abandoned.
    pub async fn play(self, stop: impl Future<Output = ()>) -> Tally {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let contacts: Arc<[Contact]> = self.contacts.into();
        let mut dice = Dice::new(self.seed);
        let mut callers = JoinSet::new();
        for service in self.services {
            let caller = Caller {
                service,
                contacts: Arc::clone(&contacts),
                popularity: Zipf::new(contacts.len()),
                dice: Dice::new(dice.roll()),
                line: Line { gate: self.gate, sender: None, driver: JoinSet::new() },
                tally: Arc::clone(&tally),
            };
            callers.spawn(caller.call());
        }
        stop.await;
        callers.shutdown().await;
        lock(&tally).clone()
    }
}

/// A service at work.
struct Caller {
    service: Service,
    contacts: Arc<[Contact]>,
    popularity: Zipf,
    dice: Dice,
    line: Line,
    tally: Arc<Mutex<Tally>>,
}

impl Caller {
    async fn call(mut self) {
        loop {
            let mut question = self.question();
            for page in 1..=self.service.walk {
                question.page = page;
                self.think().await;
                if self.ask(&question).await != Some(StatusCode::OK) {
                    break;
                }
            }
        }
    }

    /// Between half and one and a half of the mean.
    async fn think(&mut self) {
        let mean = u64::try_from(self.service.think.as_micros()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(mean / 2 + self.dice.below(mean))).await;
    }

    fn question(&mut self) -> Question {
        let size = *self.dice.one_of(self.service.sizes);
        let everything = self.dice.chance(self.service.everything);
        let contact = self.contacts.get(self.popularity.draw(&mut self.dice)).filter(|_| !everything);
        let filter = contact.and_then(|contact| Filter::about(contact, &mut self.dice));
        Question { filter, page: 1, size }
    }

    async fn ask(&mut self, question: &Question) -> Option<StatusCode> {
        let query = self.service.spelling.spell(question, &mut self.dice);
        lock(&self.tally).requests += 1;
        let asked = async {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = format!("{PATH}?{query}").parse().ok()?;
            *request.headers_mut() = self.service.headers.clone();
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(self.service.name));
            self.line.ask(request).await.ok()
        };
        let status = tokio::time::timeout(PATIENCE, asked).await.ok().flatten();
        let mut tally = lock(&self.tally);
        match status {
            Some(status) => *tally.by_status.entry(status.as_u16()).or_default() += 1,
            None => {
                tally.unanswered += 1;
                // Whatever is left of an answer must not be taken for the next one.
                self.line.sender = None;
            }
        }
        status
    }
}

/// Connecting, sending and reading fail in their own ways, which make no difference here.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A connection to the gate, made when it is needed.
struct Line {
    gate: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
    /// The task that drives the connection: it ends with the caller.
    driver: JoinSet<()>,
}

impl Line {
    async fn ask(&mut self, mut request: Request<Empty<Bytes>>) -> Result<StatusCode, Failed> {
        request.headers_mut().insert(HOST, HeaderValue::try_from(self.gate.to_string())?);
        let kept = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut response = sender.send_request(request).await?;
        // Read to the end, or the connection cannot carry another request; nothing of it is kept.
        while let Some(frame) = response.body_mut().frame().await {
            frame?;
        }
        self.sender = Some(sender);
        Ok(response.status())
    }

    async fn connect(&mut self) -> Result<SendRequest<Empty<Bytes>>, Failed> {
        let stream = TcpStream::connect(self.gate).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        self.driver.shutdown().await;
        self.driver.spawn(async move {
            // How a connection ends is told to whoever waits for its answer.
            let _ = connection.await;
        });
        Ok(sender)
    }
}
