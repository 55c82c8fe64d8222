//! The command line. Every flag has an environment variable beside it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use runtime::duration::parse_positive_duration;
use runtime::listen::OptionalListenAddr;
use runtime::log::LevelFilter;

use crate::Config;
use crate::check::Expectation;
use crate::dns::{ConfSource, Families, Resolver};
use crate::http::HttpConfig;
use crate::probe::{ProbeConfig, Target};
use crate::status::ExpectedStatus;
use crate::view::Format;

/// Resolves a Service through cluster DNS, calls it, and prints what happened.
///
/// Without a subcommand it goes on for ever: every 10 seconds it looks the name up anew, opens a new
/// connection, and prints three lines: when, what came back, and how it ended. A call that fails says
/// what was seen and what is the likely cause.
///
/// It ends on SIGTERM or SIGINT, or after --count or --duration, with a summary: calls, failures by
/// kind, the longest gap without a success, the share of each pod, times by phase.
///
/// Exit code: 0; after --count or --duration, 1 if a call failed; 2 for a bad flag or value.
#[derive(Debug, Parser)]
#[command(
    name = "caller",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    verbatim_doc_comment
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<CommandArgs>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum CommandArgs {
    Once(OnceArgs),
    Resolve(ResolveArgs),
    Diagnose(DiagnoseArgs),
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Call over and over.
    Run(Config),
    /// Call once.
    Once {
        /// How to call.
        probe: ProbeConfig,
        /// How much to say of it.
        format: Format,
        /// What is a success.
        expectation: Expectation,
    },
    /// Look a name up.
    Resolve {
        /// How.
        resolver: Resolver,
        /// What.
        host: crate::dns::Host,
        /// For the whole lookup.
        timeout: Duration,
        /// How often to ask again, and count what gets lost.
        repeat: Option<u32>,
    },
    /// Call every address of a name, step by step.
    Diagnose(ProbeConfig),
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct RunArgs {
    #[command(flatten)]
    call: CallArgs,

    /// From the start of a call to the start of the next; 0s: without a pause. A slow call skips
    /// its successors
    #[arg(long, env = "CALLER_INTERVAL", default_value = "10s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    interval: Duration,

    /// Stop after this many calls; exit 0 if none failed, else 1
    #[arg(long, env = "CALLER_COUNT", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this long; exit 0 if no call failed, else 1
    #[arg(long, env = "CALLER_DURATION", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// text (three lines a call), wide (a fourth: pod, address, times by phase) or json (an object a
    /// line)
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    format: Format,

    /// Call every address that the name resolves to, as for a headless Service
    #[arg(long, env = "CALLER_EACH_ADDRESS")]
    each_address: bool,

    /// Use a connection for several calls. Without this each call has its own, so that a Service
    /// balances every call
    #[arg(long, env = "CALLER_KEEP_ALIVE")]
    keep_alive: bool,

    /// Where to serve the live page at /, /status.json, /metrics, /livez and /readyz: [IP]:PORT, or
    /// off
    #[arg(
        long,
        env = "CALLER_ADMIN_LISTEN",
        default_value = ":8082",
        value_name = "LISTEN"
    )]
    admin_listen: OptionalListenAddr,

    /// Least severe diagnostics to show, on stderr: error, warn, info, debug, trace or off.
    /// kubectl logs mixes stderr into the output
    #[arg(
        long,
        env = "CALLER_LOG_LEVEL",
        default_value = "warn",
        value_name = "LEVEL"
    )]
    log_level: LevelFilter,
}

/// Calls once, with an exit code: a test, an init container, a Job.
///
/// The exit code is curl's: 0, 6 (DNS), 7 (refused or unreachable), 8 (not HTTP), 18 (cut short),
/// 22 (an error status), 28 (too slow), 52 (no answer), 56 (reset), 63 (too large).
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
struct OnceArgs {
    #[command(flatten)]
    call: CallArgs,

    /// text, wide or json
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    format: Format,

    /// Exit 0 if the call comes to this: ok; blocked (it cannot connect: connect_timeout or
    /// connect_unreachable); or a kind of failure, such as dns_nxdomain or connect_refused
    #[arg(long, env = "CALLER_EXPECT", default_value = "ok", value_name = "WHAT",
          value_parser = parse_expectation)]
    expect: Expectation,
}

/// Looks a name up and shows the configuration and every question, as nslookup would not.
///
/// The exit code is 0, or 6 if there is no address.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
struct ResolveArgs {
    /// The name to look up; HOST:PORT or a URL will do
    #[arg(env = "CALLER_NAME", default_value = "backend",
          value_parser = crate::commands::resolve::parse_argument)]
    name: crate::dns::Host,

    /// Then ask for A and AAAA this often, from one socket as glibc does and from two, and count what
    /// gets lost: the race in conntrack that costs five seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: Option<u32>,

    #[command(flatten)]
    resolver: ResolverArgs,

    /// Longest time for the whole lookup
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    timeout: Duration,
}

/// Goes through a call step by step: resolv.conf, DNS, TCP and HTTP for each address. At the first
/// failure it says the likely cause and the kubectl command to run next.
///
/// The exit code is as that of `caller once`.
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
struct DiagnoseArgs {
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
struct CallArgs {
    /// What to call: http://HOST[:PORT][/PATH]; a HOST without a dot is found in this namespace
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/")]
    url: Target,

