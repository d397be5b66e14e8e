//! Where servers make ready what no session has yet: `<data>/<kind>/<server>/<number>`, and in each a place with a record of what lives there.
//!
//! What a server that is no more left goes when the next one starts, after the rooms that still live there. Where that server was only asleep
//! then, and ended later, it goes while this one runs, or when this one stops.

use super::cgroup::RoomCgroup;
use super::ending::END_WAIT;
use super::place::Place;
use super::process::{self, Process};
use super::removal;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct ServerGround {
    /// Of all servers.
    all: PathBuf,
    /// This server's.
    own: PathBuf,
    /// Of the machine, now.
    boot: String,
    /// Where the place is, seen from what stands on a number.
    place: &'static str,
    next: AtomicU64,
}

impl ServerGround {
    /// Makes this server's directory, and clears those of dead servers. Blocks.
    pub(crate) fn open(all: PathBuf, server: &str, boot: &str, place: &'static str) -> io::Result<Self> {
        let own = all.join(server);
        fs::create_dir_all(&own)?;
        fs::set_permissions(&all, Permissions::from_mode(0o700))?;
        let ground = ServerGround { all, own, boot: boot.to_owned(), place, next: AtomicU64::new(0) };
        ground.clear_dead()?;
        Ok(ground)
    }

    /// Of every server.
    pub(crate) fn all(&self) -> &Path {
        &self.all
    }

    /// A path that nothing has yet.
    pub(crate) fn path(&self) -> PathBuf {
        self.own.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Ends what servers that are no more left waiting, and removes what it stood on. Blocks.
    pub(crate) fn clear_dead(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.all)?.flatten() {
            let server = entry.file_name().to_str().and_then(process::server_of);
            if server.is_some_and(|server| !server.exists())
                && let Err(fault) = self.clear(&entry.path())
            {
                tracing::warn!(directory = %entry.path().display(), %fault, "what a dead server made ready stays behind");
            }
        }
        Ok(())
    }

    fn clear(&self, directory: &Path) -> io::Result<()> {
        let mut ending = Vec::new();
        for entry in fs::read_dir(directory)? {
            let Some(record) = Place::peek(&entry?.path().join(self.place))? else { continue };
            let lives = record.boot == self.boot;
            if lives && record.process == Process::UNKNOWN {
                RoomCgroup::kill(&record.cgroups)?;
            }
            let pidfd = if lives { record.process.open()? } else { None };
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
}

impl Drop for ServerGround {
    fn drop(&mut self) {
        if let Err(fault) = self.clear_dead() {
            tracing::warn!(directory = %self.all.display(), %fault, "what dead servers made ready stays behind");
        }
        if let Err(fault) = removal::remove(&self.own) {
            tracing::warn!(directory = %self.own.display(), %fault, "what was made ready stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_servers_left_goes_and_what_living_ones_have_stays() {
        let data = tempfile::tempdir().unwrap();
        let open =
            || ServerGround::open(data.path().join("spares"), &process::server_name().unwrap(), "b-1", ".").unwrap();
        let dead = data.path().join("spares/loopd-4194305-1-0/7/workspace");
        let dies = || fs::create_dir_all(&dead).unwrap();
        dies();
        let first = open();
        let own = first.path();
        fs::create_dir(&own).unwrap();
        assert!(!dead.exists());
        let second = open();
        // Those only slept when this one came.
        dies();
        second.clear_dead().unwrap();
        assert!(!dead.exists());
        dies();
        drop(second);
        assert!(!dead.exists());
        assert!(own.is_dir());
        drop(first);
        assert!(!own.exists());
    }
}
