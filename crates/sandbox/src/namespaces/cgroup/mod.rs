//! Limits on what a whole room may use: memory and processes.
//!
//! Control groups come as one tree (version 2) or as a tree per controller (version 1). A server makes a directory of its own
//! in each tree that it may write to, named after its process, and in it one directory per room:
//!
//! ```text
//!  <its own cgroup, or the top>/loopd-<pid>-<start time>-<number>/<room>
//! ```
//!
//! A room's directory goes when the room is gone. Rooms can outlive their server, so what is left of servers that are no more is
//! looked through when the next one starts, and from time to time ([`Cgroups::sweep`]).
//! Where no tree can be written to, rooms start without that limit, and [`Cgroups::why_not`] says so for `loopd doctor`.

mod tree;

use super::process;
use loopd_domain::environment::RoomLimits;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tree::{Tree, Version};

/// A room's cgroup is busy for a moment after its last process has ended.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Where this server's rooms are limited.
pub(super) struct Cgroups {
    trees: Arc<Trees>,
    /// Why no tree could be looked for at all.
    fault: Option<String>,
}

/// This server's directories. They go with the last of its rooms that this process has in sight.
#[derive(Debug, Default)]
struct Trees(Vec<Tree>);

/// The cgroups of one room. [`RoomCgroup::remove`] waits until they are free; dropping them tries once.
#[derive(Debug, Default)]
pub(super) struct RoomCgroup {
    directories: Vec<PathBuf>,
    /// `None` for a room of another server.
    _trees: Option<Arc<Trees>>,
}

impl Cgroups {
    /// Finds the trees, makes this server's directories, removes those of dead servers.
    pub(super) fn open(name: &str) -> Self {
        match tree::open_all(name) {
            Ok(trees) => Cgroups { trees: Arc::new(Trees(trees)), fault: None },
            Err(fault) => Cgroups { trees: Arc::default(), fault: Some(format!("looking for cgroups: {fault}")) },
        }
    }

    /// Removes the directories of dead servers whose rooms have ended.
    pub(super) fn sweep(&self) {
        for tree in self.trees.used() {
            if let Some(parent) = tree.directory.parent() {
                tree::remove_leftovers(parent);
            }
        }
    }

    /// Why rooms cannot be limited by a controller; `None` when they are.
    pub(super) fn why_not(&self, controller: &str) -> Option<String> {
        if self.limits(controller) {
            return None;
        }
        let refused = self.trees.0.iter().find_map(|tree| tree.why_not(controller));
        let absent = || "no cgroup tree with this controller is mounted".to_owned();
        Some(refused.or_else(|| self.fault.clone()).unwrap_or_else(absent))
    }

    /// `version 1, version 2`: of the trees in use.
    pub(super) fn versions(&self) -> String {
        let name = |tree: &Tree| match tree.version {
            Version::One => "version 1",
            Version::Two => "version 2",
        };
        let mut names: Vec<&str> = self.trees.used().map(name).collect();
        names.dedup();
        names.join(", ")
    }

    pub(super) fn limits(&self, controller: &str) -> bool {
        self.trees.0.iter().any(|tree| tree.controls(controller))
    }

    /// Makes a room's cgroups. Answers their `cgroup.procs` files, for the room's first process to write itself into.
    pub(super) fn room(&self, room: u64, limits: &RoomLimits) -> io::Result<(RoomCgroup, Vec<OwnedFd>)> {
        let mut made = RoomCgroup { directories: Vec::new(), _trees: Some(Arc::clone(&self.trees)) };
        let mut procs = Vec::new();
        for tree in self.trees.used() {
            let directory = tree.directory.join(room.to_string());
            let opened = make(tree, &directory, limits);
            made.directories.push(directory);
            match opened {
                Ok(file) => procs.push(file),
                Err(fault) => {
                    made.remove();
                    return Err(fault);
                }
            }
        }
        Ok((made, procs))
    }

    /// Gives a room that was made for other limits its own.
    pub(super) fn limit(&self, room: u64, limits: &RoomLimits) -> io::Result<()> {
        for tree in self.trees.used() {
            let directory = tree.directory.join(room.to_string());
            // Of two limits of which one may not be above the other, which goes first depends on which way they move.
            if set(tree, &directory, limits, false).is_err() {
                set(tree, &directory, limits, true)?;
            }
        }
        Ok(())
    }
}

impl Trees {
    fn used(&self) -> impl Iterator<Item = &Tree> {
        self.0.iter().filter(|tree| tree.is_used())
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        for tree in self.used() {
            // Rooms that were left to live are in there; then a later server removes it.
            let _ = fs::remove_dir(&tree.directory);
        }
    }
}

impl RoomCgroup {
    /// Those of a room that another server may have started.
    pub(super) fn recorded(directories: Vec<PathBuf>) -> Self {
        RoomCgroup { directories, _trees: None }
    }

    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Blocks until the kernel lets go of them, for half a second at most.
    pub(super) fn remove(mut self) {
        for directory in self.directories.drain(..) {
            for attempt in 1..=REMOVE_ATTEMPTS {
                match fs::remove_dir(&directory) {
                    Ok(()) => break,
                    Err(fault) if fault.kind() == io::ErrorKind::NotFound => break,
                    Err(fault) if attempt == REMOVE_ATTEMPTS => {
                        tracing::warn!(directory = %directory.display(), %fault, "a room's cgroup stays behind");
                    }
                    Err(_) => thread::sleep(REMOVE_PAUSE),
                }
            }
            // The last room of a server that is no more takes the server's directory with it.
            let server = directory.parent().filter(|parent| {
                let name = parent.file_name().and_then(|name| name.to_str());
                name.and_then(process::server_of).is_some_and(|server| !server.exists())
            });
            let _ = server.map(fs::remove_dir);
        }
    }
}

impl Drop for RoomCgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            // A room that never came to be leaves them empty. Else they go with a later sweep.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn make(tree: &Tree, directory: &Path, limits: &RoomLimits) -> io::Result<OwnedFd> {
    fs::create_dir(directory)?;
    set(tree, directory, limits, false)?;
    let procs = directory.join("cgroup.procs");
    Ok(rustix::fs::open(procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn set(tree: &Tree, directory: &Path, limits: &RoomLimits, backwards: bool) -> io::Result<()> {
    let mut settings = tree.settings(limits);
    if backwards {
        settings.reverse();
    }
    for (file, value, must) in settings {
        match fs::write(directory.join(file), value) {
            Ok(()) => {}
            // Not every kernel counts swap.
            Err(fault) if !must && fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}
