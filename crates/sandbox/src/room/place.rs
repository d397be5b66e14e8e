//! The place of a session's room on the host: `<data>/rooms/<session>`, where no room can see it.
//!
//! ```text
//!  rooms/<session>          its lock is held by whoever starts, adopts, kills or removes the room, and never for long
//!                 /record   see [`super::record`]
//!                 /layers   the directories that the room's root is made of, if it is not the host's: nobody may change them
//! ```
//!
//! and beside these what a backend keeps there: sockets. The place outlives the room, as the epoch in its record is what refuses
//! an owner of the past.

use super::record::{self, Record};
use super::removal;
use crate::{RoomRoot, SandboxError};
use loopd_domain::Epoch;
use loopd_domain::limits::{IMAGE_LAYERS_MAX, ROOT_PATH_CHARS_MAX};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than anybody holds a lock who is not stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const PAUSE: Duration = Duration::from_millis(1);
const RECORD: &str = "record";
const LAYERS: &str = "layers";
/// Bytes of a list of layers; a root has no more than fit.
const LAYERS_BYTES_MAX: usize = IMAGE_LAYERS_MAX * (ROOT_PATH_CHARS_MAX + 1);
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const WRITE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::CLOEXEC);

/// A place whose lock is held until this is dropped.
pub(crate) struct Place {
    directory: OwnedFd,
    path: PathBuf,
}

/// What came of trying to take a place.
pub(crate) enum Taken {
    Held(Place),
    /// Somebody else holds it.
    Busy,
    Absent,
}

