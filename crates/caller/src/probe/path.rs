//! The way to an address, looked at by connections of its own: which sizes pass, and where packets end. None of it
//! takes a right.
//!
//! Only what may be repeated is repeated (GET, HEAD and OPTIONS), and connections and time are bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::http::Method;
use nix::ifaddrs::InterfaceAddress;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{Options, connect};
use super::request::Ask;
use super::{LARGE, Probe, Seen};
use crate::failure::{Direction, Failure, FailureKind, Hole, Icmp};
use crate::report::{Hops, Outcome, Passed, Path, Report, Response};
use crate::target::Scheme;

/// A segment that passes wherever IPv4 does, as good as (RFC 879).
const SMALL_MSS: u32 = 536;

/// Longest time for a call of that size.
const LARGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often both sides of the limit are tried again.
const CONFIRMATIONS: usize = 2;

/// Hops that are tried, and how long they are waited for.
const MAX_HOPS: u8 = 16;
const HOPS_TIMEOUT: Duration = Duration::from_secs(1);

/// The Ethernet MTU, where the interface's is not known.
const USUAL_MTU: u32 = 1500;

/// What an address answered to a call of a given size.
enum Trial {
    /// It answered, after so long.
    Answered(Duration, Box<Response>),
    /// It took the connection, and said nothing.
    Silent(Failure),
    /// It failed in another way.
    Other,
}

impl Probe {
    /// Looks at the way that a call took.
    pub async fn path(&self, report: &Report) -> Path {
        let mut path = Path {
            interface_mtu: report.local.and_then(|local| interface_mtu(local.ip())),
            ..Path::default()
        };
        let Some(address) = report.address else {
            return path;
        };
        if report.kind() == Some(FailureKind::ConnectTimeout) {
            path.hops = Some(hops(address).await);
            return path;
        }
        let method = &self.0.http.method;
        let may_repeat = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if !may_repeat || self.0.target.scheme == Scheme::Tcp {
            return path;
        }
        let whole = path.interface_mtu.unwrap_or(USUAL_MTU);
        let whole = whole.saturating_sub(header(address));
        if report.kind() == Some(FailureKind::ResponseTimeout) {
            let ask = Ask::usual(&report.request_id);
            path.hole = self.hole(address, whole, ask).await;
        } else if let Some(response) = report.response() {
            // Our own server answers with as much as it is asked with.
            if response.peer_address.is_none() {
                let body = response.body_len;
                path.passed = (body > 0).then_some(Passed::Answer(body));
                return path;
            }
            let id = "0".repeat(LARGE);
            let ask = Ask {
                wants_facts: true,
                ..Ask::usual(&id)
            };
            match self.trial(address, None, ask, LARGE_TIMEOUT).await {
                // A proxy that refuses so large a head has proved nothing.
                Trial::Answered(_, response) if response.echoed >= LARGE => {
                    path.passed = Some(Passed::BothWays(LARGE as u64));
                    let pod = response.pod.unwrap_or_else(|| address.to_string());
                    path.overflows = response.listen_overflows.map(|count| (pod, count));
                }
                Trial::Silent(failure) => {
                    if let Some(hole) = self.hole(address, whole, ask).await {
                        let mut failed = report.clone();
                        failed.outcome = Outcome::Failed(failure, None);
                        failed.is_lost_in(hole);
                        path.failed = Some(Box::new(failed));
                        path.hole = Some(hole);
                    }
                }
                Trial::Answered(..) | Trial::Other => {}
            }
        }
        path
    }

    /// What is too large for the path that a large call took, after it was not answered.
    pub(crate) async fn hole_of_large_call(&self, report: &Report) -> Option<Hole> {
        let address = report.address?;
        let mtu = report.local.and_then(|local| interface_mtu(local.ip()));
        let whole = mtu.unwrap_or(USUAL_MTU).saturating_sub(header(address));
        let id = "0".repeat(LARGE);
        self.hole(address, whole, Ask::usual(&id)).await
    }

