//! A and AAAA asked for many times over, from one socket, as glibc sends them, and from two.
//!
//! Two datagrams from one socket at once race each other through conntrack, and one of them may be
//! dropped; a tool that uses two sockets never sees what its neighbours suffer.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::query::Family;
use super::session::{Reply, Round};
use super::{Lookup, Resolver, udp};

/// Rounds in flight. A lost answer takes its whole time, and the losses should not add up.
const AT_ONCE: usize = 64;

/// An answer that takes longer than this is counted as slow: cluster DNS is in the same cluster.
const SLOW: Duration = Duration::from_millis(100);

/// What came of all rounds.
#[derive(Debug)]
pub struct Race {
    /// The absolute name asked for.
    pub name: Name,
    /// The server asked.
    pub server: SocketAddr,
    /// How many rounds each way.
    pub rounds: u32,
    /// Both queries of a round from one socket.
    pub one_socket: Tally,
    /// Each query of a round from a socket of its own.
    pub two_sockets: Tally,
}

/// Counts and times of queries.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Queries sent.
    pub asked: u32,
    /// Queries without an answer.
    pub lost: u32,
    /// Answers that took over 100 ms.
    pub slow: u32,
    /// Of every answer, sorted.
    pub times: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, replies: &[Reply]) {
        for Reply { query, code, .. } in replies {
            self.asked += 1;
            match code {
                Some(_) => {
                    self.slow += u32::from(query.duration > SLOW);
                    self.times.push(query.duration);
                }
                None => self.lost += 1,
            }
        }
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        let mut times = [self.times.as_slice(), &other.times].concat();
        times.sort_unstable();
        Self {
            asked: self.asked + other.asked,
            lost: self.lost + other.lost,
            slow: self.slow + other.slow,
            times,
        }
    }

    /// The time within which this share of the answers came; `None` without one.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        self.times.get(last * percent / 100).copied()
    }
}

impl Resolver {
    /// Asks the first server for the name that answered, or else the first that was tried, `rounds` times
    /// each way. `None`: no server was asked for it.
    pub async fn race(&self, lookup: &Lookup, rounds: u32) -> Option<Race> {
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
                if running.len() >= AT_ONCE
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
    let ask = async |families: &[Family]| {
        let round = Round {
            name: &name,
            families,
            server,
            edns: false,
        };
        let mut buffer = Vec::with_capacity(udp::MAX_DATAGRAM);
        match udp::connect(server).await {
            Ok(socket) => udp::ask(&socket, &round, Instant::now() + timeout, &mut buffer).await,
            Err(error) => udp::unsent(&round, &error),
        }
    };
    match sockets {
        Sockets::One => ask(&[Family::V4, Family::V6]).await,
        Sockets::Two => {
            let (mut a, aaaa) = tokio::join!(ask(&[Family::V4]), ask(&[Family::V6]));
            a.extend(aaaa);
            a
        }
    }
}
