//! The answers:
//!
//! - every path and method -- the text, with the status asked for
//! - `/health` -- 200 and `{"status":"ok"}`, whatever the status asked for, and not in the log
//! - a share of them, with [`Faults`] -- late, or another status
//! - `CONNECT` -- 405 with the text: a 2xx would promise a tunnel, and could carry no text
//!
//! A request with `X-Request-Id` gets it back, and with it `X-Peer-Address`: the address and port that this
//! server saw, `10.244.0.7:41234` or `[fd00::7]:41234`. A client that knows its own can tell a NAT on the way.

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

/// Longest address with a port, `[FFFF:…:FFFF]:65535`, and one byte to spare.
const MAX_ADDRESS: usize = 48;

/// Answers with the text.
#[derive(Clone, Debug)]
pub(crate) struct Echo(Arc<Answers>);

#[derive(Debug)]
struct Answers {
    text: Answer,
    connect: Answer,
    health: Answer,
    faulty: Answer,
    faults: Faults,
    /// Requests that might have been faulty.
    turn: AtomicU64,
    log: Lines,
    accept_queue: AcceptQueue,
}

/// An answer made ready, so that a request costs no more than a copy.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Echo {
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
        let answer = |status, content_type: &HeaderValue, body: &Bytes| {
            Answer::new(status, content_type, body, &pod)
        };
        Self(Arc::new(Answers {
            text: answer(status, &content_type, &text),
            connect: answer(StatusCode::METHOD_NOT_ALLOWED, &content_type, &text),
            health: answer(StatusCode::OK, &health_type, &health),
            faulty: answer(
                faults.status,
                &content_type,
                &Bytes::from_static(b"injected fault\n"),
            ),
            faults,
            turn: AtomicU64::new(0),
            log,
            accept_queue: AcceptQueue::new(),
        }))
    }
}

impl Answer {
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
        // RFC 9110, sections 15.3.5 and 15.4.5: these have no content.
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
    /// Whether it is the turn of a fault: evenly spread, so that each hundred requests have their
    /// share.
    fn strike(&self, turn: &AtomicU64) -> bool {
        let percent = u64::from(self.percent);
        if percent == 0 {
            return false;
        }
        let n = turn.fetch_add(1, Relaxed) % 100;
        (n + 1) * percent / 100 > n * percent / 100
    }
}

impl Handler for Echo {
    fn answer(&self, head: &Parts, arrival: Arrival) -> Reply {
        let answers = &*self.0;
        if head.uri.path() == "/health" {
            let request_id = head.headers.get(REQUEST_ID);
            let health = &answers.health;
            return Reply::Now(health.respond(&head.method, request_id, arrival.peer));
        }
        if head.method == Method::CONNECT {
            return Reply::Now(answers.give(&answers.connect, head, arrival));
        }
        if answers.faults.strike(&answers.turn) {
            let (answers, head) = (Arc::clone(&self.0), keep_head(head));
            return Reply::Later(Box::pin(async move {
                tokio::time::sleep(answers.faults.delay).await;
                answers.give(&answers.faulty, &head, arrival)
            }));
        }
        Reply::Now(answers.give(&answers.text, head, arrival))
    }
}

impl Answers {
    /// Answers, and says so in the log.
    fn give(&self, answer: &Answer, head: &Parts, arrival: Arrival) -> Response<Body> {
        let request_id = head.headers.get(REQUEST_ID);
        let mut response = answer.respond(&head.method, request_id, arrival.peer);
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
            status: answer.status,
            bytes: answer.body.len(),
        });
        response
    }
}
