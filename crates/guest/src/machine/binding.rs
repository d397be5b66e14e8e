//! The machine becomes a session's: entropy, time, a name and a token of its own first, then disk and room.

use super::{Disk, Machine, Room, State};
use crate::cgroup::{self, Counter};
use crate::fault::{Fault, While};
use crate::full::Fullness;
use crate::launcher::ROOM;
use crate::session::FIRST_ID;
use crate::{clock, identity, outlet, session};
use loopd_jail::wire::{Outlet, Start};
use loopd_protocol::guest::{Bind, BindRoom, FromGuest};
use loopd_protocol::link::Token;
use std::os::fd::AsFd;

impl Machine {
    pub(super) fn bind(&mut self, bind: &Bind) -> Result<(), Fault> {
        const DOING: &str = "binding";
        match (&self.state, &bind.room) {
            (State::Prepared, _) | (State::Booted, None) => {}
            (State::Broken(fault), _) => return Err(fault.clone()),
            (State::Bound, _) => return Err(Fault::new(DOING, "the machine is a session's already")),
            (State::Booted | State::Preparing(_), _) => return Err(Fault::new(DOING, "the machine is not prepared")),
        }
        let token = Token::from_hex(&bind.token)
            .ok_or_else(|| Fault::new(DOING, "the token is not as many bytes in hexadecimal as it should have"))?;
        identity::refresh(&bind.entropy, bind.now_ns)?;
        identity::set_name(&bind.host_name)?;
        self.link.set_token(&token);
        // Whatever fails from here on, there is no way back to a machine that has no session.
        self.state = State::Bound;
        match self.furnish(bind) {
            Ok(()) => self.control.say(&FromGuest::Bound),
            Err(fault) => {
                self.room = None;
                self.fail(fault.clone());
                self.state = State::Broken(fault);
            }
        }
        Ok(())
    }

    fn furnish(&mut self, bind: &Bind) -> Result<(), Fault> {
        session::make_place()?;
        let place = session::mount()?;
        self.syncer.set_disk(place.try_clone().while_doing("holding the session's disk")?)?;
        self.disk = Some(Disk { place, fullness: Fullness::new(clock::now()), syncs: Vec::new() });
        match &bind.room {
            None => Ok(()),
            Some(room) => {
                self.room = Some(self.start(room)?);
                Ok(())
            }
        }
    }

    /// Gives the room that waits its session.
    fn start(&mut self, room: &BindRoom) -> Result<Room, Fault> {
        let Some(launcher) = &self.launcher else {
            return Err(Fault::new("giving the room its session", "no room waits"));
        };
        cgroup::limit(room)?;
        let (kills, refusals) = (Counter::kills()?, Counter::refusals()?);
        launcher.show(session::DIRECTORY)?;
        let listener = outlet::for_cell()?;
        let way_out = room.outlet_ports.as_ref().map(|_| outlet::open()).transpose()?;
        let start = Start {
            room: ROOM,
            directory: session::DIRECTORY.as_bytes().to_vec(),
            ids: Some(FIRST_ID),
            open_files: room.open_files,
            file_bytes: room.file_bytes,
            // A file in memory counts as memory: full before the room is killed for it.
            tmp_bytes: room.memory_bytes / 2,
            processes: None,
            memory_bytes: None,
            orphan_seconds: room.orphan_seconds,
            outlet: room
                .outlet_ports
                .as_ref()
                .map(|ports| Outlet { directory: outlet::DIRECTORY.as_bytes().to_vec(), ports: ports.clone() }),
        };
        launcher.give(start, listener.as_fd())?;
        Ok(Room { outlet: way_out, kills, refusals, reached: (false, false) })
    }
}
