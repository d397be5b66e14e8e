//! What machines stand on that no session has yet, below `<data>/machines/<server>`: a place for its sockets and its record, and a
//! disk. What a server that is no more left here goes when the next one starts, and before it the machines that still live there.

use super::Machines;
use super::clearing::list;
use super::form::Form;
use crate::room::cgroup::RoomCgroup;
use crate::room::ending::END_WAIT;
use crate::room::place::Place;
use crate::room::process::{self, Process};
use crate::room::removal;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PLACE: &str = "place";

pub(super) struct Grounds {
    /// This server's.
    directory: PathBuf,
    next: AtomicU64,
}

pub(super) struct Ground {
    directory: PathBuf,
    pub place: Place,
    pub disk: PathBuf,
    /// The host id that the disk belongs to.
    pub user: Option<u32>,
}

impl Ground {
    /// Leaves what became a session's, and removes the rest. Blocks.
    pub(super) fn take(self) -> (Place, PathBuf) {
        (self.place, self.directory)
    }

    /// Removes it all. The machine must be gone. Blocks.
    pub(super) fn remove(self) -> io::Result<()> {
        Ok(removal::remove(&self.directory)?)
    }
}

impl Grounds {
    /// Makes this server's directory, and clears those of dead servers. `boot`: of the host, now.
    pub(super) fn open(data: &Path, server: &str, boot: &str) -> io::Result<Self> {
        let all = data.join("machines");
        let directory = all.join(server);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&all, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&all)?.flatten() {
            let server = entry.file_name().to_str().and_then(process::server_of);
            if server.is_some_and(|server| !server.exists())
                && let Err(fault) = clear(&entry.path(), boot)
            {
                tracing::warn!(directory = %entry.path().display(), %fault, "machines of a dead server stay behind");
            }
        }
        Ok(Grounds { directory, next: AtomicU64::new(0) })
    }

    /// Where machines of all servers stand that are no session's.
    pub(super) fn places(&self) -> io::Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for server in list(self.directory.parent().unwrap_or(&self.directory))? {
            places.extend(list(&server)?.into_iter().map(|ground| ground.join(PLACE)));
        }
        Ok(places)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Machines {
    /// Ground for a machine of this form. Blocks.
    pub(super) fn ground(&self, form: &Form) -> io::Result<Ground> {
        let directory = self.grounds.path();
        fs::create_dir(&directory)?;
        let made = self.furnish(&directory, form);
        made.inspect_err(|_| {
            if let Err(fault) = removal::remove(&directory) {
                tracing::warn!(directory = %directory.display(), %fault, "a ground that was not finished stays behind");
            }
        })
    }

    fn furnish(&self, directory: &Path, form: &Form) -> io::Result<Ground> {
        let disk = super::disk::of(directory);
        let user = self.blank(&disk, form.shape.disk_bytes)?;
        let place = Place::spare(&directory.join(PLACE))?;
        Ok(Ground { directory: directory.to_owned(), place, disk, user })
    }
}

/// Ends the machines of a dead server, and removes what they stood on. Blocks.
fn clear(directory: &Path, boot: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let Some(record) = Place::peek(&entry?.path().join(PLACE))? else { continue };
        if record.boot != boot {
            continue;
        }
        if record.process == Process::UNKNOWN {
            RoomCgroup::kill(&record.cgroups)?;
        } else if let Some(pidfd) = record.process.open()? {
            process::kill(&pidfd);
            if !process::ended_within(&pidfd, END_WAIT)? {
                return Err(io::Error::other(format!("a machine was killed and lives after {END_WAIT:?}")));
            }
        }
        RoomCgroup::recorded(record.cgroups).remove();
    }
    Ok(removal::remove(directory)?)
}

impl Drop for Grounds {
    fn drop(&mut self) {
        if let Err(fault) = removal::remove(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %fault, "ground of machines stays behind");
        }
    }
}
