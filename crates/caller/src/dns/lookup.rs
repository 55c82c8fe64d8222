//! A lookup: the search list, the servers and the attempts, walked in order, with one verdict.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::query::{self, Family, Query, QueryOutcome, Transport};
use super::search::{Candidate, candidates};
use super::{ConfError, ConfSource, ResolvConf};
use crate::failure::FailureKind;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Both; IPv4 comes first, as RFC 6724 sorts it before the unique local IPv6 addresses that
    /// clusters use.
    #[default]
    Auto,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// Asks for names.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Read for every lookup.
    pub source: ConfSource,
    /// Which addresses to ask for.
    pub families: Families,
    /// How long each question may take.
    pub query_timeout: Duration,
}

/// A lookup, and everything that was asked for it.
#[derive(Debug)]
pub struct Lookup {
    /// The name as it was given.
    pub name: String,
    /// What decided what to ask; `None` where there is none to be had.
    pub conf: Option<ResolvConf>,
    /// In the order in which they were asked.
    pub queries: Vec<Query>,
    /// From the first question to the verdict.
    pub duration: Duration,
    /// The addresses, at least one, or why there is none.
    pub outcome: Result<Vec<IpAddr>, LookupFailure>,
}

/// Why a name has no address. What was asked and answered is in [`Lookup::queries`].
#[derive(Debug)]
pub enum LookupFailure {
    /// There is no usable configuration, so no server was asked.
    Conf(ConfError),
    /// No server was asked, because every name that this one may stand for is too long for DNS.
    InvalidName,
    /// No server was asked before the deadline.
    OutOfTime,
    /// This outcome, of one query or several, decided.
    Answered(QueryOutcome),
}

impl LookupFailure {
    /// The category of this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Conf(_) => FailureKind::ResolvConf,
            Self::InvalidName => FailureKind::DnsNxdomain,
            Self::OutOfTime => FailureKind::DnsTimeout,
            Self::Answered(outcome) => match outcome {
                QueryOutcome::NxDomain => FailureKind::DnsNxdomain,
                QueryOutcome::NoData | QueryOutcome::Addresses { .. } => FailureKind::DnsNodata,
                QueryOutcome::ServFail | QueryOutcome::OtherCode(_) => FailureKind::DnsServfail,
                QueryOutcome::Refused => FailureKind::DnsRefused,
                QueryOutcome::Timeout => FailureKind::DnsTimeout,
                QueryOutcome::Unreachable(_) => FailureKind::DnsUnreachable,
                QueryOutcome::Local(_) => FailureKind::Local,
                QueryOutcome::Malformed(_) | QueryOutcome::Truncated => FailureKind::DnsMalformed,
            },
        }
    }
}

impl Resolver {
    /// Resolves `name`, until `deadline` at the latest.
    pub async fn lookup(&self, name: &str, deadline: Instant) -> Lookup {
        let start = Instant::now();
        let mut queries = Vec::new();
        let (conf, outcome) = match self.source.read() {
            Ok(conf) => {
                let walked = self.walk(name, &conf, deadline, &mut queries).await;
                (Some(conf), walked)
            }
            Err(error) => (None, Err(LookupFailure::Conf(error))),
        };
        Lookup {
            name: name.to_owned(),
            conf,
            queries,
            duration: start.elapsed(),
            outcome,
        }
    }

