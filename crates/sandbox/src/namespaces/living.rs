//! A room whose end this process waits for: told by its launcher, or seen by a hold on its first process.

use crate::room::cgroup::RoomCgroup;
use crate::room::ending::watch;
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

/// Why a launcher takes no more orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// It cannot make rooms here, and neither could another one.
    Unable(String),
    /// It died, or was let go of.
    Gone(String),
}

impl Over {
    pub(super) fn error(&self) -> SandboxError {
        match self {
            Over::Unable(reason) => SandboxError::Unavailable { kind: super::KIND.as_str(), reason: reason.clone() },
            Over::Gone(reason) => SandboxError::Launcher(reason.clone()),
        }
    }
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

    pub(super) fn outlive(mut self, over: &Over) {
        let Some(pidfd) = self.pidfd.take() else {
            if let Some(parking) = self.parking.take() {
                // As above.
                let _ = parking.send(Err(over.error()));
            }
            return self.gone(RoomExit::Failed(over.error().to_string()));
        };
        tokio::spawn(watch(pidfd, self.exit, self.cgroup));
    }

    fn gone(self, exit: RoomExit) {
        self.exit.send_replace(Some(exit));
        tokio::task::spawn_blocking(move || self.cgroup.remove());
    }
}
