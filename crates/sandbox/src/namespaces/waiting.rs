//! A room that lives already and has no session: walls complete, cell started, a host's connection made.
//!
//! ```text
//!  make  ─► parked ─► spare directory and place ─► record ─► Start ─► the cell listens
//!  claim ─► directory to `sessions/<id>` ─► the owner's epoch to the record ─► place to `rooms/<id>` ─► Room
//! ```
//!
//! Nothing in it is of any session: the cell learns whose it is from `Attach`, and what to do from `Begin`. Directory and place
//! are moved by name; what the room has mounted is the directory itself, so it moves along.
//!
//! INVARIANT: the record stands before the room can live without its launcher, in the spare place already, so that what a dead
//! server left waiting is found and ended ([`super::spares`]). The directory moves before the place: cut between the two, the
//! session has an empty directory and no room, and the room ends with the spares. The other way round it would have a room on
//! record whose directory is removed under it.

use super::meter::{Disk, Meter};
use super::running::{Running, Seat};
use super::shelves::Shelves;
use super::spares::Ground;
use super::{KIND, Rooms, pool, root};
use crate::room::cgroup::Counters;
use crate::room::guard::Guard;
use crate::room::place::is_in_the_way;
use crate::room::process;
use crate::room::record::Record;
use crate::{Channel, Outlet, Room, RoomOutlet, RoomRoot, RoomSpec, SandboxError, Walls};
use loopd_domain::Epoch;
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{LAYER_GRACE_MS, ROOM_SHAPE_FORGET_MS};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A waiting room is made of layers that it is not on record for: they are wanted for as long as anybody asks for its shape, and
/// stay for longer than that.
const _: () = assert!(ROOM_SHAPE_FORGET_MS < LAYER_GRACE_MS);

/// As the launcher names the cell when it starts it.
const CELL_NAME: &[u8] = b"loopd-cell";
/// How long a room may take until its cell runs, and between two looks.
const COMPLETE_WAIT: Duration = Duration::from_secs(10);
const COMPLETE_PAUSE: Duration = Duration::from_millis(1);

/// Of a room that waits. Below every owner's.
const NOBODYS: Epoch = Epoch(0);

/// What a room is like before it is somebody's. Two sessions of one shape can have each other's waiting room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shape {
    pub limits: RoomLimits,
    pub root: RoomRoot,
    pub outlet: RoomOutlet,
}

impl Shape {
    /// Somebody asked for a root, of which perhaps no room can be made.
    pub(super) fn may_be_impossible(&self) -> bool {
        self.root != RoomRoot::Host
    }

    pub(super) fn of(spec: &RoomSpec) -> Self {
        Shape { limits: spec.limits, root: spec.root.clone(), outlet: spec.outlet.clone() }
    }
}

/// Dropping it ends it; see also [`Rooms::retire`].
pub(super) struct Waiting {
    seat: Seat,
    counters: Counters,
    ground: Ground,
    /// The host's connection, which keeps the cell waiting.
    channel: Channel,
    /// Nobody in the room wishes for anything yet.
    outlet: Option<Box<dyn Outlet>>,
}

impl Waiting {
    fn has_ended(&self) -> bool {
        // What cannot be asked is not given to a session.
        process::has_ended(&self.seat.pidfd).unwrap_or(true)
    }
}

/// Those that wait.
pub(super) struct Waitings {
    shelves: Mutex<Shelves<Waiting>>,
    /// Told to whoever keeps rooms ready.
    pub taken: Arc<Notify>,
}

impl Waitings {
    pub(super) fn new() -> Self {
        Waitings { shelves: Mutex::new(Shelves::new(Instant::now())), taken: Arc::default() }
    }

    pub(super) fn shelves(&self) -> MutexGuard<'_, Shelves<Waiting>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those that wait in vain, and takes leave of those that have ended by themselves, which is an error.
    pub(super) fn clear_out(&self, rooms: &Rooms) -> Result<(), SandboxError> {
        let (surplus, ended) = {
            let mut shelves = self.shelves();
            (shelves.surplus(Instant::now()), shelves.remove(Waiting::has_ended))
        };
        let how = ended.first().map(|waiting| format!("a room that waited ended: {:?}", *waiting.seat.exit.borrow()));
        surplus.into_iter().chain(ended).for_each(|waiting| rooms.retire(waiting));
        how.map_or(Ok(()), |how| Err(SandboxError::Launcher(how)))
    }
}

