//! The place of a session's room on the host: `<data>/rooms/<session>`, where no room can see it.
//!
//! ```text
//!  rooms/<session>          its lock is held by whoever starts, adopts, kills or removes the room, and never for long
//!                 /record   see [`super::record`]
//!                 /cell     the socket on which the cell listens; hosts connect
//!                 /layers   the directories that the room's root is made of, if it is not the host's: nobody may change them
//!                 /outlet/  the room's way out, see [`super::outlet`]; the only part that a room is given
//! ```
//!
//! The place outlives the room, as the epoch in its record is what refuses an owner of the past.

use super::outlet;
use super::record::{self, Record};
use super::spares::Spares;
use crate::RoomRoot;
use loopd_domain::limits::{CELL_HOSTS_WAITING_MAX, IMAGE_LAYERS_MAX, ROOT_PATH_CHARS_MAX};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longer than anybody holds a lock who is not stopped.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const PAUSE: Duration = Duration::from_millis(1);
const RECORD: &str = "record";
const SOCKET: &str = "cell";
const LAYERS: &str = "layers";
/// Bytes of a list of layers; a root has no more than fit.
const LAYERS_BYTES_MAX: usize = IMAGE_LAYERS_MAX * (ROOT_PATH_CHARS_MAX + 1);
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const WRITE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::CLOEXEC);

/// A place whose lock is held until this is dropped.
pub(super) struct Place {
    directory: OwnedFd,
    path: PathBuf,
    /// Made in advance, for the first room.
    socket: Option<(OwnedFd, OwnedFd)>,
    outlet: Option<OwnedFd>,
}

/// What came of trying to take a place.
pub(super) enum Taken {
    Held(Place),
    /// Somebody else holds it.
    Busy,
    Absent,
}

impl Place {
    /// Takes a place, made if it is not there; `spares` may have one.
    pub(super) async fn make(path: &Path, spares: &Spares) -> io::Result<Self> {
        loop {
            if let Some(place) = Self::find(path).await? {
                return Ok(place);
            }
            if let Some(place) = spares.claim_place(path)? {
                return Ok(place);
            }
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Makes one for a session to come, with all that its first room needs.
    pub(super) fn spare(path: &Path) -> io::Result<Self> {
        rustix::fs::mkdir(path, Mode::RWXU)?;
        let Taken::Held(mut place) = Self::take(path)? else {
            return Err(io::Error::other("a place that was just made is somebody else's"));
        };
        let listener = place.listen()?;
        place.socket = Some((listener, place.connect()?));
        place.outlet = Some(outlet::listen(place.directory.as_fd())?);
        rustix::fs::openat(&place.directory, RECORD, WRITE, Mode::RUSR | Mode::WUSR)?;
        Ok(place)
    }

    /// Moves a spare one to where a session's is, if nothing is there.
    pub(super) fn settle(mut self, path: &Path) -> Result<Self, (Self, Errno)> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.path = path.to_owned();
                Ok(self)
            }
            Err(errno) => Err((self, errno)),
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
                return Ok(Taken::Held(Place { directory, path: path.to_owned(), socket: None, outlet: None }));
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
        let file = rustix::fs::openat(&self.directory, RECORD, WRITE, Mode::RUSR | Mode::WUSR)?;
        match rustix::io::pwrite(&file, &record.encode()?, 0)? {
            record::BYTES => Ok(()),
            length => Err(io::Error::other(format!("only {length} bytes of its record were written"))),
        }
    }

