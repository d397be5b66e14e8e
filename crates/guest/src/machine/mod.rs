//! The machine's loop: what comes from the host, the launcher, the room and the clock, one after the other.
//!
//! ```text
//!  Booted ─ Prepare ─► Preparing ─ the launcher has a room that waits ─► Prepared ─ Bind ─► Bound ─ the room ends ─► power off
//! ```

mod binding;
mod ending;
mod preparing;
mod streams;

use crate::cgroup::Counter;
use crate::control::Control;
use crate::fault::{Fault, While};
use crate::full::{Fullness, Space};
use crate::ground::Ground;
use crate::launcher::Launcher;
use crate::outlet;
use crate::port::Port;
use crate::relay::Relay;
use crate::sync::{Syncer, Ticket};
use crate::{clock, sys};
use ending::Ending;
use loopd_domain::limits::GUEST_OUTLETS_MAX;
use loopd_protocol::guest::{FromGuest, GuestState, ToGuest, VERSION};
use loopd_protocol::link::{Event, Link, Side, StreamId, StreamKind};
use preparing::Preparing;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The kernel gives no more of a port at once.
const READ_BYTES: usize = 4 << 10;
/// Reads from the port before bytes are moved on, and rounds of both before everybody else has a turn.
const READS: u32 = 32;
const ROUNDS: u32 = 8;
/// Before somebody is let in again for whom there was no memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// How far the machine has come.
enum State {
    Booted,
    Preparing(Preparing),
    Prepared,
    Bound,
    /// It is of no use; why, whoever asks is told.
    Broken(Fault),
}

impl State {
    fn name(&self) -> GuestState {
        match self {
            State::Booted | State::Preparing(_) | State::Broken(_) => GuestState::Booted,
            State::Prepared => GuestState::Prepared,
            State::Bound => GuestState::Bound,
        }
    }
}

pub struct Machine {
    port: Port,
    link: Link,
    control: Control,
    relays: BTreeMap<StreamId, Relay>,
    /// Hosts that have come.
    resets: u64,
    signals: OwnedFd,
    jail: OwnedFd,
    cell: OwnedFd,
    state: State,
    launcher: Option<Launcher>,
    syncer: Syncer,
    disk: Option<Disk>,
    room: Option<Room>,
    ending: Option<Ending>,
}

/// The session's, once it is known.
struct Disk {
    /// Any place on it.
    place: OwnedFd,
    fullness: Fullness,
    /// Answers that a host waits for.
    syncs: Vec<Ticket>,
}

/// What is of the session's room, once it has one.
struct Room {
    outlet: Option<OwnedFd>,
    kills: Counter,
    refusals: Counter,
    /// What has not been told to any host.
    reached: (bool, bool),
}

/// What [`Machine::wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Port,
    Signals,
    Launcher,
    Syncer,
    Outlet,
    Counters,
    Relay(StreamId),
}

impl Machine {
    pub fn new(ground: Ground) -> Result<Self, Fault> {
        let signals = sys::child_signals().while_doing("watching for the end of children")?;
        Ok(Machine {
            port: ground.port,
            link: Link::new(Side::Guest),
            control: Control::default(),
            relays: BTreeMap::new(),
            resets: 0,
            signals,
            jail: ground.jail,
            cell: ground.cell,
            state: State::Booted,
            launcher: None,
            syncer: Syncer::start()?,
            disk: None,
            room: None,
            ending: None,
        })
    }

    /// Until the room has ended, and as much of that as is possible has been told.
    pub fn run(mut self) -> Result<(), Fault> {
        let ended = self.serve();
        if let Err(fault) = &ended {
            self.fail(fault.clone());
            // It may be the port that failed.
            let _ = self.settle();
        }
        ended
    }

    fn serve(&mut self) -> Result<(), Fault> {
        loop {
            self.settle()?;
            if self.is_over()? {
                return Ok(());
            }
            for (source, flags) in self.wait()? {
                self.act(source, flags)?;
            }
        }
    }

    /// Moves all that can be moved without waiting; a host that never stops is left for a while.
    fn settle(&mut self) -> Result<(), Fault> {
        let mut rounds = 0;
        loop {
            self.take_events()?;
            let moved = self.pump() | self.flush()?;
            let came = rounds < ROUNDS && self.read()?;
            if !moved && !came {
                return Ok(());
            }
            rounds += 1;
        }
    }

