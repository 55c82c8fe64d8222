//! Wraps a connection to record the bytes that are read from it, and how its reading side ended. Errors of the
//! HTTP client do not contain this evidence.
//!
//! It also makes sure that an early response is read. A server or a sidecar may respond as soon as it accepts
//! the connection, before it reads a request, and close it. hyper would reject such bytes as unexpected, or
//! fail to write to the closed connection before it reads. So nothing is read until the request is being
//! written, and a write error is held back until the reading side has ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use runtime::unpoisoned::unpoisoned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls;
use crate::failure::{OsError, Received, TlsError};

/// The wrapped connection, which hyper or TLS owns.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    seen: Evidence,
    /// Number of bytes to keep of the data sent, and of the data received.
    kept: usize,
    has_written: bool,
    /// The task that waits to read until something has been written.
    reader: Option<Waker>,
}

/// The record of a connection: the probe's handle to a [`Tap`].
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The bytes read since the last request began. Its `body` is not set here.
    pub(super) received: Received,
    /// The beginning of the bytes written; empty unless more than [`Received::KEPT`] bytes are kept.
    sent: Vec<u8>,
    /// How the reading side ended.
    pub(super) end: Option<End>,
    /// The first error of writing the request.
    write_error: Option<OsError>,
}

/// How the reading side of a connection ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The peer closed the connection.
    Closed,
    /// Reading failed with this error of the operating system.
    Failed(OsError),
    /// TLS failed with this error.
    Tls(TlsError),
}

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> Self {
        match tls::tls_error(error) {
            Some(error) => Self::Tls(tls::to_evidence(error)),
            // Closed without the TLS alert `close_notify`, as many servers do.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Failed(error.into()),
        }
    }
}

impl<S> Tap<S> {
    /// Wraps a connection on which nothing has been sent. Keeps the first `kept` bytes received, and also the first
    /// `kept` bytes sent, if `kept` is more than [`Received::KEPT`].
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
    /// Starts a new record, for a request that is about to be sent. If the connection ended while it was
    /// idle, that remains recorded.
    pub(super) fn start_request(&self) {
        let mut seen = self.lock();
        seen.received = Received::default();
        seen.sent.clear();
    }

    /// The beginning of the bytes sent; empty unless more than [`Received::KEPT`] bytes are kept.
    pub(super) fn sent(&self) -> Vec<u8> {
        self.lock().sent.clone()
    }

    /// The data received, and how the connection ended, if it did.
    pub(super) fn get(&self) -> (Received, Option<End>) {
        let seen = self.lock();
        // A peer that closed the connection before the request was written, and sent nothing, is
        // distinguished from one that read the request first.
        let end = match (&seen.end, &seen.write_error) {
            (Some(End::Closed), Some(error)) if seen.received.bytes == 0 => {
                Some(End::Failed(error.clone()))
            }
            (end, _) => end.clone(),
        };
        (seen.received.clone(), end)
    }

    /// The record. No code that holds its lock can panic, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        unpoisoned(self.0.lock())
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
