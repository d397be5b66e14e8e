//! One launcher process and its rooms, as everybody sees it who wants one. [`super::launcher`] feeds it the launcher's news.
//!
//! ```text
//!  park() ─► child exists ─► put aside ─► claim() ─► Seat ─► start() ─► a room
//!                └──────────── (none is ready) ───────┘
//! ```
//!
//! A [`Seat`] is a child that waits for its session: whoever drops it unstarted ends it.

use super::cgroup::RoomCgroup;
use super::process::{self, Process};
use super::socket::Socket;
use crate::{RoomExit, SandboxError};
use loopd_jail::wire::{End, Order, Start};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot, watch};

pub(super) struct Running {
    pub socket: Socket,
    state: Mutex<State>,
    /// Something was taken, or all is over: told to whoever keeps rooms ready.
    pub changed: Notify,
}

#[derive(Default)]
struct State {
    rooms: HashMap<u64, Living>,
    parked: VecDeque<Seat>,
    /// Why no room could be kept ready of late, and how often that happened.
    fault: Option<String>,
    faults: u64,
    /// Why the launcher takes no more orders.
    over: Option<String>,
}

/// A room that the launcher has not told the end of.
struct Living {
    exit: watch::Sender<Option<RoomExit>>,
    cgroup: RoomCgroup,
    /// Known when its first process exists.
    pidfd: Option<Arc<OwnedFd>>,
    parking: Option<oneshot::Sender<Result<First, SandboxError>>>,
}

/// A room's first process: its number, and a hold on it.
type First = (u32, Arc<OwnedFd>);

/// A child of the launcher that waits for its session.
pub(super) struct Seat {
    pub room: u64,
    pub process: Process,
    pub pidfd: Arc<OwnedFd>,
    pub cgroups: Vec<PathBuf>,
    pub exit: watch::Receiver<Option<RoomExit>>,
    taken: bool,
}

impl Seat {
    /// From here on the room is somebody else's to end.
    pub(super) fn take(&mut self) {
        self.taken = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.taken {
            process::kill(&self.pidfd);
        }
    }
}

