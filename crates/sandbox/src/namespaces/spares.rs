//! What new sessions need on disk, made in advance below `<data>/spares/<server>`: directories for what they write, and places
//! for their rooms. A new session takes one of each by a rename. Rooms that wait ([`super::waiting`]) stand on the same ground.
//!
//! A directory has ids of its own already, which come from [`super::ids`] like any other's; one that is thrown away takes its
//! ids with it. What a server that is no more left here goes when the next one starts, and before it the rooms that still live
//! there.

use super::directory;
use super::place::Place;
use crate::room::cgroup::RoomCgroup;
use crate::room::ending::END_WAIT;
use crate::room::ids::Ids;
use crate::room::place::{self, is_in_the_way};
use crate::room::{process, removal};
use rustix::fs::{CWD, RenameFlags};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Spares {
    /// This server's.
    directory: PathBuf,
    ready: Mutex<Ready>,
    next: AtomicU64,
}

#[derive(Default)]
struct Ready {
    directories: Vec<Directory>,
    places: Vec<Place>,
}

struct Directory {
    path: PathBuf,
    /// Of its ids.
    first: Option<u32>,
}

/// What one room stands on.
pub(super) struct Ground {
    pub place: Place,
    pub directory: PathBuf,
    /// Of its ids.
    pub first: Option<u32>,
}

impl Ground {
    /// Removes what nobody will use. Blocks.
    pub(super) fn remove(self) -> io::Result<()> {
        removal::remove(&self.directory)?;
        self.place.remove()
    }
}

impl Spares {
    /// Makes this server's directory, and removes those of dead servers. `boot`: of the machine, now.
    pub(super) fn open(data: &Path, name: &str, boot: &str) -> io::Result<Self> {
        let all = data.join("spares");
        let directory = all.join(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&all, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&all)?.flatten() {
            let server = entry.file_name().to_str().and_then(process::server_of);
            if server.is_some_and(|server| !server.exists())
                && let Err(fault) = clear(&entry.path(), boot)
            {
                tracing::warn!(directory = %entry.path().display(), %fault, "spares of a dead server stay behind");
            }
        }
        Ok(Spares { directory, ready: Mutex::default(), next: AtomicU64::new(0) })
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(super) fn directories(&self) -> usize {
        self.ready().directories.len()
    }

    pub(super) fn places(&self) -> usize {
        self.ready().places.len()
    }

    /// Makes what one room stands on, for the one who asks. Blocks.
    pub(super) fn ground(&self, ids: Option<&Ids>) -> io::Result<Ground> {
        let directory = self.path();
        let first = directory::prepare(&directory, ids)?;
        Ok(Ground { place: Place::spare(&self.path())?, directory, first })
    }

    /// Makes one more directory. Blocks.
    pub(super) fn add_directory(&self, ids: Option<&Ids>) -> io::Result<()> {
        let path = self.path();
        let first = directory::prepare(&path, ids)?;
        self.ready().directories.push(Directory { path, first });
        Ok(())
    }

    /// Makes one more place. Blocks.
    pub(super) fn add_place(&self) -> io::Result<()> {
        let place = Place::spare(&self.path())?;
        self.ready().places.push(place);
        Ok(())
    }

    /// Makes a spare directory that of a session that has none. Answers the first of its ids; `None` when there is no spare
    /// one, or something is there already.
    pub(super) fn claim_directory(&self, path: &Path) -> io::Result<Option<Option<u32>>> {
        let Some(spare) = self.ready().directories.pop() else { return Ok(None) };
        match rustix::fs::renameat_with(CWD, &spare.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(spare.first)),
            Err(errno) if is_in_the_way(errno) => {
                self.ready().directories.push(spare);
                Ok(None)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a spare place that of a session that has none; `None` as above.
    pub(super) fn claim_place(&self, path: &Path) -> io::Result<Option<Place>> {
        let Some(spare) = self.ready().places.pop() else { return Ok(None) };
        match spare.settle(path) {
            Ok(place) => Ok(Some(place)),
            Err((spare, errno)) if is_in_the_way(errno) => {
                self.ready().places.push(spare);
                Ok(None)
            }
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// Ends the rooms that a dead server left waiting, and removes what they stood on. Blocks.
fn clear(directory: &Path, boot: &str) -> io::Result<()> {
    let mut ending = Vec::new();
    for entry in fs::read_dir(directory)? {
        let Some(record) = place::Place::peek(&entry?.path())? else { continue };
        let pidfd = if record.boot == boot { record.process.open()? } else { None };
        pidfd.iter().for_each(process::kill);
        ending.push((pidfd, record.cgroups));
    }
    for (pidfd, cgroups) in ending {
        if let Some(pidfd) = pidfd
            && !process::ended_within(&pidfd, END_WAIT)?
        {
            return Err(io::Error::other(format!("a room that waited was killed and lives after {END_WAIT:?}")));
        }
        RoomCgroup::recorded(cgroups).remove();
    }
    Ok(removal::remove(directory)?)
}

impl Drop for Spares {
    fn drop(&mut self) {
        if let Err(fault) = removal::remove(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %fault, "spare directories stay behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_one_becomes_a_sessions_once() {
        let data = tempfile::tempdir().unwrap();
        let spares = Spares::open(data.path(), &process::server_name().unwrap(), "b-1").unwrap();
        spares.add_directory(None).unwrap();
        assert_eq!(
            spares.claim_directory(&data.path().join("sessions/a")).unwrap(),
            None,
            "there is no `sessions` yet"
        );
        fs::create_dir_all(data.path().join("sessions/taken")).unwrap();
        assert_eq!(spares.claim_directory(&data.path().join("sessions/taken")).unwrap(), None);
        assert_eq!(spares.claim_directory(&data.path().join("sessions/a")).unwrap(), Some(None));
        assert!(data.path().join("sessions/a/workspace").is_dir());
        assert_eq!(spares.claim_directory(&data.path().join("sessions/b")).unwrap(), None);
    }

    #[test]
    fn what_dead_servers_left_goes_and_what_living_ones_have_stays() {
        let data = tempfile::tempdir().unwrap();
        let dead = data.path().join("spares/loopd-4194305-1-0/7/workspace");
        fs::create_dir_all(&dead).unwrap();
        let first = Spares::open(data.path(), &process::server_name().unwrap(), "b-1").unwrap();
        first.add_directory(None).unwrap();
        assert!(!dead.exists());
        let second = Spares::open(data.path(), &process::server_name().unwrap(), "b-1").unwrap();
        assert!(first.directory.join("0/workspace").is_dir() && second.directory.is_dir());
        let place = first.directory.clone();
        drop(first);
        assert!(!place.exists());
    }
}
