//! Queries one absolute name at one server after another until one responds, as glibc's
//! `__res_context_send` (res_send.c).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::query::{Family, Query, QueryOutcome, Transport};
use super::response::is_refusal;
use super::{ResolvConf, tcp, udp};

/// Divisor of the timeout of the second query, once a server has left one of two simultaneous queries unanswered. That
/// server will probably not answer the second query either, and each name of the search list would wait for it.
const SECOND_TIMEOUT_DIVISOR: u32 = 4;

/// Number of retries of one family's query once the other family's query is answered.
const RETRIES_OF_ONE_FAMILY: u32 = 2;

/// The queries for one name that are sent to one server together.
pub(super) struct Round<'a> {
    pub(super) name: &'a Name,
    pub(super) families: &'a [Family],
    pub(super) server: SocketAddr,
    pub(super) edns: bool,
}

/// The result of one query of a round.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) query: Query,
    /// Whether the code is NOERROR and there are records of any type: then no other name of the search list is queried.
    pub(super) has_records: bool,
    /// The response code, if a response came.
    pub(super) code: Option<ResponseCode>,
}

impl Reply {
    /// Whether the response was truncated, so that the whole round is repeated over TCP.
    pub(super) fn is_truncated(&self) -> bool {
        self.query.outcome == QueryOutcome::Truncated
    }

    /// Whether the response counts, so that no other server is queried.
    fn is_accepted(&self) -> bool {
        let is_refused =
            self.query.transport == Transport::Udp && self.code.is_some_and(is_refusal);
        let is_no_answer = matches!(
            self.query.outcome,
            QueryOutcome::Truncated | QueryOutcome::Referral
        );
        self.code.is_some() && !is_refused && !is_no_answer
    }

    fn addresses(&self) -> &[IpAddr] {
        match &self.query.outcome {
            QueryOutcome::Addresses { addresses, .. } => addresses,
            _ => &[],
        }
    }
}

/// State of a lookup that is kept from one name of the search list to the next.
pub(super) struct Session<'a> {
    pub(super) conf: &'a ResolvConf,
    pub(super) families: &'a [Family],
    /// Timeout of each query.
    pub(super) timeout: Duration,
    /// Deadline of the whole lookup.
    pub(super) deadline: Instant,
    /// Every query sent so far.
    pub(super) queries: Vec<Query>,
    /// For each server, whether it once did not respond. With glibc a dead server costs each name of the
    /// search list a timeout; here it is queried last from then on.
    silent: Vec<bool>,
    /// Whether the query for a single family may be repeated. glibc's `send_dg` does so for every name; here it is
    /// done for one name, so that the timeouts do not add up.
    retries_one_family: bool,
    /// Whether AAAA is queried only after the response to A. glibc's `send_dg` also switches to this once
    /// one of two queries went unanswered, because some servers and firewalls cannot handle both at once.
    single_request: bool,
    buffer: Vec<u8>,
}

