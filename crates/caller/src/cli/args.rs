//! The flags of each command.

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
use crate::probe::{HttpConfig, Keep, ProbeConfig};
use crate::target::Target;
use crate::targets::{self, Check};
use crate::trust::{Trust, TrustFiles};
use crate::views::{Format, OnceFormat};

/// A slower caller would not meet each pod before it is gone.
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

    /// From the start of a call to the start of the next; 0s: without a pause. Calls that would begin
    /// while a slow one is under way are left out
    #[arg(long, env = "CALLER_INTERVAL", default_value = "10s", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) interval: Duration,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    /// Stop after this many calls of each target; exit 0 if all came to what was expected, else 1
    #[arg(long, env = "CALLER_COUNT", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    /// Stop so long after the first call began; exit 0 if all calls came to what was expected, else 1
    #[arg(long, env = "CALLER_DURATION", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) duration: Option<Duration>,

    /// Stop once every pod that answered at first has been replaced by another, as a rollout does: exit 0;
    /// 1 if a call failed; 3 if that was not seen within --duration, and what was seen. Needs answers that
    /// name their pod (X-Pod-Name), and an --interval of 1s at most
    #[arg(long, env = "CALLER_UNTIL_REPLACED")]
    pub(super) until_replaced: bool,

    /// text (three lines a call), wide (a fourth: pod, address, times by phase) or json (an object a
    /// line)
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    pub(super) format: Format,

    /// Call every address that the name resolves to, as for a headless Service
    #[arg(long, env = "CALLER_EACH_ADDRESS")]
    pub(super) each_address: bool,

    /// Of the addresses that each name resolves to, call K that stay the same from round to round, and one more in
    /// turn, with a large request: a mesh, if each node has such a caller behind that name. Serves /mesh and
    /// /mesh.json beside the live page. POD_IP and NODE_NAME say which address and which node this one is
    #[arg(long, env = "CALLER_SAMPLE", value_name = "K",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) sample: Option<u16>,

    #[command(flatten)]
    pub(super) rows: RowsArgs,

    /// Use a connection for several calls. Without this each call has its own, so that a Service
    /// balances every call
    #[arg(long, env = "CALLER_KEEP_ALIVE")]
    pub(super) keep_alive: bool,

    /// Where to serve the live page at /, /status.json, /metrics, /livez and /readyz: [IP]:PORT, or
    /// off [default: :8082; if that is in use, a run with --count, --duration or --until-replaced does
    /// without]
    #[arg(long, env = "CALLER_ADMIN_LISTEN", value_name = "LISTEN")]
    pub(super) admin_listen: Option<OptionalListenAddr>,

    /// Another host name that the live page answers to, as one of an ingress; may be given several times.
    /// IP addresses, localhost, names without a dot and names of Services (.svc) always work
    #[arg(
        long,
        env = "CALLER_ADMIN_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) admin_host: Vec<String>,

    /// Least severe diagnostics to show, on stderr: error, warn, info, debug, trace or off.
    /// kubectl logs mixes stderr into the output
    #[arg(
        long,
        env = "CALLER_LOG_LEVEL",
        default_value = "warn",
        value_name = "LEVEL"
    )]
    pub(super) log_level: LevelFilter,
}

/// Calls each target once, with an exit code: a test, an init container, a Job.
///
/// With --wait it is the init container that waits for a backend:
/// `caller once --wait 60s tcp://db:5432`. With --targets it is the gate of a pipeline or a sync.
///
/// The exit code for one target is curl's: 0, 6 (DNS), 7 (refused, unreachable, or no descriptor or port left here), 8 (not HTTP),
/// 18 (cut short), 22 (an error status, of the backend or of a proxy), 28 (too slow), 35 (no TLS), 52 (no answer), 56 (reset),
/// 60 (a certificate that is not accepted), 63 (too large). It is 1 if a call succeeded that was to fail, or was blocked and proved
/// nothing. For several targets it is 0 if all came to what was expected, else 1. It is 2 for a bad flag, value or file.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct OnceArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    /// text, wide or json; or, for CI and Argo CD, tap (version 14) or junit
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    pub(super) format: OnceFormat,

    /// Exit 0 if the calls of the targets on the command line come to this: ok; blocked (it cannot connect: connect_timeout or
    /// connect_unreachable); or a kind of failure, such as dns_nxdomain or connect_refused
    #[arg(long, env = "CALLER_EXPECT", default_value = "ok", value_name = "WHAT")]
    pub(super) expect: Expectation,
}

