//! A small part of curl, for when the program is called by that name: the image has no other program, and
//! commands of documentation and runbooks use curl.
//!
//! It prints the body and exits as curl does (<https://curl.se/docs/manpage.html>, "EXIT CODES"). The error of a
//! failed request contains the evidence and the likely cause. An option that is not supported is an error that
//! names it (exit code 2), as is another scheme (exit code 1).

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use http::{HeaderMap, Method};
use runtime::escape::Escaped;

use crate::cli::{Header, resolver_from_env};
use crate::expectation::Expectation;
use crate::expected_status::ExpectedStatus;
use crate::failure::Failure;
use crate::probe::{CaptureLimits, HttpConfig, Probe, ProbeConfig};
use crate::report::{Phase, Report, Wire};
use crate::target::{ParseTargetError, Scheme, Target};
use crate::targets::Check;
use crate::trust::{Trust, TrustFiles};
use crate::verdict;

/// Largest body in bytes. It is held in memory.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Most bytes of a request or response head to show.
const MAX_HEAD: usize = 256 * 1024;

/// curl's default for `--connect-timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// Stands for no timeout, which is curl's default for a whole request.
const NO_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests a URL and prints the response. A small part of curl, built into caller.
#[derive(Debug, Parser)]
#[command(name = "curl", version, args_override_self = true)]
struct Args {
    /// Do not print errors
    #[arg(short = 's', long)]
    silent: bool,

    /// Print errors even with -s
    #[arg(short = 'S', long)]
    show_error: bool,

    /// Exit with 22, and do not print the body, if the status is 400 or above
    #[arg(short = 'f', long)]
    fail: bool,

    /// Print the status line and the headers of the response, too
    #[arg(short = 'i', long)]
    include: bool,

    /// Send a HEAD request, and print the headers of the response
    #[arg(short = 'I', long)]
    head: bool,

    /// Print the headers sent and received to stderr
    #[arg(short = 'v', long)]
    verbose: bool,

    /// Timeout of the whole request, in seconds
    #[arg(short = 'm', long, value_name = "SECONDS", value_parser = seconds)]
    max_time: Option<Duration>,

    /// Timeout of the connection attempt, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,

    /// Header to send; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<Header>,

    /// Method of the request
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,

    /// Write the body to this file
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Print this at the end; variables are %{http_code}, %{exitcode}, %{remote_ip}, %{remote_port},
    /// %{size_download}, %{time_namelookup}, %{time_connect}, %{time_appconnect}, %{time_starttransfer} and
    /// %{time_total}
    #[arg(short = 'w', long, value_name = "FORMAT")]
    write_out: Option<String>,

    /// Do not verify the server's certificate
    #[arg(short = 'k', long)]
    insecure: bool,

    /// File with CA certificates to trust instead of the system's, in PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// URL to request: http://HOST[:PORT][/PATH] or https://...
    url: String,
}

/// Parses a number of seconds. As in curl, zero means no timeout, and the error is in curl's words.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a proper numerical parameter")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Ok(NO_TIMEOUT),
        Ok(duration) => Ok(duration.min(NO_TIMEOUT)),
        Err(_) => Err("expected a proper numerical parameter"),
    }
}

/// Runs curl with these arguments, the first of which is the name of the program.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let target: Target = match args.url.parse() {
        Ok(target) => target,
        Err(error) => {
            let code = match error {
                ParseTargetError::Scheme(_) => 1,
                _ => 3,
            };
            return args.fail(code, &error.to_string()).into();
        }
    };
    if target.scheme == Scheme::Tcp {
        return args.fail(1, "Protocol \"tcp\" not supported").into();
    }
    let files = TrustFiles {
        cacert: args.cacert.clone(),
        insecure: args.insecure,
        ..TrustFiles::default()
    };
    let trust = match Trust::load(files, target.scheme == Scheme::Https) {
        Ok(trust) => trust,
        Err(error) => return args.fail(77, &error.to_string()).into(),
    };
    let report = request(&args, target, trust).await;
    if args.verbose {
        eprint(&narrate(&report));
    }
    args.conclude(&report)
}

