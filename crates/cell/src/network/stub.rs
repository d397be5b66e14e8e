//! The stub: a process of the cell's user that answers DNS, accepts connections and carries them to the host's end.
//!
//! ```text
//!  program ── "where is example.com?" ──► resolver ─► names: 127.1.7.9, and a listening socket on each port
//!          ── connects to 127.1.7.9:443 ──► CONNECT example.com:443 ─► outlet socket ══► the host's egress proxy
//!          ── connects to 127.0.0.1:3128 ────────── bytes as they are ─► outlet socket ══► ″
//! ```
//!
//! It has one thread, no policy and no secret. All that programs of the room can do to it they do to themselves: it has
//! bounded numbers of everything, waits for nobody, and when it dies the cell starts it again.

use super::connection::{Connection, Side, Target};
use super::dns::{Answer, Wanted};
use super::flow::BUFFER_BYTES;
use super::names::Names;
use super::resolver::Resolver;
use crate::limits::{EXHAUSTION_PAUSE, NETWORK_BACKLOG, NETWORK_CONNECTIONS_MAX, NETWORK_NAMES_MAX, ROUND_ACCEPTS_MAX};
use crate::{clock, sys};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};
use rustix::process::{DumpableBehavior, Resource, set_dumpable_behavior};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

/// Where the stub finds what it takes over: DNS over UDP and over TCP, and the proxy socket.
pub const SOCKETS: [RawFd; 3] = [3, 4, 5];
/// Descriptors that are neither a host's nor a connection's.
const DESCRIPTORS_OF_ITS_OWN: usize = 32;

/// Serves until it is killed; comes back only to say what is wrong.
pub fn run(outlet: &str, ports: &[u16]) -> io::Error {
    match Stub::open(outlet, ports) {
        Ok(stub) => stub.serve(),
        Err(fault) => fault,
    }
}

struct Stub {
    resolver: Resolver,
    proxy: OwnedFd,
    outlet: SocketAddrUnix,
    ports: Vec<u16>,
    names: Names<Vec<Listener>>,
    connections: Vec<Connection>,
    connections_max: usize,
    /// Nothing is accepted before.
    exhausted_until: Option<Instant>,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    port: u16,
}

/// Whose a watched descriptor is.
#[derive(Debug, Clone)]
enum Source {
    Resolver,
    Proxy,
    Listener(Target),
    Connection(usize, Side),
}

impl Stub {
    fn open(outlet: &str, ports: &[u16]) -> io::Result<Self> {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let [udp, tcp, proxy] = SOCKETS.map(sys::inherited);
        let (names_max, connections_max) = budget(ports.len());
        Ok(Stub {
            resolver: Resolver::new(udp?, tcp?),
            proxy: proxy?,
            outlet: SocketAddrUnix::new(outlet)?,
            ports: ports.to_vec(),
            names: Names::new(names_max),
            connections: Vec::new(),
            connections_max,
            exhausted_until: None,
        })
    }

