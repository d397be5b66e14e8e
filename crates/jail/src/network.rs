//! Network namespaces with nothing in them but a loopback interface that is up.
//!
//! Making one is the dearest single step of a room, so the launcher makes a few while it has nothing else to do. Each is
//! used by one room. When none is left, a room makes its own: a burst is slower, never stuck.

use crate::fault::{Fault, While};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Namespaces that wait for a room.
const SPARE_MAX: usize = 4;

#[derive(Default)]
pub(crate) struct Spares {
    ready: Vec<OwnedFd>,
    /// One could not be made: rooms make their own from now on, and each says what is wrong when it cannot.
    given_up: bool,
}

impl Spares {
    pub(crate) fn wants_more(&self) -> bool {
        !self.given_up && self.ready.len() < SPARE_MAX
    }

    /// Makes one more. The launcher itself moves into it; it has no use for any network.
    pub(crate) fn make(&mut self) {
        match make() {
            Ok(spare) => self.ready.push(spare),
            Err(fault) => {
                eprintln!("loopd-jail: rooms start slower from now on: {fault}");
                self.given_up = true;
            }
        }
    }

    /// Moves the launcher into a spare one, for the next child to inherit. `false`: there is none.
    pub(crate) fn enter(&mut self) -> Result<bool, Fault> {
        let Some(spare) = self.ready.pop() else { return Ok(false) };
        rustix::thread::move_into_link_name_space(spare.as_fd(), Some(LinkNameSpaceType::Network))
            .while_doing("entering a network namespace")?;
        Ok(true)
    }
}

fn make() -> Result<OwnedFd, Fault> {
    sys::unshare(UnshareFlags::NEWNET).while_doing("making a network namespace")?;
    loopback_up()?;
    rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .while_doing("opening a network namespace")
}

pub(crate) fn loopback_up() -> Result<(), Fault> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .while_doing("opening a socket to configure the loopback interface")?;
    sys::loopback_up(socket.as_fd()).while_doing("bringing the loopback interface up")
}
