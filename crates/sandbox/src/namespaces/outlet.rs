//! A room's way out: a directory with a socket, bound into the room where only its cell may enter. The room's side connects,
//! the host accepts.
//!
//! The socket is made under another name and then moved: a server that follows another one replaces its socket in one step, and
//! whoever connects finds one or the other, never none.

use crate::room::place::{PAUSE, socket};
use crate::{Outlet, OutletStream};
use async_trait::async_trait;
use loopd_domain::limits::OUTLET_WAITING_MAX;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use tokio::net::UnixListener;

/// In the room's place.
pub(super) const DIRECTORY: &str = "outlet";
/// As the launcher tells the cell.
const SOCKET: &str = "socket";
const NEXT: &str = "next";

/// Connections as they come from one room.
pub(super) struct RoomConnections(UnixListener);

impl RoomConnections {
    /// In a tokio runtime.
    pub(super) fn new(listener: OwnedFd) -> io::Result<Self> {
        Ok(RoomConnections(UnixListener::from_std(listener.into())?))
    }
}

#[async_trait]
impl Outlet for RoomConnections {
    async fn accept(&mut self) -> io::Result<Box<dyn OutletStream>> {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => return Ok(Box::new(stream)),
                // It was given up before it was taken.
                Err(fault) if fault.kind() == ErrorKind::ConnectionAborted => {}
                // This server has no descriptor or no memory left now; other rooms will give some back. The next one waits.
                Err(fault) if is_exhaustion(&fault) => tokio::time::sleep(PAUSE * 100).await,
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn is_exhaustion(fault: &io::Error) -> bool {
    let errno = Errno::from_io_error(fault);
    errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Listens in a place. What listened there before is replaced.
pub(super) fn listen(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let directory = open(place)?;
    unlink(&directory, NEXT)?;
    let socket = socket()?;
    // By descriptor, as a path would often be longer than an address may be.
    let address = format!("/proc/self/fd/{}/{NEXT}", directory.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(address)?)?;
    rustix::net::listen(&socket, OUTLET_WAITING_MAX)?;
    rustix::fs::chmodat(&directory, NEXT, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    rustix::fs::renameat(&directory, NEXT, &directory, SOCKET)?;
    Ok(socket)
}

/// Lets a user connect, and enter where the directory is bound; nobody else may.
pub(super) fn give(place: BorrowedFd<'_>, owner: Option<u32>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let directory = open(place)?;
    let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    rustix::fs::chownat(&directory, SOCKET, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::fchown(&directory, uid, gid)?)
}

/// Made if it is not there.
fn open(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(place, DIRECTORY, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(open_existing(place)?)
}

fn open_existing(place: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(place, DIRECTORY, flags, Mode::empty())
}

fn unlink(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn place() -> (tempfile::TempDir, OwnedFd) {
        let place = tempfile::tempdir().unwrap();
        let opened = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (place, opened)
    }

    #[tokio::test]
    async fn what_connects_arrives() {
        let (path, place) = place();
        let mut outlet = RoomConnections::new(listen(place.as_fd()).unwrap()).unwrap();
        let mut room = tokio::net::UnixStream::connect(path.path().join("outlet/socket")).await.unwrap();
        room.write_all(b"wish").await.unwrap();
        let mut taken = outlet.accept().await.unwrap();
        let mut bytes = [0; 4];
        taken.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"wish");
    }

    #[test]
    fn a_socket_is_replaced_without_a_gap() {
        let (path, place) = place();
        let mut listener = listen(place.as_fd()).unwrap();
        let over = AtomicBool::new(false);
        let address = SocketAddrUnix::new(path.path().join("outlet/socket")).unwrap();
        std::thread::scope(|scope| {
            let room = scope.spawn(|| {
                let mut faults = 0;
                while !over.load(Ordering::Relaxed) {
                    // The one before may be closed when it is met, or the new one be full; a name may never be without a socket.
                    faults += u32::from(rustix::net::connect(socket().unwrap(), &address) == Err(Errno::NOENT));
                }
                faults
            });
            for _ in 0..500 {
                listener = listen(place.as_fd()).unwrap();
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(room.join().unwrap(), 0);
        });
        drop(listener);
    }

    #[test]
    fn only_its_owner_may_enter_and_connect() {
        let (path, place) = place();
        let _listener = listen(place.as_fd()).unwrap();
        let owner = rustix::process::geteuid().is_root().then_some(7_000);
        give(place.as_fd(), owner).unwrap();
        for (name, mode) in [("outlet", 0o700), ("outlet/socket", 0o600)] {
            let found = std::fs::metadata(path.path().join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
            assert!(owner.is_none_or(|owner| (found.uid(), found.gid()) == (owner, owner)), "{name}");
        }
    }
}
