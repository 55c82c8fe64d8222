//! Determines the kind and the cause of a failed request: from what was seen on the socket, or, if that is
//! not enough, from hyper's error.

use std::error::Error;

use h2::Reason;

use super::tap::End;
use crate::failure::{Cause, FailureKind, Http2Error, Http2Frame, MAX_EVIDENCE, OsError, Received};

/// How a request failed.
pub(super) enum Conclusion {
    /// The kind and the cause are known.
    Known(FailureKind, Cause),
    /// No complete response came before the deadline.
    Timeout,
    /// The connection failed. The socket has the cause, or else this error.
    Broken(hyper::Error),
}

impl Conclusion {
    /// Determines the kind of failure and its cause, from how the connection ended and what was received.
    pub(super) fn kind_and_cause(
        self,
        end: Option<End>,
        received: &Received,
    ) -> (FailureKind, Cause) {
        let error = match self {
            Self::Known(kind, cause) => return (kind, cause),
            Self::Timeout => return (FailureKind::ResponseTimeout, Cause::Timeout),
            Self::Broken(error) => error,
        };
        let http2 = error.source().and_then(<dyn Error>::downcast_ref);
        if let Some(verdict) = http2.and_then(ended_by_http2) {
            return verdict;
        }
        match end {
            // hyper stops reading after a parse error, so the socket has no more evidence.
            _ if error.is_parse() => malformed(&error),
            Some(End::Failed(error)) => (kind(&error), Cause::Os(error)),
            // A TLS 1.3 server that does not accept the client's certificate sends its alert only after the
            // client's side of the handshake is complete.
            Some(End::Tls(error)) if received.bytes == 0 => {
                (FailureKind::TlsHandshake, Cause::Tls(error))
            }
            Some(End::Tls(error)) => (FailureKind::Reset, Cause::Tls(error)),
            Some(End::Closed) if received.bytes == 0 => (FailureKind::EmptyReply, Cause::Closed),
            Some(End::Closed) => (FailureKind::Incomplete, Cause::Closed),
            None => malformed(&error),
        }
    }
}

fn malformed(error: &(dyn Error + 'static)) -> (FailureKind, Cause) {
    let what = root(error).to_string();
    (FailureKind::Protocol, Cause::Malformed(cut(&what)))
}

/// Kind and cause of an HTTP/2 error; `None` for an error of the connection below HTTP/2.
fn ended_by_http2(error: &h2::Error) -> Option<(FailureKind, Cause)> {
    let reason = error.reason()?;
    if !error.is_remote() {
        let cause = Cause::MalformedHttp2(cut(&error.to_string()));
        return Some((FailureKind::Protocol, cause));
    }
    let kind = match reason {
        // The peer closed the connection or rejected the request, because it is shutting down, overloaded or broken.
        Reason::NO_ERROR
        | Reason::REFUSED_STREAM
        | Reason::CANCEL
        | Reason::INTERNAL_ERROR
        | Reason::ENHANCE_YOUR_CALM => FailureKind::Reset,
        _ => FailureKind::Protocol,
    };
    let frame = match error.is_go_away() {
        true => Http2Frame::GoAway,
        false => Http2Frame::RstStream,
    };
    // h2 exposes the debug data of GOAWAY only at the end of its message: ` (b"...")`.
    let message = error.to_string();
    let debug = message.split_once(" (b\"").map_or("", |(_, debug)| debug);
    let debug = cut(debug.trim_end_matches("\")"));
    let cause = Cause::Http2(Http2Error {
        frame,
        reason,
        debug,
    });
    Some((kind, cause))
}

/// The kind of failure for an error on an established connection.
fn kind(error: &OsError) -> FailureKind {
    match error.errno {
        // The kernel gave up retransmitting data that was never acknowledged (tcp(7), `tcp_retries2`).
        Some(libc::ETIMEDOUT) => FailureKind::ResponseTimeout,
        // The route to the peer is gone, or a network policy on this side came into force.
        Some(
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EPERM | libc::EACCES,
        ) => FailureKind::ConnectUnreachable,
        Some(libc::ENOBUFS | libc::ENOMEM) => FailureKind::Local,
        _ => FailureKind::Reset,
    }
}

fn cut(text: &str) -> String {
    let kept = &text.as_bytes()[..text.len().min(MAX_EVIDENCE)];
    String::from_utf8_lossy(kept).into_owned()
}

/// The last error of a chain: it says what happened, while those above it add context.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
