//! One process writes a store at a time: an advisory lock on a file beside the database.
//!
//! The kernel lets the lock go when the process ends, however it ends, so a store is never locked by the dead. The file is
//! empty and stays; it is not the database, because closing any handle of that would drop the database's own locks.

use crate::StoreError;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The right to write the store, for as long as this lives.
#[derive(Debug)]
pub struct WriteLock {
    /// Holds the lock; nothing is read from it.
    _file: File,
}

impl WriteLock {
    /// Takes the lock, or says at once that somebody else has it.
    pub fn take(database: &Path) -> Result<Self, StoreError> {
        let path = lock_path(database);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|e| StoreError::Unavailable(format!("cannot open `{}`: {e}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(WriteLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let directory = database.parent().unwrap_or(database).display();
                Err(StoreError::Unavailable(format!(
                    "another loopd uses this directory: `{directory}`; stop it, or choose another directory"
                )))
            }
            Err(TryLockError::Error(e)) => {
                Err(StoreError::Unavailable(format!("cannot lock `{}`: {e}", path.display())))
            }
        }
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".lock");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("loopd.db");
        let first = WriteLock::take(&database).expect("free");
        let told = WriteLock::take(&database).expect_err("held").to_string();
        assert!(told.contains("another loopd uses this directory"), "{told}");
        assert!(told.contains(&directory.path().display().to_string()), "{told}");
        drop(first);
        WriteLock::take(&database).expect("free again");
    }
}
