//! A backend that misbehaves in a given way, and how each way is reported.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use caller::failure::FailureKind;
use socket2::SockRef;
use test_support::process::run;

use super::{Expected, TIMEOUTS, assert_reported};
use crate::CALLER;

/// Pause between two bytes of a slow response.
const SLOW: Duration = Duration::from_millis(20);

/// Length of a slow response in bytes, if the client does not close the connection before.
const SLOW_BYTES: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    ClosesWithoutReading,
    ResetsBeforeTheHead,
    ResetsInTheHead,
    ResetsInTheBody,
    ClosesBeforeTheHead,
    ClosesInTheHead,
    ClosesInTheBody,
    ClosesInAChunk,
    BadChunk,
    Garbage,
    AnotherVersion,
    TlsAlert,
    HugeHead,
    Silent,
    AByteAtATimeOfTheHead,
    AByteAtATimeOfTheBody,
    StallsInTheBody,
    EndlessBody,
    ServiceUnavailable,
    NotFound,
    Redirect,
    /// Sends this text as the response to any request, and closes the connection.
    Says(&'static str),
    /// Sends this text before it has read a request, and closes the connection.
    SaysOnAccept(&'static str),
    /// Speaks HTTP/2, and responds to the first request with this frame.
    Http2(&'static [u8]),
}

/// A server on TCP, which runs until the process ends.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    pub(crate) fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let mode = Arc::new(Mutex::new(Mode::Healthy));
        let current = Arc::clone(&mode);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let mode = *current.lock().expect("no server panics");
                thread::spawn(move || serve(stream, mode));
            }
        });
        Self { addr, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no server panics") = mode;
    }
}

