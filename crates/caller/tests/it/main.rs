//! The `caller` binary against servers that these tests start: most often a cluster in this process
//! (`test_support::bed`), else one that misbehaves on purpose.
//!
//! All of it is one test binary, because a binary is another link of everything that the tests stand on. The tests
//! run at the same time, as threads of one process, so none of them may change what belongs to the process: the
//! environment, the current directory, limits. A test that has to is a binary of its own beside this one.

mod commands;
mod curl;
mod dns;
mod faults;
mod log;
mod metrics;
mod names;
mod path;
mod process1;
mod run;
mod targets;
mod until_replaced;
mod wait;

/// The binary that is tested.
const CALLER: &str = env!("CARGO_BIN_EXE_caller");
