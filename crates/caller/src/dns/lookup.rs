//! A lookup: the hosts file, then the search list, walked in order, with one verdict.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::query::{Family, Query, QueryOutcome};
use super::search::{Candidate, absolute, candidates, cluster_zone, service_zone};
use super::session::{Resolved, Session};
use super::{ConfError, ConfSource, ResolvConf, hosts};
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

/// Resolves names.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// A file in the form of `/etc/hosts`, which is asked before DNS.
    pub hosts: PathBuf,
    /// Where the configuration of DNS comes from; read for every lookup.
    pub source: ConfSource,
    /// Which addresses to ask for.
    pub families: Families,
    /// How long each query may take.
    pub query_timeout: Duration,
}

/// A lookup, and everything that was asked for it.
#[derive(Debug)]
pub struct Lookup {
    /// The name as it was given.
    pub name: String,
    /// Where the addresses are from, or would be.
    pub source: Source,
    /// What decided what to ask; `None` where there is none to be had, or DNS was not asked.
    pub conf: Option<ResolvConf>,
    /// In the order in which they were sent.
    pub queries: Vec<Query>,
    /// The absolute name that has the addresses.
    pub answered: Option<Name>,
    /// From the first query to the verdict.
    pub duration: Duration,
    /// The addresses, at least one, or why there is none.
    pub outcome: Result<Vec<IpAddr>, LookupFailure>,
}

/// Where addresses are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The hosts file.
    Hosts(PathBuf),
    /// The name is one of this machine's own (RFC 6761, section 6.3), and no question for DNS.
    Loopback,
    /// DNS.
    Dns,
}

/// Why a name has no address. What was asked and answered is in [`Lookup::queries`].
#[derive(Debug)]
pub enum LookupFailure {
    /// There is no usable configuration, so no server was asked.
    Conf(ConfError),
    /// No server was asked, because DNS cannot have any name that this one may stand for.
    InvalidName,
    /// The name exists, and `options no-aaaa` forbids to ask for its IPv6 addresses.
    Forbidden {
        /// What a program with glibc is told.
        glibc: GaiError,
    },
    /// No server was asked before the deadline.
    OutOfTime,
    /// DNS was asked.
    Answered {
        /// This outcome, of one query or several, decided.
        outcome: QueryOutcome,
        /// What a program with glibc is told.
        glibc: GaiError,
    },
}

/// How glibc's `getaddrinfo` fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaiError {
    /// EAI_NONAME, "Name or service not known".
    NoName,
    /// EAI_NODATA, "No address associated with hostname".
    NoData,
    /// EAI_AGAIN, "Temporary failure in name resolution".
    Again,
}

impl LookupFailure {
    /// The category of this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Conf(error) if error.is_local() => FailureKind::Local,
            Self::Conf(_) => FailureKind::ResolvConf,
            Self::InvalidName => FailureKind::DnsNxdomain,
            Self::Forbidden { .. } => FailureKind::DnsNodata,
            Self::OutOfTime => FailureKind::DnsTimeout,
            Self::Answered { outcome, .. } => match outcome {
                QueryOutcome::NxDomain => FailureKind::DnsNxdomain,
                QueryOutcome::NoData | QueryOutcome::Addresses { .. } => FailureKind::DnsNodata,
                QueryOutcome::ServFail | QueryOutcome::OtherCode(_) => FailureKind::DnsServfail,
                QueryOutcome::Refused | QueryOutcome::Referral => FailureKind::DnsRefused,
                QueryOutcome::Timeout => FailureKind::DnsTimeout,
                QueryOutcome::Unreachable(_) => FailureKind::DnsUnreachable,
                QueryOutcome::Local(_) => FailureKind::Local,
                QueryOutcome::Malformed(_) | QueryOutcome::Truncated => FailureKind::DnsMalformed,
            },
        }
    }
}

impl Lookup {
    /// The cluster's zone, where the name looks like one of a Service in it.
    pub fn service_zone(&self) -> Option<Name> {
        service_zone(&self.name, self.conf.as_ref()?)
    }

    /// Whether the search list is that of a pod.
    pub fn is_in_a_cluster(&self) -> bool {
        self.conf.as_ref().and_then(cluster_zone).is_some()
    }

    /// The name that answered, where it is not one that was to be expected: for a Service, one in the
    /// cluster's zone; for a name with enough dots, the name as it is.
    pub fn answered_elsewhere(&self) -> Option<&Name> {
        let (answered, conf) = (self.answered.as_ref()?, self.conf.as_ref()?);
        let is_expected = match self.service_zone() {
            Some(zone) => zone.zone_of(answered),
            None if cluster_zone(conf).is_some() => {
                let labels = self.name.trim_end_matches('.').split('.').count();
                usize::from(answered.num_labels()) == labels
            }
            None => true,
        };
        (!is_expected).then_some(answered)
    }
}

