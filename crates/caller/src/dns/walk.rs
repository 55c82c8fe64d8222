//! Queries the names of the search list in order, and decides the result of the lookup.

use std::net::IpAddr;

use tokio::time::Instant;

use super::ResolvConf;
use super::lookup::{Families, GaiError, Lookup, LookupFailure, Resolver};
use super::query::{Family, QueryOutcome};
use super::search::{Candidate, candidates};
use super::session::{Resolved, Session};

impl Resolver {
    /// Walks the search list as glibc's `__res_context_search` (res_query.c): after NXDOMAIN, NODATA and
    /// SERVFAIL the next name is queried; anything else ends the search, and of the remaining names only
    /// the one without a search domain is queried.
    pub(super) async fn walk(
        &self,
        conf: &ResolvConf,
        deadline: Instant,
        lookup: &mut Lookup,
    ) -> Result<Vec<IpAddr>, LookupFailure> {
        let is_asked = |family: &&Family| **family == Family::V4 || !conf.no_aaaa;
        let families = self.families.list().iter().filter(is_asked);
        let mut families: Vec<Family> = families.copied().collect();
        // Like glibc, which then queries A, to distinguish a name without addresses from one that does not exist.
        let is_forbidden = families.is_empty();
        if is_forbidden {
            families.push(Family::V4);
        }
        let mut session = Session::new(conf, &families, self.timeout(conf), deadline);
        let mut tried: Vec<Tried> = Vec::new();
        let (mut search_ended, mut exists) = (false, false);
        let mut is_cut_short = false;
        let candidates = candidates(&lookup.name, conf);
        let of_service = candidates
            .iter()
            .filter(|candidate| candidate.is_of_service)
            .count();
        for candidate in candidates {
            let is_searched = candidate.is_searched;
            if search_ended && is_searched {
                continue;
            }
            // With `search .` or a repeated domain, a name occurs twice; a second query would have the same result.
            let mut before = tried.iter().filter(|tried| tried.candidate.name.is_some());
            if let Some(before) = before.find(|tried| tried.candidate.name == candidate.name) {
                if is_searched {
                    let ends = before.ends;
                    search_ended |= ends != Ends::Nothing;
                    tried.push(Tried {
                        candidate,
                        ..before.clone()
                    });
                    if ends == Ends::Unreachable {
                        break;
                    }
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
                // With `no-aaaa` glibc discards the records and goes on.
                Some(
                    Resolved::Found(_)
                    | Resolved::Answered {
                        ends_lookup: true, ..
                    },
                ) if is_forbidden => {
                    exists = true;
                    resolved = Some(Resolved::Answered {
                        outcome: QueryOutcome::NoData,
                        ends_lookup: false,
                        is_servfail: false,
                    });
                }
                _ => {}
            }
            let Some(this) = Tried::new(candidate, resolved) else {
                is_cut_short = true;
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
        let tried_of_service = tried
            .iter()
            .filter(|tried| tried.candidate.is_of_service)
            .count();
        // A name that was not queried may be the one that exists.
        is_cut_short &= of_service == 0 || tried_of_service < of_service;
        Err(match why_failed(&tried, self.families) {
            LookupFailure::Answered {
                outcome: QueryOutcome::NoData,
                glibc,
            } if exists => LookupFailure::Forbidden { glibc },
            LookupFailure::Answered {
                outcome: QueryOutcome::NxDomain | QueryOutcome::NoData,
                ..
            } if is_cut_short => LookupFailure::OutOfTime,
            failure => failure,
        })
    }
}

/// A name that gave no address.
#[derive(Clone)]
struct Tried {
    candidate: Candidate,
    /// The outcome; `None` if the name is not a valid DNS name, and was not queried.
    outcome: Option<QueryOutcome>,
    error: ResolverError,
    ends: Ends,
    /// Whether no server responded, and glibc sets `errno` to ECONNREFUSED or ETIMEDOUT.
    is_unanswered: bool,
}

/// How much of the lookup ends with a name that has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Nothing ends: the next name is queried.
    Nothing,
    /// The search ends: if the name has a search domain, no other search domain is tried.
    Search,
    /// No server can be reached: if the name has a search domain, nothing else is queried.
    Unreachable,
    /// The lookup ends: nothing else is queried.
    Lookup,
}

/// The value of `h_errno` that glibc sets for a name without an address (gethostbyname(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResolverError {
    HostNotFound,
    NoData,
    TryAgain,
    /// `TRY_AGAIN` because of SERVFAIL, after which glibc goes on to the next name.
    ServFail,
    NoRecovery,
}

impl Tried {
    /// `None` if the name has addresses, or the deadline had passed before it was queried.
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
                has_other_errno,
            }) => {
                is_unanswered = !has_other_errno;
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

/// Decides why the lookup failed. The error of glibc is that of the whole walk. The outcome to show, if the name
/// looks like that of a Service, is that of the names in the cluster's zone: responses for the node's own search
/// domains, or from outside of the cluster, say nothing about a Service.
fn why_failed(tried: &[Tried], families: Families) -> LookupFailure {
    let all: Vec<&Tried> = tried.iter().collect();
    let Some(overall) = decisive(&all) else {
        return LookupFailure::OutOfTime;
    };
    let of_service: Vec<&Tried> = tried.iter().filter(|t| t.candidate.is_of_service).collect();
    let decides = match overall.ends {
        Ends::Lookup | Ends::Unreachable => overall,
        _ => decisive(&of_service).unwrap_or(overall),
    };
    // If only IPv4 is wanted, glibc's getaddrinfo calls gethostbyname2_r, which returns TRY_AGAIN only if the last
    // query went unanswered.
    let hides_try_again =
        families == Families::V4 && !tried.last().is_some_and(|last| last.is_unanswered);
    let outcomes = [decides, overall].into_iter().chain(all);
    let mut outcomes = outcomes.filter_map(|tried| tried.outcome.clone());
    match outcomes.next() {
        Some(outcome) => LookupFailure::Answered {
            outcome,
            glibc: match overall.error {
                ResolverError::HostNotFound | ResolverError::NoRecovery => GaiError::NoName,
                ResolverError::TryAgain | ResolverError::ServFail if hides_try_again => {
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
/// lookup; else the name without a search domain, if it was the first; else the first one with NODATA;
/// else the first one with SERVFAIL; else the last.
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
