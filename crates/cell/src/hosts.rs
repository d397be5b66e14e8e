//! Who this room works for: hosts connect, one after the other, and the one with the highest epoch is obeyed.
//!
//! ```text
//!  connection ─► waiting ── Attach, epoch not below the highest ──► the host ── gone, or a later one attaches ──► closed
//!                   └────── anything else ──► closed
//! ```
//!
//! A host that was only asleep finds its connection closed: nothing that it still says is heard. When there is no host, the
//! room goes on with what runs; when none has come for a while, it gives up. Before the first host has said who it is, a connection
//! that stays open keeps the room waiting. What frames mean is `room`'s business.

use crate::channel::{Channel, ChannelError};
use loopd_domain::{Epoch, SessionId};
use loopd_protocol::{FromCell, ToCell, VERSION};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Connections that have not said who they are. The oldest makes way for the next.
const WAITING_MAX: usize = 4;

#[derive(Debug)]
pub struct Hosts {
    listener: OwnedFd,
    waiting: VecDeque<Channel>,
    host: Option<Channel>,
    /// Of the last host that attached, and whose room this is.
    attached: Option<(SessionId, Epoch)>,
    alone_since: Instant,
    patience: Duration,
}

/// What a host wants.
#[allow(clippy::large_enum_variant, reason = "made one at a time, to be looked at at once")]
#[derive(Debug)]
pub enum Heard {
    /// There is a new host. Whatever the one before wanted does not count any more.
    Attached,
    Frame(ToCell),
}

impl Hosts {
    /// Takes over a listening stream socket; the tools will not inherit it.
    pub fn new(listener: OwnedFd, patience: Duration, now: Instant) -> Result<Self, ChannelError> {
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Hosts { listener, waiting: VecDeque::new(), host: None, attached: None, alone_since: now, patience })
    }

    /// Epoch of the host, for what is said to it.
    pub fn epoch(&self) -> Option<Epoch> {
        self.host.as_ref().and(self.attached.as_ref()).map(|(_, epoch)| *epoch)
    }

    /// When to give up, unless a host comes.
    pub fn gives_up_at(&self) -> Option<Instant> {
        let is_kept = self.attached.is_none() && !self.waiting.is_empty();
        (self.host.is_none() && !is_kept).then(|| self.alone_since + self.patience)
    }

    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        for channel in self.waiting.iter().chain(&self.host) {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, channel.is_full());
            fds.push(PollFd::from_borrowed_fd(channel.fd(), flags));
        }
    }

    /// Takes in connections and bytes. Nothing that a connection does is a fault of this room.
    pub fn read(&mut self, now: Instant) -> Result<(), ChannelError> {
        self.accept()?;
        for channel in self.waiting.iter_mut().chain(&mut self.host) {
            if let Err(fault) = channel.read() {
                close(channel, &fault);
            }
        }
        self.part(now);
        Ok(())
    }

    /// What has been said, in order; a host that attaches first.
    pub fn next(&mut self, now: Instant) -> Option<Heard> {
        while let Some(at) = self.waiting.iter().position(|channel| channel.has_frame() || !channel.is_open()) {
            if self.waiting.remove(at).is_some_and(|channel| self.admit(channel)) {
                return Some(Heard::Attached);
            }
        }
        let host = self.host.as_mut()?;
        match host.next() {
            Ok(Some(ToCell::Attach { .. })) => host.close("it is attached already"),
            Ok(Some(frame)) => return Some(Heard::Frame(frame)),
            Ok(None) => return None,
            Err(fault) => close(host, &fault),
        }
        self.part(now);
        None
    }

    /// To the host, when there is one; it asks again when it comes back.
    pub fn send(&mut self, frame: &FromCell) -> Result<(), ChannelError> {
        self.host.as_mut().map_or(Ok(()), |host| host.send(frame))
    }

    pub fn send_preview(&mut self, frame: &FromCell) -> Result<(), ChannelError> {
        self.host.as_mut().map_or(Ok(()), |host| host.send_preview(frame))
    }

    pub fn flush(&mut self) -> Result<(), ChannelError> {
        self.host.as_mut().map_or(Ok(()), Channel::flush)
    }

    fn accept(&mut self) -> Result<(), ChannelError> {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.waiting.push_back(Channel::new(socket)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(fault) => return Err(fault.into()),
            }
            if self.waiting.len() > WAITING_MAX {
                self.waiting.pop_front();
            }
        }
    }

    /// Makes a connection the host's, if its first frame says that it may be.
    fn admit(&mut self, mut channel: Channel) -> bool {
        let (version, session, epoch) = match channel.next() {
            Ok(Some(ToCell::Attach { version, session, epoch })) => (version, session, epoch),
            Ok(Some(_)) => return refuse(channel, "the first frame of a connection is `attach`"),
            Ok(None) => return false,
            Err(fault) => return refuse(channel, &fault.to_string()),
        };
        if version != VERSION {
            let text = format!("the host speaks version `{version}` of the protocol; accepted: {VERSION}");
            return refuse(channel, &text);
        }
        match &self.attached {
            Some((own, _)) if *own != session => return refuse(channel, "this is the room of another session"),
            Some((_, highest)) if *highest > epoch => {
                let text = format!("epoch `{}` is over; accepted: from {}", epoch.0, highest.0);
                return refuse(channel, &text);
            }
            _ => {}
        }
        self.attached = Some((session, epoch));
        self.host = Some(channel);
        true
    }

    /// Takes leave of connections that are closed.
    fn part(&mut self, now: Instant) {
        // Those that have said something before they closed are looked at in `next`.
        let were_waiting = !self.waiting.is_empty();
        self.waiting.retain(|channel| channel.is_open() || channel.has_frame());
        if self.attached.is_none() && were_waiting && self.waiting.is_empty() {
            self.alone_since = now;
        }
        if self.host.take_if(|host| !host.is_open() && !host.has_frame()).is_some() {
            self.alone_since = now;
        }
    }
}

fn close(channel: &mut Channel, fault: &ChannelError) {
    channel.close(&fault.to_string());
}

/// Says why not, as far as the other end listens, and hangs up.
fn refuse(mut channel: Channel, why: &str) -> bool {
    channel.close(why);
    false
}
