//! The flags of each command, and how they become its configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Parser, Subcommand};
use http::{HeaderMap, Method};
use runtime::duration::{parse_duration, parse_positive_duration};
use runtime::environment;
use runtime::listen::OptionalListenAddr;
use runtime::log::LevelFilter;

use super::values::{Header, NameServer, parse_target};
use crate::commands::run::{Admin, Schedule};
use crate::commands::{mesh, resolve, run};
use crate::dns::{ConfSource, Families, Host, Resolver};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::mesh::collect::{self, Collector};
use crate::mesh::node::SampleConfig;
use crate::probe::{CaptureLimits, HttpConfig, ProbeConfig};
use crate::target::{Scheme, Target};
use crate::targets::{self, Check};
use crate::trust::{Trust, TrustFiles};
use crate::views::{Format, OnceFormat};

/// Longest interval with `--until-replaced`: at a longer one, calls could miss a pod that is soon replaced.
const MAX_ROLLOUT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    Once(OnceArgs),
    Resolve(ResolveArgs),
    Diagnose(DiagnoseArgs),
    Mesh(MeshArgs),
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    /// Time from the start of a call to the start of the next; 0s calls without a pause. Calls that would
    /// start while a slow one is still running are skipped
    #[arg(long, env = "CALLER_INTERVAL", default_value = "10s", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) interval: Duration,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    /// Stop after this many calls of each target; exit 0 if every call was as expected, else 1
    #[arg(long, env = "CALLER_COUNT", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    /// Stop this long after the start of the first call; exit 0 if every call was as expected, else 1
    #[arg(long, env = "CALLER_DURATION", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) duration: Option<Duration>,

    /// Stop once every pod that responded at first has been replaced by another, as in a rollout: exit 0;
    /// 1 if a call failed; 3 if that did not happen within --duration, with the reason in the summary. Needs
    /// responses that name their pod (X-Pod-Name), and an --interval of at most 1s
    #[arg(long, env = "CALLER_UNTIL_REPLACED")]
    pub(super) until_replaced: bool,

    /// Output of each call: text (three lines), wide (a fourth line with pod, address and the duration of each
    /// phase) or json (an object on one line)
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    pub(super) format: Format,

    /// Call every address that the name resolves to, as for a headless Service
    #[arg(long, env = "CALLER_EACH_ADDRESS")]
    pub(super) each_address: bool,

    /// Call only K of the addresses that each name resolves to, the same ones in every round, and each of the
    /// others in turn, one a round, with a large request. If every node runs such a caller behind that name,
    /// they form a mesh, which /mesh and /mesh.json show beside the live page. The environment variables
    /// POD_IP and NODE_NAME tell this caller its own address and node
    #[arg(long, env = "CALLER_SAMPLE", value_name = "K",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) sample: Option<u16>,

    #[command(flatten)]
    pub(super) rows: RowsArgs,

    /// Reuse a connection for several calls. Without this flag each call makes a new connection, so that a
    /// Service balances every call
    #[arg(long, env = "CALLER_KEEP_ALIVE")]
    pub(super) keep_alive: bool,

    /// Listen address for the live page at /, and for /status.json, /metrics, /livez and /readyz: [IP]:PORT,
    /// or off [default: :8082; a run with --count, --duration or --until-replaced goes on without it if that
    /// port is in use]
    #[arg(long, env = "CALLER_ADMIN_LISTEN", value_name = "LISTEN")]
    pub(super) admin_listen: Option<OptionalListenAddr>,

    /// Accept requests for the live page with this host name, such as that of an ingress; several are separated
    /// by commas. IP addresses, localhost, names without a dot and names of Services (.svc) are always accepted
    #[arg(
        long,
        env = "CALLER_ADMIN_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) admin_host: Vec<String>,

    /// Log level on stderr, which kubectl logs shows among the calls: error, warn, info, debug, trace or
    /// off
    #[arg(
        long,
        env = "CALLER_LOG_LEVEL",
        default_value = "warn",
        value_name = "LEVEL"
    )]
    pub(super) log_level: LevelFilter,
}