fn serve(mut stream: TcpStream, mode: Mode) {
    if mode == Mode::ClosesWithoutReading {
        // Waits for the request, so that closing is certain to reset the connection.
        let _ = stream.peek(&mut [0; 1]);
        return;
    }
    if let Mode::SaysOnAccept(text) = mode {
        let _ = stream.write_all(text.as_bytes());
        return;
    }
    if let Mode::Http2(frame) = mode {
        let _ = stream.write_all(SETTINGS);
        wait_for_a_request(&mut stream);
        let _ = stream.write_all(frame);
        // Until the client closes the connection, so that the frame is read before it ends.
        while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        return;
    }
    let _ = stream.read(&mut [0; 4096]);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The client may close the connection at any point of what follows.
    let mut send = |text: &str| stream.write_all(text.as_bytes()).is_ok();
    match mode {
        Mode::Healthy => {
            send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
        Mode::ClosesWithoutReading
        | Mode::ClosesBeforeTheHead
        | Mode::SaysOnAccept(_)
        | Mode::Http2(_) => {}
        Mode::Says(text) => {
            send(text);
        }
        Mode::ResetsBeforeTheHead => reset(&stream),
        Mode::ResetsInTheHead => {
            send(&head[..20]);
            reset(&stream);
        }
        Mode::ResetsInTheBody => {
            send(head);
            send("Hello");
            // A reset discards what the client has not read, and it is to read the head.
            thread::sleep(SLOW * 5);
            reset(&stream);
        }
        Mode::ClosesInTheHead => {
            send(&head[..20]);
        }
        Mode::ClosesInTheBody => {
            send(&format!("{head}Hello"));
        }
        Mode::ClosesInAChunk => {
            send(&format!("{chunked}a\r\nHello"));
        }
        Mode::BadChunk => {
            send(&format!("{chunked}no number\r\nHello"));
        }
        Mode::Garbage => {
            send("220 mail.example ESMTP ready\r\n");
        }
        Mode::AnotherVersion => {
            send("HTTP/9.9 200 OK\r\n\r\n");
        }
        Mode::TlsAlert => {
            // The response of a TLS server to plain text: a fatal alert, unexpected_message.
            send("\x15\x03\x01\x00\x02\x02\x0a");
        }
        Mode::HugeHead => {
            send("HTTP/1.1 200 OK\r\n");
            while send(&format!("X-Filler: {}\r\n", "x".repeat(4000))) {}
        }
        Mode::Silent => {
            // Until the client closes the connection.
            let _ = stream.read(&mut [0; 1]);
        }
        Mode::AByteAtATimeOfTheHead => {
            send("HTTP/1.1 200 OK\r\nX-Slow: ");
            trickle(&mut stream);
        }
        Mode::AByteAtATimeOfTheBody => {
            send("HTTP/1.1 200 OK\r\n\r\n");
            trickle(&mut stream);
        }
        Mode::StallsInTheBody => {
            send(&format!("{head}Hello"));
            // Until the client closes the connection.
            let _ = stream.read(&mut [0; 1]);
        }
        Mode::EndlessBody => {
            send("HTTP/1.1 200 OK\r\n\r\n");
            while send(&"x".repeat(4096)) {}
        }
        Mode::ServiceUnavailable => {
            send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n");
        }
        Mode::NotFound => {
            send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
        Mode::Redirect => {
            send("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

/// An empty SETTINGS frame, and the acknowledgement of the client's SETTINGS.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// GOAWAY: stream 0, last stream 0, and a reason; RST_STREAM: stream 1 and a reason.
const GOAWAY_NO_ERROR: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
const GOAWAY_ENHANCE_YOUR_CALM: &[u8] = b"\0\0\x0d\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0bslow!";
const RST_REFUSED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
const RST_INTERNAL_ERROR: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02";
const RST_HTTP_1_1_REQUIRED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x0d";

/// HEADERS of stream 1 with a header block that is not valid (RFC 7541).
const BAD_HEADERS: &[u8] = b"\0\0\x05\x01\x05\0\0\0\x01\xff\xff\xff\xff\xff";

/// An error response with a body that is over the size limit.
fn large_error() -> &'static str {
    let page = "x".repeat(1024 * 1024 + 1);
    format!("HTTP/1.1 500 Internal Server Error\r\n\r\n{page}").leak()
}

/// Reads the preface of a client, and its frames up to the first HEADERS.
fn wait_for_a_request(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).is_err() {
        return;
    }
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() || head[3] == 1 {
            return;
        }
    }
}

/// Makes the kernel reset the connection when it is closed.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn trickle(stream: &mut TcpStream) {
    for _ in 0..SLOW_BYTES {
        if stream.write_all(b"x").is_err() {
            return;
        }
        thread::sleep(SLOW);
    }
}

/// A test for each way in which a backend misbehaves. The last part of a row is the likely cause, if it is not the
/// usual one of the kind; it is empty if the cause depends on times, as that of a body that does not end.
macro_rules! faults {
    ($with:expr; $($test:ident: $mode:expr, $kind:ident, $evidence:literal $(, $likely:literal)?;)*) => {
        $(#[test]
        fn $test() {
            #[allow(unused_mut, unused_assignments)]
            let mut likely = None;
            $(likely = Some($likely);)?
            let expected = Expected { kind: FailureKind::$kind, evidence: $evidence, likely };
            assert_fault($mode, $with, &expected);
        })*
    };
}

fn assert_fault(mode: Mode, http2: bool, expected: &Expected) {
    let server = Server::start();
    server.set(mode);
    let url = format!("http://{}/", server.addr);
    let command = || {
        let mut command = Command::new(CALLER);
        command
            .env("CALLER_ADMIN_LISTEN", "off")
            .env("CALLER_URL", &url);
        if http2 {
            command.env("CALLER_HTTP2", "true");
        }
        command
    };
    // The repaired backend speaks HTTP/1, and this caller does not.
    if http2 {
        let output = run(command().arg("once").args(TIMEOUTS));
        expected.assert_once(&output);
    } else {
        assert_reported(command, expected, || server.set(Mode::Healthy));
    }
}

faults! { false;
    closed_without_reading: Mode::ClosesWithoutReading, Reset, "Connection reset by peer", "speaks another protocol or refuses this client";
    reset_before_the_head: Mode::ResetsBeforeTheHead, Reset, "before the first byte of an answer", "speaks another protocol or refuses this client";
    reset_in_the_head: Mode::ResetsInTheHead, Reset, "Connection reset by peer";
    reset_in_the_body: Mode::ResetsInTheBody, Reset, "Connection reset by peer (os error 104) after 5 bytes of body";
    closed_before_the_head: Mode::ClosesBeforeTheHead, EmptyReply, "closed before the first byte of an answer";
    closed_in_the_head: Mode::ClosesInTheHead, Incomplete, r#"closed after 20 bytes of a head, which begins "HTTP/1.1 200 OK\r\nCon""#;
    closed_in_the_body: Mode::ClosesInTheBody, Incomplete, "closed after 5 bytes of body";
    closed_in_a_chunk: Mode::ClosesInAChunk, Incomplete, "closed after 5 bytes of body";
    bad_chunk: Mode::BadChunk, Protocol, "after 0 bytes of body", "breaks the rules of HTTP";
    another_protocol: Mode::Garbage, Protocol, r#"which begins "220 mail.example ESMTP ready\r\n""#;
    another_version: Mode::AnotherVersion, Protocol, "invalid HTTP version parsed";
    tls_alert: Mode::TlsAlert, Protocol, r#"which begins "\x15\x03\x01"#, "the port wants TLS: https";
    endless_head: Mode::HugeHead, Protocol, "message head is too large", "speaks HTTP, but";
    no_status: Mode::Says("HTTP/1.1 OK\r\n\r\n"), Protocol, "invalid HTTP status-code parsed", "speaks HTTP, but";
    bad_length: Mode::Says("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), Protocol, "invalid content-length parsed", "speaks HTTP, but";
    http2_alone: Mode::Says("\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"), Protocol, "which begins", "speaks HTTP/2 alone: --http2";
    silent: Mode::Silent, ResponseTimeout, "connected, then no answer";
    a_byte_at_a_time_of_the_head: Mode::AByteAtATimeOfTheHead, ResponseTimeout, " bytes of a head, which begins";
    a_byte_at_a_time_of_the_body: Mode::AByteAtATimeOfTheBody, ResponseTimeout, " bytes of body (none in the last ", "";
    stalled_in_the_body: Mode::StallsInTheBody, ResponseTimeout, "no more than 5 bytes of body (none in the last ", "";
    endless_body: Mode::EndlessBody, BodyTooLarge, "over 1048576 bytes of body";
    an_endless_error: Mode::Says(large_error()), BodyTooLarge, "HTTP 500 Internal Server Error, over 1048576 bytes of body", "a fault of the backend's own";
    an_error_of_a_proxy_that_is_cut_short: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nContent-Length: 190\r\n\r\nno healthy upstream"),
        Incomplete, "HTTP 503 Service Unavailable by Envoy (server: envoy), closed after 19 bytes of body", "Envoy, between here and the backend, could not reach it";
    not_modified: Mode::Says("HTTP/1.1 304 Not Modified\r\n\r\n"), HttpStatus, "HTTP 304 Not Modified", "the answer to a conditional request";
    service_unavailable: Mode::ServiceUnavailable, HttpStatus, "HTTP 503 Service Unavailable after";
    not_found: Mode::NotFound, HttpStatus, "HTTP 404 Not Found", "the request is not one that the backend serves";
    redirect: Mode::Redirect, HttpStatus, "HTTP 302 Found, Location: /elsewhere", "a redirect, which is not followed";
    http_to_an_https_port_of_go: Mode::Says("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
        HttpStatus, "Client sent an HTTP request", "the port wants TLS: https";
    http_to_an_https_port_of_tomcat: Mode::Says("HTTP/1.1 400 \r\nConnection: close\r\n\r\nBad Request\r\nThis combination of host and port requires TLS.\r\n"),
        HttpStatus, "requires TLS", "the port wants TLS: https";
    nginx_without_a_client_certificate: Mode::Says("HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<center>No required SSL certificate was sent</center>"),
        HttpStatus, "HTTP 400 Bad Request", "the server wants a client certificate: --cert and --key";
    nginx_with_another_client_certificate: Mode::Says("HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<center>The SSL certificate error</center>"),
        HttpStatus, "HTTP 400 Bad Request", "does not accept this client's certificate";
    an_answer_before_the_request: Mode::SaysOnAccept("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n"),
        HttpStatus, "HTTP 503 Service Unavailable";
    envoy_without_a_connection: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection failure"),
        ProxyError, "by Envoy (server: envoy)", "could not reach it: no ready endpoint";
    envoy_without_endpoints: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: istio-envoy\r\nConnection: close\r\n\r\nno healthy upstream"),
        ProxyError, "no healthy upstream", "Istio's Envoy, between here and the backend, could not reach it";
    envoy_with_a_circuit_breaker: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: overflow"),
        ProxyError, "reset reason: overflow", "Envoy, between here and the backend, turns calls away: it is overloaded, or the limit";
    envoy_that_is_overloaded: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nx-envoy-local-overloaded: true\r\nConnection: close\r\n\r\n"),
        ProxyError, "by Envoy (x-envoy-local-overloaded: true)", "turns calls away";
    envoy_that_does_not_trust_the_backend: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end"),
        ProxyError, "CERTIFICATE_VERIFY_FAILED", "does not accept the backend's certificate";
    envoy_with_tls_to_a_backend_without: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection failure, transport failure reason: TLS error: 268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER"),
        ProxyError, "WRONG_VERSION_NUMBER", "one side is without TLS";
    envoy_with_http2_to_a_backend_without: Mode::Says("HTTP/1.1 502 Bad Gateway\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: protocol error"),
        ProxyError, "reset reason: protocol error", "in another protocol";
    istio_that_forbids: Mode::Says("HTTP/1.1 403 Forbidden\r\nserver: istio-envoy\r\nConnection: close\r\n\r\nRBAC: access denied"),
        ProxyError, "RBAC: access denied", "does not let this call through";
    linkerd_without_a_connection: Mode::Says("HTTP/1.1 502 Bad Gateway\r\nl5d-proxy-error: logical service: connect timed out\r\nConnection: close\r\n\r\n"),
        ProxyError, "l5d-proxy-error: logical service: connect timed out", "Linkerd, between here and the backend";
    nginx_without_an_answer: Mode::Says("HTTP/1.1 504 Gateway Time-out\r\nServer: nginx/1.27.0\r\nConnection: close\r\n\r\n<center>nginx</center>"),
        ProxyError, "by nginx (server: nginx/1.27.0)", "waited for the backend in vain";
    an_ingress_of_nginx_without_endpoints: Mode::Says("HTTP/1.1 503 Service Temporarily Unavailable\r\nConnection: close\r\n\r\n<hr><center>nginx</center>"),
        ProxyError, "by nginx", "nginx, between here and the backend, has no ready endpoint for it";
    a_gateway_without_a_route: Mode::Says("HTTP/1.1 404 Not Found\r\nServer: kong/3.4.0\r\nConnection: close\r\n\r\n{\"message\":\"no Route matched with those values\"}"),
        ProxyError, "by Kong", "has no route for this host and path";
    a_forward_proxy: Mode::Says("HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\n\r\n"),
        ProxyError, "HTTP 407 Proxy Authentication Required by a proxy", "a proxy wants a user and a password";
    a_captive_portal: Mode::Says("HTTP/1.1 511 Network Authentication Required\r\nConnection: close\r\n\r\n"),
        ProxyError, "by a proxy", "until somebody has logged in";
    a_load_balancer_without_a_backend: Mode::Says("HTTP/1.1 502 Bad Gateway\r\nServer: awselb/2.0\r\nConnection: close\r\n\r\n"),
        ProxyError, "by an AWS load balancer", "could not reach it";
    the_sidecar_of_the_backend_without_a_connection: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: istio-envoy\r\nx-envoy-upstream-service-time: 57\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection failure"),
        ProxyError, "by Envoy (server: istio-envoy, x-envoy-upstream-service-time: 57)", "could not reach it: no ready endpoint";
    an_error_with_the_name_of_a_load_balancer: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nServer: Google Frontend\r\nConnection: close\r\n\r\n{\"status\":\"DOWN\"}"),
        ProxyError, "by a Google load balancer", "or passes on an error of the backend's";
    a_refusal_with_the_name_of_envoy: Mode::Says("HTTP/1.1 403 Forbidden\r\nServer: envoy\r\nConnection: close\r\n\r\n{\"error\":\"admins only\"}"),
        ProxyError, "by Envoy", "or passes on the backend's refusal";
    a_proxy_that_does_not_take_the_request: Mode::Says("HTTP/1.1 400 Bad Request\r\nX-Squid-Error: ERR_INVALID_URL 0\r\nConnection: close\r\n\r\n"),
        ProxyError, "by Squid (x-squid-error: ERR_INVALID_URL 0)", "Squid, between here and the backend, does not take this request";
    a_proxy_that_calls_itself: Mode::Says("HTTP/1.1 508 Loop Detected\r\nl5d-proxy-error: request loop detected\r\nConnection: close\r\n\r\n"),
        ProxyError, "by Linkerd", "leads back to it, in a loop";
    a_fault_of_a_proxy: Mode::Says("HTTP/1.1 500 Internal Server Error\r\nl5d-proxy-error: unexpected error\r\nConnection: close\r\n\r\n"),
        ProxyError, "by Linkerd", "failed itself, or";
    a_request_that_is_too_large: Mode::Says("HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\n\r\n"),
        HttpStatus, "HTTP 413 Payload Too Large", "the request is too large for the backend, or in another format";
    envoy_whose_connection_ended: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\nConnection: close\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        ProxyError, "by Envoy", "reached it, but the connection ended before an answer";
    a_timeout_that_is_not_of_the_request: Mode::Says("HTTP/1.1 408 Request Timeout\r\nserver: envoy\r\nConnection: close\r\n\r\nstream timeout"),
        HttpStatus, "HTTP 408 Request Timeout", "the backend, or a proxy, gave up waiting";
    an_error_that_quotes_another_proxy: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n{\"error\":\"call to payment failed: no healthy upstream\"}"),
        HttpStatus, "HTTP 503 Service Unavailable after";
    a_gateway_whose_page_speaks_of_tls: Mode::Says("HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nConnection: close\r\n\r\nTLS error while talking to the database"),
        ProxyError, "by nginx", "nginx, between here and the backend, could not reach it";
    an_error_of_the_backends_through_envoy: Mode::Says("HTTP/1.1 503 Service Unavailable\r\nserver: istio-envoy\r\nx-envoy-upstream-service-time: 3\r\nConnection: close\r\n\r\nbusy"),
        HttpStatus, "HTTP 503 Service Unavailable after";
}

faults! { true;
    http2_goaway: Mode::Http2(GOAWAY_NO_ERROR), Reset, "HTTP/2 GOAWAY NO_ERROR", "shutting down or overloaded";
    http2_goaway_with_debug_data: Mode::Http2(GOAWAY_ENHANCE_YOUR_CALM), Reset, "ENHANCE_YOUR_CALM: detected excessive load generating behavior (slow!)", "overloaded";
    http2_stream_refused: Mode::Http2(RST_REFUSED), Reset, "HTTP/2 RST_STREAM REFUSED_STREAM", "shutting down or overloaded";
    http2_stream_failed: Mode::Http2(RST_INTERNAL_ERROR), Reset, "HTTP/2 RST_STREAM INTERNAL_ERROR", "a fault of the backend's own";
    http2_wants_http1: Mode::Http2(RST_HTTP_1_1_REQUIRED), Protocol, "HTTP/2 RST_STREAM HTTP_1_1_REQUIRED", "leave out --http2";
    http2_garbage: Mode::Http2(b"garbage garbage garbage"), Protocol, "garbage garbage", "breaks the rules of HTTP/2";
    http2_without_a_valid_head: Mode::Http2(BAD_HEADERS), Protocol, "protocol error detected, which begins", "breaks the rules of HTTP/2";
    http2_silent: Mode::Http2(b""), ResponseTimeout, "connected, then no more than 18 bytes of HTTP/2, and no head";
    http2_to_an_http1_server: Mode::Says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), Protocol, r#"which begins "HTTP/1.1 400"#, "leave out --http2";
}

/// A test for each unusual head that curl accepts, and `caller` too.
macro_rules! odd_heads {
    ($($test:ident: $fields:expr;)*) => {
        $(#[test]
        fn $test() {
            let server = Server::start();
            let head = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 3\r\n\r\nhi\n", $fields);
            server.set(Mode::Says(head.leak()));
            let url = format!("http://{}/", server.addr);
            let output = run(Command::new(CALLER).args(["once", &url]));
            assert_eq!(output.code, Some(0), "{}", output.stdout);
            assert!(output.stdout.contains("\nhi\n"), "{}", output.stdout);
        })*
    };
}

odd_heads! {
    five_hundred_fields_are_read: (0..500).map(|n| format!("X-{n}: a\r\n")).collect::<String>();
    a_folded_field_is_read: "Content-Security-Policy: default-src 'self';\r\n script-src 'self'\r\n";
    a_space_before_the_colon_is_read: "X-Spaced : true\r\n";
    a_field_with_a_name_that_is_none_is_read: "X (odd): true\r\n";
    a_long_field_is_read: format!("X-Long: {}\r\n", "a".repeat(60_000));
}