    /// Like glibc's `__res_context_search`: NXDOMAIN, NODATA and SERVFAIL go on to the next name,
    /// anything else ends the search, and a failure other than NXDOMAIN is what is remembered.
    /// Unlike it, the first such failure counts, and not a last resort's (see [`Candidate`]).
    async fn walk(
        &self,
        name: &str,
        conf: &ResolvConf,
        deadline: Instant,
        queries: &mut Vec<Query>,
    ) -> Result<Vec<IpAddr>, LookupFailure> {
        let candidates = candidates(name, conf);
        if candidates.is_empty() {
            return Err(LookupFailure::InvalidName);
        }
        let mut verdict: Option<QueryOutcome> = None;
        for Candidate { name, last_resort } in candidates {
            let (found, failed) = self.resolve(&name, conf, deadline, queries).await;
            if !found.is_empty() {
                return Ok(found);
            }
            let Some(failed) = failed else { continue };
            let ends_search = !matches!(
                failed,
                QueryOutcome::NxDomain | QueryOutcome::NoData | QueryOutcome::ServFail
            );
            let decides = match verdict {
                None => true,
                Some(QueryOutcome::NxDomain) => !last_resort,
                Some(_) => false,
            };
            if decides {
                verdict = Some(failed);
            }
            if ends_search {
                break;
            }
        }
        Err(verdict.map_or(LookupFailure::OutOfTime, LookupFailure::Answered))
    }

    /// The addresses of one absolute name, or the answer that decided that there are none.
    async fn resolve(
        &self,
        name: &Name,
        conf: &ResolvConf,
        deadline: Instant,
        queries: &mut Vec<Query>,
    ) -> (Vec<IpAddr>, Option<QueryOutcome>) {
        let ask = |family| self.ask_all(name, family, conf, deadline);
        let asked = match self.families {
            Families::Auto => {
                let (v4, v6) = tokio::join!(ask(Family::V4), ask(Family::V6));
                vec![v4, v6]
            }
            Families::V4 => vec![ask(Family::V4).await],
            Families::V6 => vec![ask(Family::V6).await],
        };
        let mut found = Vec::new();
        let mut failed = None;
        for (transcript, decisive) in asked {
            match decisive {
                Some(QueryOutcome::Addresses { addresses, .. }) => found.extend(addresses),
                Some(answer) => failed = Some(graver(failed, answer)),
                None => {}
            }
            queries.extend(transcript);
        }
        (found, failed)
    }

    /// Asks one server after another until one knows, and again while they are silent. Gives the
    /// transcript and the answer that decided.
    async fn ask_all(
        &self,
        name: &Name,
        family: Family,
        conf: &ResolvConf,
        deadline: Instant,
    ) -> (Vec<Query>, Option<QueryOutcome>) {
        let mut transcript = Vec::new();
        let mut decisive = None;
        for _ in 0..conf.attempts {
            for &server in &conf.nameservers {
                let mut transport = if conf.use_tcp {
                    Transport::Tcp
                } else {
                    Transport::Udp
                };
                let answer = loop {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return (transcript, decisive);
                    }
                    let timeout = left.min(self.query_timeout);
                    let query =
                        query::ask(name, family, server, transport, conf.edns, timeout).await;
                    let answer = query.outcome.clone();
                    transcript.push(query);
                    if answer != QueryOutcome::Truncated {
                        break answer;
                    }
                    transport = Transport::Tcp;
                };
                let known = matches!(
                    answer,
                    QueryOutcome::Addresses { .. } | QueryOutcome::NoData | QueryOutcome::NxDomain
                );
                if known {
                    return (transcript, Some(answer));
                }
                decisive = Some(graver(decisive, answer));
            }
            // Only silence may be a lost packet; any other answer would come again.
            if decisive != Some(QueryOutcome::Timeout) {
                break;
            }
        }
        (transcript, decisive)
    }
}

/// Of two failures, the one that says more about what is wrong.
fn graver(one: Option<QueryOutcome>, other: QueryOutcome) -> QueryOutcome {
    let rank = |answer: &QueryOutcome| match answer {
        QueryOutcome::ServFail | QueryOutcome::Refused | QueryOutcome::OtherCode(_) => 5,
        QueryOutcome::Malformed(_) => 4,
        QueryOutcome::Timeout => 3,
        QueryOutcome::Unreachable(_) | QueryOutcome::Local(_) => 2,
        QueryOutcome::NoData => 1,
        QueryOutcome::NxDomain | QueryOutcome::Addresses { .. } | QueryOutcome::Truncated => 0,
    };
    match one {
        Some(one) if rank(&one) >= rank(&other) => one,
        _ => other,
    }
}
