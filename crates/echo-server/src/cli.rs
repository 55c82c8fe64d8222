//! The command line, written as Go programs take it: `-text=x`, `-text x`, `--text=x`, `--text x`.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use http::{HeaderValue, StatusCode};
use runtime::duration::{parse_duration, parse_positive_duration};
use runtime::environment;
use runtime::listen::{ListenAddr, OptionalListenAddr};
use runtime::log::LevelFilter;
use runtime::server::{Drain, Limits};

use crate::{AccessLogFormat, AdminListen, Config, Faults, Pod};

/// Answers every request with a fixed text. A drop-in for hashicorp/http-echo.
///
/// Every path and method gets the text; /health gets {"status":"ok"}. Flags may be written with
/// one dash or two, and with `=` or a space before the value. HTTP/1.0, HTTP/1.1 and HTTP/2 with
/// prior knowledge share the one port.
///
/// On SIGTERM or SIGINT, /readyz turns to 503 while requests are still taken for --drain-delay,
/// with a word to clients to leave; then the port is closed, requests under way get
/// --drain-timeout, and the exit code is 0. A second signal exits at once.
#[derive(Debug, Parser)]
#[command(
    name = "echo-server",
    version,
    args_override_self = true,
    verbatim_doc_comment
)]
pub struct Args {
    /// The body of every answer; a newline is added. Required. An empty flag counts as none
    #[arg(long, env = "ECHO_TEXT")]
    text: Option<OsString>,

    /// Where to listen: [IP]:PORT; without an IP, all addresses, IPv6 and IPv4
    #[arg(long, env = "ECHO_LISTEN", default_value = ":8080")]
    listen: ListenAddr,

    /// Status of every answer but /health's, 200 to 599
    #[arg(long, env = "ECHO_STATUS_CODE", default_value = "200", value_name = "CODE",
          value_parser = parse_status)]
    status_code: StatusCode,

    /// Content type of every answer [default: guessed from the text, as Go does]
    #[arg(long, env = "ECHO_CONTENT_TYPE", value_name = "TYPE")]
    content_type: Option<HeaderValue>,

    /// Where to serve /livez, /readyz and /metrics: [IP]:PORT, or off [default: :8081, or off where
    /// that is in use]
    #[arg(long, env = "ECHO_ADMIN_LISTEN", value_name = "LISTEN")]
    admin_listen: Option<OptionalListenAddr>,

    /// Log of answers, on stdout: text (http-echo's own lines), json or off
    #[arg(
        long,
        env = "ECHO_ACCESS_LOG",
        default_value = "text",
        value_name = "FORMAT"
    )]
    access_log: AccessLogFormat,

    /// After SIGTERM, how long requests are still taken: as long as the cluster may take to hear
    /// that this pod is leaving
    #[arg(long, env = "ECHO_DRAIN_DELAY", default_value = "5s", value_name = "DURATION",
          value_parser = parse_duration)]
    drain_delay: Duration,

    /// After the drain delay, how long requests under way may take
    #[arg(long, env = "ECHO_DRAIN_TIMEOUT", default_value = "15s", value_name = "DURATION",
          value_parser = parse_duration)]
    drain_timeout: Duration,

    /// Longest time for a connection's first byte, for a request's head to arrive, and again for its
    /// body
    #[arg(long, env = "ECHO_HEADER_TIMEOUT", default_value = "10s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    header_timeout: Duration,

    /// How long a connection may wait between two requests
    #[arg(long, env = "ECHO_IDLE_TIMEOUT", default_value = "2m", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    idle_timeout: Duration,

    /// Connections open at once; another one replaces the one that has kept the server waiting longest.
    /// A quarter of them may be in the middle of a request. An HTTP/2 connection counts as ten of those.
    /// Lowered where fewer open files are allowed
    #[arg(long, env = "ECHO_MAX_CONNECTIONS", default_value = "4096", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// Longest request body, in bytes; it is read and discarded. More gets 413
    #[arg(
        long,
        env = "ECHO_MAX_BODY",
        default_value = "1048576",
        value_name = "BYTES"
    )]
    max_body: u64,

    /// How many of a hundred answers are to be those of a sick backend; never /health's
    #[arg(long, env = "ECHO_FAULT_PERCENT", default_value = "0", value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    fault_percent: u8,

    /// Status of a sick answer, 200 to 599
    #[arg(long, env = "ECHO_FAULT_STATUS", default_value = "500", value_name = "CODE",
          value_parser = parse_status)]
    fault_status: StatusCode,

    /// How late a sick answer comes
    #[arg(long, env = "ECHO_FAULT_DELAY", default_value = "0s", value_name = "DURATION",
          value_parser = parse_duration)]
    fault_delay: Duration,

    /// Worker threads [default: the CPUs that the cgroup allows]
    #[arg(long, env = "ECHO_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Least severe diagnostics to show, on stderr: error, warn, info, debug, trace or off
    #[arg(
        long,
        env = "ECHO_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: LevelFilter,

    /// http-echo refuses these after it has looked at the text.
    #[arg(hide = true)]
    rest: Vec<OsString>,
}

