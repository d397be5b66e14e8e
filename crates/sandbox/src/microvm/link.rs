//! The host's end of a machine's link: a task drives [`loopd_protocol::link`] over the socket of the machine's VMM.
//!
//! ```text
//!                 ┌─ Control ──► ToGuest, FromGuest                 (control.rs; asks for signs of life)
//!  VMM's socket ══╪═ Cell ═════► one end of a socket pair           (relay.rs)
//!    (pump.rs)    ├─ Outlet ◄──► Outlet, OutletStream               (outlet.rs)
//!                 └─ Files ════► FileSink, FileWriter, which block  (files.rs)
//! ```
//!
//! The guest is a stranger. What it sends is bounded by the link's credit, and held in one buffer for each stream; what breaks a rule, what is
//! no message, and a silence that lasts, end the link ([`LinkHost::dead`]) and nothing else. With the link all its streams end.
//!
//! This knows nothing of what a machine is for: who sends `Bind`, and when, is the backend's business.

mod control;
mod files;
mod outlet;
mod pump;
mod relay;
mod shared;
mod stream;

use crate::files::{FileSink, FileWriter, FilesRead};
use crate::{Channel, Outlet};
use loopd_domain::limits::{LINK_PATIENCE_MS, LINK_PING_MS};
use loopd_protocol::guest::{FromGuest, ToGuest};
use loopd_protocol::link::{Link, LinkError, Nonce, Side, StreamKind, Token};
use shared::Shared;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Why a link is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkDead {
    #[error("the guest gave no sign of life for {ms} ms")]
    Silent { ms: u128 },
    #[error("the guest broke a rule of the link: {0}")]
    Rule(#[from] LinkError),
    #[error("the guest said what is no message: {0}")]
    Nonsense(String),
    /// The VMM is gone, or has another host.
    #[error("the machine's socket was closed")]
    Closed,
    #[error("the machine's socket: {0}")]
    Socket(String),
    /// A message of the host's cannot be sent.
    #[error("the host has a message that cannot be sent: {0}")]
    Unsayable(String),
    #[error("the host has given the link up")]
    GivenUp,
}

impl From<LinkDead> for io::Error {
    fn from(dead: LinkDead) -> Self {
        io::Error::new(io::ErrorKind::ConnectionAborted, dead)
    }
}

/// How long a guest is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For its answer to the reset. A guest that has still to boot takes longer than others.
    pub answer: Duration,
    /// Between two questions for a sign of life.
    pub ask: Duration,
    /// For any sign of life.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (ask, silence) = (Duration::from_millis(LINK_PING_MS), Duration::from_millis(LINK_PATIENCE_MS));
        Patience { answer: silence, ask, silence }
    }
}

/// What is said about the machine itself. What comes is a stranger's.
pub struct Control {
    pub to: mpsc::Sender<ToGuest>,
    /// Without pongs. While nobody takes what waits here, the guest is told to wait, and no sign of life is asked of it.
    pub from: mpsc::Receiver<FromGuest>,
}

/// A link that is up. Dropping it ends the link and everything that goes through it; the machine is not told, and waits for another host.
pub struct LinkHost {
    shared: Arc<Shared>,
    dead: watch::Receiver<Option<LinkDead>>,
    runtime: Handle,
}

impl LinkHost {
    /// Begins afresh with the guest behind `socket`, on which nothing was read or written yet; returns when it has answered. In a tokio runtime.
    pub async fn connect(
        mut socket: UnixStream,
        token: &Token,
        nonce: Nonce,
        patience: Patience,
    ) -> Result<(LinkHost, Control), LinkDead> {
        let mut link = Link::new(Side::Host);
        link.reset(token, nonce);
        let answer = tokio::time::timeout(patience.answer, pump::greet(&mut socket, &mut link)).await;
        answer.map_err(|_| LinkDead::Silent { ms: patience.answer.as_millis() })??;
        let (told, dead) = watch::channel(None);
        let shared = Arc::new(Shared::new(link, told));
        // First, and the link is up and empty: there is place for it.
        let control = shared.open(StreamKind::Control).map_err(|fault| LinkDead::Socket(fault.to_string()))?;
        tokio::spawn(pump::run(socket, Arc::clone(&shared), patience.silence));
        let control = control::serve(control, Arc::clone(&shared), patience.ask);
        Ok((LinkHost { shared, dead, runtime: Handle::current() }, control))
    }

    /// Becomes `Some` when the link is over.
    pub fn dead(&self) -> watch::Receiver<Option<LinkDead>> {
        self.dead.clone()
    }

    /// A fresh connection to the cell's socket.
    pub fn open_cell(&self) -> io::Result<Channel> {
        let stream = self.shared.open(StreamKind::Cell)?;
        let _runtime = self.runtime.enter();
        let (theirs, ours) = Channel::pair()?;
        ours.set_nonblocking(true)?;
        self.runtime.spawn(relay::run(stream, UnixStream::from_std(ours)?));
        Ok(theirs)
    }

    /// Where the guest's wishes for connections come out. Once: before this is asked for, some wait; when it is dropped, those and all later
    /// ones are refused.
    pub fn outlet(&self) -> Box<dyn Outlet> {
        Box::new(outlet::LinkOutlet::new(Arc::clone(&self.shared)))
    }

    /// The machine has no way out: wishes are refused at once.
    pub fn close_outlet(&self) {
        self.shared.close_outlet();
    }

    /// Hands all that the machine's session has written to `sink`. Blocks: not for a task.
    pub fn read_files(&self, sink: &mut dyn FileSink) -> io::Result<FilesRead> {
        files::read(self.open_files(StreamKind::ReadFiles)?, sink)
    }

    /// Files for the machine's session. Blocks, and so does what it returns. Its `finish` returns when the guest has them on its disk.
    pub fn write_files(&self) -> io::Result<Box<dyn FileWriter>> {
        Ok(Box::new(files::ToGuest::new(self.open_files(StreamKind::WriteFiles)?)?))
    }

    fn open_files(&self, kind: StreamKind) -> io::Result<std::os::unix::net::UnixStream> {
        let stream = self.shared.open(kind)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let _runtime = self.runtime.enter();
        self.runtime.spawn(relay::run(stream, UnixStream::from_std(ours)?));
        Ok(theirs)
    }
}

impl Drop for LinkHost {
    fn drop(&mut self) {
        self.shared.die(LinkDead::GivenUp);
    }
}

#[cfg(test)]
mod tests;
