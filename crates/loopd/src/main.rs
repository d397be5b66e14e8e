//! `loopd`: the server, and the command line that is a client of it.

mod args;
mod client;
mod commands;
mod compose;
mod config;
mod connect;
mod data;
mod exit;
#[cfg(feature = "failpoints")]
mod failpoints;
mod listen;
mod log;
mod machine;
mod master_key;
mod running;
mod screen;
mod settings;
mod signals;
mod way_out;

use anyhow::Result;
use args::{Cli, Command};
use clap::Parser;
use exit::Exit;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "failpoints")]
    failpoints::arm();
    match run(&cli) {
        Ok(exit) => exit.into(),
        // Whoever read our output has had enough: `loopd sessions list | head -1`.
        Err(fault) if is_closed_pipe(&fault) => Exit::Success.into(),
        Err(fault) => {
            eprintln!("loopd: {fault:#}");
            Exit::Failure.into()
        }
    }
}

fn run(cli: &Cli) -> Result<Exit> {
    let log_default = if matches!(cli.command, Command::Serve(_)) { "info" } else { "error" };
    let env = settings::process_env;
    log::start(log_default, env("LOOPD_LOG").as_deref(), env("LOOPD_LOG_FORMAT").as_deref())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(dispatch(cli))
}

async fn dispatch(cli: &Cli) -> Result<Exit> {
    let place = &cli.place;
    match &cli.command {
        Command::Invoke(args) => commands::invoke::run(place, args).await,
        Command::Serve(args) => commands::serve::run(place, args).await,
        Command::Sessions(command) => commands::sessions::run(place, command).await,
        Command::Trace(args) => commands::trace::run(place, args).await,
        Command::Verify(args) => commands::verify::run(place, args).await,
        Command::Replay(args) => commands::replay::run(place, args).await,
        Command::Redact(args) => commands::redact::run(place, args).await,
        Command::Images(command) => commands::images::run(place, command).await,
        Command::Image(command) => commands::image::run(place, command).await,
        Command::Keys(command) => commands::keys::run(place, command).await,
        Command::Workspaces(command) => commands::keys::workspaces(place, command).await,
        Command::Audit(args) => commands::audit::run(place, args).await,
        Command::Doctor(args) => commands::doctor::run(place, args).await,
        Command::Version => {
            writeln!(std::io::stdout(), "loopd {}", env!("CARGO_PKG_VERSION"))?;
            Ok(Exit::Success)
        }
    }
}

fn is_closed_pipe(fault: &anyhow::Error) -> bool {
    fault.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}
