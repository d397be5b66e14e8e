//! One connection of a program, from its acceptance to its end.
//!
//! ```text
//!            to a host                        2xx
//!  dialing ────────────► asking (CONNECT …) ───────► carrying ─► over
//!     │  └──────── to the proxy socket ──────────────►  ▲
//!     │                     └── other ─► refused ── the program speaks HTTP in clear: the answer is its answer
//!     │                                     └────── anything else, or nothing ─► over
//!     └── nobody there for too long ─► over
//! ```

use super::flow::Flow;
use crate::limits::{
    ANSWER_HEAD_BYTES_MAX, FIRST_WORDS_PATIENCE, HALF_OPEN_PATIENCE, LINGER, OUTLET_PATIENCE, OUTLET_RETRY,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

#[derive(Debug)]
pub struct Connection {
    client: OwnedFd,
    /// `None`: it speaks with the proxy itself.
    host: Option<Target>,
    state: State,
}

/// Whom a program wants to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    /// Which stands for it in the room.
    pub address: Ipv4Addr,
    pub port: u16,
}

#[derive(Debug)]
enum State {
    Dialing { until: Instant, next: Instant },
    Asking { outlet: OwnedFd, answer: Vec<u8> },
    Refused { outlet: OwnedFd, answer: Vec<u8>, until: Instant },
    Carrying { outlet: OwnedFd, up: Flow, down: Flow, over_at: Option<Instant>, outlet_is_gone: bool },
    Over,
}

/// Which of a connection's two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Outlet,
}

impl Connection {
    pub fn new(client: OwnedFd, host: Option<Target>, outlet: &SocketAddrUnix, now: Instant) -> Self {
        let mut connection =
            Connection { client, host, state: State::Dialing { until: now + OUTLET_PATIENCE, next: now } };
        connection.tick(outlet, now);
        connection
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub fn host(&self) -> Option<&Target> {
        self.host.as_ref()
    }

    /// What is waited for, on which socket.
    pub fn watched(&self) -> Vec<(Side, BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Dialing { .. } | State::Over => Vec::new(),
            State::Asking { outlet, .. } => vec![(Side::Outlet, outlet.as_fd(), PollFlags::IN)],
            State::Refused { .. } => vec![(Side::Client, self.client.as_fd(), PollFlags::IN)],
            State::Carrying { outlet, up, down, outlet_is_gone, .. } => {
                let flags = |reads: &Flow, writes: &Flow| {
                    let mut flags = PollFlags::empty();
                    flags.set(PollFlags::IN, reads.wants_to_read());
                    flags.set(PollFlags::OUT, writes.wants_to_write());
                    flags
                };
                // A socket that is not waited for is left out: its end would be told again and again.
                let client = Some(flags(up, down)).filter(|flags| !flags.is_empty());
                // But that nobody reads there any more must be known even when nothing is to be sent.
                let tells_its_end = down.is_done() && !outlet_is_gone;
                let outlet_flags = Some(flags(down, up)).filter(|flags| !flags.is_empty() || tells_its_end);
                let sides = [(Side::Client, self.client.as_fd(), client), (Side::Outlet, outlet.as_fd(), outlet_flags)];
                sides.into_iter().filter_map(|(side, fd, flags)| Some((side, fd, flags?))).collect()
            }
        }
    }

