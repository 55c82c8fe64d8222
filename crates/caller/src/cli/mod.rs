//! The command line: [`Cli`] parses it and returns a [`Command`] to execute. Flags can also be set by
//! environment variables, which `--help` names. `args` has the flags, `values` the parsers of their values.

mod args;
mod values;

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};
use runtime::environment;
use runtime::log::LevelFilter;

use self::args::{
    CallArgs, CommandArgs, DiagnoseArgs, Given, OnceArgs, ReportFormat, ResolveArgs, ResolverArgs,
    RunArgs,
};
pub(crate) use self::values::Header;
use crate::commands::{diagnose, mesh, once, resolve, run};
use crate::dns::Resolver;
use crate::expectation::Expectation;
use crate::process1::{Arguments, Process1};
use crate::target::Target;

/// Resolves a Service through cluster DNS, calls it, and prints the result.
///
/// Without a subcommand it runs until it is stopped: every 10 seconds it looks up the name of each target again,
/// opens a new connection, sends a request, and prints three lines: the time, the response and the result. For
/// a failed call it prints the evidence and the likely cause.
///
/// It stops on SIGTERM or SIGINT, or as --count, --duration or --until-replaced say, and prints a summary: calls,
/// failures by kind, the longest gap without a success, the share of each pod, the duration of each phase.
///
/// A DURATION is written as 500ms, 10s or 1m30s. A flag takes precedence over its environment variable.
///
/// Exit code:
///   0  it was stopped by SIGTERM or SIGINT; with --count, --duration or --until-replaced, every call was as
///      expected
///   1  with --count, --duration or --until-replaced, a call was not as expected; or it could not start, for
///      example because the admin port is in use
///   2  a flag, a value or a file is not valid
///   3  --until-replaced did not see every pod replaced
#[derive(Debug, Parser)]
#[command(
    name = "caller",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    verbatim_doc_comment
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<CommandArgs>,
    #[command(flatten)]
    run: RunArgs,
    #[arg(skip)]
    follows_process_1: bool,
}

/// The command to execute, with its configuration.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Call each target again and again.
    Run(run::Config),
    /// Call each target once.
    Once(once::Config),
    /// Look up a name.
    Resolve(resolve::Config),
    /// Call every address of each target's name, step by step.
    Diagnose(diagnose::Config),
    /// Show the listening sockets of this pod.
    Listening,
    /// Collect the results of the callers of a mesh.
    Mesh(mesh::Config),
}

impl Command {
    /// The targets of a subcommand; none for the loop.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        let (probes, collected): (&[_], &[_]) = match self {
            Self::Once(once::Config { probes, .. })
            | Self::Diagnose(diagnose::Config { probes, .. }) => (probes, &[]),
            Self::Mesh(mesh::Config { collector, .. }) => (&[], &collector.targets),
            Self::Run(_) | Self::Resolve(_) | Self::Listening => (&[], &[]),
        };
        let called = probes.iter().map(|probe| &probe.check.target);
        called.chain(collected.iter().map(|target| &**target))
    }
}

impl Cli {
    /// Parses these arguments and this process's environment. If they ask for the help or the version, or are not
    /// valid, this prints the help, the version or the error, and exits.
    pub(crate) fn from_args(args: Vec<OsString>) -> Self {
        let command = Self::command();
        let mut matches = environment::matches(command.clone(), &args);
        let mut follows = false;
        if let Some(followed) = with_process_1_arguments(&command, &matches, &args) {
            matches = environment::matches(command, &followed);
            follows = true;
        } else if let Some(followed) = with_host_to_resolve(&matches, &args) {
            matches = environment::matches(command, &followed);
        }
        let given = match matches.subcommand() {
            Some((_, matches)) => Given::of(matches),
            None => Given::of(&matches),
        };
        let mut cli = Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
        cli.follows_process_1 = follows;
        if let (Some(given), Some(call)) = (given, cli.call()) {
            call.keep_given(given);
        }
        if cli.command.is_none()
            && let Err(message) = cli.run.check()
        {
            let kind = clap::error::ErrorKind::ArgumentConflict;
            Self::command().error(kind, message).exit();
        }
        cli
    }

