//! The launcher's process: started when it is first wanted, and again when it has died.
//!
//! ```text
//!  none ──wake()──► running ──socket closes──► gone ──wake()──► running (a new process)
//! ```
//!
//! Rooms outlive their launcher. When this process lets go of it, it ends and leaves them alone.

use super::living::Over;
use super::running::Running;
use super::socket::Socket;
use crate::{SandboxError, programs};
use loopd_jail::channel;
use loopd_jail::wire::{News, Order};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, oneshot};

pub(super) struct Launcher {
    program: OwnedFd,
    cell: OwnedFd,
    data: PathBuf,
    /// The certificate of an authority that programs of rooms are to trust, in PEM; empty: none.
    authority: Vec<u8>,
    /// See [`Order::Configure`].
    roots: Vec<PathBuf>,
    current: Mutex<Option<Current>>,
}

struct Current {
    running: Arc<Running>,
    /// Dropped to let go of it.
    _hold: oneshot::Sender<()>,
}

/// What [`Launcher::wake`] found.
pub(super) struct Awake {
    pub running: Arc<Running>,
    /// It has just been started.
    pub is_new: bool,
}

impl Launcher {
    pub(super) fn new(
        cell: &[u8],
        data: PathBuf,
        authority: Vec<u8>,
        roots: Vec<PathBuf>,
    ) -> Result<Self, SandboxError> {
        let program =
            programs::sealed("loopd-jail", programs::JAIL).map_err(|errno| failed("holding its program", errno))?;
        let cell = programs::sealed("loopd-cell", cell).map_err(|errno| failed("holding the cell's program", errno))?;
        Ok(Launcher { program, cell, data, authority, roots, current: Mutex::new(None) })
    }

    /// Starts the process if there is none.
    pub(super) async fn wake(&self) -> Result<Awake, SandboxError> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(living) if !living.running.is_over() => {
                Ok(Awake { running: Arc::clone(&living.running), is_new: false })
            }
            _ => {
                let (hold, let_go) = oneshot::channel();
                let (socket, child) = self.spawn()?;
                let running = Arc::new(Running::new(socket));
                tokio::spawn(drive(Arc::clone(&running), child, let_go));
                *current = Some(Current { running: Arc::clone(&running), _hold: hold });
                Ok(Awake { running, is_new: true })
            }
        }
    }

    /// There was one, and it takes no more orders.
    pub(super) async fn is_over(&self) -> bool {
        self.current.lock().await.as_ref().is_some_and(|current| current.running.is_over())
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
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let (data, roots) = (bytes(&self.data), self.roots.iter().map(bytes).collect());
        let configure = Order::Configure { data, authority: self.authority.clone(), roots };
        channel::send(&here, &configure.encode(), &[self.cell.as_fd()], false)
            .map_err(|errno| failed("configuring it", errno))?;
        let socket = Socket::new(here).map_err(|fault| failed("watching its socket", fault))?;
        Ok((socket, child))
    }
}

fn failed(doing: &str, fault: impl Into<io::Error>) -> SandboxError {
    SandboxError::Launcher(format!("{doing}: {}", fault.into()))
}

/// Takes a launcher's news until it is gone.
async fn drive(running: Arc<Running>, mut child: Child, mut let_go: oneshot::Receiver<()>) {
    let over = loop {
        tokio::select! {
            biased;
            news = running.socket.receive() => match news {
                Ok(Some((News::Unable(fault), _))) => break Over::Unable(fault.to_string()),
                Ok(Some((News::Parked { room, pid }, descriptors))) => match descriptors.into_iter().next() {
                    Some(pidfd) => running.on_parked(room, pid, pidfd),
                    None => break Over::Gone(format!("it made room {room} and gave no hold on it")),
                },
                // Whoever has a session for it need not wait for that.
                Ok(Some((News::Waits { .. }, _))) => {}
                Ok(Some((News::Ended { room, end }, _))) => running.on_ended(room, end),
                Ok(Some((News::Ready, _))) => tracing::debug!(pid = child.id(), "launcher ready"),
                Ok(None) => break Over::Gone("it ended".to_owned()),
                Err(fault) => break Over::Gone(format!("reading its news: {fault}")),
            },
            // Never a message: the sandbox is gone.
            _ = &mut let_go => break Over::Gone("the server let go of it".to_owned()),
        }
    };
    tracing::debug!(pid = child.id(), ?over, "launcher gone");
    running.on_gone(over);
    running.socket.close();
    if let Err(fault) = child.wait().await {
        tracing::warn!(%fault, "waiting for the launcher");
    }
}
