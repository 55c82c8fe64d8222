//! The `echo-server` binary with hundreds and thousands of connections open at once, for which this process raises
//! its own limit on open files; so these tests are a binary of their own.

mod overload;
mod probes;

use std::io::Write;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The binary that is tested.
const ECHO_SERVER: &str = env!("CARGO_BIN_EXE_echo-server");

/// The limit on open files that this process raises its own to, where it may: a little over what the test with the
/// most connections needs. One number for all tests, since they run at the same time.
const OPEN_FILES: u64 = 20_000;

/// Raises the limit of this process, and of those that it starts, to `wanted` open files at least (at most
/// [`OPEN_FILES`]). Where that is not permitted, prints a line that the test is skipped, and returns `false`.
fn allow_files(wanted: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    if !allowed {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI allows {wanted} open files"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped a test: {wanted} open files are not allowed"
        );
        return false;
    }
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(
            limit
                .maximum
                .map_or(OPEN_FILES, |most| most.min(OPEN_FILES)),
        );
        setrlimit(Resource::Nofile, limit).expect("it is below the maximum");
    }
    true
}
