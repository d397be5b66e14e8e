//! What a room has mounted of its own, on its copy of the stage: first what every room has, then what its session brings.
//!
//! A waiting child has left the stage already, which costs a grace period of the kernel and takes every session's directory out
//! of its sight. So the launcher takes a session's mounts from the stage, and hands them over as descriptors.

use crate::fault::{Fault, While};
use crate::stage::Stage;
use crate::sys;
use crate::wire::Start;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A session's directories: name in its directory on the host, path in the room.
const SESSION: [(&str, &str); 5] = [
    ("workspace", "workspace"),
    ("home", "home/agent"),
    ("uploads", "mnt/session/uploads"),
    ("outputs", "mnt/session/outputs"),
    ("memory", "mnt/memory"),
];
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const INERT: MountFlags = PLAIN.union(MountFlags::NOEXEC);
/// Where the directory with the host's socket for connections is, in a room with a way out.
const OUTLET: &str = "run/loopd";
/// File systems in memory, and which part of `tmp_bytes` each may have: together they must leave memory for processes. Their
/// size is their session's, so they hold nothing before it is known.
const IN_MEMORY: [(&str, u64); 2] = [("tmp", 1), ("dev/shm", 2)];

/// Mounts all that does not depend on a session, in the tree that is to be the room.
pub(crate) fn furnish(stage: &Stage, room: &str) -> Result<(), Fault> {
    mount("proc", &format!("{room}/proc"), "proc", INERT, "hidepid=2").while_doing("mounting /proc")?;
    for name in &stage.masked {
        rustix::mount::mount_bind(format!("{room}/dev/null"), format!("{room}/proc/{name}"))
            .while_doing(&format!("masking /proc/{name}"))?;
    }
    let kernel = format!("{room}/proc/sys");
    rustix::mount::mount_bind(&kernel, &kernel).while_doing("binding /proc/sys")?;
    rustix::mount::mount_remount(&kernel, MountFlags::BIND | MountFlags::RDONLY | INERT, "")
        .while_doing("making /proc/sys read-only")?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", &format!("{room}/dev/pts"), "devpts", terminals, "newinstance,ptmxmode=0666,mode=0620")
        .while_doing("mounting /dev/pts")?;
    for (place, _) in IN_MEMORY {
        mount("memory", &format!("{room}/{place}"), "tmpfs", PLAIN, "mode=1777,size=4k")
            .while_doing(&format!("mounting /{place}"))?;
    }
    Ok(())
}

/// Makes the room the root and lets go of everything else.
pub(crate) fn move_in(room: &str) -> Result<(), Fault> {
    rustix::process::chdir(room).while_doing("entering the room")?;
    rustix::process::pivot_root(".", ".").while_doing("making the room the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).while_doing("leaving the stage")
}

/// Where the file systems in memory are.
pub(crate) fn places_in_memory() -> impl Iterator<Item = &'static str> {
    IN_MEMORY.iter().map(|(place, _)| *place)
}

/// Where a session's directories are in its room.
pub(crate) fn session_places() -> impl Iterator<Item = &'static str> {
    SESSION.iter().map(|(_, place)| *place)
}

/// Takes a session's directories, from the launcher's stage.
pub(crate) fn take(start: &Start) -> Result<Vec<OwnedFd>, Fault> {
    let directory = Path::new("/data").join(OsStr::from_bytes(&start.directory));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let take = |(name, place): &(&str, &str)| {
        // The dot: a directory, and nothing else.
        rustix::mount::open_tree(CWD, directory.join(name).join("."), flags).while_doing(&format!("mounting /{place}"))
    };
    let mut directories: Vec<OwnedFd> = SESSION.iter().map(take).collect::<Result<_, _>>()?;
    if let Some(outlet) = &start.outlet {
        let directory = Path::new("/data").join(OsStr::from_bytes(&outlet.directory)).join(".");
        let doing = format!("mounting /{OUTLET}");
        let tree = rustix::mount::open_tree(CWD, directory, flags).while_doing(&doing)?;
        let inert = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        sys::set_mount_attributes(tree.as_fd(), inert, false).while_doing(&doing)?;
        directories.push(tree);
    }
    Ok(directories)
}

/// Mounts what is the session's own, in a room that has moved in.
pub(crate) fn bring_in(start: &Start, directories: &[OwnedFd]) -> Result<(), Fault> {
    for (place, part) in IN_MEMORY {
        let size = CString::new(format!("size={}", start.tmp_bytes / part)).map_err(|_| Errno::INVAL);
        size.and_then(|size| rustix::mount::mount_remount(format!("/{place}"), PLAIN, &*size))
            .while_doing(&format!("sizing /{place}"))?;
    }
    let mut places: Vec<&str> = SESSION.iter().map(|(_, place)| *place).collect();
    places.extend(start.outlet.as_ref().map(|_| OUTLET));
    if directories.len() != places.len() {
        return Err(Fault::new("mounting the session's directories", Errno::BADMSG));
    }
    for (place, directory) in places.iter().zip(directories) {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(directory, "", CWD, Path::new("/").join(place), flags)
            .while_doing(&format!("mounting /{place}"))?;
    }
    rustix::process::chdir("/workspace").while_doing("entering /workspace")
}

fn mount(source: &str, at: &str, kind: &str, flags: MountFlags, options: &str) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, at, kind, flags, &*options)
}
