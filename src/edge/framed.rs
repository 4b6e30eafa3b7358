//! A client's HTTP/1.1 bytes on their way to hyper: held to the rules of framing that hyper leaves to others, and cut
//! before a request that must not be read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::tracked::Progress;
use crate::rules::framing::Framing;

/// How long a client that has said that it will send nothing more is still answered. It may have left.
const FAREWELL: Duration = Duration::from_secs(1);
/// No request, and the end of a head: what hyper reads in place of a request that is refused. It answers 400, in its
/// turn, and closes.
const NO_REQUEST: &[u8] = b"\0\r\n\r\n";

/// A stream that ends before a request that must not be read, and tells its [`Progress`] when a head has begun.
#[derive(Debug)]
pub struct Framed<T> {
    io: T,
    progress: Arc<Progress>,
    framing: Framing,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    On,
    /// Past a request that is refused.
    Refused,
    /// The client sends nothing more; told to whoever reads when a request under way has had its time.
    Ended(Pin<Box<Sleep>>),
    Over,
}

impl<T> Framed<T> {
    /// `io`, reporting to `progress`.
    pub fn new(io: T, progress: Arc<Progress>) -> Self {
        Self { io, progress, framing: Framing::default(), reading: Reading::On }
    }

    /// The stream itself.
    pub fn into_io(self) -> T {
        self.io
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            // A closed connection looks like one that was only finished on its way in.
            let may_wait = self.framing.is_between() && self.progress.is_busy();
            self.reading = match may_wait {
                true => Reading::Ended(Box::pin(tokio::time::sleep(FAREWELL))),
                false => Reading::Over,
            };
        } else if let Err(refused) = self.framing.read(bytes) {
            buffer.set_filled(before + refused.before);
            self.reading = Reading::Refused;
        }
        self.progress.within_request(!self.framing.is_between());
        self.progress.within_head(self.framing.is_within_head() && matches!(self.reading, Reading::On));
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Framed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.as_mut().get_mut();
        let before = buffer.filled().len();
        if matches!(this.reading, Reading::On) {
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            this.read(buffer, before);
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        match &mut this.reading {
            Reading::Refused => {
                // The smallest buffer that hyper reads into is larger.
                buffer.put_slice(NO_REQUEST.get(..buffer.remaining()).unwrap_or(NO_REQUEST));
                this.reading = Reading::Over;
            }
            Reading::Ended(farewell) if this.progress.is_busy() => ready!(farewell.as_mut().poll(cx)),
            Reading::On | Reading::Ended(_) | Reading::Over => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Framed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
