//! The lookup of one name: its settings, and its result with every query that was sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::query::{Family, Query, QueryOutcome};
use super::search::{absolute, cluster_zone, service_zone};
use super::{ConfError, ConfSource, ResolvConf, hosts};
use crate::failure::FailureKind;

/// Which address families are queried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Both A and AAAA records are queried. IPv4 comes first, as RFC 6724 sorts it before the unique local IPv6
    /// addresses that clusters use.
    #[default]
    Auto,
    /// Only A records are queried.
    V4,
    /// Only AAAA records are queried.
    V6,
}

/// Resolves names as glibc does: first the hosts file, then DNS with the search list.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// A file in the format of `/etc/hosts`, which is consulted before DNS.
    pub hosts: PathBuf,
    /// Where the DNS configuration comes from; it is read for every lookup.
    pub source: ConfSource,
    /// Which address families to query.
    pub families: Families,
    /// Timeout of each query. A shorter timeout in `resolv.conf` takes precedence.
    pub query_timeout: Duration,
}

/// The result of a lookup, with every query that was sent for it.
#[derive(Debug)]
pub struct Lookup {
    /// The name as it was given.
    pub name: String,
    /// Where the addresses come from, or would have come from.
    pub source: Source,
    /// The DNS configuration in effect; `None` if it could not be read, or DNS was not consulted.
    pub conf: Option<ResolvConf>,
    /// The queries, in the order in which they were sent.
    pub queries: Vec<Query>,
    /// The absolute name that has the addresses.
    pub answered: Option<Name>,
    /// Time that the whole lookup took.
    pub duration: Duration,
    /// The addresses, at least one, or why there is none.
    pub outcome: Result<Vec<IpAddr>, LookupFailure>,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They come from the hosts file at this path.
    Hosts(PathBuf),
    /// The name is `localhost` or ends with `.localhost`, and is never looked up in DNS (RFC 6761, section 6.3).
    Loopback,
    /// They come from DNS.
    Dns,
}

/// Why a name has no address. The queries and their outcomes are in [`Lookup::queries`].
#[derive(Debug)]
pub enum LookupFailure {
    /// There is no usable configuration, so no query was sent.
    Conf(ConfError),
    /// No query was sent, because neither the name nor any name that the search list makes of it is a
    /// valid DNS name.
    InvalidName,
    /// The name exists, but `options no-aaaa` forbids querying its IPv6 addresses.
    Forbidden {
        /// The error that a program that uses glibc gets.
        glibc: GaiError,
    },
    /// The deadline passed before every name that could have had an address was queried.
    OutOfTime,
    /// Queries were sent, and none of the responses has an address.
    Answered {
        /// The outcome of the queries that decided the result.
        outcome: QueryOutcome,
        /// The error that a program that uses glibc gets.
        glibc: GaiError,
    },
}

/// The error of glibc's getaddrinfo(3).
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
            Self::Answered { outcome, .. } => outcome.kind(),
        }
    }
}

impl Lookup {
    /// The cluster's zone, if the name looks like that of a Service.
    pub fn service_zone(&self) -> Option<Name> {
        service_zone(&self.name, self.conf.as_ref()?)
    }

    /// Whether the name looks like that of a Service, but is not looked up as one, because of its final dot. An alias
    /// (CNAME) is a name in its own right.
    pub(crate) fn lacks_search_domain(&self) -> bool {
        let without_dot = self.name.strip_suffix('.').zip(self.conf.as_ref());
        let zone = without_dot.and_then(|(name, conf)| service_zone(name, conf));
        let is_alias = self.queries.iter().any(|query| !query.cnames.is_empty());
        zone.is_some() && self.service_zone().is_none() && !is_alias
    }

    /// Whether the search list is that of a pod (it has a domain with `.svc.`).
    pub fn is_in_a_cluster(&self) -> bool {
        self.conf.as_ref().and_then(cluster_zone).is_some()
    }

    /// The name that has the addresses, if another one was to be expected: for a Service, a name in the cluster's
    /// zone; for any other name in a cluster, the name without a search domain. `SERVICE.NAMESPACE` may be either.
    pub fn unexpected_name(&self) -> Option<&Name> {
        let (answered, conf) = (self.answered.as_ref()?, self.conf.as_ref()?);
        let labels = self.name.trim_end_matches('.').split('.').count();
        let is_as_given = usize::from(answered.num_labels()) == labels;
        let is_expected = match self.service_zone() {
            Some(zone) => zone.zone_of(answered) || (is_as_given && labels == 2),
            None => is_as_given || cluster_zone(conf).is_none(),
        };
        (!is_expected).then_some(answered)
    }

    /// The name that has the addresses, and whether it is in the cluster's zone; `None` if none has, or the search list is
    /// not that of a pod.
    pub(crate) fn answered_in_cluster(&self) -> Option<(&Name, bool)> {
        let (answered, conf) = (self.answered.as_ref()?, self.conf.as_ref()?);
        let zone = cluster_zone(conf)?;
        Some((answered, zone.zone_of(answered)))
    }

    /// The only name that had to be queried: the one that has the addresses; or, if none has and the name is not
    /// that of a Service, the name itself. `None` if an unexpected name has the addresses, or the name of a
    /// Service has none.
    pub fn expected_name(&self) -> Option<Name> {
        match &self.answered {
            Some(name) => self.unexpected_name().is_none().then(|| name.clone()),
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

    /// The timeout of each query: the shorter of `query_timeout` and that in `resolv.conf`.
    pub(super) fn timeout(&self, conf: &ResolvConf) -> Duration {
        conf.timeout
            .unwrap_or(self.query_timeout)
            .min(self.query_timeout)
    }
}

/// Whether the name is `localhost` or ends with `.localhost`, with a final dot or without.
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
