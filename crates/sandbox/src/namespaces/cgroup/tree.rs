//! One cgroup tree: where it is mounted, where in it this server may make rooms, and what it can limit there.

use super::super::process;
use loopd_domain::environment::RoomLimits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In a single tree, the child cgroup that a server moves into so that its own can have children.
const LEAF: &str = "loopd-server";
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

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

/// A mounted tree, as `/proc/self/mountinfo` and `/proc/self/cgroup` describe it.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    version: Version,
    top: PathBuf,
    /// The cgroup that this process is in.
    own: PathBuf,
    controllers: Vec<&'static str>,
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

    /// File, value, and whether every kernel has it.
    pub(super) fn settings(&self, limits: &RoomLimits) -> Vec<(&'static str, String, bool)> {
        let memory = limits.memory_bytes.to_string();
        let mut settings = Vec::new();
        if self.controls("memory") {
            settings.extend(match self.version {
                Version::One => {
                    [("memory.limit_in_bytes", memory.clone(), true), ("memory.memsw.limit_in_bytes", memory, false)]
                }
                Version::Two => [("memory.max", memory, true), ("memory.swap.max", "0".to_owned(), false)],
            });
        }
        if self.controls("pids") {
            settings.push(("pids.max", limits.pids.to_string(), true));
        }
        settings
    }
}

/// Makes this server's directory, of this name, in every tree that has a controller of ours.
pub(super) fn open_all(name: &str) -> io::Result<Vec<Tree>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let memberships = fs::read_to_string("/proc/self/cgroup")?;
    let mut trees = Vec::new();
    for mounted in mounted(&mounts, &memberships) {
        let tree = open(&mounted, name);
        if tree.is_used() || !tree.refusals.is_empty() {
            trees.push(tree);
        }
    }
    Ok(trees)
}

