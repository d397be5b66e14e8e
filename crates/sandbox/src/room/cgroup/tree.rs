//! One cgroup tree: where in it this server makes rooms, and what it can limit there.

use super::files::{Files, Kernel};
use super::mounted::{self, Mounted};
use super::settings::{self, Setting};
use super::{leftovers, unified};
use loopd_domain::environment::RoomLimits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As version 2 calls them.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub version: Version,
    /// This server's directory in it.
    pub directory: PathBuf,
    controllers: Vec<&'static str>,
    /// Why a controller of this tree cannot be used.
    refusals: Vec<(&'static str, String)>,
}

impl Tree {
    pub(super) fn controls(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn is_used(&self) -> bool {
        !self.controllers.is_empty()
    }

    pub(super) fn why_not(&self, controller: &str) -> Option<String> {
        self.refusals.iter().find(|(name, _)| *name == controller).map(|(_, why)| why.clone())
    }

    /// A kernel may have a controller and not the part of it that limits.
    fn forgo_what_is_missing(&mut self, files: &dyn Files) {
        for setting in settings::of(self.version, &self.controllers, &RoomLimits::default(), Some("0:0")) {
            if let Err(fault) = setting.look(files, &self.directory) {
                self.controllers.retain(|controller| *controller != setting.controller);
                self.refusals.push((setting.controller, fault));
            }
        }
        if !self.is_used() {
            // Nothing is limited there; where it stays behind, the next server removes it.
            let _ = files.remove(&self.directory);
        }
    }

    /// All rooms together weigh as much as a program that is at work on each processor; they would else share the weight of a
    /// single thread. What cannot be set makes them slower under load, and no weaker.
    fn weigh(&self, files: &dyn Files, processors: usize) {
        let (file, one, most) = match self.version {
            Version::One => ("cpu.shares", 1_024, 262_144),
            Version::Two => ("cpu.weight", 100, 10_000),
        };
        if self.controls("cpu") {
            let weight = processors.saturating_mul(one).min(most);
            if let Err(fault) = files.write(&self.directory.join(file), &weight.to_string()) {
                tracing::debug!(directory = %self.directory.display(), %fault, "rooms weigh as little as one thread");
            }
        }
    }

    pub(super) fn settings(&self, limits: &RoomLimits, device: Option<&str>) -> Vec<Setting> {
        settings::of(self.version, &self.controllers, limits, device)
    }
}

/// Makes this server's directory, of this name, in every tree that has a controller of ours. `device`: as for a room.
pub(super) fn open_all(name: &str, device: Option<&str>) -> io::Result<Vec<Tree>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let memberships = fs::read_to_string("/proc/self/cgroup")?;
    let mut trees = Vec::new();
    for mut mounted in mounted::all(&mounts, &memberships) {
        // Without a device to limit there is nothing that this one could be told.
        mounted.controllers.retain(|controller| *controller != "io" || device.is_some());
        let tree = open(&Kernel, &mounted, name);
        if tree.is_used() || !tree.refusals.is_empty() {
            trees.push(tree);
        }
    }
    Ok(trees)
}

fn open(files: &dyn Files, mounted: &Mounted, name: &str) -> Tree {
    let mut tree = Tree {
        version: mounted.version,
        directory: mounted.own.join(name),
        controllers: Vec::new(),
        refusals: Vec::new(),
    };
    if mounted.controllers.is_empty() {
        return tree;
    }
    let mut why = String::new();
    for parent in candidates(mounted) {
        leftovers::remove_all(&parent);
        let made = match mounted.version {
            Version::One => files.make(&parent.join(name)).map(|()| mounted.controllers.clone()),
            Version::Two => unified::open(files, &parent, name, &mounted.controllers),
        };
        match made {
            Ok(controllers) => {
                tree.directory = parent.join(name);
                tree.controllers = controllers;
                break;
            }
            Err(fault) => why = format!("making a cgroup in `{}`: {fault}", parent.display()),
        }
    }
    if let (true, Some(parent)) = (tree.is_used(), tree.directory.parent()) {
        why = format!("`{}` was not handed it by the cgroup above, or cannot hand it down", parent.display());
    }
    let refused = mounted.controllers.iter().filter(|name| !tree.controllers.contains(name));
    tree.refusals = refused.map(|name| (*name, why.clone())).collect();
    tree.forgo_what_is_missing(files);
    tree.weigh(files, std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    tree
}

/// Where a server may make its directory: in its own cgroup, so that limits on it hold for rooms too. In a single tree a
/// cgroup has processes or children, not both, so there root takes the top unless its own has been given over to it.
fn candidates(mounted: &Mounted) -> Vec<PathBuf> {
    let (own, top) = (mounted.own.clone(), mounted.top.clone());
    let mut all = match (mounted.version, given_over(&own, &top)) {
        (Version::One, _) => vec![own, top],
        (Version::Two, Some(given)) => vec![given, own],
        (Version::Two, None) if rustix::process::geteuid().is_root() => vec![top, own],
        (Version::Two, None) => vec![own],
    };
    all.dedup();
    all
}

/// The nearest cgroup that has been given over: this process can be in a part of it (`DelegateSubgroup=`).
fn given_over(own: &Path, top: &Path) -> Option<PathBuf> {
    own.ancestors().take_while(|cgroup| cgroup.starts_with(top)).find(|cgroup| is_marked(cgroup)).map(Path::to_owned)
}

/// systemd marks what it gives over.
fn is_marked(cgroup: &Path) -> bool {
    let mut value = [0u8; 1];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| matches!(rustix::fs::getxattr(cgroup, *name, &mut value[..]), Ok(1)) && value == *b"1")
}

#[cfg(test)]
mod tests {
    use super::super::unified::tests::Fake;
    use super::*;
    #[test]
    fn a_part_that_this_kernel_lacks_is_given_up_and_named() {
        let kernel = Fake::new("", &["memory", "pids", "cpu", "io"]);
        let files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight"];
        kernel.state.borrow_mut().values = files.map(|file| (Path::new("/c/loopd-1").join(file), String::new())).into();
        let top = kernel.top.clone();
        let mounted = Mounted { version: Version::Two, own: top.clone(), top, controllers: CONTROLLERS.to_vec() };
        let tree = open(&kernel, &mounted, "loopd-1");
        assert_eq!(tree.controllers, ["memory", "pids", "cpu"]);
        assert!(tree.why_not("io").unwrap().contains("io.max"), "{tree:?}");
        assert_eq!(tree.why_not("cpu"), None);
        for (processors, weight) in [(1, "100"), (8, "800"), (4_096, "10000")] {
            tree.weigh(&kernel, processors);
            assert_eq!(kernel.read(Path::new("/c/loopd-1/cpu.weight")).unwrap(), weight);
        }
    }
}
