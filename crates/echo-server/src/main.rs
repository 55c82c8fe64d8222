//! The binary `echo-server`: see `echo-server --help`.
//!
//! Exit codes: 0 after a graceful shutdown; 1 if it cannot start, for example because a port is in use or too few
//! open files or threads are allowed; 2 for an unknown flag or a bad value; 127 without a text or with arguments left
//! over, as http-echo exits.

use std::panic;
use std::process::{self, ExitCode};

use anyhow::Context;
use echo_server::Config;
use echo_server::cli::{Args, NoConfig};

fn main() -> ExitCode {
    let args = Args::from_env();
    runtime::log::init(args.log_level());
    let code = match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<NoConfig>() {
            Some(no_config) => {
                runtime::log::fatal(no_config);
                ExitCode::from(127)
            }
            None => {
                runtime::log::fatal(format_args!("echo-server: {error:#}"));
                ExitCode::FAILURE
            }
        },
    };
    runtime::log::flush();
    code
}

fn run(args: Args) -> anyhow::Result<()> {
    let mut builder = match args.threads() {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let config = Config::try_from(args)?.within(runtime::descriptors::raise_limit())?;
    // Tokio panics where it cannot start a thread, for lack of memory or because there are too many. Whether that many
    // can be started is not known beforehand, as it is of the files that `runtime::descriptors::start_tokio` tries:
    // so a hook makes an error of it, and of too few files, too.
    panic::set_hook(Box::new(|panic| {
        let reason = panic.payload().downcast_ref::<String>();
        let reason = reason.map_or("no thread can be started", String::as_str);
        runtime::log::fatal(format_args!("echo-server: cannot start: {reason}"));
        process::exit(1)
    }));
    let tokio = builder.enable_all().build().context("cannot start")?;
    drop(panic::take_hook());
    tokio.block_on(async {
        let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
        echo_server::bind(config)?.run(shutdown).await?;
        Ok(())
    })
}
