//! The data directory: made, and held by one process at a time.
//!
//! The hold is a lock on `<data>/lock`, which the kernel lets go when the process ends, however it ends. The file also says
//! who holds it, for the message that the next one gets. What else lies in the directory belongs to the store and to the
//! rooms.

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that this process holds until it ends or drops this.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// Who holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// Where it serves, when it serves anybody but itself.
    pub url: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("data directory `{path}`: {source}; accepted: a directory that this user may write, see --data")]
    Unusable { path: PathBuf, source: io::Error },
    #[error("data directory `{path}` is in use by {holder}")]
    InUse { path: PathBuf, holder: Holder },
    #[error(
        "data directory `{path}` is in use by another loopd; wait for it to end, or choose another one with --data"
    )]
    InUseByUnknown { path: PathBuf },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.url {
            Some(url) => write!(
                f,
                "a loopd server (process {}) at {url}; set LOOPD_URL={url} to use that server, or choose another \
                 directory with --data",
                self.pid
            ),
            None => write!(
                f,
                "another loopd command (process {}); wait for it to end, or choose another directory with --data",
                self.pid
            ),
        }
    }
}

impl DataDir {
    /// Makes the directory if need be, readable by its owner only, and holds it.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let unusable = |source| DataError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let absolute = path.canonicalize().map_err(unusable)?;
        let lock_path = absolute.join("lock");
        let options = &mut OpenOptions::new();
        let lock = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(lock_path);
        let mut lock = lock.map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(path, &mut lock)),
            Err(fault) => return Err(unusable(fault.into())),
        }
        let mut dir = DataDir { path: absolute, lock };
        dir.announce(None).map_err(unusable)?;
        Ok(dir)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves word of where this process serves, for whoever wants the directory next.
    pub fn announce(&mut self, url: Option<String>) -> io::Result<()> {
        let text = serde_json::to_vec(&Holder { pid: std::process::id(), url })?;
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(&text)
    }
}

fn in_use(path: &Path, lock: &mut File) -> DataError {
    let path = path.to_owned();
    let mut text = String::new();
    // The holder may be writing its word right now, or may be of another version: then only the lock itself speaks.
    let holder = lock.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    match holder {
        Some(holder) => DataError::InUse { path, holder },
        None => DataError::InUseByUnknown { path },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_holder_at_a_time_and_the_next_is_told_who() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("deep/data");
        let mut first = DataDir::open(&path).expect("free");
        assert_eq!(first.path(), path.canonicalize().expect("made"));
        let told = DataDir::open(&path).expect_err("held").to_string();
        assert!(told.contains("another loopd command"), "{told}");

        first.announce(Some("http://127.0.0.1:7007".to_owned())).expect("written");
        let told = DataDir::open(&path).expect_err("held").to_string();
        assert!(told.contains("set LOOPD_URL=http://127.0.0.1:7007"), "{told}");

        drop(first);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn is_private() {
        let root = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(&root.path().join("data")).expect("free");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(data.path()), mode(&data.path().join("lock"))), (0o700, 0o600));
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        std::fs::write(&path, "").expect("written");
        let told = DataDir::open(&path).expect_err("a file").to_string();
        assert!(told.contains(&path.display().to_string()) && told.contains("--data"), "{told}");
    }
}