/// Calls each target once and exits with the result, for tests, init containers and Jobs.
///
/// An init container that waits for a backend: `caller once --wait 60s tcp://db:5432`.
/// A check in a pipeline, or in a hook of a sync: `caller once --targets FILE --format junit`.
///
/// Without a target, it calls those of process 1 of this pod, with its options, if that is a caller too, as with
/// kubectl exec.
///
/// Exit code for one target, 0 if the call was as expected, else as curl's:
///    1  it succeeded although a failure was expected, or it was blocked but its control failed, too
///    2  a flag, a value or a file is not valid
///    6  DNS
///    7  the connection was refused, the address is unreachable, or this pod has no descriptor or port left
///    8  the response is not HTTP
///   18  the response was cut short
///   22  an error status of the backend or of a proxy
///   28  timeout
///   35  the TLS handshake failed
///   52  the connection was closed before a response
///   56  the connection was reset
///   60  the certificate was not accepted
///   63  the response is too large
///
/// Exit code for several targets: 0 if every call was as expected, else 1; 2 as above.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct OnceArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    /// Output: text, wide or json; or, for CI and Argo CD, tap (version 14) or junit
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    pub(super) format: OnceFormat,

    /// Expected result of the targets on the command line: ok; blocked (no connection: connect_timeout or
    /// connect_unreachable); or a kind of failure, such as dns_nxdomain or connect_refused
    #[arg(long, env = "CALLER_EXPECT", default_value = "ok", value_name = "WHAT")]
    pub(super) expect: Expectation,
}

/// Looks up a name, and shows the resolver configuration and every query sent.
///
/// Without a name, the host of the first target of process 1 of this pod is looked up, if that is a caller too, as with
/// kubectl exec; or else that of CALLER_URL, or else `backend`.
///
/// The exit code is 0, or 6 if there is no address.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct ResolveArgs {
    /// Name to look up; HOST:PORT or a URL is accepted as well
    #[arg(env = "CALLER_NAME", default_value = "backend", value_parser = resolve::parse_argument)]
    pub(super) name: Host,

    /// Afterwards query A and AAAA this many times, from one socket as glibc does and from two, and count the
    /// lost responses: a race in conntrack can cost programs five seconds for each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: Option<u32>,

    #[command(flatten)]
    pub(super) resolver: ResolverArgs,

    /// Timeout of the whole lookup
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) timeout: Duration,
}

/// Makes a call step by step, and shows for the first failure the likely cause and the next command to run.
///
/// The steps are resolv.conf and DNS; then TCP, TLS and HTTP for each address; then the network path in both
/// directions. If the name has one address, it is called several times, since several pods may be behind it.
///
/// Without a target, it calls those of process 1 of this pod, with its options, if that is a caller too, as with
/// kubectl exec.
///
/// The exit code is that of `caller once`.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct DiagnoseArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    /// Show the listening sockets of this pod and who can reach them, instead of making a call
    #[arg(long)]
    pub(super) listening: bool,

    /// Do not test the network path, which takes further connections: the largest packets that pass, and the last
    /// hop that answers
    #[arg(long, env = "CALLER_NO_PATH")]
    pub(super) no_path: bool,

    /// Output: text, or json (an object for each target, with the same steps)
    // The id differs from that of the loop's flag so that process 1's value of that flag is not taken over.
    #[arg(
        id = "diagnose_format",
        long = "format",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(super) format: ReportFormat,
}

