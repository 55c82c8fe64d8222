//! The routes that a kubelet and a scraper ask for, on a port of their own:
//!
//! - `GET /livez` -- 200 while the process can answer at all, and so while it drains, too: a
//!   container that is leaving must not be restarted.
//! - `GET /readyz` -- 200 while the owner's phase is [`Phase::Serving`], 503 from the moment it is
//!   asked to stop.
//! - `GET /metrics` -- what the owner counts, as [`crate::metrics`] writes it.
//! - anything else -- 404; methods other than GET and HEAD -- 405.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::body::Body;
use crate::metrics;
use crate::server::{Arrival, Drain, Handler, Limits, Phase, Reply, Server};

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

/// Makes a server of the admin routes, or of a handler that has more of them.
pub fn server(listener: TcpListener, handler: impl Handler) -> Server {
    Server::new(listener, handler, LIMITS, DRAIN)
}

/// Answers the admin routes.
#[derive(Clone, Debug)]
pub struct Admin {
    phase: watch::Receiver<Phase>,
    registry: Arc<Registry>,
}

impl Admin {
    /// Tells of an owner that is in `phase` and counts in `registry`.
    pub fn new(phase: watch::Receiver<Phase>, registry: Registry) -> Self {
        let registry = Arc::new(registry);
        Self { phase, registry }
    }

    /// Answers a request.
    pub fn respond(&self, head: &Parts) -> Response<Body> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match head.uri.path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if *self.phase.borrow() == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
            "/metrics" => {
                let accept = head.headers.get(ACCEPT);
                let (content_type, text) = metrics::exposition(&self.registry, accept);
                body(StatusCode::OK, content_type, text.into())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "not found: try /livez, /readyz or /metrics\n",
            ),
        }
    }
}

impl Handler for Admin {
    fn answer(&self, head: &Parts, _: Arrival) -> Reply {
        Reply::Now(self.respond(head))
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", text.into())
}

fn body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
