//! The commands of the program: a file for the loop (`run`), and one for each subcommand.

pub(crate) mod diagnose;
pub mod mesh;
pub(crate) mod once;
pub(crate) mod resolve;
pub mod run;
mod ticker;
mod wait;

use std::io::Write;

use anyhow::Context;

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(text.as_bytes())
        .context("cannot write to stdout")
}
