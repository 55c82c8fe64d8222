//! caller: see `caller --help`.
//!
//! Exit codes: 0 when no call failed, or on SIGTERM and SIGINT in a run without an end of its own;
//! 1 when a call failed in a run with `--count` or `--duration`, or when it cannot start; 2 for an
//! unknown flag or a bad value.

use std::process::ExitCode;

use anyhow::Context;
use caller::Config;
use caller::cli::Args;

fn main() -> ExitCode {
    let args = Args::from_env();
    runtime::log::init(args.log_level());
    match run(args.into()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("caller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
    let has_end = config.count.is_some() || config.duration.is_some();
    let summary = caller::bind(config)?
        .run(shutdown, std::io::stdout())
        .await
        .context("cannot write to stdout")?;
    Ok(match has_end && summary.failed() > 0 {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