    /// When [`Connection::tick`] must be called even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Dialing { next, .. } => Some(*next),
            State::Refused { until, .. } => Some(*until),
            State::Carrying { over_at, .. } => *over_at,
            State::Asking { .. } | State::Over => None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, outlet: &SocketAddrUnix, now: Instant) {
        match &mut self.state {
            State::Dialing { until, next } if now >= *next => match dial(outlet) {
                Ok(socket) => self.begin(socket),
                // A server that starts again listens again.
                Err(_) if now < *until => *next = now + OUTLET_RETRY,
                Err(_) => self.state = State::Over,
            },
            State::Carrying { over_at: Some(at), .. } | State::Refused { until: at, .. } if now >= *at => {
                self.state = State::Over;
            }
            _ => {}
        }
    }

    /// One of the sockets is ready.
    pub fn advance(&mut self, side: Side, ready: PollFlags, buffer: &mut [u8], now: Instant) {
        match self.state {
            State::Asking { .. } => self.hear_answer(buffer, now),
            State::Refused { .. } => self.tell_refusal(),
            State::Dialing { .. } | State::Carrying { .. } | State::Over => {
                if self.carry(side, ready, buffer, now).is_err() {
                    self.state = State::Over;
                }
            }
        }
    }

    fn begin(&mut self, outlet: OwnedFd) {
        let Some(Target { name, port, .. }) = &self.host else {
            self.state = carrying(outlet, Flow::default(), Flow::default());
            return;
        };
        let head = format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n");
        // An empty socket takes a few hundred bytes at once.
        self.state = match send(&outlet, head.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == head.len() => State::Asking { outlet, answer: Vec::new() },
            _ => State::Over,
        };
    }

    fn hear_answer(&mut self, buffer: &mut [u8], now: Instant) {
        let State::Asking { outlet, answer } = &mut self.state else { return };
        let room = ANSWER_HEAD_BYTES_MAX - answer.len();
        let room = room.min(buffer.len());
        match recv(&*outlet, &mut buffer[..room], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return self.state = State::Over,
            Ok((_, read)) => answer.extend_from_slice(&buffer[..read]),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.state = State::Over,
        }
        match read_head(answer) {
            Head::Incomplete if answer.len() < ANSWER_HEAD_BYTES_MAX => {}
            Head::Accepted { length } => {
                let first = answer.split_off(length);
                self.carry_on(Flow::default(), Flow::beginning_with(first));
            }
            Head::Refused => {
                if let State::Asking { outlet, answer } = std::mem::replace(&mut self.state, State::Over) {
                    self.state = State::Refused { outlet, answer, until: now + FIRST_WORDS_PATIENCE };
                    self.tell_refusal();
                }
            }
            Head::Incomplete => self.state = State::Over,
        }
    }

    /// Hands on the answer of a host that refuses, if the program would understand it.
    fn tell_refusal(&mut self) {
        let is_in_clear = match self.first_words() {
            Words::None => return,
            Words::Clear => true,
            Words::Other => false,
        };
        if let (true, State::Refused { answer, .. }) = (is_in_clear, &mut self.state) {
            let answer = std::mem::take(answer);
            self.carry_on(Flow::discarding(), Flow::beginning_with(answer));
        } else {
            self.state = State::Over;
        }
    }

    fn carry_on(&mut self, up: Flow, down: Flow) {
        if let State::Asking { outlet, .. } | State::Refused { outlet, .. } =
            std::mem::replace(&mut self.state, State::Over)
        {
            self.state = carrying(outlet, up, down);
        }
    }

    /// What the program speaks: its port says so, or what it has sent.
    fn first_words(&self) -> Words {
        if self.host.as_ref().is_some_and(|host| host.port == 80) {
            return Words::Clear;
        }
        let mut begin = [0; 8];
        match recv(&self.client, &mut begin, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Err(Errno::AGAIN | Errno::INTR) => Words::None,
            Ok((_, read)) => {
                let method = begin[..read].split(|byte| *byte == b' ').next().unwrap_or_default();
                let is_method = method.len() >= 3 && method.iter().all(u8::is_ascii_uppercase);
                if is_method { Words::Clear } else { Words::Other }
            }
            Err(_) => Words::Other,
        }
    }

    fn carry(&mut self, side: Side, ready: PollFlags, buffer: &mut [u8], now: Instant) -> Result<(), Errno> {
        let State::Carrying { outlet, up, down, over_at, outlet_is_gone } = &mut self.state else { return Ok(()) };
        let gone = PollFlags::HUP | PollFlags::ERR;
        let (client, outlet) = (self.client.as_fd(), outlet.as_fd());
        let (readable, writable) = (ready.intersects(PollFlags::IN | gone), ready.intersects(PollFlags::OUT | gone));
        let (goes_up, goes_down) = match side {
            Side::Client => (readable && up.wants_to_read(), writable && down.wants_to_write()),
            Side::Outlet => (writable && up.wants_to_write(), readable && down.wants_to_read()),
        };
        if goes_up {
            up.advance(client, outlet, buffer)?;
        }
        if goes_down {
            down.advance(outlet, client, buffer)?;
        }
        if down.is_discarding() {
            // The program is gone.
            return Err(Errno::PIPE);
        }
        if side == Side::Outlet && down.is_done() && ready.intersects(gone) {
            *outlet_is_gone = true;
            up.discard();
        }
        match (up.is_done(), down.is_done()) {
            (true, true) => self.state = State::Over,
            // All has been said. To close now, with bytes of the program unread, could take the answer from it.
            (false, true) if up.is_discarding() => *over_at = over_at.or(Some(now + LINGER)),
            // The program has said all, or is gone: which of the two only an answer would show. Begun anew with each piece.
            (true, false) => *over_at = Some(now + HALF_OPEN_PATIENCE),
            _ => {}
        }
        Ok(())
    }
}

