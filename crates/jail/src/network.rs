//! A network namespace with nothing in it but a loopback interface that is up.
//!
//! Its ports are free for everybody, as nobody but the room's own users is there: the cell's stub needs those of DNS, HTTP and
//! HTTPS, and has no power over the namespace.

use crate::fault::{Fault, While};
use crate::sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// A machine that has no address but 127.0.0.1 has no IPv4, as C libraries see it, and then they look for no host that is asked
/// for with `AI_ADDRCONFIG`. Not one that the cell's stub gives out.
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 1);

pub(crate) fn loopback_up() -> Result<(), Fault> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .while_doing("opening a socket to configure the loopback interface")?;
    sys::loopback_up(socket.as_fd()).while_doing("bringing the loopback interface up")?;
    sys::add_loopback_address(socket.as_fd(), SECOND).while_doing("giving the loopback interface a second address")
}

/// In the current network namespace, before its maker gives up power over it. `/proc` must be one of the host's or of a process
/// in it.
pub(crate) fn open_low_ports() -> Result<(), Fault> {
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").while_doing("opening the ports below 1024")
}