    /// Takes what the port has. Answers whether something came.
    fn read(&mut self) -> Result<bool, Fault> {
        let mut bytes = [0; READ_BYTES];
        for count in 0..READS {
            let length = self.port.read(&mut bytes)?;
            if length == 0 {
                return Ok(count > 0);
            }
            self.link.push(&bytes[..length]);
            self.take_events()?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        while !self.link.output().is_empty() {
            match self.port.write(self.link.output())? {
                0 => break,
                sent => self.link.sent(sent),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn take_events(&mut self) -> Result<(), Fault> {
        loop {
            match self.link.next() {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) => return Ok(()),
                Err(fault) => {
                    sys::say(&format!("the link: {fault}"));
                    self.forget_host();
                }
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Reset { .. } => {
                self.resets += 1;
                self.forget_host();
            }
            Event::Opened { id, kind: StreamKind::Control } => self.open_control(id),
            Event::Opened { id, kind } => self.open(id, kind),
            Event::Data { id, bytes } if self.control.is(id) => {
                self.control.on_data(&bytes);
                self.link.take(id, bytes.len());
                self.obey()?;
            }
            Event::Data { id, bytes } => match self.relays.get_mut(&id) {
                Some(relay) => relay.on_data(&bytes),
                None => self.link.take(id, bytes.len()),
            },
            Event::Ended { id } | Event::Aborted { id } if self.control.is(id) => {
                self.link.abort(id);
                self.control.closed();
            }
            Event::Ended { id } => {
                if let Some(relay) = self.relays.get_mut(&id) {
                    relay.on_end();
                }
            }
            Event::Aborted { id } => drop(self.relays.remove(&id)),
            // Whoever has something to write tries at each turn.
            Event::Writable { .. } => {}
        }
        Ok(())
    }

    /// What was under way with a host is void.
    fn forget_host(&mut self) {
        self.relays.clear();
        self.control.closed();
        if let Some(disk) = &mut self.disk {
            disk.syncs.clear();
        }
    }

    fn open_control(&mut self, id: StreamId) {
        if self.control.is_open() {
            self.link.abort(id);
            return;
        }
        self.control.opened(id);
        self.control.say(&FromGuest::Ready { version: VERSION, state: self.state.name() });
        if let Some(disk) = &mut self.disk {
            disk.fullness.renew(clock::now());
        }
    }

    fn obey(&mut self) -> Result<(), Fault> {
        loop {
            match self.control.next() {
                Ok(Some(order)) => self.carry_out(order)?,
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.fail(Fault::new("reading an order", fault.to_string()));
                    return Ok(());
                }
            }
        }
    }

    fn carry_out(&mut self, order: ToGuest) -> Result<(), Fault> {
        let done = match order {
            ToGuest::Prepare { authority, root } => self.prepare(authority, root),
            ToGuest::Bind(bind) => self.bind(&bind),
            ToGuest::Wake { entropy, now_ns, disk_bytes } => crate::identity::refresh(&entropy, now_ns).map(|()| {
                if disk_bytes > 0 {
                    crate::session::grow_to(disk_bytes);
                }
                self.control.say(&FromGuest::Awake);
            }),
            ToGuest::Sync => return self.ask_sync(),
            ToGuest::Ping { number } => {
                self.control.say(&FromGuest::Pong { number });
                Ok(())
            }
        };
        if let Err(fault) = done {
            self.fail(fault);
        }
        Ok(())
    }

    fn ask_sync(&mut self) -> Result<(), Fault> {
        match &mut self.disk {
            Some(disk) => disk.syncs.push(self.syncer.ask()?),
            // Nothing has been written.
            None => self.control.say(&FromGuest::Synced),
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        sys::say(&fault.to_string());
        self.control.say(&FromGuest::Failed { doing: fault.doing, reason: fault.reason });
    }

    /// Waits for something to do. What it answers may be out of date when it is acted on.
    fn wait(&self) -> Result<Vec<(Source, PollFlags)>, Fault> {
        let mut sources = vec![Source::Port, Source::Signals];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.port.changes(), PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        if let Some(launcher) = &self.launcher {
            sources.push(Source::Launcher);
            fds.push(PollFd::from_borrowed_fd(launcher.socket(), PollFlags::IN));
        }
        if self.disk.is_some() {
            sources.push(Source::Syncer);
            fds.push(PollFd::from_borrowed_fd(self.syncer.answers(), PollFlags::IN));
        }
        if let Some(room) = &self.room {
            for counter in [&room.kills, &room.refusals] {
                sources.push(Source::Counters);
                fds.push(PollFd::new(counter.file(), PollFlags::PRI));
            }
            if let Some(outlet) = &room.outlet
                && self.may_accept()
            {
                sources.push(Source::Outlet);
                fds.push(PollFd::new(outlet, PollFlags::IN));
            }
        }
        for (id, relay) in &self.relays {
            let interest = relay.interest();
            if !interest.is_empty() {
                sources.push(Source::Relay(*id));
                fds.push(PollFd::from_borrowed_fd(relay.socket(), interest));
            }
        }
        let patience = self.patience().map(clock::timespec);
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).while_doing("waiting"),
        }
        let ready = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    /// How long to wait at most.
    fn patience(&self) -> Option<Duration> {
        if self.port.may_read() {
            return Some(Duration::ZERO);
        }
        let looks = self.disk.as_ref().map(|disk| disk.fullness.next());
        let ending = self.ending.as_ref().map(Ending::deadline);
        let next = looks.into_iter().chain(ending).min()?;
        Some(next.saturating_duration_since(clock::now()))
    }

    fn act(&mut self, source: Source, flags: PollFlags) -> Result<(), Fault> {
        match source {
            Source::Port => self.on_port_change(),
            Source::Signals => self.reap(),
            Source::Launcher => self.hear_launcher(),
            Source::Syncer => self.hear_syncer(),
            Source::Outlet => self.accept(),
            Source::Counters => {
                if let Some(room) = &mut self.room {
                    let (kills, refusals) = (room.kills.rose(), room.refusals.rose());
                    room.reached = (room.reached.0 | kills, room.reached.1 | refusals);
                }
                Ok(())
            }
            Source::Relay(id) => match self.relays.get_mut(&id) {
                Some(relay) if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) => {
                    relay.read((relay.kind() == StreamKind::Cell).then_some(&mut self.syncer))
                }
                _ => Ok(()),
            },
        }
    }

    /// A host that has left is no host of the cell's either: what it said before is still heard, then all of it is void.
    fn on_port_change(&mut self) -> Result<(), Fault> {
        self.port.changed()?;
        if !self.port.has_host() {
            let resets = self.resets;
            while self.resets == resets && self.port.may_read() {
                self.settle()?;
            }
            // The next host may have come meanwhile.
            if self.resets == resets {
                self.forget_host();
            }
        }
        Ok(())
    }

    fn hear_syncer(&mut self) -> Result<(), Fault> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        self.syncer.heard()?;
        let before = disk.syncs.len();
        disk.syncs.retain(|ticket| !self.syncer.is_done(*ticket));
        for _ in disk.syncs.len()..before {
            self.control.say(&FromGuest::Synced);
        }
        Ok(())
    }

    /// Takes leave of children, ours and those that have nobody else.
    fn reap(&mut self) -> Result<(), Fault> {
        let mut drain = [0u8; 1024];
        // Only how often it fired would be in there; which children ended is asked of the kernel below.
        while matches!(rustix::io::read(&self.signals, &mut drain), Ok(1..)) {}
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                // The launcher's end shows at its socket.
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno).while_doing("waiting for children"),
            }
        }
    }

    /// Looks how full the session's disk is, when it is time.
    fn look_at_disk(&mut self) {
        let now = clock::now();
        let Some(disk) = &mut self.disk else { return };
        if now < disk.fullness.next() {
            return;
        }
        let Ok(found) = rustix::fs::fstatvfs(&disk.place) else { return };
        let space = Space {
            used_bytes: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            free_files: found.f_favail,
        };
        if let Some(used_bytes) = disk.fullness.look(space, now) {
            self.control.say(&FromGuest::DiskFull { used_bytes });
        }
    }

    /// Whether one more wish for a connection can be held.
    fn may_accept(&self) -> bool {
        let outlets = self.relays.values().filter(|relay| relay.kind() == StreamKind::Outlet).count();
        self.link.is_up() && self.control.is_open() && outlets < GUEST_OUTLETS_MAX
    }

    fn accept(&mut self) -> Result<(), Fault> {
        while self.may_accept() {
            let Some(listener) = self.room.as_ref().and_then(|room| room.outlet.as_ref()) else { return Ok(()) };
            let socket = match outlet::accept(listener) {
                Ok(Some(socket)) => socket,
                Ok(None) => return Ok(()),
                // No memory is left for it now. It waits, and so does this loop, which would be told of it again at once.
                Err(_) => {
                    std::thread::sleep(EXHAUSTED_PAUSE);
                    return Ok(());
                }
            };
            // Without a stream for it, it is closed: whoever wished for it sees that.
            if let Ok(id) = self.link.open(StreamKind::Outlet) {
                self.relays.insert(id, Relay::new(id, StreamKind::Outlet, socket));
            }
        }
        Ok(())
    }

    /// Tells of limits that were reached, when a host listens.
    fn tell_reached(&mut self) {
        let Some(room) = &mut self.room else { return };
        if room.reached != (false, false) && self.control.is_open() && self.control.is_quiet() {
            let (memory, processes) = std::mem::take(&mut room.reached);
            self.control.say(&FromGuest::Reached { memory, processes });
        }
    }
}