fn carrying(outlet: OwnedFd, up: Flow, down: Flow) -> State {
    State::Carrying { outlet, up, down, over_at: None, outlet_is_gone: false }
}

/// A connection to the host's end. It is there at once, or not at all.
fn dial(outlet: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&socket, outlet)?;
    Ok(socket)
}

/// What a program has said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    None,
    /// A request of HTTP.
    Clear,
    Other,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Incomplete,
    /// It takes so many bytes; what follows is the host's.
    Accepted {
        length: usize,
    },
    Refused,
}

/// Reads no more than the status (RFC 9112, 4).
fn read_head(answer: &[u8]) -> Head {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Head::Incomplete };
    let is_success = match answer {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', b'2', a, b, ..] => {
            a.is_ascii_digit() && b.is_ascii_digit()
        }
        _ => false,
    };
    if is_success { Head::Accepted { length: end + 4 } } else { Head::Refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(now: Instant) -> (Connection, OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = || rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let ((client, program), (outlet, host)) = (pair(), pair());
        let state = carrying(outlet, Flow::default(), Flow::default());
        let mut connection = Connection { client, host: None, state };
        connection.advance(Side::Client, PollFlags::IN, &mut [0; 99], now);
        (connection, program, host)
    }

    #[test]
    fn a_program_that_has_said_all_may_wait_only_so_long() {
        let start = crate::clock::now();
        let nowhere = SocketAddrUnix::new("/nowhere").unwrap();
        let (mut connection, program, host) = carried(start);
        assert_eq!(connection.deadline(), None, "one that may still speak may be silent");
        rustix::net::shutdown(&program, rustix::net::Shutdown::Write).unwrap();
        connection.advance(Side::Client, PollFlags::IN, &mut [0; 99], start);
        assert_eq!(connection.deadline(), Some(start + HALF_OPEN_PATIENCE));
        // An answer on its way prolongs it.
        send(&host, b"piece", SendFlags::NOSIGNAL).unwrap();
        connection.advance(Side::Outlet, PollFlags::IN, &mut [0; 99], start + LINGER);
        connection.tick(&nowhere, start + HALF_OPEN_PATIENCE);
        assert!(!connection.is_over());
        connection.tick(&nowhere, start + LINGER + HALF_OPEN_PATIENCE);
        assert!(connection.is_over());
    }

    #[test]
    fn when_the_host_is_gone_nobody_is_waited_for() {
        let start = crate::clock::now();
        let (mut connection, program, host) = carried(start);
        drop(host);
        connection.advance(Side::Outlet, PollFlags::IN | PollFlags::HUP, &mut [0; 99], start);
        assert!(!connection.is_over() && connection.watched().iter().all(|(side, ..)| *side == Side::Client));
        assert_eq!(connection.deadline(), Some(start + LINGER));
        drop(program);
        connection.advance(Side::Client, PollFlags::IN, &mut [0; 99], start);
        assert!(connection.is_over());
    }

    #[test]
    fn only_a_success_opens_the_way() {
        assert_eq!(read_head(b"HTTP/1.1 200 OK\r\n\r\nxy"), Head::Accepted { length: 19 });
        assert_eq!(read_head(b"HTTP/1.0 204\r\nA: b\r\n\r\n"), Head::Accepted { length: 22 });
        assert_eq!(read_head(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Head::Incomplete);
        assert_eq!(read_head(b""), Head::Incomplete);
        for other in ["HTTP/1.1 403 Forbidden", "HTTP/1.1 2", "HTTP/1.1 100 Continue", "200 OK", "HTTP/2.0 200 OK"] {
            assert_eq!(read_head(format!("{other}\r\n\r\n").as_bytes()), Head::Refused, "{other}");
        }
    }
}
