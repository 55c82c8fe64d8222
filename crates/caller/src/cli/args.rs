//! The flags of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use http::{HeaderMap, Method};
use runtime::duration::{parse_duration, parse_positive_duration};
use runtime::listen::OptionalListenAddr;
use runtime::log::LevelFilter;

use super::values::{Header, NameServer, parse_expectation, parse_target};
use crate::commands::run::Admin;
use crate::commands::{resolve, run};
use crate::dns::{ConfSource, Families, Host, Resolver};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::probe::{HttpConfig, Keep, ProbeConfig};
use crate::target::Target;
use crate::views::Format;

/// A slower caller would not meet each pod before it is gone.
const MAX_ROLLOUT_INTERVAL: Duration = Duration::from_secs(1);
#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    Once(OnceArgs),
    Resolve(ResolveArgs),
    Diagnose(DiagnoseArgs),
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

    /// Stop after this many calls; exit 0 if none failed, else 1
    #[arg(long, env = "CALLER_COUNT", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    /// Stop so long after the first call began; exit 0 if no call failed, else 1
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

/// Calls once, with an exit code: a test, an init container, a Job.
///
/// With --wait it is the init container that waits for a backend:
/// `caller once --wait 60s http://backend:8080/`.
///
/// The exit code is curl's: 0, 6 (DNS), 7 (refused, unreachable, or no descriptor or port left here), 8 (not HTTP), 18 (cut short),
/// 22 (an error status, of the backend or of a proxy), 28 (too slow), 52 (no answer), 56 (reset),
/// 63 (too large). It is 1 if a call succeeded that --expect wanted to fail, and 2 for a bad flag or value.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
pub(super) struct OnceArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    /// text, wide or json
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    pub(super) format: Format,

    /// Exit 0 if the call comes to this: ok; blocked (it cannot connect: connect_timeout or
    /// connect_unreachable); or a kind of failure, such as dns_nxdomain or connect_refused
    #[arg(long, env = "CALLER_EXPECT", default_value = "ok", value_name = "WHAT",
          value_parser = parse_expectation)]
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

/// Goes through a call step by step: resolv.conf, DNS, TCP and HTTP for each address. At the first
/// failure it says the likely cause and the kubectl command to run next.
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
    /// What to call: http://HOST[:PORT][/PATH]; a HOST without a dot is found in this namespace
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/", value_parser = parse_target)]
    pub(super) url: Target,

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

    /// Speak HTTP/2 with prior knowledge (h2c)
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
    pub(super) fn into_probe(self, each_address: bool, keep_alive: bool) -> ProbeConfig {
        let Self {
            url,
            timeout,
            connect_timeout,
            resolver,
            http2,
            method,
            header,
            expect_status,
        } = self;
        let mut headers = HeaderMap::new();
        for Header(name, value) in header {
            headers.append(name, value);
        }
        ProbeConfig {
            target: url,
            resolver: resolver.into(),
            http: HttpConfig {
                method,
                headers,
                expected_status: expect_status,
                http2,
                keep_alive,
                connect_timeout,
                keep: Keep::default(),
            },
            timeout,
            each_address,
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

impl From<RunArgs> for run::Config {
    fn from(args: RunArgs) -> Self {
        let RunArgs {
            call,
            interval,
            wait,
            count,
            duration,
            until_replaced,
            format,
            each_address,
            keep_alive,
            admin_listen,
            admin_host,
            log_level: _,
        } = args;
        Self {
            probe: call.into_probe(each_address, keep_alive),
            interval,
            wait: wait.wait,
            count,
            duration,
            until_replaced,
            format,
            admin: match admin_listen {
                Some(given) => given.0.map(Admin::Given),
                None => Some(Admin::Default),
            },
            admin_hosts: admin_host,
            name: std::env::var("POD_NAME").ok(),
        }
    }
}
