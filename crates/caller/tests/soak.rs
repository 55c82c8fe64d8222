//! `caller` at its highest rate for minutes, with its memory sampled. This is for releases and not for every change, so
//! it runs only when it is asked for by name:
//!
//! ```text
//! cargo test --release -p caller --test caller_soak -- --nocapture
//! ```
//!
//! `SOAK_SECONDS` sets the duration in seconds (120).

use std::thread;
use std::time::Duration;

use test_support::bed::Bed;
use test_support::process::Process;

/// Growth of memory, in KiB, that allocators and the kernel may cause after the warm-up.
const SLACK: u64 = 512;

#[test]
fn memory_does_not_grow_under_full_load() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(120, |text| text.parse().expect("a number"));
    let bed = Bed::start(&["backend-1", "backend-2"]);
    let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
    let duration = format!("--duration={}s", seconds + 1);
    let caller = Process::spawn(command.args(["--interval=0s", &duration]));
    let mut samples = Vec::new();
    for _ in 0..seconds {
        thread::sleep(Duration::from_secs(1));
        samples.push(caller.memory());
    }
    let output = caller.finish();
    assert_eq!(output.code, Some(0));
    let warm = samples[samples.len() / 4];
    let most = samples.iter().copied().max().expect("samples");
    let (_, summary) = output.stdout.rsplit_once("\n--- ").expect("a summary");
    println!("{warm} KiB when warm, {most} KiB at most\n{summary}");
    assert!(most <= warm + SLACK, "{samples:?}");
}
