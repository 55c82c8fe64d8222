use std::io::Write;
use std::path::{Path, PathBuf};

/// The path of a program that is not part of this workspace.
pub type Tool = PathBuf;

/// Finds a program that a test needs, on the `PATH`. Where it is missing, prints a line that the test is skipped, and
/// returns `None`: the test has to return.
///
/// # Panics
///
/// If it is missing on CI (where the variable `CI` is set), which has to have every tool.
pub fn tool(name: &str) -> Option<Tool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        // Debian installs daemons there, and these folders are not on the PATH of every user.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| Path::new(&dir).join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        assert!(std::env::var_os("CI").is_none(), "CI has no {name}");
        // Not with `eprintln!`, whose output the test harness hides.
        let _ = writeln!(std::io::stderr(), "skipped {test}: there is no {name}");
    }
    found
}