    /// Whether small segments pass where large ones do not, and how large those are that do. `whole` is the
    /// largest that the interface can send.
    async fn hole(&self, address: SocketAddr, whole: u32, ask: Ask<'_>) -> Option<Hole> {
        if whole <= SMALL_MSS {
            return None;
        }
        let small = self
            .trial(address, Some(SMALL_MSS), ask, LARGE_TIMEOUT)
            .await;
        let Trial::Answered(took, _) = small else {
            return None;
        };
        // A segment that is lost is sent again after 200 ms at the earliest.
        let within = (took * 4).clamp(Duration::from_millis(400), Duration::from_secs(1));
        let (mut passes, mut fails) = (SMALL_MSS, whole + 1);
        while fails - passes > 1 {
            let mss = passes + (fails - passes) / 2;
            match self.trial(address, Some(mss), ask, within).await {
                Trial::Answered(..) => passes = mss,
                Trial::Silent(_) => fails = mss,
                Trial::Other => return None,
            }
        }
        if passes == whole {
            return None;
        }
        // A backend that is slow at times would have been found out by chance.
        for _ in 0..CONFIRMATIONS {
            let (below, above) = (Some(passes), Some(fails));
            let passes_again = self.trial(address, below, ask, within).await;
            let fails_again = self.trial(address, above, ask, within).await;
            if !matches!(
                (passes_again, fails_again),
                (Trial::Answered(..), Trial::Silent(_))
            ) {
                return None;
            }
        }
        Some(Hole {
            mtu: passes + header(address),
            direction: self.direction(address, passes, ask, within).await,
        })
    }

    /// Where segments of more than `passes` bytes are lost; `None` where that cannot be told.
    async fn direction(
        &self,
        address: SocketAddr,
        passes: u32,
        ask: Ask<'_>,
        within: Duration,
    ) -> Option<Direction> {
        let is_padded = ask.request_id.len() >= LARGE;
        if !is_padded {
            // The request is one packet that passes, unless somebody has given it large header fields.
            let fields = self.0.http.headers.iter();
            let fields: usize = fields
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            let url = self.0.target.path.as_str().len();
            return (fields + url < passes as usize / 2).then_some(Direction::Back);
        }
        // A large request with a small answer.
        let there = Ask {
            padding: LARGE,
            ..Ask::usual("0")
        };
        match self.trial(address, None, there, within).await {
            Trial::Answered(..) => Some(Direction::Back),
            Trial::Silent(_) => Some(Direction::There),
            Trial::Other => None,
        }
    }

    /// Calls an address on a connection of its own.
    async fn trial(
        &self,
        address: SocketAddr,
        mss: Option<u32>,
        ask: Ask<'_>,
        within: Duration,
    ) -> Trial {
        let start = Instant::now();
        let options = Options {
            mss,
            ..Options::default()
        };
        let deadline = start + within;
        let mut seen = Seen::default();
        let call = self.attempt(address, options, ask, deadline, &mut seen);
        match call.await {
            Outcome::Failed(failure, _) if failure.kind == FailureKind::ResponseTimeout => {
                Trial::Silent(failure)
            }
            Outcome::Answered(response) | Outcome::Failed(_, Some(response)) => {
                Trial::Answered(start.elapsed(), Box::new(response))
            }
            Outcome::Failed(_, None) | Outcome::Connected => Trial::Other,
        }
    }
}

/// The bytes of an IP packet that are not TCP's payload, as far as the MSS counts them (RFC 6691).
fn header(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 40,
        SocketAddr::V6(_) => 60,
    }
}

/// The MTU of the interface that has this address, in bytes.
fn interface_mtu(ip: IpAddr) -> Option<u32> {
    let mut interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let interface = interfaces.find(|interface| ip_of(interface) == Some(ip))?;
    let mtu = format!("/sys/class/net/{}/mtu", interface.interface_name);
    std::fs::read_to_string(mtu).ok()?.trim().parse().ok()
}

/// The address of an interface, if it is one of IP.
pub(crate) fn ip_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

/// Connects with one hop, two hops, and so on, all at once, and gives the farthest from which a packet was sent
/// back because it had gone far enough.
async fn hops(address: SocketAddr) -> Hops {
    let mut connecting = JoinSet::new();
    for hops in 1..=MAX_HOPS {
        let options = Options {
            hops: Some(hops),
            ..Options::default()
        };
        connecting.spawn(async move { (hops, connect(address, options, HOPS_TIMEOUT).await) });
    }
    let ended = connecting.join_all().await;
    let answered = ended.into_iter().filter_map(|(hops, connected)| {
        let icmp = connected.err()?.icmp.filter(is_time_exceeded)?;
        Some((hops, icmp.from))
    });
    Hops {
        last: answered.max(),
        tried: MAX_HOPS,
    }
}

/// "Time to live exceeded in transit" (RFC 792), or "hop limit exceeded in transit" (RFC 4443).
fn is_time_exceeded(icmp: &Icmp) -> bool {
    let expected = match icmp.from {
        IpAddr::V4(_) => 11,
        IpAddr::V6(_) => 3,
    };
    (icmp.r#type, icmp.code) == (expected, 0)
}
