//! The launcher of this machine, as a host has one: it is configured, parks one room, and gives it the session.

use crate::fault::{Fault, While};
use crate::ground::DATA;
use crate::{cgroup, sys};
use loopd_jail::channel;
use loopd_jail::wire::{News, Order, Root, Start};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::Pid;
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The only room that there is.
pub const ROOM: u64 = 1;

pub struct Launcher {
    socket: OwnedFd,
    pid: Pid,
}

impl Launcher {
    /// Starts it. `authority`: the certificate of one that programs are to trust, in PEM.
    pub fn start(jail: &OwnedFd, cell: &OwnedFd, authority: Option<String>) -> Result<Self, Fault> {
        const DOING: &str = "starting the launcher";
        let (socket, there) = channel::pair().while_doing(DOING)?;
        let log = File::options().write(true).open("/dev/kmsg").while_doing(DOING)?;
        let child = Command::new(format!("/proc/self/fd/{}", jail.as_raw_fd()))
            .arg0("loopd-jail")
            .env_clear()
            .stdin(Stdio::from(there))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .while_doing(DOING)?;
        let pid = Pid::from_child(&child);
        let configure = Order::Configure {
            data: DATA.as_bytes().to_vec(),
            authority: authority.unwrap_or_default().into_bytes(),
            roots: Vec::new(),
        };
        channel::send(&socket, &configure.encode(), &[cell.as_fd()], false).while_doing(DOING)?;
        Ok(Launcher { socket, pid })
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has the room made.
    pub fn park(&self, root: Root) -> Result<(), Fault> {
        let processes = cgroup::processes()?;
        channel::send(&self.socket, &Order::Park { room: ROOM, root }.encode(), &[processes.as_fd()], false)
            .while_doing("asking for a room")
    }

    /// Gives the room its session. `listener`: on which the cell listens.
    pub fn give(&self, start: Start, listener: BorrowedFd<'_>) -> Result<(), Fault> {
        channel::send(&self.socket, &Order::Start(start).encode(), &[listener], false)
            .while_doing("giving the room its session")
    }

    /// What it says, if it says something. `Err`: it is gone.
    pub fn hear(&self) -> Result<Option<News>, Fault> {
        const DOING: &str = "hearing the launcher";
        match channel::receive(&self.socket, false) {
            Ok(Some((packet, _))) => {
                News::decode(&packet).map(Some).map_err(|_| Fault::new(DOING, "it said something unknown"))
            }
            Err(Errno::AGAIN) => Ok(None),
            Ok(None) | Err(Errno::CONNRESET) => Err(Fault::new(DOING, "it has ended")),
            Err(errno) => Err(errno).while_doing(DOING),
        }
    }

    /// Shows it what is mounted at a place below the data directory: its tree is a copy of ours, from before.
    pub fn show(&self, place: &str) -> Result<(), Fault> {
        let doing = format!("showing {place} to the launcher");
        let from = Path::new(DATA).join(place);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, &from, flags).while_doing(&doing)?;
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.pid.as_raw_nonzero())).while_doing(&doing)?;
        let to = Path::new("/data").join(place);
        // A thread can be in another mount namespace than the rest of its process.
        let moved = std::thread::scope(|scope| {
            let visit = scope.spawn(|| -> rustix::io::Result<()> {
                sys::leave_shared_root()?;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(&tree, "", rustix::fs::CWD, &to, flags)
            });
            visit.join()
        });
        moved.unwrap_or(Err(Errno::IO)).while_doing(&doing)
    }
}
