//! Reports and the summary as JSON, one object per line:
//!
//! ```json
//! {"time":"2025-12-10T16:20:00.000Z","url":"http://backend:8080/","request_id":"8def883d28abcb44",
//!  "result":"ok","dns":{…},"address":"10.96.3.4:8080","pod":"backend-1","status":200,
//!  "body":"Hello from Backend Service!\n","body_bytes":28,
//!  "phases_ms":{"dns":1.1,"connect":0.2,"first_byte":0.4,"total":1.9}}
//! ```
//!
//! `result` is `ok` or the kind of failure, and with a failure there is `error`:
//!
//! ```json
//! {"stage":"http","kind":"empty_reply","exit_code":52,"message":"the connection was closed …",
//!  "detail":{"cause":"closed","received_bytes":0,"after_ms":0.3},"evidence":"…","likely":"…"}
//! ```
//!
//! With TLS there is `tls`: version, protocol, whether the certificate was verified, and the certificate.
//! With several targets there is `target`, and with an expectation `expectation` and `as_expected`. If a call
//! was blocked and has a control, `control` is the result of the control's call.
//!
//! `detail` contains the data from which the sentence in `evidence` is made. The last object of a run has `summary` in
//! place of `result`. Members without a value are left out. All durations are in milliseconds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use runtime::escape::EscapedJson;
use serde::Serialize;

use crate::clock;
use crate::dns::{Lookup, Query, QueryOutcome};
use crate::expectation::Expectation;
use crate::failure::{Cause, Direction, Failure, Http2Error, OsError, TlsError};
use crate::report::{Phase, Report, Response, Source, Timings, Tls};
use crate::target::Target;
use crate::verdict;

/// Displays a report as a JSON object, without a newline.
pub struct JsonReport<'a> {
    /// The report to display.
    pub report: &'a Report,
    /// Whether to include `target`, because there are several targets.
    pub names_target: bool,
}

impl fmt::Display for JsonReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(f, &call(self.report, self.names_target))
    }
}

/// The JSON form of a report. `names_target` includes `target`, because there are several targets.
pub(crate) fn call(report: &Report, names_target: bool) -> impl Serialize {
    let response = report.response();
    let is_check = report.expectation != Expectation::Ok || names_target;
    Call {
        time: clock::rfc3339(report.started),
        target: target(&report.target, names_target),
        expectation: is_check.then(|| report.expectation.to_string()),
        as_expected: is_check.then(|| report.is_as_expected()),
        url: report.target.as_str(),
        request_id: &report.request_id,
        result: report.result(),
        error: error(report),
        dns: report.lookup.as_deref().map(dns),
        address: report.address,
        source: report.local.map(|address| SourceView {
            address,
            seen_as: response.and_then(|response| response.peer_address),
            nat: match report.source() {
                Some(Source::Unchanged) => Some(false),
                Some(Source::Translated(_)) => Some(true),
                Some(Source::Proxied(_)) | None => None,
            },
        }),
        resent: report.retransmissions.map(|seen| RetransmissionsView {
            syns: seen.syns,
            segments: seen.segments,
            in_this_pod: seen.is_shared,
        }),
        pod: response.and_then(|response| response.pod.as_deref()),
        node: response.and_then(|response| response.node.as_deref()),
        status: response.map(|response| response.status.as_u16()),
        body: response.map(|response| String::from_utf8_lossy(&response.body)),
        body_bytes: response.map(|response| response.body_len),
        tls: report.tls.as_deref().map(tls),
        control: report.control.as_deref().map(|control| ControlView {
            url: control.target.as_str(),
            result: control.result(),
        }),
        phases_ms: timings(&report.timings),
    }
}

/// Writes a value as compact JSON.
pub(crate) fn write_json(f: &mut fmt::Formatter<'_>, value: &impl Serialize) -> fmt::Result {
    f.write_str(&to_json(value))
}

/// Serializes a value as compact JSON.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("all keys are strings");
    EscapedJson(&json).to_string()
}

/// A duration in milliseconds, with a resolution of a microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[derive(Serialize)]
struct Call<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_expected: Option<bool>,
    request_id: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SourceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resent: Option<RetransmissionsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<ControlView<'a>>,
    phases_ms: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct IcmpView {
    r#type: u8,
    code: u8,
    from: IpAddr,
}

#[derive(Serialize)]
struct SourceView {
    address: SocketAddr,
    /// The source address that the backend saw, if the response contains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_as: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<bool>,
}

#[derive(Serialize)]
struct RetransmissionsView {
    syns: u64,
    segments: u64,
    in_this_pod: bool,
}

#[derive(Serialize)]
struct ControlView<'a> {
    url: &'a str,
    result: &'static str,
}

#[derive(Serialize)]
struct TlsView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    verified: bool,
    wants_certificate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView<'a>>,
}

#[derive(Serialize)]
struct CertificateView<'a> {
    subject: &'a str,
    names: &'a [String],
    issuer: &'a str,
    not_before: String,
    not_after: String,
}

#[derive(Serialize)]
pub(crate) struct Error {
    stage: &'static str,
    kind: &'static str,
    exit_code: u8,
    message: &'static str,
    detail: Detail,
    evidence: String,
    likely: Cow<'static, str>,
}