    /// Longest time for a whole call, DNS included
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    timeout: Duration,

    /// Longest time for each TCP connection to be made
    #[arg(long, env = "CALLER_CONNECT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    connect_timeout: Duration,

    #[command(flatten)]
    resolver: ResolverArgs,

    /// Speak HTTP/2 with prior knowledge (h2c)
    #[arg(long, env = "CALLER_HTTP2")]
    http2: bool,

    /// The request's method
    #[arg(long, env = "CALLER_METHOD", default_value = "GET")]
    method: Method,

    /// A header to send, beside X-Request-Id and User-Agent; may be given several times
    #[arg(
        long,
        env = "CALLER_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n'
    )]
    header: Vec<Header>,

    /// Statuses that are a success: codes, classes and ranges, such as 2xx,404
    #[arg(
        long,
        env = "CALLER_EXPECT_STATUS",
        default_value = "2xx",
        value_name = "STATUSES"
    )]
    expect_status: ExpectedStatus,
}

#[derive(Debug, clap::Args)]
struct ResolverArgs {
    /// Longest time for each question to DNS; a shorter `timeout` in the file counts
    #[arg(long, env = "CALLER_DNS_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    dns_timeout: Duration,

    /// Which addresses to ask DNS for: auto (IPv4, then IPv6), 4 or 6
    #[arg(
        long,
        env = "CALLER_IP_FAMILY",
        default_value = "auto",
        value_name = "FAMILY"
    )]
    ip_family: Families,

    /// Name servers, search list and options; read anew for every call
    #[arg(
        long,
        env = "CALLER_RESOLV_CONF",
        default_value = "/etc/resolv.conf",
        value_name = "FILE"
    )]
    resolv_conf: PathBuf,

    /// Names that are not looked up in DNS; read anew for every call
    #[arg(
        long,
        env = "CALLER_HOSTS",
        default_value = "/etc/hosts",
        value_name = "FILE"
    )]
    hosts: PathBuf,

    /// Ask this server instead of those in the file; may be given several times
    #[arg(
        long,
        env = "CALLER_NAMESERVER",
        value_name = "IP[:PORT]",
        value_delimiter = ','
    )]
    nameserver: Vec<NameServer>,
}

/// A name server's address; its port is 53 unless given.
#[derive(Clone, Copy, Debug)]
struct NameServer(SocketAddr);

impl FromStr for NameServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
            .map(Self)
            .map_err(|_| "expected IP or IP:PORT, such as 10.96.0.10, 127.0.0.1:5353 or [::1]:53")
    }
}

impl FromStr for Families {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            _ => Err("expected auto, 4 or 6"),
        }
    }
}

#[derive(Clone, Debug)]
struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
        let name = name
            .trim()
            .parse()
            .map_err(|_| "not the name of a header")?;
        let value = value
            .trim()
            .parse()
            .map_err(|_| "not the value of a header")?;
        Ok(Self(name, value))
    }
}

fn parse_expectation(text: &str) -> Result<Expectation, String> {
    text.parse().map_err(|_| {
        let kinds = crate::failure::FailureKind::ALL
            .iter()
            .map(|kind| kind.label());
        let kinds: Vec<_> = kinds.collect();
        format!("expected ok, blocked or one of {}", kinds.join(", "))
    })
}

impl Cli {
    /// Reads this process's arguments and environment; prints help, the version or an error, and
    /// exits, where there is nothing to run.
    pub fn from_env() -> Self {
        // --help is often pasted somewhere; what the environment holds is nobody's business.
        let command = hide_env_values(Self::command());
        Self::from_arg_matches_mut(&mut command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// The least severe diagnostics to show.
    pub fn log_level(&self) -> LevelFilter {
        self.run.log_level
    }

    /// What to do.
    pub fn into_command(self) -> Command {
        match self.command {
            None => Command::Run(self.run.into()),
            Some(CommandArgs::Once(OnceArgs {
                call,
                format,
                expect,
            })) => Command::Once {
                probe: call.into_probe(false, false),
                format,
                expectation: expect,
            },
            Some(CommandArgs::Resolve(ResolveArgs {
                name,
                repeat,
                resolver,
                timeout,
            })) => Command::Resolve {
                resolver: resolver.into(),
                host: name,
                timeout,
                repeat,
            },
            Some(CommandArgs::Diagnose(DiagnoseArgs { call })) => {
                Command::Diagnose(call.into_probe(true, false))
            }
        }
    }
}

fn hide_env_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(hide_env_values)
}

impl CallArgs {
    fn into_probe(self, each_address: bool, keep_alive: bool) -> ProbeConfig {
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

impl From<RunArgs> for Config {
    fn from(args: RunArgs) -> Self {
        let RunArgs {
            call,
            interval,
            count,
            duration,
            format,
            each_address,
            keep_alive,
            admin_listen,
            log_level: _,
        } = args;
        Self {
            probe: call.into_probe(each_address, keep_alive),
            interval,
            count,
            duration,
            format,
            admin: admin_listen.0,
            name: std::env::var("POD_NAME").ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
