//! A round of calls: the target's name is resolved, then each address is called, stage by stage. Each stage
//! is a function that returns its result and how long it took.

mod conclude;
mod config;
mod connect;
mod http;
mod path;
mod proxy;
mod request;
mod retransmissions;
mod stream;
mod tap;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use ::http::Method;
use runtime::unpoisoned::unpoisoned;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::config::{CaptureLimits, HttpConfig};
use self::connect::{ConnectError, Options, connect};
use self::http::{Connection, Exchange, ExchangeError};
pub(crate) use self::path::ip_of;
use self::request::RequestOptions;
use self::retransmissions::RetransmissionWatch;
use self::stream::Stream;
use self::tls::{Handshake, HandshakeError};
use crate::dns::{Host, Lookup, Resolver};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::failure::{Cause, Failure, FailureKind, Stage, TlsPort};
use crate::mesh::node::{Node, SampleConfig};
use crate::mesh::sample::Sampled;
use crate::report::{Outcome, Phase, Report, Timings, Tls};
use crate::target::{Scheme, Target};
use crate::targets::Check;
use crate::trust::Trust;

/// Maximum number of addresses that are called at the same time: high enough that a few addresses that do not respond
/// do not delay the rest, and low enough to limit memory.
const MAX_CONCURRENT: usize = 16;

/// Most addresses to call for a name that is expected to be blocked.
const MAX_BLOCKED: usize = 64;

/// Size in bytes of a large request and of its response, which show whether large packets pass. Servers
/// accept a head of this size.
const LARGE: usize = 8000;

/// Timeout of the test whether a port that closes plain connections speaks TLS.
const TLS_TEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Shortest time from a test that found no TLS to the next one.
const TLS_TEST_INTERVAL: Duration = Duration::from_secs(60);

/// Settings of a probe.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// The target, and the expected result.
    pub check: Check,
    /// Resolver settings, such as the name servers to query.
    pub resolver: Resolver,
    /// HTTP settings: the request, and which responses are a success.
    pub http: HttpConfig,
    /// TLS settings: trusted CA certificates and the client certificate.
    pub trust: Trust,
    /// Timeout of a whole call, including the lookup.
    pub timeout: Duration,
    /// Whether to call every address of the name, and not only the first that accepts a connection.
    pub each_address: bool,
    /// Whether to call a sample of the addresses in each round; a caller that does is part of a mesh.
    pub sample: Option<SampleConfig>,
}

impl ProbeConfig {
    /// The settings for the control, if there is one: GET, a new connection for each call, and any 2xx status
    /// is a success.
    fn control(&self) -> Option<Self> {
        let target = self.check.control.clone()?;
        let mut http = self.http.clone();
        http.method = Method::GET;
        http.expected_status = ExpectedStatus::default();
        http.keep_alive = false;
        Some(Self {
            check: Check {
                target,
                expectation: Expectation::Ok,
                control: None,
            },
            http,
            each_address: false,
            sample: None,
            ..self.clone()
        })
    }
}

/// Calls a target. A clone shares its connections with the original.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    expectation: Expectation,
    control: Option<Probe>,
    resolver: Resolver,
    http: HttpConfig,
    /// TLS client; `None` unless the scheme is `https`.
    tls: Option<tls::Client>,
    timeout: Duration,
    each_address: bool,
    /// This caller's view of its mesh; `None` unless the addresses are sampled.
    node: Option<Arc<Node>>,
    /// Source address of the calls of a mesh: the address by which the other callers know this one.
    source: Option<IpAddr>,
    /// When a test last found that the port of an `http` target does not speak TLS.
    last_without_tls: Mutex<Option<Instant>>,
    /// Idle connections to reuse, by address.
    idle_connections: Mutex<HashMap<SocketAddr, Connection>>,
}