/// The result of querying one name.
#[derive(Debug)]
pub(super) enum Resolved {
    /// The name has these addresses, at least one.
    Found(Vec<IpAddr>),
    /// A server responded, and the name has no address.
    Answered {
        /// The outcome of the query that decides.
        outcome: QueryOutcome,
        /// Whether the response was NOERROR with records, none of them an address: no other name is queried.
        ends_lookup: bool,
        /// Whether the first response was SERVFAIL over TCP, where glibc does not go on to the next server.
        is_servfail: bool,
    },
    /// No server gave a response that counts.
    Failed {
        /// The outcome that tells most about the cause.
        outcome: QueryOutcome,
        /// Whether the last response that came was SERVFAIL.
        is_servfail: bool,
        /// Whether no server can be reached at all.
        ends_lookup: bool,
        /// Whether glibc's `errno` is then neither ECONNREFUSED nor ETIMEDOUT: there was no socket for the last query,
        /// or its TCP connection was closed, or failed in another way.
        has_other_errno: bool,
    },
    /// The deadline had passed before a query was sent.
    OutOfTime,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        conf: &'a ResolvConf,
        families: &'a [Family],
        timeout: Duration,
        deadline: Instant,
    ) -> Self {
        Self {
            conf,
            families,
            timeout,
            deadline,
            queries: Vec::new(),
            silent: vec![false; conf.nameservers.len()],
            retries_one_family: true,
            single_request: conf.single_request,
            buffer: Vec::with_capacity(udp::MAX_DATAGRAM),
        }
    }

    /// Queries one server after another for this name, and all of them again while one does not respond, at most as
    /// often as `attempts` allows.
    pub(super) async fn resolve(&mut self, name: &Name) -> Resolved {
        let first_query = self.queries.len();
        let mut over_tcp = self.conf.use_tcp;
        let mut last_code = None;
        'attempts: for _ in 0..self.conf.attempts {
            let mut is_silent = false;
            for n in self.order() {
                let server = self.conf.nameservers[n];
                let replies = loop {
                    if Instant::now() >= self.deadline {
                        break 'attempts;
                    }
                    let replies = self.send_queries(name, server, over_tcp).await;
                    if over_tcp || !replies.iter().any(Reply::is_truncated) {
                        break replies;
                    }
                    last_code = replies.iter().find_map(|reply| reply.code).or(last_code);
                    self.queries
                        .extend(replies.into_iter().map(|reply| reply.query));
                    // As in glibc, the servers after this one are queried over TCP, too.
                    over_tcp = true;
                };
                last_code = replies.iter().find_map(|reply| reply.code).or(last_code);
                let outcomes = || replies.iter().map(|reply| &reply.query.outcome);
                if outcomes().all(|outcome| *outcome == QueryOutcome::Timeout) {
                    is_silent = true;
                    self.silent[n] = true;
                }
                let resolved = answered(&replies);
                let has_no_socket = outcomes().any(is_without_socket);
                self.queries
                    .extend(replies.into_iter().map(|reply| reply.query));
                if let Some(resolved) = resolved {
                    return resolved;
                }
                // As in glibc, the other servers are not queried.
                if has_no_socket {
                    break 'attempts;
                }
            }
            // Only a timeout may be due to a lost packet; any other result would be the same again.
            if over_tcp || !is_silent {
                break;
            }
        }
        failed(&self.queries[first_query..], last_code)
    }

    /// Indices of the servers in the order of the file; those that once did not respond come last.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.conf.nameservers.len()).collect();
        if self.conf.rotate {
            order.rotate_left(rand::random_range(0..self.conf.nameservers.len()));
        }
        order.sort_by_key(|&n| self.silent[n]);
        order
    }

    /// Sends the queries for all families to one server, and waits for their results.
    async fn send_queries(
        &mut self,
        name: &Name,
        server: SocketAddr,
        over_tcp: bool,
    ) -> Vec<Reply> {
        let round = |families| Round {
            name,
            families,
            server,
            edns: self.conf.edns,
        };
        let until = |timeout| self.deadline.min(Instant::now() + timeout);
        if over_tcp {
            return tcp::send_queries(&round(self.families), until(self.timeout), &mut self.buffer)
                .await;
        }
        let steps: Vec<&[Family]> = match self.single_request {
            true => self.families.chunks(1).collect(),
            false => vec![self.families],
        };
        let mut replies: Vec<Reply> = Vec::with_capacity(2);
        let mut socket = None;
        for (n, families) in steps.into_iter().enumerate() {
            let timeout = match n > 0 && !self.conf.single_request {
                true => self.timeout / SECOND_TIMEOUT_DIVISOR,
                false => self.timeout,
            };
            if self.conf.single_request_reopen {
                socket = None;
            }
            let round = round(families);
            let connected = match socket.take() {
                Some(socket) => Ok(socket),
                None => udp::connect(server).await,
            };
            let connected = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    replies.extend(udp::unsent(&round, &error));
                    return replies;
                }
            };
            let mut new_replies =
                udp::send_queries(&connected, &round, until(timeout), &mut self.buffer).await;
            let goes_on = new_replies.iter().all(Reply::is_accepted);
            replies.append(&mut new_replies);
            // As in glibc, the second query is not sent before the first one is answered.
            if !goes_on {
                break;
            }
            socket = Some(connected);
        }
        let is_silent = |reply: &Reply| reply.query.outcome == QueryOutcome::Timeout;
        self.single_request |=
            replies.iter().any(Reply::is_accepted) && replies.iter().any(is_silent);
        self.retry_one_family(&mut replies, name, server).await;
        // A before AAAA, in whichever order the responses came.
        replies.sort_by_key(|reply| reply.query.family as u8);
        replies
    }

    /// As glibc's `send_dg`: if one family's query was answered and the other family's timed out, the latter is sent
    /// again, unless that cannot change the outcome because there are addresses already, or the name does not exist.
    async fn retry_one_family(
        &mut self,
        replies: &mut Vec<Reply>,
        name: &Name,
        server: SocketAddr,
    ) {
        let has = |replies: &[Reply], wanted: &QueryOutcome| {
            replies.iter().any(|reply| reply.query.outcome == *wanted)
        };
        if !self.retries_one_family
            || !has(replies, &QueryOutcome::NoData)
            || replies.iter().any(|reply| reply.has_records)
        {
            return;
        }
        for _ in 0..RETRIES_OF_ONE_FAMILY {
            let silent = replies
                .iter()
                .position(|reply| reply.query.outcome == QueryOutcome::Timeout);
            let Some(silent) = silent else { return };
            if Instant::now() >= self.deadline {
                return;
            }
            let family = [replies[silent].query.family];
            self.queries.push(replies.remove(silent).query);
            let round = Round {
                name,
                families: &family,
                server,
                edns: self.conf.edns,
            };
            let until = self.deadline.min(Instant::now() + self.timeout);
            match udp::connect(server).await {
                Ok(socket) => {
                    replies
                        .extend(udp::send_queries(&socket, &round, until, &mut self.buffer).await);
                }
                Err(error) => replies.extend(udp::unsent(&round, &error)),
            }
        }
        self.retries_one_family = false;
    }
}

