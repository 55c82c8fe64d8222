use std::io::Write;
use std::path::{Path, PathBuf};

/// A program that is not ours, found on the PATH.
pub type Tool = PathBuf;

/// Looks for a program that a test needs. `None`: the test is to be skipped, and a line has been
/// printed that says so.
///
/// # Panics
///
/// On CI (where the variable `CI` is set), which has to have every tool.
pub fn tool(name: &str) -> Option<Tool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        // Where daemons are, on Debian; not on every user's PATH.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| Path::new(&dir).join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        assert!(std::env::var_os("CI").is_none(), "CI has no {name}");
        // Past the test harness's capture, which would hide it.
        let _ = writeln!(std::io::stderr(), "skipped {test}: there is no {name}");
    }
    found
}
