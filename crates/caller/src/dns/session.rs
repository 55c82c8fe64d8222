//! One name, asked of one server after another until one answers, as glibc's `__res_context_send`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::answer::is_refusal;
use super::query::{Family, Query, QueryOutcome, Transport};
use super::{ResolvConf, tcp, udp};

/// Where a server does not take two queries at once, the time that the second one may take, as a share
/// of the usual one: it is known to be silent, and each name of the search list waits for it.
const SHARE_OF_THE_SECOND: u32 = 4;

/// After one family's answer, how often the other is asked for again.
const RETRIES_OF_ONE_FAMILY: u32 = 2;

/// What is asked of one server.
pub(super) struct Round<'a> {
    pub(super) name: &'a Name,
    pub(super) families: &'a [Family],
    pub(super) server: SocketAddr,
    pub(super) edns: bool,
}

/// What came of one query of a round.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) query: Query,
    /// It is a success that has records, so the search ends here, whatever they are.
    pub(super) has_records: bool,
    /// The code of an answer, where one came.
    pub(super) code: Option<ResponseCode>,
}

impl Reply {
    /// The rest of the round is of no use: it starts anew over TCP.
    pub(super) fn is_truncated(&self) -> bool {
        self.query.outcome == QueryOutcome::Truncated
    }

    fn is_accepted(&self) -> bool {
        let is_refused =
            self.query.transport == Transport::Udp && self.code.is_some_and(is_refusal);
        let is_nothing = matches!(
            self.query.outcome,
            QueryOutcome::Truncated | QueryOutcome::Referral
        );
        self.code.is_some() && !is_refused && !is_nothing
    }

    fn addresses(&self) -> &[IpAddr] {
        match &self.query.outcome {
            QueryOutcome::Addresses { addresses, .. } => addresses,
            _ => &[],
        }
    }
}

/// What a lookup keeps between its names.
pub(super) struct Session<'a> {
    pub(super) conf: &'a ResolvConf,
    pub(super) families: &'a [Family],
    /// For each query.
    pub(super) timeout: Duration,
    /// For the whole lookup.
    pub(super) deadline: Instant,
    /// Every query so far.
    pub(super) queries: Vec<Query>,
    /// Servers that were silent once. A dead one costs each name of the search list a timeout
    /// with glibc; here it is asked last from then on.
    silent: Vec<bool>,
    /// As glibc's `send_dg`, which asks a family again that went unanswered, but not for every name.
    asks_again: bool,
    /// AAAA is asked for only when A has been answered. As glibc's `send_dg`, which turns to that once
    /// one of two queries went unanswered: some servers and firewalls cannot take both.
    single_request: bool,
    buffer: Vec<u8>,
}