/// Prints why the arguments cannot be parsed, or the help or the version if one was requested.
fn refuse(error: &clap::Error) -> ExitCode {
    let named = error.get(ContextKind::InvalidArg);
    let message = match (error.kind(), named) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => {
            return match write!(io::stdout(), "{error}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(23),
            };
        }
        (ErrorKind::UnknownArgument, Some(url)) if !url.to_string().starts_with('-') => {
            "this curl takes one URL".to_owned()
        }
        (ErrorKind::UnknownArgument, Some(option)) => {
            format!("option {option}: this curl does not have it")
        }
        (ErrorKind::MissingRequiredArgument, _) => "no URL specified!".to_owned(),
        _ => error.to_string().trim_start_matches("error: ").to_owned(),
    };
    let message = message.trim_end();
    eprint(&format!(
        "curl: {message}\ncurl: try 'curl --help'; this curl is built into caller and has few options\n"
    ));
    ExitCode::from(2)
}

async fn request(args: &Args, target: Target, trust: Trust) -> Report {
    let mut headers = HeaderMap::new();
    for Header(name, value) in &args.header {
        headers.append(name, value.clone());
    }
    let method = match (&args.request, args.head) {
        (Some(method), _) => method.clone(),
        (None, true) => Method::HEAD,
        (None, false) => Method::GET,
    };
    let probe = Probe::new(ProbeConfig {
        check: Check {
            target,
            expectation: Expectation::Ok,
            control: None,
        },
        trust,
        resolver: resolver_from_env(),
        http: HttpConfig {
            method,
            headers,
            expected_status: ExpectedStatus::any(),
            http2: false,
            keep_alive: false,
            connect_timeout: args.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            capture: CaptureLimits {
                wire: MAX_HEAD,
                body: MAX_BODY,
                max_body: MAX_BODY as u64,
            },
        },
        timeout: args.max_time.unwrap_or(NO_TIMEOUT),
        each_address: false,
        sample: None,
    });
    probe.round().await.only_call().await
}

impl Args {
    /// Prints the response or the error, and returns the exit code.
    fn conclude(&self, report: &Report) -> ExitCode {
        let response = report.response();
        let is_error = response.is_some_and(|response| response.status.as_u16() >= 400);
        let mut text = Vec::new();
        let is_refused = self.fail && is_error;
        if let Some(response) = response {
            if self.include || self.head {
                let head = response.wire.as_ref().map(|wire| wire.head.as_slice());
                text.extend_from_slice(head.unwrap_or_default());
            }
            if !is_refused && !self.head {
                text.extend_from_slice(&response.body);
            }
        }
        let written = match &self.output {
            Some(file) if response.is_some() && !(is_refused && text.is_empty()) => {
                std::fs::write(file, &text)
            }
            Some(_) => Ok(()),
            None => io::stdout().write_all(&text),
        };
        let code = match (report.failure(), written) {
            (_, Err(error)) => self.fail(23, &format!("cannot write the body: {error}")),
            (Some(failure), _) => {
                let code = failure.kind.exit_code();
                self.fail(code, &explain(report, failure))
            }
            (None, Ok(())) => match response {
                Some(response) if is_refused => {
                    let status = response.status.as_u16();
                    self.fail(22, &format!("The requested URL returned error: {status}"))
                }
                _ => 0,
            },
        };
        if let Some(format) = &self.write_out {
            let _ = io::stdout().write_all(write_out(format, report, code).as_bytes());
        }
        code.into()
    }

    /// Prints an error, unless `-s` is given without `-S`, and returns the exit code.
    fn fail(&self, code: u8, message: &str) -> u8 {
        if !self.silent || self.show_error {
            eprint(&format!("curl: ({code}) {message}\n"));
        }
        code
    }
}

