//! The `caller` binary against servers that these tests start: most often a cluster in this process
//! (`test_support::bed`), or else one that misbehaves on purpose.
//!
//! These tests are one binary, because every binary has to be linked with all crates. They run at the same time, as
//! threads of one process, so none of them may change what belongs to the process: the environment, the current
//! directory, limits. A test that has to is a binary of its own beside this one.

mod all_nodes;
mod commands;
mod curl;
mod dns;
mod faults;
mod log;
mod mesh;
mod metrics;
mod names;
mod path;
mod process1;
mod run;
mod targets;
mod until_replaced;
mod wait;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

/// The binary that is tested.
const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// Starts a server that sends `response`, which need not be HTTP, to each request, and closes the connection.
fn server(response: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let response = response.into();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            // The client may have closed the connection.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&response);
        }
    });
    addr
}
