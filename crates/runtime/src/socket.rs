//! The socket of a connection, and what its first bytes say: HTTP/2 with prior knowledge, or HTTP/1.
//!
//! Looking at the first bytes before there is any buffer is cheaper than hyper-util's detection, for
//! every request and for every idle connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::activity::Activity;
use crate::server::{Limits, Phase};

/// What an HTTP/2 client that does not negotiate sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// While the port is being closed, a connection that was accepted but has not yet asked for
/// anything gets this long from its start: its request is probably on the way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Reads just enough to tell HTTP/2 from the rest. `None`: nothing came in time.
pub(crate) async fn first_bytes(
    stream: TcpStream,
    activity: &Arc<Activity>,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
) -> Option<(Socket, bool)> {
    let mut socket = Socket {
        stream,
        taken: 0,
        given: 0,
        activity: Some(Arc::clone(activity)),
    };
    let mut deadline = activity.opened + limits.idle_timeout;
    let mut closing = false;
    while socket.taken < HTTP2_PREFACE.len() {
        let mut next = [0; HTTP2_PREFACE.len()];
        let wanted = HTTP2_PREFACE.len() - socket.taken;
        let seen = tokio::select! {
            biased;
            // Only looked at: what is not HTTP/2 is then read in one piece, into one buffer.
            seen = socket.stream.peek(&mut next[..wanted]) => seen.ok().filter(|&n| n > 0)?,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !closing => {
                closing = true;
                deadline = deadline.min(activity.opened + FIRST_REQUEST_GRACE);
                continue;
            }
            () = sleep_until(deadline) => return None,
        };
        if socket.taken == 0 {
            activity.bytes_came();
            activity.came_to_rest();
            deadline = deadline.min(Instant::now() + limits.header_timeout);
        }
        let next = &mut next[..seen];
        if *next != HTTP2_PREFACE[socket.taken..][..seen] {
            return Some((socket, false));
        }
        // Taken, so that the next look waits for what comes after it.
        socket.stream.read_exact(next).await.ok()?;
        socket.taken += seen;
    }
    // HTTP/2 has bytes of its own (SETTINGS, PING): they are no sign of a request or an answer.
    socket.activity = None;
    activity.no_head();
    Some((socket, true))
}

/// The socket, with the part of the preface that was taken from it put back in front.
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes of the preface that were taken.
    taken: usize,
    /// Those of them that were given on.
    given: usize,
    activity: Option<Arc<Activity>>,
}

impl Socket {
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
        let taken = &HTTP2_PREFACE[this.given..this.taken];
        if !taken.is_empty() {
            let n = taken.len().min(buf.remaining());
            buf.put_slice(&taken[..n]);
            this.given += n;
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
