//! The program inside a room: it runs the loop of one session and the tools that act in the room.
//!
//! It is the first process of the room, has one thread, opens nothing of its own and talks to nobody but the host. Policy,
//! journal, models and secrets are the host's: the cell sees facts and says what it wants.
//!
//! ```text
//!  host ══ channel ══► room (event loop) ──► agent-loop
//!                        │    ▲
//!                        ▼    └── results
//!                      tools ─► bash | workers (other user, own session each)
//! ```

mod channel;
mod clock;
mod limits;
mod output;
mod pipe;
mod processes;
mod room;
mod sys;
mod tool_user;
mod tools;

use channel::{Channel, ChannelError};
use loopd_protocol::CHANNEL_FD;
use room::{Room, RoomError};
use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
use std::process::ExitCode;
use tool_user::{ToolUser, ToolUserError};

#[derive(Debug, thiserror::Error)]
enum CellError {
    #[error("file descriptor {CHANNEL_FD}, where the host's channel should be: {0}")]
    NoChannel(std::io::Error),
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
    let channel = Channel::new(sys::inherited(CHANNEL_FD).map_err(CellError::NoChannel)?)?;
    let user = ToolUser::from_environment(std::env::vars_os().collect())?;
    // PID 1 is given the orphans of its room anyway; elsewhere they must be asked for.
    set_child_subreaper(Some(getpid())).map_err(std::io::Error::from)?;
    let children = sys::watch_children()?;
    Ok(Room::new(channel, children, user).run()?)
}
