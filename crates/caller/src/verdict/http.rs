//! The wording of requests that failed after the connection was made.

use std::borrow::Cow;
use std::time::Duration;

use h2::Reason;
use runtime::escape::Escaped;

use crate::failure::{Cause, Failure, FailureKind, Http2Error, Received, TlsPort};
use crate::millis::Millis;
use crate::report::{Proxy, Report, Response};

/// Parts of the bodies with which Go, nginx, Apache and Tomcat answer a plain HTTP request at a port for TLS.
const WANTS_TLS: [&str; 4] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
    "This combination of host and port requires TLS",
];

/// Envoy's words for a connection to its upstream that was made, and ended before a response.
const RESET_REASONS: [&str; 3] = [
    "reset reason: connection termination",
    "reset reason: remote reset",
    "reset reason: local reset",
];

/// The likely cause of an answer that only a port for TLS gives.
const USE_TLS: &str = "the port wants TLS: https://";

/// The shortest time for which a server is taken to have waited for a request.
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn evidence(report: &Report, failure: &Failure) -> String {
    let received = &failure.detail.received;
    let mut text = match &failure.detail.cause {
        Cause::Status => report.response().map_or(String::new(), status),
        Cause::TooLarge(limit) => format!("over {limit} bytes of body"),
        Cause::Timeout => match received {
            Received { body: Some(0), .. } => "no more than 0 bytes of body".to_owned(),
            Received {
                body: Some(body), ..
            } => format!(
                "no more than {body} bytes of body (none in the last {})",
                Millis(Some(received.silence))
            ),
            Received { bytes: 0, .. } => "connected, then no answer".to_owned(),
            Received { .. } => format!("connected, then no more than {}", of_head(received)),
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
    match report.response() {
        Some(_) if matches!(failure.detail.cause, Cause::Status) => {}
        Some(response) if !response.status.is_success() => {
            text = format!("{}, {text}", status(response));
        }
        Some(Response { pod: Some(pod), .. }) => text += &format!(" from {pod}"),
        _ => {}
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
    if let Some(Proxy { name, headers, .. }) = &response.proxy {
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
        Received { .. } => format!(" after {}", of_head(received)),
    }
}

/// How much was received before the head was complete.
fn of_head(received: &Received) -> String {
    let bytes = received.bytes;
    match received.starts_as_http2() {
        true => format!("{bytes} bytes of HTTP/2, and no head"),
        false => format!("{bytes} bytes of a head{}", first_bytes(received)),
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
        (FailureKind::Protocol, Cause::MalformedHttp2(_))
            if failure.detail.received.starts_as_http2() =>
        {
            Some("the answer was not correct HTTP/2")
        }
        (FailureKind::Protocol, _) if is_http => Some("the answer was not correct HTTP"),
        (FailureKind::ResponseTimeout, Cause::Timeout)
            if failure.detail.received.body.is_some() =>
        {
            Some("the answer did not end in time")
        }
        _ => None,
    }
}

pub(super) fn likely(report: &Report, failure: &Failure) -> Option<Cow<'static, str>> {
    let detail = &failure.detail;
    let was_idle = detail.idle.is_some() && detail.received.bytes == 0;
    let response = report.response();
    let of_proxy = response.and_then(proxy_error);
    Some(match (failure.kind, &detail.cause) {
        (kind, _) if kind != FailureKind::PathMtu && of_proxy.is_some() => of_proxy?.into(),
        (FailureKind::Reset | FailureKind::EmptyReply, Cause::Closed | Cause::Os(_)) if was_idle => {
            "the connection was closed while it was idle: the backend, or something on the way, waits for a shorter time than lies between two calls".into()
        }
        (FailureKind::Reset | FailureKind::EmptyReply, _) if detail.wants_tls.is_some() => {
            match detail.wants_tls? {
                TlsPort::Server => USE_TLS,
                TlsPort::Mutual => "the port wants TLS, and asks for a client certificate: https:// with --cert and --key, or, in a mesh with mutual TLS, a sidecar here",
            }
            .into()
        }
        // Whether the request was read before the connection was closed is chance.
        (FailureKind::Reset, Cause::Closed | Cause::Os(_)) if detail.received.bytes == 0 => {
            super::usual_cause(FailureKind::EmptyReply).into()
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
        (FailureKind::Protocol, Cause::MalformedHttp2(_)) if detail.received.starts_as_http2() => {
            "the backend, or a proxy on the way, breaks the rules of HTTP/2".into()
        }
        (FailureKind::Protocol, _) => protocol(&detail.received)?.into(),
        (FailureKind::ResponseTimeout | FailureKind::ConnectUnreachable, Cause::Os(_)) => {
            "the way to the backend broke while the call was under way: a dead node, or a policy that came into force".into()
        }
        (FailureKind::ResponseTimeout, _) if detail.received.body.is_some() => {
            match detail.received.silence < detail.after / 2 {
                true => "a stream, which has no end, or an answer that is too long for the timeout".into(),
                false => "the backend is stuck in the middle of its answer, the answer is a stream, or large packets are lost on the way".into(),
            }
        }
        (FailureKind::HttpStatus, _) => error_status(response?, detail.after)?.into(),
        (FailureKind::BodyTooLarge, _) if !response?.status.is_success() => error_status(response?, detail.after)
            .unwrap_or(super::usual_cause(FailureKind::HttpStatus))
            .into(),
        _ => return None,
    })
}

pub(super) fn starts_as_http1(received: &Received) -> bool {
    received.start.starts_with(b"HTTP/1.")
}

/// The likely cause of a response that is not valid HTTP/1, by its first bytes.
fn protocol(received: &Received) -> Option<&'static str> {
    Some(if received.starts_as_tls() {
        USE_TLS
    } else if received.starts_as_http2() {
        "the port speaks HTTP/2 alone: --http2"
    } else if received.body.is_some() {
        "the backend, or a proxy on the way, breaks the rules of HTTP"
    } else if starts_as_http1(received) {
        "what answered speaks HTTP, but not as it was asked to, or not correctly"
    } else {
        return None;
    })
}

fn proxy_error(response: &Response) -> Option<String> {
    let Proxy {
        name,
        headers,
        may_pass_on,
    } = response.proxy.as_ref()?;
    let body = String::from_utf8_lossy(&response.body);
    let body = body.trim_start();
    // Why Envoy's own connection failed. In any other body, these words may be about a call of the backend's own.
    let is_reset = body.starts_with("upstream connect error");
    let reset = if is_reset { body } else { "" };
    let is_overloaded = headers.iter().any(|field| field.contains("overloaded:"));
    let why = match response.status.as_u16() {
        407 => {
            return Some(format!(
                "{name} wants a user and a password: it is a forward proxy, called directly or set up to intercept calls"
            ));
        }
        511 => {
            return Some(format!(
                "{name} intercepts calls until somebody has logged in to the network"
            ));
        }
        403 if *may_pass_on => {
            "does not let this call through: a policy of the mesh or of the proxy, or passes on the backend's refusal"
        }
        403 => "does not let this call through: a policy of the mesh or of the proxy",
        404 => "has no route for this host and path",
        429 => "limits the rate of calls",
        400..500 => {
            "does not take this request: its path, method, host, size, protocol or credentials"
        }
        508 => "found that the call leads back to it, in a loop",
        _ if is_overloaded
            || reset.contains("reset reason: overflow")
            || body.starts_with("envoy overloaded") =>
        {
            "turns calls away: it is overloaded, or the limit of a circuit breaker is reached"
        }
        _ if reset.contains("CERTIFICATE_VERIFY_FAILED") => {
            "does not accept the backend's certificate"
        }
        _ if says(reset, &["TLS_error", "TLS error"]) => {
            "reached it, but the TLS handshake failed: one side is without TLS, or refuses the other's certificate"
        }
        _ if reset.contains("reset reason: protocol error") => {
            "got an answer in another protocol than it speaks with it, such as HTTP/1 in place of HTTP/2"
        }
        _ if says(reset, &RESET_REASONS) => {
            "reached it, but the connection ended before an answer: it died, closes idle connections sooner than the proxy, or wants mutual TLS"
        }
        // Not statuses of a proxy that could not reach its backend.
        500 | 501 | 505..=510 => "failed itself, or does not take this request",
        504 => "waited for the backend in vain",
        // nginx, for one, sends 503 if it limits calls, and ingress-nginx if it has no endpoint.
        503 if *may_pass_on => {
            "has no ready endpoint for it, limits the calls, or passes on an error of the backend's"
        }
        _ => "could not reach it: no ready endpoint, the wrong port, or mutual TLS",
    };
    Some(format!("{name}, between here and the backend, {why}"))
}

/// Whether the text contains one of these phrases.
fn says(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| text.contains(phrase))
}

fn error_status(response: &Response, after: Duration) -> Option<&'static str> {
    let body = String::from_utf8_lossy(&response.body);
    match response.status.as_u16() {
        100..300 => Some("its status is not one that --expect-status allows; the network is fine"),
        // No server gives up on a request so soon, and Envoy says these words of what it waited for itself.
        408 if after < MIN_REQUEST_TIMEOUT || body.trim_start().starts_with("stream timeout") => {
            Some("the backend, or a proxy, gave up waiting")
        }
        408 => Some(
            "packets of the request are lost on the way there, or the backend gave up waiting for something else",
        ),
        429 => Some("the backend limits the rate of calls; the network is fine"),
        304 => Some(
            "the answer to a conditional request (If-None-Match, If-Modified-Since); the network is fine",
        ),
        300..400 => Some("a redirect, which is not followed; the network is fine"),
        400 if says(&body, &WANTS_TLS) => Some(USE_TLS),
        // In nginx's words.
        400 if body.contains("No required SSL certificate was sent") => {
            Some("the server wants a client certificate: --cert and --key")
        }
        400 if body.contains("The SSL certificate error") => {
            Some("the server does not accept this client's certificate: --cert and --key")
        }
        413 | 414 | 415 | 426 | 431 => Some(
            "the request is too large for the backend, or in another format or protocol than it takes; the network is fine",
        ),
        400..500 => Some(
            "the request is not one that the backend serves: its path, method, host or credentials; the network is fine",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::{Cause, Failure, FailureKind, Received, Report, error_status, likely};
    use crate::failure::Stage;
    use crate::report::{Outcome, Response};

    #[test]
    fn packets_are_blamed_for_a_408_only_if_it_took_long() {
        let words = |body: &str, after| {
            let mut response = Response::of_status(StatusCode::REQUEST_TIMEOUT);
            response.body = body.into();
            error_status(&response, Duration::from_millis(after)).expect("a cause")
        };
        let waited = "the backend, or a proxy, gave up waiting";
        assert_eq!(words("", 5), waited);
        assert_eq!(words("stream timeout", 5000), waited);
        assert!(words("", 5000).starts_with("packets of the request are lost"));
    }

    #[test]
    fn a_body_that_stalls_is_told_from_one_that_goes_on() {
        let kind = FailureKind::ResponseTimeout;
        let after = Duration::from_secs(2);
        for (silence, words) in [
            (100, "a stream, which has no end"),
            (1900, "the backend is stuck in the middle of its answer"),
        ] {
            let mut failure = Failure::new(Stage::Http, kind, Cause::Timeout, after);
            failure.detail.received = Received {
                body: Some(5),
                silence: Duration::from_millis(silence),
                ..Received::default()
            };
            let report = Report::of_outcome(Outcome::Failed(failure.clone(), None));
            let likely = likely(&report, &failure).expect("a cause");
            assert!(likely.starts_with(words), "{likely}");
        }
    }
}
