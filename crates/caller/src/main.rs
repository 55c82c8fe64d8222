//! caller: see `caller --help`, and [`caller::program`] for the exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    caller::program::main(std::env::args_os())
}
