//! Rooms made of namespaces: one machine, one kernel, a wall of everything Linux has.
//!
//! What the walls are stands in `loopd_jail`, which builds them; what a session keeps in [`directory`]; whose ids it has in
//! [`ids`]; what a room may use in [`cgroup`]. This file puts a room together from them:
//!
//! ```text
//!  start ─► directory and ids ─► cgroups ─► launcher ─► Room { channel, exit, guard }
//! ```
//!
//! Not here: what the cell says on the channel, and when a session needs a room.

mod cgroup;
mod copy;
mod directory;
mod ids;
mod launcher;
mod probe;
mod removal;
mod socket;

use crate::files::{FileSink, FileWriter, FilesRead};
use crate::{Check, Room, RoomGuard, RoomSpec, Sandbox, SandboxError, programs};
use async_trait::async_trait;
use cgroup::{Cgroups, RoomCgroup};
use ids::Ids;
use launcher::{Launcher, NewRoom, Started};
use loopd_jail::wire::Start;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

/// The launcher knows nothing of frames; it must only put the channel where the cell looks for it.
const _: () = assert!(loopd_jail::CHANNEL == loopd_protocol::CHANNEL_FD);

const KIND: &str = "namespaces";

/// Builds rooms out of namespaces. As root every session has host ids of its own and its cell is out of reach of its tools'
/// user; as an ordinary user all rooms have the server's user, and the cell protects itself.
pub struct NamespaceSandbox {
    rooms: Arc<Rooms>,
}

struct Rooms {
    /// Absolute, without symbolic links.
    data: PathBuf,
    /// As the caller names it.
    named: PathBuf,
    /// `None` for an ordinary user, who has but one id to give.
    ids: Option<Ids>,
    cgroups: Cgroups,
    launcher: Launcher,
    next: AtomicU64,
}

impl NamespaceSandbox {
    /// `data`: the directory below which all sessions' directories lie; made when it is not there.
    pub fn new(data: &Path) -> Result<Self, SandboxError> {
        Self::with_cell(data, programs::CELL)
    }

    /// With another program in the cell's place: a test's, or another one that speaks `loopd_protocol`.
    pub fn with_cell(data: &Path, cell: &[u8]) -> Result<Self, SandboxError> {
        let fault = |source| SandboxError::Directory { path: data.to_owned(), source };
        let named = std::path::absolute(data).map_err(fault)?;
        let data = open_data(data).map_err(fault)?;
        let rooms = Rooms {
            ids: rustix::process::geteuid().is_root().then(|| Ids::in_directory(&data)),
            cgroups: Cgroups::open(),
            launcher: Launcher::new(cell, data.clone())?,
            next: AtomicU64::new(1),
            data,
            named,
        };
        let rooms = Arc::new(rooms);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The first room finds the launcher ready. If it cannot be started, that room is told so.
            let early = Arc::clone(&rooms);
            runtime.spawn(async move { early.launcher.wake().await.map(drop) });
        }
        Ok(NamespaceSandbox { rooms })
    }
}

/// The data directory as an absolute path without symbolic links.
fn open_data(data: &Path) -> io::Result<PathBuf> {
    if !data.exists() {
        fs::create_dir_all(data)?;
        fs::set_permissions(data, Permissions::from_mode(0o700))?;
    }
    fs::canonicalize(data)
}

#[async_trait]
impl Sandbox for NamespaceSandbox {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError> {
        let orders = self.rooms.launcher.wake().await?;
        let (rooms, wanted) = (Arc::clone(&self.rooms), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || rooms.prepare(&wanted)).await;
        let prepared = prepared.map_err(|fault| SandboxError::Launcher(format!("preparing a room: {fault}")))??;
        let (sender, exit) = watch::channel(None);
        let (started, waiting) = oneshot::channel();
        let Prepared { start, channel, descriptors, cgroup } = prepared;
        let gone = || SandboxError::Launcher("it ended while a room was being started; try again".to_owned());
        if let Err(unsent) = orders.send(NewRoom { start, descriptors, cgroup, exit: sender, started }).await {
            unsent.0.cgroup.remove();
            return Err(gone());
        }
        let Started { pid, pidfd } = waiting.await.map_err(|_| gone())??;
        Ok(Room { channel, exit, guard: Box::new(Guard { pid, pidfd }) })
    }

    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError> {
        // Refuses what could never have been a room's.
        let directory = self.rooms.locate(spec)?;
        let removing = directory.clone();
        let fault = |source: io::Error| SandboxError::Directory { path: directory.clone(), source };
        let removed = tokio::task::spawn_blocking(move || removal::remove(&removing)).await;
        removed.map_err(|stopped| fault(io::Error::other(stopped)))?.map_err(|errno| fault(errno.into()))
    }

    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        copy::read(&self.rooms.locate(spec)?, sink)
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        copy::write(&self.rooms.locate(spec)?, self.rooms.ids.as_ref())
    }

    async fn probe(&self) -> Vec<Check> {
        probe::run(self).await
    }
}

/// A room, ready to be ordered from the launcher.
struct Prepared {
    start: Start,
    channel: UnixStream,
    descriptors: Vec<OwnedFd>,
    cgroup: RoomCgroup,
}

impl Rooms {
    /// A number that no other room of this server has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The session's directory: below the data directory, and named as the launcher will find it.
    fn locate(&self, spec: &RoomSpec) -> Result<PathBuf, SandboxError> {
        let path = std::path::absolute(&spec.directory)
            .map_err(|source| SandboxError::Directory { path: spec.directory.clone(), source })?;
        let path = match path.strip_prefix(&self.named) {
            Ok(rest) => self.data.join(rest),
            Err(_) => path,
        };
        directory::relative(&self.data, &path)?;
        Ok(path)
    }

    /// All that is slow or may fail before the launcher is asked. Blocks.
    fn prepare(&self, spec: &RoomSpec) -> Result<Prepared, SandboxError> {
        let path = self.locate(spec)?;
        let fault = |source: io::Error| SandboxError::Directory { path: path.clone(), source };
        let ids = directory::prepare(&path, self.ids.as_ref()).map_err(fault)?;
        let room = self.number();
        let (channel, cells) =
            channel().map_err(|source| SandboxError::Launcher(format!("making a channel: {source}")))?;
        let (cgroup, procs) = self
            .cgroups
            .room(room, &spec.limits)
            .map_err(|source| SandboxError::Launcher(format!("making the room's cgroup: {source}")))?;
        let start = Start {
            room,
            directory: directory::relative(&self.data, &path)?,
            ids,
            open_files: spec.limits.open_files,
            file_bytes: spec.limits.file_bytes,
            // A file in memory counts as memory: full before the room is killed for it.
            tmp_bytes: spec.limits.memory_bytes / 2,
            processes: (!self.cgroups.limits("pids")).then_some(spec.limits.pids),
        };
        let descriptors = std::iter::once(cells).chain(procs).collect();
        Ok(Prepared { start, channel, descriptors, cgroup })
    }
}

fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (here, there) = std::os::unix::net::UnixStream::pair()?;
    here.set_nonblocking(true)?;
    Ok((UnixStream::from_std(here)?, there.into()))
}

/// Kills by descriptor, which can never mean another process.
struct Guard {
    pid: u32,
    pidfd: OwnedFd,
}

impl RoomGuard for Guard {
    fn kill(&self) {
        launcher::kill(&self.pidfd);
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}
