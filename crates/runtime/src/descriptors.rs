//! The limit on open files. Each connection takes a file descriptor, so it limits connections too.

use rustix::process::{Resource, getrlimit, setrlimit};

/// File descriptors that a process needs besides those of its connections: the standard streams, Tokio's own, two
/// ports with a connection that is just being accepted, and some to spare.
pub const RESERVED: usize = 16;

/// Raises the soft limit on open files to the hard limit, as Go programs do, and returns the limit that then
/// holds. Soft limits are low for the sake of `select(2)`, which is not used here.
pub fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let current = std::mem::replace(&mut limit.current, limit.maximum);
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = current;
        }
    }
    let current = limit
        .current
        .and_then(|current| usize::try_from(current).ok());
    current.unwrap_or(usize::MAX)
}
