//! Where what was made lies, and how several who make things there keep out of each other's way.
//!
//! ```text
//!  <data>/guest/current.json               the image that was built last: see [`crate::manifest`]
//!              /kernels/<digest>/          vmlinux, modules/, order
//!              /initramfs/<digest>.cpio
//!              /bases/<key>.<nonce>.ext4   the key is of what it was made of; the nonce makes each making another name
//!              /layers/<key>.<nonce>.ext4
//!              /blank/<bytes>.ext4         copied for each session
//!              /work/<nonce>/              what is being made; of no worth when nobody works
//!              /locks/<n>
//! ```
//!
//! Everything is made in `work/`, synced, and renamed: a name that is there is whole, whenever its maker was killed. Locks are the
//! kernel's (`flock`): they end with their holder.

use crate::GuestImageError;
use crate::digest;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const WORK: &str = "work";
const LOCKS: &str = "locks";
/// Locks that keys share among them.
const KEY_LOCKS: u8 = 32;

#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// What one kind of thing lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    Kernels,
    Initramfs,
    Bases,
    Layers,
    Blank,
}

impl Shelf {
    fn name(self) -> &'static str {
        match self {
            Shelf::Kernels => "kernels",
            Shelf::Initramfs => "initramfs",
            Shelf::Bases => "bases",
            Shelf::Layers => "layers",
            Shelf::Blank => "blank",
        }
    }
}

/// Held while something is done that must not be done twice at the same time. Nobody holds two of a kind.
pub(crate) enum Lock {
    /// Building an image, and clearing up.
    Build,
    /// Changing the manifest.
    Manifest,
    /// Making what has this key.
    Key(String),
}

/// A place of one's own for something unfinished. Removed when dropped.
pub(crate) struct Work {
    path: PathBuf,
    /// Shared by all who work; who has it alone may clear away what is left of others.
    _working: OwnedFd,
}

impl Work {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is removed by whoever clears up.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Cache { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(shelf.name())
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> Result<(), GuestImageError> {
        let shelves = [Shelf::Kernels, Shelf::Initramfs, Shelf::Bases, Shelf::Layers, Shelf::Blank];
        let names = shelves.map(|shelf| self.shelf(shelf));
        for path in names.into_iter().chain([self.root.join(WORK), self.root.join(LOCKS)]) {
            // The host's and nobody else's: what is in a room's image is not every user's to read.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(GuestImageError::disk(&path))?;
        }
        Ok(())
    }

    /// Waits until nobody else has it.
    pub(crate) fn lock(&self, lock: &Lock) -> Result<File, GuestImageError> {
        let (file, path) = self.lock_file(lock)?;
        flock(&file, FlockOperation::LockExclusive).map_err(GuestImageError::disk(path))?;
        Ok(file)
    }

    /// `None`: somebody else has it.
    pub(crate) fn try_lock(&self, lock: &Lock) -> Result<Option<File>, GuestImageError> {
        let (file, path) = self.lock_file(lock)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(GuestImageError::disk(path)(errno.into())),
        }
    }

    fn lock_file(&self, lock: &Lock) -> Result<(File, PathBuf), GuestImageError> {
        self.prepare()?;
        let name = match lock {
            Lock::Build => "build".to_owned(),
            Lock::Manifest => "manifest".to_owned(),
            Lock::Key(key) => {
                (key.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)) % KEY_LOCKS).to_string()
            }
        };
        let path = self.root.join(LOCKS).join(name);
        let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        Ok((opened.map_err(GuestImageError::disk(&path))?, path))
    }

    pub(crate) fn work(&self) -> Result<Work, GuestImageError> {
        self.prepare()?;
        let all = self.root.join(WORK);
        let working = open_directory(&all).map_err(|errno| GuestImageError::disk(&all)(errno.into()))?;
        flock(&working, FlockOperation::LockShared).map_err(GuestImageError::disk(&all))?;
        let path = all.join(nonce()?);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(GuestImageError::disk(&path))?;
        Ok(Work { path, _working: working })
    }

    /// Removes what is left of work that was cut off, unless somebody works.
    pub(crate) fn sweep(&self) -> Result<(), GuestImageError> {
        let all = self.root.join(WORK);
        let fault = || GuestImageError::disk(&all);
        let alone = open_directory(&all).map_err(|errno| fault()(errno.into()))?;
        match rustix::fs::flock(&alone, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(errno) => return Err(fault()(errno.into())),
        }
        for left in fs::read_dir(&all).map_err(fault())? {
            let path = left.map_err(fault())?.path();
            fs::remove_dir_all(&path).map_err(GuestImageError::disk(&path))?;
        }
        Ok(())
    }

    /// Gives something finished its name; where that is taken, what was there first stays.
    pub(crate) fn settle(&self, made: &Path, shelf: Shelf, name: &str) -> Result<PathBuf, GuestImageError> {
        let path = self.shelf(shelf).join(name);
        let fault = || GuestImageError::disk(&path);
        sync(made).map_err(GuestImageError::disk(made))?;
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            made,
            rustix::fs::CWD,
            &path,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fault()(errno.into())),
        }
        let names = open_directory(&self.shelf(shelf)).map_err(|errno| fault()(errno.into()))?;
        rustix::fs::fsync(names).map_err(|errno| fault()(errno.into()))?;
        Ok(path)
    }

    /// What has this key, whichever its nonce.
    pub(crate) fn find(&self, shelf: Shelf, key: &str) -> Result<Option<PathBuf>, GuestImageError> {
        let starts = format!("{key}.");
        let found = self
            .list(shelf)?
            .into_iter()
            .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&starts)));
        Ok(found)
    }

    pub(crate) fn list(&self, shelf: Shelf) -> Result<Vec<PathBuf>, GuestImageError> {
        let directory = self.shelf(shelf);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(GuestImageError::disk(directory)(fault)),
        };
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(GuestImageError::disk(&directory))?;
        paths.sort();
        Ok(paths)
    }

    /// Takes something away: first out of its name, so that none is ever found in parts.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), GuestImageError> {
        let work = self.work()?;
        match fs::rename(path, work.path().join("removed")) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(GuestImageError::disk(path)),
        }
    }
}

/// A name that nothing had before.
pub(crate) fn nonce() -> Result<String, GuestImageError> {
    let mut bytes = [0; 8];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(length) if length == bytes.len() => Ok(digest::hex(&bytes)),
        Ok(_) => Err(GuestImageError::broken("the kernel gave fewer random bytes than were asked for")),
        Err(errno) => Err(GuestImageError::disk("/dev/urandom")(errno.into())),
    }
}

/// Makes a file, or all below a directory, durable.
fn sync(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            sync(&entry?.path())?;
        }
    }
    Ok(rustix::fs::fsync(File::open(path)?)?)
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn flock(file: &impl std::os::fd::AsFd, operation: FlockOperation) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation))?)
}
