//! Environment variables that set flags, as Kubernetes passes them: the value from a Secret or ConfigMap that was
//! made from a file ends with a newline, and an optional key that is missing leaves the variable empty.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Parses a command line whose flags can be set by environment variables. One newline at the end of a variable is
/// ignored, and so is a variable that is empty or blank.
///
/// Where the command line asks for help or the version, or has an error, prints that and exits the process. The
/// error names the variable that a bad value is from, and never shows a password.
pub fn matches(command: Command, args: &[OsString]) -> ArgMatches {
    let mut command = with_variables(command);
    command.build();
    let error = match command.clone().try_get_matches_from(args) {
        Ok(matches) => return matches,
        Err(error) => error,
    };
    if !error.use_stderr() {
        // Help or the version.
        error.exit();
    }
    let mut text = error.render().to_string();
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(name) = not_utf8(&command, args)
    {
        text = format!("error: invalid value for {name}: it is not UTF-8");
    }
    let named = variable_of(&error, &command, args);
    if let Some((flag, variable)) = &named {
        let named = format!("'{flag}', from the variable {variable}");
        text = text.replacen(&format!("'{flag}'"), &named, 1);
    }
    // The bad value may hold a password, and the error quotes it.
    if let Some(ContextValue::String(bad)) = error.get(ContextKind::InvalidValue)
        && let Some((before, host)) = bad.rsplit_once('@')
    {
        let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
        text = text.replace(bad.as_str(), &format!("{scheme}://...@{host}"));
    }
    // A value with white space is split, and a part does not show whether it belongs to a password.
    let split = named.and_then(|(flag, variable)| {
        let value = std::env::var(&variable).ok()?;
        let is_split = value.trim().contains(char::is_whitespace);
        (is_split && value.contains('@')).then_some((flag, variable))
    });
    if let Some((flag, variable)) = split {
        text = format!(
            "error: invalid value for '{flag}', from the variable {variable}: what stands before an @ has to be \
             percent-encoded, white space too"
        );
    }
    crate::log::fatal(text.trim_end());
    std::process::exit(error.exit_code())
}

/// Sets each flag to the value of its variable. Help never shows these values: they may be credentials.
fn with_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let arg = arg.hide_env_values(true);
            let variable = arg.get_env().and_then(std::env::var_os);
            let Some(text) = variable.as_deref().and_then(OsStr::to_str) else {
                return arg;
            };
            let switched = match arg.get_action() {
                ArgAction::SetTrue => value(text).and_then(switch),
                _ => None,
            };
            match (value(text), switched) {
                (Some(_), Some(true)) => arg.env(None::<&str>).default_value("true"),
                (Some(_), Some(false)) | (None, _) => arg.env(None::<&str>),
                (Some(value), None) if is_list(&arg) => {
                    let values = value.split_whitespace();
                    let values = values.map(|value| &*value.to_owned().leak());
                    let values: Vec<&'static str> = values.collect();
                    arg.env(None::<&str>)
                        .default_values(values)
                        .hide_default_value(true)
                }
                (Some(same), None) if same == text => arg,
                // clap reads variables itself, and as they are; so this one becomes the default.
                (Some(value), None) => {
                    let value: &'static str = value.to_owned().leak();
                    arg.env(None::<&str>)
                        .default_value(value)
                        .hide_default_value(true)
                }
            }
        })
        .mut_subcommands(with_variables)
}

/// Whether the variable of an argument can hold several values, separated by white space: the argument takes
/// several, and has no delimiter of its own.
fn is_list(arg: &Arg) -> bool {
    arg.is_positional()
        && matches!(arg.get_action(), ArgAction::Append)
        && arg.get_value_delimiter().is_none()
}

/// Whether a variable switches on a flag that takes no value; `None` if its value says neither.
pub fn switch(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// The value of a variable, without one newline at its end; `None` if it is blank, which counts as not set.
pub fn value(text: &str) -> Option<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.trim().is_empty()).then_some(text)
}

/// The flag whose value is bad, and the variable that the value is from; `None` if it is from the command line.
fn variable_of(
    error: &clap::Error,
    command: &Command,
    args: &[OsString],
) -> Option<(String, String)> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let Some(ContextValue::String(bad)) = error.get(ContextKind::InvalidValue) else {
        return None;
    };
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let is_named = |arg: &&Arg| arg.to_string() == *flag;
    let mut named = commands.flat_map(Command::get_arguments).filter(is_named);
    let variable = named.find_map(|arg| {
        // One that was taken as a default has lost its name; it is the argument's, in capitals.
        let prefix = command.get_name().split('-').next()?;
        let by_name = format!("{prefix}_{}", arg.get_id()).to_uppercase();
        let name = arg.get_env().map_or(by_name.into(), OsStr::to_owned);
        let value = std::env::var(&name).ok()?;
        value.trim().contains(bad.trim()).then_some(name)
    })?;
    // `--timeout <DURATION>`, or `[URL]`.
    let long = flag.split(' ').next().filter(|long| long.starts_with("--"));
    let is_given = args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        match long {
            Some(long) => arg.split('=').next() == Some(long),
            None => arg == bad.as_str(),
        }
    });
    (!is_given).then(|| (flag.clone(), variable.to_string_lossy().into_owned()))
}

/// The argument or the variable whose value is not UTF-8, which clap does not name.
fn not_utf8(command: &Command, args: &[OsString]) -> Option<String> {
    let at = args.iter().position(|arg| arg.to_str().is_none());
    if let Some(at) = at {
        let lossy = |at: usize| args[at].to_string_lossy().into_owned();
        let (arg, before) = (lossy(at), at.checked_sub(1).map(lossy));
        let flag = arg.split_once('=').map(|(flag, _)| flag.to_owned());
        let named = flag.or(before.filter(|before| before.starts_with('-')));
        return Some(format!("'{}'", named.unwrap_or(arg)));
    }
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let is_text = |arg: &&Arg| {
        let parsed = arg.get_value_parser().type_id();
        parsed != TypeId::of::<PathBuf>() && parsed != TypeId::of::<OsString>()
    };
    let mut variables = commands
        .flat_map(Command::get_arguments)
        .filter(is_text)
        .filter_map(Arg::get_env);
    let is_bad =
        |name: &&OsStr| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
    let name = variables.find(is_bad)?;
    Some(format!("the variable {}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn one_newline_at_the_end_is_removed_and_a_blank_value_is_not_set() {
        assert_eq!(value("10s\n"), Some("10s"));
        assert_eq!(value("10s\r\n"), Some("10s"));
        assert_eq!(value("a\nb\n\n"), Some("a\nb\n"));
        assert_eq!(value(" a "), Some(" a "));
        for empty in ["", "\n", " ", " \n"] {
            assert_eq!(value(empty), None);
        }
    }
}
