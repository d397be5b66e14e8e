//! Layers on disk, each under the digest of its content, written once and never changed.
//!
//! ```text
//!  <data>/images/layers/<sha256>/   one layer, as overlayfs takes it. A name that is there is a layer that is whole
//!               /work/<n>/          what is being fetched or unpacked; of no worth after a restart
//!               /pins.json          see [`crate::pins`]
//! ```
//!
//! A layer is unpacked in `work/`, synced, and renamed: a host that is killed at any instruction leaves no half layer.

use crate::ImageError;
use crate::digest::Digest;
use crate::unpack::{Limits, Unpacked, unpack};
use loopd_domain::Timestamp;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LAYERS: &str = "layers";
const WORK: &str = "work";

pub(crate) struct Layers {
    root: PathBuf,
    next: AtomicU64,
}

/// A place of one's own for something unfinished. Removed when dropped.
pub(crate) struct Work(PathBuf);

impl Work {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(fault) = remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %fault, "what is left of an unfinished image could not be removed");
        }
    }
}

impl Layers {
    /// `root` is nobody else's: no other process works there.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        for directory in [root.clone(), root.join(LAYERS), root.join(WORK)] {
            fs::create_dir_all(&directory)?;
        }
        // An ordinary user's launcher reads here as that user; nobody else has business here.
        fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        for left in fs::read_dir(root.join(WORK))? {
            remove_tree(&left?.path())?;
        }
        Ok(Layers { root, next: AtomicU64::new(0) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(LAYERS).join(digest.hex())
    }

    /// Whether it is there. One that is counts as wanted now.
    pub(crate) fn has(&self, digest: &Digest, now: Timestamp) -> io::Result<bool> {
        let at = Timespec { tv_sec: now.micros().div_euclid(1_000_000), tv_nsec: 0 };
        let times = Timestamps { last_access: at, last_modification: at };
        match rustix::fs::utimensat(CWD, self.path(digest), &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn work(&self) -> io::Result<Work> {
        let path = self.root.join(WORK).join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        Ok(Work(path))
    }

    /// Unpacks what must turn out to be `digest`, unless that is there. Blocks.
    pub(crate) fn add(
        &self,
        digest: &Digest,
        packed: impl Read,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Option<Unpacked>, ImageError> {
        if self.has(digest, now).map_err(|fault| ImageError::disk(self.path(digest), fault))? {
            return Ok(None);
        }
        let work = self.work().map_err(|fault| ImageError::disk(&self.root, fault))?;
        let tree = work.path().join("layer");
        let write = |fault: io::Error| ImageError::disk(&tree, fault);
        fs::create_dir(&tree).map_err(write)?;
        let directory = File::open(&tree).map_err(write)?;
        let unpacked = unpack(packed, directory.as_fd(), limits).map_err(|fault| ImageError::layer(digest, fault))?;
        if unpacked.digest != *digest {
            return Err(ImageError::broken(format!("layer {digest}: its content has the digest {}", unpacked.digest)));
        }
        self.settle(&tree, digest, now)?;
        Ok(Some(unpacked))
    }

    /// Gives a finished tree its name.
    fn settle(&self, tree: &Path, digest: &Digest, now: Timestamp) -> Result<(), ImageError> {
        let path = self.path(digest);
        let write = |fault: io::Error| ImageError::disk(&path, fault);
        match rustix::fs::renameat_with(CWD, tree, CWD, &path, RenameFlags::NOREPLACE) {
            // Somebody else was faster with the same content.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(write(errno.into())),
        }
        sync(&self.root.join(LAYERS)).map_err(write)?;
        self.has(digest, now).map(drop).map_err(write)
    }

    /// Every layer that is there, and when it was last wanted.
    pub(crate) fn list(&self) -> io::Result<Vec<(Digest, Timestamp)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(LAYERS))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|hex| Digest::parse(&format!("sha256:{hex}"))) else { continue };
            let wanted = Timestamp::from_millis(entry.metadata()?.mtime().saturating_mul(1_000));
            found.push((digest, wanted));
        }
        Ok(found)
    }

    /// Takes a layer away: first out of its name, so that none is ever found in parts.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        let work = self.work()?;
        match fs::rename(self.path(digest), work.path().join("removed")) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::open(directory, flags, Mode::empty())?)?)
}

/// Removes what we made ourselves: at most as deep as a layer may be.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
