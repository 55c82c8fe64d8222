//! File descriptors: one for each connection, so that their limit is one on connections.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What a process needs besides its connections: standard streams, Tokio's own, two ports with a
/// connection that is just being accepted, and some to spare.
pub const OWN: usize = 16;

/// Raises the soft limit on open files to the hard one, as Go's programs do, and gives it. Soft limits
/// are low for the sake of `select`, which nobody uses here.
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
