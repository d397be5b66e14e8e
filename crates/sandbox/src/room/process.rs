//! Processes as the host sees them, from one server to the next: a number alone may mean somebody else by then.

#![allow(unsafe_code)]

use crate::RoomExit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that no other is mistaken for until the machine restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub pid: u32,
    /// In the kernel's ticks since it started.
    pub started: u64,
}

impl Process {
    /// Stands in a record while nobody knows yet which process it will be. No process is it.
    pub(crate) const UNKNOWN: Process = Process { pid: 0, started: 0 };

    /// The process that has this number now.
    pub(crate) fn with(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name, in brackets, may hold anything; the start time is the 20th field after it.
        let started = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Process { pid, started })
    }

    pub(crate) fn own() -> io::Result<Self> {
        Self::with(std::process::id())
            .ok_or_else(|| io::Error::other("/proc/self/stat does not say when this process began"))
    }

    pub(crate) fn exists(self) -> bool {
        Self::with(self.pid) == Some(self)
    }

    /// Whether it has become the program that is started under this name.
    pub(crate) fn runs(self, name: &[u8]) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(name)
    }

    /// A hold on it, if it has not ended.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Asked after it is held, so that the answer is about what is held.
        Ok((self.exists() && !has_ended(&pidfd)?).then_some(pidfd))
    }
}

/// `loopd-<pid>-<start time>-<number>`: what a server makes for the time of its life carries its name, so that the next one
/// can tell what is left over. The number tells the sandboxes of one process apart.
pub(crate) fn server_name() -> io::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Process { pid, started } = Process::own()?;
    Ok(format!("loopd-{pid}-{started}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// The server that has this name.
pub(crate) fn server_of(name: &str) -> Option<Process> {
    let mut fields = name.strip_prefix("loopd-")?.splitn(3, '-');
    let (pid, started, _) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// Differs after each start of the machine.
pub(crate) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    ended_within(pidfd, Duration::ZERO)
}

/// Whether it ends within a time. Blocks.
pub(crate) fn ended_within(pidfd: &OwnedFd, wait: Duration) -> io::Result<bool> {
    let wait =
        Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&wait))? > 0)
}

/// Waits for the end of a process. Of a room's first process it comes after the end of all others in the room.
pub(crate) async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    // One descriptor can be waited on but once.
    let own = pidfd.try_clone()?;
    // SAFETY: an `OwnedFd` is open and one and the same descriptor for as long as it lives; nobody takes it out of there.
    let waited = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
    let mut ready = waited.readable().await?;
    // Once ended it stays so.
    ready.retain_ready();
    Ok(())
}

/// How a process that has ended did so, as far as the kernel tells this one. A child of a launcher that died can have become
/// this process's own, if it is the first of its machine; then it is reaped with that.
pub(crate) fn exit(pidfd: &OwnedFd) -> RoomExit {
    use std::os::fd::AsFd;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok().flatten();
    let told = status.map(|status| (status.exit_status(), status.terminating_signal()));
    match told {
        Some((Some(code), _)) => RoomExit::Code(code),
        Some((_, Some(signal))) => RoomExit::Signal(signal),
        _ => RoomExit::Gone,
    }
}

/// Kills a process, and with a room's first one the room. One that is gone already cannot be killed, and need not be.
pub(crate) fn kill(pidfd: &OwnedFd) {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => tracing::error!(%errno, "a room cannot be killed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_servers_name_is_its_process() {
        let name = server_name().unwrap();
        assert_eq!(server_of(&name), Some(Process::own().unwrap()));
        assert_ne!(server_name().unwrap(), name);
        assert_eq!(server_of("loopd-server"), None);
        assert_eq!(server_of("session-1-2"), None);
    }

    #[tokio::test]
    async fn a_process_is_held_until_it_ends_and_nobody_else_is() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::with(child.id()).unwrap();
        assert!(Process { started: process.started + 1, ..process }.open().unwrap().is_none());
        let pidfd = process.open().unwrap().unwrap();
        assert!(!has_ended(&pidfd).unwrap());
        kill(&pidfd);
        ended(&pidfd).await.unwrap();
        assert!(has_ended(&pidfd).unwrap());
        // It has ended though nobody has reaped it.
        assert!(process.open().unwrap().is_none());
        assert_eq!(exit(&pidfd), RoomExit::Signal(9));
        assert_eq!(exit(&pidfd), RoomExit::Gone);
        assert!(child.wait().is_err());
    }
}
