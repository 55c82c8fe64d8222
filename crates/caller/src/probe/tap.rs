//! A connection that remembers what was read from it, and how its reading side ended: the evidence that
//! an HTTP client's errors do not have.
//!
//! It also lets a response that is there count. A server (or a sidecar) may answer on accept, before it
//! has read a request, and close: hyper would call such bytes unexpected, or fail on writing to a closed
//! connection before it reads. So nothing is read before the request is being written, and an error of
//! writing is kept back until the reading side has ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls;
use crate::failure::{OsError, Received, TlsError};

/// The connection itself, which hyper or TLS owns.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    seen: Evidence,
    /// How many bytes of what is sent and received are kept.
    kept: usize,
    has_written: bool,
    /// Who waits to read until something has been written.
    reader: Option<Waker>,
}

/// What was seen of a connection; the prober's end of a [`Tap`].
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What was read since the last request began; `body` is not known here.
    pub(super) received: Received,
    /// The beginning of what was written, where more than evidence is kept.
    sent: Vec<u8>,
    /// How the reading side ended.
    pub(super) end: Option<End>,
    /// Why the request could not be written.
    write_error: Option<OsError>,
}

/// How the reading side of a connection ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The peer closed it.
    Closed,
    /// The operating system reported an error.
    Failed(OsError),
    /// TLS reported one.
    Tls(TlsError),
}

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> Self {
        match tls::tls_error(error) {
            Some(error) => Self::Tls(tls::what(error)),
            // Closed without the alert that says so, as many servers do.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Failed(error.into()),
        }
    }
}

impl<S> Tap<S> {
    /// Takes over a connection on which nothing has been sent. Of what is received `kept` bytes are
    /// kept, and of what is sent as many, if that is more than evidence needs.
    pub(super) fn new(stream: S, kept: usize) -> (Self, Evidence) {
        let seen = Evidence::default();
        let tap = Self {
            stream,
            seen: seen.clone(),
            kept,
            has_written: false,
            reader: None,
        };
        (tap, seen)
    }
}

impl Evidence {
    /// Starts over: a request is about to be sent. That the connection has ended already, while it was
    /// idle, stays.
    pub(super) fn start_request(&self) {
        let mut seen = self.lock();
        seen.received = Received::default();
        seen.sent.clear();
    }

    /// The beginning of what was sent, where more than evidence is kept.
    pub(super) fn sent(&self) -> Vec<u8> {
        self.lock().sent.clone()
    }

    /// What was received, and how the connection ended, if it has.
    pub(super) fn get(&self) -> (Received, Option<End>) {
        let seen = self.lock();
        // A peer that closed before the request could be written, and then sent nothing, is told from
        // one that read it.
        let end = match (&seen.end, &seen.write_error) {
            (Some(End::Closed), Some(error)) if seen.received.bytes == 0 => {
                Some(End::Failed(error.clone()))
            }
            (end, _) => end.clone(),
        };
        (seen.received.clone(), end)
    }

    /// Nothing that is done under the lock can panic.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let mut seen = self.seen.lock();
        match &polled {
            Ok(()) => match &buf.filled()[before..] {
                [] => seen.end = Some(End::Closed),
                read => {
                    let received = &mut seen.received;
                    received.bytes += read.len() as u64;
                    let room = self.kept - received.start.len();
                    received
                        .start
                        .extend_from_slice(&read[..read.len().min(room)]);
                }
            },
            Err(error) => seen.end = Some(error.into()),
        }
        Poll::Ready(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.has_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        let mut seen = self.seen.lock();
        if self.kept > Received::KEPT {
            let room = self.kept - seen.sent.len();
            seen.sent.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        match polled {
            Err(error) if seen.end.is_none() => {
                seen.write_error.get_or_insert((&error).into());
                Poll::Ready(Ok(buf.len()))
            }
            polled => Poll::Ready(polled),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
