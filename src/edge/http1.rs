//! HTTP/1.1 on one connection. What hyper leaves to its user is done here: how long a head may take, how long a
//! connection may stand idle or refuse to be written to, and that draining answers every request whose first byte was
//! read.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{Either, ready};
use http::header::{self, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::framed::Framed;
use super::interims::{Interims, Interleaved};
use super::listener::{Drain, Handler, Listener, Peer, Stream, draining};
use super::tracked::{Doing, Overdue, Progress, Tracked, UnderWay};

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8 << 10;
/// How long a client says nothing before what it takes to talk with it is given back: some 20 KiB of buffers.
const SILENCE: Duration = Duration::from_secs(1);
/// How long saying goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what a client still sends is read and thrown away, so that it reads why it was refused.
const MOST_UNREAD: usize = 1 << 20;
/// Why a connection ended whose answer did not come to its own end.
const BROKEN_OFF: &str = "answer-broken-off";
/// Said to a client whose head did not arrive in time (RFC 9110 §15.5.9).
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How a connection ended.
enum Ended {
    By(hyper::Result<()>),
    Overdue(Overdue),
}

/// Serves a connection to its end.
// Not an `async fn`: that would keep what it is given twice, as it came and as it is used.
pub fn serve<T: Stream, H: Handler>(
    listener: Arc<Listener>,
    mut io: Tracked<T>,
    progress: Arc<Progress>,
    peer: Peer,
    handler: Arc<H>,
) -> impl Future<Output = ()> + Send {
    let interims = Arc::new(Interims::default());
    let peer = Peer { interim: Some(interims.clone()), ..peer };
    async move {
        loop {
            // Boxed, so that what it takes to talk, buffers above all, is given back while nothing is said.
            let talking = Box::pin(talk(&listener, io, &progress, &peer, &*handler, &interims));
            let Some(silent) = talking.await else { return };
            io = silent;
            let mut first = [0; 16];
            match listen(&listener, &mut io, &progress, &mut first).await {
                None => return,
                Some(0) => return Box::pin(say_goodbye(io.into_io())).await,
                Some(read) => io = io.again(&first[..read]),
            }
        }
    }
}

/// Waits for a client to say something again, keeping next to nothing for it meanwhile: how many bytes it said `first`,
/// none if it will say no more. `None`: it has been silent for too long, or is gone.
async fn listen<T: Stream>(
    listener: &Listener,
    io: &mut Tracked<T>,
    progress: &Progress,
    first: &mut [u8],
) -> Option<usize> {
    let mut drain = listener.drain.clone();
    loop {
        let left = listener.patience().check(progress).ok()?;
        tokio::select! {
            biased;
            read = io.read(first) => return read.ok(),
            () = tokio::time::sleep(left) => {}
            () = draining(&mut drain) => return Some(0),
        }
    }
}

/// Answers what a client asks until the connection is over, or until nothing was said for [`SILENCE`]: then it is given
/// back.
async fn talk<T: Stream, H: Handler>(
    listener: &Listener,
    io: Tracked<T>,
    progress: &Arc<Progress>,
    peer: &Peer,
    handler: &H,
    interims: &Arc<Interims>,
) -> Option<Tracked<T>> {
    let begun = *listener.drain.borrow();
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = UnderWay::alone(progress);
        // "A server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 §15.2).
        if request.version() == Version::HTTP_11 {
            interims.open();
        }
        let request = listener.received(request);
        let is_whole = request.body().is_empty();
        let mut handled = Box::pin(handler.handle(request, peer));
        let answer = move |response: Response<H::Body>| {
            let mut response = response.map(|body| under_way.answer(body));
            // Or the next request could meet the end of the connection on its way.
            if drain_of(listener, begun) != Drain::Not {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        };
        // What is in memory is answered before hyper goes on: while a request lives hyper's buffer is its own, and the next
        // read would need another. The waker does not matter: hyper polls what is not ready at once. A request whose body
        // has not arrived waits for that: hyper would end a connection on which nobody reads it.
        let polled = match is_whole {
            true => handled.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            false => Poll::Pending,
        };
        match polled {
            Poll::Ready(response) => {
                interims.close();
                Either::Left(ready(answer(response)))
            }
            Poll::Pending => Either::Right(async move { answer(interims.before(handled).await) }),
        }
    });
    let limits = **listener.limits.load();
    let io = Interleaved::new(Framed::new(io, progress.clone()), interims.clone());
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_head_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(io), service);
    let patience = listener.patience();
    let mut drain = listener.drain.clone();
    // `None`: it did not, but nothing was said for a while.
    let ended = {
        let mut draining = std::pin::pin!(draining(&mut drain));
        let mut timer = std::pin::pin!(tokio::time::sleep(patience.shortest().min(SILENCE)));
        let (mut told, mut closing) = (false, false);
        // Whether both will wake this task, which is the same one as long as it lives: then they are left alone, for this is
        // polled with every request.
        let mut registered = false;
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Some(Ended::By(result)));
                }
                // Only now is it known that what the client has sent so far was read.
                if !told && (!registered || drain_of(listener, begun) != Drain::Not) {
                    told = draining.as_mut().poll(cx).is_ready();
                }
                if told && !closing && matches!(progress.doing(), Doing::Idle(_)) {
                    Pin::new(&mut connection).graceful_shutdown();
                    closing = true;
                    continue;
                }
                if (registered && !timer.is_elapsed()) || timer.as_mut().poll(cx).is_pending() {
                    registered = true;
                    return Poll::Pending;
                }
                registered = false;
                // The timer is not moved with every request: it looks again when the present state could end.
                match patience.check(progress) {
                    Ok(_) if !told && progress.is_silent_for(SILENCE) => return Poll::Ready(None),
                    Ok(left) => timer.set(tokio::time::sleep(left.min(SILENCE))),
                    Err(overdue) => return Poll::Ready(Some(Ended::Overdue(overdue))),
                }
            }
        })
        .await
    };
    let parts = connection.into_parts();
    let io = parts.io.into_inner().into_io().into_io();
    let Some(ended) = ended else { return Some(io.again(&parts.read_buf)) };
    let stream = io.into_io();
    match ended {
        Ended::By(Ok(())) => say_goodbye(stream).await,
        Ended::By(Err(error)) => {
            let reason = reason(&error);
            listener.refused(reason);
            match reason {
                // An answer that ends when its connection does would look whole if it were closed in good order.
                BROKEN_OFF => stream.abort(),
                _ => say_goodbye(stream).await,
            }
        }
        Ended::Overdue(Overdue::Idle) => {}
        Ended::Overdue(Overdue::Head) => refuse_slow(listener, stream).await,
        Ended::Overdue(Overdue::Blocked) => {
            listener.refused("blocked");
            stream.abort();
        }
    }
    None
}

