//! The wording of requests that failed after the connection was made.

use std::borrow::Cow;

use h2::Reason;
use http::StatusCode;
use runtime::escape::Escaped;

use crate::failure::{Cause, Failure, FailureKind, Http2Error, Received, TlsPort};
use crate::report::{Proxy, Report, Response};

/// Parts of the bodies with which Go, nginx and Apache answer a plain HTTP request at a port for TLS.
const WANTS_TLS: [&str; 3] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
];

pub(super) fn evidence(report: &Report, failure: &Failure) -> String {
    let received = &failure.detail.received;
    let mut text = match &failure.detail.cause {
        Cause::Status => report.response().map_or(String::new(), status),
        Cause::TooLarge(limit) => format!("over {limit} bytes of body"),
        Cause::Timeout => match received {
            Received {
                body: Some(body), ..
            } => format!("no more than {body} bytes of body"),
            Received { bytes: 0, .. } => "connected, then no answer".to_owned(),
            Received { bytes, .. } => {
                format!(
                    "connected, then no more than {bytes} bytes of a head{}",
                    first_bytes(received)
                )
            }
        },
        Cause::Closed => format!("closed{}", progress(received)),
        Cause::Os(error) => format!("{error}{}", progress(received)),
        Cause::Malformed(what) | Cause::MalformedHttp2(what) => match received.body {
            Some(body) => format!("{what} after {body} bytes of body"),
            None => format!("{what}{}", first_bytes(received)),
        },
        Cause::Http2(Http2Error {
            frame,
            reason,
            debug,
        }) => {
            let mut text = format!("HTTP/2 {frame} {reason:?}: {reason}");
            if !debug.is_empty() {
                text += &format!(" ({debug})");
            }
            text
        }
        // A failed lookup belongs to another stage; its wording is in `super::dns`.
        Cause::Lookup => String::new(),
        Cause::Tls(error) => format!("{}{}", super::tls::error(error), progress(received)),
    };
    if let Some(hole) = failure.detail.hole {
        text += &format!(" ({})", super::path::hole(hole));
    }
    let pod = report.response().and_then(|response| response.pod.as_ref());
    if let Some(pod) = pod
        && !matches!(failure.detail.cause, Cause::Status)
    {
        text += &format!(" from {pod}");
    }
    if let Some(idle) = failure.detail.idle
        && !matches!(failure.detail.cause, Cause::Status)
    {
        text += &format!(" on a connection that had been idle for {idle:.1?}");
    }
    text
}

/// The status, and who sent it.
fn status(response: &Response) -> String {
    let status = response.status;
    let mut text = match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    if let Some(pod) = &response.pod {
        text += &format!(" from {pod}");
    }
    if let Some(Proxy { name, headers }) = &response.proxy {
        text += &format!(" by {name}");
        if !headers.is_empty() {
            text += &format!(" ({})", headers.join(", "));
        }
    }
    if let Some(location) = &response.location {
        text += &format!(", Location: {}", without_credentials(location));
    }
    text
}

/// The URL without user and password.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// How much of the response had been received.
fn progress(received: &Received) -> String {
    match received {
        Received {
            body: Some(body), ..
        } => format!(" after {body} bytes of body"),
        Received { bytes: 0, .. } => " before the first byte of an answer".to_owned(),
        Received { bytes, .. } => {
            format!(" after {bytes} bytes of a head{}", first_bytes(received))
        }
    }
}

/// The first bytes received, which show what kind of server answered.
pub(super) fn first_bytes(received: &Received) -> String {
    match received.start.as_slice() {
        [] => String::new(),
        start => format!(", which begins \"{}\"", Escaped::quoted(start)),
    }
}

pub(super) fn what(failure: &Failure) -> Option<&'static str> {
    let is_http = starts_as_http1(&failure.detail.received);
    match (failure.kind, &failure.detail.cause) {
        (FailureKind::Reset, Cause::Http2(_)) => Some("the request was handed back or cut off"),
        (FailureKind::Protocol, Cause::Http2(_)) => Some("the request was refused as wrong"),
        (FailureKind::Protocol, _) if is_http => Some("the answer was not correct HTTP"),
        _ => None,
    }
}