/// A round: one lookup, and a call of each address that was chosen from its result.
#[derive(Debug)]
pub struct Round {
    /// The target that is called.
    pub target: Arc<Target>,
    /// When the round started.
    pub started: SystemTime,
    /// The lookup of the target's name; `None` if the target is an IP address.
    pub lookup: Option<Arc<Lookup>>,
    /// The calls. There is at least one, except in a mesh without another caller.
    pub calls: Calls,
}

/// The calls of a round, in the order in which they end. Dropping it aborts the running ones.
#[derive(Debug)]
pub struct Calls {
    waiting: std::vec::IntoIter<Call>,
    running: JoinSet<Report>,
    watch: RetransmissionWatch,
    /// Shortest connection attempt that counts as blocked if it times out.
    min_attempt: Duration,
    /// The running call of the control, if there is one.
    running_control: JoinSet<Report>,
    control: Option<Arc<Report>>,
}

/// Data recorded while a call runs, whatever its result.
#[derive(Debug, Default)]
struct Seen {
    timings: Timings,
    local: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
}

/// A call that has not started yet.
#[derive(Debug)]
struct Call {
    probe: Probe,
    started: SystemTime,
    lookup: Option<Arc<Lookup>>,
    /// When the call began, for its timings; `None` for one of several calls, which begins when it is started.
    start: Option<Instant>,
    /// Timeout of the call, including the lookup.
    timeout: Duration,
    /// How and why the address was chosen, if the addresses are sampled.
    sampled: Option<Sampled>,
    /// The first address and the others, which are tried in order until one accepts a connection; or the failure
    /// because of which there is none.
    addresses: Result<(SocketAddr, Vec<SocketAddr>), Failure>,
}

impl Probe {
    /// Prepares the probe; nothing is sent.
    pub fn new(config: ProbeConfig) -> Self {
        let control = config.control().map(Self::new);
        let ProbeConfig {
            check,
            resolver,
            http,
            trust,
            timeout,
            each_address,
            sample,
        } = config;
        let tls = (check.target.scheme == Scheme::Https).then(|| {
            let client = tls::Client::new(trust, http.http2);
            client.expect("ring has every version of TLS that is asked for")
        });
        Self(Arc::new(Inner {
            target: Arc::new(check.target),
            expectation: check.expectation,
            control,
            resolver,
            http,
            tls,
            timeout,
            each_address,
            source: sample.as_ref().and_then(|sample| sample.own),
            node: sample.map(Node::new).map(Arc::new),
            last_without_tls: Mutex::default(),
            idle_connections: Mutex::default(),
        }))
    }

    /// The target that this probe calls.
    pub fn target(&self) -> &Arc<Target> {
        &self.0.target
    }

