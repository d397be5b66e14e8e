//! The directory that a layer becomes. Every step goes by descriptors from the top down, through real directories only: no
//! symbolic link of a layer leads anywhere while it is unpacked.

use super::{Limits, UnpackError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const MODIFIED_BYTES_MAX: usize = 64 << 20;
/// What a name costs in memory besides its bytes.
const NAME_BYTES: usize = 40;
const COPY_BYTES: usize = 128 << 10;
/// As overlayfs reads it of a layer that an ordinary user made, which is how rooms mount all of them (`userxattr`).
const OPAQUE: (&str, &[u8]) = ("user.overlay.opaque", b"y");
const DIRECTORY_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);
const PROGRAM_MODE: Mode = DIRECTORY_MODE;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

/// What an entry says of its file that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub executable: bool,
    pub modified_s: i64,
}

/// A path below the top, as names.
#[derive(Debug, Clone)]
pub(super) struct Path {
    names: Vec<Vec<u8>>,
    written: Vec<u8>,
}

impl Path {
    /// `None`: the top.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.names.last().map(Vec::as_slice)
    }

    fn parents(&self) -> &[Vec<u8>] {
        self.names.split_last().map_or(&[], |(_, parents)| parents)
    }

    /// As it was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.written
    }

    fn shown(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.written))
    }
}

pub(super) struct Tree {
    top: OwnedFd,
    limits: Limits,
    bytes: u64,
    entries: u64,
    left_out: u64,
    /// The directory that was written to last: the next entry is most often beside it.
    last: Option<(Vec<Vec<u8>>, OwnedFd)>,
    /// Times of directories, set when nothing more is written into them.
    modified: BTreeMap<Vec<Vec<u8>>, i64>,
    /// Bytes that those may still take in memory; later ones keep the time of their making.
    modified_left: usize,
}

impl Tree {
    pub(super) fn new(top: OwnedFd, limits: Limits) -> Self {
        Tree {
            top,
            limits,
            bytes: 0,
            entries: 0,
            left_out: 0,
            last: None,
            modified: BTreeMap::new(),
            modified_left: MODIFIED_BYTES_MAX,
        }
    }

    /// `./etc/passwd`, `etc/passwd/` and `etc//passwd` are one path; `..` and an absolute one are none, but for the top itself.
    pub(super) fn parse(&self, written: &[u8]) -> Result<Path, UnpackError> {
        let refuse = |reason: &str| Err(UnpackError::refused(written, reason));
        if written.is_empty() || written.contains(&0) || written.len() > self.limits.path_bytes {
            return refuse("is not a path");
        }
        let names: Vec<Vec<u8>> = written
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .map(<[u8]>::to_vec)
            .collect();
        if written[0] == b'/' && !names.is_empty() {
            return refuse("is absolute; accepted: paths below the image's root");
        }
        if names.iter().any(|name| name == b"..") {
            return refuse("leads outside with `..`");
        }
        if names.len() > self.limits.depth {
            return refuse("is too deep");
        }
        Ok(Path { names, written: written.to_vec() })
    }