impl Rooms {
    /// Makes one.
    pub(super) async fn make_waiting(
        self: &Arc<Self>,
        running: &Running,
        shape: &Shape,
    ) -> Result<Waiting, SandboxError> {
        let root = root::on_stage(&self.data.path, &self.roots, &shape.root)?;
        let seat = pool::make(self, running, shape.limits, root).await?;
        let rooms = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || rooms.spares.ground(rooms.ids.as_ref())).await;
        let mut ground = made.map_err(io::Error::other).flatten().map_err(failed)?;
        let entered = match self.enter(running, shape, &seat, &mut ground).await {
            Ok(entered) => complete(&seat).await.map(|()| entered),
            Err(fault) => Err(fault),
        };
        match entered {
            Ok((channel, outlet)) => {
                let counters = Counters::new(&seat.cgroups);
                Ok(Waiting { seat, counters, ground, channel, outlet })
            }
            Err(fault) => {
                self.abandon(seat, ground);
                Err(fault)
            }
        }
    }

    /// Lets the room come to life on ground that is nobody's.
    async fn enter(
        &self,
        running: &Running,
        shape: &Shape,
        seat: &Seat,
        ground: &mut Ground,
    ) -> Result<(Channel, Option<Box<dyn Outlet>>), SandboxError> {
        let (listener, channel) = ground.place.socket().map_err(failed)?;
        let outlet = self.open_outlet(&mut ground.place, &shape.outlet, ground.first).map_err(failed)?;
        ground.place.write(&self.record(NOBODYS, seat)).map_err(failed)?;
        ground.place.write_layers(&shape.root).map_err(failed)?;
        fail::fail_point!("sandbox::waiting_recorded");
        let start = self.order(shape, seat, &ground.directory, &ground.place, ground.first)?;
        running.start(start, listener).await?;
        Ok((channel, outlet))
    }

    /// Gives a waiting room to a session that has nothing yet. `None`: there is no such room, or the session has something.
    pub(super) fn claim_waiting(
        &self,
        spec: &RoomSpec,
        files: &Path,
        path: &Path,
    ) -> Result<Option<Room>, SandboxError> {
        let shape = Shape::of(spec);
        let waiting = loop {
            let taken = self.waiting.shelves().take(&shape, Instant::now());
            // Also when there was none: it may be the first of its shape.
            self.waiting.taken.notify_one();
            match taken {
                Some(ended) if ended.has_ended() => self.retire(ended),
                Some(waiting) => break waiting,
                None => return Ok(None),
            }
        };
        match move_directory(&waiting.ground.directory, files) {
            Ok(()) => {}
            Err(errno) if is_in_the_way(errno) => {
                let unwanted = self.waiting.shelves().put_back(&shape, waiting);
                unwanted.err().into_iter().for_each(|waiting| self.retire(waiting));
                return Ok(None);
            }
            Err(errno) => return Err(SandboxError::Directory { path: files.to_owned(), source: errno.into() }),
        }
        fail::fail_point!("sandbox::directory_moved");
        let disk = Disk { files: files.to_owned(), limit: spec.limits.disk_bytes };
        self.hand_over(waiting, spec.epoch, path, disk)
    }

    /// The rest of a claim, when the directory is the session's.
    fn hand_over(&self, waiting: Waiting, epoch: Epoch, path: &Path, disk: Disk) -> Result<Option<Room>, SandboxError> {
        let Waiting { mut seat, counters, ground, channel, outlet } = waiting;
        let unusable = |source| SandboxError::Directory { path: path.to_owned(), source };
        ground.place.write(&self.record(epoch, &seat)).map_err(unusable)?;
        let place = match ground.place.settle(path) {
            Ok(place) => place,
            Err((place, errno)) if is_in_the_way(errno) => {
                // Somebody was faster, who may know better whose the session is. The room sees its directory, and ends.
                drop(seat);
                place.remove().map_err(unusable)?;
                return Ok(None);
            }
            Err((_, errno)) => return Err(unusable(errno.into())),
        };
        fail::fail_point!("sandbox::place_moved");
        seat.take();
        let guard = Guard::new(path.to_owned(), epoch, seat.process, Arc::clone(&seat.pidfd));
        drop(place);
        let meter = Box::new(Meter::new(counters, disk));
        Ok(Some(Room {
            walls: Walls::NAMESPACES,
            channel,
            outlet,
            exit: seat.exit.clone(),
            meter,
            guard: Box::new(guard),
        }))
    }

    pub(super) fn record(&self, epoch: Epoch, seat: &Seat) -> Record {
        Record { kind: KIND, epoch, boot: self.boot.clone(), process: seat.process, cgroups: seat.cgroups.clone() }
    }

    /// Ends one that no session gets, and removes what was made for it.
    pub(super) fn retire(&self, waiting: Waiting) {
        self.abandon(waiting.seat, waiting.ground);
    }

    fn abandon(&self, seat: Seat, ground: Ground) {
        let pidfd = Arc::clone(&seat.pidfd);
        drop(seat);
        tokio::spawn(async move {
            // If it cannot be waited for, what it has mounted is removed under it: it has nothing to do with it.
            if let Err(fault) = process::ended(&pidfd).await {
                tracing::warn!(%fault, "a room that waited is out of sight");
            }
            let removed = tokio::task::spawn_blocking(move || ground.remove()).await;
            if let Err(fault) = removed.map_err(io::Error::other).flatten() {
                tracing::warn!(%fault, "what was made for a waiting room stays behind");
            }
        });
    }
}

/// Waits until the cell runs. Until then its directory must stay where it is: the launcher looks it up by name.
async fn complete(seat: &Seat) -> Result<(), SandboxError> {
    let begun = Instant::now();
    while begun.elapsed() < COMPLETE_WAIT {
        if process::has_ended(&seat.pidfd).unwrap_or(true) {
            return Err(failed(io::Error::other(format!("it ended: {:?}", *seat.exit.borrow()))));
        }
        if seat.process.runs(CELL_NAME) {
            return Ok(());
        }
        tokio::time::sleep(COMPLETE_PAUSE).await;
    }
    Err(failed(io::Error::other(format!("its cell does not run after {COMPLETE_WAIT:?}"))))
}

/// Moves a directory to where nothing is.
fn move_directory(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The first session of all.
        Err(Errno::NOENT) if to.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) => {
            rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        }
        other => other,
    }
}

fn failed(fault: io::Error) -> SandboxError {
    SandboxError::Launcher(format!("making a room that waits: {fault}"))
}
