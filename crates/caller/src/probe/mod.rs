//! A round of calls: the target's name is resolved, then each address is called, stage by stage. Each
//! stage is a function that returns what it saw and how long it took.

mod certificate;
mod conclude;
mod config;
mod connect;
mod http;
mod icmp;
mod path;
mod proxy;
mod request;
mod resent;
mod stream;
mod tap;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ::http::Method;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::config::{HttpConfig, Keep};
use self::connect::{ConnectError, Options, connect};
use self::http::{Connection, Exchange, ExchangeError};
pub(crate) use self::path::ip_of;
use self::request::Ask;
use self::resent::ResentWatch;
use self::stream::Stream;
use self::tls::{Handshake, HandshakeError};
use crate::dns::{Host, Lookup, Resolver};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::failure::{Cause, Failure, FailureKind, Stage};
use crate::mesh::node::{Node, SampleConfig};
use crate::mesh::sample::Sampled;
use crate::report::{Outcome, Phase, Report, Timings, Tls};
use crate::target::{Scheme, Target};
use crate::targets::Check;
use crate::trust::Trust;

/// How many addresses are called at once: enough that a few dead ones do not hold up the rest, and few
/// enough to bound memory.
const AT_ONCE: usize = 16;

/// Most addresses that are called for a name which is to be blocked.
const MAX_BLOCKED: usize = 64;

/// How large a request and its response are where large packets are to be seen to pass, in bytes: no jumbo frame is
/// larger, and servers accept a head of that size.
const LARGE: usize = 8000;

/// Longest time to look whether a port that is silent speaks TLS.
const LOOK_FOR_TLS: Duration = Duration::from_millis(500);

/// How to call.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// What to call, and what is expected of it.
    pub check: Check,
    /// How names are resolved.
    pub resolver: Resolver,
    /// How requests are made.
    pub http: HttpConfig,
    /// Whom TLS trusts.
    pub trust: Trust,
    /// Longest time for a whole call, the lookup included.
    pub timeout: Duration,
    /// Call every address of the name, not only the first that takes a connection.
    pub each_address: bool,
    /// Call some of the addresses in place of each; a caller that does is part of a mesh.
    pub sample: Option<SampleConfig>,
}

impl ProbeConfig {
    /// How the control is called, if there is one: with GET, on a connection of its own, for any 2xx.
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

/// Calls a target, as often as it is asked to.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    expectation: Expectation,
    control: Option<Probe>,
    resolver: Resolver,
    http: HttpConfig,
    /// For `https`.
    tls: Option<tls::Client>,
    timeout: Duration,
    each_address: bool,
    /// What is known of the addresses of a sample.
    node: Option<Arc<Node>>,
    /// The address that a caller of a mesh is known by to the others, and calls from.
    source: Option<IpAddr>,
    /// Whether the port of an `http` target speaks TLS, once that has been looked at.
    wants_tls: OnceCell<bool>,
    /// The connections that are kept alive.
    kept: Mutex<HashMap<SocketAddr, Connection>>,
}

/// A round: one lookup, and the calls that it leads to.
#[derive(Debug)]
pub struct Round {
    /// What is called.
    pub target: Arc<Target>,
    /// When the round began.
    pub started: SystemTime,
    /// The lookup of the target's name. `None` where there was nothing to look up.
    pub lookup: Option<Arc<Lookup>>,
    /// The calls, of which there is always at least one, but for a sample of nobody else.
    pub calls: Calls,
}

/// The calls of a round, as they end. Dropping it aborts those that are under way.
#[derive(Debug)]
pub struct Calls {
    waiting: std::vec::IntoIter<Call>,
    running: JoinSet<Report>,
    watch: ResentWatch,
    /// How long a connection has to be tried before it counts as blocked.
    enough: Duration,
    /// The call of the control, if there is one, until it has ended.
    controlling: JoinSet<Report>,
    control: Option<Arc<Report>>,
}

/// What is seen of a call on the way, whatever it comes to.
#[derive(Debug, Default)]
struct Seen {
    timings: Timings,
    local: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
}