/// Collects the results of all callers of a mesh, and shows what is wrong and which node reaches which.
///
/// It says in one sentence what is wrong, if anything: a node that cannot be reached or cannot reach any other,
/// groups or pairs of nodes that do not reach each other, slow nodes, nodes without results. Then it draws a table
/// of which node reaches which, in how many milliseconds.
///
/// A mesh is a caller with --sample on every node, all of them behind one headless name (or several names, such as
/// one for each zone, because a DNS message holds about 4,000 addresses). Without a target, the target of process 1
/// of this pod is used, if that is such a caller.
///
/// Exit code: 0 if all is well, 1 if not, 3 if no caller of the mesh gave its results.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct MeshArgs {
    /// Target that the callers of the mesh call
    // CALLER_URL is not read: in a frontend it is the URL of the backend.
    #[arg(default_value = "http://mesh:8080/", value_parser = parse_target, value_name = "TARGET")]
    pub(super) url: Vec<Target>,

    #[command(flatten)]
    pub(super) rows: RowsArgs,

    /// Output: text, or json (the object that the page at /mesh is drawn from)
    // The id differs from that of the loop's flag so that process 1's value of that flag is not taken over.
    #[arg(
        id = "mesh_format",
        long = "format",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(super) format: ReportFormat,

    #[command(flatten)]
    pub(super) resolver: ResolverArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RowsArgs {
    /// Port at which the callers of a mesh serve their results (that of their --admin-listen)
    #[arg(long, env = "CALLER_ROWS_PORT", default_value_t = collect::DEFAULT_PORT, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) rows_port: u16,
}

/// Output format of a diagnosis or a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Before the first call, try every 500ms until a call is as expected, for at most this long. Only the last
    /// of these attempts is printed; it counts as the first call
    #[arg(long, env = "CALLER_WAIT", default_value = "0s", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// What to call: http://HOST[:PORT][/PATH], https://... or tcp://HOST:PORT; a HOST without a dot is a
    /// Service of this namespace. Several targets are called independently of each other; in CALLER_URL they
    /// are separated by white space
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/", value_parser = parse_target,
          value_name = "TARGET")]
    pub(super) url: Vec<Target>,

    /// File with a target on each line: EXPECTATION TARGET [name=NAME] [control=TARGET]; # starts a comment.
    /// An expectation is ok, blocked (no connection) or a kind of failure. The control is a target that has to
    /// succeed in the same round, to prove that a policy and not a dead backend is what blocks
    #[arg(long, env = "CALLER_TARGETS", value_name = "FILE")]
    pub(super) targets: Option<PathBuf>,

    /// Timeout of a whole call, DNS included
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) timeout: Duration,

    /// Timeout of each TCP connection attempt
    #[arg(long, env = "CALLER_CONNECT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) connect_timeout: Duration,

    #[command(flatten)]
    pub(super) resolver: ResolverArgs,

    #[command(flatten)]
    pub(super) trust: TrustArgs,

    /// Use HTTP/2: with prior knowledge (h2c) for http://, negotiated (ALPN) for https://
    #[arg(long, env = "CALLER_HTTP2")]
    pub(super) http2: bool,

    /// Method of the HTTP request
    #[arg(long, env = "CALLER_METHOD", default_value = "GET")]
    pub(super) method: Method,

    /// Header to send, besides X-Request-Id, traceparent and User-Agent; may be repeated. CALLER_HEADER has one
    /// on each line
    #[arg(
        long,
        env = "CALLER_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n'
    )]
    pub(super) header: Vec<Header>,

    /// HTTP statuses that count as a success: codes, classes and ranges, such as 2xx,404
    #[arg(
        long,
        env = "CALLER_EXPECT_STATUS",
        default_value = "2xx",
        value_name = "STATUSES"
    )]
    pub(super) expect_status: ExpectedStatus,
}

/// Whether the targets of a command were given on the command line, and not by the environment or a default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    /// Whether at least one target was given as an argument.
    pub(super) url: bool,
    /// Whether a file of targets was given.
    pub(super) file: bool,
}

