//! Streams that are no talk about the machine: to the cell, from the room's programs, of files.

use super::{Machine, State};
use crate::relay::{Course, Relay};
use crate::{clock, outlet, worker};
use loopd_domain::limits::{CELL_HOSTS_WAITING_MAX, GUEST_WORKERS_MAX};
use loopd_protocol::guest::FromGuest;
use loopd_protocol::link::{StreamId, StreamKind};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

impl Machine {
    /// The host begins a stream. One that leads nowhere is given up at once.
    pub(super) fn open(&mut self, id: StreamId, kind: StreamKind) {
        match self.other_end(kind) {
            Ok(socket) => drop(self.relays.insert(id, Relay::new(id, kind, socket))),
            Err(reason) => {
                self.control.say(&FromGuest::Log { text: format!("a stream for {kind:?} is given up: {reason}") });
                self.link.abort(id);
            }
        }
    }

    fn other_end(&self, kind: StreamKind) -> Result<OwnedFd, String> {
        let open = self.relays.values().filter(|relay| relay.kind() == kind).count();
        let most = match kind {
            StreamKind::Cell => CELL_HOSTS_WAITING_MAX as usize,
            _ => GUEST_WORKERS_MAX,
        };
        if open >= most {
            return Err(format!("{open} are open; accepted: up to {most}"));
        }
        match (kind, &self.state) {
            (StreamKind::Cell, State::Bound) if self.room.is_some() => {
                outlet::to_cell().map_err(|errno: Errno| errno.to_string())
            }
            (StreamKind::ReadFiles | StreamKind::WriteFiles, State::Bound) => {
                worker::start(kind).map_err(|fault| fault.to_string())
            }
            _ => Err("there is no such thing here now".to_owned()),
        }
    }

    /// Moves bytes between sockets and link. Answers whether something was moved.
    pub(super) fn pump(&mut self) -> bool {
        self.look_at_disk();
        self.tell_reached();
        let mut moved = self.control.pump(&mut self.link);
        let mut done = Vec::new();
        for (id, relay) in &mut self.relays {
            let (relayed, course) = relay.pump(&mut self.link, &self.syncer);
            moved |= relayed;
            match course {
                Course::Goes => {}
                Course::Over => done.push(*id),
                Course::Broken => {
                    self.link.abort(*id);
                    done.push(*id);
                }
            }
        }
        for id in done {
            self.relays.remove(&id);
        }
        if moved && let Some(disk) = &mut self.disk {
            disk.fullness.wake(clock::now());
        }
        moved
    }
}