impl Place {
    /// Takes a place, made if it is not there.
    pub(crate) async fn make(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(place) = Self::find(path).await? {
                return Ok(place);
            }
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Makes one for a session to come, with room for its record.
    pub(crate) fn spare(path: &Path) -> io::Result<Self> {
        rustix::fs::mkdir(path, Mode::RWXU)?;
        let Taken::Held(place) = Self::take(path)? else {
            return Err(io::Error::other("a place that was just made is somebody else's"));
        };
        rustix::fs::openat(&place.directory, RECORD, WRITE, Mode::RUSR | Mode::WUSR)?;
        Ok(place)
    }

    /// Moves a spare one to where a session's is, if nothing is there.
    pub(crate) fn settle(mut self, path: &Path) -> Result<Self, (Self, Errno)> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.path = path.to_owned();
                Ok(self)
            }
            Err(errno) => Err((self, errno)),
        }
    }

    /// Takes a place that is there.
    pub(crate) async fn find(path: &Path) -> io::Result<Option<Self>> {
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
    pub(crate) fn take(path: &Path) -> io::Result<Taken> {
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

    pub(crate) fn record(&self) -> io::Result<Option<Record>> {
        read(rustix::fs::openat(&self.directory, RECORD, READ, Mode::empty()))
    }

    /// What is recorded, looked up by somebody who does nothing with the room.
    pub(crate) fn peek(path: &Path) -> io::Result<Option<Record>> {
        read(rustix::fs::open(path.join(RECORD), READ, Mode::empty()))
    }

    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let file = rustix::fs::openat(&self.directory, RECORD, WRITE, Mode::RUSR | Mode::WUSR)?;
        match rustix::io::pwrite(&file, &record.encode()?, 0)? {
            record::BYTES => Ok(()),
            length => Err(io::Error::other(format!("only {length} bytes of its record were written"))),
        }
    }

    /// Notes what the room is made of. Before the room is given its session, as with its record.
    pub(crate) fn write_layers(&self, root: &RoomRoot) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, LAYERS, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let layers = root.layers();
        if layers.is_empty() {
            return Ok(());
        }
        // A name holds any byte but this one.
        let text =
            layers.iter().flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([0])).collect::<Vec<_>>();
        let file = rustix::fs::openat(&self.directory, LAYERS, WRITE, Mode::RUSR | Mode::WUSR)?;
        std::fs::File::from(file).write_all(&text)
    }

    /// What the room at `path` is made of, or was.
    pub(crate) fn peek_layers(path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut text = Vec::new();
        match std::fs::File::open(path.join(LAYERS)) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?.take(LAYERS_BYTES_MAX as u64).read_to_end(&mut text)?,
        };
        let names = text.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
    }

    /// Writes a file of the backend's own, whole or not at all.
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let next = format!("{name}.next");
        let flags = WRITE | OFlags::TRUNC;
        let file = rustix::fs::openat(&self.directory, &next, flags, Mode::RUSR | Mode::WUSR)?;
        std::fs::File::from(file).write_all(bytes)?;
        Ok(rustix::fs::renameat(&self.directory, &next, &self.directory, name)?)
    }

    /// What was renamed and removed here outlives a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    /// Reads such a file, of so many bytes at most.
    pub(crate) fn read_file(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match rustix::fs::openat(&self.directory, name, READ, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A new socket on which `name` listens; what listened there before is replaced.
    pub(crate) fn listen(&self, name: &str, waiting: i32) -> io::Result<OwnedFd> {
        self.remove_file(name)?;
        let socket = socket()?;
        rustix::net::bind(&socket, &self.address(name)?)?;
        rustix::net::listen(&socket, waiting)?;
        Ok(socket)
    }

    /// A connection to what listens there.
    pub(crate) fn connect(&self, name: &str) -> io::Result<OwnedFd> {
        let socket = socket()?;
        rustix::net::connect(&socket, &self.address(name)?)?;
        Ok(socket)
    }

    /// The path would often be longer than the 107 bytes that an address holds.
    fn address(&self, name: &str) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd()))?)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the place with all that is in it. The room must be gone.
    pub(crate) fn remove(self) -> io::Result<()> {
        Ok(removal::remove(&self.path)?)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// What is recorded of a session's room, for an owner who may have it.
pub(crate) fn own(place: &Place, epoch: Epoch, path: &Path) -> Result<Option<Record>, SandboxError> {
    let record = place.record().map_err(|source| SandboxError::Directory { path: path.join(RECORD), source })?;
    match record {
        Some(record) if record.epoch > epoch => Err(SandboxError::Fenced { epoch: record.epoch }),
        other => Ok(other),
    }
}

/// Something is there already; or above it something is missing, or is another file system.
pub(crate) fn is_in_the_way(errno: Errno) -> bool {
    matches!(errno, Errno::EXIST | Errno::NOENT | Errno::XDEV)
}

pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
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

#[cfg(test)]
mod tests {
    use super::super::process::Process;
    use super::*;
    use loopd_domain::environment::Isolation;

    #[tokio::test]
    async fn one_at_a_time_holds_it() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("sesn_1");
        assert!(matches!(Place::take(&path).unwrap(), Taken::Absent));
        let place = Place::make(&path).await.unwrap();
        assert!(matches!(Place::take(&path).unwrap(), Taken::Busy));
        let other = tokio::spawn({
            let path = path.clone();
            async move { Place::find(&path).await.unwrap().is_some() }
        });
        tokio::time::sleep(PAUSE * 3).await;
        // Whoever waited for a place that was removed is not given it.
        place.remove().unwrap();
        assert!(!other.await.unwrap());
        let _again = Place::make(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_record_covers_an_older_one() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::make(&data.path().join("sesn_1")).await.unwrap();
        assert_eq!(place.record().unwrap(), None);
        let process = Process { pid: 1, started: 2 };
        let old = Record {
            kind: Isolation::Namespaces,
            epoch: Epoch(1),
            boot: "b".to_owned(),
            process,
            cgroups: vec!["/a".into(), "/b".into()],
        };
        let new = Record { epoch: Epoch(2), cgroups: Vec::new(), ..old.clone() };
        for record in [old, new] {
            place.write(&record).unwrap();
            assert_eq!(place.record().unwrap(), Some(record));
        }
    }
}
