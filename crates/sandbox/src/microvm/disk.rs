//! A session's disk: `<directory>/disk.ext4`, owned by the session's host id. A guest writes it; no host ever mounts it.

use super::Machines;
use crate::room::ids;
use loopd_guest_image::GuestImageError;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

const DISK: &str = "disk.ext4";
const NEXT: &str = "disk.ext4.next";
/// Copied at a time.
const COPIED_BYTES: usize = 1 << 20;

pub(super) fn of(directory: &Path) -> PathBuf {
    directory.join(DISK)
}

pub(super) fn exists(directory: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(of(directory)) {
        Ok(_) => Ok(true),
        Err(absent) if absent.kind() == ErrorKind::NotFound => Ok(false),
        Err(other) => Err(other),
    }
}

/// The session's directory, made if it is not there.
pub(super) fn directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

impl Machines {
    /// Sees to it that the session has a disk. Answers the host id that it belongs to. Blocks.
    pub(super) fn disk(&self, directory: &Path, bytes: u64) -> io::Result<Option<u32>> {
        let path = of(directory);
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                return Err(io::Error::other(format!("`{DISK}` is not a file")));
            }
            Ok(found) => return self.owned(&path, &found, bytes),
            Err(absent) if absent.kind() == ErrorKind::NotFound => {}
            Err(other) => return Err(other),
        }
        self::directory(directory)?;
        // Under another name first: one that is cut short is no disk.
        let next = directory.join(NEXT);
        let user = self.blank(&next, bytes)?;
        fs::rename(next, path)?;
        Ok(user)
    }

    /// Makes an empty disk where nothing is that anybody needs. Blocks.
    pub(super) fn blank(&self, path: &Path, bytes: u64) -> io::Result<Option<u32>> {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(absent) if absent.kind() == ErrorKind::NotFound => {}
            Err(other) => return Err(other),
        }
        self.images.blank_disk(bytes, path).map_err(from_image)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let user = self.ids.as_ref().map(ids::Ids::allocate).transpose()?;
        if let Some(user) = user {
            lchown(path, Some(user), Some(user))?;
        }
        Ok(user)
    }

    fn owned(&self, path: &Path, found: &fs::Metadata, bytes: u64) -> io::Result<Option<u32>> {
        // A limit that has been raised: the machine has a larger disk, and its guest a file system that takes it up.
        if found.len() < bytes {
            File::options().write(true).open(path)?.set_len(bytes)?;
        }
        let Some(ids) = &self.ids else { return Ok(None) };
        match ids::first_of(found.uid()) {
            Some(first) => Ok(Some(first)),
            None => {
                let first = ids.allocate()?;
                lchown(path, Some(first), Some(first))?;
                Ok(Some(first))
            }
        }
    }
}

fn from_image(fault: GuestImageError) -> io::Error {
    match fault {
        GuestImageError::Disk { source, path } => {
            io::Error::new(source.kind(), format!("`{}`: {source}", path.display()))
        }
        other => io::Error::other(other),
    }
}

/// A copy of a disk as it is now: the blocks are shared where the file system can, and holes stay holes. Blocks.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::options().write(true).truncate(true).open(to)?);
    let bytes = from.metadata()?.len();
    to.set_len(bytes)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < bytes {
        let data = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        at = rustix::fs::seek(&from, SeekFrom::Hole(data))?;
        copy_range(&from, &to, data, at)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut block = vec![0; COPIED_BYTES];
    while at < end {
        let most = block.len().min(usize::try_from(end - at).unwrap_or(COPIED_BYTES));
        let read = from.read_at(&mut block[..most], at)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&block[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_there_is_and_its_holes() {
        let data = tempfile::tempdir().unwrap();
        let (from, to) = (data.path().join("from"), data.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"middle", 300 << 20).unwrap();
        file.write_all_at(b"end", (1 << 30) - 3).unwrap();
        fs::write(&to, "something else").unwrap();
        copy(&from, &to).unwrap();
        let found = fs::metadata(&to).unwrap();
        assert_eq!(found.len(), 1 << 30);
        assert!(found.blocks() * 512 < 1 << 20, "{}", found.blocks());
        let mut bytes = [0; 6];
        File::open(&to).unwrap().read_exact_at(&mut bytes, 300 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
    }
}
