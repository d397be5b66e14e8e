//! One stream of the link and one socket of this machine, and what is on its way between them.
//!
//! ```text
//!  link ── down (at most its window) ──► socket ── up (one read) ──► link
//! ```
//!
//! Each direction ends by itself. What is read of the cell waits until the disk is written ([`crate::sync`]).

use crate::fault::Fault;
use crate::sync::{Syncer, Ticket};
use loopd_protocol::link::{Link, StreamId, StreamKind};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that are read at once.
const READ_BYTES: usize = 32 << 10;

pub struct Relay {
    id: StreamId,
    kind: StreamKind,
    socket: OwnedFd,
    down: Vec<u8>,
    delivered: usize,
    /// The other side writes no more; and the socket was told.
    down_ended: bool,
    down_shut: bool,
    /// Nobody reads at the socket any more.
    is_deaf: bool,
    up: Vec<u8>,
    passed: usize,
    /// What [`Relay::up`] waits for.
    ticket: Option<Ticket>,
    /// The socket's other end writes no more; and the host was told.
    up_ended: bool,
    up_told: bool,
}

/// How a relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    Goes,
    /// Both directions have ended.
    Over,
    /// The socket is of no use any more: the stream is to be given up.
    Broken,
}

impl Relay {
    /// `socket` does not block.
    pub fn new(id: StreamId, kind: StreamKind, socket: OwnedFd) -> Self {
        Relay {
            id,
            kind,
            socket,
            down: Vec::new(),
            delivered: 0,
            down_ended: false,
            down_shut: false,
            is_deaf: false,
            up: Vec::new(),
            passed: 0,
            ticket: None,
            up_ended: false,
            up_told: false,
        }
    }

    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What it waits for at its socket. Nothing: it is not to be watched, as the kernel tells of an end again and again.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants_up());
        flags.set(PollFlags::OUT, self.delivered < self.down.len());
        flags
    }

    /// All that the socket's other end has said has been passed on, and its end.
    pub fn is_told(&self) -> bool {
        self.up_told
    }

    fn wants_up(&self) -> bool {
        !self.up_ended && self.up.is_empty()
    }

    /// From the host.
    pub fn on_data(&mut self, bytes: &[u8]) {
        self.down.extend_from_slice(bytes);
    }

    /// The host writes no more.
    pub fn on_end(&mut self) {
        self.down_ended = true;
    }

    /// The socket can be read. `syncer`: the disk on which all must be that was written before what is read was said.
    pub fn read(&mut self, syncer: Option<&mut Syncer>) -> Result<(), Fault> {
        if !self.wants_up() {
            return Ok(());
        }
        let mut bytes = vec![0; READ_BYTES];
        match rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT)) {
            Ok((0, _)) => self.up_ended = true,
            Ok((read, _)) => {
                bytes.truncate(read);
                self.up = bytes;
                self.ticket = syncer.map(Syncer::ask).transpose()?;
            }
            Err(Errno::AGAIN) => {}
            // Whatever else the kernel says of a socket, there is nothing more to be had of it.
            Err(_) => {
                self.up_ended = true;
                self.is_deaf = true;
            }
        }
        Ok(())
    }

    /// Moves what can be moved. Answers whether something was, and how the relay stands.
    pub fn pump(&mut self, link: &mut Link, syncer: Option<&Syncer>) -> (bool, Course) {
        let moved = self.pass(link, syncer) | self.deliver(link);
        let course = match (self.up_told, self.down_shut, self.is_deaf) {
            (true, true, _) => Course::Over,
            // A host has more to say to a cell than it hears: what it says to nobody is thrown away until it ends.
            (true, false, true) if self.kind != StreamKind::Cell => Course::Broken,
            _ => Course::Goes,
        };
        (moved, course)
    }

    fn pass(&mut self, link: &mut Link, syncer: Option<&Syncer>) -> bool {
        if let (Some(ticket), Some(syncer)) = (self.ticket, syncer)
            && !syncer.is_done(ticket)
        {
            return false;
        }
        self.ticket = None;
        let mut moved = false;
        if self.passed < self.up.len() {
            let taken = link.write(self.id, &self.up[self.passed..]);
            self.passed += taken;
            moved = taken > 0;
            if self.passed == self.up.len() {
                (self.up, self.passed) = (Vec::new(), 0);
            }
        }
        if self.up.is_empty() && self.up_ended && !self.up_told {
            link.end(self.id);
            self.up_told = true;
            moved = true;
        }
        moved
    }

    fn deliver(&mut self, link: &mut Link) -> bool {
        let mut moved = false;
        while self.delivered < self.down.len() {
            let rest = &self.down[self.delivered..];
            let sent = match self.is_deaf {
                true => Ok(rest.len()),
                false => rustix::io::retry_on_intr(|| {
                    rustix::net::send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                }),
            };
            match sent {
                Ok(sent) => {
                    self.delivered += sent;
                    link.take(self.id, sent);
                    moved = true;
                }
                Err(Errno::AGAIN) => break,
                Err(_) => self.is_deaf = true,
            }
        }
        if self.delivered == self.down.len() {
            (self.down, self.delivered) = (Vec::new(), 0);
            if self.down_ended && !self.down_shut {
                // One that is closed already needs not be told.
                let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
                self.down_shut = true;
                moved = true;
            }
        }
        moved
    }
}