pub(super) fn likely(report: &Report, failure: &Failure) -> Option<Cow<'static, str>> {
    let detail = &failure.detail;
    let was_idle = detail.idle.is_some() && detail.received.bytes == 0;
    Some(match (failure.kind, &detail.cause) {
        (FailureKind::Reset | FailureKind::EmptyReply, Cause::Closed | Cause::Os(_)) if was_idle => {
            "the connection was closed while it was idle: the backend, or something on the way, waits for a shorter time than lies between two calls".into()
        }
        (FailureKind::Reset | FailureKind::EmptyReply, _) if detail.wants_tls.is_some() => {
            match detail.wants_tls? {
                TlsPort::Server => "the port wants TLS: https://",
                TlsPort::Mutual => "the port wants TLS, and asks for a client certificate: https:// with --cert and --key, or, in a mesh with mutual TLS, a sidecar here",
            }
            .into()
        }
        (FailureKind::Reset, Cause::Http2(Http2Error { reason, .. })) => match *reason {
            Reason::INTERNAL_ERROR => "a fault of the backend's own".into(),
            Reason::ENHANCE_YOUR_CALM => "the backend is overloaded, or takes this client for a nuisance".into(),
            _ => "the backend is shutting down or overloaded".into(),
        },
        (FailureKind::Protocol, Cause::Http2(Http2Error { reason, .. })) => match *reason {
            Reason::HTTP_1_1_REQUIRED => "the backend wants HTTP/1.1: leave out --http2".into(),
            _ => "the backend speaks HTTP/2, and takes the request to be wrong".into(),
        },
        (FailureKind::Protocol, Cause::MalformedHttp2(_))
            if detail.received.bytes == 0
                && report.tls.as_deref().is_some_and(|tls| tls.protocol.as_deref() != Some("h2")) =>
        {
            "the server does not speak HTTP/2 over TLS: leave out --http2".into()
        }
        (FailureKind::Protocol, Cause::MalformedHttp2(_)) if starts_as_http1(&detail.received) => {
            "the port speaks HTTP/1: leave out --http2".into()
        }
        (FailureKind::Protocol, _) => protocol(&detail.received)?.into(),
        (FailureKind::ResponseTimeout | FailureKind::ConnectUnreachable, Cause::Os(_)) => {
            "the way to the backend broke while the call was under way: a dead node, or a policy that came into force".into()
        }
        (FailureKind::ProxyError, _) => proxy_error(report.response()?)?.into(),
        (FailureKind::HttpStatus, _) => error_status(report.response()?)?.into(),
        _ => return None,
    })
}

pub(super) fn starts_as_http1(received: &Received) -> bool {
    received.start.starts_with(b"HTTP/1.")
}

/// The likely cause of a response that is not valid HTTP/1, by its first bytes.
fn protocol(received: &Received) -> Option<&'static str> {
    let start = received.start.as_slice();
    match start {
        _ if received.starts_as_tls() => Some("the port wants TLS: https://"),
        // An HTTP/2 server begins with a SETTINGS frame on stream 0 (RFC 9113, section 3.4).
        [0, _, _, 4, _, 0, 0, 0, 0, ..] => Some("the port speaks HTTP/2 alone: --http2"),
        _ if received.body.is_some() => {
            Some("the backend, or a proxy on the way, breaks the rules of HTTP")
        }
        _ if starts_as_http1(received) => {
            Some("what answered speaks HTTP, but not as it was asked to, or not correctly")
        }
        _ => None,
    }
}

fn proxy_error(response: &Response) -> Option<String> {
    let name = response.proxy.as_ref()?.name;
    Some(match response.status {
        StatusCode::FORBIDDEN => {
            format!(
                "{name}, between here and the backend, does not let this call through: a policy of the mesh or of the proxy"
            )
        }
        StatusCode::NOT_FOUND => {
            format!("{name}, between here and the backend, has no route for this host and path")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            format!("{name}, between here and the backend, limits the rate of calls")
        }
        StatusCode::GATEWAY_TIMEOUT => {
            format!("{name}, between here and the backend, waited for the backend in vain")
        }
        _ => {
            format!(
                "{name}, between here and the backend, could not reach it: no ready endpoint, the wrong port, or mutual TLS"
            )
        }
    })
}

fn error_status(response: &Response) -> Option<&'static str> {
    let body = String::from_utf8_lossy(&response.body);
    match response.status.as_u16() {
        100..300 => Some("its status is not one that --expect-status allows; the network is fine"),
        408 => {
            Some("the backend waited for the request in vain: packets are lost on the way there")
        }
        429 => Some("the backend limits the rate of calls; the network is fine"),
        300..400 => Some("a redirect, which is not followed; the network is fine"),
        400 if WANTS_TLS.iter().any(|words| body.contains(words)) => {
            Some("the port wants TLS: https://")
        }
        400..500 => Some(
            "the request is not one that the backend serves: its path, method, host or credentials; the network is fine",
        ),
        _ => None,
    }
}
