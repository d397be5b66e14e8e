//! Where the trees are mounted, and where in them this process is: what `/proc/self/mountinfo` and `/proc/self/cgroup` say.

use super::tree::{CONTROLLERS, Version};
use super::unified;
use std::fs;
use std::path::{Path, PathBuf};

/// What version 1 calls differently.
const FORMER: [(&str, &str); 1] = [("blkio", "io")];

/// A mounted tree, as `/proc/self/mountinfo` and `/proc/self/cgroup` describe it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub version: Version,
    pub top: PathBuf,
    /// The cgroup that this process is in.
    pub own: PathBuf,
    pub controllers: Vec<&'static str>,
}

/// Trees that have at least one controller of ours.
pub(super) fn all(mounts: &str, memberships: &str) -> Vec<Mounted> {
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
        // This process may have moved already, see `unified::open`.
        let own = if own.ends_with(unified::LEAF) { own.parent().map_or(own.clone(), Path::to_owned) } else { own };
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

    #[test]
    fn finds_the_trees_of_version_one() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
                      32 30 0:28 / /nowhere/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
                      33 30 0:29 /docker/x /nowhere/pids rw - cgroup cgroup rw,pids\n\
                      34 30 0:30 / /nowhere/both rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 30 0:31 / /nowhere/blkio rw - cgroup cgroup rw,blkio\n";
        let memberships = "8:pids:/docker/x\n7:blkio:/b\n4:memory:/user/abc\n3:cpu,cpuacct:/c\n0::/\n";
        let found = all(mounts, memberships);
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
        let found = all(&mounts, "0::/user/scope\n");
        let own = top.path().join("user/scope");
        let top = top.path().to_owned();
        assert_eq!(
            found,
            [Mounted { version: Version::Two, top, own, controllers: vec!["memory", "pids", "cpu", "io"] }]
        );
    }
}
