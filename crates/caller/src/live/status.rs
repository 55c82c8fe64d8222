//! What `/status.json` and `/events` say, as a JSON object:
//!
//! ```json
//! {"instance":"5f0c71d2a9b3e846","version":"0.1.0","name":"frontend-1","interval_ms":10000.0,
//!  "started":"2025-12-10T16:00:00.000Z","time":"2025-12-10T16:20:03.120Z",
//!  "ok":false,"since":"2025-12-10T16:19:50.000Z","last_success":"2025-12-10T16:19:40.002Z",
//!  "last":{…},"next":"kubectl get endpointslices …","summary":{…},
//!  "failures":[{"number":119,"time":"…","request_id":"…","error":{…}}],
//!  "first_call":0,"calls":[{"time":"…","result":"ok","backend":"backend-1","phases_ms":{…}}]}
//! ```
//!
//! `ok`, `since`, `last`, `last_success` and `next` are null before there is anything to say. `last` is
//! a call of the last round as [`crate::json`] writes it, one that failed if there is one; `next` is
//! the command to run next, if it failed; `summary` is that of the whole run. `failures` are the last
//! 20, the newest last, and `calls` the last 360, numbered from `first_call`. An event has the calls
//! since the one before; its id is `instance:number`, the number being that of the next call.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use runtime::escape::EscapedJson;
use serde::Serialize;

use super::history::Call;
use super::{About, Live};
use crate::advice::Service;
use crate::json;
use crate::report::Report;

#[derive(Serialize)]
struct Status<'a, L, S> {
    instance: &'a str,
    version: &'static str,
    name: Option<&'a str>,
    interval_ms: f64,
    started: String,
    time: String,
    ok: Option<bool>,
    since: Option<String>,
    last_success: Option<String>,
    last: Option<L>,
    next: Option<String>,
    summary: S,
    failures: Vec<FailureView<'a>>,
    first_call: u64,
    calls: Vec<CallView<'a>>,
}

#[derive(Serialize)]
struct FailureView<'a> {
    number: u64,
    time: String,
    request_id: &'a str,
    address: Option<SocketAddr>,
    error: Option<json::Error<'a>>,
}

#[derive(Serialize)]
struct CallView<'a> {
    time: String,
    result: &'static str,
    backend: Option<&'a str>,
    phases_ms: BTreeMap<&'static str, f64>,
}

/// Which calls somebody knows already: all before `number`, if `instance` is still the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    instance: String,
    number: u64,
}

impl Known {
    /// From the id of an event. What is not such an id knows nothing.
    pub(super) fn from_event_id(id: &str) -> Self {
        let known = || {
            let (instance, number) = id.split_once(':')?;
            Some(Self {
                instance: instance.to_owned(),
                number: number.parse().ok()?,
            })
        };
        known().unwrap_or_default()
    }

    /// The id of the event after which so much is known.
    pub(super) fn event_id(&self) -> String {
        format!("{}:{}", self.instance, self.number)
    }
}

impl Live {
    /// The status as JSON, with the calls that are not `known`, and what is known after it.
    pub(super) fn status(&self, known: &Known) -> (String, Known) {
        let About {
            name,
            url,
            host,
            interval,
        } = &self.about;
        let state = self.state();
        let history = &state.history;
        let from = match known.instance == state.instance {
            true => known.number,
            false => 0,
        };
        let (first_call, calls) = history.calls_from(from);
        let next = |report: &Report| {
            let kind = report.failure.as_ref()?.kind;
            let service = Service::of(host, report.lookup.as_deref());
            Some(service.next_command(kind))
        };
        let failures = history.failures.iter();
        let json = serde_json::to_string(&Status {
            instance: &state.instance,
            version: env!("CARGO_PKG_VERSION"),
            name: name.as_deref(),
            interval_ms: json::millis(*interval),
            started: json::time(state.started),
            time: json::time(Timestamp::now()),
            ok: history.verdict.map(|verdict| verdict.ok),
            since: history.verdict.map(|verdict| json::time(verdict.since)),
            last_success: history.last_success.map(json::time),
            last: history.last.as_ref().map(|report| json::call(url, report)),
            next: history.last.as_ref().and_then(next),
            summary: state.summary.json(),
            failures: failures.map(|(n, report)| failure(*n, report)).collect(),
            first_call,
            calls: calls.map(call).collect(),
        });
        let known = Known {
            instance: state.instance.clone(),
            number: history.count,
        };
        let json = json.unwrap_or_default();
        (EscapedJson(&json).to_string(), known)
    }
}

fn failure(number: u64, report: &Report) -> FailureView<'_> {
    FailureView {
        number,
        time: json::time(report.started),
        request_id: &report.request_id,
        address: report.address,
        error: report
            .failure
            .as_ref()
            .map(|failure| json::error(failure, report.likely_cause())),
    }
}

fn call(call: &Call) -> CallView<'_> {
    CallView {
        time: json::time(call.started),
        result: call.failure.map_or("ok", |kind| kind.label()),
        backend: call.backend.as_deref(),
        phases_ms: json::phases(&call.phases),
    }
}