/// How far the end is where it was so far before; without a lock for as long as that is so.
fn drain_of(listener: &Listener, before: Drain) -> Drain {
    let nears = listener.drain.has_changed().is_ok_and(|has| has);
    if nears { *listener.drain.borrow() } else { before }
}

/// Tells a client that its head took too long.
pub async fn refuse_slow<T: Stream>(listener: &Listener, mut stream: T) {
    listener.refused("slow-head");
    let _ = tokio::time::timeout(FAREWELL, stream.write_all(SLOW_HEAD)).await;
    say_goodbye(stream).await;
}

/// "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will not
/// be able to read the last HTTP response": it "first performs a half-close by closing only the write side", and then
/// reads on for a while (RFC 9112 §9.6).
async fn say_goodbye<T: Stream>(mut stream: T) {
    let leaving = async {
        stream.shutdown().await?;
        // On the heap: within the future every connection would keep room for it from its first byte on.
        let (mut unread, mut left) = (vec![0; 4096], MOST_UNREAD);
        while left > 0 {
            match stream.read(&mut unread).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(FAREWELL, leaving).await;
}

fn reason(error: &hyper::Error) -> &'static str {
    if error.is_parse_too_large() {
        "head-too-large"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_user() {
        BROKEN_OFF
    } else {
        "client-left"
    }
}
