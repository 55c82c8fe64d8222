//! Tests the network path to an address with additional connections: which packet sizes pass, and where
//! packets are lost. It needs no privileges.
//!
//! Only safe methods are repeated (GET, HEAD and OPTIONS), and the number of connections and the time are
//! limited.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::http::Method;
use nix::ifaddrs::InterfaceAddress;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{Options, connect};
use super::request::RequestOptions;
use super::{LARGE, Probe, Seen};
use crate::failure::{Direction, Failure, FailureKind, Hole, Icmp};
use crate::report::{Hops, Outcome, Passed, Path, Report, Response};
use crate::target::Scheme;

/// The default MSS of IPv4 (RFC 879, now RFC 9293, section 3.7.1): segments of this size pass almost
/// everywhere.
const SMALL_MSS: u32 = 536;

/// Timeout of a call with segments of that size, and of a large call.
const LARGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many times the sizes just below and above the limit are tested again.
const CONFIRMATIONS: usize = 2;

/// Number of hops to test.
const MAX_HOPS: u8 = 16;

/// Timeout for the ICMP messages of all hops.
const HOPS_TIMEOUT: Duration = Duration::from_secs(1);

/// The MTU of Ethernet in bytes, used if that of the interface is not known.
const USUAL_MTU: u32 = 1500;

/// Result of a call with a given segment size.
enum Trial {
    /// The address responded, after this time.
    Answered(Duration, Box<Response>),
    /// The address accepted the connection, but did not respond in time.
    Silent(Failure),
    /// The call failed in another way.
    Other,
}

impl Probe {
    /// Tests the path that a call took. The result leaves out everything that cannot be tested for this call.
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
        let mtu = path.interface_mtu.unwrap_or(USUAL_MTU);
        let max_mss = mtu.saturating_sub(header_len(address));
        if report.kind() == Some(FailureKind::ResponseTimeout) {
            let request_options = RequestOptions::new(&report.request_id);
            path.hole = self.find_hole(address, max_mss, request_options).await;
        } else if let Some(response) = report.response() {
            // Only echo-server, which sends `X-Peer-Address`, sends a large request id back.
            if response.peer_address.is_none() {
                let body = response.body_len;
                path.passed = (body > 0).then_some(Passed::Answer(body));
                return path;
            }
            let id = "0".repeat(LARGE);
            let request_options = RequestOptions {
                wants_listen_overflows: true,
                ..RequestOptions::new(&id)
            };
            match self
                .trial(address, None, request_options, LARGE_TIMEOUT)
                .await
            {
                // If a proxy rejects a head of this size, the response says nothing about the path.
                Trial::Answered(_, response) if response.echoed >= LARGE => {
                    path.passed = Some(Passed::BothWays(LARGE as u64));
                    let pod = response.pod.unwrap_or_else(|| address.to_string());
                    path.overflows = response.listen_overflows.map(|count| (pod, count));
                }
                Trial::Silent(failure) => {
                    if let Some(hole) = self.find_hole(address, max_mss, request_options).await {
                        let mut failed = report.clone();
                        failed.outcome = Outcome::Failed(failure, None);
                        failed.reclassify_as_path_mtu(hole);
                        path.failed = Some(Box::new(failed));
                        path.hole = Some(hole);
                    }
                }
                Trial::Answered(..) | Trial::Other => {}
            }
        }
        path
    }

    /// Finds the packet size limit of the path that a large call took, after that call timed out; `None` if there is
    /// none.
    pub(crate) async fn hole_of_large_call(&self, report: &Report) -> Option<Hole> {
        let address = report.address?;
        let mtu = report.local.and_then(|local| interface_mtu(local.ip()));
        let max_mss = mtu.unwrap_or(USUAL_MTU).saturating_sub(header_len(address));
        let id = "0".repeat(LARGE);
        self.find_hole(address, max_mss, RequestOptions::new(&id))
            .await
    }

    /// Finds the largest segment that passes, if small ones pass and the largest ones do not; `None`
    /// otherwise. `max_mss` is the largest segment that the interface can send, in bytes.
    async fn find_hole(
        &self,
        address: SocketAddr,
        max_mss: u32,
        request_options: RequestOptions<'_>,
    ) -> Option<Hole> {
        if max_mss <= SMALL_MSS {
            return None;
        }
        let small = self
            .trial(address, Some(SMALL_MSS), request_options, LARGE_TIMEOUT)
            .await;
        let Trial::Answered(took, _) = small else {
            return None;
        };
        // A lost segment is retransmitted after 200 ms at the earliest (Linux, `TCP_RTO_MIN`).
        let within = (took * 4).clamp(Duration::from_millis(400), Duration::from_secs(1));
        let (mut passes, mut fails) = (SMALL_MSS, max_mss + 1);
        while fails - passes > 1 {
            let mss = passes + (fails - passes) / 2;
            match self
                .trial(address, Some(mss), request_options, within)
                .await
            {
                Trial::Answered(..) => passes = mss,
                Trial::Silent(_) => fails = mss,
                Trial::Other => return None,
            }
        }
        if passes == max_mss {
            return None;
        }
        // A backend that is slow at times might have produced the same result by chance.
        for _ in 0..CONFIRMATIONS {
            let (below, above) = (Some(passes), Some(fails));
            let passes_again = self.trial(address, below, request_options, within).await;
            let fails_again = self.trial(address, above, request_options, within).await;
            if !matches!(
                (passes_again, fails_again),
                (Trial::Answered(..), Trial::Silent(_))
            ) {
                return None;
            }
        }
        Some(Hole {
            mtu: passes + header_len(address),
            direction: self
                .direction(address, passes, request_options, within)
                .await,
        })
    }

    /// The direction in which segments of more than `passes` bytes are lost; `None` if it cannot be
    /// determined.
    async fn direction(
        &self,
        address: SocketAddr,
        passes: u32,
        request_options: RequestOptions<'_>,
        within: Duration,
    ) -> Option<Direction> {
        let is_padded = request_options.request_id.len() >= LARGE;
        if !is_padded {
            // Without large header fields, the request is a single packet that passes.
            let fields = self.0.http.headers.iter();
            let fields: usize = fields
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            let url = self.0.target.path.as_str().len();
            return (fields + url < passes as usize / 2).then_some(Direction::Back);
        }
        // A large request with a small response.
        let there = RequestOptions {
            padding: LARGE,
            ..RequestOptions::new("0")
        };
        match self.trial(address, None, there, within).await {
            Trial::Answered(..) => Some(Direction::Back),
            Trial::Silent(_) => Some(Direction::There),
            Trial::Other => None,
        }
    }

    /// Calls an address on a connection with this maximum segment size.
    async fn trial(
        &self,
        address: SocketAddr,
        mss: Option<u32>,
        request_options: RequestOptions<'_>,
        within: Duration,
    ) -> Trial {
        let start = Instant::now();
        let options = Options {
            mss,
            ..Options::default()
        };
        let deadline = start + within;
        let mut seen = Seen::default();
        let call = self.attempt(address, options, request_options, deadline, &mut seen);
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

/// Length of the IP and TCP headers in bytes, which the MSS does not include (RFC 9293, section 3.7.1).
fn header_len(address: SocketAddr) -> u32 {
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

/// The IP address of an interface; `None` if its address is of another family.
pub(crate) fn ip_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

/// Connects with a time to live of one hop, two hops, and so on, all at the same time, and finds the farthest
/// hop that returned an ICMP "time exceeded" message.
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
