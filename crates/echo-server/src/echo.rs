//! The responses:
//!
//! - For any path and method: the text, with the configured status.
//! - For `/health`: 200 and `{"status":"ok"}`, whatever status is configured. It is not in the access log.
//! - For the percentage of requests that [`Faults`] says: a faulty response, delayed and with a status of its own.
//! - For `CONNECT`: 405 with the text, because a 2xx would promise a tunnel, and could have no body.
//!
//! The response to a request with `X-Request-Id` has the same `X-Request-Id`, and in `X-Peer-Address` the client's
//! address and port as this server sees them, such as `10.244.0.7:41234` or `[fd00::7]:41234`. A client that
//! compares it with its own address can tell whether there is a NAT on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use runtime::body::Body;
use runtime::server::{Arrival, Handler, Reply, keep_head};

use crate::accept_queue::AcceptQueue;
use crate::access_log::{Entry, Lines};
use crate::append::append_address;
use crate::{Faults, Pod, sniff};

const APP_NAME: HeaderName = HeaderName::from_static("x-app-name");
const APP_VERSION: HeaderName = HeaderName::from_static("x-app-version");
const POD_NAME: HeaderName = HeaderName::from_static("x-pod-name");
const NODE_NAME: HeaderName = HeaderName::from_static("x-node-name");
const POD_NAMESPACE: HeaderName = HeaderName::from_static("x-pod-namespace");
const WANT_LISTEN_OVERFLOWS: HeaderName = HeaderName::from_static("x-want-listen-overflows");
const LISTEN_OVERFLOWS: HeaderName = HeaderName::from_static("x-listen-overflows");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PEER_ADDRESS: HeaderName = HeaderName::from_static("x-peer-address");

/// Length in bytes of the longest address with a port, `[FFFF:…:FFFF]:65535`, and one byte to spare.
const MAX_ADDRESS: usize = 48;

/// The handler of requests; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Echo(Arc<State>);

#[derive(Debug)]
struct State {
    text: Template,
    connect: Template,
    health: Template,
    faulty: Template,
    faults: Faults,
    /// Number of requests so far that fault injection applied to.
    requests: AtomicU64,
    log: Lines,
    accept_queue: AcceptQueue,
}

/// A response that is prepared once, so that a request costs no more than a copy.
#[derive(Debug)]
struct Template {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Echo {
    /// Prepares the responses. `content_type` is guessed from the text if there is none.
    pub(crate) fn new(
        mut text: Vec<u8>,
        status: StatusCode,
        content_type: Option<HeaderValue>,
        pod: Pod,
        faults: Faults,
        log: Lines,
    ) -> Self {
        let content_type = content_type.unwrap_or_else(|| sniff::content_type(&text));
        text.push(b'\n');
        let text = Bytes::from(text);
        let health = Bytes::from_static(b"{\"status\":\"ok\"}\n");
        let health_type = sniff::content_type(&health);
        let template = |status, content_type: &HeaderValue, body: &Bytes| {
            Template::new(status, content_type, body, &pod)
        };
        Self(Arc::new(State {
            text: template(status, &content_type, &text),
            connect: template(StatusCode::METHOD_NOT_ALLOWED, &content_type, &text),
            health: template(StatusCode::OK, &health_type, &health),
            faulty: template(
                faults.status,
                &content_type,
                &Bytes::from_static(b"injected fault\n"),
            ),
            faults,
            requests: AtomicU64::new(0),
            log,
            accept_queue: AcceptQueue::new(),
        }))
    }
}

impl Template {
    fn new(status: StatusCode, content_type: &HeaderValue, body: &Bytes, pod: &Pod) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(APP_NAME, HeaderValue::from_static("echo-server"));
        headers.insert(
            APP_VERSION,
            HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
        );
        let Pod {
            name,
            node,
            namespace,
        } = pod;
        for (header, value) in [
            (POD_NAME, name),
            (NODE_NAME, node),
            (POD_NAMESPACE, namespace),
        ] {
            if let Some(value) = value {
                headers.insert(header, value.clone());
            }
        }
        // These have no content (RFC 9110, sections 15.3.5 and 15.4.5).
        let body = match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Bytes::new(),
            _ => {
                headers.insert(CONTENT_TYPE, content_type.clone());
                headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                body.clone()
            }
        };
        Self {
            status,
            headers,
            body,
        }
    }

    /// A response to one request.
    fn respond(
        &self,
        method: &Method,
        request_id: Option<&HeaderValue>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let body = match *method {
            Method::HEAD => Bytes::new(),
            _ => self.body.clone(),
        };
        let mut response = Response::new(Body::Whole(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        if let Some(id) = request_id {
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID, id.clone());
            let mut address = Vec::with_capacity(MAX_ADDRESS);
            append_address(&mut address, peer);
            if let Ok(address) = HeaderValue::from_bytes(&address) {
                headers.insert(PEER_ADDRESS, address);
            }
        }
        response
    }
}

impl Faults {
    /// Counts a request in `requests`, and returns whether its response is to be faulty. The faulty responses are
    /// spread evenly: among each hundred there are exactly as many as the percentage says.
    fn should_inject(&self, requests: &AtomicU64) -> bool {
        let percent = u64::from(self.percent);
        if percent == 0 {
            return false;
        }
        let n = requests.fetch_add(1, Relaxed) % 100;
        (n + 1) * percent / 100 > n * percent / 100
    }
}

impl Handler for Echo {
    fn answer(&self, head: &Parts, arrival: Arrival) -> Reply {
        let state = &*self.0;
        if head.uri.path() == "/health" {
            let request_id = head.headers.get(REQUEST_ID);
            let health = &state.health;
            return Reply::Now(health.respond(&head.method, request_id, arrival.peer));
        }
        if head.method == Method::CONNECT {
            return Reply::Now(state.respond(&state.connect, head, arrival));
        }
        if state.faults.should_inject(&state.requests) {
            let (state, head) = (Arc::clone(&self.0), keep_head(head));
            return Reply::Later(Box::pin(async move {
                tokio::time::sleep(state.faults.delay).await;
                state.respond(&state.faulty, &head, arrival)
            }));
        }
        Reply::Now(state.respond(&state.text, head, arrival))
    }
}

impl State {
    /// Responds to a request, and logs it.
    fn respond(&self, template: &Template, head: &Parts, arrival: Arrival) -> Response<Body> {
        let request_id = head.headers.get(REQUEST_ID);
        let mut response = template.respond(&head.method, request_id, arrival.peer);
        if request_id.is_some()
            && head.headers.contains_key(WANT_LISTEN_OVERFLOWS)
            && let Some(overflows) = self.accept_queue.overflows()
        {
            let headers = response.headers_mut();
            headers.insert(LISTEN_OVERFLOWS, overflows.into());
        }
        self.log.write(&Entry {
            head,
            request_id,
            arrival,
            status: template.status,
            bytes: template.body.len(),
        });
        response
    }
}
