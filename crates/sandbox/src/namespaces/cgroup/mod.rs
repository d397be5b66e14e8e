//! Limits on what a whole room may use: memory and processes.
//!
//! Control groups come as one tree (version 2) or as a tree per controller (version 1). A server makes a directory of its own
//! in each tree that it may write to, named after its process, and in it one directory per room:
//!
//! ```text
//!  <its own cgroup, or the top>/loopd-<pid>-<start time>-<number>/<room>
//! ```
//!
//! A room's directory goes when the room is gone; the directories of servers that are no more go when the next one starts.
//! Where no tree can be written to, rooms start without that limit, and [`Cgroups::why_not`] says so for `loopd doctor`.

mod tree;

use loopd_domain::environment::RoomLimits;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tree::{Tree, Version};

/// A room's cgroup is busy for a moment after its last process has ended.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Where this server's rooms are limited.
pub(super) struct Cgroups {
    trees: Vec<Tree>,
    /// Why no tree could be looked for at all.
    fault: Option<String>,
}

/// The cgroups of one room. [`RoomCgroup::remove`] waits until they are free; dropping them tries once.
#[derive(Debug, Default)]
pub(super) struct RoomCgroup {
    directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the trees, makes this server's directories, removes those of dead servers.
    pub(super) fn open() -> Self {
        match tree::open_all() {
            Ok(trees) => Cgroups { trees, fault: None },
            Err(fault) => Cgroups { trees: Vec::new(), fault: Some(format!("looking for cgroups: {fault}")) },
        }
    }

    /// Why rooms cannot be limited by a controller; `None` when they are.
    pub(super) fn why_not(&self, controller: &str) -> Option<String> {
        if self.limits(controller) {
            return None;
        }
        let refused = self.trees.iter().find_map(|tree| tree.why_not(controller));
        let absent = || "no cgroup tree with this controller is mounted".to_owned();
        Some(refused.or_else(|| self.fault.clone()).unwrap_or_else(absent))
    }

    /// `version 1, version 2`: of the trees in use.
    pub(super) fn versions(&self) -> String {
        let name = |tree: &Tree| match tree.version {
            Version::One => "version 1",
            Version::Two => "version 2",
        };
        let mut names: Vec<&str> = self.trees.iter().filter(|tree| tree.is_used()).map(name).collect();
        names.dedup();
        names.join(", ")
    }

    pub(super) fn limits(&self, controller: &str) -> bool {
        self.trees.iter().any(|tree| tree.controls(controller))
    }

    /// Makes a room's cgroups. Answers their `cgroup.procs` files, for the room's first process to write itself into.
    pub(super) fn room(&self, room: u64, limits: &RoomLimits) -> io::Result<(RoomCgroup, Vec<OwnedFd>)> {
        let mut made = RoomCgroup::default();
        let mut procs = Vec::new();
        for tree in self.trees.iter().filter(|tree| tree.is_used()) {
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
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for tree in self.trees.iter().filter(|tree| tree.is_used()) {
            // Rooms may still be ending; then the next server removes it.
            let _ = fs::remove_dir(&tree.directory);
        }
    }
}

impl RoomCgroup {
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
        }
    }
}

impl Drop for RoomCgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            // A room that never came to be leaves them empty. Else they go at the next start.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn make(tree: &Tree, directory: &Path, limits: &RoomLimits) -> io::Result<OwnedFd> {
    fs::create_dir(directory)?;
    for (file, value, must) in tree.settings(limits) {
        match fs::write(directory.join(file), value) {
            Ok(()) => {}
            // Not every kernel counts swap.
            Err(fault) if !must && fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    let procs = directory.join("cgroup.procs");
    Ok(rustix::fs::open(procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}