impl Given {
    /// Finds which targets were given; `None` for a command that takes no targets.
    pub(super) fn of(matches: &ArgMatches) -> Option<Self> {
        let is_given = |id| {
            matches.try_contains_id(id).ok()?;
            Some(matches.value_source(id) == Some(ValueSource::CommandLine))
        };
        Some(Self {
            url: is_given("url")?,
            file: is_given("targets").unwrap_or_default(),
        })
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct TrustArgs {
    /// CA certificates to trust for https://, in PEM; read again when the file changes, as --cert and --key
    /// are [default: the file in SSL_CERT_FILE, or the system's store, and the cluster's CA if a
    /// ServiceAccount is mounted]
    #[arg(long, env = "CALLER_CACERT", value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,

    /// Client certificate for servers that request one (mutual TLS), in PEM, with its chain
    #[arg(long, env = "CALLER_CERT", value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,

    /// Private key of --cert, in PEM [default: the file of --cert]
    #[arg(long, env = "CALLER_KEY", value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,

    /// Do not verify the server's certificate; it is shown nevertheless
    #[arg(long, env = "CALLER_INSECURE")]
    pub(super) insecure: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResolverArgs {
    /// Timeout of each DNS query; a shorter `timeout` in resolv.conf takes precedence
    #[arg(long, env = "CALLER_DNS_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) dns_timeout: Duration,

    /// Address family to look up: auto (both, IPv4 first), 4 or 6
    #[arg(
        long,
        env = "CALLER_IP_FAMILY",
        default_value = "auto",
        value_name = "FAMILY"
    )]
    pub(super) ip_family: Families,

    /// File with the name servers, search list and options; read again for every call
    #[arg(
        long,
        env = "CALLER_RESOLV_CONF",
        default_value = "/etc/resolv.conf",
        value_name = "FILE"
    )]
    pub(super) resolv_conf: PathBuf,

    /// File with names that are not looked up in DNS; read again for every call
    #[arg(
        long,
        env = "CALLER_HOSTS",
        default_value = "/etc/hosts",
        value_name = "FILE"
    )]
    pub(super) hosts: PathBuf,

    /// Query this name server instead of those in resolv.conf; several are separated by commas. The port is 53
    /// if none is given
    #[arg(
        long,
        env = "CALLER_NAMESERVER",
        value_name = "IP[:PORT]",
        value_delimiter = ','
    )]
    pub(super) nameserver: Vec<NameServer>,
}

impl RunArgs {
    /// Checks flags that exclude each other.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.until_replaced && self.interval > MAX_ROLLOUT_INTERVAL {
            return Err(
                "--until-replaced needs an --interval of at most 1s, such as --interval 20ms",
            );
        }
        if self.until_replaced && self.keep_alive {
            return Err(
                "--until-replaced cannot be used with --keep-alive, which stays with one pod",
            );
        }
        Ok(())
    }
}

impl CallArgs {
    /// Keeps the targets of the command line, or else those of the environment, or else the default target, and
    /// drops the others.
    pub(super) fn keep_given(&mut self, given: Given) {
        match given {
            Given {
                url: true,
                file: false,
            } => self.targets = None,
            Given {
                url: false,
                file: true,
            } => self.url.clear(),
            Given {
                url: true,
                file: true,
            } => {}
            Given {
                url: false,
                file: false,
            } => {
                let url = std::env::var("CALLER_URL").ok();
                let is_set = url.is_some_and(|url| environment::value(&url).is_some());
                if self.targets.is_some() && !is_set {
                    self.url.clear();
                }
            }
        }
    }

    /// The configuration of each target's calls. `expectation` is for targets that are not from a file.
    ///
    /// # Errors
    ///
    /// When there are too many targets, two have the same name or URL, or a certificate or key cannot be used.
    pub(super) fn into_probes(
        self,
        expectation: Expectation,
        each_address: bool,
        keep_alive: bool,
    ) -> Result<Vec<ProbeConfig>, String> {
        let Self {
            url,
            targets,
            timeout,
            connect_timeout,
            resolver,
            trust,
            http2,
            method,
            header,
            expect_status,
        } = self;
        let mut headers = HeaderMap::new();
        for Header(name, value) in header {
            headers.append(name, value);
        }
        let given = url.into_iter().map(|target| Check {
            target,
            expectation,
            control: None,
        });
        let from_file = match targets {
            Some(path) => targets::read(&path)
                .map_err(|error| format!("--targets {}: {error}", path.display()))?,
            None => Vec::new(),
        };
        let checks: Vec<Check> = given.chain(from_file).collect();
        targets::check_all(&checks).map_err(|error| error.to_string())?;
        let needs_tls = checks.iter().any(Check::uses_tls);
        let TrustArgs {
            cacert,
            cert,
            key,
            insecure,
        } = trust;
        let files = TrustFiles {
            cacert,
            cert,
            key,
            insecure,
        };
        let trust = Trust::load(files, needs_tls).map_err(|error| error.to_string())?;
        let resolver = Resolver::from(resolver);
        let http = HttpConfig {
            method,
            headers,
            expected_status: expect_status,
            http2,
            keep_alive,
            connect_timeout,
            capture: CaptureLimits::default(),
        };
        let probe = |check| ProbeConfig {
            check,
            resolver: resolver.clone(),
            http: http.clone(),
            trust: trust.clone(),
            timeout,
            each_address,
            sample: None,
        };
        Ok(checks.into_iter().map(probe).collect())
    }
}

