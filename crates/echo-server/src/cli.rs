//! The command line, with flags as Go programs accept them: `-text=x`, `-text x`, `--text=x`, `--text x`.

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
/// On SIGTERM or SIGINT, /readyz responds with 503, and for --drain-delay connections are still
/// accepted, while clients are asked to reconnect elsewhere. Then the port is closed, requests in
/// progress may take --drain-timeout, and the exit code is 0. A second signal exits at once.
#[derive(Debug, Parser)]
#[command(
    name = "echo-server",
    version,
    args_override_self = true,
    verbatim_doc_comment
)]
pub struct Args {
    /// Body of every response; a newline is added. Required. An empty value counts as none
    #[arg(long, env = "ECHO_TEXT")]
    text: Option<OsString>,

    /// Listen address: [IP]:PORT; without an IP, all addresses, IPv6 and IPv4
    #[arg(long, env = "ECHO_LISTEN", default_value = ":8080")]
    listen: ListenAddr,

    /// Status of every response except that of /health, 200 to 599
    #[arg(long, env = "ECHO_STATUS_CODE", default_value = "200", value_name = "CODE",
          value_parser = parse_status)]
    status_code: StatusCode,

    /// Content type of every response [default: guessed from the text, as Go does]
    #[arg(long, env = "ECHO_CONTENT_TYPE", value_name = "TYPE")]
    content_type: Option<HeaderValue>,

    /// Listen address of /livez, /readyz and /metrics: [IP]:PORT, or off [default: :8081, or off if
    /// that is in use]
    #[arg(long, env = "ECHO_ADMIN_LISTEN", value_name = "LISTEN")]
    admin_listen: Option<OptionalListenAddr>,

    /// Access log on stdout: text (http-echo's own lines), json or off
    #[arg(
        long,
        env = "ECHO_ACCESS_LOG",
        default_value = "text",
        value_name = "FORMAT"
    )]
    access_log: AccessLogFormat,

    /// How long connections are still accepted after SIGTERM: as long as the cluster may go on
    /// sending to this pod
    #[arg(long, env = "ECHO_DRAIN_DELAY", default_value = "5s", value_name = "DURATION",
          value_parser = parse_duration)]
    drain_delay: Duration,

    /// How long requests in progress may take after the drain delay
    #[arg(long, env = "ECHO_DRAIN_TIMEOUT", default_value = "15s", value_name = "DURATION",
          value_parser = parse_duration)]
    drain_timeout: Duration,

    /// Timeout for the first byte of a connection, for the head of a request, and again for its body
    #[arg(long, env = "ECHO_HEADER_TIMEOUT", default_value = "10s", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    header_timeout: Duration,

    /// Timeout between two requests of a connection
    #[arg(long, env = "ECHO_IDLE_TIMEOUT", default_value = "2m", value_name = "DURATION",
          value_parser = parse_positive_duration)]
    idle_timeout: Duration,

    /// Limit on open connections; one more replaces the one that has kept the server waiting longest.
    /// A quarter of them may be in the middle of a request; an HTTP/2 connection counts as ten of those.
    /// Lowered if fewer open files are allowed
    #[arg(long, env = "ECHO_MAX_CONNECTIONS", default_value = "4096", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// Limit on a request body, in bytes; it is read and discarded. A longer one gets 413
    #[arg(
        long,
        env = "ECHO_MAX_BODY",
        default_value = "1048576",
        value_name = "BYTES"
    )]
    max_body: u64,

    /// Fault injection: percentage of the responses that are faulty; that of /health never is
    #[arg(long, env = "ECHO_FAULT_PERCENT", default_value = "0", value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    fault_percent: u8,

    /// Status of a faulty response, 200 to 599
    #[arg(long, env = "ECHO_FAULT_STATUS", default_value = "500", value_name = "CODE",
          value_parser = parse_status)]
    fault_status: StatusCode,

    /// Delay before a faulty response
    #[arg(long, env = "ECHO_FAULT_DELAY", default_value = "0s", value_name = "DURATION",
          value_parser = parse_duration)]
    fault_delay: Duration,

    /// Worker threads [default: the CPUs that the cgroup allows]
    #[arg(long, env = "ECHO_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Log level on stderr: error, warn, info, debug, trace or off
    #[arg(
        long,
        env = "ECHO_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: LevelFilter,

    /// Arguments after the flags. http-echo refuses them, after it has checked the text.
    #[arg(hide = true)]
    rest: Vec<OsString>,
}

/// The default admin port. A user who replaces http-echo has not asked for it, so it is left out if it is in use.
const DEFAULT_ADMIN: ListenAddr = ListenAddr {
    ip: None,
    port: 8081,
};

/// The arguments are well formed, but the text is missing or there are too many of them. The messages are those of
/// http-echo.
#[derive(Debug, thiserror::Error)]
pub enum NoConfig {
    /// There is no text to respond with.
    #[error("Missing -text option or ECHO_TEXT env var!")]
    MissingText,
    /// There are arguments after the flags.
    #[error("Too many arguments!")]
    TooManyArguments,
}

impl Args {
    /// Parses the arguments and the environment of this process. Where they ask for help or the version, or have an
    /// error, prints that and exits the process.
    pub fn from_env() -> Self {
        let mut command = Self::command();
        command.build();
        let args = from_go_style(&command, std::env::args_os());
        let mut matches = environment::matches(command, &args);
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
    }

    /// Level of the log on stderr.
    pub fn log_level(&self) -> LevelFilter {
        self.log_level
    }

    /// Number of worker threads: as the flag says, or as many as the cgroup allows CPUs.
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

/// A variable that is not empty.
fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A variable that is set by the downward API, as the value of a header. What is not valid in one is not a name.
fn env_header(name: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(env(name)?.as_bytes()).ok()
}

fn parse_status(text: &str) -> Result<StatusCode, &'static str> {
    text.parse()
        .ok()
        .filter(|status| (200..=599).contains(&StatusCode::as_u16(status)))
        .ok_or("expected a status from 200 to 599")
}

/// Rewrites arguments from the syntax of Go's package `flag` to that of clap. In Go's, flags end at the first
/// argument that is not one, or at `--`; they have one dash or two; the value is after `=` or in the next argument,
/// whatever that looks like; a flag without a value may be written `-flag=true` or `-flag=false`.
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
            // The values of Go's strconv.ParseBool.
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
    fn clap_accepts_the_definition_of_the_command() {
        Args::command().debug_assert();
    }

    #[test]
    fn all_go_spellings_of_a_flag_are_rewritten_to_one() {
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
    fn flags_end_at_the_first_argument_that_is_not_one() {
        assert_eq!(
            rewritten(&["-text=x", "y", "-listen=z"]),
            ["--text=x", "--", "y", "-listen=z"]
        );
        assert_eq!(rewritten(&["--", "-text=x"]), ["--", "-text=x"]);
        assert_eq!(rewritten(&["-"]), ["--", "-"]);
    }

    proptest! {
        #[test]
        fn any_value_of_a_flag_is_passed_on_unchanged(value: String) {
            let expected = [format!("--text={value}")];
            prop_assert_eq!(rewritten(&["-text", &value]), expected.clone());
            prop_assert_eq!(rewritten(&[&format!("--text={value}")]), expected);
        }

        #[test]
        fn arbitrary_arguments_are_rewritten_without_a_panic(args: Vec<String>) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            rewritten(&args);
        }
    }
}
