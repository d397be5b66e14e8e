//! The port to the host, of a virtio console.
//!
//! As long as no host is there, the kernel says of it that it hung up, again and again; so it is watched for changes only, and what
//! can be done is found out by trying.

use crate::disk::appears;
use crate::fault::{Fault, While};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the VMM calls it.
const NAME: &str = "loopd";
const PORTS: &str = "/sys/class/virtio-ports";
/// Looks for the port, with pauses of a millisecond.
const LOOKS: u32 = 20_000;

pub struct Port {
    file: OwnedFd,
    changes: OwnedFd,
    may_read: bool,
    may_write: bool,
    has_host: bool,
}

impl Port {
    pub fn open() -> Result<Self, Fault> {
        const DOING: &str = "opening the port to the host";
        let path = find()?;
        appears(&path)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).while_doing(DOING)?;
        let changes = epoll::create(CreateFlags::CLOEXEC).while_doing(DOING)?;
        let watched = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&changes, &file, EventData::new_u64(0), watched).while_doing(DOING)?;
        Ok(Port { file, changes, may_read: true, may_write: true, has_host: true })
    }

    /// Becomes readable when [`Port::changed`] is to be called.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    pub fn changed(&mut self) -> Result<(), Fault> {
        let mut events = Vec::with_capacity(1);
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.changes, rustix::buffer::spare_capacity(&mut events), Some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => {}
            other => drop(other.while_doing("watching the port to the host")?),
        }
        (self.may_read, self.may_write) = (true, true);
        self.has_host = !events.iter().any(|event| { event.flags }.contains(EventFlags::HUP));
        Ok(())
    }

    /// Whether a host was there at the last change.
    pub fn has_host(&self) -> bool {
        self.has_host
    }

    /// Whether [`Port::read`] has not yet said that there is nothing.
    pub fn may_read(&self) -> bool {
        self.may_read
    }

    /// How many bytes came; none: nothing is there, or no host.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        if !self.may_read {
            return Ok(0);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.file, &mut *bytes)) {
            Ok(0) | Err(Errno::AGAIN) => {
                self.may_read = false;
                Ok(0)
            }
            other => other.while_doing("reading from the host"),
        }
    }

    /// How many bytes went; none: it is full, or no host is there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if !self.may_write {
            return Ok(0);
        }
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.file, bytes)) {
            Ok(0) | Err(Errno::AGAIN) => {
                self.may_write = false;
                Ok(0)
            }
            other => other.while_doing("writing to the host"),
        }
    }
}

/// The kernel makes ports some time after their device.
fn find() -> Result<PathBuf, Fault> {
    for _ in 0..LOOKS {
        if let Some(name) = named(Path::new(PORTS), NAME) {
            return Ok(Path::new("/dev").join(name));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(Fault::new("looking for the port to the host", format!("no port is called `{NAME}`")))
}

/// The kernel's name of the port with this name.
fn named(ports: &Path, name: &str) -> Option<String> {
    let entries = fs::read_dir(ports).ok()?.flatten();
    let mut found =
        entries.filter(|entry| fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim() == name));
    found.next()?.file_name().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport0p0", Some("console\n")), ("vport1p1", Some("loopd\n")), ("vport2p1", None)] {
            fs::create_dir(ports.path().join(port)).unwrap();
            if let Some(name) = name {
                fs::write(ports.path().join(port).join("name"), name).unwrap();
            }
        }
        assert_eq!(named(ports.path(), "loopd").as_deref(), Some("vport1p1"));
        assert_eq!(named(ports.path(), "other"), None);
        assert_eq!(named(&ports.path().join("absent"), "loopd"), None);
    }
}
