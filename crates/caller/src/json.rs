//! Reports and the summary as JSON, an object a line:
//!
//! ```json
//! {"time":"2025-12-10T16:20:00.000Z","url":"http://backend:8080/","request_id":"8def883d28abcb44",
//!  "result":"ok","dns":{…},"address":"10.96.3.4:8080","pod":"backend-1","status":200,
//!  "body":"Hello from Backend Service!\n","body_bytes":28,
//!  "phases_ms":{"dns":1.1,"connect":0.2,"first_byte":0.4,"total":1.9}}
//! ```
//!
//! `result` is `ok` or a kind, and with a kind there is `error`. The last object of a run has
//! `summary` in place of `result`. Absent values are left out. Times are in milliseconds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use runtime::escape::EscapedJson;
use serde::Serialize;

use crate::dns::{Lookup, Query, QueryOutcome};
use crate::failure::FailureKind as Kind;
use crate::report::{Failure, Phases, Report};

/// Displays a report as a JSON object, without a newline.
pub struct JsonReport<'a> {
    /// What was called.
    pub url: &'a str,
    /// What came of it.
    pub report: &'a Report,
}

impl fmt::Display for JsonReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(f, &call(self.url, self.report))
    }
}

/// A report as it stands in JSON.
pub(crate) fn call<'a>(url: &'a str, report: &'a Report) -> impl Serialize {
    let answer = report.answer.as_ref();
    Call {
        time: time(report.started),
        url,
        request_id: &report.request_id,
        result: report.result(),
        error: report
            .failure
            .as_ref()
            .map(|failure| error(failure, report.likely_cause())),
        dns: report.lookup.as_deref().map(dns),
        address: report.address,
        pod: answer.and_then(|answer| answer.pod.as_deref()),
        status: answer.map(|answer| answer.status),
        body: answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()),
        body_bytes: answer.map(|answer| answer.body_len),
        phases_ms: phases(&report.phases),
    }
}

/// Writes a value as compact JSON.
pub(crate) fn write_json(f: &mut fmt::Formatter<'_>, value: &impl Serialize) -> fmt::Result {
    let json = serde_json::to_string(value).map_err(|_| fmt::Error)?;
    write!(f, "{}", EscapedJson(&json))
}

/// A moment, to the millisecond (RFC 3339).
pub(crate) fn time(timestamp: Timestamp) -> String {
    format!("{timestamp:.3}")
}

/// A duration in milliseconds, to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[derive(Serialize)]
struct Call<'a> {
    time: String,
    url: &'a str,
    request_id: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
    phases_ms: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
pub(crate) struct Error<'a> {
    kind: &'static str,
    exit_code: u8,
    message: &'static str,
    evidence: &'a str,
    likely: Cow<'static, str>,
}

#[derive(Serialize)]
struct Dns<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    questions: Vec<QuestionView>,
}

#[derive(Serialize)]
struct QuestionView {
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

pub(crate) fn error<'a>(failure: &'a Failure, likely: Cow<'static, str>) -> Error<'a> {
    let Failure { kind, evidence } = failure;
    Error {
        kind: kind.label(),
        exit_code: Kind::exit_code(*kind),
        message: crate::verdict::words(*kind),
        evidence,
        likely,
    }
}

fn dns(lookup: &Lookup) -> Dns<'_> {
    Dns {
        name: &lookup.name,
        answered: lookup.answered.as_ref().map(|name| name.to_ascii()),
        note: crate::verdict::dns::note(lookup),
        questions: lookup.queries.iter().map(question).collect(),
    }
}

fn question(question: &Query) -> QuestionView {
    let (ttl, addresses) = match &question.outcome {
        QueryOutcome::Addresses { addresses, ttl } => (Some(*ttl), addresses.clone()),
        _ => (None, Vec::new()),
    };
    QuestionView {
        name: question.name.to_ascii(),
        record_type: question.family.to_string(),
        server: question.server,
        transport: question.transport.to_string(),
        rcode: question.outcome.to_string(),
        ttl,
        addresses,
        cnames: question.cnames.iter().map(|name| name.to_ascii()).collect(),
        ms: millis(question.duration),
    }
}

pub(crate) fn phases(phases: &Phases) -> BTreeMap<&'static str, f64> {
    phases
        .named()
        .into_iter()
        .filter_map(|(name, duration)| Some((name, millis(duration?))))
        .collect()
}
