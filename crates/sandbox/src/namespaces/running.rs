//! One launcher process and its rooms, as everybody sees it who wants one. [`super::launcher`] feeds it the launcher's news.
//!
//! ```text
//!  park() ─► child exists ─► put aside ─► claim() ─► Seat ─► start() ─► a room
//!                └──────────── (none is ready) ───────┘
//! ```
//!
//! A [`Seat`] is a child that waits for its session: whoever drops it unstarted ends it.

use super::living::{Living, Over};
use super::socket::Socket;
use crate::room::cgroup::RoomCgroup;
use crate::room::process::{self, Process};
use crate::{RoomExit, SandboxError};
use loopd_jail::wire::{End, Order, Root, Start};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How long the launcher may take to say how a room ended that is gone.
const LEAVE_WAIT: Duration = Duration::from_secs(10);

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
    over: Option<Over>,
}

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
    pub(super) async fn park(
        &self,
        room: u64,
        root: Root,
        cgroup: RoomCgroup,
        procs: &[OwnedFd],
    ) -> Result<Seat, SandboxError> {
        let (sender, mut exit) = watch::channel(None);
        let (parking, parked) = oneshot::channel();
        let cgroups = cgroup.directories().to_vec();
        {
            let mut state = self.state();
            if let Some(over) = &state.over {
                return Err(over.error());
            }
            state.rooms.insert(room, Living { exit: sender, cgroup, pidfd: None, parking: Some(parking) });
        }
        let descriptors: Vec<_> = procs.iter().map(AsFd::as_fd).collect();
        let sent = self.socket.send(&Order::Park { room, root }, &descriptors).await;
        if let Err(fault) = sent {
            self.state().rooms.remove(&room);
            return Err(self.lost(&fault));
        }
        let (pid, pidfd) = parked.await.map_err(|_| SandboxError::Launcher("it forgot a room".to_owned()))??;
        match Process::with(pid) {
            Some(process) => Ok(Seat { room, process, pidfd, cgroups, exit, taken: false }),
            None => {
                // It is gone; why, the launcher says when it has taken leave of it.
                let told = tokio::time::timeout(LEAVE_WAIT, exit.wait_for(Option::is_some)).await;
                let exit = told.ok().and_then(|exit| exit.ok().and_then(|exit| exit.clone()));
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
        let over = Over::Gone(format!("sending an order: {fault}"));
        self.state().over.get_or_insert(over).error()
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
        state.fault.clone().or_else(|| state.over.as_ref().map(|over| over.error().to_string()))
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
                End::Code(_) | End::Signal(_) => {}
            }
        }
        drop(state);
        living.end(end);
        // It may have been one that waited.
        self.changed.notify_one();
    }

    /// The launcher is gone. Rooms that wait end with it; rooms that live go on, and are watched until they end.
    pub(super) fn on_gone(&self, over: Over) {
        let mut state = self.state();
        state.over = Some(over.clone());
        state.parked.clear();
        let rooms: Vec<Living> = state.rooms.drain().map(|(_, living)| living).collect();
        drop(state);
        self.changed.notify_one();
        rooms.into_iter().for_each(|living| living.outlive(&over));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RoomExit;
    use loopd_jail::channel;
    use loopd_jail::fault::Fault;
    use rustix::io::Errno;
    use std::process::{Child, Command};

    /// A launcher's end of the socket, played by the test, whose children are its own.
    fn running() -> (Arc<Running>, OwnedFd) {
        let (here, there) = channel::pair().unwrap();
        (Arc::new(Running::new(Socket::new(here).unwrap())), there)
    }

    /// Asks for a room, and lets it be made as a process that waits.
    async fn park(running: &Arc<Running>, room: u64) -> (Seat, Child) {
        let asking = tokio::spawn({
            let running = Arc::clone(running);
            async move { running.park(room, Root::Stage, RoomCgroup::default(), &[]).await }
        });
        tokio::task::yield_now().await;
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = Process::with(child.id()).unwrap().open().unwrap().unwrap();
        running.on_parked(room, child.id(), pidfd);
        (asking.await.unwrap().unwrap(), child)
    }

    #[tokio::test]
    async fn a_seat_that_is_let_go_ends() {
        let (running, launcher) = running();
        let (seat, mut child) = park(&running, 1).await;
        let (packet, _) = channel::receive(&launcher, false).unwrap().unwrap();
        assert_eq!(Order::decode(&packet), Ok(Order::Park { room: 1, root: Root::Stage }));
        drop(seat);
        assert!(!child.wait().unwrap().success());
        // Nobody asked for this one any more.
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        running.on_parked(2, child.id(), Process::with(child.id()).unwrap().open().unwrap().unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[tokio::test]
    async fn one_that_fails_while_it_waits_is_given_to_nobody_and_its_fault_is_kept() {
        let (running, _launcher) = running();
        let fault = || End::Failed(Fault::new("mounting /proc", Errno::PERM));
        for room in [1, 2] {
            let (seat, mut child) = park(&running, room).await;
            // It may fail before it is put aside, or after.
            if room == 1 {
                running.on_ended(room, fault());
                running.put_aside(seat);
            } else {
                running.put_aside(seat);
                assert_eq!(running.parked(), 1);
                running.on_ended(room, fault());
            }
            assert!(!child.wait().unwrap().success());
            assert_eq!((running.parked(), running.parking_faults()), (0, room));
            assert!(running.parking_fault().unwrap().contains("mounting /proc"));
            assert!(running.claim().is_none());
        }
    }

    #[tokio::test]
    async fn with_the_launcher_go_those_that_wait_and_no_others() {
        let (running, launcher) = running();
        let (seat, mut waits) = park(&running, 1).await;
        running.put_aside(seat);
        let (mut seat, mut lives) = park(&running, 2).await;
        seat.take();
        let asking = tokio::spawn({
            let running = Arc::clone(&running);
            async move { running.park(3, Root::Stage, RoomCgroup::default(), &[]).await.err() }
        });
        tokio::task::yield_now().await;
        drop(launcher);
        running.on_gone(Over::Gone("it was killed".to_owned()));
        assert!(!waits.wait().unwrap().success());
        assert!(matches!(asking.await.unwrap(), Some(SandboxError::Launcher(_))));
        assert!(running.park(4, Root::Stage, RoomCgroup::default(), &[]).await.is_err());
        assert!(seat.exit.borrow().is_none() && lives.try_wait().unwrap().is_none());
        process::kill(&seat.pidfd);
        let exit = seat.exit.wait_for(Option::is_some).await.unwrap().clone();
        // Here the room was this process's own child.
        assert_eq!(exit, Some(RoomExit::Signal(9)));
    }
}
