//! Directories for sessions to come, made in advance: `<data>/spares/<server>/<number>`. A new session takes one by a rename.
//!
//! Each has ids of its own already, which come from [`super::ids`] like any other's; one that is thrown away takes its ids
//! with it. What a server that is no more left here goes when the next one starts.

use super::ids::Ids;
use super::{directory, process, removal};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Spares {
    /// This server's.
    place: PathBuf,
    ready: Mutex<Vec<Spare>>,
    next: AtomicU64,
}

struct Spare {
    path: PathBuf,
    first: Option<u32>,
}

impl Spares {
    /// Makes this server's place, and removes those of dead servers.
    pub(super) fn open(data: &Path, name: &str) -> io::Result<Self> {
        let all = data.join("spares");
        let place = all.join(name);
        fs::create_dir_all(&place)?;
        fs::set_permissions(&all, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&all)?.flatten() {
            let server = entry.file_name().to_str().and_then(process::server_of);
            if server.is_some_and(|server| !server.exists())
                && let Err(fault) = removal::remove(&entry.path())
            {
                tracing::warn!(directory = %entry.path().display(), %fault, "spares of a dead server stay behind");
            }
        }
        Ok(Spares { place, ready: Mutex::default(), next: AtomicU64::new(0) })
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.ready().len()
    }

    /// Makes one more. Blocks.
    pub(super) fn add(&self, ids: Option<&Ids>) -> io::Result<()> {
        let path = self.place.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let first = directory::prepare(&path, ids)?;
        self.ready().push(Spare { path, first });
        Ok(())
    }

    /// Makes a spare one the directory of a session that has none. Answers the first of its ids; `None` when there is no
    /// spare one, or something is there already.
    pub(super) fn claim(&self, directory: &Path) -> io::Result<Option<Option<u32>>> {
        let Some(spare) = self.ready().pop() else { return Ok(None) };
        match rustix::fs::renameat_with(CWD, &spare.path, CWD, directory, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(spare.first)),
            // The latter: above the session's directory something is missing, or is another file system.
            Err(Errno::EXIST | Errno::NOENT | Errno::XDEV) => {
                self.ready().push(spare);
                Ok(None)
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        if let Err(fault) = removal::remove(&self.place) {
            tracing::warn!(directory = %self.place.display(), %fault, "spare directories stay behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_one_becomes_a_sessions_once() {
        let data = tempfile::tempdir().unwrap();
        let spares = Spares::open(data.path(), &process::server_name().unwrap()).unwrap();
        spares.add(None).unwrap();
        assert_eq!(spares.claim(&data.path().join("sessions/a")).unwrap(), None, "there is no `sessions` yet");
        fs::create_dir_all(data.path().join("sessions/taken")).unwrap();
        assert_eq!(spares.claim(&data.path().join("sessions/taken")).unwrap(), None);
        assert_eq!(spares.claim(&data.path().join("sessions/a")).unwrap(), Some(None));
        assert!(data.path().join("sessions/a/workspace").is_dir());
        assert_eq!(spares.claim(&data.path().join("sessions/b")).unwrap(), None);
    }

    #[test]
    fn what_dead_servers_left_goes_and_what_living_ones_have_stays() {
        let data = tempfile::tempdir().unwrap();
        let dead = data.path().join("spares/loopd-4194305-1-0/7/workspace");
        fs::create_dir_all(&dead).unwrap();
        let first = Spares::open(data.path(), &process::server_name().unwrap()).unwrap();
        first.add(None).unwrap();
        assert!(!dead.exists());
        let second = Spares::open(data.path(), &process::server_name().unwrap()).unwrap();
        assert!(first.place.join("0/workspace").is_dir() && second.place.is_dir());
        let place = first.place.clone();
        drop(first);
        assert!(!place.exists());
    }
}