/// Nobody who comes from http-echo has asked for it, so it gives way.
const DEFAULT_ADMIN: ListenAddr = ListenAddr {
    ip: None,
    port: 8081,
};

/// The arguments are well formed, but say too little or too much. http-echo's own words.
#[derive(Debug, thiserror::Error)]
pub enum NoConfig {
    /// There is nothing to answer.
    #[error("Missing -text option or ECHO_TEXT env var!")]
    MissingText,
    /// Something follows the flags.
    #[error("Too many arguments!")]
    TooManyArguments,
}

impl Args {
    /// Reads this process's arguments and environment; prints help, the version or an error, and
    /// exits, where there is nothing to run.
    pub fn from_env() -> Self {
        let mut command = Self::command();
        command.build();
        let args = from_go_style(&command, std::env::args_os());
        let mut matches = environment::matches(command, &args);
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
    }

    /// The least severe diagnostics to show.
    pub fn log_level(&self) -> LevelFilter {
        self.log_level
    }

    /// Worker threads to run on.
    pub fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => threads.get(),
            None => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = NoConfig;

    fn try_from(args: Args) -> Result<Self, NoConfig> {
        let Args {
            text,
            listen,
            status_code,
            content_type,
            admin_listen,
            access_log,
            drain_delay,
            drain_timeout,
            header_timeout,
            idle_timeout,
            max_connections,
            max_body,
            fault_percent,
            fault_status,
            fault_delay,
            threads: _,
            log_level: _,
            rest,
        } = args;
        let text = text
            .filter(|text| !text.is_empty())
            .or_else(|| env("ECHO_TEXT"))
            .ok_or(NoConfig::MissingText)?;
        if !rest.is_empty() {
            return Err(NoConfig::TooManyArguments);
        }
        Ok(Self {
            text: text.into_vec(),
            listen,
            status: status_code,
            content_type,
            admin: match admin_listen {
                None => AdminListen::IfFree(DEFAULT_ADMIN),
                Some(OptionalListenAddr(None)) => AdminListen::Off,
                Some(OptionalListenAddr(Some(addr))) => AdminListen::At(addr),
            },
            access_log,
            limits: Limits {
                header_timeout,
                idle_timeout,
                max_connections: max_connections as usize,
                max_body,
            },
            drain: Drain {
                delay: drain_delay,
                timeout: drain_timeout,
            },
            pod: Pod {
                name: env_header("POD_NAME"),
                node: env_header("NODE_NAME"),
                namespace: env_header("POD_NAMESPACE"),
            },
            faults: Faults {
                percent: fault_percent,
                status: fault_status,
                delay: fault_delay,
            },
        })
    }
}

fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A name that the downward API gives always fits into a header; what does not is not a name.
fn env_header(name: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(env(name)?.as_bytes()).ok()
}

