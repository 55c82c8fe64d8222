//! `echo-server` under full load for minutes, with its memory sampled. This is for releases and not for every change,
//! so it runs only when it is asked for by name:
//!
//! ```text
//! cargo test --release -p echo-server --test echo_soak -- --nocapture
//! ```
//!
//! `SOAK_SECONDS` sets the duration in seconds (120).

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use test_support::http::{Connection, get};
use test_support::process::echo_server;

/// Number of connections that are kept, besides one that is new for each request.
const KEPT: usize = 16;

/// Growth of memory, in KiB, that allocators and the kernel may cause after the warm-up.
const SLACK: u64 = 512;

#[test]
fn memory_does_not_grow_under_full_load() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(120, |text| text.parse().expect("a number"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    let (server, addr) = echo_server(command.args(["-text=x", "-admin-listen=off"]));
    let (stop, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples = Vec::new();
    thread::scope(|scope| {
        for kept in 0..=KEPT {
            let (stop, requests) = (&stop, &requests);
            scope.spawn(move || {
                let mut connection = Connection::open(addr);
                while !stop.load(Relaxed) {
                    let status = if kept == 0 {
                        get(addr, "/").status()
                    } else {
                        connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
                        connection.reply().status()
                    };
                    assert_eq!(status, 200);
                    requests.fetch_add(1, Relaxed);
                }
            });
        }
        for _ in 0..seconds {
            thread::sleep(Duration::from_secs(1));
            samples.push(server.memory());
        }
        stop.store(true, Relaxed);
    });
    let warm = samples[samples.len() / 4];
    let most = samples.iter().copied().max().expect("samples");
    println!(
        "{} requests, {warm} KiB when warm, {most} KiB at most",
        requests.load(Relaxed)
    );
    assert!(most <= warm + SLACK, "{samples:?}");
}
