//! The JSON object that `/status.json` and `/events` contain:
//!
//! ```json
//! {"instance":"5f0c71d2a9b3e846","version":"0.1.0","name":"frontend-1","mesh":false,"interval_ms":10000.0,
//!  "started":"2025-12-10T16:00:00.000Z","time":"2025-12-10T16:20:03.120Z",
//!  "state":"failing","state_since":"2025-12-10T16:19:50.000Z","cause_since":"2025-12-10T16:20:00.000Z",
//!  "recent":{"calls":10,"failed":2,"failures":[
//!    {"kind":"http_status","message":"…","status":503,"pod":"backend-2","address":"…","calls":2}]},
//!  "before":{"state":"working","since":"…","until":"2025-12-10T16:19:50.000Z","kind":null,"message":null},
//!  "ok":false,"since":"2025-12-10T16:19:50.000Z","last_success":"2025-12-10T16:19:40.002Z",
//!  "last":{…},"next":"kubectl get endpointslices …","summary":{…},
//!  "failures":[{"number":119,"time":"…","request_id":"…","pod":"…","address":"…","error":{…},"next":"…"}],
//!  "first_call":0,"calls":[{"time":"…","result":"ok","pod":"backend-1","address":"…","phases_ms":{…}}]}
//! ```
//!
//! `state` is `waiting` before the first round has ended, then `working`, `unsteady` or `failing`, by the
//! rule in `stats/health.rs`. `recent` counts the calls of the last ten rounds, on which it depends, and
//! lists their five most frequent failures, by kind and backend. `before` is the state before `state_since`,
//! with the last failure in it. `cause_since` is when the kind of failure of the last round first occurred,
//! in the current series of failures.
//!
//! `mesh` is whether `/mesh` exists. `ok` is whether the last round succeeded, and `since` is the time at which the
//! current series of such rounds began. `last` is a call of that round in the format of [`crate::views::json`]: a
//! failed one, if there is one. `next` is the next command to run, if it failed. `summary` is the summary of the whole
//! run. Members without a value are null. `failures` contains the last 20 failures, the newest last, and `calls` the
//! last 360 calls, numbered from `first_call`. `pod` is the pod that responded, or its address if the response does not
//! name the pod. An event contains the calls since the previous event; its id is `instance:number`, with the number of
//! the next call.
//!
//! With several targets, there is also `target`, which is the name or the URL; and if the calls are expected
//! to fail, `expectation`. With an expectation, `state`, `ok`, `last_success` and `failures` tell results
//! that are as expected from those that are not.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use runtime::escape::EscapedJson;
use serde::Serialize;

use super::Page;
use crate::clock;
use crate::expectation::Expectation;
use crate::failure::FailureKind;
use crate::report::Report;
use crate::stats::{Call, History, Period, State, Stats, Unexpected};
use crate::verdict;
use crate::views::{json, summary};

/// The message of a call that succeeded although a failure was expected.
const SUCCEEDED: &str = "the call succeeded";

/// Maximum number of recent failures that are listed, by kind and backend.
const MAX_RECENT: usize = 5;

#[derive(Serialize)]
struct Status<'a, L, S> {
    instance: &'a str,
    version: &'static str,
    name: Option<&'a str>,
    mesh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectation: Option<String>,
    interval_ms: f64,
    started: String,
    time: String,
    state: &'static str,
    state_since: Option<String>,
    cause_since: Option<String>,
    recent: Recent<'a>,
    before: Option<Before>,
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
struct Recent<'a> {
    calls: usize,
    failed: usize,
    failures: Vec<RecentFailure<'a>>,
}

#[derive(Serialize)]
struct RecentFailure<'a> {
    kind: &'static str,
    message: &'static str,
    status: Option<u16>,
    pod: Option<&'a str>,
    address: Option<SocketAddr>,
    calls: usize,
}

#[derive(Serialize)]
struct Before {
    state: &'static str,
    since: String,
    until: String,
    kind: Option<&'static str>,
    message: Option<&'static str>,
}

#[derive(Serialize)]
struct FailureView<'a> {
    number: u64,
    time: String,
    request_id: &'a str,
    pod: Option<String>,
    address: Option<SocketAddr>,
    error: Option<json::Error>,
    next: Option<String>,
}

#[derive(Serialize)]
struct CallView<'a> {
    time: String,
    result: &'static str,
    /// Present if it differs from what `result` suggests: for a failure that was expected, or a success that
    /// was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_expected: Option<bool>,
    /// TCP retransmissions, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    pod: Option<&'a str>,
    address: Option<SocketAddr>,
    phases_ms: BTreeMap<&'static str, f64>,
}

/// The calls that a client knows already: all before `number`, if `instance` is still the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    instance: String,
    number: u64,
}

impl Known {
    /// Parses the id of an event. With any other text, no call is known.
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

