//! The upstream of a case: it reads requests as HTTP/1.1 and answers each with the acts that are written for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::form::Act;
use super::support::wire::{self, Head};

/// What it answers when nothing more is written.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Listens until dropped.
pub struct Origin {
    pub address: SocketAddr,
    pub seen: watch::Receiver<Vec<(Head, Vec<u8>)>>,
    /// For how many requests everything was done that is written for them.
    pub done: watch::Receiver<usize>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub async fn start(acts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Vec::new());
        let (finished, done) = watch::channel(0);
        let world = Arc::new(World { seen: sender, done: finished, acts });
        let connections = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let counted = connections.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                open.spawn(converse(stream, world.clone()));
            }
        });
        Self { address, seen, done, connections, _tasks: tasks }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct World {
    seen: watch::Sender<Vec<(Head, Vec<u8>)>>,
    done: watch::Sender<usize>,
    acts: Vec<Vec<Act>>,
}

async fn converse(mut stream: TcpStream, world: Arc<World>) {
    let mut buffer = Vec::new();
    while let Ok(Some(head)) = wire::read_head(&mut stream, &mut buffer).await {
        let body = wire::read_body(&mut stream, &mut buffer, &head.headers, false).await;
        // The question whether a connection is still open is no part of the case.
        if head.first.contains("/alive") {
            if stream.write_all(OK).await.is_err() {
                return;
            }
            continue;
        }
        let mut number = 0;
        world.seen.send_modify(|seen| {
            number = seen.len();
            seen.push((head, body.bytes));
        });
        let Some(acts) = world.acts.get(number) else {
            if stream.write_all(OK).await.is_err() {
                return;
            }
            continue;
        };
        let mut open = true;
        for act in acts {
            open = open && perform(&mut stream, act).await;
        }
        world.done.send_modify(|done| *done += 1);
        if !open {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn perform(stream: &mut TcpStream, act: &Act) -> bool {
    match act {
        Act::Send(bytes) => stream.write_all(bytes).await.is_ok(),
        Act::Dribble(pause, bytes) => {
            for byte in bytes {
                if stream.write_all(&[*byte]).await.is_err() {
                    return false;
                }
                tokio::time::sleep(*pause).await;
            }
            true
        }
        Act::Endless(bytes) => {
            while stream.write_all(bytes).await.is_ok() {}
            false
        }
        Act::Pause(pause) => {
            tokio::time::sleep(*pause).await;
            true
        }
        Act::Close => {
            let _ = stream.shutdown().await;
            false
        }
        Act::Reset => {
            let _ = stream.set_zero_linger();
            false
        }
        Act::Never => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            false
        }
    }
}
