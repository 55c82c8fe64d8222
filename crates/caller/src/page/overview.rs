//! The JSON object that `/status.json` and `/events` contain if there are several targets:
//!
//! ```json
//! {"instance":"5f0c71d2a9b3e846","version":"0.1.0","name":"frontend-1","mesh":false,"interval_ms":10000.0,
//!  "started":"2025-12-10T16:00:00.000Z","time":"2025-12-10T16:20:03.120Z",
//!  "targets":[{"target":"backend","url":"http://backend:8080/","expectation":"ok","state":"failing",
//!    "state_since":"2025-12-10T16:19:50.000Z","kind":"connect_refused",
//!    "message":"the connection was refused","last_success":"…","calls":120,"unexpected":2}]}
//! ```
//!
//! `mesh` is whether `/mesh` exists, `target` is the name or the URL, and `state` is as in [`super::status`].
//! `kind` and `message` describe the last call within this state whose result was not as expected;
//! `unexpected` is the number of such calls.

use std::time::SystemTime;

use serde::Serialize;

use super::Page;
use super::status::{message, state};
use crate::clock;
use crate::stats::{State, Stats, Unexpected};
use crate::views::json;

#[derive(Serialize)]
struct Overview<'a> {
    instance: &'a str,
    version: &'static str,
    name: Option<&'a str>,
    mesh: bool,
    interval_ms: f64,
    started: String,
    time: String,
    targets: Vec<TargetView>,
}

#[derive(Serialize)]
struct TargetView {
    target: String,
    url: String,
    expectation: String,
    state: &'static str,
    state_since: Option<String>,
    kind: Option<&'static str>,
    message: Option<&'static str>,
    last_success: Option<String>,
    calls: u64,
    unexpected: u64,
}

impl Page {
    /// The state of all targets as JSON.
    pub(super) fn overview(&self) -> String {
        json::to_json(&Overview {
            instance: &self.instance,
            version: env!("CARGO_PKG_VERSION"),
            name: self.name.as_deref(),
            mesh: self.has_mesh,
            interval_ms: json::millis(self.interval),
            started: clock::rfc3339(self.started),
            time: clock::rfc3339(SystemTime::now()),
            targets: self.stats.iter().map(|stats| target(stats)).collect(),
        })
    }
}

fn target(stats: &Stats) -> TargetView {
    let State { summary, history } = &*stats.state();
    let now = history.health.status();
    let unexpected = now.and_then(|health| health.now.unexpected.as_ref());
    TargetView {
        target: summary.target().label().to_owned(),
        url: summary.target().to_string(),
        expectation: summary.expectation().to_string(),
        state: state(history),
        state_since: now.map(|health| clock::rfc3339(health.now.since)),
        kind: unexpected
            .and_then(Unexpected::kind)
            .map(|kind| kind.label()),
        message: unexpected.map(message),
        last_success: history.last_success.map(clock::rfc3339),
        calls: summary.calls(),
        unexpected: summary.unexpected(),
    }
}