/// The result of one server's responses, as glibc's `__res_context_query` decides it; `None` if the next
/// server is to be queried.
fn answered(replies: &[Reply]) -> Option<Resolved> {
    // Over TCP glibc accepts both responses or none.
    let is_broken = |reply: &Reply| {
        let query = &reply.query;
        query.transport == Transport::Tcp
            && reply.code.is_none()
            && query.outcome != QueryOutcome::Timeout
    };
    if replies.iter().any(is_broken) {
        return None;
    }
    let accepted = || replies.iter().filter(|reply| reply.is_accepted());
    let found: Vec<IpAddr> = accepted().flat_map(Reply::addresses).copied().collect();
    if !found.is_empty() {
        return Some(Resolved::Found(found));
    }
    let success = accepted().find(|reply| reply.has_records);
    let error = accepted().find(|reply| reply.code != Some(ResponseCode::NoError));
    let decisive = success.or(error).or_else(|| accepted().next())?;
    Some(Resolved::Answered {
        outcome: decisive.query.outcome.clone(),
        ends_lookup: success.is_some(),
        is_servfail: accepted().next()?.code == Some(ResponseCode::ServFail),
    })
}

/// The result for a name for which no server gave a response that counts.
fn failed(queries: &[Query], last_code: Option<ResponseCode>) -> Resolved {
    let outcomes = || queries.iter().map(|query| &query.outcome);
    let is_dead = |outcome: &QueryOutcome| matches!(outcome, QueryOutcome::Unreachable { .. });
    let is_refused = |outcome: &QueryOutcome| match outcome {
        QueryOutcome::Unreachable { error, .. } => error.errno == Some(libc::ECONNREFUSED),
        _ => false,
    };
    let Some(outcome) = outcomes().rev().max_by_key(|outcome| significance(outcome)) else {
        return Resolved::OutOfTime;
    };
    Resolved::Failed {
        outcome: outcome.clone(),
        is_servfail: last_code == Some(ResponseCode::ServFail),
        ends_lookup: match queries.last() {
            Some(last) if is_without_socket(&last.outcome) => false,
            // Over TCP glibc keeps the error of the last server, and gives up after ECONNREFUSED alone.
            Some(last) if last.transport == Transport::Tcp => is_refused(&last.outcome),
            _ => outcomes().all(is_dead),
        },
        has_other_errno: queries.last().is_some_and(|query| match &query.outcome {
            QueryOutcome::Malformed(_) | QueryOutcome::Closed => query.transport == Transport::Tcp,
            outcome @ QueryOutcome::Unreachable { .. } => {
                is_without_socket(outcome)
                    || query.transport == Transport::Tcp && !is_refused(outcome)
            }
            _ => false,
        }),
    }
}

/// Whether there was no socket for the query: this pod is short of something, or has no IPv6 (EAFNOSUPPORT).
fn is_without_socket(outcome: &QueryOutcome) -> bool {
    match outcome {
        QueryOutcome::Local(_) => true,
        QueryOutcome::Unreachable { error, .. } => error.errno == Some(libc::EAFNOSUPPORT),
        _ => false,
    }
}

/// Ranks outcomes by how much they tell about the cause of a failure; the highest one is shown.
fn significance(outcome: &QueryOutcome) -> u8 {
    match outcome {
        QueryOutcome::ServFail | QueryOutcome::Refused | QueryOutcome::OtherCode(_) => 6,
        QueryOutcome::Referral => 6,
        QueryOutcome::Malformed(_) | QueryOutcome::CnameLoop | QueryOutcome::Closed => 5,
        QueryOutcome::Timeout => 4,
        // Another server, which could be asked, tells more.
        QueryOutcome::Unreachable {
            lacks_route: true, ..
        } => 2,
        QueryOutcome::Unreachable { .. } | QueryOutcome::Local(_) => 3,
        QueryOutcome::NoData => 1,
        QueryOutcome::NxDomain | QueryOutcome::Addresses { .. } | QueryOutcome::Truncated => 0,
    }
}
