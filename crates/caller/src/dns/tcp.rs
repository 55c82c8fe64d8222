//! Queries to one name server over one TCP connection, sent together, as glibc's `send_vc` (res_send.c).

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::query::{Query, QueryOutcome, Transport, encode};
use super::response::{Match, PendingQuery, Response};
use super::session::{Reply, Round};

/// Sends a query for each family and waits for all responses, until `until` at the latest.
pub(super) async fn send_queries(
    round: &Round<'_>,
    until: Instant,
    buffer: &mut Vec<u8>,
) -> Vec<Reply> {
    let start = Instant::now();
    let mut answers = Vec::with_capacity(2);
    let exchange = exchange(round, until, buffer, &mut answers);
    let failure = match timeout_at(until, exchange).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(QueryOutcome::failed(&error, round.server)),
        Err(_) => Some(QueryOutcome::Timeout),
    };
    let replies = round.families.iter().map(|&family| {
        let found = answers.iter().position(|(of, _)| *of == family);
        let (outcome, cnames, has_records, code) = match found.map(|n| answers.swap_remove(n).1) {
            Some(answer) => (
                answer.outcome,
                answer.cnames,
                answer.has_records,
                answer.code,
            ),
            None => {
                let missing = failure.clone().unwrap_or(QueryOutcome::Timeout);
                (missing, Vec::new(), false, None)
            }
        };
        Reply {
            query: Query {
                name: round.name.clone(),
                family,
                server: round.server,
                transport: Transport::Tcp,
                outcome,
                cnames,
                strays: 0,
                duration: start.elapsed(),
            },
            has_records,
            code,
        }
    });
    replies.collect()
}

async fn exchange(
    round: &Round<'_>,
    until: Instant,
    buffer: &mut Vec<u8>,
    answers: &mut Vec<(super::Family, Response)>,
) -> io::Result<()> {
    let server: SocketAddr = round.server;
    let mut stream = TcpStream::connect(server).await?;
    let mut waiting = Vec::with_capacity(2);
    let mut packets = Vec::new();
    for &family in round.families {
        let (id, packet) = encode(round.name, family, round.edns).map_err(io::Error::other)?;
        let len = u16::try_from(packet.len()).map_err(io::Error::other)?;
        packets.extend_from_slice(&len.to_be_bytes());
        packets.extend_from_slice(&packet);
        let name = round.name;
        waiting.push(PendingQuery { id, name, family });
    }
    stream.write_all(&packets).await?;
    while !waiting.is_empty() {
        let len = stream.read_u16().await?;
        buffer.clear();
        buffer.resize(len.into(), 0);
        stream.read_exact(buffer).await?;
        let mut matches = waiting.iter().map(|pending| pending.matches(buffer));
        let Some(n) = matches.position(|found| found != Match::Stray) else {
            continue;
        };
        let pending = waiting.remove(n);
        let answer = match pending.matches(buffer) {
            Match::Malformed(why) => Response::malformed(why),
            Match::BareFormErr => Response::malformed("it has no question"),
            Match::AnotherQuestion => Response::malformed("it answers another question"),
            _ => pending.read(buffer, Transport::Tcp, until).await,
        };
        answers.push((pending.family, answer));
    }
    Ok(())
}
