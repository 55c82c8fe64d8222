//! The command line. Every flag has an environment variable beside it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use runtime::listen::OptionalListenAddr;
use runtime::log::LevelFilter;

use crate::Config;
use crate::dns::{ConfSource, Families, Resolver};
use crate::probe::{Probe, Target};
use crate::text::Format;

/// Resolves a Service through cluster DNS, calls it, and prints what happened.
///
/// Every 10 seconds it looks the name up anew, opens a new connection, and prints three lines:
/// when, what came back, and how it ended. A call that fails says what was seen and what is the
/// likely cause.
///
/// It ends on SIGTERM or SIGINT, or after --count or --duration, with a summary: calls, failures
/// by kind, the longest gap without a success, the share of each pod, times by phase.
///
/// Exit code: 0; after --count or --duration, 1 if a call failed; 2 for a bad flag or value.
#[derive(Debug, Parser)]
#[command(
    name = "caller",
    version,
    args_override_self = true,
    verbatim_doc_comment
)]
pub struct Args {
    /// What to call: http://HOST[:PORT][/PATH]; a HOST without a dot is found in this namespace
    #[arg(env = "CALLER_URL", default_value = "http://backend:8080/")]
    url: Target,

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

    /// Longest time for a whole call, DNS included
    #[arg(long, env = "CALLER_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = positive_duration)]
    timeout: Duration,

    /// Longest time for each TCP connection to be made
    #[arg(long, env = "CALLER_CONNECT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = positive_duration)]
    connect_timeout: Duration,

    /// Longest time for each question to DNS
    #[arg(long, env = "CALLER_DNS_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = positive_duration)]
    dns_timeout: Duration,

    /// text (three lines a call) or wide (a fourth: pod, address, times by phase)
    #[arg(long, env = "CALLER_FORMAT", default_value = "text")]
    format: Format,

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

    /// Ask this server instead of those in the file; may be given several times
    #[arg(
        long,
        env = "CALLER_NAMESERVER",
        value_name = "IP[:PORT]",
        value_delimiter = ','
    )]
    nameserver: Vec<NameServer>,

    /// Where to answer /livez and /readyz: [IP]:PORT, or off
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

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

impl Args {
    /// Reads this process's arguments and environment; prints help, the version or an error, and
    /// exits, where there is nothing to run.
    pub fn from_env() -> Self {
        // --help is often pasted somewhere; what the environment holds is nobody's business.
        let command = Self::command().mut_args(|arg| arg.hide_env_values(true));
        Self::from_arg_matches_mut(&mut command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// The least severe diagnostics to show.
    pub fn log_level(&self) -> LevelFilter {
        self.log_level
    }
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        let Args {
            url,
            interval,
            count,
            duration,
            timeout,
            connect_timeout,
            dns_timeout,
            format,
            ip_family,
            resolv_conf,
            nameserver,
            admin_listen,
            log_level: _,
        } = args;
        Self {
            probe: Probe {
                target: url,
                resolver: Resolver {
                    source: ConfSource {
                        path: resolv_conf,
                        nameservers: nameserver.into_iter().map(|server| server.0).collect(),
                    },
                    families: ip_family,
                    question_timeout: dns_timeout,
                },
                timeout,
                connect_timeout,
            },
            interval,
            count,
            duration,
            format,
            admin: admin_listen.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn the_command_is_well_formed() {
        Args::command().debug_assert();
    }
}
