//! The place of a session's room on the host: `<data>/rooms/<session>`, where no room can see it.
//!
//! ```text
//!  rooms/<session>          its lock is held by whoever starts, adopts, kills or removes the room, and never for long
//!                 /record   see [`super::record`]
//!                 /cell     the socket on which the cell listens; hosts connect
//! ```
//!
//! The place outlives the room, as the epoch in its record is what refuses an owner of the past.

use super::record::{self, Record};
use loopd_domain::limits::CELL_HOSTS_WAITING_MAX;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longer than anybody holds a lock who is not stopped.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const PAUSE: Duration = Duration::from_millis(1);
const RECORD: &str = "record";
const SOCKET: &str = "cell";
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// A place whose lock is held until this is dropped.
pub(super) struct Place {
    directory: OwnedFd,
    path: PathBuf,
}

/// What came of trying to take a place.
pub(super) enum Taken {
    Held(Place),
    /// Somebody else holds it.
    Busy,
    Absent,
}

impl Place {
    /// Takes a place, made if it is not there.
    pub(super) async fn make(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(place) = Self::find(path).await? {
                return Ok(place);
            }
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => {
                    let Some(parent) = path.parent() else { return Err(Errno::NOENT.into()) };
                    std::fs::create_dir_all(parent)?;
                    std::fs::set_permissions(parent, Permissions::from_mode(0o700))?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes a place that is there.
    pub(super) async fn find(path: &Path) -> io::Result<Option<Self>> {
        let begun = Instant::now();
        loop {
            match Self::take(path)? {
                Taken::Held(place) => return Ok(Some(place)),
                Taken::Absent => return Ok(None),
                Taken::Busy if begun.elapsed() > PATIENCE => {
                    return Err(io::Error::other(
                        "another process holds its lock; if one is stopped, continue or end it",
                    ));
                }
                Taken::Busy => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Tries once.
    pub(super) fn take(path: &Path) -> io::Result<Taken> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let directory = match rustix::fs::open(path, flags, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(Taken::Absent),
                other => other?,
            };
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(Taken::Busy),
                other => other?,
            }
            // Removed between opening and locking: then this is the lock of nothing.
            if rustix::fs::fstat(&directory)?.st_nlink > 0 {
                return Ok(Taken::Held(Place { directory, path: path.to_owned() }));
            }
        }
    }

    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        read(rustix::fs::openat(&self.directory, RECORD, READ, Mode::empty()))
    }

    /// What is recorded, looked up by somebody who does nothing with the room.
    pub(super) fn peek(path: &Path) -> io::Result<Option<Record>> {
        read(rustix::fs::open(path.join(RECORD), READ, Mode::empty()))
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, RECORD, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::io::pwrite(&file, &record.encode()?, 0)? {
            record::BYTES => Ok(()),
            length => Err(io::Error::other(format!("only {length} bytes of its record were written"))),
        }
    }

    /// A new socket for a cell to listen on; it listens already, so that a host can connect before the cell is there.
    pub(super) fn listen(&self) -> io::Result<OwnedFd> {
        match rustix::fs::unlinkat(&self.directory, SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let socket = socket()?;
        rustix::net::bind(&socket, &self.address()?)?;
        rustix::net::listen(&socket, CELL_HOSTS_WAITING_MAX)?;
        Ok(socket)
    }

    /// A connection to the socket on which a cell listens. Does not wait for the cell.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let socket = socket()?;
        rustix::net::connect(&socket, &self.address()?)?;
        UnixStream::from_std(socket.into())
    }

    /// The path would often be longer than the 107 bytes that an address holds.
    fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()))?)
    }

    /// Removes the place with all that is in it. The room must be gone.
    pub(super) fn remove(self) -> io::Result<()> {
        for name in [SOCKET, RECORD] {
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(rustix::fs::unlinkat(CWD, &self.path, AtFlags::REMOVEDIR)?)
    }
}

fn read(opened: rustix::io::Result<OwnedFd>) -> io::Result<Option<Record>> {
    let file = match opened {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    // One more than there should be, so that a longer text is seen to be longer.
    let mut bytes = vec![0; record::BYTES + 1];
    let length = rustix::io::pread(&file, &mut bytes, 0)?;
    Record::parse(&bytes[..length])
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::super::process::Process;
    use super::*;
    use loopd_domain::Epoch;

    #[tokio::test]
    async fn one_at_a_time_holds_it() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("rooms/sesn_1");
        assert!(matches!(Place::take(&path).unwrap(), Taken::Absent));
        let place = Place::make(&path).await.unwrap();
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Place::take(&path).unwrap(), Taken::Busy));
        let other = tokio::spawn({
            let path = path.clone();
            async move { Place::make(&path).await.unwrap().record().unwrap() }
        });
        tokio::time::sleep(PAUSE * 3).await;
        // Whoever waited for a place that was removed finds a new one.
        place.remove().unwrap();
        assert_eq!(other.await.unwrap(), None);
        assert!(matches!(Place::take(&path).unwrap(), Taken::Held(_)));
    }

    #[tokio::test]
    async fn a_newer_record_covers_an_older_one() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::make(&data.path().join("rooms/sesn_1")).await.unwrap();
        let process = Process { pid: 1, started: 2 };
        let old = Record { epoch: Epoch(1), boot: "b".to_owned(), process, cgroups: vec!["/a".into(), "/b".into()] };
        let new = Record { epoch: Epoch(2), cgroups: Vec::new(), ..old.clone() };
        for record in [old, new] {
            place.write(&record).unwrap();
            assert_eq!(place.record().unwrap(), Some(record));
        }
    }

    #[tokio::test]
    async fn a_host_can_connect_before_the_cell_is_there_and_not_after_it_is_gone() {
        let data = tempfile::tempdir().unwrap();
        // Longer than a socket's address.
        let path = data.path().join("x".repeat(200)).join("sesn_1");
        let place = Place::make(&path).await.unwrap();
        assert_eq!(place.connect().unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = place.listen().unwrap();
        let _channel = place.connect().unwrap();
        drop(listener);
        assert_eq!(place.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _again = place.listen().unwrap();
        place.connect().unwrap();
    }
}
