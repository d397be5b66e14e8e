//! What a session has on disk: counted by walking through its directories.
//!
//! What is in there was written by a stranger and may be changing: nothing is followed, nothing is opened but directories, and
//! what goes away meanwhile is not counted.

use loopd_domain::limits::{DISK_LOOK_ENTRIES_MAX, FILE_DEPTH_MAX};
use loopd_jail::ids::PARTS;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};
use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

/// Bytes that a session's directories take on disk; `u64::MAX` for one that has more entries, or more levels, than are counted.
/// Blocks.
pub(super) fn used(directory: &Path) -> Result<u64> {
    let mut count = Count::default();
    for (name, _) in PARTS {
        match rustix::fs::openat(CWD, directory.join(name), OPEN, Mode::empty()) {
            Ok(part) => count.walk(&part)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(if count.is_beyond_count { u64::MAX } else { count.bytes })
}

#[derive(Default)]
struct Count {
    bytes: u64,
    entries: u64,
    is_beyond_count: bool,
    /// Files with several names, which are counted once.
    seen: HashSet<(u64, u64)>,
}

impl Count {
    /// Depth first, with the directories on the way open.
    fn walk(&mut self, top: &OwnedFd) -> Result<()> {
        let mut open = vec![Dir::read_from(top)?];
        while let Some(directory) = open.last_mut() {
            let entry = match directory.next() {
                None => {
                    open.pop();
                    continue;
                }
                // Removed while it was read.
                Some(Err(Errno::NOENT)) => continue,
                Some(entry) => entry?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Some(inner) = self.visit(directory, name)? else { continue };
            if open.len() >= FILE_DEPTH_MAX || self.entries > DISK_LOOK_ENTRIES_MAX {
                self.is_beyond_count = true;
                return Ok(());
            }
            open.push(inner);
        }
        Ok(())
    }

    /// Counts one entry; a directory is given back to be walked through.
    fn visit(&mut self, directory: &Dir, name: &CStr) -> Result<Option<Dir>> {
        let handle = directory.fd()?;
        let found = rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            self.take(&stat);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => rustix::fs::openat(handle, name, OPEN, Mode::empty()).map(Some),
                _ => Ok(None),
            }
        });
        match found {
            Ok(inner) => inner.map(Dir::new).transpose(),
            // It went away, became something else, or is closed to us.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn take(&mut self, stat: &Stat) {
        self.entries += 1;
        let is_new = stat.st_nlink <= 1
            || FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            || self.seen.insert((stat.st_dev, stat.st_ino));
        if is_new {
            self.bytes = self.bytes.saturating_add(stat.st_blocks.max(0) as u64 * BLOCK_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// With the directories of a session, and `bytes` in a file of the workspace.
    fn session(bytes: usize) -> tempfile::TempDir {
        let session = tempfile::tempdir().unwrap();
        PARTS.iter().for_each(|(name, _)| fs::create_dir(session.path().join(name)).unwrap());
        fs::write(session.path().join("workspace/file"), vec![1; bytes]).unwrap();
        session
    }

    #[test]
    fn counts_what_is_there_once_and_follows_nothing() {
        const MIB: usize = 1 << 20;
        let empty = used(session(0).path()).unwrap();
        let session = session(4 * MIB);
        let grown = |session: &Path| ((used(session).unwrap() - empty) as f64 / MIB as f64).round();
        assert_eq!(grown(session.path()), 4.0);
        let inside = |path: &str| session.path().join(path);
        fs::create_dir_all(inside("home/a/b")).unwrap();
        fs::write(inside("home/a/b/c"), vec![1; MIB]).unwrap();
        assert_eq!(grown(session.path()), 5.0);
        fs::hard_link(inside("home/a/b/c"), inside("home/again")).unwrap();
        symlink("/usr", inside("workspace/usr")).unwrap();
        symlink(".", inside("workspace/loop")).unwrap();
        fs::File::create(inside("outputs/hole")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(grown(session.path()), 5.0);
        fs::remove_dir_all(inside("uploads")).unwrap();
        assert_eq!(grown(session.path()), 5.0);
    }

    #[test]
    fn what_lies_too_deep_to_be_counted_is_not_free() {
        let session = session(1);
        let deep = |levels: usize| session.path().join("workspace").join("d/".repeat(levels));
        fs::create_dir_all(deep(FILE_DEPTH_MAX - 1)).unwrap();
        assert_ne!(used(session.path()).unwrap(), u64::MAX);
        fs::create_dir_all(deep(FILE_DEPTH_MAX)).unwrap();
        assert_eq!(used(session.path()).unwrap(), u64::MAX);
    }
}