/// Looks a name up and shows the configuration and every query that it takes. Without a name, the host of
/// CALLER_URL is looked up, or else `backend`.
///
/// The exit code is 0, or 6 if there is no address.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct ResolveArgs {
    /// The name to look up; HOST:PORT or a URL will do
    #[arg(env = "CALLER_NAME", default_value = "backend", value_parser = resolve::parse_argument)]
    pub(super) name: Host,

    /// Then ask for A and AAAA this many times, from one socket as glibc does and from two, and count the
    /// answers that are lost: a race in conntrack that costs programs five seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: Option<u32>,

    #[command(flatten)]
    pub(super) resolver: ResolverArgs,

    /// Longest time for the whole lookup
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) timeout: Duration,
}

/// Goes through a call step by step: resolv.conf, DNS, TCP, TLS and HTTP for each address, and then the way there
/// and back. At the first failure it says the likely cause and the kubectl command to run next.
///
/// The exit code is as that of `caller once`.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct DiagnoseArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    /// Show what this pod listens at, and who can reach it, in place of a call
    #[arg(long)]
    pub(super) listening: bool,

    /// Make no connections beyond the calls themselves: do not look for packets that are too large for the way,
    /// nor for the last hop that answers
    #[arg(long, env = "CALLER_NO_PATH")]
    pub(super) no_path: bool,

    /// text or json (an object for each target, with the same steps)
    // Not the loop's flag of that name, which it would take over from process 1.
    #[arg(
        id = "diagnose_format",
        long = "format",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(super) format: ReportFormat,
}

/// Collects what the callers of a mesh know, and says in one sentence how it is: which node is not reached, which
/// reaches nobody, which groups or pairs do not reach each other, what is slow, whose row is missing. Then it draws who
/// reaches whom, in how many milliseconds.
///
/// A mesh is a caller with --sample on every node, all of them behind one headless name (or several names, as one
/// for each zone, because a DNS message holds some 4,000 addresses). Without a target it is that of process 1 of
/// this pod, if that is such a caller.
///
/// The exit code is 0 where all is well, 1 where it is not, and 3 where there is no row at all.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct MeshArgs {
    /// What the callers of the mesh call
    // Not CALLER_URL, which is the backend where it is set for a frontend.
    #[arg(default_value = "http://mesh:8080/", value_parser = parse_target, value_name = "TARGET")]
    pub(super) url: Vec<Target>,

    #[command(flatten)]
    pub(super) rows: RowsArgs,

    /// text or json (an object, which the page at /mesh is drawn from)
    // Not the loop's flag of that name, which it would take over from process 1.
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
    /// The port at which the callers of a mesh serve what they know (their --admin-listen)
    #[arg(long, env = "CALLER_ROWS_PORT", default_value_t = collect::DEFAULT_PORT, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) rows_port: u16,
}

/// How a diagnosis or a mesh is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Before the first call, try every 500ms until a call is as expected, for at most so long. Nothing is
    /// printed of these attempts but of the last one, which counts as the first call
    #[arg(long, env = "CALLER_WAIT", default_value = "0s", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(super) wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// What to call: http://HOST[:PORT][/PATH], https://... or tcp://HOST:PORT; a HOST without a dot is found
    /// in this namespace. Several are called side by side, each with its own --interval; in CALLER_URL there
    /// is white space between them
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/", value_parser = parse_target,
          value_name = "TARGET")]
    pub(super) url: Vec<Target>,

    /// A file of targets, a line each: EXPECTATION TARGET [name=NAME] [control=TARGET]; # starts a comment.
    /// An expectation is ok, blocked (it cannot connect) or a kind of failure; a control has to answer in the
    /// same round for blocked to be proved
    #[arg(long, env = "CALLER_TARGETS", value_name = "FILE")]
    pub(super) targets: Option<PathBuf>,

    /// Longest time for a whole call, DNS included
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) timeout: Duration,

    /// Longest time for each TCP connection to be made
    #[arg(long, env = "CALLER_CONNECT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) connect_timeout: Duration,

    #[command(flatten)]
    pub(super) resolver: ResolverArgs,

    #[command(flatten)]
    pub(super) trust: TrustArgs,

    /// Speak HTTP/2: with prior knowledge (h2c), or over TLS by agreement (ALPN)
    #[arg(long, env = "CALLER_HTTP2")]
    pub(super) http2: bool,

    /// The request's method
    #[arg(long, env = "CALLER_METHOD", default_value = "GET")]
    pub(super) method: Method,

    /// A header to send, beside X-Request-Id and User-Agent; may be given several times
    #[arg(
        long,
        env = "CALLER_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n'
    )]
    pub(super) header: Vec<Header>,

    /// Statuses that are a success: codes, classes and ranges, such as 2xx,404
    #[arg(
        long,
        env = "CALLER_EXPECT_STATUS",
        default_value = "2xx",
        value_name = "STATUSES"
    )]
    pub(super) expect_status: ExpectedStatus,
}

