//! Landlock: a second wall behind mounts. Whatever becomes writable by a mistake elsewhere stays closed to the room, and signals
//! and abstract sockets end at it.
//!
//! ```text
//!  everything                      read, execute
//!  a session's directories, /tmp   all but device nodes
//!  /dev, /proc                     write to what is there
//! ```
//!
//! A kernel that has less of it gives what it has. The first version forbids moving a file from one directory to another, which
//! tools cannot do without; there, as without any, rooms do with their other walls, and `loopd doctor` says so.

use crate::fault::{Fault, While};
use crate::mounts;
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Rights over files, as the kernel numbers them (`LANDLOCK_ACCESS_FS_*`).
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Version 2: moving and linking from one directory to another.
const REFER: u64 = 1 << 13;
/// Version 3.
const TRUNCATE: u64 = 1 << 14;
/// Version 5: asking devices for more than to read and write.
const IOCTL_DEV: u64 = 1 << 15;

/// Version 6 (`LANDLOCK_SCOPE_*`).
const SCOPE_ABSTRACT_SOCKETS: u64 = 1 << 0;
const SCOPE_SIGNALS: u64 = 1 << 1;

/// The first version that tools can live with.
const VERSION_MIN: i64 = 2;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
/// What is there may be written to, and nothing made or removed.
const WRITE: u64 = WRITE_FILE | TRUNCATE;
/// Device nodes nobody makes.
const OWN: u64 =
    READ | WRITE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER;
const ALL: u64 = OWN | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV;

/// What a kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landlock {
    files: u64,
    scopes: u64,
}

/// Rules, not in force yet.
pub(crate) struct Rules {
    known: Landlock,
    set: OwnedFd,
}

impl Landlock {
    /// Of this kernel; `None` where it has none that rooms can use.
    pub(crate) fn here() -> Option<Self> {
        Self::of(sys::landlock_version().ok()?)
    }

    fn of(version: i64) -> Option<Self> {
        let newer = [(3, TRUNCATE), (5, IOCTL_DEV)];
        let unknown: u64 = newer.iter().filter(|(since, _)| version < *since).map(|(_, right)| right).sum();
        let scopes = if version >= 6 { SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS } else { 0 };
        (version >= VERSION_MIN).then_some(Landlock { files: ALL & !unknown, scopes })
    }

    /// Rules for a room that has moved in, without a session.
    pub(crate) fn rules(self) -> Result<Rules, Fault> {
        let set = sys::landlock_create(self.files, self.scopes).while_doing("making Landlock rules")?;
        let rules = Rules { known: self, set };
        rules.allow("/", READ)?;
        for place in mounts::places_in_memory() {
            rules.allow(&format!("/{place}"), OWN)?;
        }
        rules.allow("/dev", READ | WRITE | IOCTL_DEV)?;
        rules.allow("/proc", READ | WRITE)?;
        Ok(rules)
    }
}

impl Rules {
    /// Adds the places of a session, in a room that has moved in.
    pub(crate) fn allow_session(&self) -> Result<(), Fault> {
        mounts::session_places().try_for_each(|place| self.allow(&format!("/{place}"), OWN))
    }

    fn allow(&self, path: &str, rights: u64) -> Result<(), Fault> {
        let place = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let place = place.while_doing(&format!("opening {path} for Landlock"))?;
        sys::landlock_allow(self.set.as_fd(), place.as_fd(), rights & self.known.files)
            .while_doing(&format!("allowing {path} by Landlock"))
    }

    /// Puts this process and all that come of it under the rules, for good. Needs no_new_privs.
    pub(crate) fn enforce(&self) -> Result<(), Fault> {
        sys::landlock_enforce(self.set.as_fd()).while_doing("putting Landlock in force")
    }
}

/// Tries it: with rules that allow reading alone, writing must fail.
pub(crate) fn trial() -> Result<(), Fault> {
    let version = sys::landlock_version().while_doing("asking for its version")?;
    let Some(known) = Landlock::of(version) else {
        return Err(Fault::new(format!("version {version} forbids what tools need"), Errno::NOTSUP));
    };
    rustix::thread::set_no_new_privs(true).while_doing("giving up new privileges")?;
    let set = sys::landlock_create(known.files, known.scopes).while_doing("making rules")?;
    let rules = Rules { known, set };
    rules.allow("/", READ)?;
    rules.enforce()?;
    match rustix::fs::openat(CWD, "/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(()),
        _ => Err(Fault::new("it is in force but refuses nothing", Errno::NOTSUP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_is_asked_for_what_it_knows() {
        assert_eq!((Landlock::of(0), Landlock::of(1)), (None, None));
        let files = |version| Landlock::of(version).map(|known| known.files);
        assert_eq!(files(2), Some(ALL & !TRUNCATE & !IOCTL_DEV));
        assert_eq!(files(4), Some(ALL & !IOCTL_DEV));
        assert_eq!((files(5), files(6), files(99)), (Some(ALL), Some(ALL), Some(ALL)));
        let scopes = |version| Landlock::of(version).map(|known| known.scopes);
        assert_eq!((scopes(5), scopes(6)), (Some(0), Some(3)));
        assert_eq!(ALL, (1 << 16) - 1);
        assert_eq!(OWN & (MAKE_CHAR | MAKE_BLOCK), 0);
    }
}
