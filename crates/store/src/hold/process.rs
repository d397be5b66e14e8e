//! A process by number and start time: numbers are given again, the pair is not until the machine restarts.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks from the machine's start to the process's.
    pub started: u64,
}

impl Process {
    pub fn this() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Process { pid, started: start_time(pid)? })
    }

    /// Asks it to end in order. False when it is not there any more.
    pub fn terminate(&self) -> io::Result<bool> {
        self.signal(Signal::TERM)
    }

    /// Ends it, stopped or not, and waits until it is gone. False when it was not there any more.
    pub fn kill(&self, patience: Duration) -> io::Result<bool> {
        let Some(process) = self.find()? else { return Ok(false) };
        pidfd_send_signal(&process, Signal::KILL)?;
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut ends = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut ends, Some(&patience))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} does not end", self.pid))),
            _ => Ok(true),
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(process) = self.find()? else { return Ok(false) };
        pidfd_send_signal(&process, signal)?;
        Ok(true)
    }

    /// The process itself, so that no other one of the same number is meant. Refused when it is another user's.
    fn find(&self) -> io::Result<Option<OwnedFd>> {
        let number = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = number else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        // Read after it is held: what is seen now is the one that is held, or already its successor.
        match start_time(self.pid) {
            Ok(started) if started == self.started => {}
            Ok(_) => return Ok(None),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(fault),
        }
        let owner = std::fs::metadata(format!("/proc/{}", self.pid))?.uid();
        if owner != geteuid().as_raw() {
            let text = format!("process {} belongs to user {owner}, not to this one", self.pid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Some(process))
    }
}

fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; the start is the 22nd field, the 20th after it.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let field = rest.and_then(|rest| rest.split(' ').nth(19)).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat does not say when the process began")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_ended_and_no_other_of_its_number() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("starts");
        let process = Process { pid: child.id(), started: start_time(child.id()).expect("there") };
        let other = Process { started: process.started + 1, ..process };
        assert!(!other.kill(Duration::from_secs(1)).expect("answered"));
        assert!(child.try_wait().expect("a child").is_none());
        // A process that is stopped ends as well.
        assert!(process.signal(Signal::STOP).expect("stopped"));
        assert!(process.kill(Duration::from_secs(10)).expect("ended"));
        child.wait().expect("reaped");
        assert!(!process.terminate().expect("answered"), "gone");
    }
}
