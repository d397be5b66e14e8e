//! The room's side of the way out (ADR 6): sockets that are there from the start, and a stub that serves them when they are used.
//!
//! ```text
//!  three sockets, watched ── somebody comes ──► stub (own process) takes them over ── ends ──► a pause ─► watched …
//! ```
//!
//! The stub has a process of its own so that nothing that a room's programs do to it holds up the cell: floods, connections
//! that say nothing, readers that never read. The cell never reads a byte of it. Its memory is its own as well: it is the cell's
//! program, started anew as another. What dies with it are open connections; an address that it gave out reaches nobody until
//! its name is asked for again.
//!
//! Not here: what may be reached. The host decides.

mod connection;
mod dns;
mod flow;
mod names;
mod resolver;
mod stub;
pub mod variables;

use crate::limits::RESTART_PAUSE;
use crate::sys;
use loopd_protocol::{OUTLET, OUTLET_PORTS};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

/// Where DNS is asked; `/etc/resolv.conf` of every room says so.
const DNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
/// Where programs that know of proxies find one.
pub const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3128);
/// The first argument that makes this program the stub. The outlet's path and the ports follow.
const STUB: &CStr = c"network";

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("`{OUTLET_PORTS}` is `{0}`; accepted: numbers from 1 to 65535 with commas between them")]
    Ports(String),
    #[error("`{OUTLET}` is `{0}`; accepted: the path of a socket, in UTF-8")]
    Outlet(String),
    #[error("the socket for {what} on {address}: {source}")]
    Socket { what: &'static str, address: SocketAddrV4, source: io::Error },
}

/// The cell's hold on it.
#[derive(Debug)]
pub struct Network {
    /// DNS over UDP and over TCP, and the proxy socket.
    sockets: [OwnedFd; 3],
    /// To make the stub of this program.
    arguments: [CString; 4],
    stub: Option<Pid>,
    not_before: Option<Instant>,
}

impl Network {
    /// From what this process was started with; `None` where the room has no way out.
    pub fn from_environment(variables: &[(OsString, OsString)]) -> Result<Option<Self>, NetworkError> {
        let setting =
            |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_os_str());
        let Some(outlet) = setting(OUTLET) else { return Ok(None) };
        let ports = setting(OUTLET_PORTS).unwrap_or_default().to_string_lossy().into_owned();
        parse_ports(&ports)?;
        let text = |text: &OsStr| text.to_str().and_then(|text| CString::new(text).ok());
        let path = text(outlet).ok_or_else(|| NetworkError::Outlet(outlet.to_string_lossy().into_owned()))?;
        let list = text(OsStr::new(&ports)).ok_or(NetworkError::Ports(ports))?;
        Ok(Some(Network {
            sockets: open_sockets()?,
            arguments: [c"loopd-network".into(), STUB.into(), path, list],
            stub: None,
            not_before: None,
        }))
    }

    /// The stub's process, which is no tool's.
    pub fn stub(&self) -> Option<Pid> {
        self.stub
    }

    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.is_watched() {
            fds.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        }
    }

    /// When to call [`Network::advance`] even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.not_before
    }

    fn is_watched(&self) -> bool {
        self.stub.is_none() && self.not_before.is_none()
    }

    /// Starts the stub if somebody has come. An error says why it could not be started; it is tried again.
    pub fn advance(&mut self, now: Instant) -> io::Result<()> {
        self.not_before.take_if(|at| now >= *at);
        if !self.is_watched() || !self.is_used()? {
            return Ok(());
        }
        match self.start() {
            Ok(pid) => {
                self.stub = Some(pid);
                Ok(())
            }
            Err(fault) => {
                self.not_before = Some(now + RESTART_PAUSE);
                Err(fault)
            }
        }
    }

    /// A child of the cell has ended; perhaps it was the stub.
    pub fn reaped(&mut self, pid: Pid, now: Instant) {
        if self.stub.take_if(|stub| *stub == pid).is_some() {
            self.not_before = Some(now + RESTART_PAUSE);
        }
    }

    fn is_used(&self) -> io::Result<bool> {
        let mut fds: Vec<_> = self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    fn start(&self) -> io::Result<Pid> {
        if let Some(pid) = sys::fork()? {
            return Ok(pid);
        }
        // Nobody hears what it would say; its status tells that it was never the stub.
        let _ = self.become_stub();
        sys::exit_child(126)
    }

    /// In the child. What else the cell has open is closed by exec.
    fn become_stub(&self) -> io::Error {
        let prepare = || -> io::Result<()> {
            rustix::process::setsid()?;
            sys::default_signals();
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            place(&self.sockets)
        };
        match prepare() {
            Ok(()) => sys::exec(c"/proc/self/exe", &self.arguments, &[]),
            Err(fault) => fault,
        }
    }
}

/// Puts the sockets where the stub looks for them. Each may lie where another belongs, so all are moved out of the way first.
fn place(sockets: &[OwnedFd; 3]) -> io::Result<()> {
    let first_free: RawFd = stub::SOCKETS.iter().max().map_or(0, |last| last + 1);
    let mut moved = Vec::new();
    for socket in sockets {
        moved.push(rustix::io::fcntl_dupfd_cloexec(socket, first_free)?);
    }
    for (socket, number) in moved.iter().zip(stub::SOCKETS) {
        sys::place_fd(socket.as_raw_fd(), number)?;
    }
    Ok(())
}

fn open_sockets() -> Result<[OwnedFd; 3], NetworkError> {
    let udp = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        bind(&socket, &DNS)?;
        Ok(socket)
    };
    let named =
        |what, address| move |errno: rustix::io::Errno| NetworkError::Socket { what, address, source: errno.into() };
    Ok([
        udp().map_err(named("DNS over UDP", DNS))?,
        stub::tcp_listener(DNS).map_err(named("DNS over TCP", DNS))?,
        stub::tcp_listener(PROXY).map_err(named("the proxy", PROXY))?,
    ])
}

fn parse_ports(ports: &str) -> Result<Vec<u16>, NetworkError> {
    let refuse = || NetworkError::Ports(ports.to_owned());
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    // No port at all is fine: then only the proxy socket leads out.
    ports.split(',').filter(|text| !text.is_empty()).map(|text| port(text).ok_or_else(refuse)).collect()
}

/// Becomes the stub if that is what the arguments ask for, and comes back only to say what is wrong.
pub fn stub_of(arguments: &[OsString]) -> Option<io::Error> {
    let [_, word, outlet, ports] = arguments else { return None };
    if word.as_encoded_bytes() != STUB.to_bytes() {
        return None;
    }
    Some(match (outlet.to_str(), parse_ports(&ports.to_string_lossy())) {
        (Some(outlet), Ok(ports)) => stub::run(outlet, &ports),
        (None, _) => io::Error::other(NetworkError::Outlet(outlet.to_string_lossy().into_owned())),
        (_, Err(fault)) => io::Error::other(fault),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers() {
        assert_eq!(parse_ports("80,443").unwrap(), [80, 443]);
        assert_eq!(parse_ports("").unwrap(), Vec::<u16>::new());
        for bad in ["0", "80;443", "65536", "-1", "80, 443"] {
            assert!(parse_ports(bad).unwrap_err().to_string().contains("accepted"), "{bad}");
        }
    }
}
