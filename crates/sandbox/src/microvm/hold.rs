//! A session's living machine, as this process holds it.

use super::link::LinkHost;
use super::meter::Signals;
use super::vmm::Machine;
use crate::RoomGuard;
use crate::room::guard::Guard;
use loopd_domain::{Epoch, SessionId};
use loopd_protocol::guest::ToGuest;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, mpsc, watch};

pub(super) struct Hold {
    pub session: SessionId,
    pub epoch: Epoch,
    pub machine: Machine,
    /// Kills, if the machine is still this owner's.
    pub reaper: Guard,
    pub to: mpsc::Sender<ToGuest>,
    pub signals: Arc<Signals>,
    /// The guest has written all of the session's disk.
    pub synced: Notify,
    link: Mutex<Option<Arc<LinkHost>>>,
    killed: AtomicBool,
    left: watch::Sender<bool>,
}

/// What a hold is made of.
pub(super) struct Grip {
    pub session: SessionId,
    pub epoch: Epoch,
    pub machine: Machine,
    pub link: LinkHost,
    pub to: mpsc::Sender<ToGuest>,
    pub disk_bytes: u64,
}

impl Hold {
    pub(super) fn new(grip: Grip, guard: &Guard) -> Arc<Self> {
        let Grip { session, epoch, machine, link, to, disk_bytes } = grip;
        Arc::new(Hold {
            session,
            epoch,
            machine,
            reaper: guard.at_hand(),
            to,
            signals: Arc::new(Signals::new(disk_bytes)),
            synced: Notify::new(),
            link: Mutex::new(Some(Arc::new(link))),
            killed: AtomicBool::new(false),
            left: watch::channel(false).0,
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<LinkHost>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when this process has let go of the machine.
    pub(super) fn link(&self) -> Option<Arc<LinkHost>> {
        self.slot().clone()
    }

    /// The machine lives on, and is nobody's here.
    pub(super) fn let_go(&self) {
        self.left.send_replace(true);
        drop(self.slot().take());
    }

    pub(super) fn left(&self) -> watch::Receiver<bool> {
        self.left.subscribe()
    }

    /// Somebody who holds it here wanted it to end.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

/// Those that this process holds.
#[derive(Clone, Default)]
pub(super) struct Holds(Arc<Mutex<BTreeMap<SessionId, Weak<Hold>>>>);

impl Holds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<SessionId, Weak<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, hold: &Arc<Hold>) {
        self.all().insert(hold.session.clone(), Arc::downgrade(hold));
    }

    /// Takes leave of a machine, unless the session has another one by now.
    pub(super) fn remove(&self, hold: &Arc<Hold>) {
        let mut all = self.all();
        if all.get(&hold.session).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(hold))) {
            all.remove(&hold.session);
        }
    }

    pub(super) fn of(&self, session: &SessionId) -> Option<Arc<Hold>> {
        self.all().get(session)?.upgrade()
    }
}

/// A machine has one link: whoever takes it over cuts off who had it. So within this process they wait for each other.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<BTreeMap<SessionId, Weak<AsyncMutex<()>>>>>);

/// Nobody else takes the machine over until this is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    pub(super) async fn of(&self, session: &SessionId) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(session).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(session.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// What the room's owner has.
pub(super) struct MachineGuard {
    hold: Arc<Hold>,
    guard: Option<Guard>,
}

impl MachineGuard {
    pub(super) fn new(hold: Arc<Hold>, guard: Guard) -> Self {
        MachineGuard { hold, guard: Some(guard) }
    }
}

impl RoomGuard for MachineGuard {
    fn kill(&self) {
        self.hold.killed.store(true, Ordering::Relaxed);
        if let Some(guard) = &self.guard {
            guard.kill();
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(self.hold.machine.pid)
    }

    fn leave(mut self: Box<Self>) {
        self.hold.let_go();
        if let Some(guard) = self.guard.take() {
            Box::new(guard).leave();
        }
    }
}

impl Drop for MachineGuard {
    fn drop(&mut self) {
        if self.guard.is_some() {
            // The guard kills as it goes.
            self.hold.killed.store(true, Ordering::Relaxed);
        }
    }
}