    /// This caller's view of its mesh; `None` unless the addresses are sampled.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.0.node.as_ref()
    }

    /// The expected result of this probe's calls.
    pub fn expectation(&self) -> Expectation {
        self.0.expectation
    }

    /// Resolves the target's name and prepares the calls, which are made as [`Calls::next`] is awaited. All
    /// failures, that of the lookup included, are in their reports.
    pub async fn round(&self) -> Round {
        self.round_within(self.0.timeout).await
    }

    /// Like [`Probe::round`], with the timeout `within` for each call, if that is less than the configured
    /// one.
    pub async fn round_within(&self, within: Duration) -> Round {
        let timeout = within.min(self.0.timeout);
        let started = SystemTime::now();
        let watch = RetransmissionWatch::start();
        let start = Instant::now();
        let mut running_control = JoinSet::new();
        if let Some(control) = self.0.control.clone() {
            running_control.spawn(control.only_call_within(timeout));
        }
        let (lookup, addresses) = self.addresses(start + timeout).await;
        if let Ok((first, others)) = &addresses {
            self.idle_connections()
                .retain(|address, _| address == first || others.contains(address));
        }
        let call = |start, sampled, addresses| Call {
            probe: self.clone(),
            started,
            lookup: lookup.clone(),
            start,
            timeout,
            sampled,
            addresses,
        };
        let one_of_several = |address, sampled| call(None, sampled, Ok((address, Vec::new())));
        let calls: Vec<Call> = match (addresses, &self.0.node) {
            (Ok((first, others)), Some(node)) => {
                let all: Vec<_> = [first].into_iter().chain(others).collect();
                let picks = node.choose(&all).into_iter();
                picks
                    .map(|(address, sampled)| one_of_several(address, Some(sampled)))
                    .collect()
            }
            (Ok((first, others)), None) if self.0.each_address => [first]
                .into_iter()
                .chain(others)
                .map(|address| one_of_several(address, None))
                .collect(),
            (addresses, _) => vec![call(Some(start), None, addresses)],
        };
        Round {
            target: Arc::clone(&self.0.target),
            started,
            calls: Calls {
                waiting: calls.into_iter(),
                running: JoinSet::new(),
                watch,
                min_attempt: self.0.http.connect_timeout.min(timeout / 2),
                running_control,
                control: None,
            },
            lookup,
        }
    }

    /// A round of one call, for the control. The future is boxed because a round contains it.
    fn only_call_within(self, within: Duration) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        Box::pin(async move { self.round_within(within).await.only_call().await })
    }

    /// Resolves the target's name: the lookup, unless the target is an IP address, and the addresses to call.
    async fn addresses(
        &self,
        deadline: Instant,
    ) -> (
        Option<Arc<Lookup>>,
        Result<(SocketAddr, Vec<SocketAddr>), Failure>,
    ) {
        let Target { host, port, .. } = &*self.0.target;
        let resolver = &self.0.resolver;
        let name = match host {
            Host::Address { ip, scope_id } => {
                let address = with_scope(SocketAddr::new(*ip, *port), *scope_id);
                return (None, Ok((address, Vec::new())));
            }
            Host::Name(name) => name,
        };
        let lookup = resolver.lookup(name, deadline).await;
        let ips = match &lookup.outcome {
            Ok(ips) => Ok(ips.clone()),
            Err(failure) => Err(Failure::new(
                Stage::Dns,
                failure.kind(),
                Cause::Lookup,
                lookup.duration,
            )),
        };
        let addresses = ips.and_then(|ips| {
            let mut addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, *port));
            let nothing = Failure::new(
                Stage::Dns,
                FailureKind::DnsNodata,
                Cause::Lookup,
                Duration::ZERO,
            );
            let first = addresses.next().ok_or(nothing)?;
            Ok((first, addresses.collect()))
        });
        (Some(Arc::new(lookup)), addresses)
    }

    /// Calls the first of the addresses that accepts a connection. A failure to connect says nothing about
    /// the other addresses; if no address accepts one, the result is [`most_telling`] of the failures.
    async fn call(
        &self,
        (first, others): &(SocketAddr, Vec<SocketAddr>),
        request_id: &str,
        is_large: bool,
        deadline: Instant,
        seen: &mut Seen,
    ) -> (SocketAddr, Outcome) {
        if self.0.expectation == Expectation::Blocked && !others.is_empty() {
            return self
                .call_all(*first, others, request_id, deadline, seen)
                .await;
        }
        let usual = Options::default();
        // echo-server sends the whole id back, so the response is large as well.
        let large = is_large.then(|| format!("{request_id:0<LARGE$}"));
        let request_options = RequestOptions::new(large.as_deref().unwrap_or(request_id));
        let mut failures = Vec::new();
        for &address in [first].into_iter().chain(others) {
            if !failures.is_empty() && Instant::now() >= deadline {
                break;
            }
            let outcome = self
                .attempt(address, usual, request_options, deadline, seen)
                .await;
            match outcome {
                Outcome::Failed(failure, None) if failure.stage <= Stage::Connect => {
                    failures.push((address, failure));
                }
                outcome => return (address, outcome),
            }
        }
        let (address, failure) = most_telling(failures);
        (address, Outcome::Failed(failure, None))
    }

    /// Calls all addresses of a name that is expected to be blocked, at the same time: the name is blocked only if
    /// each of its addresses is. Returns the call of the first address that is not blocked, or else
    /// [`most_telling`] of the failures.
    async fn call_all(
        &self,
        first: SocketAddr,
        others: &[SocketAddr],
        request_id: &str,
        deadline: Instant,
        seen: &mut Seen,
    ) -> (SocketAddr, Outcome) {
        let resolved = seen.timings[Phase::Dns];
        let mut calls = JoinSet::new();
        let addresses = [first].into_iter().chain(others.iter().copied());
        for (number, address) in addresses.take(MAX_BLOCKED).enumerate() {
            let (probe, request_id) = (self.clone(), request_id.to_owned());
            calls.spawn(async move {
                let mut seen = Seen::default();
                let (usual, request_options) =
                    (Options::default(), RequestOptions::new(&request_id));
                let call = probe.attempt(address, usual, request_options, deadline, &mut seen);
                let outcome = call.await;
                (number, address, outcome, seen)
            });
        }
        let mut ended = calls.join_all().await;
        ended.sort_by_key(|(number, ..)| *number);
        let is_blocked = |outcome: &Outcome| {
            let kind = outcome.failure().map(|failure| failure.kind);
            Expectation::Blocked.allows(kind)
        };
        let open = ended
            .iter()
            .position(|(_, _, outcome, _)| !is_blocked(outcome));
        if let Some(open) = open {
            let (_, address, outcome, its_seen) = ended.swap_remove(open);
            *seen = its_seen;
            seen.timings[Phase::Dns] = resolved;
            return (address, outcome);
        }
        let failures = ended
            .into_iter()
            .filter_map(|(_, address, outcome, _)| match outcome {
                Outcome::Failed(failure, _) => Some((address, failure)),
                _ => None,
            });
        let (address, failure) = most_telling(failures.collect());
        (address, Outcome::Failed(failure, None))
    }

    /// Connects to an address, unless there is an idle connection to it, and sends one request, unless the
    /// scheme is `tcp`.
    async fn attempt(
        &self,
        address: SocketAddr,
        options: Options,
        request_options: RequestOptions<'_>,
        deadline: Instant,
        seen: &mut Seen,
    ) -> Outcome {
        let start = Instant::now();
        let Inner { target, http, .. } = &*self.0;
        let mut connection = match self.idle_connection(address).await {
            Some(connection) => connection,
            None => {
                let connected = match self.connect(address, options, deadline, seen).await {
                    Ok(_) if target.scheme == Scheme::Tcp => return Outcome::Connected,
                    Ok(stream) => self.speak_http(stream, start, deadline, seen).await,
                    Err(failure) => Err(failure),
                };
                match connected {
                    Ok(connection) => connection,
                    Err(failure) => return Outcome::Failed(failure, None),
                }
            }
        };
        seen.tls = connection.tls.clone();
        seen.local = connection.local;
        let exchange = connection.exchange(http, target, request_options, deadline);
        let Exchange {
            first_byte,
            outcome,
        } = exchange.await;
        seen.timings[Phase::FirstByte] = first_byte;
        // A connection is reused only after a complete response.
        let is_whole = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.cause, Cause::Status),
        };
        if http.keep_alive && is_whole {
            self.idle_connections().insert(address, connection);
        }
        match outcome {
            Ok(response) => Outcome::Answered(response),
            Err(error) => {
                let ExchangeError {
                    kind,
                    cause,
                    received,
                    idle,
                    response,
                } = error;
                let stage = match cause {
                    Cause::Tls(_) if kind == FailureKind::TlsHandshake => Stage::Tls,
                    _ => Stage::Http,
                };
                let is_silent = received.bytes == 0 && idle.is_none();
                let mut failure = Failure::new(stage, kind, cause, start.elapsed());
                if is_silent {
                    failure.detail.wants_tls = self.wants_tls(address, kind, deadline).await;
                }
                failure.detail.received = received;
                failure.detail.idle = idle;
                Outcome::Failed(failure, response)
            }
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        options: Options,
        deadline: Instant,
        seen: &mut Seen,
    ) -> Result<TcpStream, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let within = left.min(self.0.http.connect_timeout);
        let options = Options {
            source: self.0.source,
            ..options
        };
        let connected = connect(address, options, within).await;
        let (stream, took) = connected.map_err(|error| {
            let ConnectError {
                kind,
                cause,
                icmp,
                lacks_route,
                took,
            } = error;
            let mut failure = Failure::new(Stage::Connect, kind, cause, took);
            failure.detail.icmp = icmp;
            failure.detail.lacks_route = lacks_route;
            failure.detail.is_cut_short = left < self.0.http.connect_timeout;
            failure
        })?;
        seen.timings[Phase::Connect] = Some(took);
        seen.local = stream.local_addr().ok();
        Ok(stream)
    }

    /// Prepares a TCP connection for HTTP, with the TLS handshake if the scheme is `https`. `start` is when
    /// the attempt began.
    async fn speak_http(
        &self,
        stream: TcpStream,
        start: Instant,
        deadline: Instant,
        seen: &mut Seen,
    ) -> Result<Connection, Failure> {
        let Inner { target, http, .. } = &*self.0;
        let (stream, tls) = match &self.0.tls {
            None => (Stream::Tcp(stream), None),
            Some(client) => {
                let Handshake { took, tls, outcome } =
                    client.handshake(stream, target, deadline).await;
                seen.tls = Some(Arc::clone(&tls));
                let stream = outcome.map_err(|error| {
                    let HandshakeError {
                        kind,
                        cause,
                        received,
                    } = error;
                    let mut failure = Failure::new(Stage::Tls, kind, cause, start.elapsed());
                    failure.detail.received = received;
                    failure
                })?;
                seen.timings[Phase::Tls] = Some(took);
                if http.http2 && tls.protocol.as_deref() != Some("h2") {
                    let cause = Cause::MalformedHttp2("no agreement on HTTP/2 (ALPN)".to_owned());
                    let kind = FailureKind::Protocol;
                    return Err(Failure::new(Stage::Http, kind, cause, start.elapsed()));
                }
                (Stream::Tls(Box::new(stream)), Some(tls))
            }
        };
        let connection = Connection::new(stream, tls, seen.local, http).await;
        connection.map_err(|error| {
            let cause = Cause::Malformed(error.to_string());
            Failure::new(Stage::Http, FailureKind::Protocol, cause, start.elapsed())
        })
    }

    /// The TLS spoken by a port that closed a plain connection without a response, if it speaks TLS: OpenSSL's
    /// servers close such connections. This is tested on a new connection, and not again for a while if it does
    /// not, which spares a backend that is in trouble.
    async fn wants_tls(
        &self,
        address: SocketAddr,
        kind: FailureKind,
        deadline: Instant,
    ) -> Option<TlsPort> {
        let is_closed = matches!(kind, FailureKind::EmptyReply | FailureKind::Reset);
        if !is_closed || self.0.target.scheme != Scheme::Http {
            return None;
        }
        let last = *unpoisoned(self.0.last_without_tls.lock());
        if last.is_some_and(|last| last.elapsed() < TLS_TEST_INTERVAL) {
            return None;
        }
        let deadline = deadline.min(Instant::now() + TLS_TEST_TIMEOUT);
        let left = deadline.saturating_duration_since(Instant::now());
        let spoken = match (
            connect(address, Options::default(), left).await,
            tls::Client::new(Trust::default(), false),
        ) {
            (Ok((stream, _)), Ok(client)) => {
                client
                    .spoken_by_server(stream, &self.0.target, deadline)
                    .await
            }
            _ => None,
        };
        if spoken.is_none() {
            *unpoisoned(self.0.last_without_tls.lock()) = Some(Instant::now());
        }
        spoken
    }

    /// An idle connection to this address, if there is one and it is still open.
    async fn idle_connection(&self, address: SocketAddr) -> Option<Connection> {
        let kept = self.idle_connections().remove(&address);
        let mut connection = kept?;
        connection.is_reusable().await.then_some(connection)
    }

    /// The idle connections. No code that holds their lock can panic, so a poisoned lock is still consistent.
    fn idle_connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, Connection>> {
        unpoisoned(self.0.idle_connections.lock())
    }
}

