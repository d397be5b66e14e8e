//! How a launcher comes to itself: its descriptors, its configuration, and, for an ordinary user, power over itself.

use crate::fault::{Fault, While};
use crate::wire::Order;
use crate::{CHANNEL, channel, sys};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::UnshareFlags;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

/// Descriptors below this one are the cell's places, so the launcher keeps its own above.
const FIRST_DESCRIPTOR: i32 = CHANNEL + 1;

/// Makes sure that 0 to 3 are open, so that no descriptor made later lies there.
pub(crate) fn fill_low_descriptors() -> Result<(), Fault> {
    loop {
        let filler = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).while_doing("opening /dev/null")?;
        if filler.as_raw_fd() >= FIRST_DESCRIPTOR {
            return Ok(());
        }
        let _kept = filler.into_raw_fd();
    }
}

/// As many descriptors as this process may have: a room that is being built takes one. Rooms have a limit of their own.
pub(crate) fn raise_descriptor_limit() -> Result<(), Fault> {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .while_doing("raising its limit of open files")
}

/// The same thing under a number above the cell's places, closed by an exec.
pub(crate) fn high(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST_DESCRIPTOR).while_doing("moving a descriptor")
}

/// What a launcher is told once.
pub(crate) struct Configuration {
    pub data: Vec<u8>,
    pub authority: Vec<u8>,
    pub roots: Vec<Vec<u8>>,
    /// The cell's program.
    pub cell: OwnedFd,
}

pub(crate) fn configuration(control: &OwnedFd) -> Result<Configuration, Fault> {
    let (packet, descriptors) = channel::receive(control, true)
        .while_doing("waiting for the configuration")?
        .ok_or_else(|| Fault::new("waiting for the configuration", Errno::PIPE))?;
    let mut descriptors = descriptors.into_iter();
    match (Order::decode(&packet), descriptors.next()) {
        (Ok(Order::Configure { data, authority, roots }), Some(cell)) => {
            Ok(Configuration { data, authority, roots, cell })
        }
        _ => Err(Fault::new("reading the configuration", Errno::BADMSG)),
    }
}

/// An ordinary user's launcher becomes root of a user namespace, whose only user it is.
pub(crate) fn become_root_of_own_namespace() -> Result<(), Fault> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(UnshareFlags::NEWUSER).while_doing("making a user namespace")?;
    for (file, map) in [
        // The kernel wants this before it lets somebody without privileges map a group.
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("0 {} 1", gid.as_raw())),
        ("uid_map", format!("0 {} 1", uid.as_raw())),
    ] {
        std::fs::write(format!("/proc/self/{file}"), map).while_doing(&format!("writing /proc/self/{file}"))?;
    }
    Ok(())
}
