//! What new sessions need on disk, made in advance below `<data>/spares/<server>`: directories for what they write, and places
//! for their rooms. A new session takes one of each by a rename. Rooms that wait ([`super::waiting`]) stand on the same ground.
//!
//! A directory has ids of its own already, which come from [`super::ids`] like any other's; one that is thrown away takes its
//! ids with it.

use super::directory;
use super::place::Place;
use crate::room::ground::ServerGround;
use crate::room::ids::Ids;
use crate::room::place::is_in_the_way;
use crate::room::removal;
use rustix::fs::{CWD, RenameFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Spares {
    on: ServerGround,
    ready: Mutex<Ready>,
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
    /// On this server's ground, of which those of dead servers are cleared. `boot`: of the machine, now.
    pub(super) fn open(data: &Path, name: &str, boot: &str) -> io::Result<Self> {
        let on = ServerGround::open(data.join("spares"), name, boot, ".")?;
        Ok(Spares { on, ready: Mutex::default() })
    }

    /// What servers that have ended since then left. Blocks.
    pub(super) fn clear_dead(&self) -> io::Result<()> {
        self.on.clear_dead()
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directories(&self) -> usize {
        self.ready().directories.len()
    }

    pub(super) fn places(&self) -> usize {
        self.ready().places.len()
    }

    /// Makes what one room stands on, for the one who asks. Blocks.
    pub(super) fn ground(&self, ids: Option<&Ids>) -> io::Result<Ground> {
        let directory = self.on.path();
        let first = directory::prepare(&directory, ids)?;
        Ok(Ground { place: Place::spare(&self.on.path())?, directory, first })
    }

    /// Makes one more directory. Blocks.
    pub(super) fn add_directory(&self, ids: Option<&Ids>) -> io::Result<()> {
        let path = self.on.path();
        let first = directory::prepare(&path, ids)?;
        self.ready().directories.push(Directory { path, first });
        Ok(())
    }

    /// Makes one more place. Blocks.
    pub(super) fn add_place(&self) -> io::Result<()> {
        let place = Place::spare(&self.on.path())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::process;
    use std::fs;

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
}
