//! One cgroup tree: where it is mounted, where in it this server may make rooms, and what it can limit there.

use super::super::process;
use super::files::{Files, Kernel};
use super::settings::{self, Setting};
use loopd_domain::environment::RoomLimits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In a single tree, the child cgroup that a server moves into so that its own can have children.
const LEAF: &str = "loopd-server";
/// As version 2 calls them.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];
/// What version 1 calls differently.
const FORMER: [(&str, &str); 1] = [("blkio", "io")];

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
    for mut mounted in mounted(&mounts, &memberships) {
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
        remove_leftovers(&parent);
        let made = match mounted.version {
            Version::One => files.make(&parent.join(name)).map(|()| mounted.controllers.clone()),
            Version::Two => open_unified(files, &parent, name, &mounted.controllers),
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
    if tree.is_used() {
        why = format!("`{}` cannot hand it down", tree.directory.display());
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
fn open_unified(
    files: &dyn Files,
    parent: &Path,
    name: &str,
    wanted: &[&'static str],
) -> io::Result<Vec<&'static str>> {
    let enabled = hand_down(files, parent, wanted).or_else(|_| {
        // Only a cgroup without processes can hand controllers down: this one moves into a child of its own.
        let leaf = parent.join(LEAF);
        match files.make(&leaf) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
            _ => {}
        }
        files.write(&leaf.join("cgroup.procs"), &std::process::id().to_string())?;
        hand_down(files, parent, wanted).inspect_err(|_| {
            // Not the only one in there: back to where it was. What cannot be undone is only a directory too many.
            let _ = files.write(&parent.join("cgroup.procs"), &std::process::id().to_string());
            let _ = files.remove(&leaf);
        })
    })?;
    let directory = parent.join(name);
    files.make(&directory)?;
    hand_down(files, &directory, &enabled).inspect_err(|_| {
        let _ = files.remove(&directory);
    })
}

/// Enables what can be enabled for the children of a cgroup.
fn hand_down(files: &dyn Files, cgroup: &Path, wanted: &[&'static str]) -> io::Result<Vec<&'static str>> {
    let file = cgroup.join("cgroup.subtree_control");
    let mut last = None;
    // One by one: a line of which one word is refused is refused whole.
    for name in wanted {
        if let Err(fault) = files.write(&file, &format!("+{name}")) {
            last = Some(fault);
        }
    }
    let enabled = files.read(&file)?;
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
        remove_server(&entry.path());
    }
}

/// Removes the directory of a server that is no more, as far as it is empty.
pub(super) fn remove_server(directory: &Path) {
    for room in fs::read_dir(directory).into_iter().flatten().flatten() {
        if room.path().is_dir() {
            // One with a living room in it cannot be removed.
            let _ = fs::remove_dir(room.path());
        }
    }
    let _ = fs::remove_dir(directory);
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
    let names: Vec<&str> = names.map(present).collect();
    CONTROLLERS.into_iter().filter(|name| names.contains(name)).collect()
}

/// A controller's name in version 2.
fn present(name: &str) -> &str {
    FORMER.iter().find(|(former, _)| *former == name).map_or(name, |(_, now)| now)
}

/// The path of this process's cgroup in a tree: the line `0::/path`, or `7:memory,pids:/path`.
fn membership<'a>(memberships: &'a str, version: Version, controllers: &[&str]) -> &'a str {
    let matches = |line: &'a str| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::Two => number == "0",
            Version::One => names.split(',').any(|name| controllers.contains(&present(name))),
        };
        ours.then_some(path)
    };
    memberships.lines().find_map(matches).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    #[test]
    fn finds_the_trees_of_version_one() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
                      32 30 0:28 / /nowhere/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
                      33 30 0:29 /docker/x /nowhere/pids rw - cgroup cgroup rw,pids\n\
                      34 30 0:30 / /nowhere/both rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 30 0:31 / /nowhere/blkio rw - cgroup cgroup rw,blkio\n";
        let memberships = "8:pids:/docker/x\n7:blkio:/b\n4:memory:/user/abc\n3:cpu,cpuacct:/c\n0::/\n";
        let found = mounted(mounts, memberships);
        let tops: Vec<_> = found.iter().map(|tree| (tree.top.to_str().unwrap(), tree.controllers.clone())).collect();
        let expected = ["memory", "pids", "cpu", "io"].map(|name| vec![name]);
        let expected: Vec<_> = ["memory", "pids", "both", "blkio"]
            .map(|name| format!("/nowhere/{name}"))
            .into_iter()
            .zip(expected)
            .collect();
        assert_eq!(tops, expected.iter().map(|(top, names)| (top.as_str(), names.clone())).collect::<Vec<_>>());
        assert_eq!(membership(memberships, Version::One, &["io"]), "/b");
        assert_eq!(membership(memberships, Version::One, &["cpu"]), "/c");
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
        assert_eq!(
            found,
            [Mounted { version: Version::Two, top, own, controllers: vec!["memory", "pids", "cpu", "io"] }]
        );
    }

    /// Plays a kernel with a single tree: who is where, what is handed down, which files there are, and what was written in
    /// which order.
    struct Fake {
        top: PathBuf,
        state: RefCell<State>,
    }

    #[derive(Default)]
    struct State {
        /// Controllers of a cgroup, as its parent has handed them down, and those that it hands down itself.
        cgroups: BTreeMap<PathBuf, (Vec<String>, Vec<String>)>,
        /// Where this process is, and how many others are with it at the beginning.
        own: PathBuf,
        others: BTreeMap<PathBuf, usize>,
        written: Vec<String>,
        values: BTreeMap<PathBuf, String>,
        /// Files that may not be written.
        closed: Vec<PathBuf>,
    }

    fn refuse(errno: rustix::io::Errno) -> io::Error {
        errno.into()
    }

    impl Fake {
        /// `own`: below the top; all between have handed everything down.
        fn new(own: &str, controllers: &[&str]) -> Self {
            let top = PathBuf::from("/c");
            let all: Vec<String> = controllers.iter().map(|name| (*name).to_owned()).collect();
            let mut state = State { own: top.join(own), ..State::default() };
            state.cgroups.insert(top.clone(), (all.clone(), Vec::new()));
            let mut path = top.clone();
            for part in Path::new(own) {
                state.cgroups.get_mut(&path).unwrap().1 = all.clone();
                path = path.join(part);
                state.cgroups.insert(path.clone(), (all.clone(), Vec::new()));
            }
            Fake { top, state: RefCell::new(state) }
        }

        fn open(&self, parent: &str) -> io::Result<Vec<&'static str>> {
            open_unified(self, &self.top.join(parent), "loopd-1", &CONTROLLERS)
        }

        fn written(&self) -> Vec<String> {
            self.state.borrow().written.clone()
        }
    }

    impl State {
        fn is_busy(&self, cgroup: &Path) -> bool {
            self.own == cgroup || self.others.get(cgroup).is_some_and(|count| *count > 0)
        }
    }

    impl Files for Fake {
        fn make(&self, directory: &Path) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            if state.closed.iter().any(|path| path == directory) {
                return Err(refuse(rustix::io::Errno::ACCESS));
            }
            let handed = state.cgroups[directory.parent().unwrap()].1.clone();
            state.written.push(format!("mkdir {}", directory.display()));
            match state.cgroups.insert(directory.to_owned(), (handed, Vec::new())) {
                None => Ok(()),
                Some(_) => Err(refuse(rustix::io::Errno::EXIST)),
            }
        }

        fn remove(&self, directory: &Path) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            assert!(!state.is_busy(directory), "a cgroup with processes is not removed");
            state.written.push(format!("rmdir {}", directory.display()));
            state.cgroups.remove(directory).map(drop).ok_or_else(|| refuse(rustix::io::Errno::NOENT))
        }

        fn read(&self, file: &Path) -> io::Result<String> {
            let state = self.state.borrow();
            let (directory, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
            match name {
                "cgroup.subtree_control" => Ok(state.cgroups[directory].1.join(" ") + "\n"),
                _ => state.values.get(file).cloned().ok_or_else(|| refuse(rustix::io::Errno::NOENT)),
            }
        }

        fn write(&self, file: &Path, value: &str) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            let (directory, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
            state.written.push(format!("{value} > {}", file.strip_prefix(&self.top).unwrap().display()));
            if state.closed.iter().any(|path| path == file) {
                return Err(refuse(rustix::io::Errno::ACCESS));
            }
            match name {
                "cgroup.procs" => {
                    // Processes only in a leaf.
                    if directory != self.top && !state.cgroups[directory].1.is_empty() {
                        return Err(refuse(rustix::io::Errno::BUSY));
                    }
                    state.own = directory.to_owned();
                    Ok(())
                }
                "cgroup.subtree_control" => {
                    let controller = value.strip_prefix('+').unwrap().to_owned();
                    if directory != self.top && state.is_busy(directory) {
                        return Err(refuse(rustix::io::Errno::BUSY));
                    }
                    let (has, hands) = state.cgroups.get_mut(directory).unwrap();
                    if !has.contains(&controller) {
                        return Err(refuse(rustix::io::Errno::NOENT));
                    }
                    hands.push(controller);
                    Ok(())
                }
                _ => {
                    state.values.insert(file.to_owned(), value.to_owned());
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn the_top_hands_down_although_there_are_processes_in_it() {
        let kernel = Fake::new("", &["memory", "pids", "cpu", "io"]);
        assert_eq!(kernel.open("").unwrap(), CONTROLLERS);
        let written = kernel.written();
        let expected = [
            "+memory > cgroup.subtree_control",
            "+pids > cgroup.subtree_control",
            "+cpu > cgroup.subtree_control",
            "+io > cgroup.subtree_control",
            "mkdir /c/loopd-1",
            "+memory > loopd-1/cgroup.subtree_control",
            "+pids > loopd-1/cgroup.subtree_control",
            "+cpu > loopd-1/cgroup.subtree_control",
            "+io > loopd-1/cgroup.subtree_control",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn an_ordinary_user_moves_out_of_the_cgroup_that_was_given_over() {
        // As `systemd-run --user --scope -p Delegate=yes` does it, with the controllers that it hands to users.
        let kernel = Fake::new("user.slice/app.scope", &["memory", "pids", "cpu"]);
        assert_eq!(kernel.open("user.slice/app.scope").unwrap(), ["memory", "pids", "cpu"]);
        let scope = Path::new("/c/user.slice/app.scope");
        assert_eq!(kernel.state.borrow().own, scope.join(LEAF));
        let state = kernel.state.borrow();
        assert_eq!(state.cgroups[&scope.join("loopd-1")].1, ["memory", "pids", "cpu"], "handed down to rooms");
        // It moved before it handed anything down, and its own directory came last.
        let at = |text: &str| state.written.iter().position(|one| one.contains(text)).unwrap();
        let moved = at("loopd-server/cgroup.procs");
        let handed =
            state.written.iter().rposition(|one| one == "+memory > user.slice/app.scope/cgroup.subtree_control");
        assert!(at("mkdir /c/user.slice/app.scope/loopd-server") < moved);
        assert!(moved < handed.unwrap() && handed.unwrap() < at("mkdir /c/user.slice/app.scope/loopd-1"));
    }

    #[test]
    fn one_that_is_not_alone_goes_back_and_leaves_nothing() {
        let kernel = Fake::new("shared", &["memory", "pids"]);
        kernel.state.borrow_mut().others.insert("/c/shared".into(), 1);
        let fault = kernel.open("shared").unwrap_err();
        assert_eq!(rustix::io::Errno::from_io_error(&fault), Some(rustix::io::Errno::BUSY));
        let state = kernel.state.borrow();
        assert_eq!(state.own, Path::new("/c/shared"));
        assert_eq!(state.cgroups.keys().collect::<Vec<_>>(), [Path::new("/c"), Path::new("/c/shared")]);
    }

    #[test]
    fn one_that_may_not_write_says_so() {
        let kernel = Fake::new("foreign", &["memory"]);
        kernel.state.borrow_mut().closed =
            ["cgroup.subtree_control", LEAF].map(|name| Path::new("/c/foreign").join(name)).into();
        assert_eq!(kernel.open("foreign").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(kernel.state.borrow().cgroups.len(), 2);
    }

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
