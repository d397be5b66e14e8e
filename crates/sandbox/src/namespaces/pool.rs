//! Keeps rooms and directories ready for sessions to come, in the background and one after the other.
//!
//! Three kinds of readiness: rooms that live already ([`super::waiting`]), for a session that is new; rooms that are parked, whose
//! walls wait for a session's directories, for a session that had a room before and for bursts; and directories and places.
//!
//! Making them costs what it hides: so it rests after each claim and while rooms are being started, whose way it would stand
//! in; for longer when one of each shape still waits, as a session's first steps are its busiest. A burst empties the pool, and then rooms are made when they are asked for: slower, never stuck.

use super::Rooms;
use super::running::{Running, Seat};
use crate::SandboxError;
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{ROOMS_PARKED_MAX, ROOMS_WAITING_HALVE_MS};
use loopd_jail::wire::Root;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A room that has just been started is busiest then.
const REST: Duration = Duration::from_millis(3);
/// While the next session would find a room, nothing is urgent.
const PATIENCE: Duration = Duration::from_millis(25);
/// What has failed fails again for a while.
const RETRY: Duration = Duration::from_secs(5);
/// How often to look whether rooms wait in vain.
const LOOK: Duration = Duration::from_millis(ROOMS_WAITING_HALVE_MS);

/// Counts rooms that are being started.
#[derive(Default)]
pub(super) struct Starting(AtomicUsize);

pub(super) struct Counted<'a>(&'a AtomicUsize);

impl Starting {
    pub(super) fn count(&self) -> Counted<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(&self.0)
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs until the launcher or the sandbox is gone.
pub(super) async fn keep_filled(weak: Weak<Rooms>, running: Arc<Running>) {
    while !running.is_over() {
        tokio::time::sleep(if running.parking_fault().is_some() { RETRY } else { REST }).await;
        be_patient(&weak).await;
        let Some(rooms) = weak.upgrade() else { return };
        match fill(&rooms, &running).await {
            Ok(true) => {
                let taken = Arc::clone(&rooms.waiting.taken);
                drop(rooms);
                tokio::select! {
                    () = running.changed.notified() => {}
                    () = taken.notified() => {}
                    () = tokio::time::sleep(LOOK) => clear_dead(&weak).await,
                }
            }
            Ok(false) => {}
            Err(fault) => running.note_parking_fault(fault.to_string()),
        }
    }
}

/// A server from which this one took the sessions over may have ended since.
async fn clear_dead(rooms: &Weak<Rooms>) {
    let Some(rooms) = rooms.upgrade() else { return };
    if let Err(fault) = on_disk(&rooms, |rooms| rooms.spares.clear_dead()).await {
        tracing::warn!(%fault, "spares of dead servers stay behind");
    }
}

/// Until the sessions of just now are past their first steps, or another one has come.
async fn be_patient(rooms: &Weak<Rooms>) {
    let rooms = rooms.upgrade().filter(|rooms| rooms.waiting.shelves().has_each());
    let taken = rooms.map(|rooms| Arc::clone(&rooms.waiting.taken));
    if let Some(taken) = taken {
        // Over or not: it goes on.
        _ = tokio::time::timeout(PATIENCE, taken.notified()).await;
    }
}

/// `false`: what is missing has to wait, as rooms are being started, or as one that was put aside has failed.
async fn fill(rooms: &Arc<Rooms>, running: &Running) -> Result<bool, SandboxError> {
    rooms.waiting.clear_out(rooms)?;
    let faults = running.parking_faults();
    while !rooms.starting.is_any() && running.parking_faults() == faults {
        // What costs a start most when it is missing comes first.
        let missing = rooms.waiting.shelves().missing();
        if let Some(shape) = missing {
            let waiting = match rooms.make_waiting(running, &shape).await {
                // A root that somebody asked for may be none. That must not keep the usual rooms waiting.
                Err(_) if shape.may_be_impossible() && !running.is_over() => {
                    let left = rooms.waiting.shelves().forget(&shape);
                    left.into_iter().for_each(|waiting| rooms.retire(waiting));
                    continue;
                }
                made => made?,
            };
            let unwanted = rooms.waiting.shelves().put(&shape, waiting);
            unwanted.err().into_iter().for_each(|waiting| rooms.retire(waiting));
        } else if running.parked() < ROOMS_PARKED_MAX {
            running.put_aside(make(rooms, running, RoomLimits::default(), Root::Stage).await?);
        } else if rooms.spares.directories() < ROOMS_PARKED_MAX {
            on_disk(rooms, |rooms| rooms.spares.add_directory(rooms.ids.as_ref())).await?;
        } else if rooms.spares.places() < ROOMS_PARKED_MAX {
            on_disk(rooms, |rooms| rooms.spares.add_place()).await?;
        } else {
            running.forget_parking_fault();
            return Ok(true);
        }
    }
    Ok(false)
}

async fn on_disk(rooms: &Arc<Rooms>, make: fn(&Rooms) -> io::Result<()>) -> Result<(), SandboxError> {
    let rooms = Arc::clone(rooms);
    let made = tokio::task::spawn_blocking(move || make(&rooms)).await;
    made.map_err(io::Error::other).flatten().map_err(|fault| preparing("what a session needs on disk", fault))
}

/// A room that waits for a session, made now.
pub(super) async fn make(
    rooms: &Arc<Rooms>,
    running: &Running,
    limits: RoomLimits,
    root: Root,
) -> Result<Seat, SandboxError> {
    let room = rooms.number();
    let blocking = Arc::clone(rooms);
    let made = tokio::task::spawn_blocking(move || blocking.cgroups.room(room, &limits)).await;
    let made = made.map_err(io::Error::other).flatten();
    let (cgroup, procs) = made.map_err(|fault| preparing("the room's cgroup", fault))?;
    running.park(room, root, cgroup, &procs).await
}

fn preparing(what: &str, fault: io::Error) -> SandboxError {
    SandboxError::Launcher(format!("making {what}: {fault}"))
}
