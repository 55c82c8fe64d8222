//! Queries A and AAAA many times, from one socket, as glibc sends them, and from two.
//!
//! Two datagrams that one socket sends at the same time race each other through the kernel's connection
//! tracking (conntrack), which may drop one of them. A tool that uses two sockets never sees that loss,
//! although other programs in the pod suffer from it.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::query::Family;
use super::session::{Reply, Round};
use super::{Lookup, Resolver, udp};

/// Maximum number of rounds in flight. Each lost response costs the whole timeout, so one round after the other
/// would take too long.
const MAX_CONCURRENT: usize = 64;

/// A response that takes longer than this counts as slow: within a cluster it takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(100);

/// Result of all rounds.
#[derive(Debug)]
pub(crate) struct Race {
    /// The absolute name that was queried.
    pub name: Name,
    /// Address of the name server.
    pub server: SocketAddr,
    /// Number of rounds with one socket, and of rounds with two.
    pub rounds: u32,
    /// Totals of the rounds whose two queries came from one socket.
    pub one_socket: Tally,
    /// Totals of the rounds whose two queries each had a socket of their own.
    pub two_sockets: Tally,
}

/// Counts and response times of queries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Number of queries sent.
    pub sent: u32,
    /// Number of queries without a response.
    pub lost: u32,
    /// Number of responses that took over 100 ms.
    pub slow: u32,
    /// The time that each response took, sorted.
    pub times: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, replies: &[Reply]) {
        for Reply { query, code, .. } in replies {
            self.sent += 1;
            match code {
                Some(_) => {
                    self.slow += u32::from(query.duration > SLOW);
                    self.times.push(query.duration);
                }
                None => self.lost += 1,
            }
        }
    }

    /// The tally of all queries of both.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut times = [self.times.as_slice(), &other.times].concat();
        times.sort_unstable();
        Self {
            sent: self.sent + other.sent,
            lost: self.lost + other.lost,
            slow: self.slow + other.slow,
            times,
        }
    }

    /// The time within which this percentage of the responses came; `None` without a response.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        self.times.get(last * percent / 100).copied()
    }
}

impl Resolver {
    /// Queries the first server, `rounds` times from one socket and from two, for the name that had the
    /// addresses in `lookup`, or else the first one that was queried. `None` if no query was sent for
    /// `lookup`.
    pub(crate) async fn race(&self, lookup: &Lookup, rounds: u32) -> Option<Race> {
        let conf = lookup.conf.as_ref()?;
        let name = lookup
            .answered
            .as_ref()
            .or(Some(&lookup.queries.first()?.name))?;
        let server = *conf.nameservers.first()?;
        let timeout = self.timeout(conf);
        let rounds_of = async |sockets: Sockets| {
            let mut tally = Tally::default();
            let mut running: JoinSet<Vec<Reply>> = JoinSet::new();
            for _ in 0..rounds {
                if running.len() >= MAX_CONCURRENT
                    && let Some(Ok(replies)) = running.join_next().await
                {
                    tally.add(&replies);
                }
                running.spawn(round(name.clone(), server, sockets, timeout));
            }
            while let Some(Ok(replies)) = running.join_next().await {
                tally.add(&replies);
            }
            tally.times.sort_unstable();
            tally
        };
        Some(Race {
            name: name.clone(),
            server,
            rounds,
            one_socket: rounds_of(Sockets::One).await,
            two_sockets: rounds_of(Sockets::Two).await,
        })
    }
}

#[derive(Clone, Copy)]
enum Sockets {
    One,
    Two,
}

async fn round(name: Name, server: SocketAddr, sockets: Sockets, timeout: Duration) -> Vec<Reply> {
    let send = async |families: &[Family]| {
        let round = Round {
            name: &name,
            families,
            server,
            edns: false,
        };
        let mut buffer = Vec::with_capacity(udp::MAX_DATAGRAM);
        match udp::connect(server).await {
            Ok(socket) => {
                udp::send_queries(&socket, &round, Instant::now() + timeout, &mut buffer).await
            }
            Err(error) => udp::unsent(&round, &error),
        }
    };
    match sockets {
        Sockets::One => send(&[Family::V4, Family::V6]).await,
        Sockets::Two => {
            let (mut a, aaaa) = tokio::join!(send(&[Family::V4]), send(&[Family::V6]));
            a.extend(aaaa);
            a
        }
    }
}