    /// Number of the first call that the client does not know.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The id of an event after which these calls are known.
    pub(super) fn event_id(&self) -> String {
        format!("{}:{}", self.instance, self.number)
    }
}

impl Page {
    /// The status of a target as JSON, with the calls that the client does not know; and the calls that it knows
    /// afterwards.
    pub(super) fn status(&self, stats: &Stats, known: &Known) -> (String, Known) {
        let State {
            summary: totals,
            history,
        } = &*stats.state();
        let has_several_targets = self.has_several_targets();
        let expectation = totals.expectation();
        let from = match known.instance == self.instance {
            true => known.number,
            false => 0,
        };
        let (first_call, calls) = history.calls_from(from);
        let failures = history.failures.iter();
        let now = history.health.status();
        let json = serde_json::to_string(&Status {
            instance: &self.instance,
            version: env!("CARGO_PKG_VERSION"),
            name: self.name.as_deref(),
            mesh: self.has_mesh,
            target: has_several_targets.then(|| totals.target().label()),
            expectation: (expectation != Expectation::Ok).then(|| expectation.to_string()),
            interval_ms: json::millis(self.interval),
            started: clock::rfc3339(self.started),
            time: clock::rfc3339(SystemTime::now()),
            state: state(history),
            state_since: now.map(|health| clock::rfc3339(health.now.since)),
            cause_since: now.and_then(|health| Some(clock::rfc3339(health.cause?.1))),
            recent: recent(history),
            before: now.and_then(|health| Some(before(health.before.as_ref()?, &health.now))),
            ok: now.map(|health| health.ok),
            since: now.map(|health| clock::rfc3339(health.since)),
            last_success: history.last_success.map(clock::rfc3339),
            last: history
                .last
                .as_ref()
                .map(|report| json::call(report, has_several_targets)),
            next: history.last.as_ref().and_then(next),
            summary: summary::json_summary(totals, has_several_targets),
            failures: failures.map(|(n, report)| failure(*n, report)).collect(),
            first_call,
            calls: calls.map(call).collect(),
        });
        let known = Known {
            instance: self.instance.clone(),
            number: history.count,
        };
        let json = json.unwrap_or_default();
        (EscapedJson(&json).to_string(), known)
    }
}

/// The value of `state` in JSON.
pub(super) fn state(history: &History) -> &'static str {
    let now = history.health.status();
    now.map_or("waiting", |health| health.now.condition.label())
}

/// The message for an unexpected result.
pub(super) fn message(unexpected: &Unexpected) -> &'static str {
    match unexpected {
        Unexpected::Failed(failure) => verdict::what(failure),
        Unexpected::Succeeded => SUCCEEDED,
    }
}

/// The calls that the state depends on.
fn recent(history: &History) -> Recent<'_> {
    let (calls, failed) = history.health.recent();
    let mut counts = BTreeMap::new();
    for call in history.recent_calls() {
        if call.is_as_expected {
            continue;
        }
        let status = call.status.map(|status| status.as_u16());
        let key = (call.failure, status, call.backend.as_deref(), call.address);
        *counts.entry(key).or_insert(0) += 1;
    }
    let mut failures: Vec<RecentFailure<'_>> = counts
        .into_iter()
        .map(|((kind, status, pod, address), calls)| RecentFailure {
            kind: kind.map_or("ok", FailureKind::label),
            message: kind.map_or(SUCCEEDED, verdict::words),
            status,
            pod,
            address,
            calls,
        })
        .collect();
    failures.sort_by_key(|failure| Reverse(failure.calls));
    failures.truncate(MAX_RECENT);
    Recent {
        calls,
        failed,
        failures,
    }
}

fn before(before: &Period, now: &Period) -> Before {
    let unexpected = before.unexpected.as_ref();
    Before {
        state: before.condition.label(),
        since: clock::rfc3339(before.since),
        until: clock::rfc3339(now.since),
        kind: unexpected
            .and_then(Unexpected::kind)
            .map(FailureKind::label),
        message: unexpected.map(message),
    }
}

/// The next command to run, if the call failed.
fn next(report: &Report) -> Option<String> {
    Some(verdict::next_command(report, report.kind()?))
}

fn failure(number: u64, report: &Report) -> FailureView<'_> {
    FailureView {
        number,
        time: clock::rfc3339(report.started),
        request_id: &report.request_id,
        pod: report.backend(),
        address: report.address,
        error: json::error(report),
        next: next(report),
    }
}

fn call(call: &Call) -> CallView<'_> {
    CallView {
        time: clock::rfc3339(call.started),
        result: call.failure.map_or("ok", |kind| kind.label()),
        as_expected: (call.is_as_expected == call.failure.is_some()).then_some(call.is_as_expected),
        tcp: call
            .retransmissions
            .and_then(verdict::path::retransmissions),
        pod: call.backend.as_deref(),
        address: call.address,
        phases_ms: json::timings(&call.timings),
    }
}
