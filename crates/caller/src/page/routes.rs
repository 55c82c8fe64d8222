//! The routes of the live page, and its header fields. The status is rendered at most once in 200 ms, however
//! many clients request it; the page is static, except for a nonce. Both are served only under this caller's
//! own host names, which protects against DNS rebinding.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use runtime::admin::{Admin, Hosts};
use runtime::body::Body;
use runtime::cached::Cached;
use runtime::server::{Arrival, Handler, Reply};
use tokio::sync::Semaphore;

use super::events::Streams;
use super::status::Known;
use super::{MeshPage, Page};
use crate::target::percent_decoded;

const HTML: &str = include_str!("page.html");
const MESH_HTML: &str = include_str!("mesh.html");

/// Paths that are served only if the request's host is one of this caller's own.
const PAGES: [&str; 6] = [
    "/",
    "/status.json",
    "/events",
    "/mesh",
    "/mesh.json",
    "/mesh/matrix.json",
];

/// Placeholder in the page for a nonce, which is random in each response.
const NONCE: &str = "{nonce}";

/// Maximum number of clients that wait for the matrix of a mesh, which can take seconds, so that the port has connections
/// left for probes and scrapers.
const MAX_WAITING: usize = 32;

const CSP: HeaderName = HeaderName::from_static("content-security-policy");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Serves the routes of the page, and leaves the others to [`Admin`].
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    page: Arc<Page>,
    mesh: Option<Arc<MeshPage>>,
    admin: Admin,
    hosts: Arc<Hosts>,
    streams: Arc<Streams>,
    waiting: Arc<Semaphore>,
    /// Cached status: that of the overview, and then that of each target.
    status: Arc<[Cached<Bytes>]>,
}

/// The target or targets that a request selects.
#[derive(Clone, Copy, Debug)]
enum Selected {
    /// The overview of all targets.
    Overview,
    /// The target with this index.
    One(usize),
}

impl Routes {
    pub(crate) fn new(page: Arc<Page>, mesh: Option<MeshPage>, admin: Admin, hosts: Hosts) -> Self {
        let rendered = (0..=page.stats.len()).map(|_| Cached::default());
        Self {
            status: rendered.collect(),
            page,
            mesh: mesh.map(Arc::new),
            admin,
            hosts: Arc::new(hosts),
            streams: Arc::default(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// The target that `?target=LABEL` selects; without it, the only target, or the overview of several.
    /// `None` if there is no such target.
    fn selected(&self, head: &Parts) -> Option<Selected> {
        let query = head.uri.query().unwrap_or_default();
        let mut fields = query.split('&');
        let Some(label) = fields.find_map(|field| field.strip_prefix("target=")) else {
            return Some(match self.page.has_several_targets() {
                true => Selected::Overview,
                false => Selected::One(0),
            });
        };
        let label = percent_decoded(label);
        let mut stats = self.page.stats.iter();
        let found = stats.position(|stats| {
            let target = stats.target();
            target.label().as_bytes() == label
        });
        found.map(Selected::One)
    }

    fn status(&self, selected: Selected) -> Response<Body> {
        let status = match selected {
            Selected::Overview => self.status[0].get(|| self.page.overview().into()),
            Selected::One(number) => self.status[number + 1].get(|| {
                let (json, _) = self
                    .page
                    .status(&self.page.stats[number], &Known::default());
                json.into()
            }),
        };
        response("application/json", status)
    }

    fn events(&self, selected: Selected, head: &Parts) -> Response<Body> {
        let id = head.headers.get(LAST_EVENT_ID);
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        let (page, known) = (Arc::clone(&self.page), Known::from_event_id(id));
        let stats = match selected {
            Selected::Overview => None,
            Selected::One(number) => Some(Arc::clone(&page.stats[number])),
        };
        let events = self.streams.open(page, stats, known);
        response("text/event-stream", Body::Stream(events))
    }

    fn matrix(&self, mesh: &Arc<MeshPage>) -> Reply {
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Reply::Now(unavailable("too many clients wait for the matrix\n"));
        };
        let matrix = Arc::clone(mesh).matrix();
        Reply::Later(Box::pin(async move {
            let response = response("application/json", matrix.await);
            drop(permit);
            response
        }))
    }
}

impl Handler for Routes {
    fn answer(&self, head: &Parts, _: Arrival) -> Reply {
        let path = head.uri.path();
        if PAGES.contains(&path) && !self.hosts.welcome(head) {
            let mut response = response(
                "text/plain; charset=utf-8",
                "this page is not served under that host name: request it by its IP address, or start caller with --admin-host\n",
            );
            *response.status_mut() = Hosts::MISDIRECTED;
            return Reply::Now(response);
        }
        if let Some(mesh) = &self.mesh
            && matches!(head.method, Method::GET | Method::HEAD)
        {
            match path {
                "/mesh" => return Reply::Now(html(MESH_HTML)),
                "/mesh.json" => return Reply::Now(response("application/json", mesh.row())),
                "/mesh/matrix.json" => return self.matrix(mesh),
                _ => {}
            }
        }
        Reply::Now(match (&head.method, path, self.selected(head)) {
            (&Method::GET | &Method::HEAD, "/", _) => html(HTML),
            (&Method::GET | &Method::HEAD, "/status.json", Some(selected)) => self.status(selected),
            (&Method::GET, "/events", Some(selected)) => self.events(selected, head),
            (&Method::GET | &Method::HEAD, "/status.json" | "/events", None) => {
                not_found("no such target\n")
            }
            (&Method::GET | &Method::HEAD, "/mesh" | "/mesh.json" | "/mesh/matrix.json", _) => {
                not_found("not found: this caller is not part of a mesh, which takes --sample\n")
            }
            _ => self.admin.respond(head),
        })
    }
}

/// An HTML page with a Content-Security-Policy: it may run its own script, use its own style, show its own
/// icon and send requests to this server. Everything else is blocked, including script or style that is
/// injected through data.
fn html(page: &str) -> Response<Body> {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let mut response = response("text/html; charset=utf-8", page.replace(NONCE, &nonce));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(CSP, policy);
    }
    response
}

fn not_found(text: &'static str) -> Response<Body> {
    let mut response = response("text/plain; charset=utf-8", text);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn unavailable(text: &'static str) -> Response<Body> {
    let mut response = response("text/plain; charset=utf-8", text);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn response(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}
