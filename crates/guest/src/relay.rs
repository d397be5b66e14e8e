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
    pub fn pump(&mut self, link: &mut Link, syncer: &Syncer) -> (bool, Course) {
        let moved = self.pass(link, syncer) | self.deliver(link);
        let course = match (self.up_told, self.down_shut, self.is_deaf) {
            (true, true, _) => Course::Over,
            // A host has more to say to a cell than it hears: what it says to nobody is thrown away until it ends.
            (true, false, true) if self.kind != StreamKind::Cell => Course::Broken,
            _ => Course::Goes,
        };
        (moved, course)
    }

    fn pass(&mut self, link: &mut Link, syncer: &Syncer) -> bool {
        if self.ticket.is_some_and(|ticket| !syncer.is_done(ticket)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_protocol::link::{Event, NONCE_BYTES, Nonce, Side, Token};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Two links that know each other, and a stream between them.
    struct Pair {
        host: Link,
        guest: Link,
        id: StreamId,
        relay: Relay,
        /// The socket's other end.
        peer: UnixStream,
        syncer: Syncer,
        heard: Vec<u8>,
        events: Vec<Event>,
    }

    impl Pair {
        fn new(kind: StreamKind) -> Self {
            let (mut host, guest) = (Link::new(Side::Host), Link::new(Side::Guest));
            host.reset(&Token::UNBOUND, Nonce([7; NONCE_BYTES]));
            let (here, peer) = UnixStream::pair().unwrap();
            here.set_nonblocking(true).unwrap();
            let relay = Relay::new(StreamId(0), kind, here.into());
            let syncer = Syncer::start().unwrap();
            let (heard, events) = (Vec::new(), Vec::new());
            let mut pair = Pair { host, guest, id: StreamId(0), relay, peer, syncer, heard, events };
            pair.carry();
            pair.id = match kind.opener() {
                Side::Host => pair.host.open(kind).unwrap(),
                Side::Guest => pair.guest.open(kind).unwrap(),
            };
            pair.carry();
            pair.relay.id = pair.id;
            pair
        }

        /// Lets both links say all that they have to say.
        fn carry(&mut self) {
            loop {
                let (to_guest, to_host) = (self.host.output().to_vec(), self.guest.output().to_vec());
                self.host.sent(to_guest.len());
                self.guest.sent(to_host.len());
                self.guest.push(&to_guest);
                while let Some(event) = self.guest.next().unwrap() {
                    match event {
                        Event::Data { bytes, .. } => self.relay.on_data(&bytes),
                        Event::Ended { .. } => self.relay.on_end(),
                        _ => {}
                    }
                }
                self.host.push(&to_host);
                while let Some(event) = self.host.next().unwrap() {
                    match event {
                        Event::Data { id, bytes } => {
                            self.host.take(id, bytes.len());
                            self.heard.extend(bytes);
                        }
                        other => self.events.push(other),
                    }
                }
                if to_guest.is_empty() && to_host.is_empty() {
                    return;
                }
            }
        }

        fn turn(&mut self) -> Course {
            let (_, course) = self.relay.pump(&mut self.guest, &self.syncer);
            self.carry();
            course
        }
    }

    #[test]
    fn bytes_and_ends_go_both_ways() {
        let mut pair = Pair::new(StreamKind::Outlet);
        pair.host.write(pair.id, b"down");
        pair.host.end(pair.id);
        pair.carry();
        assert_eq!(pair.turn(), Course::Goes);
        let mut all = Vec::new();
        pair.peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"down", "and an end");
        pair.peer.write_all(b"up").unwrap();
        pair.relay.read(None).unwrap();
        assert_eq!(pair.turn(), Course::Goes);
        assert_eq!(pair.heard, b"up");
        drop(pair.peer.shutdown(std::net::Shutdown::Write));
        pair.relay.read(None).unwrap();
        assert_eq!(pair.turn(), Course::Over);
        assert!(pair.events.contains(&Event::Ended { id: pair.id }));
    }

    #[test]
    fn a_word_waits_for_the_disk() {
        let mut pair = Pair::new(StreamKind::Cell);
        pair.peer.write_all(b"word").unwrap();
        pair.relay.read(Some(&mut pair.syncer)).unwrap();
        let ticket = pair.relay.ticket.unwrap();
        // As if the disk were slow: one that is not written yet.
        pair.relay.ticket = Some(pair.syncer.after(ticket));
        pair.turn();
        assert!(pair.heard.is_empty());
        pair.relay.ticket = Some(ticket);
        while !pair.syncer.is_done(ticket) {
            std::thread::yield_now();
        }
        pair.turn();
        assert_eq!(pair.heard, b"word");
    }

    #[test]
    fn whoever_does_not_read_holds_no_more_than_a_window() {
        let mut pair = Pair::new(StreamKind::Outlet);
        let mut sent = 0;
        loop {
            let taken = pair.host.write(pair.id, &[1; 8192]);
            pair.turn();
            sent += taken;
            if taken == 0 && pair.host.output().is_empty() {
                break;
            }
        }
        let held = pair.relay.down.len() - pair.relay.delivered;
        assert!(held <= loopd_domain::limits::LINK_WINDOW_BYTES as usize, "{held} of {sent}");
        assert!(pair.relay.interest().contains(PollFlags::OUT));
        let mut read = 0;
        pair.peer.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 65_536];
        while read < sent {
            read += pair.peer.read(&mut bytes).unwrap_or(0);
            pair.turn();
        }
        assert_eq!(read, sent);
    }

    #[test]
    fn a_socket_that_is_closed_gives_up_what_is_no_cell() {
        for (kind, course) in [(StreamKind::Outlet, Course::Broken), (StreamKind::Cell, Course::Goes)] {
            let mut pair = Pair::new(kind);
            let (gone, _) = UnixStream::pair().unwrap();
            drop(std::mem::replace(&mut pair.peer, gone));
            pair.host.write(pair.id, b"to nobody");
            pair.carry();
            pair.relay.read(None).unwrap();
            pair.turn();
            assert_eq!(pair.turn(), course, "{kind:?}");
            assert!(pair.relay.interest().is_empty(), "it is watched no more");
            pair.host.end(pair.id);
            pair.carry();
            assert_eq!(pair.turn(), Course::Over, "{kind:?}");
        }
    }
}
