//! The socket of a connection, and what its first bytes say: HTTP/2 with prior knowledge, or HTTP/1.
//!
//! Looking at the first bytes before hyper does is cheaper than hyper-util's detection, for every request
//! and for every idle connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::activity::Activity;
use crate::server::{Limits, Phase};

/// What an HTTP/2 client that does not negotiate sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes to look at at first: more than most heads have.
const FIRST_READ: usize = 1024;

/// Says that more is to follow, such as the end of the connection (send(2)).
const MSG_MORE: i32 = if cfg!(target_os = "linux") { 0x8000 } else { 0 };

/// While the port is being closed, a connection that was accepted but has not yet asked for
/// anything gets this long from its start: its request is probably on the way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Reads what comes first, and tells HTTP/2 from the rest by it. `None`: nothing came in time.
pub(crate) async fn first_bytes(
    mut stream: TcpStream,
    activity: &Arc<Activity>,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
) -> Option<(Socket, bool)> {
    let mut first = Vec::new();
    let mut deadline = activity.opened + limits.idle_timeout;
    let mut closing = false;
    let is_http2 = loop {
        let came = tokio::select! {
            biased;
            came = poll_fn(|cx| poll_append(&mut stream, cx, &mut first)) => came.ok()?,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !closing => {
                closing = true;
                deadline = deadline.min(activity.opened + FIRST_REQUEST_GRACE);
                continue;
            }
            () = sleep_until(deadline) => return None,
        };
        if came == 0 {
            return None;
        }
        if came == first.len() {
            activity.bytes_came();
            activity.came_to_rest();
            deadline = deadline.min(Instant::now() + limits.header_timeout);
        }
        if first.starts_with(HTTP2_PREFACE) {
            break true;
        }
        if !HTTP2_PREFACE.starts_with(&first) {
            break false;
        }
    };
    if is_http2 {
        activity.no_head();
    }
    let socket = Socket {
        stream,
        first: first.into(),
        // HTTP/2 has bytes of its own (SETTINGS, PING): they are no sign of a request or an answer.
        activity: (!is_http2).then(|| Arc::clone(activity)),
    };
    Some((socket, is_http2))
}

/// Reads what there is, into room that is on the stack, so that a connection which waits has none.
fn poll_append(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut room = [0; FIRST_READ];
    let mut room = ReadBuf::new(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut room))?;
    bytes.extend_from_slice(room.filled());
    Poll::Ready(Ok(room.filled().len()))
}

/// The socket, with the bytes that were taken from it put back in front.
pub(crate) struct Socket {
    stream: TcpStream,
    first: Bytes,
    activity: Option<Arc<Activity>>,
}

impl Socket {
    /// Whether the client has said that it sends no more, and has not: closing discards what is not
    /// sent yet where there is something unread.
    fn is_last(&self, cx: &mut Context<'_>) -> bool {
        let activity = self.activity.as_ref();
        activity.is_some_and(|activity| activity.is_last())
            && self.stream.poll_read_ready(cx).is_pending()
    }

    /// Writes bytes that go out with the end of the connection, in one packet.
    fn poll_write_last(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let send = || SockRef::from(&self.stream).send_with_flags(buf, MSG_MORE);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn written(&self, polled: &Poll<io::Result<usize>>) {
        if let Some(activity) = &self.activity
            && matches!(polled, Poll::Ready(Ok(_)))
        {
            activity.bytes_left();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(activity) = &this.activity
            && buf.filled().len() > before
        {
            activity.bytes_came();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_last(cx) {
            return self.poll_write_last(cx, buf);
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_last(cx) {
            // The connection is closed next, which tells the client the same in one call less.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
