//! A network namespace with nothing in it but a loopback interface that is up.

use crate::fault::{Fault, While};
use crate::sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::AsFd;

pub(crate) fn loopback_up() -> Result<(), Fault> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .while_doing("opening a socket to configure the loopback interface")?;
    sys::loopback_up(socket.as_fd()).while_doing("bringing the loopback interface up")
}
