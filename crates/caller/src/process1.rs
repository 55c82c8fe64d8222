//! The targets and options of process 1 of this pod, if it is a caller that runs the loop. Without them,
//! `caller diagnose` would use the default target in a pod whose own target is among its arguments.
//!
//! Its arguments, and the `CALLER_*` variables of its environment, are read from `/proc/1` (proc(5)); other variables
//! are ignored. Nothing is taken over if this process is itself process 1 (as with `kubectl run` and `kubectl debug`),
//! or process 1 is another program (such as `pause`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use runtime::environment;

/// The arguments of process 1, and the `CALLER_*` variables of its environment.
#[derive(Debug)]
pub(crate) struct Process1 {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

/// Arguments of process 1 that a subcommand can take over.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) options: Vec<OsString>,
    pub(crate) targets: Vec<OsString>,
    /// The first target that process 1 calls, if it is not from a file.
    pub(crate) first_target: Option<OsString>,
    /// Whether process 1 is a caller of a mesh.
    pub(crate) is_of_mesh: bool,
}

impl Process1 {
    /// Reads process 1; `None` if it is this process, or is not a caller.
    pub(crate) fn read() -> Option<Self> {
        if std::process::id() == 1 {
            return None;
        }
        let args = split(&std::fs::read("/proc/1/cmdline").ok()?);
        let name = Path::new(args.first()?).file_name()?;
        if name != "caller" {
            return None;
        }
        let env = std::fs::read("/proc/1/environ").unwrap_or_default();
        let env = split(&env).into_iter().filter_map(|variable| {
            let bytes = variable.as_bytes();
            let at = bytes.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (
                OsStr::from_bytes(&bytes[..at]),
                OsStr::from_bytes(&bytes[at + 1..]),
            );
            name.as_bytes()
                .starts_with(b"CALLER_")
                .then(|| (name.to_owned(), value.to_owned()))
        });
        Some(Self {
            env: env.collect(),
            args,
        })
    }

    /// The arguments with which `subcommand`, a part of `command`, calls as process 1 does. `None` if process 1
    /// does not run the loop.
    pub(crate) fn arguments(self, command: &Command, subcommand: &Command) -> Option<Arguments> {
        // Without the environment of this process, which clap would mix with the arguments of process 1.
        let plain = command.clone().mut_args(|arg| arg.env(None::<&str>));
        let matches = plain.try_get_matches_from(&self.args).ok()?;
        if matches.subcommand().is_some() {
            return None;
        }
        let variable = |name: Option<&OsStr>| {
            let mut env = self.env.iter();
            let (_, value) = env.find(|(variable, _)| Some(variable.as_os_str()) == name)?;
            environment::value(value.to_str()?)
        };
        let is_of_mesh = given(&matches, "sample").is_some()
            || variable(Some(OsStr::new("CALLER_SAMPLE"))).is_some();
        let mut arguments = Arguments {
            is_of_mesh,
            ..Arguments::default()
        };
        for arg in subcommand.get_arguments() {
            // A flag without a variable of its own, such as the target of `mesh`, has that of the loop.
            let of_loop = command
                .get_arguments()
                .find(|same| same.get_id() == arg.get_id());
            let name = arg.get_env().or_else(|| of_loop?.get_env());
            let values = match given(&matches, arg.get_id().as_str()) {
                Some(values) => values,
                None => {
                    let values = variable(name).map(|value| match arg.is_positional() {
                        true => value.split_whitespace().map(OsString::from).collect(),
                        false => vec![value.into()],
                    });
                    values.unwrap_or_default()
                }
            };
            for value in values {
                match arg.get_long() {
                    None => arguments.targets.push(value),
                    Some(long) => arguments.options.extend(option(arg, long, value)),
                }
            }
        }
        // As in process 1 itself, targets that are given as arguments disable those of the environment.
        let (urls, file) = (given(&matches, "url"), given(&matches, "targets"));
        match (urls.is_some(), file.is_some()) {
            (true, false) => {
                let is_file = |option: &OsString| option.as_bytes().starts_with(b"--targets=");
                arguments.options.retain(|option| !is_file(option));
            }
            (false, true) => arguments.targets.clear(),
            _ => {}
        }
        arguments.first_target = urls.into_iter().flatten().next().or_else(|| {
            let urls = variable(Some(OsStr::new("CALLER_URL")))?;
            Some(urls.split_whitespace().next()?.into())
        });
        Some(arguments)
    }
}

/// The values of a flag on the command line; `None` if it was not given, or the command has no such flag.
fn given(matches: &ArgMatches, id: &str) -> Option<Vec<OsString>> {
    if matches.try_contains_id(id).ok()?
        && matches.value_source(id) == Some(ValueSource::CommandLine)
    {
        let values = matches.get_raw(id)?;
        return Some(values.map(OsStr::to_owned).collect());
    }
    None
}