fn open(mounted: &Mounted, name: &str) -> Tree {
    let mut tree = Tree {
        version: mounted.version,
        directory: mounted.own.join(name),
        controllers: Vec::new(),
        refusals: Vec::new(),
    };
    let mut why = String::new();
    for parent in candidates(mounted) {
        remove_leftovers(&parent);
        let made = match mounted.version {
            Version::One => fs::create_dir(parent.join(name)).map(|()| mounted.controllers.clone()),
            Version::Two => open_unified(&parent, name, &mounted.controllers),
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
    let refused = mounted.controllers.iter().filter(|name| !tree.controllers.contains(name));
    tree.refusals = refused.map(|name| (*name, why.clone())).collect();
    tree
}

/// Where a server may make its directory: in its own cgroup, so that limits on it hold for rooms too. In a single tree a
/// cgroup has processes or children, not both, so there root takes the top unless its own has been given over to it.
fn candidates(mounted: &Mounted) -> Vec<PathBuf> {
    let (own, top) = (mounted.own.clone(), mounted.top.clone());
    let mut all = match mounted.version {
        Version::Two if rustix::process::geteuid().is_root() && !is_delegated(&own) => vec![top, own],
        Version::Two => vec![own],
        Version::One => vec![own, top],
    };
    all.dedup();
    all
}

/// systemd marks what it gives over.
fn is_delegated(directory: &Path) -> bool {
    let mut value = [0u8; 1];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| matches!(rustix::fs::getxattr(directory, *name, &mut value[..]), Ok(1)) && value == *b"1")
}

/// Makes the directory in a single tree and hands the controllers down to it and to its rooms.
fn open_unified(parent: &Path, name: &str, wanted: &[&'static str]) -> io::Result<Vec<&'static str>> {
    let enabled = hand_down(parent, wanted).or_else(|_| {
        // Only a cgroup without processes can hand controllers down: this one moves into a child of its own.
        let leaf = parent.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
            _ => {}
        }
        fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
        hand_down(parent, wanted).inspect_err(|_| {
            // Not the only one in there: back to where it was. What cannot be undone is only a directory too many.
            let _ = fs::write(parent.join("cgroup.procs"), std::process::id().to_string());
            let _ = fs::remove_dir(&leaf);
        })
    })?;
    let directory = parent.join(name);
    fs::create_dir(&directory)?;
    hand_down(&directory, &enabled).inspect_err(|_| {
        let _ = fs::remove_dir(&directory);
    })
}

/// Enables what can be enabled for the children of a cgroup.
fn hand_down(cgroup: &Path, wanted: &[&'static str]) -> io::Result<Vec<&'static str>> {
    let file = cgroup.join("cgroup.subtree_control");
    let mut last = None;
    for name in wanted {
        if let Err(fault) = fs::write(&file, format!("+{name}")) {
            last = Some(fault);
        }
    }
    let enabled = fs::read_to_string(&file)?;
    let enabled: Vec<_> =
        wanted.iter().copied().filter(|name| enabled.split_ascii_whitespace().any(|have| have == *name)).collect();
    match (enabled.is_empty(), last) {
        (true, Some(fault)) => Err(fault),
        (true, None) => Err(io::Error::other("its controllers cannot be handed down")),
        _ => Ok(enabled),
    }
}

/// Removes the directories of servers that are no more, as far as they are empty: rooms can outlive their server.
pub(super) fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(server) = name.to_str().and_then(process::server_of) else { continue };
        if server.exists() {
            continue;
        }
        for room in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if room.path().is_dir() {
                // One with a living room in it cannot be removed.
                let _ = fs::remove_dir(room.path());
            }
        }
        let _ = fs::remove_dir(entry.path());
    }
}

/// Trees that have at least one controller of ours.
fn mounted(mounts: &str, memberships: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let (mount, kind): (Vec<&str>, Vec<&str>) = (mount.split(' ').collect(), kind.split(' ').collect());
        let ([_, _, _, root, top, ..], [kind, _, options, ..]) = (&mount[..], &kind[..]) else { continue };
        let version = match *kind {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => continue,
        };
        let controllers = match version {
            Version::One => known(options.split(',')),
            Version::Two => {
                let list = fs::read_to_string(Path::new(top).join("cgroup.controllers")).unwrap_or_default();
                known(list.split_ascii_whitespace())
            }
        };
        if controllers.is_empty() || found.iter().any(|tree| tree.controllers == controllers) {
            continue;
        }
        let own = membership(memberships, version, &controllers);
        let own = own.strip_prefix(root.trim_end_matches('/')).unwrap_or("").trim_start_matches('/');
        let (top, own) = (PathBuf::from(top), Path::new(top).join(own));
        // This process may have moved already, see `open_unified`.
        let own = if own.ends_with(LEAF) { own.parent().map_or(own.clone(), Path::to_owned) } else { own };
        // Joined with nothing, a path ends with a slash; and a container may not see its own cgroup by that name.
        let own = if own != top && own.is_dir() { own } else { top.clone() };
        found.push(Mounted { version, top, own, controllers });
    }
    found
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let names: Vec<&str> = names.collect();
    CONTROLLERS.into_iter().filter(|name| names.contains(name)).collect()
}

/// The path of this process's cgroup in a tree: the line `0::/path`, or `7:memory,pids:/path`.
fn membership<'a>(memberships: &'a str, version: Version, controllers: &[&str]) -> &'a str {
    let matches = |line: &'a str| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::Two => number == "0",
            Version::One => names.split(',').any(|name| controllers.contains(&name)),
        };
        ours.then_some(path)
    };
    memberships.lines().find_map(matches).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_trees_of_version_one() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /nowhere/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
                      33 30 0:29 /docker/x /nowhere/pids rw - cgroup cgroup rw,pids\n";
        let memberships = "8:pids:/docker/x\n4:memory:/user/abc\n0::/\n";
        let found = mounted(mounts, memberships);
        let tops: Vec<_> = found.iter().map(|tree| (tree.top.to_str().unwrap(), tree.controllers.clone())).collect();
        assert_eq!(tops, [("/nowhere/memory", vec!["memory"]), ("/nowhere/pids", vec!["pids"])]);
        assert_eq!(membership(memberships, Version::One, &["memory"]), "/user/abc");
        assert_eq!(membership(memberships, Version::Two, &[]), "/");
    }

    #[test]
    fn finds_the_single_tree_and_this_process_in_it() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        fs::create_dir_all(top.path().join("user/scope")).unwrap();
        let mounts = format!("29 25 0:25 / {} rw - cgroup2 cgroup2 rw,nsdelegate\n", top.path().display());
        let found = mounted(&mounts, "0::/user/scope\n");
        let own = top.path().join("user/scope");
        let top = top.path().to_owned();
        assert_eq!(found, [Mounted { version: Version::Two, top, own, controllers: vec!["memory", "pids"] }]);
    }
}
