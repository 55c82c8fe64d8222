//! Files of targets, with one target on each line:
//!
//! ```text
//! # expectation   target                      options
//! ok              http://backend:8080/        name=backend
//! ok              tcp://db.data:5432
//! blocked         http://payments.prod:8080/  control=http://payments.prod:8081/readyz
//! dns_nxdomain    http://old-name/
//! ```
//!
//! Fields are separated by white space. A `#` at the beginning of a field starts a comment.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::Path;

use crate::expectation::{Expectation, ParseExpectationError};
use crate::target::{ParseTargetError, Scheme, Target};

/// Most targets of one caller. The limit bounds memory and the number of values of the metric label `target`.
pub(crate) const MAX_TARGETS: usize = 100;

/// Longest name of a target, in bytes.
const MAX_NAME: usize = 100;

/// Largest file that is read, in bytes; 100 targets are far shorter.
const MAX_FILE: u64 = 1024 * 1024;

/// A target, and the expected result of its calls.
#[derive(Clone, Debug)]
pub struct Check {
    /// The target to call.
    pub target: Target,
    /// The expected result of a call.
    pub expectation: Expectation,
    /// A target that has to succeed in the same round, to prove that a policy and not a dead backend blocks
    /// the call. `None` unless the expectation is `blocked`.
    pub control: Option<Target>,
}

impl Check {
    /// Whether the target or its control needs TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        let called = [Some(&self.target), self.control.as_ref()];
        let mut called = called.into_iter().flatten();
        called.any(|target| target.scheme == Scheme::Https)
    }
}

/// Why a file of targets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetsError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file is larger than the limit.
    #[error("is longer than {MAX_FILE} bytes")]
    TooLarge,
    /// The file has no target on any line.
    #[error("has no target")]
    Empty,
    /// A line is not valid.
    #[error("line {number}: {source}")]
    Line {
        /// The number of the line, from 1.
        number: usize,
        /// Why the line is not valid.
        source: LineError,
    },
}

/// Why a line of a file of targets is not valid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The first field is not an expectation.
    #[error("{text:?} is not an expectation: {source}")]
    Expectation {
        /// The invalid field, without credentials.
        text: String,
        /// The error, which lists the expectations.
        source: ParseExpectationError,
    },
    /// The line has only an expectation.
    #[error("a target is missing: EXPECTATION TARGET [name=NAME] [control=TARGET]")]
    NoTarget,
    /// The second field, or the control, is not a target.
    #[error(transparent)]
    Target(#[from] ParseTargetError),
    /// A field after the second is not an option.
    #[error("{0:?} is not an option; options are name=NAME and control=TARGET")]
    Option(String),
    /// An option is given twice.
    #[error("{0}= is given twice")]
    Repeated(&'static str),
    /// The name is empty or too long.
    #[error("a name must have 1 to {MAX_NAME} bytes")]
    Name,
    /// A control is given with another expectation than `blocked`.
    #[error("control= is only for the expectation blocked")]
    Control,
    /// Another line has the same target.
    #[error("{label} is the target of line {first} as well; name=NAME tells them apart")]
    Duplicate {
        /// The name or the URL of the target.
        label: String,
        /// The number of the other line.
        first: usize,
    },
    /// There are too many targets.
    #[error("a file has at most {MAX_TARGETS} targets")]
    TooMany,
}

/// Why several targets cannot be called by one caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TogetherError {
    /// There are too many targets.
    #[error("{0} targets are too many: at most {MAX_TARGETS}")]
    TooMany(usize),
    /// Two have the same name or the same URL.
    #[error("{0} is given twice; in a file of targets, name=NAME tells two apart")]
    Duplicate(String),
}

/// Checks all targets of one caller, from the command line and from a file, together.
///
/// # Errors
///
/// When there are too many targets, or two have the same label.
pub(crate) fn check_all(checks: &[Check]) -> Result<(), TogetherError> {
    if checks.len() > MAX_TARGETS {
        return Err(TogetherError::TooMany(checks.len()));
    }
    let mut labels = HashSet::new();
    match checks
        .iter()
        .find(|check| !labels.insert(check.target.label()))
    {
        Some(check) => Err(TogetherError::Duplicate(check.target.label().to_owned())),
        None => Ok(()),
    }
}

/// Reads a file of targets.
///
/// # Errors
///
/// When the file cannot be read, has no target, or has a line that is not valid; the error names the line.
pub(crate) fn read(path: &Path) -> Result<Vec<Check>, TargetsError> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(TargetsError::TooLarge),
        false => parse(&text),
    }
}

fn parse(text: &str) -> Result<Vec<Check>, TargetsError> {
    let mut checks: Vec<Check> = Vec::new();
    let mut lines_of = HashMap::new();
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let at_line = |source| TargetsError::Line { number, source };
        // An error about a URL with a password could quote a part of the password.
        let parsed = parse_line(line).map_err(|error| match (error, line.contains('@')) {
            (LineError::Target(_), true) => ParseTargetError::Credentials.into(),
            (error, _) => error,
        });
        let Some(check) = parsed.map_err(at_line)? else {
            continue;
        };
        let label = check.target.label().to_owned();
        if let Some(first) = lines_of.insert(label.clone(), number) {
            return Err(at_line(LineError::Duplicate { label, first }));
        }
        if checks.len() == MAX_TARGETS {
            return Err(at_line(LineError::TooMany));
        }
        checks.push(check);
    }
    match checks.is_empty() {
        true => Err(TargetsError::Empty),
        false => Ok(checks),
    }
}

