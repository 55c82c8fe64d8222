//! What a request that failed is concluded from: what was seen on the socket, and hyper's error only where
//! the socket does not tell.

use std::error::Error;

use h2::Reason;

use super::tap::End;
use crate::failure::{Cause, FailureKind, Http2Error, Http2Frame, MAX_EVIDENCE, OsError, Received};

/// What an exchange that failed is to be concluded from.
pub(super) enum Conclusion {
    /// It is known already.
    Known(FailureKind, Cause),
    /// The time was up.
    TimeIsUp,
    /// The socket, and this error where the socket does not tell.
    Broken(hyper::Error),
}

impl Conclusion {
    /// The kind of failure, and its cause.
    pub(super) fn draw(self, end: Option<End>, received: &Received) -> (FailureKind, Cause) {
        let error = match self {
            Self::Known(kind, cause) => return (kind, cause),
            Self::TimeIsUp => return (FailureKind::ResponseTimeout, Cause::Timeout),
            Self::Broken(error) => error,
        };
        let http2 = error.source().and_then(<dyn Error>::downcast_ref);
        if let Some(verdict) = http2.and_then(ended_by_http2) {
            return verdict;
        }
        match end {
            // hyper reads no further once it cannot make sense of what it has read.
            _ if error.is_parse() => malformed(&error),
            Some(End::Failed(error)) => (kind(&error), Cause::Os(error)),
            // As a server of TLS 1.3 does that wants another certificate than it was shown.
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

/// `None` for an error of the connection below HTTP/2.
fn ended_by_http2(error: &h2::Error) -> Option<(FailureKind, Cause)> {
    let reason = error.reason()?;
    if !error.is_remote() {
        let cause = Cause::MalformedHttp2(cut(&error.to_string()));
        return Some((FailureKind::Protocol, cause));
    }
    let kind = match reason {
        // The peer hangs up or hands the request back, as one does that shuts down, is overloaded or
        // broken.
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
    // h2 gives out GOAWAY's debug data only as the end of its message: ` (b"...")`.
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

/// What an error on a connection that stood means.
fn kind(error: &OsError) -> FailureKind {
    match error.errno {
        // The kernel has given up sending again what was never acknowledged.
        Some(libc::ETIMEDOUT) => FailureKind::ResponseTimeout,
        // The way to the peer is gone, or a policy on this side came into force.
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

/// The error at the bottom of a chain, which says what happened; those above say to whom.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
