//! The limit on open files. Each connection takes a file descriptor, so it limits connections too.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

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

/// Starts Tokio on the current thread, as `#[tokio::main]` does, but returns an error if too few files may be open.
pub fn start_tokio() -> io::Result<Runtime> {
    // Tokio opens six, and panics if two of them, by which it hears of signals, cannot be opened.
    let six = [
        UnixStream::pair()?,
        UnixStream::pair()?,
        UnixStream::pair()?,
    ];
    drop(six);
    Builder::new_current_thread().enable_all().build()
}
