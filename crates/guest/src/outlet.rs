//! The room's sockets on this side: where the cell listens, and where its wishes for connections arrive.

use crate::fault::{Fault, While};
use crate::ground::DATA;
use crate::session::FIRST_ID;
use loopd_domain::limits::{CELL_HOSTS_WAITING_MAX, OUTLET_WAITING_MAX};
use loopd_jail::ids::CELL_OFFSET;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// In the data directory.
pub const DIRECTORY: &str = "rooms/s/outlet";
const CELL: &str = "rooms/s/cell";
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// The socket on which the cell is to listen.
pub fn for_cell() -> Result<OwnedFd, Fault> {
    listen(&Path::new(DATA).join(CELL), CELL_HOSTS_WAITING_MAX).while_doing("making the cell's socket")
}

/// A host's connection to the cell. It need not wait for the cell to be there.
pub fn to_cell() -> rustix::io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(Path::new(DATA).join(CELL))?)?;
    Ok(socket)
}

/// The socket of the room's way out. Only the room's cell may enter and connect.
pub fn open() -> Result<OwnedFd, Fault> {
    const DOING: &str = "making the room's way out";
    let directory = Path::new(DATA).join(DIRECTORY);
    let path = directory.join("socket");
    fs::create_dir_all(&directory).while_doing(DOING)?;
    let listener = listen(&path, OUTLET_WAITING_MAX).while_doing(DOING)?;
    for (path, mode) in [(&path, 0o600), (&directory, 0o700)] {
        give(path, mode).while_doing(DOING)?;
    }
    Ok(listener)
}

/// The next wish, if there is one.
pub fn accept(listener: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    loop {
        match rustix::net::accept_with(listener, FLAGS) {
            Ok(socket) => return Ok(Some(socket)),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

fn give(path: &PathBuf, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    lchown(path, Some(FIRST_ID + CELL_OFFSET), Some(FIRST_ID + CELL_OFFSET))
}

fn listen(path: &Path, waiting: i32) -> std::io::Result<OwnedFd> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, waiting)?;
    Ok(socket)
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
}
