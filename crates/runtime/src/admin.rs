//! The admin port, which a kubelet and a Prometheus scraper use:
//!
//! - `GET /livez`: 200 while the process can respond at all. That includes the drain: a container that is shutting
//!   down must not be restarted.
//! - `GET /readyz`: 200 while [`Readiness`] is set, else 503.
//! - `GET /metrics`: the program's metrics in the format of [`crate::metrics`], at most 200 ms old.
//! - Any other path: 404. Methods other than GET and HEAD: 405.
//!
//! The port speaks HTTP/1 only. A program that has pages of its own there checks their host with [`Hosts`].

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

/// Limit on the open connections of an admin port.
pub const MAX_CONNECTIONS: usize = 64;

/// Probes and scrapers are few, and send short requests at once.
const LIMITS: Limits = Limits {
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(10),
    max_connections: MAX_CONNECTIONS,
    max_body: 0,
};

/// The admin port is not drained: it is open until the process ends.
const DRAIN: Drain = Drain {
    delay: Duration::ZERO,
    timeout: Duration::ZERO,
};

/// A server for an admin port, with `handler` as its routes: an [`Admin`], or a handler that adds routes to it.
pub fn server(listener: TcpListener, handler: impl Handler) -> Server {
    Server::new(listener, handler, LIMITS, DRAIN)
}

/// Whether a program is ready for requests: the program sets it, and [`Admin`] shows it at `/readyz`. Clones share
/// one state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Readiness of a program that is ready from the start.
    pub fn ready() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Sets whether the program is ready from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    /// Whether the program is ready.
    fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The routes of an admin port.
#[derive(Clone, Debug)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    /// The metrics as they were last rendered, as OpenMetrics and in the Prometheus text format.
    rendered: Arc<[Cached<Bytes>; 2]>,
}

impl Admin {
    /// Routes that show `readiness` at `/readyz` and the metrics in `registry` at `/metrics`.
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

    /// The response of these routes to a request.
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

/// The hosts under which a page may be requested. This keeps other web pages from reading it through a browser,
/// under a name of their own that they let point to this address (DNS rebinding). A request for another host gets
/// [`MISDIRECTED`](Self::MISDIRECTED). Probes and `/metrics` are served under any host.
///
/// Always allowed are IP addresses, `localhost`, names of one label, and names of Services, which end in `.svc` or
/// in `.svc.ZONE` with a zone of this cluster: nobody else can own those.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Names that are allowed as well, in lower case.
    names: Vec<String>,
    /// Suffixes of the names of Services: `.svc` and, for each zone of this cluster, `.svc.ZONE`.
    services: Vec<String>,
}

impl Hosts {
    /// The status of a response to a request for a host that is not allowed (RFC 9110, section 15.5.20).
    pub const MISDIRECTED: StatusCode = StatusCode::MISDIRECTED_REQUEST;

    /// Allows `names` as well. They are compared without regard to case, and to a dot at the end.
    ///
    /// `search` is the search list of resolv.conf, whose entry `NAMESPACE.svc.ZONE` tells the zone of the cluster.
    /// The usual zone, `cluster.local`, is always known.
    pub fn new<'a>(
        names: impl IntoIterator<Item = String>,
        search: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let names = names.into_iter().map(|name| normalized(&name)).collect();
        let mut services = vec![".svc".to_owned(), ".svc.cluster.local".to_owned()];
        services.extend(search.into_iter().filter_map(|domain| {
            let domain = format!(".{}", normalized(domain));
            Some(domain[domain.find(".svc.")?..].to_owned())
        }));
        Self { names, services }
    }

    /// Whether a request is for an allowed host, at any port. A request without a host is allowed, because no
    /// browser sends one.
    pub fn welcome(&self, head: &Parts) -> bool {
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => match head.headers.get(HOST).map(HeaderValue::to_str) {
                Some(Ok(host)) => host,
                Some(Err(_)) => return false,
                None => return true,
            },
        };
        self.allows(host)
    }

    fn allows(&self, host: &str) -> bool {
        if let Some(literal) = host.strip_prefix('[') {
            return literal
                .split_once(']')
                .is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok());
        }
        let host = normalized(host.split(':').next().unwrap_or_default());
        if host.parse::<IpAddr>().is_ok() || self.names.contains(&host) {
            return true;
        }
        !host.contains('.') || self.services.iter().any(|service| host.ends_with(service))
    }
}

/// The name in lower case, without a dot at its end.
fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    #[test]
    fn hosts_that_nobody_else_can_own_are_allowed_and_others_are_not() {
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
            assert!(hosts.allows(host), "{host:?}");
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
            assert!(!hosts.allows(host), "{host:?}");
        }
    }
}
