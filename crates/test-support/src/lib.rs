//! What the tests share. A test fails by panicking, so these functions panic rather than return
//! errors, and nothing waits for ever.

pub mod bed;
pub mod http;
pub mod process;
mod tool;

use std::time::Duration;

pub use tool::{Tool, tool};

/// How long a test waits for what must happen. Far longer than it takes, so that a busy machine
/// never fails a test; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(30);