    pub(super) fn file<R: Read>(
        &mut self,
        path: &Path,
        meta: Meta,
        size: u64,
        content: &mut R,
        read: &dyn Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        if size > self.limits.bytes.saturating_sub(self.bytes) {
            return Err(UnpackError::TooLarge { most: self.limits.bytes });
        }
        self.count()?;
        let name = name(path);
        let parent = self.parent(path)?;
        clear(&parent, name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| write(path, e))?;
        let mut file = File::from(made);
        let mut buffer = vec![0; COPY_BYTES.min(size as usize + 1)];
        let mut written = 0;
        loop {
            let length = content.read(&mut buffer).map_err(read)?;
            if length == 0 {
                break;
            }
            written += length as u64;
            file.write_all(&buffer[..length]).map_err(|source| UnpackError::Write { path: path.shown(), source })?;
        }
        if written != size {
            return Err(UnpackError::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        self.bytes += size;
        let mode = if meta.executable { PROGRAM_MODE } else { FILE_MODE };
        rustix::fs::fchmod(&file, mode).map_err(|e| write(path, e))?;
        rustix::fs::futimens(&file, &times(meta.modified_s)).map_err(|e| write(path, e))
    }

    pub(super) fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), UnpackError> {
        self.count()?;
        let parent = self.parent(path)?;
        self.make(&parent, name(path), path)?;
        if let Some(left) = self.modified_left.checked_sub(path.written.len() + path.names.len() * NAME_BYTES) {
            self.modified_left = left;
            self.modified.insert(path.names.clone(), meta.modified_s);
        }
        Ok(())
    }

    pub(super) fn link(&mut self, path: &Path, target: &[u8]) -> Result<(), UnpackError> {
        if target.is_empty() || target.contains(&0) || target.len() > self.limits.path_bytes {
            return Err(UnpackError::refused(path.bytes(), "is a link whose target is not a path"));
        }
        self.count()?;
        let parent = self.parent(path)?;
        clear(&parent, name(path), path)?;
        rustix::fs::symlinkat(target, &parent, name(path)).map_err(|e| write(path, e))
    }

    /// One file under two names, both of this layer.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), UnpackError> {
        self.count()?;
        let absent = || {
            let target = String::from_utf8_lossy(target.bytes()).escape_debug().to_string();
            UnpackError::refused(path.bytes(), format!("is a hard link to `{target}`, which is no file of this layer"))
        };
        let Some(target_name) = target.name() else { return Err(absent()) };
        let from = self.open(target.parents()).map_err(|_| absent())?;
        let found = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| absent())?;
        if !matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Symlink) {
            return Err(absent());
        }
        if path.names == target.names {
            return Ok(());
        }
        let parent = self.parent(path)?;
        clear(&parent, name(path), path)?;
        // Without AT_SYMLINK_FOLLOW: what is linked is the name itself.
        rustix::fs::linkat(&from, target_name, &parent, name(path), AtFlags::empty()).map_err(|e| write(path, e))
    }

    /// Hides `deleted`, beside `path`, of the layers below. What this layer itself has under that name stays, whichever
    /// comes first.
    pub(super) fn delete(&mut self, path: &Path, deleted: &[u8]) -> Result<(), UnpackError> {
        if deleted.is_empty() || deleted == b"." || deleted == b".." {
            return Err(UnpackError::refused(path.bytes(), "deletes what is no name"));
        }
        self.count()?;
        let parent = self.parent(path)?;
        match kind(&parent, deleted).map_err(|e| write(path, e))? {
            Some(FileType::Directory) => {
                let directory = enter(&parent, deleted).map_err(|e| write(path, e))?;
                opaque(&directory, path)
            }
            Some(_) => Ok(()),
            None => {
                let device = rustix::fs::makedev(0, 0);
                rustix::fs::mknodat(&parent, deleted, FileType::CharacterDevice, Mode::empty(), device)
                    .map_err(|e| write(path, e))
            }
        }
    }

    /// Hides all that the layers below have in the directory of `path`.
    pub(super) fn make_opaque(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.count()?;
        let parent = self.parent(path)?;
        opaque(&parent, path)
    }

    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Bytes, entries, and entries left out.
    pub(super) fn finish(mut self) -> Result<(u64, u64, u64), UnpackError> {
        for (names, modified_s) in std::mem::take(&mut self.modified) {
            // A later entry may have put something else there.
            if let Ok(directory) = self.open(&names) {
                let shown = || PathBuf::from(OsStr::from_bytes(&names.join(&b'/')));
                rustix::fs::futimens(&directory, &times(modified_s))
                    .map_err(|errno| UnpackError::Write { path: shown(), source: errno.into() })?;
            }
        }
        rustix::fs::fchmod(&self.top, DIRECTORY_MODE)
            .and_then(|()| rustix::fs::syncfs(&self.top))
            .map_err(|errno| UnpackError::Write { path: PathBuf::from("."), source: errno.into() })?;
        Ok((self.bytes, self.entries, self.left_out))
    }

    fn count(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        match self.entries <= self.limits.entries {
            true => Ok(()),
            false => Err(UnpackError::TooMany { most: self.limits.entries }),
        }
    }

    /// The directory that holds `path`, made if it is not there.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let parents = path.parents();
        if let Some((names, directory)) = &self.last
            && names == parents
        {
            return directory.try_clone().map_err(|source| UnpackError::Write { path: path.shown(), source });
        }
        let mut at = self.top.try_clone().map_err(|source| UnpackError::Write { path: path.shown(), source })?;
        for name in parents {
            at = match enter(&at, name) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => {
                    self.count()?;
                    self.make(&at, name, path)?;
                    enter(&at, name).map_err(|e| write(path, e))?
                }
                // A whiteout may stand where a directory is to be; anything else is somebody's file or link.
                Err(Errno::NOTDIR | Errno::LOOP) if is_whiteout(&at, name) => {
                    self.make(&at, name, path)?;
                    enter(&at, name).map_err(|e| write(path, e))?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(UnpackError::refused(path.bytes(), "goes through what is no directory of this layer"));
                }
                Err(errno) => return Err(write(path, errno)),
            };
        }
        let kept = at.try_clone().map_err(|source| UnpackError::Write { path: path.shown(), source })?;
        self.last = Some((parents.to_vec(), kept));
        Ok(at)
    }

    /// A directory of this layer that is there.
    fn open(&self, names: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        let mut at = enter(&self.top, b".")?;
        for name in names {
            at = enter(&at, name)?;
        }
        Ok(at)
    }

    /// Makes a directory. One that was deleted before, in the same layer, shows nothing of the layers below.
    fn make(&mut self, parent: &OwnedFd, name: &[u8], path: &Path) -> Result<(), UnpackError> {
        let was_deleted = match kind(parent, name).map_err(|e| write(path, e))? {
            Some(FileType::Directory) => return Ok(()),
            Some(_) => {
                let was_deleted = is_whiteout(parent, name);
                self.last = None;
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|e| write(path, e))?;
                was_deleted
            }
            None => false,
        };
        rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(|e| write(path, e))?;
        let directory = enter(parent, name).map_err(|e| write(path, e))?;
        // Whatever this process's umask is.
        rustix::fs::fchmod(&directory, DIRECTORY_MODE).map_err(|e| write(path, e))?;
        if was_deleted { opaque(&directory, path) } else { Ok(()) }
    }
}

