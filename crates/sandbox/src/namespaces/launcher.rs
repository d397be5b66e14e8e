//! The host's end of the launcher: one task owns the socket and the list of living rooms; others speak to it by mailbox.
//!
//! ```text
//!  none ──start()──► running ──socket closes──► gone: every room has failed ──start()──► running (a new process)
//! ```
//!
//! Rooms never outlive their launcher, so a launcher that ends takes its rooms with it, and each is told so.

use super::cgroup::RoomCgroup;
use super::socket::Socket;
use crate::{RoomExit, SandboxError, programs};
use loopd_jail::channel;
use loopd_jail::wire::{End, News, Order, Start};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// Orders that wait for the task; a caller waits for its place.
const ORDERS_MAX: usize = 256;

pub(super) struct Launcher {
    program: OwnedFd,
    cell: OwnedFd,
    data: PathBuf,
    orders: Mutex<Option<mpsc::Sender<NewRoom>>>,
}

/// A room to be started.
pub(super) struct NewRoom {
    pub start: Start,
    /// The cell's end of the channel, then `cgroup.procs` files.
    pub descriptors: Vec<OwnedFd>,
    pub cgroup: RoomCgroup,
    /// Told once, when the room is gone.
    pub exit: watch::Sender<Option<RoomExit>>,
    /// Told when the room's first process exists.
    pub started: oneshot::Sender<Result<Started, SandboxError>>,
}

/// A room's first process.
#[derive(Debug)]
pub(super) struct Started {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

impl Launcher {
    pub(super) fn new(cell: &[u8], data: PathBuf) -> Result<Self, SandboxError> {
        let program =
            programs::sealed("loopd-jail", programs::JAIL).map_err(|errno| failed("holding its program", errno))?;
        let cell = programs::sealed("loopd-cell", cell).map_err(|errno| failed("holding the cell's program", errno))?;
        Ok(Launcher { program, cell, data, orders: Mutex::new(None) })
    }

    /// Starts the process if there is none. The first room does not wait for it then.
    pub(super) async fn wake(&self) -> Result<mpsc::Sender<NewRoom>, SandboxError> {
        let mut orders = self.orders.lock().await;
        match &*orders {
            Some(living) if !living.is_closed() => Ok(living.clone()),
            _ => {
                let (sender, receiver) = mpsc::channel(ORDERS_MAX);
                let (socket, child) = self.spawn()?;
                tokio::spawn(Driver { socket, child, rooms: HashMap::new() }.run(receiver));
                *orders = Some(sender.clone());
                Ok(sender)
            }
        }
    }

    /// What `loopd-jail probe` prints.
    pub(super) async fn probe(&self) -> Result<String, SandboxError> {
        let output = self.command().arg("probe").stdin(Stdio::null()).output().await;
        let output = output.map_err(|fault| failed("starting it to probe", fault))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        command.arg0("loopd-jail").env_clear().current_dir("/").kill_on_drop(true);
        command
    }

    fn spawn(&self) -> Result<(Socket, Child), SandboxError> {
        let (here, there) = channel::pair().map_err(|errno| failed("making its socket", errno))?;
        let child = self
            .command()
            .stdin(Stdio::from(there))
            .stdout(Stdio::null())
            // A key that interrupts the server's terminal must not end rooms.
            .process_group(0)
            .spawn()
            .map_err(|fault| failed("starting it", fault))?;
        let configure = Order::Configure { data: self.data.as_os_str().as_bytes().to_vec() };
        channel::send(&here, &configure.encode(), &[self.cell.as_fd()], false)
            .map_err(|errno| failed("configuring it", errno))?;
        let socket = Socket::new(here).map_err(|fault| failed("watching its socket", fault))?;
        Ok((socket, child))
    }
}

fn failed(doing: &str, fault: impl Into<io::Error>) -> SandboxError {
    SandboxError::Launcher(format!("{doing}: {}", fault.into()))
}

/// Owns one launcher process.
struct Driver {
    socket: Socket,
    child: Child,
    rooms: HashMap<u64, Living>,
}

struct Living {
    exit: watch::Sender<Option<RoomExit>>,
    cgroup: RoomCgroup,
    started: Option<oneshot::Sender<Result<Started, SandboxError>>>,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::Receiver<NewRoom>) {
        let reason = loop {
            tokio::select! {
                biased;
                news = self.socket.receive() => match news {
                    Ok(Some((News::Unable(fault), _))) => break fault.to_string(),
                    Ok(Some((news, descriptors))) => self.tell(news, descriptors),
                    Ok(None) => break "it ended".to_owned(),
                    Err(fault) => break format!("reading its news: {fault}"),
                },
                order = orders.recv() => match order {
                    Some(new) => {
                        if let Err(fault) = self.order(new).await {
                            break format!("sending an order: {fault}");
                        }
                    }
                    // The sandbox is gone. The launcher ends when the socket closes, and its rooms with it.
                    None => break "the server let go of it".to_owned(),
                },
            }
        };
        orders.close();
        self.end(&reason, orders).await;
    }

