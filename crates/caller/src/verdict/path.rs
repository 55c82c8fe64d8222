//! The wording of the network path between two pods: retransmissions, ICMP rejections, packet sizes, NAT,
//! hops, accept queues.

use std::fmt;
use std::net::IpAddr;

use crate::failure::{Direction, Hole, Icmp};
use crate::report::{Hops, Passed, Path, Report, Retransmissions, Source};

/// TCP retransmissions in words, such as `1 SYN lost, 3 segments sent again`; `None` if there were none.
pub(crate) fn retransmissions(retransmissions: Retransmissions) -> Option<String> {
    let Retransmissions {
        syns,
        segments,
        is_shared,
    } = retransmissions;
    let syns = match syns {
        0 => None,
        1 => Some("1 SYN lost".to_owned()),
        syns => Some(format!("{syns} SYNs lost")),
    };
    let segments = match segments {
        0 => None,
        1 => Some("1 segment sent again".to_owned()),
        segments => Some(format!("{segments} segments sent again")),
    };
    let parts: Vec<String> = syns.into_iter().chain(segments).collect();
    let shared = if is_shared { " in this pod" } else { "" };
    (!parts.is_empty()).then(|| format!("{}{shared}", parts.join(", ")))
}

/// The ICMP message that rejected a connection, such as
/// `ICMP 3/13 (prohibited by an administrator) from 10.9.1.1`. Types and codes: RFC 792, RFC 1812,
/// RFC 4443.
pub(super) fn icmp(icmp: Icmp) -> String {
    let Icmp { r#type, code, from } = icmp;
    let meaning = match (from, r#type, code) {
        (IpAddr::V4(_), 3, 0) => " (network unreachable)",
        (IpAddr::V4(_), 3, 1) => " (host unreachable)",
        (IpAddr::V4(_), 3, 2) => " (protocol unreachable)",
        (IpAddr::V4(_), 3, 3) | (IpAddr::V6(_), 1, 4) => " (port unreachable)",
        (IpAddr::V4(_), 3, 9 | 10 | 13) | (IpAddr::V6(_), 1, 1 | 5) => {
            " (prohibited by an administrator)"
        }
        (IpAddr::V6(_), 1, 0) => " (no route)",
        (IpAddr::V6(_), 1, 3) => " (address unreachable)",
        (IpAddr::V6(_), 1, 6) => " (route rejected)",
        (IpAddr::V4(_), 11, 0) | (IpAddr::V6(_), 3, 0) => " (too many hops)",
        _ => "",
    };
    format!("ICMP {type}/{code}{meaning} from {from}")
}

/// The likely cause of a rejection by ICMP.
pub(super) fn likely_by_icmp(icmp: Icmp) -> Option<String> {
    let Icmp { r#type, code, from } = icmp;
    match (from, r#type, code) {
        (IpAddr::V4(_), 3, 9 | 10 | 13) | (IpAddr::V6(_), 1, 1 | 5) => {
            Some(format!("a policy or a firewall at {from} rejects"))
        }
        (IpAddr::V4(_), 3, 1) | (IpAddr::V6(_), 1, 3) => Some(format!(
            "{from} finds nobody at that address, as behind a node that is dead, or a policy there rejects"
        )),
        (IpAddr::V4(_), 3, 0) | (IpAddr::V6(_), 1, 0 | 6) => {
            Some(format!("{from} has no route to that address"))
        }
        (IpAddr::V4(_), 11, 0) | (IpAddr::V6(_), 3, 0) => Some(format!(
            "packets go round in circles: a loop of routes at {from}"
        )),
        _ => None,
    }
}

/// The packet size limit of a path, and the direction in which larger packets are lost.
pub(super) fn hole(hole: Hole) -> String {
    let Hole { mtu, direction } = hole;
    let way = match direction {
        Some(Direction::There) => " to the backend",
        Some(Direction::Back) => " back",
        None => "",
    };
    format!("packets over {mtu} bytes are lost on the way{way}, smaller ones pass")
}

/// Displays the source address that the backend saw, and whether NAT or a proxy changed it.
pub(crate) struct SeenSource<'a>(
    /// A call that has a response.
    pub &'a Report,
    /// The source address that the response contains.
    pub Source,
);

impl fmt::Display for SeenSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report, source) = self;
        let pod = report
            .response()
            .and_then(|response| response.pod.as_deref());
        let pod = pod.unwrap_or("the backend");
        match (source, report.local) {
            (Source::Unchanged, Some(local)) => {
                write!(f, "{} as {pod} sees it, too: no NAT", local.ip())
            }
            (Source::Unchanged, None) => f.write_str("no NAT"),
            (Source::Proxied(seen), _) => write!(
                f,
                "{pod} was called by {} in its own pod, a sidecar or a proxy: what is told of TCP ends there",
                seen.ip()
            ),
            (Source::Translated(seen), _) => write!(
                f,
                "seen by {pod} as {}: NAT on the way; policies there see that address",
                seen.ip()
            ),
        }
    }
}

/// The packet sizes that passed on a path without a loss, if they were tested.
pub(crate) fn sizes(path: &Path) -> Option<String> {
    let passed = match path.passed? {
        Passed::BothWays(bytes) => format!("{bytes} bytes passed each way in one request"),
        Passed::Answer(bytes) => format!("an answer of {bytes} bytes passed"),
    };
    Some(match path.interface_mtu {
        Some(mtu) => format!("{passed}; the interface's MTU is {mtu}"),
        None => passed,
    })
}

/// The last hop that responded on a path that drops packets.
pub(crate) fn last_hop(hops: &Hops) -> String {
    match hops.last {
        Some((number, address)) => format!(
            "the last hop that answered is number {number}, {address}; packets are dropped there or beyond, and nothing proves on which side of it"
        ),
        None => format!(
            "no hop of {} answered: packets are dropped before the first, or no hop says so",
            hops.tried
        ),
    }
}

/// How often a backend's accept queue was full.
pub(crate) fn overflows(pod: &str, count: u64) -> String {
    let attempts = match count {
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    format!(
        "{attempts} to connect to {pod} found its accept queue full and were dropped, since it started"
    )
}
