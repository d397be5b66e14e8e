//! The program inside a room: it runs the loop of one session and the tools that act in the room.
//!
//! It is the first process of the room, has one thread and talks to nobody but its host. Policy,
//! journal, models and secrets are the host's: the cell sees facts and says what it wants. Hosts come and go; the cell lives on.
//!
//! ```text
//!  hosts ══ one at a time ══► room (event loop) ──► agent-loop
//!                        │    ▲
//!                        ▼    └── results
//!                      tools ─► bash | workers (other user, own session each)
//!  network ── somebody looks outside ──► stub (a process of the cell's user) ══► the host's egress proxy
//! ```

mod channel;
mod clock;
mod hosts;
mod limits;
mod network;
mod output;
mod pipe;
mod processes;
mod room;
mod sys;
mod tool_user;
mod tools;
mod variables;

use channel::ChannelError;
use hosts::Hosts;
use loopd_protocol::{CHANNEL_FD, ORPHAN_SECONDS};
use network::{Network, NetworkError};
use room::{Room, RoomError};
use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
use std::process::ExitCode;
use std::time::Duration;
use tool_user::{ToolUser, ToolUserError};

#[derive(Debug, thiserror::Error)]
enum CellError {
    #[error("file descriptor {CHANNEL_FD}, where the socket for hosts should be: {0}")]
    NoSocket(std::io::Error),
    #[error("`{ORPHAN_SECONDS}` is `{0}`; accepted: a number of seconds from 1")]
    Patience(String),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    ToolUser(#[from] ToolUserError),
    #[error("the process could not be set up: {0}")]
    Setup(#[from] std::io::Error),
    #[error(transparent)]
    Room(#[from] RoomError),
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(fault) = network::stub_of(&arguments) {
        eprintln!("loopd-network: {fault}");
        return ExitCode::FAILURE;
    }
    let ended = run();
    processes::kill_everything();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("loopd-cell: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), CellError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(std::io::Error::from)?;
    let listener = sys::inherited(CHANNEL_FD).map_err(CellError::NoSocket)?;
    let hosts = Hosts::new(listener, patience()?, clock::now())?;
    let mut variables: Vec<_> = std::env::vars_os().collect();
    let network = Network::from_environment(&variables)?;
    if network.is_some() {
        variables.extend(network::variables::of_tools());
    }
    let user = ToolUser::from_environment(variables)?;
    // PID 1 is given the orphans of its room anyway; elsewhere they must be asked for.
    set_child_subreaper(Some(getpid())).map_err(std::io::Error::from)?;
    let children = sys::watch_children()?;
    Ok(Room::new(hosts, children, user, network).run()?)
}

/// How long to wait for a host.
fn patience() -> Result<Duration, CellError> {
    let Some(setting) = std::env::var_os(ORPHAN_SECONDS) else { return Ok(limits::PATIENCE_DEFAULT) };
    let setting = setting.to_string_lossy().into_owned();
    match setting.parse() {
        Ok(seconds @ 1..=u32::MAX) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(CellError::Patience(setting)),
    }
}
