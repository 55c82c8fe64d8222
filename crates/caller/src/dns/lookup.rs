//! A lookup: what is asked for, and everything that came of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::query::{Family, Query, QueryOutcome};
use super::search::{absolute, cluster_zone, service_zone};
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
    pub(super) fn list(self) -> &'static [Family] {
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
                    lookup.outcome = self.walk(&conf, deadline, &mut lookup).await;
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
