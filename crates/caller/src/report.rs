//! What one call came to. Every view (the log, the summary, the exit code) is made of this.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::escape::Escaped;

use crate::dns::{Lookup, LookupFailure};
use crate::failure::FailureKind as Kind;

/// One call.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub started: Timestamp,
    /// Sent as `X-Request-Id`, so that the backend's log can be matched.
    pub request_id: String,
    /// `None`: the URL has a literal address.
    pub lookup: Option<Arc<Lookup>>,
    /// What was called; for a Service that is the ClusterIP. `None`: it did not come to that.
    pub address: Option<SocketAddr>,
    /// Where the time went.
    pub phases: Phases,
    /// The answer, if one came: with [`Kind::HttpStatus`] there is an answer *and* a failure.
    pub answer: Option<Answer>,
    /// Why the call failed, if it did.
    pub failure: Option<Failure>,
}

/// Where the time of a call went. A phase that was not reached is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// From the name to its addresses.
    pub dns: Option<Duration>,
    /// The TCP handshake.
    pub connect: Option<Duration>,
    /// From the connection to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the beginning to the last byte, or to the failure.
    pub total: Duration,
}

impl Phases {
    /// Each phase with its name, in the order of time.
    pub fn named(&self) -> [(&'static str, Option<Duration>); 4] {
        let Self {
            dns,
            connect,
            first_byte,
            total,
        } = *self;
        [
            ("dns", dns),
            ("connect", connect),
            ("first_byte", first_byte),
            ("total", Some(total)),
        ]
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `X-Pod-Name`, where the backend says.
    pub pod: Option<String>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// The length of the whole body, in bytes.
    pub body_len: u64,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In one word.
    pub kind: Kind,
    /// What was seen: names, addresses, errors, times.
    pub evidence: String,
}

impl Report {
    /// Whether the call did what it was to do.
    pub fn is_ok(&self) -> bool {
        self.failure.is_none()
    }

    /// `ok`, or the kind of failure: the word for metrics and JSON.
    pub fn result(&self) -> &'static str {
        self.failure.as_ref().map_or("ok", |f| f.kind.label())
    }

    /// The lookup and its failure, where that is why the call failed.
    pub fn failed_lookup(&self) -> Option<(&Lookup, &LookupFailure)> {
        let lookup = self.lookup.as_deref()?;
        Some((lookup, lookup.outcome.as_ref().err()?))
    }

    /// What is likely behind the failure, in the words of the evidence where it tells more.
    pub fn likely_cause(&self) -> Cow<'static, str> {
        match (self.failed_lookup(), &self.failure) {
            (Some((lookup, failure)), _) => crate::verdict::dns::likely_cause(lookup, failure),
            (None, Some(failure)) => crate::verdict::usual_cause(failure.kind).into(),
            (None, None) => "".into(),
        }
    }

    /// Who answered: the pod, or where the backend does not say, the address. `None`: nobody.
    pub fn backend(&self) -> Option<String> {
        let answer = self.answer.as_ref()?;
        match (&answer.pod, self.address) {
            (Some(pod), _) => Some(Escaped::new(pod.as_bytes()).to_string()),
            (None, address) => address.map(|address| address.to_string()),
        }
    }
}

pub(crate) fn is_before_connection(kind: Kind) -> bool {
    kind <= Kind::Local
}
