//! The life of the process: read the command line, do what it says, and give the exit code.
//!
//! Exit codes of the loop: 0 when every call came to what was expected, or on SIGTERM and SIGINT in a run without an end
//! of its own; 1 when a call did not come to what was expected in a run with `--count` or `--duration`, or
//! when it cannot start; 2 for an unknown flag, or a value or a file that is bad; 3 when `--until-replaced` did not see a rollout. Those of the subcommands are curl's.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use runtime::output::Output;

use crate::cli::{Cli, Command};
use crate::commands::{diagnose, mesh, once, resolve, run};
use crate::curl;
use crate::stats::{Rollout, Summary};
use crate::target::Target;

/// The exit code for a flag, a value or a file that cannot be used; clap's.
const BAD_INPUT: u8 = 2;

/// The exit code of a subcommand that was told to end, as a shell has it for SIGTERM.
const TERMINATED: u8 = 143;

/// The exit code of a run that was to see a rollout and did not.
const NOT_SEEN: u8 = 3;

/// Runs the program with these arguments, the first of which is its name.
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
        let targets: Vec<&str> = command.targets().map(Target::as_str).collect();
        // Not an event: whoever typed no target is to know which one it is.
        runtime::log::fatal(format_args!(
            "caller: calling what process 1 of this pod calls, with its options: {}",
            targets.join(" ")
        ));
    }
    let code = execute(command).unwrap_or_else(|error| {
        runtime::log::fatal(format_args!("caller: {error:#}"));
        ExitCode::FAILURE
    });
    runtime::log::flush();
    code
}

/// The image has a link of that name.
fn is_curl(name: Option<&OsString>) -> bool {
    name.is_some_and(|name| Path::new(name).file_name() == Some("curl".as_ref()))
}

#[tokio::main(flavor = "current_thread")]
async fn as_curl(args: Vec<OsString>) -> ExitCode {
    curl::run(args).await
}

#[tokio::main(flavor = "current_thread")]
async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(config) => run_loop(config).await,
        Command::Once(config) => until_told(once::run(config)).await,
        Command::Resolve(config) => until_told(resolve::run(config)).await,
        Command::Diagnose(config) => until_told(diagnose::run(config)).await,
        Command::Listening => diagnose::listening(),
        Command::Mesh(config) => until_told(mesh::run(config)).await,
    }
}

/// Runs a subcommand to its end, or until SIGTERM or SIGINT: as process 1 of a container it would not hear them
/// otherwise.
async fn until_told(
    run: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
    tokio::select! {
        ended = run => ended,
        () = shutdown => Ok(ExitCode::from(TERMINATED)),
    }
}

async fn run_loop(config: run::Config) -> anyhow::Result<ExitCode> {
    // Calls of many addresses, and whoever looks at the page, take one each.
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
        (false, false) => ExitCode::from(NOT_SEEN),
    })
}
