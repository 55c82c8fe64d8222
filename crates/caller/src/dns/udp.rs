//! Queries to one name server over UDP, from one connected socket, as glibc's `send_dg` (res_send.c).
//!
//! The socket is connected and has an error queue, because only then does the kernel report ICMP errors such as "port
//! unreachable" (ECONNREFUSED, udp(7)) and "host unreachable", which would otherwise be a timeout.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::query::{Family, Query, QueryOutcome, Transport, encode};
use super::response::{Match, PendingQuery};
use super::session::{Reply, Round};
use crate::socket_error::icmp::{received_message, set_error_queue};

/// Largest datagram in bytes. A server may send more than the query allows, and such a response is read as well.
pub(super) const MAX_DATAGRAM: usize = 65_535;

/// Number of datagrams that match no query to read before yielding to other tasks.
const STRAYS_AT_ONCE: u32 = 64;

pub(super) async fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    set_error_queue(&socket, server, true);
    socket.connect(server).await?;
    Ok(socket)
}

/// Sends the queries for all families together and waits for all responses, until `until` at the latest.
pub(super) async fn send_queries(
    socket: &UdpSocket,
    round: &Round<'_>,
    until: Instant,
    buffer: &mut Vec<u8>,
) -> Vec<Reply> {
    let start = Instant::now();
    let mut waiting = Vec::with_capacity(2);
    let mut replies = Vec::with_capacity(2);
    let reply = |family, outcome, strays| reply(round, family, outcome, strays, start.elapsed());
    for &family in round.families {
        let sent = match encode(round.name, family, round.edns) {
            Ok((id, packet)) => socket.send(&packet).await.map(|_| id),
            Err(error) => Err(io::Error::other(error)),
        };
        let name = round.name;
        match sent {
            Ok(id) => waiting.push(PendingQuery { id, name, family }),
            // The error may also be the result of the first query, such as an ICMP message about it.
            Err(error) => return all_failed(round, &rejected(&error, socket, round.server)),
        }
    }
    let mut strays = 0;
    let mut malformed: Option<QueryOutcome> = None;
    while !waiting.is_empty() {
        buffer.clear();
        let received = match Instant::now() < until {
            true => timeout_at(until, socket.recv_buf(buffer)).await,
            false => timeout_at(until, std::future::pending()).await,
        };
        let failure = match received {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(rejected(&error, socket, round.server)),
            Err(_) => Some(malformed.clone().unwrap_or(QueryOutcome::Timeout)),
        };
        if let Some(failure) = failure {
            let left = waiting.drain(..);
            replies.extend(left.map(|pending| reply(pending.family, failure.clone(), strays)));
            break;
        }
        let matches = waiting.iter().map(|pending| pending.matches(buffer));
        let best = matches.enumerate().find(|(_, m)| *m != Match::Stray);
        match best {
            Some((n, Match::Response)) => {
                let pending = waiting.remove(n);
                let answer = pending.read(buffer, Transport::Udp, until).await;
                let mut reply = reply(pending.family, answer.outcome, strays);
                reply.query.cnames = answer.cnames;
                reply.has_records = answer.has_records;
                reply.code = answer.code;
                let is_truncated = reply.is_truncated();
                replies.push(reply);
                if is_truncated {
                    break;
                }
            }
            other => {
                match other {
                    Some((_, Match::Malformed(why))) => {
                        malformed = Some(QueryOutcome::Malformed(why.to_owned()));
                    }
                    Some((_, Match::BareFormErr)) => {
                        let code = ResponseCode::FormErr;
                        malformed = Some(QueryOutcome::OtherCode(code.into()));
                    }
                    _ => {}
                }
                strays += 1;
                if strays % STRAYS_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    replies
}

/// The results of a round whose queries could not be sent.
pub(super) fn unsent(round: &Round<'_>, error: &io::Error) -> Vec<Reply> {
    all_failed(round, &QueryOutcome::failed(error, round.server))
}

fn all_failed(round: &Round<'_>, outcome: &QueryOutcome) -> Vec<Reply> {
    let families = round.families.iter();
    families
        .map(|&family| reply(round, family, outcome.clone(), 0, Duration::ZERO))
        .collect()
}

/// The outcome of queries that the kernel reports this error about.
fn rejected(error: &io::Error, socket: &UdpSocket, server: SocketAddr) -> QueryOutcome {
    match QueryOutcome::failed(error, server) {
        QueryOutcome::Unreachable {
            error, lacks_route, ..
        } => {
            let icmp = received_message(socket);
            QueryOutcome::Unreachable {
                error,
                lacks_route: lacks_route && icmp.is_none(),
                icmp,
            }
        }
        outcome => outcome,
    }
}

fn reply(
    round: &Round<'_>,
    family: Family,
    outcome: QueryOutcome,
    strays: u32,
    duration: Duration,
) -> Reply {
    Reply {
        query: Query {
            name: round.name.clone(),
            family,
            server: round.server,
            transport: Transport::Udp,
            outcome,
            cnames: Vec::new(),
            strays,
            duration,
        },
        has_records: false,
        code: None,
    }
}
