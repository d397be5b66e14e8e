//! How rooms end: by somebody who wants them gone, and seen by somebody who only watches.

use super::cgroup::RoomCgroup;
use super::process::{self, Process};
use super::record::Record;
use crate::{RoomExit, SandboxError};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a killed room may take to go.
pub(crate) const END_WAIT: Duration = Duration::from_secs(10);

/// A hold on the recorded room, if it lives. `boot`: of the machine, now.
pub(crate) fn living(record: &Record, boot: &str) -> io::Result<Option<OwnedFd>> {
    if record.boot != boot { Ok(None) } else { record.process.open() }
}

/// Ends the recorded room, if it lives, and waits until it is gone: two rooms must never share a directory.
pub(crate) async fn end(record: &Record, boot: &str) -> Result<(), SandboxError> {
    let lost = |fault: io::Error| SandboxError::Launcher(format!("ending a room: {fault}"));
    if record.process == Process::UNKNOWN && record.boot == boot {
        // A server died while it was starting it.
        let cgroups = record.cgroups.clone();
        let killed = tokio::task::spawn_blocking(move || RoomCgroup::kill(&cgroups)).await;
        killed.map_err(io::Error::other).flatten().map_err(lost)?;
    }
    let Some(pidfd) = living(record, boot).map_err(lost)? else { return Ok(()) };
    process::kill(&pidfd);
    let ended = tokio::time::timeout(END_WAIT, process::ended(&pidfd)).await;
    ended.map_err(|_| lost(io::Error::other(format!("it was killed and lives after {END_WAIT:?}"))))?.map_err(lost)?;
    let cgroup = RoomCgroup::recorded(record.cgroups.clone());
    tokio::task::spawn_blocking(move || cgroup.remove());
    Ok(())
}

/// Tells the end of a room that is no child's, and clears up after it.
pub(crate) async fn watch(pidfd: Arc<OwnedFd>, sender: watch::Sender<Option<RoomExit>>, cgroup: RoomCgroup) {
    let exit = match process::ended(&pidfd).await {
        Ok(()) => process::exit(&pidfd),
        Err(fault) => RoomExit::Failed(format!("the room is out of sight: {fault}")),
    };
    sender.send_replace(Some(exit));
    tokio::task::spawn_blocking(move || cgroup.remove());
}