/// Which of its targets a command was given on the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    /// At least one by itself.
    pub(super) url: bool,
    /// A file of them.
    pub(super) file: bool,
}

impl Given {
    /// `None` for a command that has no targets.
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
    /// Certificates to trust for https://, in PEM [default: the file in SSL_CERT_FILE, or the system's store,
    /// and the cluster's CA where a ServiceAccount is mounted]
    #[arg(long, env = "CALLER_CACERT", value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,

    /// A certificate to show to servers that ask for one (mutual TLS), in PEM, with its chain
    #[arg(long, env = "CALLER_CERT", value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,

    /// The private key of --cert, in PEM [default: the file of --cert]
    #[arg(long, env = "CALLER_KEY", value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,

    /// Accept any certificate; what it says is shown all the same
    #[arg(long, env = "CALLER_INSECURE")]
    pub(super) insecure: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResolverArgs {
    /// Longest time for each question to DNS; a shorter `timeout` in the file counts
    #[arg(long, env = "CALLER_DNS_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    pub(super) dns_timeout: Duration,

    /// Which addresses to ask DNS for: auto (IPv4, then IPv6), 4 or 6
    #[arg(
        long,
        env = "CALLER_IP_FAMILY",
        default_value = "auto",
        value_name = "FAMILY"
    )]
    pub(super) ip_family: Families,

    /// Name servers, search list and options; read anew for every call
    #[arg(
        long,
        env = "CALLER_RESOLV_CONF",
        default_value = "/etc/resolv.conf",
        value_name = "FILE"
    )]
    pub(super) resolv_conf: PathBuf,

    /// Names that are not looked up in DNS; read anew for every call
    #[arg(
        long,
        env = "CALLER_HOSTS",
        default_value = "/etc/hosts",
        value_name = "FILE"
    )]
    pub(super) hosts: PathBuf,

    /// Ask this server instead of those in the file; may be given several times
    #[arg(
        long,
        env = "CALLER_NAMESERVER",
        value_name = "IP[:PORT]",
        value_delimiter = ','
    )]
    pub(super) nameserver: Vec<NameServer>,
}
impl RunArgs {
    /// What no single flag can check.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.until_replaced && self.interval > MAX_ROLLOUT_INTERVAL {
            return Err(
                "--until-replaced needs an --interval of 1s at most, such as --interval 20ms",
            );
        }
        if self.until_replaced && self.keep_alive {
            return Err("--until-replaced does not go with --keep-alive, which stays with one pod");
        }
        Ok(())
    }
}

impl CallArgs {
    /// Leaves the targets that count: those on the command line, or else those of the variables, or else the
    /// default.
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

    /// What to call and how, for each target. The expectation is for those that are not from a file.
    ///
    /// # Errors
    ///
    /// When there are too many targets, or two that cannot be told apart, or a file of TLS cannot be used.
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
        let trust = Trust::load(&files, needs_tls).map_err(|error| error.to_string())?;
        let resolver = Resolver::from(resolver);
        let http = HttpConfig {
            method,
            headers,
            expected_status: expect_status,
            http2,
            keep_alive,
            connect_timeout,
            keep: Keep::default(),
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

/// What the downward API says of this pod, for a caller of a mesh.
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

/// The pod that this is, where the downward API says so.
fn pod_name() -> Option<String> {
    std::env::var("POD_NAME").ok()
}

impl MeshArgs {
    /// Where the rows of the mesh are, and how to show them.
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
    /// As [`CallArgs::into_probes`].
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
            return Err("--until-replaced takes one target".to_owned());
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