    /// The targets and options of the command, if it makes calls.
    fn call(&mut self) -> Option<&mut CallArgs> {
        match &mut self.command {
            Some(CommandArgs::Once(args)) => Some(&mut args.call),
            Some(CommandArgs::Diagnose(args)) => Some(&mut args.call),
            Some(CommandArgs::Resolve(_) | CommandArgs::Mesh(_)) => None,
            None => Some(&mut self.run.call),
        }
    }

    /// Whether the targets and options are those of process 1, because no target was given.
    pub(crate) fn follows_process_1(&self) -> bool {
        self.follows_process_1
    }

    /// The least severe diagnostics to write to stderr.
    pub(crate) fn log_level(&self) -> LevelFilter {
        self.run.log_level
    }

    /// The command to execute.
    ///
    /// # Errors
    ///
    /// When flags or targets contradict each other, or a certificate or key cannot be used; the error names them.
    pub(crate) fn into_command(self) -> Result<Command, String> {
        Ok(match self.command {
            None => Command::Run(self.run.into_config()?),
            Some(CommandArgs::Once(OnceArgs { call, expect, .. }))
                if call.url.is_empty() && expect != Expectation::Ok =>
            {
                return Err("--expect is for targets on the command line; in --targets FILE each line has its own".to_owned());
            }
            Some(CommandArgs::Once(OnceArgs {
                call,
                wait,
                format,
                expect,
            })) => Command::Once(once::Config {
                probes: call.into_probes(expect, false, false)?,
                format,
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
            Some(CommandArgs::Diagnose(DiagnoseArgs {
                call,
                listening: false,
                no_path,
                format,
            })) => Command::Diagnose(diagnose::Config {
                probes: call.into_probes(Expectation::Ok, true, false)?,
                path: !no_path,
                json: format == ReportFormat::Json,
            }),
            Some(CommandArgs::Mesh(args)) => Command::Mesh(args.into_config()),
        })
    }
}

/// The arguments of `resolve` without a name, with the first target of `CALLER_URL` added.
fn with_host_to_resolve(matches: &clap::ArgMatches, args: &[OsString]) -> Option<Vec<OsString>> {
    let (_, given) = matches
        .subcommand()
        .filter(|(name, _)| *name == "resolve")?;
    if given.value_source("name") != Some(ValueSource::DefaultValue) {
        return None;
    }
    let urls = std::env::var("CALLER_URL").ok()?;
    let url = urls.split_whitespace().next()?;
    Some(args.iter().cloned().chain([url.into()]).collect())
}

/// The arguments of a subcommand that makes calls but was given no target, in a pod whose process 1 is a caller. The
/// options of process 1 are added before the subcommand's own, which take precedence, and its targets after them.
fn with_process_1_arguments(
    command: &clap::Command,
    matches: &clap::ArgMatches,
    args: &[OsString],
) -> Option<Vec<OsString>> {
    let (name, given) = matches.subcommand()?;
    let is_given = match name {
        // It has a name in place of a target.
        "resolve" => given.value_source("name") != Some(ValueSource::DefaultValue),
        _ => Given::of(given).is_none_or(|Given { url, file }| url || file),
    };
    if is_given {
        return None;
    }
    let subcommand = command.find_subcommand(name)?;
    let Arguments {
        options,
        targets,
        first_target,
        is_of_mesh,
    } = Process1::read()?.arguments(command, subcommand)?;
    let targets = match name {
        // It looks up the host of one target, or else the default name.
        "resolve" if targets.is_empty() => Vec::from_iter(first_target),
        _ => targets,
    };
    let has_nothing = options.is_empty() && targets.is_empty();
    if name == "mesh" && !is_of_mesh || name == "resolve" && has_nothing {
        return None;
    }
    let at = args.iter().position(|arg| *arg == *name)? + 1;
    let before = args[..at].iter().cloned();
    let after = args[at..].iter().cloned();
    Some(before.chain(options).chain(after).chain(targets).collect())
}

/// The resolver settings of the environment, or else the default ones, for `curl`, which has no flags for them.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;
    use super::values::SUBCOMMANDS;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_list_of_subcommands_is_complete() {
        let command = Cli::command();
        let names = command.get_subcommands().map(clap::Command::get_name);
        assert!(names.eq(SUBCOMMANDS));
    }
}
