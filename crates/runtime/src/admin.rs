//! The routes that a kubelet asks for, on a port of their own:
//!
//! - `GET /livez` -- 200 while the process can answer at all, and so while it drains, too: a
//!   container that is leaving must not be restarted.
//! - `GET /readyz` -- 200 while the owner's phase is [`Phase::Serving`], 503 from the moment it is
//!   asked to stop.
//! - anything else -- 404; methods other than GET and HEAD -- 405.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::server::{Drain, Handler, Limits, Phase, Server};

/// Probes and scrapers are few and quick.
const LIMITS: Limits = Limits {
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(60),
    max_connections: 64,
    max_body: 0,
};

/// It goes when the process goes.
const DRAIN: Drain = Drain {
    delay: Duration::ZERO,
    timeout: Duration::ZERO,
};

/// Makes a server of the admin routes, telling of an owner that is in `phase`.
pub fn server(listener: TcpListener, phase: watch::Receiver<Phase>) -> Server<Admin> {
    Server::new(listener, Admin { phase }, LIMITS, DRAIN)
}

/// Answers the admin routes.
#[derive(Clone, Debug)]
pub struct Admin {
    phase: watch::Receiver<Phase>,
}

impl Handler for Admin {
    type Body = Full<Bytes>;

    const HTTP2: bool = false;

    async fn handle(&self, request: Request<()>, _peer: SocketAddr) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if *self.phase.borrow() == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
            _ => text(StatusCode::NOT_FOUND, "not found: try /livez or /readyz\n"),
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
