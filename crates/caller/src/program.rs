//! The whole program: parse the command line, execute the command, return the exit code.
//!
//! | exit code of the loop | meaning |
//! |---|---|
//! | 0 | it was stopped by SIGTERM or SIGINT; with `--count`, `--duration` or `--until-replaced`, every call was as expected |
//! | 1 | with one of these flags, a call was not as expected; or the program could not start |
//! | 2 | a flag, a value or a file is not valid |
//! | 3 | `--until-replaced` did not see every pod replaced |
//!
//! The subcommands document their exit codes in [`crate::commands`].

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use runtime::descriptors::start_tokio;
use runtime::output::Output;

use crate::cli::{Cli, Command};
use crate::commands::{diagnose, mesh, once, resolve, run};
use crate::curl;
use crate::dns::Host;
use crate::stats::{Rollout, Summary};
use crate::target::Target;

/// Exit code for a flag, a value or a file that is not valid, as clap uses it.
const BAD_INPUT: u8 = 2;

/// Exit code of a subcommand that was ended by a signal: 128 and the number of SIGTERM, as shells report it.
const TERMINATED: u8 = 143;

/// Exit code of a run with `--until-replaced` that did not see every pod replaced.
const NOT_REPLACED: u8 = 3;

/// Exit code of curl if it cannot start (`CURLE_FAILED_INIT`).
const CURL_FAILED_INIT: u8 = 2;

/// Runs the program with these arguments, the first of which is the name of the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if is_curl(args.first()) {
        return as_curl(args);
    }
    let cli = Cli::from_args(args);
    runtime::log::init(cli.log_level());
    let follows = cli.follows_process_1();
    let command = match cli.into_command() {
        Ok(command) => command,
        Err(error) => {
            runtime::log::fatal(format_args!("error: {error}"));
            return ExitCode::from(BAD_INPUT);
        }
    };
    if follows {
        let (doing, what) = match &command {
            Command::Resolve(config) => match &config.host {
                Host::Name(name) => ("looking up", name.clone()),
                Host::Address { ip, .. } => ("looking up", ip.to_string()),
            },
            _ => {
                let targets: Vec<&str> = command.targets().map(Target::as_str).collect();
                ("calling", targets.join(" "))
            }
        };
        // Not a log event, which the log level could hide: a user who gave no target needs to know which is used.
        runtime::log::fatal(format_args!(
            "caller: {doing} what process 1 of this pod calls, with its options: {what}"
        ));
    }
    let code = execute(command).unwrap_or_else(|error| {
        runtime::log::fatal(format_args!("caller: {error:#}"));
        ExitCode::FAILURE
    });
    runtime::log::flush();
    code
}

/// Whether the program is called as `curl`: the image has a link of that name.
fn is_curl(name: Option<&OsString>) -> bool {
    name.is_some_and(|name| Path::new(name).file_name() == Some("curl".as_ref()))
}

fn as_curl(args: Vec<OsString>) -> ExitCode {
    match start_tokio() {
        Ok(tokio) => tokio.block_on(curl::run(args)),
        Err(error) => {
            runtime::log::fatal(format_args!("curl: (2) cannot start: {error}"));
            ExitCode::from(CURL_FAILED_INIT)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let tokio = start_tokio().context("cannot start")?;
    tokio.block_on(async {
        match command {
            Command::Run(config) => run_loop(config).await,
            Command::Once(config) => until_signal(once::run(config)).await,
            Command::Resolve(config) => until_signal(resolve::run(config)).await,
            Command::Diagnose(config) => until_signal(diagnose::run(config)).await,
            Command::Listening => diagnose::listening(),
            Command::Mesh(config) => until_signal(mesh::run(config)).await,
        }
    })
}

/// Runs a subcommand to its end, or until SIGTERM or SIGINT: process 1 of a container ignores signals that it does
/// not handle (pid_namespaces(7)).
async fn until_signal(
    run: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
    tokio::select! {
        ended = run => ended,
        () = shutdown => Ok(ExitCode::from(TERMINATED)),
    }
}

async fn run_loop(config: run::Config) -> anyhow::Result<ExitCode> {
    // Each running call takes a file descriptor, as does each client of the page.
    runtime::descriptors::raise_limit();
    let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
    let has_end = config.has_end();
    let output = Output::stdout();
    let summaries = run::bind(config, output.lines())?.run(shutdown).await;
    output.finish();
    let is_seen = |summary: &Summary| summary.rollout().is_none_or(Rollout::is_seen);
    let is_unexpected = summaries.iter().any(|summary| summary.unexpected() > 0);
    let is_seen = summaries.iter().all(is_seen);
    Ok(match (has_end && is_unexpected, is_seen) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(NOT_REPLACED),
    })
}