impl Lookup {
    /// The name that would have been enough to ask for: the one that answered, or outside of the cluster's
    /// zone the name as it is. `None`: there is none that was to be expected.
    pub fn expected_name(&self) -> Option<Name> {
        match &self.answered {
            Some(name) => self.answered_elsewhere().is_none().then(|| name.clone()),
            None if self.service_zone().is_some() => None,
            None => absolute(&self.name, ""),
        }
    }
}

impl Families {
    fn list(self) -> &'static [Family] {
        match self {
            Self::Auto => &[Family::V4, Family::V6],
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
        }
    }
}

impl Resolver {
    /// Resolves `name`, until `deadline` at the latest.
    pub async fn lookup(&self, name: &str, deadline: Instant) -> Lookup {
        let start = Instant::now();
        let mut lookup = Lookup {
            name: name.to_owned(),
            source: Source::Dns,
            conf: None,
            queries: Vec::new(),
            answered: None,
            duration: Duration::ZERO,
            outcome: Err(LookupFailure::OutOfTime),
        };
        let families = self.families.list();
        let found = hosts::find(&self.hosts, name, families);
        if !found.is_empty() {
            lookup.source = Source::Hosts(self.hosts.clone());
            lookup.outcome = Ok(found);
        } else if is_localhost(name) {
            lookup.source = Source::Loopback;
            lookup.outcome = Ok(families.iter().map(loopback).collect());
        } else {
            match self.source.read() {
                Ok(conf) => {
                    lookup.outcome = self.ask(&conf, deadline, &mut lookup).await;
                    lookup.conf = Some(conf);
                }
                Err(error) => lookup.outcome = Err(LookupFailure::Conf(error)),
            }
        }
        lookup.duration = start.elapsed();
        lookup
    }

    /// How long each query may take: a shorter time in the file counts.
    pub fn timeout(&self, conf: &ResolvConf) -> Duration {
        conf.timeout
            .unwrap_or(self.query_timeout)
            .min(self.query_timeout)
    }

    /// Walks the search list as glibc's `__res_context_search`: NXDOMAIN, NODATA and SERVFAIL go on to
    /// the next name; anything else ends the search, and only the name as it is is asked for yet.
    async fn ask(
        &self,
        conf: &ResolvConf,
        deadline: Instant,
        lookup: &mut Lookup,
    ) -> Result<Vec<IpAddr>, LookupFailure> {
        let is_asked = |family: &&Family| **family == Family::V4 || !conf.no_aaaa;
        let families = self.families.list().iter().filter(is_asked);
        let mut families: Vec<Family> = families.copied().collect();
        // As glibc, which asks for A then, to tell a name without addresses from none.
        let is_forbidden = families.is_empty();
        if is_forbidden {
            families.push(Family::V4);
        }
        let mut session = Session::new(conf, &families, self.timeout(conf), deadline);
        let mut tried: Vec<Tried> = Vec::new();
        let (mut search_ended, mut is_there) = (false, false);
        for candidate in candidates(&lookup.name, conf) {
            let is_searched = candidate.is_searched;
            if search_ended && is_searched {
                continue;
            }
            // `search .` and repeated domains: nothing is learnt from asking twice.
            let mut before = tried.iter().filter(|tried| tried.candidate.name.is_some());
            if let Some(before) = before.find(|tried| tried.candidate.name == candidate.name) {
                if is_searched {
                    search_ended |= before.ends != Ends::Nothing;
                    tried.push(Tried {
                        candidate,
                        ..before.clone()
                    });
                }
                continue;
            }
            let mut resolved = match &candidate.name {
                Some(name) => Some(session.resolve(name).await),
                None => None,
            };
            match resolved {
                Some(Resolved::Found(addresses)) if !is_forbidden => {
                    lookup.answered = candidate.name;
                    lookup.queries = session.queries;
                    return Ok(addresses);
                }
                // There it takes the records away and goes on.
                Some(
                    Resolved::Found(_)
                    | Resolved::Answered {
                        ends_lookup: true, ..
                    },
                ) if is_forbidden => {
                    is_there = true;
                    resolved = Some(Resolved::Answered {
                        outcome: QueryOutcome::NoData,
                        ends_lookup: false,
                        is_servfail: false,
                    });
                }
                _ => {}
            }
            let Some(this) = Tried::new(candidate, resolved) else {
                break;
            };
            let ends = this.ends;
            search_ended |= is_searched && ends == Ends::Search;
            tried.push(this);
            if ends == Ends::Lookup || is_searched && ends == Ends::Unreachable {
                break;
            }
        }
        lookup.queries = session.queries;
        Err(match verdict(&tried, self.families) {
            LookupFailure::Answered {
                outcome: QueryOutcome::NoData,
                glibc,
            } if is_there => LookupFailure::Forbidden { glibc },
            failure => failure,
        })
    }
}