impl Running {
    pub(super) fn new(socket: Socket) -> Self {
        Running { socket, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over.is_some()
    }

    /// Has a room made that waits for a session. `room`: a number that no other has.
    pub(super) async fn park(&self, room: u64, cgroup: RoomCgroup, procs: &[OwnedFd]) -> Result<Seat, SandboxError> {
        let (sender, exit) = watch::channel(None);
        let (parking, parked) = oneshot::channel();
        let cgroups = cgroup.directories().to_vec();
        {
            let mut state = self.state();
            if let Some(reason) = &state.over {
                return Err(unavailable(reason));
            }
            state.rooms.insert(room, Living { exit: sender, cgroup, pidfd: None, parking: Some(parking) });
        }
        let descriptors: Vec<_> = procs.iter().map(AsFd::as_fd).collect();
        let sent = self.socket.send(&Order::Park { room }, &descriptors).await;
        if let Err(fault) = sent {
            self.state().rooms.remove(&room);
            return Err(self.lost(&fault));
        }
        let (pid, pidfd) = parked.await.map_err(|_| unavailable("it ended while a room was being made"))??;
        match Process::with(pid) {
            Some(process) => Ok(Seat { room, process, pidfd, cgroups, exit, taken: false }),
            None => {
                let exit = exit.borrow().clone();
                Err(SandboxError::Launcher(format!("a room ended while it was being made: {exit:?}")))
            }
        }
    }

    /// Gives a room its session. `listener`: the socket on which its cell listens.
    pub(super) async fn start(&self, start: Start, listener: OwnedFd) -> Result<(), SandboxError> {
        let sent = self.socket.send(&Order::Start(start), &[listener.as_fd()]).await;
        sent.map_err(|fault| self.lost(&fault))
    }

    /// Takes no more orders. The launcher's end is seen by its driver.
    fn lost(&self, fault: &io::Error) -> SandboxError {
        let reason = format!("sending an order: {fault}");
        self.state().over.get_or_insert_with(|| reason.clone());
        SandboxError::Launcher(reason)
    }

    /// Puts a room aside for the next session.
    pub(super) fn put_aside(&self, seat: Seat) {
        let mut state = self.state();
        match state.rooms.contains_key(&seat.room) {
            true => state.parked.push_back(seat),
            false => state.note_fault(format!("it ended at once: {:?}", *seat.exit.borrow())),
        }
    }

    /// A room that has been waiting.
    pub(super) fn claim(&self) -> Option<Seat> {
        let claimed = self.state().parked.pop_front();
        self.changed.notify_one();
        claimed
    }

    /// How many rooms wait.
    pub(super) fn parked(&self) -> usize {
        self.state().parked.len()
    }

    /// Why no room could be kept ready of late.
    pub(super) fn parking_fault(&self) -> Option<String> {
        let state = self.state();
        state.fault.clone().or_else(|| state.over.clone())
    }

    pub(super) fn parking_faults(&self) -> u64 {
        self.state().faults
    }

    /// As many wait as should.
    pub(super) fn forget_parking_fault(&self) {
        self.state().fault = None;
    }

    pub(super) fn note_parking_fault(&self, fault: String) {
        self.state().note_fault(fault);
    }

    pub(super) fn on_parked(&self, room: u64, pid: u32, pidfd: OwnedFd) {
        let pidfd = Arc::new(pidfd);
        let parking = self.state().rooms.get_mut(&room).and_then(|living| {
            living.pidfd = Some(Arc::clone(&pidfd));
            living.parking.take()
        });
        let told = parking.map(|parking| parking.send(Ok((pid, Arc::clone(&pidfd)))));
        if !matches!(told, Some(Ok(()))) {
            // Whoever asked has given up; nobody would ever end this room.
            process::kill(&pidfd);
        }
    }

    pub(super) fn on_ended(&self, room: u64, end: End) {
        let mut state = self.state();
        let Some(living) = state.rooms.remove(&room) else { return };
        if let Some(at) = state.parked.iter().position(|seat| seat.room == room) {
            state.parked.remove(at);
            match &end {
                End::Failed(fault) => state.note_fault(fault.to_string()),
                // Somebody killed it.
                End::Code(_) | End::Signal(_) => self.changed.notify_one(),
            }
        }
        drop(state);
        living.end(end);
    }

    /// The launcher is gone. Rooms that wait end with it; rooms that live go on, and are watched until they end.
    pub(super) fn on_gone(&self, reason: &str) {
        let mut state = self.state();
        state.over = Some(reason.to_owned());
        state.parked.clear();
        let rooms: Vec<Living> = state.rooms.drain().map(|(_, living)| living).collect();
        drop(state);
        self.changed.notify_one();
        rooms.into_iter().for_each(|living| living.outlive(reason));
    }
}

impl State {
    fn note_fault(&mut self, fault: String) {
        if self.fault.as_ref() != Some(&fault) {
            tracing::warn!(%fault, "rooms start slower: none could be kept ready");
        }
        self.fault = Some(fault);
        self.faults += 1;
    }
}

fn unavailable(reason: &str) -> SandboxError {
    SandboxError::Unavailable { kind: super::KIND, reason: reason.to_owned() }
}

impl Living {
    fn end(mut self, end: End) {
        if let (Some(parking), End::Failed(fault)) = (self.parking.take(), &end) {
            // Nobody waits any more: then nobody needs to know.
            let _ = parking.send(Err(SandboxError::Launcher(fault.to_string())));
        }
        self.gone(match end {
            End::Code(code) => RoomExit::Code(code),
            End::Signal(signal) => RoomExit::Signal(signal),
            End::Failed(fault) => RoomExit::Failed(fault.to_string()),
        });
    }

    fn outlive(mut self, reason: &str) {
        let Some(pidfd) = self.pidfd.take() else {
            if let Some(parking) = self.parking.take() {
                // As above.
                let _ = parking.send(Err(unavailable(reason)));
            }
            return self.gone(RoomExit::Failed(format!("the launcher is gone: {reason}")));
        };
        tokio::spawn(watch(pidfd, self.exit, self.cgroup));
    }

    fn gone(self, exit: RoomExit) {
        self.exit.send_replace(Some(exit));
        tokio::task::spawn_blocking(move || self.cgroup.remove());
    }
}

/// Tells the end of a room of which no launcher will, and clears up after it.
pub(super) async fn watch(pidfd: Arc<OwnedFd>, sender: watch::Sender<Option<RoomExit>>, cgroup: RoomCgroup) {
    let exit = match process::ended(&pidfd).await {
        Ok(()) => process::exit(&pidfd),
        Err(fault) => RoomExit::Failed(format!("the room is out of sight: {fault}")),
    };
    sender.send_replace(Some(exit));
    tokio::task::spawn_blocking(move || cgroup.remove());
}
