//! What the tests share. A test fails by panicking, so these functions panic rather than return
//! errors, and nothing waits for ever.

pub mod bed;
pub mod browser;
pub mod documents;
pub mod http;
pub mod netns;
pub mod pki;
pub mod process;
mod tool;

use std::thread;
use std::time::{Duration, Instant};

pub use tool::{Tool, tool};

/// How long a test waits for what must happen. Far longer than it takes, so that a busy machine
/// never fails a test; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks again and again whether something is so, for what nothing tells of by itself.
///
/// # Panics
///
/// When it is not so within `patience`.
pub fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(LOOK_AGAIN);
    }
}