    /// Notes what the room is made of. Before the room is given its session, as with its record.
    pub(super) fn write_layers(&self, root: &RoomRoot) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, LAYERS, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let RoomRoot::Layers(layers) = root else { return Ok(()) };
        // A name holds any byte but this one.
        let text =
            layers.iter().flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([0])).collect::<Vec<_>>();
        let file = rustix::fs::openat(&self.directory, LAYERS, WRITE, Mode::RUSR | Mode::WUSR)?;
        std::fs::File::from(file).write_all(&text)
    }

    /// What the room at `path` is made of, or was.
    pub(super) fn peek_layers(path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut text = Vec::new();
        match std::fs::File::open(path.join(LAYERS)) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?.take(LAYERS_BYTES_MAX as u64).read_to_end(&mut text)?,
        };
        let names = text.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
    }

    /// A new socket for a cell, and a host's connection to it, which need not wait for the cell to be there.
    pub(super) fn socket(&mut self) -> io::Result<(OwnedFd, UnixStream)> {
        let (listener, channel) = match self.socket.take() {
            Some(spare) => spare,
            None => (self.listen()?, self.connect()?),
        };
        Ok((listener, UnixStream::from_std(channel.into())?))
    }

    /// A socket at which the room's wishes for connections arrive, and which only `owner` may connect to: the cell's user, where
    /// it has one of its own.
    pub(super) fn outlet(&mut self, owner: Option<u32>) -> io::Result<OwnedFd> {
        let listener = match self.outlet.take() {
            Some(spare) => spare,
            None => outlet::listen(self.directory.as_fd())?,
        };
        outlet::give(self.directory.as_fd(), owner)?;
        Ok(listener)
    }

    /// Where the socket for that is.
    pub(super) fn outlet_directory(&self) -> PathBuf {
        self.path.join(outlet::DIRECTORY)
    }

    /// A connection to the cell that listens here.
    pub(super) fn reach(&self) -> io::Result<UnixStream> {
        UnixStream::from_std(self.connect()?.into())
    }

    fn listen(&self) -> io::Result<OwnedFd> {
        match rustix::fs::unlinkat(&self.directory, SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let socket = outlet::socket()?;
        rustix::net::bind(&socket, &self.address()?)?;
        rustix::net::listen(&socket, CELL_HOSTS_WAITING_MAX)?;
        Ok(socket)
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let socket = outlet::socket()?;
        rustix::net::connect(&socket, &self.address()?)?;
        Ok(socket)
    }

    /// The path would often be longer than the 107 bytes that an address holds.
    fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()))?)
    }

    /// Removes the place with all that is in it. The room must be gone.
    pub(super) fn remove(self) -> io::Result<()> {
        outlet::remove(self.directory.as_fd())?;
        for name in [SOCKET, LAYERS, RECORD] {
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

#[cfg(test)]
mod tests {
    use super::super::process::{self, Process};
    use super::*;
    use loopd_domain::Epoch;

    /// With so many places made in advance.
    fn spares(data: &Path, count: usize) -> Spares {
        let spares = Spares::open(data, &process::server_name().unwrap(), "b-1").unwrap();
        (0..count).for_each(|_| spares.add_place().unwrap());
        spares
    }

    #[tokio::test]
    async fn one_at_a_time_holds_it() {
        for count in [0, 1] {
            let data = tempfile::tempdir().unwrap();
            let spares = spares(data.path(), count);
            let path = data.path().join("sesn_1");
            assert!(matches!(Place::take(&path).unwrap(), Taken::Absent));
            let place = Place::make(&path, &spares).await.unwrap();
            assert_eq!(spares.places(), 0);
            assert!(matches!(Place::take(&path).unwrap(), Taken::Busy));
            let other = tokio::spawn({
                let path = path.clone();
                async move { Place::find(&path).await.unwrap().is_some() }
            });
            tokio::time::sleep(PAUSE * 3).await;
            // Whoever waited for a place that was removed is not given it.
            place.remove().unwrap();
            assert!(!other.await.unwrap());
            let _again = Place::make(&path, &spares).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_newer_record_covers_an_older_one() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::make(&data.path().join("sesn_1"), &spares(data.path(), 1)).await.unwrap();
        assert_eq!(place.record().unwrap(), None);
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
        for count in [0, 1] {
            let data = tempfile::tempdir().unwrap();
            let spares = spares(data.path(), count);
            // Longer than a socket's address.
            let parent = data.path().join("x".repeat(200));
            std::fs::create_dir(&parent).unwrap();
            let mut place = Place::make(&parent.join("sesn_1"), &spares).await.unwrap();
            for _ in 0..2 {
                let (listener, _channel) = place.socket().unwrap();
                let _another = place.reach().unwrap();
                drop(listener);
                assert_eq!(place.reach().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            }
        }
    }
}