/// A flag as an argument, with its value; `None` for a switch that is off.
fn option(arg: &Arg, long: &str, value: OsString) -> Option<OsString> {
    let mut option = OsString::from(format!("--{long}"));
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let on = value.to_str().and_then(environment::switch);
        return (on == Some(true)).then_some(option);
    }
    option.push("=");
    option.push(value);
    Some(option)
}

/// Splits the content of a file of `/proc` at its zero bytes.
fn split(bytes: &[u8]) -> Vec<OsString> {
    let parts = bytes.split(|&byte| byte == 0);
    let parts = parts.filter(|part| !part.is_empty());
    parts
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Arguments, Process1};
    use crate::cli::Cli;

    fn process(args: &[&str], env: &[(&str, &str)]) -> Process1 {
        Process1 {
            args: args.iter().map(Into::into).collect(),
            env: env
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    fn arguments(args: &[&str], env: &[(&str, &str)], subcommand: &str) -> Option<Vec<String>> {
        let process = process(args, env);
        let command = Cli::command();
        let subcommand = command.find_subcommand(subcommand).expect("it is one");
        let Arguments {
            options, targets, ..
        } = process.arguments(&command, subcommand)?;
        let text = options
            .into_iter()
            .chain(targets)
            .map(|argument| argument.into_string());
        Some(text.collect::<Result<_, _>>().expect("text"))
    }

    #[test]
    fn only_options_that_the_subcommand_has_are_taken_over() {
        let args = [
            "/bin/caller",
            "--each-address",
            "--interval=1s",
            "--timeout",
            "3s",
            "--http2",
            "http://backend-headless:8080/",
        ];
        let expected = ["--timeout=3s", "--http2", "http://backend-headless:8080/"];
        assert_eq!(arguments(&args, &[], "diagnose").expect("a loop"), expected);
    }

    #[test]
    fn several_targets_and_a_file_of_them_are_taken_over() {
        let env = [
            ("CALLER_URL", "http://a:1/ tcp://b:2\n"),
            ("CALLER_TARGETS", "/etc/targets"),
        ];
        let given = |args: &[&str]| arguments(args, &env, "once").expect("a loop");
        let both = ["--targets=/etc/targets", "http://a:1/", "tcp://b:2"];
        assert_eq!(given(&["caller"]), both);
        let urls = ["https://c/", "http://d/"];
        assert_eq!(given(&["caller", urls[0], urls[1]]), urls);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "ok http://d/").expect("written");
        let option = format!("--targets={}", file.path().display());
        assert_eq!(given(&["caller", &option]), [option.as_str()]);
    }

    #[test]
    fn arguments_of_process_1_override_its_environment() {
        let env = [
            ("CALLER_URL", "http://env:8080/"),
            ("CALLER_TIMEOUT", "4s"),
            ("CALLER_INTERVAL", "1s"),
            // A newline at the end comes from a file of a ConfigMap or a Secret.
            ("CALLER_METHOD", "GET\n"),
            ("CALLER_HTTP2", "0\n"),
            ("CALLER_CONNECT_TIMEOUT", ""),
        ];
        let args = ["caller", "http://args:8080/"];
        let expected = ["--timeout=4s", "--method=GET", "http://args:8080/"];
        assert_eq!(arguments(&args, &env, "once").expect("a loop"), expected);
        let expected = ["--timeout=4s", "--method=GET", "http://env:8080/"];
        assert_eq!(
            arguments(&["caller"], &env, "once").expect("a loop"),
            expected
        );
    }

    #[test]
    fn a_mesh_is_taken_over_from_a_caller_with_sample() {
        let env = [
            ("CALLER_SAMPLE", "10"),
            ("CALLER_URL", "http://zone-a:1/ http://zone-b:1/"),
            ("CALLER_ROWS_PORT", "9082"),
            ("CALLER_FORMAT", "wide"),
        ];
        let expected = ["--rows-port=9082", "http://zone-a:1/", "http://zone-b:1/"];
        assert_eq!(
            arguments(&["caller"], &env, "mesh").expect("a loop"),
            expected
        );
        let is_of_mesh = |args: &[&str], sample| {
            let process = process(args, &[("CALLER_SAMPLE", sample)]);
            let command = Cli::command();
            let mesh = command.find_subcommand("mesh").expect("it is one");
            let arguments = process.arguments(&command, mesh);
            arguments.expect("a loop").is_of_mesh
        };
        assert!(is_of_mesh(&["caller"], "10"));
        assert!(is_of_mesh(&["caller", "--sample=10"], ""));
        assert!(!is_of_mesh(&["caller"], "\n"));
    }

    #[test]
    fn nothing_is_taken_over_from_a_caller_that_does_not_run_the_loop() {
        for args in [
            &["caller", "once", "http://a/"][..],
            &["caller", "--nosuch"],
        ] {
            assert_eq!(arguments(args, &[], "diagnose"), None);
        }
    }
}
