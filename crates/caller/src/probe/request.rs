//! Builds the request: its header fields, and its target in the form of each version of HTTP.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Version};
use http_body_util::Empty;

use super::config::HttpConfig;
use crate::target::{self, Target};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("caller/", env!("CARGO_PKG_VERSION")));
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WANT_LISTEN_OVERFLOWS: HeaderName = HeaderName::from_static("x-want-listen-overflows");
const PADDING: HeaderName = HeaderName::from_static("x-padding");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Options of one request, which differ between requests to the same target.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestOptions<'a> {
    /// Sent as `X-Request-Id`, which echo-server sends back.
    pub(super) request_id: &'a str,
    /// Size of an additional header field, in bytes: it makes the request larger, but not its response.
    pub(super) padding: usize,
    /// Whether to ask echo-server for the overflows of its accept queue.
    pub(super) wants_listen_overflows: bool,
}

impl<'a> RequestOptions<'a> {
    /// The default options, with which the request is as small as possible.
    pub(super) fn new(request_id: &'a str) -> Self {
        Self {
            request_id,
            padding: 0,
            wants_listen_overflows: false,
        }
    }
}

/// Builds the request, which has no body.
pub(super) fn request(
    config: &HttpConfig,
    target: &Target,
    options: RequestOptions<'_>,
    version: Version,
) -> Request<Empty<Bytes>> {
    let RequestOptions {
        request_id,
        padding,
        wants_listen_overflows,
    } = options;
    let mut headers = HeaderMap::new();
    // In HTTP/2 the authority is part of the URI (RFC 9113, section 8.3.1).
    if version == Version::HTTP_11 {
        headers.insert(HOST, target.authority.clone());
    }
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    // `traceparent`: version, trace id, parent id and the flag `sampled`
    // (<https://www.w3.org/TR/trace-context/>).
    let (trace, parent) = (
        rand::random::<u128>().max(1),
        &request_id[..request_id.len().min(16)],
    );
    let trace = format!("00-{trace:032x}-{parent}-01");
    if let Ok(trace) = HeaderValue::try_from(trace) {
        headers.insert(TRACE_PARENT, trace);
    }
    if wants_listen_overflows {
        headers.insert(WANT_LISTEN_OVERFLOWS, HeaderValue::from_static("1"));
    }
    if padding > 0
        && let Ok(value) = HeaderValue::try_from("0".repeat(padding))
    {
        headers.insert(PADDING, value);
    }
    for name in config.headers.keys() {
        headers.remove(name);
    }
    headers.extend(config.headers.clone());
    if let Ok(request_id) = HeaderValue::try_from(request_id) {
        headers.append(REQUEST_ID, request_id);
    }
    let mut request = Request::new(Empty::new());
    *request.method_mut() = config.method.clone();
    *request.uri_mut() = uri(target, version);
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    request
}

fn uri(target: &Target, version: Version) -> Uri {
    let path: PathAndQuery = target.path.clone();
    let authority = Authority::try_from(target.authority.as_bytes());
    match (version, authority) {
        (Version::HTTP_2, Ok(authority)) => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(match target.scheme {
                target::Scheme::Https => Scheme::HTTPS,
                target::Scheme::Http | target::Scheme::Tcp => Scheme::HTTP,
            });
            parts.authority = Some(authority);
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).unwrap_or_default()
        }
        _ => Uri::from(path),
    }
}
