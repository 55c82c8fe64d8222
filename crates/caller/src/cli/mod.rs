//! The command line: [`Cli`] parses it and says what to do. Every flag has an environment variable beside
//! it. `args` has the flags, `values` how their values are written.

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

/// Resolves a Service through cluster DNS, calls it, and prints what happened.
///
/// Without a subcommand it goes on for ever: every 10 seconds it looks the name of each target up anew, opens
/// a new connection, and prints three lines: when, what came back, and how it ended. A call that fails says
/// what was seen and what is the likely cause.
///
/// It ends on SIGTERM or SIGINT, or after --count or --duration, with a summary: calls, failures by
/// kind, the longest gap without a success, the share of each pod, times by phase.
///
/// Exit code: 0; after --count, --duration or --until-replaced, 1 if a call did not come to what was expected;
/// 1 if it cannot start, as on an admin port that is in use; 2 for a bad flag, value or file; 3 if
/// --until-replaced did not see what it waits for.
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

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Call over and over.
    Run(run::Config),
    /// Call once.
    Once(once::Config),
    /// Look a name up.
    Resolve(resolve::Config),
    /// Call every address of each target's name, step by step.
    Diagnose(diagnose::Config),
    /// Show what this pod listens at.
    Listening,
    /// Collect the rows of a mesh.
    Mesh(mesh::Config),
}

impl Command {
    /// What a subcommand that calls is to call.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
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
    /// Reads these arguments and this process's environment; prints help, the version or an error, and
    /// exits, where there is nothing to run.
    pub fn from_args(args: Vec<OsString>) -> Self {
        let command = Self::command();
        let mut matches = environment::matches(command.clone(), &args);
        let mut follows = false;
        if let Some(followed) = resolving_the_target(&matches, &args) {
            matches = environment::matches(command, &followed);
        } else if let Some(followed) = following_process_1(&command, &matches, &args) {
            matches = environment::matches(command, &followed);
            follows = true;
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

    /// The targets, and the options, of what is called.
    fn call(&mut self) -> Option<&mut CallArgs> {
        match &mut self.command {
            Some(CommandArgs::Once(args)) => Some(&mut args.call),
            Some(CommandArgs::Diagnose(args)) => Some(&mut args.call),
            Some(CommandArgs::Resolve(_) | CommandArgs::Mesh(_)) => None,
            None => Some(&mut self.run.call),
        }
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
    ///
    /// # Errors
    ///
    /// When targets do not go together, or a file of TLS cannot be used; the error names it.
    pub fn into_command(self) -> Result<Command, String> {
        Ok(match self.command {
            None => Command::Run(self.run.into_config()?),
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

/// `resolve` without a name looks up what the environment says is called.
fn resolving_the_target(matches: &clap::ArgMatches, args: &[OsString]) -> Option<Vec<OsString>> {
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

/// The command line of a subcommand that calls and was given no target, in a pod whose process 1 is a
/// caller: with that one's options before its own, and that one's target.
fn following_process_1(
    command: &clap::Command,
    matches: &clap::ArgMatches,
    args: &[OsString],
) -> Option<Vec<OsString>> {
    let (name, given) = matches.subcommand()?;
    // `resolve` has no target.
    let Given { url, file } = Given::of(given)?;
    if url || file {
        return None;
    }
    let subcommand = command.find_subcommand(name)?;
    let Arguments {
        options,
        targets,
        is_of_mesh,
    } = Process1::read()?.arguments(command, subcommand)?;
    if name == "mesh" && !is_of_mesh {
        return None;
    }
    let at = args.iter().position(|arg| *arg == *name)? + 1;
    let before = args[..at].iter().cloned();
    let after = args[at..].iter().cloned();
    Some(before.chain(options).chain(after).chain(targets).collect())
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;
    use super::values::SUBCOMMANDS;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_is_known_to_the_targets() {
        let command = Cli::command();
        let names = command.get_subcommands().map(clap::Command::get_name);
        assert!(names.eq(SUBCOMMANDS));
    }
}