/// A call that is still to be made.
#[derive(Debug)]
struct Call {
    probe: Probe,
    started: SystemTime,
    lookup: Option<Arc<Lookup>>,
    /// When the call began, for its timings; `None` for one of several, which begin when their turn
    /// comes.
    start: Option<Instant>,
    /// Longest time for the call, the lookup included.
    timeout: Duration,
    /// How and why it is made, if it is one of a sample.
    sampled: Option<Sampled>,
    /// The first address and the others, which are tried in turn until one takes a connection; or why
    /// there is none.
    addresses: Result<(SocketAddr, Vec<SocketAddr>), Failure>,
}

impl Probe {
    /// Prepares to call; nothing is sent.
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
            wants_tls: OnceCell::new(),
            kept: Mutex::default(),
        }))
    }

    /// What is called.
    pub fn target(&self) -> &Arc<Target> {
        &self.0.target
    }

    /// What is known of the addresses that are sampled, where some are.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.0.node.as_ref()
    }

    /// What its calls are expected to come to.
    pub fn expectation(&self) -> Expectation {
        self.0.expectation
    }

    /// Resolves the target's name, and prepares the calls. They are made as [`Calls::next`] is asked for
    /// them; whatever goes wrong is in their reports.
    pub async fn round(&self) -> Round {
        self.round_within(self.0.timeout).await
    }

    /// As [`Probe::round`], with less time for each call, if `within` is less than its timeout.
    pub async fn round_within(&self, within: Duration) -> Round {
        let timeout = within.min(self.0.timeout);
        let started = SystemTime::now();
        let watch = ResentWatch::start();
        let start = Instant::now();
        let mut controlling = JoinSet::new();
        if let Some(control) = self.0.control.clone() {
            controlling.spawn(control.only_call_within(timeout));
        }
        let (lookup, addresses) = self.addresses(start + timeout).await;
        if let Ok((first, others)) = &addresses {
            self.kept()
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
                enough: self.0.http.connect_timeout.min(timeout / 2),
                controlling,
                control: None,
            },
            lookup,
        }
    }

    /// A round of one call, in a box, as a round that has another one in it.
    fn only_call_within(self, within: Duration) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        Box::pin(async move { self.round_within(within).await.only_call().await })
    }

    /// The addresses to call, and the lookup that found them.
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

    /// Calls the first of the addresses that takes a connection. A failure before that says nothing
    /// about the other addresses; if all fail so, the first failure counts.
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
        // Our own server sends the whole of it back.
        let large = is_large.then(|| format!("{request_id:0<LARGE$}"));
        let ask = Ask::usual(large.as_deref().unwrap_or(request_id));
        let outcome = self.attempt(*first, usual, ask, deadline, seen).await;
        if is_connected(&outcome) {
            return (*first, outcome);
        }
        for &address in others {
            if Instant::now() >= deadline {
                break;
            }
            let outcome = self.attempt(address, usual, ask, deadline, seen).await;
            if is_connected(&outcome) {
                return (address, outcome);
            }
        }
        (*first, outcome)
    }

    /// Calls all addresses of a name that is to be blocked, at the same time: it is only if each of them is. Gives
    /// the call of one that is not, or else of the first.
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
                let (usual, ask) = (Options::default(), Ask::usual(&request_id));
                let call = probe.attempt(address, usual, ask, deadline, &mut seen);
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
        let (_, address, outcome, its) = ended.swap_remove(open.unwrap_or_default());
        *seen = its;
        seen.timings[Phase::Dns] = resolved;
        (address, outcome)
    }

    /// Connects to an address, unless a connection to it is kept, and makes one request, if that is what the
    /// target is for.
    async fn attempt(
        &self,
        address: SocketAddr,
        options: Options,
        ask: Ask<'_>,
        deadline: Instant,
        seen: &mut Seen,
    ) -> Outcome {
        let start = Instant::now();
        let Inner { target, http, .. } = &*self.0;
        let mut connection = match self.kept_connection(address).await {
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
        let exchange = connection.exchange(http, target, ask, deadline);
        let Exchange {
            first_byte,
            outcome,
        } = exchange.await;
        seen.timings[Phase::FirstByte] = first_byte;
        // A connection on which a response did not come to its end is not one to keep.
        let is_whole = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.cause, Cause::Status),
        };
        if http.keep_alive && is_whole {
            self.kept().insert(address, connection);
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
                failure.detail.wants_tls =
                    is_silent && self.wants_tls(address, kind, deadline).await;
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
                took,
            } = error;
            let mut failure = Failure::new(Stage::Connect, kind, cause, took);
            failure.detail.icmp = icmp;
            failure
        })?;
        seen.timings[Phase::Connect] = Some(took);
        seen.local = stream.local_addr().ok();
        Ok(stream)
    }

    /// Makes a connection one of HTTP, over TLS where the scheme says so. `start` is when the attempt began.
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

    /// Whether a port that closed a plain connection without a word speaks TLS, as OpenSSL's servers do. It is
    /// asked once, on a connection of its own.
    async fn wants_tls(&self, address: SocketAddr, kind: FailureKind, deadline: Instant) -> bool {
        let is_closed = matches!(kind, FailureKind::EmptyReply | FailureKind::Reset);
        if !is_closed || self.0.target.scheme != Scheme::Http {
            return false;
        }
        let ask = async {
            let deadline = deadline.min(Instant::now() + LOOK_FOR_TLS);
            let left = deadline.saturating_duration_since(Instant::now());
            match (
                connect(address, Options::default(), left).await,
                tls::Client::new(Trust::default(), false),
            ) {
                (Ok((stream, _)), Ok(client)) => {
                    client.is_spoken(stream, &self.0.target, deadline).await
                }
                _ => false,
            }
        };
        *self.0.wants_tls.get_or_init(|| ask).await
    }

    /// A connection to this address that is kept and stands.
    async fn kept_connection(&self, address: SocketAddr) -> Option<Connection> {
        let kept = self.kept().remove(&address);
        let mut connection = kept?;
        connection.is_reusable().await.then_some(connection)
    }

    /// Nothing that is done under the lock can panic.
    fn kept(&self) -> MutexGuard<'_, HashMap<SocketAddr, Connection>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Waits for the call of a round which has one, as every round has but those of
    /// [`ProbeConfig::each_address`].
    pub async fn only_call(mut self) -> Report {
        let report = self.calls.next().await;
        report.expect("a round has at least one call")
    }
}

