//! A room whose end this process waits for: told by its launcher, or seen by a hold on its first process.

use super::cgroup::RoomCgroup;
use super::process;
use crate::{RoomExit, SandboxError};
use loopd_jail::wire::End;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A room's first process: its number, and a hold on it.
pub(super) type First = (u32, Arc<OwnedFd>);

/// A room that the launcher has not told the end of.
pub(super) struct Living {
    pub exit: watch::Sender<Option<RoomExit>>,
    pub cgroup: RoomCgroup,
    /// Known when its first process exists.
    pub pidfd: Option<Arc<OwnedFd>>,
    pub parking: Option<oneshot::Sender<Result<First, SandboxError>>>,
}

pub(super) fn unavailable(reason: &str) -> SandboxError {
    SandboxError::Unavailable { kind: super::KIND, reason: reason.to_owned() }
}

impl Living {
    pub(super) fn end(mut self, end: End) {
        if let (Some(parking), End::Failed(fault)) = (self.parking.take(), &end) {
            // Nobody waits any more: then nobody needs to know.
            let _ = parking.send(Err(SandboxError::Launcher(fault.to_string())));
        }
        self.gone(match end {
            End::Code(code) => RoomExit::Code(code),
            End::Signal(signal) => RoomExit::Signal(signal),
            End::Failed(fault) => RoomExit::Failed(fault.to_string()),
        });
    }

    pub(super) fn outlive(mut self, reason: &str) {
        let Some(pidfd) = self.pidfd.take() else {
            if let Some(parking) = self.parking.take() {
                // As above.
                let _ = parking.send(Err(unavailable(reason)));
            }
            return self.gone(RoomExit::Failed(format!("the launcher is gone: {reason}")));
        };
        tokio::spawn(watch(pidfd, self.exit, self.cgroup));
    }

    fn gone(self, exit: RoomExit) {
        self.exit.send_replace(Some(exit));
        tokio::task::spawn_blocking(move || self.cgroup.remove());
    }
}

/// Tells the end of a room of which no launcher will, and clears up after it.
pub(super) async fn watch(pidfd: Arc<OwnedFd>, sender: watch::Sender<Option<RoomExit>>, cgroup: RoomCgroup) {
    let exit = match process::ended(&pidfd).await {
        Ok(()) => process::exit(&pidfd),
        Err(fault) => RoomExit::Failed(format!("the room is out of sight: {fault}")),
    };
    sender.send_replace(Some(exit));
    tokio::task::spawn_blocking(move || cgroup.remove());
}
