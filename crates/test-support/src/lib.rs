//! What the tests of this workspace share:
//!
//! - [`process`]: a real process whose output and exit code can be waited for; start here.
//! - [`http`]: HTTP/1 requests byte by byte, and the value of a metric.
//! - [`bed`]: a test bed, which is a cluster in this process, with DNS, a Service and backends.
//! - [`netns`]: network namespaces, in which packets can be dropped, rejected and counted.
//! - [`pki`]: certificates, and OpenSSL's server; and ports that stay free.
//! - [`browser`]: Chromium without a window.
//! - [`tool`]: programs that are not part of this workspace. Where one is missing, the test is skipped.
//!
//! A test fails by a panic, so these functions panic instead of returning errors, and none of them waits for ever.

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

/// Timeout for what has to happen in a test: 30 seconds, which is far longer than anything takes, so that no test
/// fails because the machine is busy.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until a condition holds, by checking it every 50 ms. `what` names it in the message of the panic.
///
/// # Panics
///
/// If it does not hold within `timeout`.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(POLL_INTERVAL);
    }
}