/// Parses a line; `None` if it is blank or a comment.
fn parse_line(line: &str) -> Result<Option<Check>, LineError> {
    let mut fields = line
        .split_whitespace()
        .take_while(|field| !field.starts_with('#'));
    let Some(text) = fields.next() else {
        return Ok(None);
    };
    let expectation = text.parse().map_err(|source| {
        let text = without_credentials(text);
        LineError::Expectation { text, source }
    })?;
    let target = fields.next().ok_or(LineError::NoTarget)?;
    let mut target: Target = target.parse()?;
    let mut control = None;
    for field in fields {
        match field.split_once('=') {
            Some(("name", _)) if target.name().is_some() => {
                return Err(LineError::Repeated("name"));
            }
            Some(("name", name)) if !(1..=MAX_NAME).contains(&name.len()) => {
                return Err(LineError::Name);
            }
            Some(("name", name)) => target = target.with_name(name.to_owned()),
            Some(("control", _)) if control.is_some() => {
                return Err(LineError::Repeated("control"));
            }
            Some(("control", _)) if expectation != Expectation::Blocked => {
                return Err(LineError::Control);
            }
            Some(("control", url)) => control = Some(url.parse()?),
            _ => return Err(LineError::Option(without_credentials(field))),
        }
    }
    Ok(Some(Check {
        target,
        expectation,
        control,
    }))
}

/// The field without the part before an `@`, which may be a password, so that an error can quote it.
fn without_credentials(field: &str) -> String {
    match field.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Check, parse};
    use crate::expectation::Expectation;
    use crate::failure::FailureKind;

    #[test]
    fn fields_options_and_comments_are_parsed() {
        let text = "\u{feff}# a comment\r\n\r\n  ok\thttp://a:8080/x#y name=first # no field\r\n\
                    blocked tcp://b:1 control=tcp://b:2 #name=x\n\
                    dns_nxdomain old";
        let checks = parse(text).expect("a list of targets");
        let told = |check: &Check| {
            let Check {
                target,
                expectation,
                control,
            } = check;
            let control = control.as_ref().map(|control| control.to_string());
            (
                target.label().to_owned(),
                target.to_string(),
                *expectation,
                control,
            )
        };
        let told: Vec<_> = checks.iter().map(told).collect();
        let nxdomain = Expectation::Kind(FailureKind::DnsNxdomain);
        let control = Some("tcp://b:2".to_owned());
        assert_eq!(
            told,
            [
                (
                    "first".into(),
                    "http://a:8080/x".into(),
                    Expectation::Ok,
                    None
                ),
                (
                    "tcp://b:1".into(),
                    "tcp://b:1".into(),
                    Expectation::Blocked,
                    control
                ),
                (
                    "http://old:80/".into(),
                    "http://old:80/".into(),
                    nxdomain,
                    None
                ),
            ]
        );
    }

    #[test]
    fn an_error_names_the_line_and_what_is_wrong_with_it() {
        let many: String = (1..=101)
            .map(|port| format!("ok tcp://a:{port}\n"))
            .collect();
        for (text, named) in [
            ("", "has no target"),
            ("# ok http://a/\n\n", "has no target"),
            (
                "ok http://a/\nmaybe http://b/",
                "line 2: \"maybe\" is not an expectation: expected ok, blocked or one of",
            ),
            ("http://a/", "line 1: \"http://a/\" is not an expectation"),
            ("unproven http://a/", "line 1: \"unproven\""),
            ("\nok", "line 2: a target is missing"),
            (
                "ok ftp://a/",
                "line 1: ftp:// is not supported, only http://, https:// and tcp://",
            ),
            ("ok tcp://a", "line 1: a port is missing"),
            ("ok http://a:0/", "line 1: not a URL: \"0\" is not a port"),
            ("ok http://a/ nme=x", "line 1: \"nme=x\" is not an option"),
            (
                "ok http://a/ name=",
                "line 1: a name must have 1 to 100 bytes",
            ),
            ("ok http://a/ name=x name=y", "line 1: name= is given twice"),
            (
                "ok http://a/ control=http://b/",
                "line 1: control= is only for the expectation blocked",
            ),
            (
                "blocked http://a/ control=b control=c",
                "line 1: control= is given twice",
            ),
            (
                "blocked http://a/ control=ftp://b",
                "line 1: ftp:// is not supported",
            ),
            (
                "ok http://a\nok tcp://b:1\nblocked http://A:80/",
                "line 3: http://a:80/ is the target of line 1 as well",
            ),
            (
                "ok http://a name=x\nok http://b name=x",
                "line 2: x is the target of line 1",
            ),
            (&many, "line 101: a file has at most 100 targets"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(named), "{text}: {error}");
        }
        assert!(parse("ok http://a\nok http://a name=again").is_ok());
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        for text in [
            "http://u:s3cret@a/",
            "ok b http://u:s3cret@a/",
            "ok http://u:s3cret@a:x/",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("ok http://a/ {text}"));
        }
    }
}