fn parse_status(text: &str) -> Result<StatusCode, &'static str> {
    text.parse()
        .ok()
        .filter(|status| (200..=599).contains(&StatusCode::as_u16(status)))
        .ok_or("expected a status from 200 to 599")
}

/// Writes arguments as clap takes them, from how Go's package `flag` does: flags up to the first
/// argument that is none, or `--`; one dash or two; a value after `=` or in the next argument,
/// whatever that looks like; `-flag=true` and `-flag=false` for a flag without a value.
fn from_go_style(
    command: &clap::Command,
    args: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let Some(flag) = bytes.strip_prefix(b"-").filter(|flag| !flag.is_empty()) else {
            out.extend([OsString::from("--"), arg]);
            break;
        };
        let flag = flag.strip_prefix(b"-").unwrap_or(flag);
        if flag.is_empty() {
            out.push(arg);
            break;
        }
        let (name, value) = match flag.iter().position(|&byte| byte == b'=') {
            Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]))),
            None => (flag, None),
        };
        let name: &[u8] = if name == b"h" { b"help" } else { name };
        let known = command
            .get_arguments()
            .find(|arg| arg.get_long().is_some_and(|long| long.as_bytes() == name));
        let takes_value =
            known.is_some_and(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append));

        let mut long = OsString::from("--");
        long.push(OsStr::from_bytes(name));
        match value.map(OsStr::to_owned) {
            // strconv.ParseBool's words.
            Some(value) if known.is_some() && !takes_value => match value.to_str() {
                Some("1" | "t" | "T" | "true" | "TRUE" | "True") => {}
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => continue,
                _ => {
                    long.push("=");
                    long.push(value);
                }
            },
            Some(value) => {
                long.push("=");
                long.push(value);
            }
            None if takes_value => {
                if let Some(value) = args.next() {
                    long.push("=");
                    long.push(value);
                }
            }
            None => {}
        }
        out.push(long);
    }
    out.extend(args);
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::{Args, from_go_style};

    fn rewritten(args: &[&str]) -> Vec<String> {
        let mut command = Args::command();
        command.build();
        let args = std::iter::once("echo-server").chain(args.iter().copied());
        from_go_style(&command, args.map(Into::into))
            .into_iter()
            .skip(1)
            .map(|arg| arg.into_string().expect("these are UTF-8"))
            .collect()
    }

    #[test]
    fn the_command_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_are_taken_in_all_of_gos_spellings() {
        for args in [
            &["-text=x"][..],
            &["-text", "x"],
            &["--text=x"],
            &["--text", "x"],
        ] {
            assert_eq!(rewritten(args), ["--text=x"]);
        }
        assert_eq!(rewritten(&["-text", "-listen"]), ["--text=-listen"]);
        assert_eq!(rewritten(&["-text="]), ["--text="]);
        assert_eq!(rewritten(&["-text=a=b"]), ["--text=a=b"]);
        assert_eq!(
            rewritten(&["-version=true", "-version=f", "-h"]),
            ["--version", "--help"]
        );
        assert_eq!(
            rewritten(&["-version=maybe", "-nosuch=1"]),
            ["--version=maybe", "--nosuch=1"]
        );
    }

    #[test]
    fn flags_end_where_go_says_so() {
        assert_eq!(
            rewritten(&["-text=x", "y", "-listen=z"]),
            ["--text=x", "--", "y", "-listen=z"]
        );
        assert_eq!(rewritten(&["--", "-text=x"]), ["--", "-text=x"]);
        assert_eq!(rewritten(&["-"]), ["--", "-"]);
    }

    proptest! {
        #[test]
        fn a_value_comes_through_whatever_it_is(value: String) {
            let expected = [format!("--text={value}")];
            prop_assert_eq!(rewritten(&["-text", &value]), expected.clone());
            prop_assert_eq!(rewritten(&[&format!("--text={value}")]), expected);
        }

        #[test]
        fn no_arguments_are_too_odd(args: Vec<String>) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            rewritten(&args);
        }
    }
}