    async fn order(&mut self, new: NewRoom) -> io::Result<()> {
        let room = new.start.room;
        let order = Order::Start(new.start);
        let living = Living { exit: new.exit, cgroup: new.cgroup, started: Some(new.started) };
        self.rooms.insert(room, living);
        let descriptors: Vec<_> = new.descriptors.iter().map(AsFd::as_fd).collect();
        self.socket.send(&order, &descriptors).await
    }

    fn tell(&mut self, news: News, descriptors: Vec<OwnedFd>) {
        match news {
            News::Started { room, pid } => {
                let waiting = self.rooms.get_mut(&room).and_then(|living| living.started.take());
                if let (Some(waiting), Some(pidfd)) = (waiting, descriptors.into_iter().next())
                    && let Err(Ok(unwanted)) = waiting.send(Ok(Started { pid, pidfd }))
                {
                    // Whoever asked has given up; nobody would ever end this room.
                    kill(&unwanted.pidfd);
                }
            }
            News::Ended { room, end } => {
                if let Some(living) = self.rooms.remove(&room) {
                    living.end(end);
                }
            }
            News::Ready => tracing::debug!(pid = self.child.id(), "launcher ready"),
            News::Unable(_) => {}
        }
    }

    /// Fails all that waits and all that lived.
    async fn end(mut self, reason: &str, mut orders: mpsc::Receiver<NewRoom>) {
        tracing::debug!(pid = self.child.id(), reason, "launcher gone");
        drop(self.socket);
        // Its rooms end with it: only when it has been reaped are they surely gone.
        if let Err(fault) = self.child.wait().await {
            tracing::warn!(%fault, "waiting for the launcher");
        }
        let unavailable = || SandboxError::Unavailable { kind: super::KIND, reason: reason.to_owned() };
        for (_, mut living) in self.rooms.drain() {
            if let Some(waiting) = living.started.take() {
                // Nobody waits any more: then nobody needs to know.
                let _ = waiting.send(Err(unavailable()));
            }
            living.gone(RoomExit::Failed(format!("the launcher is gone: {reason}")));
        }
        while let Some(new) = orders.recv().await {
            let _ = new.started.send(Err(unavailable()));
            new.cgroup.remove();
        }
    }
}

impl Living {
    fn end(mut self, end: End) {
        if let (Some(waiting), End::Failed(fault)) = (self.started.take(), &end) {
            // As above.
            let _ = waiting.send(Err(SandboxError::Launcher(fault.to_string())));
        }
        self.gone(match end {
            End::Code(code) => RoomExit::Code(code),
            End::Signal(signal) => RoomExit::Signal(signal),
            End::Failed(fault) => RoomExit::Failed(fault.to_string()),
        });
    }

    fn gone(self, exit: RoomExit) {
        self.exit.send_replace(Some(exit));
        tokio::task::spawn_blocking(move || self.cgroup.remove());
    }
}

/// Kills a room. One that is gone already cannot be killed, and need not be.
pub(super) fn kill(pidfd: &OwnedFd) {
    match rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => tracing::error!(%errno, "a room cannot be killed"),
    }
}