/// A name that was tried in vain.
#[derive(Clone)]
struct Tried {
    candidate: Candidate,
    /// `None`: DNS cannot have the name.
    outcome: Option<QueryOutcome>,
    error: ResolverError,
    ends: Ends,
    /// No server answered, and glibc's `errno` says so.
    is_unanswered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Nothing,
    Search,
    /// No server can be reached, and the search need not go on.
    Unreachable,
    Lookup,
}

/// glibc's `h_errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResolverError {
    HostNotFound,
    NoData,
    TryAgain,
    /// The same, and of SERVFAIL.
    ServFail,
    NoRecovery,
}

impl Tried {
    /// `None`: it was not tried at all, for want of time.
    fn new(candidate: Candidate, resolved: Option<Resolved>) -> Option<Self> {
        use ResolverError::*;
        let mut is_unanswered = false;
        let (outcome, error, ends) = match resolved {
            Some(Resolved::Found(_) | Resolved::OutOfTime) => return None,
            None => (None, NoRecovery, Ends::Search),
            Some(Resolved::Answered {
                outcome,
                ends_lookup,
                is_servfail,
            }) => {
                let (error, ends) = match outcome {
                    _ if ends_lookup => (HostNotFound, Ends::Lookup),
                    QueryOutcome::NxDomain => (HostNotFound, Ends::Nothing),
                    QueryOutcome::NoData => (NoData, Ends::Nothing),
                    QueryOutcome::ServFail if is_servfail => (ServFail, Ends::Nothing),
                    QueryOutcome::ServFail => (TryAgain, Ends::Search),
                    _ => (NoRecovery, Ends::Search),
                };
                (Some(outcome), error, ends)
            }
            Some(Resolved::Failed {
                outcome,
                is_servfail,
                ends_lookup,
                is_closed,
            }) => {
                is_unanswered = !is_closed;
                let (error, ends) = match ends_lookup {
                    true => (TryAgain, Ends::Unreachable),
                    false if is_servfail => (ServFail, Ends::Nothing),
                    false => (TryAgain, Ends::Search),
                };
                (Some(outcome), error, ends)
            }
        };
        Some(Self {
            candidate,
            outcome,
            error,
            ends,
            is_unanswered,
        })
    }
}

/// What decides. glibc's error is that of the whole walk; the outcome that is shown goes by the names
/// that a Service would have, where the name looks like one: what the servers of the node's own
/// domains say, or those outside of the cluster, tells nothing about a Service.
fn verdict(tried: &[Tried], families: Families) -> LookupFailure {
    let all: Vec<&Tried> = tried.iter().collect();
    let Some(last_word) = decisive(&all) else {
        return LookupFailure::OutOfTime;
    };
    let of_service: Vec<&Tried> = tried.iter().filter(|t| t.candidate.is_of_service).collect();
    let decides = match last_word.ends {
        Ends::Lookup | Ends::Unreachable => last_word,
        _ => decisive(&of_service).unwrap_or(last_word),
    };
    // For IPv4 alone, `getaddrinfo` asks `gethostbyname2_r`, which says "try again" only where the last
    // query went unanswered.
    let is_forgotten =
        families == Families::V4 && !tried.last().is_some_and(|last| last.is_unanswered);
    let outcomes = [decides, last_word].into_iter().chain(all);
    let mut outcomes = outcomes.filter_map(|tried| tried.outcome.clone());
    match outcomes.next() {
        Some(outcome) => LookupFailure::Answered {
            outcome,
            glibc: match last_word.error {
                ResolverError::HostNotFound | ResolverError::NoRecovery => GaiError::NoName,
                ResolverError::TryAgain | ResolverError::ServFail if is_forgotten => {
                    GaiError::NoName
                }
                ResolverError::NoData => GaiError::NoData,
                ResolverError::TryAgain | ResolverError::ServFail => GaiError::Again,
            },
        },
        None => LookupFailure::InvalidName,
    }
}

/// Which of several names decides, as at the end of glibc's `__res_context_search`: one that ended the
/// lookup; the name as it is, where that was the first; the first without data; the first SERVFAIL;
/// else the last.
fn decisive<'a>(tried: &[&'a Tried]) -> Option<&'a Tried> {
    let (first, last) = (tried.first()?, tried.last()?);
    let of_search = |error| {
        let mut tried = tried.iter();
        tried.find(|tried| tried.candidate.is_searched && tried.error == error)
    };
    let is_unreachable = last.candidate.is_searched && last.ends == Ends::Unreachable;
    if last.ends == Ends::Lookup || is_unreachable {
        return Some(last);
    }
    if !first.candidate.is_searched {
        return Some(first);
    }
    let decides = of_search(ResolverError::NoData).or_else(|| of_search(ResolverError::ServFail));
    Some(decides.unwrap_or(last))
}

/// `localhost` and what is below it, with a final dot or without.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit_once('.').map_or(name, |(_, top)| top);
    top.eq_ignore_ascii_case("localhost")
}

fn loopback(family: &Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
