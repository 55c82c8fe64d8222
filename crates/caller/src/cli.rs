//! The command line. Every flag has an environment variable beside it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use runtime::duration::{parse_duration, parse_positive_duration};
use runtime::environment;
use runtime::listen::OptionalListenAddr;
use runtime::log::LevelFilter;

use crate::commands::run::Admin;
use crate::commands::{once, resolve, run};
use crate::dns::{ConfSource, Families, Host, Resolver};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::failure::FailureKind;
use crate::probe::{HttpConfig, Keep, ProbeConfig};
use crate::process1::Process1;
use crate::target::{ParseTargetError, Target};
use crate::views::Format;

/// A slower caller would not meet each pod before it is gone.
const MAX_ROLLOUT_INTERVAL: Duration = Duration::from_secs(1);

/// Resolves a Service through cluster DNS, calls it, and prints what happened.
///
/// Without a subcommand it goes on for ever: every 10 seconds it looks the name up anew, opens a new
/// connection, and prints three lines: when, what came back, and how it ended. A call that fails says
/// what was seen and what is the likely cause.
///
/// It ends on SIGTERM or SIGINT, or after --count or --duration, with a summary: calls, failures by
/// kind, the longest gap without a success, the share of each pod, times by phase.
///
/// Exit code: 0; after --count, --duration or --until-replaced, 1 if a call failed; 2 for a bad flag or
/// value; 3 if --until-replaced did not see what it waits for.
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
    #[arg(skip)]
    follows_process_1: bool,
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
    Run(run::Config),
    /// Call once.
    Once(once::Config),
    /// Look a name up.
    Resolve(resolve::Config),
    /// Call every address of a name, step by step.
    Diagnose(ProbeConfig),
    /// Show what this pod listens at.
    Listening,
}

impl Command {
    /// What a subcommand that calls is to call.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Once(once::Config { probe, .. }) | Self::Diagnose(probe) => Some(&probe.target),
            Self::Run(_) | Self::Resolve(_) | Self::Listening => None,
        }
    }
}

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct RunArgs {
    #[command(flatten)]
    call: CallArgs,

    /// From the start of a call to the start of the next; 0s: without a pause. A slow call skips
    /// its successors
    #[arg(long, env = "CALLER_INTERVAL", default_value = "10s", value_name = "DURATION",
          value_parser = parse_duration)]
    interval: Duration,

    #[command(flatten)]
    wait: WaitArgs,

    /// Stop after this many calls; exit 0 if none failed, else 1
    #[arg(long, env = "CALLER_COUNT", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop so long after the first call began; exit 0 if no call failed, else 1
    #[arg(long, env = "CALLER_DURATION", value_name = "DURATION",
          value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Stop once every pod that answered at first has been replaced by another, as a rollout does: exit 0;
    /// 1 if a call failed; 3 if that was not seen within --duration, and what was seen. Needs answers that
    /// name their pod (X-Pod-Name), and an --interval of 1s at most
    #[arg(long, env = "CALLER_UNTIL_REPLACED")]
    until_replaced: bool,

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
    /// off [default: :8082, which a run with an end goes without where it is taken]
    #[arg(long, env = "CALLER_ADMIN_LISTEN", value_name = "LISTEN")]
    admin_listen: Option<OptionalListenAddr>,

    /// Another host name that the live page answers to, as one of an ingress; may be given several times.
    /// It answers to addresses, localhost, names of one label and those of Services in any case
    #[arg(
        long,
        env = "CALLER_ADMIN_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    admin_host: Vec<String>,

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
/// With --wait it is the init container that waits for a backend:
/// `caller once --wait 60s http://backend:8080/`.
///
/// The exit code is curl's: 0, 6 (DNS), 7 (refused or unreachable), 8 (not HTTP), 18 (cut short),
/// 22 (an error status, of the backend or of a proxy), 28 (too slow), 52 (no answer), 56 (reset),
/// 63 (too large).
#[derive(Debug, Parser)]
#[command(args_override_self = true, verbatim_doc_comment)]
struct OnceArgs {
    #[command(flatten)]
    call: CallArgs,

    #[command(flatten)]
    wait: WaitArgs,

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
    #[arg(env = "CALLER_NAME", default_value = "backend", value_parser = resolve::parse_argument)]
    name: Host,

    /// Then ask for A and AAAA so often, from one socket as glibc does and from two, and count what is
    /// lost: the race in conntrack that costs five seconds
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

    /// Show what this pod listens at, and who can reach it, in place of a call
    #[arg(long)]
    listening: bool,
}

#[derive(Debug, clap::Args)]
struct WaitArgs {
    /// Before the first call, try every 500ms, without a word, until the call is as expected, for at most
    /// so long. The attempt that is, or the last, is the first call
    #[arg(long, env = "CALLER_WAIT", default_value = "0s", value_name = "DURATION",
          value_parser = parse_duration)]
    wait: Duration,
}

