//! The routes that a kubelet and a scraper ask for, on a port of their own:
//!
//! - `GET /livez` -- 200 while the process can answer at all, and so while it drains, too: a
//!   container that is leaving must not be restarted.
//! - `GET /readyz` -- 200 while the owner's [`Readiness`] says so, else 503.
//! - `GET /metrics` -- what the owner counts, as [`crate::metrics`] writes it; at most 200 ms old.
//! - anything else -- 404; methods other than GET and HEAD -- 405.
//!
//! They speak HTTP/1 alone. [`Hosts`] says for which hosts an owner's own pages are.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::body::Body;
use crate::cached::Cached;
use crate::metrics;
use crate::server::{Arrival, Drain, Handler, Limits, Reply, Server};

/// Connections of an admin port that are open at once.
pub const MAX_CONNECTIONS: usize = 64;

/// Probes and scrapers are few and quick.
const LIMITS: Limits = Limits {
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(10),
    max_connections: MAX_CONNECTIONS,
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

/// Whether a program is ready for requests: set by its owner, and shown by [`Admin`]. All clones are one.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// A program that is ready.
    pub fn ready() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Says whether the program is ready from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    /// Whether the program is ready.
    pub fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Answers the admin routes.
#[derive(Clone, Debug)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    /// The metrics as they were last rendered: as OpenMetrics, and as Prometheus's own text.
    rendered: Arc<[Cached<Bytes>; 2]>,
}

impl Admin {
    /// Tells of an owner that is as ready as it says, and counts in `registry`.
    pub fn new(readiness: Readiness, registry: Registry) -> Self {
        Self {
            readiness,
            registry: Arc::new(registry),
            rendered: Arc::default(),
        }
    }

    fn metrics(&self, accept: Option<&HeaderValue>) -> Response<Body> {
        let format = metrics::Format::asked_for(accept);
        let cached = &self.rendered[usize::from(format == metrics::Format::Prometheus)];
        let text = cached.get(|| metrics::render(&self.registry, format).into());
        body(StatusCode::OK, format.content_type(), text.into())
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
            "/readyz" if self.readiness.is_ready() => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
            "/metrics" => self.metrics(head.headers.get(ACCEPT)),
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

/// The hosts that a page answers to, so that no web page of somebody else's can read it through a
/// browser, under a name of its own that it lets point here (DNS rebinding). Whoever asks for another
/// gets [`MISDIRECTED`](Self::MISDIRECTED). Not for the probes and `/metrics`, which answer to any.
///
/// Always welcome are addresses, `localhost`, names of one label, and those of a Service, which end in
/// `.svc` or in `.svc.ZONE` of this cluster. Nobody else can have those.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Other names.
    names: Vec<String>,
    /// Ends of the names of Services: `.svc` and, for each zone of this cluster, `.svc.ZONE`.
    services: Vec<String>,
}

impl Hosts {
    /// The status for a host that is not welcome (RFC 9110, section 15.5.20).
    pub const MISDIRECTED: StatusCode = StatusCode::MISDIRECTED_REQUEST;

    /// These names as well. Their case, and a dot at the end, make no difference.
    ///
    /// `search` is the search list of resolv.conf, in which a pod finds the zone of its cluster, as in
    /// `NAMESPACE.svc.ZONE`. It is `cluster.local` nearly everywhere, which is always known.
    pub fn new<'a>(
        names: impl IntoIterator<Item = String>,
        search: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let names = names.into_iter().map(|name| normal(&name)).collect();
        let mut services = vec![".svc".to_owned(), ".svc.cluster.local".to_owned()];
        services.extend(search.into_iter().filter_map(|domain| {
            let domain = format!(".{}", normal(domain));
            Some(domain[domain.find(".svc.")?..].to_owned())
        }));
        Self { names, services }
    }

    /// Whether a request is for a host that is welcome, whatever the port. One without a host is: no
    /// browser sends such.
    pub fn welcome(&self, head: &Parts) -> bool {
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => match head.headers.get(HOST).map(HeaderValue::to_str) {
                Some(Ok(host)) => host,
                Some(Err(_)) => return false,
                None => return true,
            },
        };
        self.is_welcome(host)
    }

    fn is_welcome(&self, host: &str) -> bool {
        if let Some(literal) = host.strip_prefix('[') {
            return literal
                .split_once(']')
                .is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok());
        }
        let host = normal(host.split(':').next().unwrap_or_default());
        if host.parse::<IpAddr>().is_ok() || self.names.contains(&host) {
            return true;
        }
        !host.contains('.') || self.services.iter().any(|service| host.ends_with(service))
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    #[test]
    fn names_that_nobody_can_register_are_welcome_and_others_are_not() {
        let hosts = Hosts::new(
            ["Demo.Example.".to_owned()],
            ["demo.svc.corp.example.", "corp.example"],
        );
        for host in [
            "127.0.0.1:8082",
            "10.1.2.3",
            "[::1]:8082",
            "localhost:8082",
            "frontend",
            "frontend:8082",
            "frontend.demo.svc",
            "frontend.demo.svc.cluster.local:8082",
            "a.frontend.demo.svc.",
            "frontend.demo.svc.corp.example",
            "demo.example:80",
            "DEMO.EXAMPLE.",
            "",
        ] {
            assert!(hosts.is_welcome(host), "{host:?}");
        }
        for host in [
            "attacker.example",
            "attacker.example:8082",
            "svc.example",
            "a.svc.attacker.example",
            "corp.example",
            "demo.example.org",
            "a.demo.example",
            "localhost.attacker.example",
            "[attacker.example]",
            "1.2.3.4.example",
        ] {
            assert!(!hosts.is_welcome(host), "{host:?}");
        }
    }
}
