//! Writing the session's disk, beside the loop: a host is passed a word of the cell only when all is on disk that was written
//! before the word was said.
//!
//! ```text
//!  ask() ─► ticket ─► thread: syncfs ─► done() says so
//! ```
//!
//! The thread is there before the disk is known, so that it is part of what copies of a machine are made of.
//! Who asks while a disk is written waits for the next time; all of them wait for the same one.

use crate::fault::{Fault, While};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of the thread's stack: it makes three system calls.
const STACK_BYTES: usize = 64 << 10;

/// Names a moment: what was written before it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

pub struct Syncer {
    asked: u64,
    shared: Arc<Shared>,
}

struct Shared {
    disk: OnceLock<OwnedFd>,
    wanted: AtomicU64,
    done: AtomicU64,
    failed: AtomicBool,
    /// Counts what the thread has not looked at, and what the loop has not.
    asks: OwnedFd,
    answers: OwnedFd,
}

impl Syncer {
    pub fn start() -> Result<Self, Fault> {
        const DOING: &str = "starting the thread that writes the disk";
        let shared = Arc::new(Shared {
            disk: OnceLock::new(),
            wanted: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            asks: eventfd(0, EventfdFlags::CLOEXEC).while_doing(DOING)?,
            answers: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).while_doing(DOING)?,
        });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || theirs.serve()).while_doing(DOING)?;
        Ok(Syncer { asked: 0, shared })
    }

    /// What is written. Once, before it is first asked for.
    pub fn set_disk(&self, disk: OwnedFd) -> Result<(), Fault> {
        self.shared.disk.set(disk).map_err(|_| Fault::new("taking a disk", "there is one already"))
    }

    /// Has all that is written until now put on the disk.
    pub fn ask(&mut self) -> Result<Ticket, Fault> {
        self.asked += 1;
        self.shared.wanted.store(self.asked, Ordering::Release);
        rustix::io::write(&self.shared.asks, &1u64.to_ne_bytes()).while_doing("asking for the disk to be written")?;
        Ok(Ticket(self.asked))
    }

    /// Becomes readable when more is done.
    pub fn answers(&self) -> BorrowedFd<'_> {
        self.shared.answers.as_fd()
    }

    /// Takes note that answers have been looked at.
    pub fn heard(&self) -> Result<(), Fault> {
        let mut count = [0; 8];
        // Nothing there: somebody looked before.
        let _ = rustix::io::read(&self.shared.answers, &mut count);
        match self.shared.failed.load(Ordering::Acquire) {
            true => Err(Fault::new("writing the session's disk", "the kernel reports an error")),
            false => Ok(()),
        }
    }

    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.shared.done.load(Ordering::Acquire) >= ticket.0
    }
}

impl Shared {
    fn serve(&self) {
        let mut count = [0; 8];
        while rustix::io::retry_on_intr(|| rustix::io::read(&self.asks, &mut count)).is_ok() {
            let wanted = self.wanted.load(Ordering::Acquire);
            // Without a disk nothing is written.
            match self.disk.get().map(rustix::fs::syncfs) {
                None | Some(Ok(())) => self.done.store(wanted, Ordering::Release),
                Some(Err(_)) => self.failed.store(true, Ordering::Release),
            }
            // It can only fail when the count is full, and then the loop wakes up anyway.
            let _ = rustix::io::write(&self.answers, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
impl Syncer {
    /// A moment that is not there yet.
    pub fn after(&self, ticket: Ticket) -> Ticket {
        Ticket(ticket.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn a_ticket_is_done_when_the_disk_was_written_after_it() {
        let place = tempfile::tempdir().unwrap();
        let disk = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut syncer = Syncer::start().unwrap();
        syncer.set_disk(disk).unwrap();
        let tickets: Vec<Ticket> = (0..3).map(|_| syncer.ask().unwrap()).collect();
        let last = *tickets.last().unwrap();
        while !syncer.is_done(last) {
            poll(&mut [PollFd::from_borrowed_fd(syncer.answers(), PollFlags::IN)], None).unwrap();
            syncer.heard().unwrap();
        }
        assert!(tickets.iter().all(|ticket| syncer.is_done(*ticket)));
        assert!(!syncer.is_done(Ticket(last.0 + 1)));
    }
}
