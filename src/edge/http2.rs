//! HTTP/2 on one connection, with limits on what one client may hold: streams, header lists, resets, and answers it
//! does not take.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::listener::{Handler, Listener, Peer, Stream, draining};
use super::tracked::{Overdue, Progress, Tracked, UnderWay};
use crate::rules::message::unite_cookies;
use crate::state::tasks::Tasks;

/// How many streams a client may have reset that were not looked at yet; beyond it the connection ends
/// (CVE-2023-44487).
const MOST_PENDING_RESETS: usize = 32;
/// How many streams this side may have had to reset; beyond it the connection ends.
const MOST_LOCAL_RESETS: usize = 256;
/// How often a silent connection is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// The most bytes of one answer that wait in a stream.
const SEND_BUFFER: usize = 256 << 10;
/// How long a connection that was told to end may take for it once nothing is under way.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long, in a drain, a client may take to answer GOAWAY, or to take the end of its last answer.
const LEAVE: Duration = Duration::from_secs(3);

/// Runs what hyper spawns as counted tasks.
#[derive(Clone)]
struct Counted(Tasks);

impl<F> hyper::rt::Executor<F> for Counted
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

/// Serves a connection to its end.
pub async fn serve<T: Stream, H: Handler>(
    listener: Arc<Listener>,
    io: Tracked<T>,
    progress: Arc<Progress>,
    peer: Peer,
    handler: Arc<H>,
) {
    let peer = Arc::new(peer);
    let service = service_fn(|mut request: Request<Incoming>| {
        unite_cookies(request.headers_mut());
        let under_way = UnderWay::among(&progress);
        let request = listener.received(request);
        let (handler, peer) = (handler.clone(), peer.clone());
        async move {
            let response = handler.handle(request, &peer).await;
            Ok::<_, Infallible>(response.map(|body| under_way.answer(body)))
        }
    });
    let limits = **listener.limits.load();
    let mut connection = http2::Builder::new(Counted(listener.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MOST_PENDING_RESETS)
        .max_local_error_reset_streams(MOST_LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(limits.body_timeout)
        .serve_connection(TokioIo::new(io), service);
    let mut patience = listener.patience();
    let mut drain = listener.drain.clone();
    let mut draining = std::pin::pin!(draining(&mut drain));
    let mut timer = std::pin::pin!(tokio::time::sleep(patience.shortest()));
    let mut closing = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                if result.is_err() {
                    listener.refused("http2");
                }
                return Poll::Ready(());
            }
            if !closing && draining.as_mut().poll(cx).is_ready() {
                // GOAWAY: what the client has sent so far is answered, the rest belongs on another connection.
                Pin::new(&mut connection).graceful_shutdown();
                closing = true;
                // A client that ignores it must not hold the drain up.
                progress.rest();
                patience.idle = patience.idle.min(LEAVE);
                timer.set(tokio::time::sleep(patience.shortest()));
                continue;
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match patience.check(&progress) {
                Ok(left) => timer.set(tokio::time::sleep(left)),
                Err(Overdue::Blocked) => {
                    listener.refused("blocked");
                    return Poll::Ready(());
                }
                // Frames between requests (settings, pings) look like the beginning of a head.
                Err(Overdue::Idle | Overdue::Head) if closing => return Poll::Ready(()),
                Err(Overdue::Idle | Overdue::Head) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    closing = true;
                    timer.set(tokio::time::sleep(FAREWELL));
                }
            }
        }
    })
    .await;
}
