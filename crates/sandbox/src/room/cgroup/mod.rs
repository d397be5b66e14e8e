//! Limits on what a whole room may use: memory, processes, processor time, and traffic with the disk.
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

mod device;
mod files;
mod leftovers;
mod meter;
mod mounted;
mod settings;
mod tree;
mod unified;

use super::process;
use files::{Files, Kernel};
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

pub(crate) use meter::Counters;

/// A room's cgroup is busy for a moment after its last process has ended.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Where this server's rooms are limited.
pub(crate) struct Cgroups {
    trees: Arc<Trees>,
    /// Why no tree could be looked for at all.
    fault: Option<String>,
    /// The disk that sessions lie on, or why none can be limited.
    device: Result<String, String>,
}

/// This server's directories. They go with the last of its rooms that this process has in sight.
#[derive(Debug, Default)]
struct Trees(Vec<Tree>);

/// The cgroups of one room. [`RoomCgroup::remove`] waits until they are free; dropping them tries once.
#[derive(Debug, Default)]
pub(crate) struct RoomCgroup {
    directories: Vec<PathBuf>,
    /// `None` for a room of another server.
    _trees: Option<Arc<Trees>>,
}

impl Cgroups {
    /// Finds the trees, makes this server's directories, removes those of dead servers.
    /// `data`: where sessions lie.
    pub(crate) fn open(name: &str, data: &Path) -> Self {
        let device = device::of(data);
        match tree::open_all(name, device.as_deref().ok()) {
            Ok(trees) => Cgroups { trees: Arc::new(Trees(trees)), fault: None, device },
            Err(fault) => {
                Cgroups { trees: Arc::default(), fault: Some(format!("looking for cgroups: {fault}")), device }
            }
        }
    }

    /// Removes the directories of dead servers whose rooms have ended.
    pub(crate) fn sweep(&self) {
        for tree in self.trees.used() {
            if let Some(parent) = tree.directory.parent() {
                leftovers::remove_all(parent);
            }
        }
    }

    /// Why rooms cannot be limited by a controller; `None` when they are.
    pub(crate) fn why_not(&self, controller: &str) -> Option<String> {
        if self.limits(controller) {
            return None;
        }
        if let ("io", Err(why)) = (controller, &self.device) {
            return Some(why.clone());
        }
        let refused = self.trees.0.iter().find_map(|tree| tree.why_not(controller));
        let absent = || "no cgroup tree with this controller is mounted".to_owned();
        Some(refused.or_else(|| self.fault.clone()).unwrap_or_else(absent))
    }

    /// `version 1` or `version 2`: of the tree that limits this.
    pub(crate) fn version(&self, controller: &str) -> &'static str {
        match self.trees.used().find(|tree| tree.controls(controller)).map(|tree| tree.version) {
            Some(Version::One) => "version 1",
            Some(Version::Two) => "version 2",
            None => "none",
        }
    }

    /// Has a room's cgroups made and looks whether the kernel holds what it was told of a controller.
    pub(crate) fn try_out(&self, room: u64, controller: &str, limits: &RoomLimits) -> Result<(), String> {
        let (made, _procs) = self.room(room, limits).map_err(|fault| fault.to_string())?;
        let result = self.trees.used().filter(|tree| tree.controls(controller)).try_for_each(|tree| {
            let settings = tree.settings(limits, self.device.as_deref().ok());
            let mut settings = settings.iter().filter(|setting| setting.controller == controller);
            settings.try_for_each(|setting| setting.check(&Kernel, &tree.directory.join(room.to_string())))
        });
        made.remove();
        result
    }

    pub(crate) fn limits(&self, controller: &str) -> bool {
        self.trees.0.iter().any(|tree| tree.controls(controller))
    }

    /// Makes a room's cgroups. Answers their `cgroup.procs` files, for the room's first process to write itself into.
    pub(crate) fn room(&self, room: u64, limits: &RoomLimits) -> io::Result<(RoomCgroup, Vec<OwnedFd>)> {
        let mut made = RoomCgroup { directories: Vec::new(), _trees: Some(Arc::clone(&self.trees)) };
        let mut procs = Vec::new();
        for tree in self.trees.used() {
            let directory = tree.directory.join(room.to_string());
            let opened = self.make(tree, &directory, limits);
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
    pub(crate) fn limit(&self, room: u64, limits: &RoomLimits) -> io::Result<()> {
        self.trees.used().try_for_each(|tree| self.set(tree, &tree.directory.join(room.to_string()), limits))
    }

    fn make(&self, tree: &Tree, directory: &Path, limits: &RoomLimits) -> io::Result<OwnedFd> {
        fs::create_dir(directory)?;
        self.set(tree, directory, limits)?;
        let procs = directory.join("cgroup.procs");
        Ok(rustix::fs::open(procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn set(&self, tree: &Tree, directory: &Path, limits: &RoomLimits) -> io::Result<()> {
        settings::apply(&Kernel, directory, &tree.settings(limits, self.device.as_deref().ok()))
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
    pub(crate) fn recorded(directories: Vec<PathBuf>) -> Self {
        RoomCgroup { directories, _trees: None }
    }

    /// Kills what is in cgroups of which nobody knows the first process. Where there are none, there is nothing to be found.
    pub(crate) fn kill(directories: &[PathBuf]) -> io::Result<()> {
        for directory in directories {
            // At once, so that nothing in there can outrun it; version 1 and kernels before 5.14 have no such file. What it did is
            // looked at below.
            let _ = Kernel.write(&directory.join("cgroup.kill"), "1");
        }
        for _ in 0..REMOVE_ATTEMPTS {
            let mut is_empty = true;
            for directory in directories {
                let listed = match fs::read_to_string(directory.join("cgroup.procs")) {
                    Err(absent) if absent.kind() == io::ErrorKind::NotFound => continue,
                    other => other?,
                };
                let found = listed.lines().filter_map(|line| process::Process::with(line.parse().ok()?));
                for process in found {
                    is_empty = false;
                    process.open()?.iter().for_each(process::kill);
                }
            }
            if is_empty {
                return Ok(());
            }
            thread::sleep(REMOVE_PAUSE);
        }
        Err(io::Error::other("processes of a room were killed and live"))
    }

    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Blocks until the kernel lets go of them, for half a second at most.
    pub(crate) fn remove(mut self) {
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
            // The last room of a server that is no more takes the server's directory with it, and those of rooms that were
            // still ending when they were looked for.
            let server = directory.parent().filter(|parent| {
                let name = parent.file_name().and_then(|name| name.to_str());
                name.and_then(process::server_of).is_some_and(|server| !server.exists())
            });
            server.into_iter().for_each(leftovers::remove_server);
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