fn name(path: &Path) -> &[u8] {
    path.name().unwrap_or(b".")
}

/// Takes away what has the name, unless it is a directory. A file that was linked elsewhere stays there as it is.
fn clear(parent: &OwnedFd, name: &[u8], path: &Path) -> Result<(), UnpackError> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(UnpackError::refused(path.bytes(), "stands where this layer has a directory")),
        Err(errno) => Err(write(path, errno)),
    }
}

/// Opens a directory that really is one.
fn enter(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn kind(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Devices of layers are left out, so one that is there was made by [`Tree::delete`].
fn is_whiteout(parent: &OwnedFd, name: &[u8]) -> bool {
    matches!(kind(parent, name), Ok(Some(FileType::CharacterDevice)))
}

fn opaque(directory: &OwnedFd, path: &Path) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(directory, OPAQUE.0, OPAQUE.1, XattrFlags::empty()).map_err(|errno| {
        let told = format!("setting the attribute `{}`, which the file system must support: {errno}", OPAQUE.0);
        UnpackError::Write { path: path.shown(), source: io::Error::new(io::Error::from(errno).kind(), told) }
    })
}

fn times(modified_s: i64) -> Timestamps {
    let at = Timespec { tv_sec: modified_s, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

fn write(path: &Path, errno: Errno) -> UnpackError {
    UnpackError::Write { path: path.shown(), source: errno.into() }
}
