//! The launcher of this machine, as a host has one: it is configured, parks one room, and gives it the session.

use crate::fault::{Fault, While};
use crate::ground::DATA;
use crate::{cgroup, sys};
use loopd_jail::channel as packets;
use loopd_jail::wire::{News, Order, Root, Start};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::Pid;
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The only room that there is.
pub const ROOM: u64 = 1;
/// Bytes of a thread's stack that makes a few system calls.
const STACK_BYTES: usize = 64 << 10;

pub struct Launcher {
    socket: OwnedFd,
    pid: Pid,
    visitor: Option<Visitor>,
}

impl Launcher {
    /// Starts it. `authority`: the certificate of one that programs are to trust, in PEM.
    pub fn start(jail: &OwnedFd, cell: &OwnedFd, authority: Option<String>) -> Result<Self, Fault> {
        const DOING: &str = "starting the launcher";
        let (socket, there) = packets::pair().while_doing(DOING)?;
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
        packets::send(&socket, &configure.encode(), &[cell.as_fd()], false).while_doing(DOING)?;
        Ok(Launcher { socket, pid, visitor: None })
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has the room made.
    pub fn park(&self, root: Root) -> Result<(), Fault> {
        let processes = cgroup::processes()?;
        packets::send(&self.socket, &Order::Park { room: ROOM, root }.encode(), &[processes.as_fd()], false)
            .while_doing("asking for a room")
    }

    /// Gives the room its session. `listener`: on which the cell listens.
    pub fn give(&self, start: Start, listener: BorrowedFd<'_>) -> Result<(), Fault> {
        packets::send(&self.socket, &Order::Start(start).encode(), &[listener], false)
            .while_doing("giving the room its session")
    }

    /// What it says, if it says something. `Err`: it is gone.
    pub fn hear(&self) -> Result<Option<News>, Fault> {
        const DOING: &str = "hearing the launcher";
        match packets::receive(&self.socket, false) {
            Ok(Some((packet, _))) => {
                News::decode(&packet).map(Some).map_err(|_| Fault::new(DOING, "it said something unknown"))
            }
            Err(Errno::AGAIN) => Ok(None),
            Ok(None) | Err(Errno::CONNRESET) => Err(Fault::new(DOING, "it has ended")),
            Err(errno) => Err(errno).while_doing(DOING),
        }
    }

    /// Shows it what is mounted at a place below the data directory: its tree is a copy of ours, from before.
    pub fn show(&self, place: &'static str) -> Result<(), Fault> {
        match &self.visitor {
            Some(visitor) => visitor.show(place),
            None => Err(Fault::new("showing the launcher a mount", "its tree has not been entered")),
        }
    }

    /// To be called when it says that its tree is ready.
    pub fn enter(&mut self) -> Result<(), Fault> {
        self.visitor = Some(Visitor::enter(self.pid)?);
        Ok(())
    }
}

/// A thread of this process that is in the launcher's mount namespace. It is there before anything is to be shown, so that it is part
/// of what copies of a machine are made of.
struct Visitor {
    mounts: Sender<(OwnedFd, PathBuf)>,
    answers: Receiver<rustix::io::Result<()>>,
}

impl Visitor {
    fn enter(launcher: Pid) -> Result<Self, Fault> {
        const DOING: &str = "entering the launcher's tree";
        let namespace = File::open(format!("/proc/{}/ns/mnt", launcher.as_raw_nonzero())).while_doing(DOING)?;
        let (mounts, orders) = channel::<(OwnedFd, PathBuf)>();
        let (answer, answers) = channel();
        let visit = move || {
            let entered = sys::leave_shared_root().and_then(|()| {
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            });
            // Whoever does not listen any more does not need to know.
            let _ = answer.send(entered);
            for (tree, to) in orders {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                let _ = answer.send(rustix::mount::move_mount(&tree, "", rustix::fs::CWD, &to, flags));
            }
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(visit).while_doing(DOING)?;
        let visitor = Visitor { mounts, answers };
        visitor.answer().while_doing(DOING)?;
        Ok(visitor)
    }

    fn show(&self, place: &'static str) -> Result<(), Fault> {
        let doing = format!("showing {place} to the launcher");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, Path::new(DATA).join(place), flags).while_doing(&doing)?;
        let sent = self.mounts.send((tree, Path::new("/data").join(place)));
        sent.map_err(|_| Errno::PIPE).and_then(|()| self.answer()).while_doing(&doing)
    }

    fn answer(&self) -> rustix::io::Result<()> {
        self.answers.recv().unwrap_or(Err(Errno::PIPE))
    }
}