    fn serve(mut self) -> io::Error {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let now = clock::now();
            let ready = match self.wait(now) {
                Ok(ready) => ready,
                Err(fault) => return fault.into(),
            };
            let now = clock::now();
            self.exhausted_until.take_if(|until| now >= *until);
            self.carry(&ready, &mut buffer, now);
            self.accept(&ready, now);
            self.answer(&mut buffer, now);
        }
    }

    /// Waits until something is ready, and says what.
    fn wait(&self, now: Instant) -> Result<Vec<(Source, PollFlags)>, Errno> {
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        self.resolver.poll_fds(self.exhausted_until.is_none(), &mut fds);
        sources.resize(fds.len(), Source::Resolver);
        if self.accepts() {
            for (source, socket) in self.listeners() {
                fds.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
                sources.push(source);
            }
        }
        for (at, connection) in self.connections.iter().enumerate() {
            for (side, socket, flags) in connection.watched() {
                fds.push(PollFd::from_borrowed_fd(socket, flags));
                sources.push(Source::Connection(at, side));
            }
        }
        let deadlines = self.connections.iter().filter_map(Connection::deadline);
        let deadline = deadlines.chain(self.resolver.deadline()).chain(self.exhausted_until).min();
        let timeout = deadline.map(|at| clock::timespec(at.saturating_duration_since(now)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(fault) => return Err(fault),
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, fd)| (source, fd.revents())).collect())
    }

    fn accepts(&self) -> bool {
        self.connections.len() < self.connections_max && self.exhausted_until.is_none()
    }

    fn listeners(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let hosts = self.names.hosts().iter().flat_map(|host| {
            host.listeners.iter().map(|listener| {
                let target = Target { name: host.name.clone(), address: host.address, port: listener.port };
                (Source::Listener(target), listener.socket.as_fd())
            })
        });
        std::iter::once((Source::Proxy, self.proxy.as_fd())).chain(hosts)
    }

    fn carry(&mut self, ready: &[(Source, PollFlags)], buffer: &mut [u8], now: Instant) {
        for (source, flags) in ready {
            if let Source::Connection(at, side) = source {
                self.connections[*at].advance(*side, *flags, buffer, now);
            }
        }
        for connection in &mut self.connections {
            connection.tick(&self.outlet, now);
        }
        let names = &mut self.names;
        self.connections.retain(|connection| {
            if let (true, Some(host)) = (connection.is_over(), connection.host()) {
                names.disconnect(host.address);
            }
            !connection.is_over()
        });
    }

    /// Takes connections from the sockets that have some, before any host is forgotten.
    fn accept(&mut self, ready: &[(Source, PollFlags)], now: Instant) {
        for (source, _) in ready {
            let target = match source {
                Source::Proxy => None,
                Source::Listener(target) => Some(target.clone()),
                Source::Resolver | Source::Connection(..) => continue,
            };
            for _ in 0..ROUND_ACCEPTS_MAX {
                if !self.accepts() {
                    return;
                }
                let Some(socket) = self.listener(target.as_ref()) else { break };
                match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok(client) => self.begin(client, target.clone(), now),
                    Err(Errno::INTR | Errno::CONNABORTED) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => self.exhausted_until = Some(now + EXHAUSTION_PAUSE),
                }
            }
        }
    }

    fn listener(&self, target: Option<&Target>) -> Option<BorrowedFd<'_>> {
        let Some(target) = target else { return Some(self.proxy.as_fd()) };
        let host = self.names.hosts().iter().find(|host| host.address == target.address)?;
        host.listeners.iter().find(|listener| listener.port == target.port).map(|listener| listener.socket.as_fd())
    }

    fn begin(&mut self, client: OwnedFd, target: Option<Target>, now: Instant) {
        // Small pieces must not wait for more; where that cannot be had, they do.
        let _ = sockopt::set_tcp_nodelay(&client, true);
        if let Some(target) = &target {
            self.names.connect(target.address);
        }
        // One that is over at once is taken leave of in the next round, like any other.
        self.connections.push(Connection::new(client, target, &self.outlet, now));
    }

    fn answer(&mut self, buffer: &mut [u8], now: Instant) {
        let (names, ports) = (&mut self.names, &self.ports);
        self.resolver.advance(buffer, now, |wanted| match wanted {
            Wanted::Address(name) => match local(name) {
                Some(address) => Answer::Address(address),
                None => match names.resolve(name, |address| listen_on(address, ports)) {
                    Ok(Some(address)) => Answer::Address(address),
                    // All are in use, or something else listens there already.
                    Ok(None) | Err(_) => Answer::Failure,
                },
            },
            Wanted::Name(address) => match names.name_of(*address) {
                Some(name) => Answer::Name(name.to_owned()),
                None => Answer::NoSuchName,
            },
            Wanted::Other => Answer::Nothing,
            Wanted::Impossible => Answer::NoSuchName,
            Wanted::Foreign => Answer::NotImplemented,
        });
        if self.exhausted_until.is_none() && !self.resolver.accept(now) {
            self.exhausted_until = Some(now + EXHAUSTION_PAUSE);
        }
    }
}

/// Names that mean the room itself (RFC 6761, 6.3).
fn local(name: &str) -> Option<Ipv4Addr> {
    (name == "localhost" || name.ends_with(".localhost")).then_some(Ipv4Addr::LOCALHOST)
}

/// How many hosts and connections there can be with the descriptors that this process may have.
fn budget(ports: usize) -> (usize, usize) {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let half = limit.saturating_sub(DESCRIPTORS_OF_ITS_OWN) / 2;
    let names = (half / ports.max(1)).clamp(1, NETWORK_NAMES_MAX);
    // Each has two sockets.
    let connections = (half / 2).clamp(1, NETWORK_CONNECTIONS_MAX);
    (names, connections)
}

/// Listens on as many of the ports as are free. A program of the room that listens on a port of every address has taken it.
fn listen_on(address: Ipv4Addr, ports: &[u16]) -> Result<Vec<Listener>, Errno> {
    let mut listeners = Vec::with_capacity(ports.len());
    let mut fault = None;
    for port in ports {
        match tcp_listener(SocketAddrV4::new(address, *port)) {
            Ok(socket) => listeners.push(Listener { socket, port: *port }),
            Err(errno) => fault = Some(errno),
        }
    }
    match fault {
        Some(errno) if listeners.is_empty() => Err(errno),
        _ => Ok(listeners),
    }
}

pub fn tcp_listener(address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // A host that is asked for again soon must not find its own old connections in the way.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, NETWORK_BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_fits_into_the_descriptors_of_the_process() {
        let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap() as usize;
        for ports in [1, 2, 16] {
            let (names, connections) = budget(ports);
            assert!(names >= 1 && names * ports + 2 * connections + DESCRIPTORS_OF_ITS_OWN <= limit.max(4096));
        }
    }

    #[test]
    fn the_room_itself_is_not_looked_for_outside() {
        assert_eq!(local("app.localhost"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(local("localhost.example"), None);
    }
}