/// The settings of `--sample`, with this pod's address and node from the downward API.
fn sample_config(count: usize) -> Result<SampleConfig, String> {
    let variable = |name| std::env::var(name).ok();
    let given =
        |name| variable(name).and_then(|value| Some(environment::value(&value)?.to_owned()));
    let own = given("POD_IP").map(|ip| {
        let parsed = ip.parse();
        parsed.map_err(|_| format!("POD_IP: {ip:?} is not an IP address"))
    });
    Ok(SampleConfig {
        count,
        own: own.transpose()?,
        node: given("NODE_NAME"),
    })
}

/// The name of this pod, if the downward API provides it.
fn pod_name() -> Option<String> {
    std::env::var("POD_NAME").ok()
}

impl MeshArgs {
    /// The configuration of `caller mesh`.
    pub(super) fn into_config(self) -> mesh::Config {
        let Self {
            url,
            rows: RowsArgs { rows_port },
            format,
            resolver,
        } = self;
        mesh::Config {
            collector: Collector {
                targets: url.into_iter().map(Arc::new).collect(),
                resolver: resolver.into(),
                port: rows_port,
            },
            json: format == ReportFormat::Json,
            name: pod_name(),
        }
    }
}

impl From<ResolverArgs> for Resolver {
    fn from(args: ResolverArgs) -> Self {
        let ResolverArgs {
            dns_timeout,
            ip_family,
            resolv_conf,
            hosts,
            nameserver,
        } = args;
        Self {
            hosts,
            source: ConfSource {
                path: resolv_conf,
                nameservers: nameserver.into_iter().map(|server| server.0).collect(),
            },
            families: ip_family,
            query_timeout: dns_timeout,
        }
    }
}

impl RunArgs {
    /// The configuration of the loop.
    ///
    /// # Errors
    ///
    /// Those of [`CallArgs::into_probes`]; several targets, or one over `tcp://`, with `--until-replaced`; a `POD_IP`
    /// that is not an IP address.
    pub(super) fn into_config(self) -> Result<run::Config, String> {
        let RunArgs {
            call,
            interval,
            wait,
            count,
            duration,
            until_replaced,
            format,
            each_address,
            sample,
            rows: RowsArgs { rows_port },
            keep_alive,
            admin_listen,
            admin_host,
            log_level: _,
        } = self;
        let mut probes = call.into_probes(Expectation::Ok, each_address, keep_alive)?;
        if let Some(count) = sample {
            let config = sample_config(count.into())?;
            for probe in &mut probes {
                probe.sample = Some(config.clone());
            }
        }
        if until_replaced && probes.len() > 1 {
            return Err("--until-replaced takes only one target".to_owned());
        }
        let is_tcp = |probe: &ProbeConfig| probe.check.target.scheme == Scheme::Tcp;
        if until_replaced && probes.iter().any(is_tcp) {
            return Err(
                "--until-replaced cannot be used with tcp://, where no pod says its name"
                    .to_owned(),
            );
        }
        Ok(run::Config {
            probes,
            schedule: Schedule {
                interval,
                wait: wait.wait,
                count,
                duration,
            },
            until_replaced,
            format,
            admin: match admin_listen {
                Some(given) => given.0.map(Admin::Given),
                None => Some(Admin::Default),
            },
            admin_hosts: admin_host,
            rows_port,
            name: pod_name(),
        })
    }
}
