//! The likely cause if only some of the calls of a target failed.

use std::collections::BTreeSet;

use super::connect_cause;
use crate::failure::{Failure, FailureKind, Stage};
use crate::report::Report;

/// The likely cause if some calls of the same target failed, as this one did, and others succeeded; `None` if the others
/// do not change it.
pub(crate) fn likely_of_some<'a>(
    report: &Report,
    failure: &Failure,
    reports: impl Iterator<Item = &'a Report> + Clone,
) -> Option<&'static str> {
    use FailureKind::*;
    let status = report.response().map(|response| response.status.as_u16());
    let fails = |report: &&Report| !report.is_ok();
    let failing: BTreeSet<_> = reports
        .clone()
        .filter(fails)
        .filter_map(Report::backend)
        .collect();
    let succeeding = reports.clone().filter(|report| report.is_ok());
    let mut healthy = succeeding.clone().filter_map(Report::backend);
    // Without the name of a pod, it is not known which of the pods behind an address failed.
    let is_of_unknown_pod = reports.clone().filter(fails).any(|failed| {
        let mut succeeding = succeeding.clone();
        let pod = failed.response().and_then(|response| response.pod.as_ref());
        pod.is_none() && succeeding.any(|well| well.address == failed.address)
    });
    Some(match (failure.stage, failure.kind) {
        (_, ResolvConf | Local | PathMtu | ProxyError | Unproven) => return None,
        (_, HttpStatus) if status == Some(429) => return None,
        (_, HttpStatus) if is_of_unknown_pod && status.is_some_and(|status| status < 500) => {
            "some of the pods do not serve the request, or the backend does so only at times"
        }
        (_, ConnectUnreachable)
            if failure.stage > Stage::Connect || connect_cause(report, failure).is_some() =>
        {
            return None;
        }
        (_, DnsNxdomain | DnsNodata) => {
            "the servers of DNS disagree about the name, or it comes and goes"
        }
        (_, TlsUntrusted | TlsExpired | TlsName) => "the pods do not all have the same certificate",
        (Stage::Dns, _) => "cluster DNS answers only at times",
        (Stage::Connect, _) => "some of the endpoints are dead or not ready, and others are well",
        _ if is_of_unknown_pod => "the backend fails at times: one of its pods, or all of them",
        // A pod whose calls succeed only at times is not healthy.
        _ if healthy.any(|pod| !failing.contains(&pod)) => {
            "some of the pods are sick, and others are well"
        }
        _ => "the backend fails at times, whichever pod answers",
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::http::StatusCode;

    use super::likely_of_some;
    use crate::failure::{Cause, Failure, FailureKind, Stage};
    use crate::report::{Outcome, Report, Response};

    fn failed(stage: Stage, kind: FailureKind, status: Option<u16>) -> Report {
        let failure = Failure::new(stage, kind, Cause::Timeout, Duration::ZERO);
        let status = status.map(|status| StatusCode::from_u16(status).expect("a status"));
        Report::of_outcome(Outcome::Failed(failure, status.map(Response::of_status)))
    }

    #[test]
    fn the_cause_for_some_calls_depends_on_the_kind_of_failure() {
        use FailureKind::*;
        for (stage, kind, status, expected) in [
            (
                Stage::Dns,
                DnsNxdomain,
                None,
                Some("servers of DNS disagree"),
            ),
            (
                Stage::Dns,
                DnsTimeout,
                None,
                Some("cluster DNS answers only at times"),
            ),
            (Stage::Dns, Local, None, None),
            (
                Stage::Connect,
                ConnectRefused,
                None,
                Some("some of the endpoints are dead"),
            ),
            (Stage::Connect, Local, None, None),
            (
                Stage::Tls,
                TlsName,
                None,
                Some("do not all have the same certificate"),
            ),
            (
                Stage::Http,
                Reset,
                None,
                Some("one of its pods, or all of them"),
            ),
            (
                Stage::Http,
                HttpStatus,
                Some(500),
                Some("one of its pods, or all of them"),
            ),
            (Stage::Http, HttpStatus, Some(429), None),
            (
                Stage::Http,
                HttpStatus,
                Some(404),
                Some("some of the pods do not serve the request"),
            ),
        ] {
            let well = Response::of_status(StatusCode::OK);
            let well = Report::of_outcome(Outcome::Answered(well));
            let reports = [failed(stage, kind, status), well];
            let failure = reports[0].failure().expect("it failed");
            let likely = likely_of_some(&reports[0], failure, reports.iter());
            let is_expected = match (likely, expected) {
                (Some(likely), Some(expected)) => likely.contains(expected),
                (likely, expected) => likely == expected,
            };
            assert!(is_expected, "{kind}: {likely:?}");
        }
    }
}