/// What came of one name.
#[derive(Debug)]
pub(super) enum Resolved {
    /// These addresses, at least one.
    Found(Vec<IpAddr>),
    /// No address, by this answer.
    Answered {
        /// The answer that decides.
        outcome: QueryOutcome,
        /// It is a success, if one without an address, so no other name is asked for.
        ends_lookup: bool,
        /// The first answer was SERVFAIL, over TCP, where that is an answer like any other.
        is_servfail: bool,
    },
    /// No server answered.
    Failed {
        /// The failure that says most.
        outcome: QueryOutcome,
        /// The last server that sent anything sent SERVFAIL.
        is_servfail: bool,
        /// No server can be reached at all, or no query can be sent.
        ends_lookup: bool,
        /// A TCP connection was closed instead of an answer, which leaves glibc without an error code.
        is_closed: bool,
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
            asks_again: true,
            single_request: conf.single_request,
            buffer: Vec::with_capacity(udp::MAX_DATAGRAM),
        }
    }

    /// Asks one server after another, and again while they are silent.
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
                    let replies = self.ask(name, server, over_tcp).await;
                    if over_tcp || !replies.iter().any(Reply::is_truncated) {
                        break replies;
                    }
                    last_code = replies.iter().find_map(|reply| reply.code).or(last_code);
                    self.queries
                        .extend(replies.into_iter().map(|reply| reply.query));
                    // As in glibc, for the servers after this one as well.
                    over_tcp = true;
                };
                last_code = replies.iter().find_map(|reply| reply.code).or(last_code);
                let outcomes = || replies.iter().map(|reply| &reply.query.outcome);
                if outcomes().all(|outcome| *outcome == QueryOutcome::Timeout) {
                    is_silent = true;
                    self.silent[n] = true;
                }
                let resolved = answered(&replies);
                self.queries
                    .extend(replies.into_iter().map(|reply| reply.query));
                if let Some(resolved) = resolved {
                    return resolved;
                }
            }
            // Only silence may be a lost packet; any other answer would come again.
            if over_tcp || !is_silent {
                break;
            }
        }
        failed(&self.queries[first_query..], last_code)
    }

    /// The servers in the file's order, those last that were silent.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.conf.nameservers.len()).collect();
        if self.conf.rotate {
            order.rotate_left(rand::random_range(0..self.conf.nameservers.len()));
        }
        order.sort_by_key(|&n| self.silent[n]);
        order
    }

    /// One round with one server.
    async fn ask(&mut self, name: &Name, server: SocketAddr, over_tcp: bool) -> Vec<Reply> {
        let round = |families| Round {
            name,
            families,
            server,
            edns: self.conf.edns,
        };
        let until = |timeout| self.deadline.min(Instant::now() + timeout);
        if over_tcp {
            return tcp::ask(&round(self.families), until(self.timeout), &mut self.buffer).await;
        }
        let steps: Vec<&[Family]> = match self.single_request {
            true => self.families.chunks(1).collect(),
            false => vec![self.families],
        };
        let mut replies: Vec<Reply> = Vec::with_capacity(2);
        let mut socket = None;
        for (n, families) in steps.into_iter().enumerate() {
            let timeout = match n > 0 && !self.conf.single_request {
                true => self.timeout / SHARE_OF_THE_SECOND,
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
            let mut asked = udp::ask(&connected, &round, until(timeout), &mut self.buffer).await;
            let goes_on = asked.iter().all(Reply::is_accepted);
            replies.append(&mut asked);
            // As there, a second query waits for an answer to the first for ever.
            if !goes_on {
                break;
            }
            socket = Some(connected);
        }
        let is_silent = |reply: &Reply| reply.query.outcome == QueryOutcome::Timeout;
        self.single_request |=
            replies.iter().any(Reply::is_accepted) && replies.iter().any(is_silent);
        self.ask_again(&mut replies, name, server).await;
        // A before AAAA, whichever was answered first.
        replies.sort_by_key(|reply| reply.query.family as u8);
        replies
    }

    /// As glibc's `send_dg`: where one family is answered and the other is not, that one is asked for
    /// again. Not where it cannot change the outcome, since addresses are there or the name is not.
    async fn ask_again(&mut self, replies: &mut Vec<Reply>, name: &Name, server: SocketAddr) {
        let has = |replies: &[Reply], wanted: &QueryOutcome| {
            replies.iter().any(|reply| reply.query.outcome == *wanted)
        };
        if !self.asks_again
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
                    replies.extend(udp::ask(&socket, &round, until, &mut self.buffer).await);
                }
                Err(error) => replies.extend(udp::unsent(&round, &error)),
            }
        }
        self.asks_again = false;
    }
}

/// What the answers of one server come to, as glibc's `__res_context_query` decides it; `None`: the next
/// server is asked.
fn answered(replies: &[Reply]) -> Option<Resolved> {
    // Over TCP it takes both answers or none.
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

fn failed(queries: &[Query], last_code: Option<ResponseCode>) -> Resolved {
    let outcomes = || queries.iter().map(|query| &query.outcome);
    let is_unsent = |outcome: &QueryOutcome| matches!(outcome, QueryOutcome::Local(_));
    let is_dead = |outcome: &QueryOutcome| matches!(outcome, QueryOutcome::Unreachable(_));
    let Some(outcome) = outcomes().rev().max_by_key(|outcome| telling(outcome)) else {
        return Resolved::OutOfTime;
    };
    Resolved::Failed {
        outcome: outcome.clone(),
        is_servfail: last_code == Some(ResponseCode::ServFail),
        ends_lookup: outcomes().any(is_unsent)
            || match queries.last() {
                Some(last) if last.transport == Transport::Tcp => is_dead(&last.outcome),
                _ => outcomes().all(is_dead),
            },
        is_closed: queries.last().is_some_and(|query| {
            query.transport == Transport::Tcp && matches!(query.outcome, QueryOutcome::Malformed(_))
        }),
    }
}

/// Of several failures, the one that says most about what is wrong has the highest rank.
fn telling(outcome: &QueryOutcome) -> u8 {
    match outcome {
        QueryOutcome::ServFail | QueryOutcome::Refused | QueryOutcome::OtherCode(_) => 5,
        QueryOutcome::Referral => 5,
        QueryOutcome::Malformed(_) => 4,
        QueryOutcome::Timeout => 3,
        QueryOutcome::Unreachable(_) | QueryOutcome::Local(_) => 2,
        QueryOutcome::NoData => 1,
        QueryOutcome::NxDomain | QueryOutcome::Addresses { .. } | QueryOutcome::Truncated => 0,
    }
}
