//! The room has ended, and the machine follows: what the cell last said and how it ended are told, the disk is written.
//!
//! ```text
//!  end() ─► the room's last processes are killed ─► cell's bytes passed on, disk written ─► Ended ─► said ─► power off
//!                                                   └──────────── no longer than a deadline ────────────┘
//! ```

use super::Machine;
use crate::fault::Fault;
use crate::sync::Ticket;
use crate::{cgroup, clock, session, sys};
use loopd_domain::limits::GUEST_ENDING_MS;
use loopd_protocol::guest::{FromGuest, GuestEnd};
use loopd_protocol::link::StreamKind;
use std::time::{Duration, Instant};

pub(super) struct Ending {
    end: GuestEnd,
    deadline: Instant,
    ticket: Ticket,
    is_said: bool,
}

impl Ending {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Machine {
    pub(super) fn end(&mut self, end: GuestEnd) -> Result<(), Fault> {
        if self.ending.is_some() {
            return Ok(());
        }
        cgroup::kill()?;
        let ticket = self.syncer.ask()?;
        let deadline = clock::now() + Duration::from_millis(GUEST_ENDING_MS);
        self.ending = Some(Ending { end, deadline, ticket, is_said: false });
        Ok(())
    }

    /// Whether there is nothing left to do. To be asked after all that could be moved has been moved.
    pub(super) fn is_over(&mut self) -> Result<bool, Fault> {
        let Some(ending) = &mut self.ending else { return Ok(false) };
        let is_late = clock::now() >= ending.deadline;
        if !ending.is_said {
            let is_heard = self.relays.values().all(|relay| relay.kind() != StreamKind::Cell || relay.is_told());
            let is_written = self.syncer.is_done(ending.ticket);
            if !(is_late || is_heard && is_written) {
                return Ok(false);
            }
            ending.is_said = true;
            self.control.say(&FromGuest::Ended { end: ending.end.clone() });
            self.settle()?;
        }
        let is_sent = !self.control.is_open() || (self.control.is_quiet() && self.link.output().is_empty());
        if is_late || is_sent {
            self.close_disk();
            return Ok(true);
        }
        Ok(false)
    }

    /// Leaves the disk as one that nobody has to mend. Where that fails, its journal does.
    fn close_disk(&mut self) {
        if self.disk.take().is_some()
            && let Err(fault) = session::close()
        {
            sys::say(&fault.to_string());
        }
    }
}