impl Round {
    /// Waits for the call of a round that has only one. A round has several only with
    /// [`ProbeConfig::each_address`] or [`ProbeConfig::sample`].
    pub async fn only_call(mut self) -> Report {
        let report = self.calls.next().await;
        report.expect("a round has at least one call")
    }
}

impl Calls {
    /// Waits for the next call to end; `None` once all have.
    pub async fn next(&mut self) -> Option<Report> {
        while self.running.len() < MAX_CONCURRENT
            && let Some(call) = self.waiting.next()
        {
            self.running.spawn(call.run());
        }
        let mut report = joined(self.running.join_next().await?);
        report.retransmissions = self.watch.after_call(&report);
        if report.expectation == Expectation::Blocked && report.is_as_expected() {
            report.require_duration(self.min_attempt);
        }
        if report.expectation == Expectation::Blocked && report.is_as_expected() {
            if let Some(ended) = self.running_control.join_next().await {
                self.control = Some(Arc::new(joined(ended)));
            }
            if let Some(control) = &self.control {
                report.apply_control(Arc::clone(control));
            }
        }
        Some(report)
    }

    /// Waits for all calls to end.
    pub async fn all(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some(report) = self.next().await {
            reports.push(report);
        }
        reports
    }
}

impl Call {
    async fn run(self) -> Report {
        let Self {
            probe,
            started,
            lookup,
            start,
            timeout,
            sampled,
            addresses,
        } = self;
        let resolved = lookup.as_ref().map(|lookup| lookup.duration);
        let now = Instant::now();
        // The timeout of one of several calls does not include the time that it waited to be started.
        let start = start.unwrap_or_else(|| now - resolved.unwrap_or_default());
        let deadline = start + timeout;
        let request_id = format!("{:016x}", rand::random::<u64>().max(1));
        let mut seen = Seen::default();
        seen.timings[Phase::Dns] = resolved;
        let (address, outcome) = match addresses {
            Ok(addresses) => {
                let is_large = sampled.is_some_and(|sampled| sampled.is_large);
                let call = probe.call(&addresses, &request_id, is_large, deadline, &mut seen);
                let (address, outcome) = call.await;
                (Some(address), outcome)
            }
            Err(failure) => (None, Outcome::Failed(failure, None)),
        };
        let Seen {
            mut timings,
            local,
            tls,
        } = seen;
        timings[Phase::Total] = Some(start.elapsed());
        Report {
            target: Arc::clone(&probe.0.target),
            expectation: probe.0.expectation,
            started,
            lookup,
            request_id,
            address,
            sampled,
            local,
            timings,
            retransmissions: None,
            tls,
            control: None,
            outcome,
        }
    }
}

/// The result of a task that nothing aborts; a panic in it continues here.
fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Of the failures to connect to each of the addresses, the first for which this pod has a route, or else the first.
/// The others become part of it.
fn most_telling(mut failures: Vec<(SocketAddr, Failure)>) -> (SocketAddr, Failure) {
    let telling = failures
        .iter()
        .position(|(_, failure)| !failure.detail.lacks_route);
    let (address, mut failure) = failures.remove(telling.unwrap_or_default());
    failure.detail.other_attempts = failures;
    (address, failure)
}

/// Adds the interface to an IPv6 address: a link-local one cannot be reached without it (RFC 4007).
fn with_scope(mut address: SocketAddr, scope_id: u32) -> SocketAddr {
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(scope_id);
    }
    address
}
