//! Machines that live already and wait for a session, of the usual form: each on ground of its own, with a disk that becomes the
//! session's. They are made once such a room was asked for, one after the other, off the way of who asks.

use super::form::Form;
use super::ground::Ground;
use super::raising::{NOBODYS, Raised, Stand};
use super::{Machines, disk, talk};
use crate::room::place::is_in_the_way;
use crate::room::removal;
use crate::{Room, RoomRoot, RoomSpec, SandboxError};
use loopd_domain::environment::RoomLimits;
use rustix::fs::{CWD, RenameFlags};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Waitings {
    ready: Mutex<Vec<Waiting>>,
    is_filling: AtomicBool,
}

/// Dropping it ends it.
struct Waiting {
    fingerprint: String,
    raised: Raised,
    ground: Ground,
}

impl Waiting {
    fn retire(self) {
        let Waiting { raised, ground, .. } = self;
        drop(raised);
        tokio::task::spawn_blocking(move || {
            if let Err(fault) = ground.remove() {
                tracing::warn!(%fault, "what was made for a waiting machine stays behind");
            }
        });
    }
}

impl Waitings {
    fn ready(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.ready().len()
    }

    /// One of this form; those that have ended are taken out.
    fn take(&self, fingerprint: &str) -> Option<Waiting> {
        loop {
            let waiting = {
                let mut ready = self.ready();
                let at = ready.iter().position(|waiting| waiting.fingerprint == fingerprint)?;
                ready.remove(at)
            };
            match waiting.raised.doom.has_struck() {
                true => waiting.retire(),
                false => return Some(waiting),
            }
        }
    }
}

impl Machines {
    /// Gives a waiting machine to a session that has nothing yet. `None`: there is no such machine, or the session has something.
    pub(super) async fn claim_waiting(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        files: &Path,
        path: &Path,
    ) -> Result<Option<Room>, SandboxError> {
        let fault = |source| SandboxError::Directory { path: files.to_owned(), source };
        if disk::exists(files).map_err(fault)? {
            return Ok(None);
        }
        let Some(Waiting { mut raised, ground, .. }) = self.waiting.take(&form.fingerprint) else { return Ok(None) };
        disk::directory(files).map_err(fault)?;
        match rustix::fs::renameat_with(CWD, &ground.disk, CWD, disk::of(files), RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(errno) if is_in_the_way(errno) => {
                Waiting { fingerprint: form.fingerprint.clone(), raised, ground }.retire();
                return Ok(None);
            }
            Err(errno) => return Err(fault(errno.into())),
        }
        fail::fail_point!("sandbox::disk_moved");
        let (place, rest) = ground.take();
        place.write_layers(&spec.root).map_err(fault)?;
        let place = match place.settle(path) {
            Ok(place) => place,
            Err((_, errno)) if is_in_the_way(errno) => {
                // Somebody was faster, and has the disk as well.
                drop(raised);
                return Ok(None);
            }
            Err((_, errno)) => return Err(fault(errno.into())),
        };
        let room = self.room(spec);
        let bound = self.bind(spec, form, &mut raised, &place, Some(room)).await;
        drop(place);
        tokio::task::spawn_blocking(move || {
            if let Err(fault) = removal::remove(&rest) {
                tracing::warn!(directory = %rest.display(), %fault, "a ground stays behind");
            }
        });
        match bound {
            Ok(()) => {}
            Err(fault) if talk::is_silence(&fault) => {
                tracing::warn!(session = %spec.session, %fault, "a machine that waited is replaced");
                raised.finish().await?;
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        }
        self.keep_waiting(form, spec);
        self.open(spec, form, raised, path.to_owned()).map(Some)
    }

    /// Has as many machines wait as should, if this form is the usual one.
    pub(super) fn keep_waiting(self: &Arc<Self>, form: &Form, spec: &RoomSpec) {
        let is_usual = spec.limits == RoomLimits::default() && spec.root == RoomRoot::Host;
        if !is_usual || self.waiting.is_filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (machines, form) = (Arc::downgrade(self), form.clone());
        tokio::spawn(async move {
            while let Some(machines) = machines.upgrade() {
                let is_enough = machines.waiting.count() >= machines.wanted.load(Ordering::Relaxed);
                let done = is_enough || machines.add_waiting(&form).await.is_err();
                if done {
                    machines.waiting.is_filling.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }

    async fn add_waiting(self: &Arc<Self>, form: &Form) -> Result<(), SandboxError> {
        let made = self.make_waiting(form).await;
        match made {
            Ok(waiting) => {
                let mut ready = self.waiting.ready();
                // Of an image that was replaced.
                let (current, old) = ready.drain(..).partition(|one: &Waiting| one.fingerprint == form.fingerprint);
                *ready = current;
                ready.push(waiting);
                drop(ready);
                old.into_iter().for_each(Waiting::retire);
                Ok(())
            }
            Err(fault) => {
                tracing::warn!(%fault, "rooms start slower: no machine could be kept ready");
                Err(fault)
            }
        }
    }

    async fn make_waiting(self: &Arc<Self>, form: &Form) -> Result<Waiting, SandboxError> {
        let (machines, wanted) = (Arc::clone(self), form.clone());
        let made = tokio::task::spawn_blocking(move || machines.ground(&wanted)).await;
        let failed = |fault: io::Error| SandboxError::Machine(format!("making one that waits: {fault}"));
        let ground = made.map_err(io::Error::other).flatten().map_err(failed)?;
        let stand = Stand { place: &ground.place, disk: &ground.disk, user: ground.user, epoch: NOBODYS };
        match self.fresh(form, stand, &RoomLimits::default()).await {
            Ok(raised) => Ok(Waiting { fingerprint: form.fingerprint.clone(), raised, ground }),
            Err(fault) => {
                tokio::task::spawn_blocking(move || ground.remove());
                Err(fault)
            }
        }
    }
}