#[derive(Debug, clap::Args)]
struct CallArgs {
    /// What to call: http://HOST[:PORT][/PATH]; a HOST without a dot is found in this namespace
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/", value_parser = parse_target)]
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

/// A header field of the command line, as `NAME: VALUE`.
#[derive(Clone, Debug)]
pub(crate) struct Header(pub(crate) HeaderName, pub(crate) HeaderValue);

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

/// A subcommand that comes after a flag, or is misspelt, is taken for a target; it is hardly meant so.
fn parse_target(text: &str) -> Result<Target, String> {
    let cli = Cli::command();
    for command in cli.get_subcommands().map(clap::Command::get_name) {
        if text == command {
            return Err(format!(
                "flags go after the subcommand: `caller {text} --flag`; a host of that name is http://{text}/"
            ));
        }
        if (text.len() >= 3 && command.starts_with(text)) || is_one_letter_off(text, command) {
            return Err(format!(
                "did you mean {command}? For a host: http://{text}/"
            ));
        }
    }
    text.parse()
        .map_err(|error: ParseTargetError| error.to_string())
}

/// Whether one letter is missing, too many or another.
fn is_one_letter_off(text: &str, word: &str) -> bool {
    let same_start = text
        .bytes()
        .zip(word.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let (text, word) = (
        &text.as_bytes()[same_start..],
        &word.as_bytes()[same_start..],
    );
    match (text, word) {
        ([], [_]) | ([_], []) => true,
        ([_, text @ ..], [_, word @ ..]) if text == word => true,
        ([_, text @ ..], word) if text == word => true,
        (text, [_, word @ ..]) => text == word,
        _ => false,
    }
}

fn parse_expectation(text: &str) -> Result<Expectation, String> {
    text.parse().map_err(|_| {
        let kinds = FailureKind::ALL.iter().map(|kind| kind.label());
        let kinds: Vec<_> = kinds.collect();
        format!("expected ok, blocked or one of {}", kinds.join(", "))
    })
}

impl Cli {
    /// Reads these arguments and this process's environment; prints help, the version or an error, and
    /// exits, where there is nothing to run.
    pub fn from_args(args: Vec<OsString>) -> Self {
        let command = Self::command();
        let mut matches = environment::matches(command.clone(), &args);
        let mut follows = false;
        if let Some(followed) = following_process_1(&command, &matches, &args) {
            matches = environment::matches(command, &followed);
            follows = true;
        }
        let mut cli = Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
        cli.follows_process_1 = follows;
        if cli.command.is_none()
            && let Err(message) = cli.run.check()
        {
            let kind = clap::error::ErrorKind::ArgumentConflict;
            Self::command().error(kind, message).exit();
        }
        cli
    }

    /// Whether target and options are those of process 1, because none was given.
    pub fn follows_process_1(&self) -> bool {
        self.follows_process_1
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
                wait,
                format,
                expect,
            })) => Command::Once(once::Config {
                probe: call.into_probe(false, false),
                format,
                expectation: expect,
                wait: wait.wait,
            }),
            Some(CommandArgs::Resolve(ResolveArgs {
                name,
                repeat,
                resolver,
                timeout,
            })) => Command::Resolve(resolve::Config {
                resolver: resolver.into(),
                host: name,
                timeout,
                repeat,
            }),
            Some(CommandArgs::Diagnose(DiagnoseArgs {
                listening: true, ..
            })) => Command::Listening,
            Some(CommandArgs::Diagnose(DiagnoseArgs { call, .. })) => {
                Command::Diagnose(call.into_probe(true, false))
            }
        }
    }
}

/// The command line of a subcommand that calls and was given no target, in a pod whose process 1 is a
/// caller: with that one's options before its own, and that one's target.
fn following_process_1(
    command: &clap::Command,
    matches: &clap::ArgMatches,
    args: &[OsString],
) -> Option<Vec<OsString>> {
    let (name, given) = matches.subcommand()?;
    // `resolve` has no target.
    given.try_contains_id("url").ok()?;
    if given.value_source("url")? == ValueSource::CommandLine {
        return None;
    }
    let subcommand = command.find_subcommand(name)?;
    let mut options = Process1::read()?.arguments(command, subcommand)?;
    let target = options.pop_if(|last| !last.as_encoded_bytes().starts_with(b"-"));
    let at = args.iter().position(|arg| *arg == *name)? + 1;
    let before = args[..at].iter().cloned();
    let after = args[at..].iter().cloned();
    Some(before.chain(options).chain(after).chain(target).collect())
}

/// How names are resolved without a flag: by the environment, or else as a pod's programs do.
pub(crate) fn resolver_from_env() -> Resolver {
    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        resolver: ResolverArgs,
    }
    let mut matches = environment::matches(Args::command().name("caller"), &["curl".into()]);
    let args = Args::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
    args.resolver.into()
}

impl RunArgs {
    /// What no single flag can check.
    fn check(&self) -> Result<(), &'static str> {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