fn explain(report: &Report, failure: &Failure) -> String {
    let evidence = verdict::evidence(report, failure);
    let evidence = Escaped::new(evidence.as_bytes()).to_string();
    let what = verdict::what(failure);
    let likely = verdict::likely(report, failure);
    format!("{evidence}\ncurl: {what}; likely {likely}")
}

/// The output of `-v`.
fn narrate(report: &Report) -> String {
    let mut text = String::new();
    if let Some(lookup) = &report.lookup
        && let Ok(addresses) = &lookup.outcome
    {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        text += &format!("* {} is {}\n", lookup.name, addresses.join(", "));
    }
    if let (Some(address), Some(_)) = (report.address, report.timings[Phase::Connect]) {
        text += &format!("* Connected to {address}\n");
    }
    if let Some(tls) = report.tls.as_deref() {
        if let Some(version) = tls.version {
            text += &format!("* {version}, certificate verified: {}\n", tls.is_verified);
        }
        if let Some(certificate) = &tls.certificate {
            let facts = verdict::tls::Facts(certificate).to_string();
            text += &format!("* Server certificate: {}\n", Escaped::new(facts.as_bytes()));
        }
    }
    let wire = report
        .response()
        .and_then(|response| response.wire.as_deref());
    if let Some(Wire { request, head }) = wire {
        for (mark, head) in [(">", request), ("<", head)] {
            for line in String::from_utf8_lossy(head).lines() {
                // The output may be pasted into a log or a ticket, so it must not contain a password.
                let line = match line.to_ascii_lowercase().starts_with("authorization:") {
                    true => "authorization: [hidden]",
                    false => line,
                };
                text += &format!("{mark} {}\n", Escaped::new(line.as_bytes()));
            }
        }
    }
    text
}

/// The output of `-w`: the format with its escapes and variables replaced.
fn write_out(format: &str, report: &Report, code: u8) -> String {
    let format = format
        .replace("\\n", "\n")
        .replace("\\t", "\t")
        .replace("\\r", "\r");
    let mut text = String::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        text += before;
        let name = after
            .strip_prefix('{')
            .and_then(|name| name.split_once('}'));
        rest = match name {
            Some((name, after)) => {
                match variable(name, report, code) {
                    Some(value) => text += &value,
                    None => eprint(&format!("curl: unknown --write-out variable: '{name}'\n")),
                }
                after
            }
            // `%%` is one of them.
            None => {
                text.push('%');
                after.strip_prefix('%').unwrap_or(after)
            }
        };
    }
    text + rest
}

fn variable(name: &str, report: &Report, code: u8) -> Option<String> {
    let response = report.response();
    // curl's times count from the start of the request to the end of a phase.
    let until = |phases: &[Phase]| {
        let took: Duration = phases
            .iter()
            .filter_map(|phase| report.timings[*phase])
            .sum();
        Some(format!("{:.6}", took.as_secs_f64()))
    };
    match name {
        "http_code" | "response_code" => {
            let code = response.map_or(0, |response| response.status.as_u16());
            Some(format!("{code:03}"))
        }
        "size_download" => Some(response.map_or(0, |response| response.body_len).to_string()),
        "remote_ip" => Some(
            report
                .address
                .map_or(String::new(), |at| at.ip().to_string()),
        ),
        "remote_port" => Some(report.address.map_or(0, |at| at.port()).to_string()),
        "exitcode" => Some(code.to_string()),
        "time_namelookup" => until(&[Phase::Dns]),
        "time_connect" => until(&[Phase::Dns, Phase::Connect]),
        "time_appconnect" => match report.timings[Phase::Tls] {
            Some(_) => until(&[Phase::Dns, Phase::Connect, Phase::Tls]),
            None => until(&[]),
        },
        "time_starttransfer" => until(&[Phase::Dns, Phase::Connect, Phase::Tls, Phase::FirstByte]),
        "time_total" => until(&[Phase::Total]),
        _ => None,
    }
}

/// Writes to stderr, and ignores an error: the exit code still tells the result.
fn eprint(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
