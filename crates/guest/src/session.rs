//! The session's own disk: what outlives its rooms. It has the parts that a session's directory has on a host, with the same owners.

use crate::disk::Disk;
use crate::fault::{Fault, While};
use crate::ground::DATA;
use crate::sys;
use loopd_jail::ids::PARTS;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// First of the session's ids. There is one session, so it is the same in all machines; no other user is there.
pub const FIRST_ID: u32 = 0x7000_0000;
/// In the data directory.
pub const DIRECTORY: &str = "sessions/s";

pub fn path() -> PathBuf {
    Path::new(DATA).join(DIRECTORY)
}

/// Mounts the disk and makes the parts that are missing. Answers a hold on it.
pub fn mount() -> Result<OwnedFd, Fault> {
    let path = path();
    Disk::Session.mount(&path)?;
    furnish(&path).while_doing("making the session's directories")?;
    let place = open(&path)?;
    grow(&place);
    Ok(place)
}

fn open(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).while_doing("opening the session's disk")
}

/// The disk of a machine that slept has been made larger: the driver is told so by and by.
pub fn grow_to(bytes: u64) {
    if let Err(fault) = Disk::Session.has_grown_to(bytes).and_then(|()| open(&path())).map(|place| grow(&place)) {
        sys::say(&fault.to_string());
    }
}

/// The file system takes up all of a disk that has become larger, as its limit was raised. One that cannot is used as it is.
fn grow(place: &OwnedFd) {
    let grown = Disk::Session.blocks_to_grow_to().and_then(|blocks| match blocks {
        Some(blocks) => {
            sys::resize(place.as_fd(), blocks).while_doing(&format!("growing the file system to {blocks} blocks"))
        }
        None => Ok(()),
    });
    if let Err(fault) = grown {
        sys::say(&fault.to_string());
    }
}

/// Where the disk is to be mounted, for whoever looks before it is.
pub fn make_place() -> Result<(), Fault> {
    fs::create_dir_all(path()).while_doing("making the session's place")
}

/// Writes all of it and lets nobody write any more. The launcher and its tree may still have it mounted.
pub fn close() -> Result<(), Fault> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(path(), flags, c"").while_doing("closing the session's disk")
}

fn furnish(directory: &Path) -> std::io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for (name, whose) in PARTS {
        let part = directory.join(name);
        match fs::create_dir(&part) {
            Ok(()) => {
                fs::set_permissions(&part, Permissions::from_mode(0o755))?;
                lchown(&part, Some(FIRST_ID + whose), Some(FIRST_ID + whose))?;
            }
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn parts_are_made_once_and_belong_to_cell_and_tools() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let disk = tempfile::tempdir().unwrap();
        furnish(disk.path()).unwrap();
        fs::write(disk.path().join("workspace/kept"), "x").unwrap();
        fs::set_permissions(disk.path().join("workspace"), Permissions::from_mode(0o700)).unwrap();
        furnish(disk.path()).unwrap();
        for (name, owner, mode) in [("workspace", 1, 0o700), ("uploads", 0, 0o755), ("home", 1, 0o755)] {
            let found = fs::metadata(disk.path().join(name)).unwrap();
            assert_eq!((found.uid() - FIRST_ID, found.mode() & 0o777), (owner, mode), "{name}");
        }
        assert!(disk.path().join("workspace/kept").exists());
    }
}
