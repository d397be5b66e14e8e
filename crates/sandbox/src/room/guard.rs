//! The hold on a room: kills it, but never one that a later owner has.

use super::place::{PATIENCE, PAUSE, Place, Taken};
use super::process::{self, Process};
use crate::RoomGuard;
use loopd_domain::Epoch;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Kills by descriptor, which can never mean another process.
pub(crate) struct Guard {
    hold: Hold,
    left: bool,
}

#[derive(Clone)]
struct Hold {
    place: PathBuf,
    epoch: Epoch,
    process: Process,
    pidfd: Arc<OwnedFd>,
}

impl Guard {
    /// `place`: where the room is recorded. `epoch`: of the owner who holds it.
    pub(crate) fn new(place: PathBuf, epoch: Epoch, process: Process, pidfd: Arc<OwnedFd>) -> Self {
        Guard { hold: Hold { place, epoch, process, pidfd }, left: false }
    }

    /// For one who kills when there is a reason, and not by going.
    pub(crate) fn at_hand(&self) -> Self {
        Guard { hold: self.hold.clone(), left: true }
    }
}

impl RoomGuard for Guard {
    fn kill(&self) {
        // Somebody has the lock for a moment, perhaps to kill it too; and this must not wait.
        if !self.hold.settle() {
            let hold = self.hold.clone();
            if let Err(fault) = thread::Builder::new().spawn(move || hold.insist()) {
                tracing::error!(place = %self.hold.place.display(), %fault, "a room is not killed: no thread to wait for its lock");
            }
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(self.hold.process.pid)
    }

    fn leave(mut self: Box<Self>) {
        self.left = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.left {
            self.kill();
        }
    }
}

impl Hold {
    /// `true` when nothing is left to do; `false` when somebody holds the lock.
    fn settle(&self) -> bool {
        self.try_kill().unwrap_or_else(|fault| {
            // It may be a later owner's by now. Without a host it ends by itself, and the next start ends it.
            tracing::error!(place = %self.place.display(), %fault, "a room is not killed: whose it is cannot be read");
            true
        })
    }

    fn try_kill(&self) -> io::Result<bool> {
        if process::has_ended(&self.pidfd)? {
            return Ok(true);
        }
        match Place::take(&self.place)? {
            Taken::Busy => return Ok(false),
            // Nobody else can have it.
            Taken::Absent => process::kill(&self.pidfd),
            Taken::Held(place) => {
                let record = place.record()?;
                let lost = record.is_some_and(|had| had.process == self.process && had.epoch > self.epoch);
                if !lost {
                    // Still under the lock: nobody adopts it in between.
                    process::kill(&self.pidfd);
                }
            }
        }
        Ok(true)
    }

    fn insist(&self) {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if self.settle() {
                return;
            }
            thread::sleep(PAUSE);
        }
        tracing::error!(place = %self.place.display(), "a room is not killed: another process holds its lock");
    }
}