impl Calls {
    /// The report of the next call that ends; `None` once all have.
    pub async fn next(&mut self) -> Option<Report> {
        while self.running.len() < AT_ONCE
            && let Some(call) = self.waiting.next()
        {
            self.running.spawn(call.run());
        }
        let mut report = joined(self.running.join_next().await?);
        report.resent = self.watch.look(&report);
        if report.expectation == Expectation::Blocked && report.is_as_expected() {
            report.judge_by_time(self.enough);
        }
        if report.expectation == Expectation::Blocked && report.is_as_expected() {
            if let Some(ended) = self.controlling.join_next().await {
                self.control = Some(Arc::new(joined(ended)));
            }
            if let Some(control) = &self.control {
                report.judge_by(Arc::clone(control));
            }
        }
        Some(report)
    }

    /// Waits for all calls.
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
        // One of several calls has its own time, without that of waiting for its turn.
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
            resent: None,
            tls,
            control: None,
            outcome,
        }
    }
}

/// The result of a task, which is not aborted by anybody else than who waits for it.
fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Whether it came to a connection, so that no other address would do better.
fn is_connected(outcome: &Outcome) -> bool {
    let failure = outcome.failure();
    failure.is_none_or(|failure| failure.stage > Stage::Connect)
}

/// A link-local address is of use only with its interface.
fn with_scope(mut address: SocketAddr, scope_id: u32) -> SocketAddr {
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(scope_id);
    }
    address
}