#[derive(Serialize)]
struct Detail {
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_alert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<IcmpView>,
    /// Whether this pod has no route to the address, so that no packet was sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lacks_route: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http2_code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proxy_headers: Vec<String>,
    received_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ms: Option<f64>,
    after_ms: f64,
}

#[derive(Serialize)]
struct Dns<'a> {
    name: &'a str,
    /// The absolute name that has the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    questions: Vec<QueryView>,
}

#[derive(Serialize)]
struct QueryView {
    name: String,
    #[serde(rename = "type")]
    record_type: String,
    server: SocketAddr,
    transport: String,
    rcode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    addresses: Vec<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cnames: Vec<String>,
    ms: f64,
}

/// The JSON form of a call's failure; `None` if it succeeded.
pub(crate) fn error(report: &Report) -> Option<Error> {
    let failure = report.failure()?;
    let Failure { stage, kind, .. } = *failure;
    Some(Error {
        stage: stage.label(),
        kind: kind.label(),
        exit_code: kind.exit_code(),
        message: verdict::what(failure),
        detail: detail(failure, report.response()),
        evidence: verdict::evidence(report, failure),
        likely: verdict::likely(report, failure),
    })
}

fn detail(failure: &Failure, response: Option<&Response>) -> Detail {
    let detail = &failure.detail;
    let proxy = response.and_then(|response| response.proxy.as_ref());
    Detail {
        cause: match detail.cause {
            Cause::Lookup => "lookup",
            Cause::Os(_) => "os",
            Cause::Timeout => "timeout",
            Cause::Closed => "closed",
            Cause::Malformed(_) | Cause::MalformedHttp2(_) => "malformed",
            Cause::Tls(_) => "tls",
            Cause::Http2(_) => "http2",
            Cause::Status => "status",
            Cause::TooLarge(_) => "too_large",
        },
        errno: match detail.cause {
            Cause::Os(OsError { errno, .. }) => errno,
            _ => None,
        },
        tls_alert: match &detail.cause {
            Cause::Tls(TlsError::Alert(alert)) => Some(alert.clone()),
            _ => None,
        },
        icmp: detail.icmp.map(|icmp| IcmpView {
            r#type: icmp.r#type,
            code: icmp.code,
            from: icmp.from,
        }),
        lacks_route: detail.lacks_route,
        path_mtu: detail.hole.map(|hole| hole.mtu),
        lost: detail
            .hole
            .and_then(|hole| hole.direction)
            .map(|direction| match direction {
                Direction::There => "there",
                Direction::Back => "back",
            }),
        http2_code: match detail.cause {
            Cause::Http2(Http2Error { reason, .. }) => Some(reason.into()),
            _ => None,
        },
        status: response.map(|response| response.status.as_u16()),
        location: response.and_then(|response| response.location.clone()),
        proxy: proxy.map(|proxy| proxy.name),
        proxy_headers: proxy.map_or(Vec::new(), |proxy| proxy.headers.clone()),
        received_bytes: detail.received.bytes,
        body_bytes: detail.received.body,
        idle_ms: detail.idle.map(millis),
        after_ms: millis(detail.after),
    }
}

/// The value of `target` in JSON; `None` if the target has no name and is the only one.
pub(crate) fn target(target: &Target, is_one_of_several: bool) -> Option<&str> {
    (is_one_of_several || target.name().is_some()).then(|| target.label())
}

fn tls(tls: &Tls) -> TlsView<'_> {
    let certificate = tls.certificate.as_ref().map(|certificate| CertificateView {
        subject: &certificate.subject,
        names: &certificate.names,
        issuer: &certificate.issuer,
        not_before: clock::rfc3339(certificate.not_before),
        not_after: clock::rfc3339(certificate.not_after),
    });
    TlsView {
        version: tls.version,
        protocol: tls.protocol.as_deref(),
        verified: tls.is_verified,
        wants_certificate: tls.wants_certificate,
        certificate,
    }
}

fn dns(lookup: &Lookup) -> Dns<'_> {
    Dns {
        name: &lookup.name,
        answered: lookup.answered.as_ref().map(|name| name.to_ascii()),
        note: verdict::dns::note(lookup),
        questions: lookup.queries.iter().map(query).collect(),
    }
}

fn query(query: &Query) -> QueryView {
    let (ttl, addresses) = match &query.outcome {
        QueryOutcome::Addresses { addresses, ttl } => (Some(*ttl), addresses.clone()),
        _ => (None, Vec::new()),
    };
    QueryView {
        name: query.name.to_ascii(),
        record_type: query.family.to_string(),
        server: query.server,
        transport: query.transport.to_string(),
        rcode: query.outcome.to_string(),
        ttl,
        addresses,
        cnames: query.cnames.iter().map(|name| name.to_ascii()).collect(),
        ms: millis(query.duration),
    }
}

pub(crate) fn timings(timings: &Timings) -> BTreeMap<&'static str, f64> {
    let reached =
        |(phase, duration): (Phase, Option<Duration>)| Some((phase.label(), millis(duration?)));
    timings.iter().filter_map(reached).collect()
}
