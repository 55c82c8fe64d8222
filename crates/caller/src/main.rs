//! caller: see `caller --help`.
//!
//! Exit codes of the loop: 0 when no call failed, or on SIGTERM and SIGINT in a run without an end
//! of its own; 1 when a call failed in a run with `--count` or `--duration`, or when it cannot start;
//! 2 for an unknown flag or a bad value. Those of the subcommands are curl's.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use caller::Config;
use caller::advice::Service;
use caller::check::Expectation;
use caller::cli::{Cli, Command};
use caller::diagnose::{Diagnosis, Marks};
use caller::probe::{Probe, ProbeConfig};
use caller::view::Format;

fn main() -> ExitCode {
    let cli = Cli::from_env();
    runtime::log::init(cli.log_level());
    match run(cli.into_command()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("caller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(config) => call_on(config).await,
        Command::Once {
            probe,
            format,
            expectation,
        } => once(probe, format, expectation).await,
        Command::Resolve {
            resolver,
            host,
            timeout,
            repeat,
        } => {
            let (text, code) =
                caller::commands::resolve::run(&resolver, &host, timeout, repeat).await;
            say(&text)?;
            Ok(code.into())
        }
        Command::Diagnose(probe) => diagnose(probe).await,
    }
}

async fn call_on(config: Config) -> anyhow::Result<ExitCode> {
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

async fn once(
    probe: ProbeConfig,
    format: Format,
    expectation: Expectation,
) -> anyhow::Result<ExitCode> {
    let url = probe.target.to_string();
    let (mut text, mut code) = (String::new(), 0);
    let ended = |report| {
        text += &format.report(&url, &report);
        code = expectation.exit_code(&report);
    };
    Probe::new(probe).round(ended).await;
    if expectation != Expectation::Ok && format != Format::Json {
        let verdict = if code == 0 { "passed" } else { "failed" };
        text += &format!("Check {verdict}: expected {expectation}\n");
    }
    say(&text)?;
    Ok(code.into())
}

async fn diagnose(probe: ProbeConfig) -> anyhow::Result<ExitCode> {
    let host = probe.target.host.clone();
    let mut reports = Vec::new();
    Probe::new(probe).round(|report| reports.push(report)).await;
    let lookup = reports.first().and_then(|report| report.lookup.as_deref());
    let diagnosis = Diagnosis {
        service: Service::of(&host, lookup),
        marks: Marks {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        },
        reports: &reports,
    };
    say(&diagnosis.to_string())?;
    let failure = reports.iter().find_map(|report| report.failure.as_ref());
    Ok(failure.map_or(0, |failure| failure.kind.exit_code()).into())
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(text.as_bytes())
        .context("cannot write to stdout")
}
