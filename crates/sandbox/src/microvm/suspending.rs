//! A machine sleeps: its memory and devices in `<directory>/machine.suspended`, what it was made of in the place's `suspension`.
//!
//! ```text
//!  suspend ─► Sync ─► suspension: asleep ─► the VMM writes the file and ends
//!  adopt ───► suspension: asleep ─► reviving ─► the VMM reads the file ─► Wake ─► both are removed
//!  start ───► both are removed: a room without its memory
//! ```
//!
//! INVARIANT: a machine that may have run is never revived again, as its disk has moved on: one that is found `reviving`, and does not live,
//! has lost its memory. The session's files are on its disk all the same. So a file is there only while its machine has not run since: it is
//! removed before one that stands still may go on. That it runs again is on the host's disk before it does, and a file is not whole before what
//! the machine wrote to its own disk is on the host's: a power cut must not bring memory and disk of different times together.

use super::form::{BLOCK_BYTES, Form};
use super::monitor::refused;
use super::raising::Stand;
use super::vmm::{Begin, Shape, Vmm};
use super::{Machines, disk, sockets, talk};
use crate::room::ending::END_WAIT;
use crate::room::place::{Place, own};
use crate::{Room, RoomSpec, SandboxError};
use loopd_domain::limits::{MACHINE_ANSWER_MS, SUSPENSION_BYTES_MAX};
use loopd_protocol::guest::{GuestRoot, GuestState, ToGuest};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const NOTE: &str = "suspension";
const MEMORY: &str = "machine.suspended";

/// What a suspended machine was made of, and whether it still sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suspension {
    state: State,
    /// Of the VMM that can read it.
    vmm: String,
    /// Of the image that the machine was started of, which may be the current one no more.
    #[serde(flatten)]
    pub shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Asleep,
    Reviving,
}

impl Suspension {
    fn of(shape: &Shape, vmm: &dyn Vmm) -> Self {
        Suspension { state: State::Asleep, vmm: vmm.version().to_owned(), shape: shape.clone() }
    }

    /// With a disk that is at least as large as its limit is now.
    fn grown(&self, limit_bytes: u64) -> Shape {
        let disk_bytes = limit_bytes.next_multiple_of(BLOCK_BYTES).max(self.shape.disk_bytes);
        Shape { disk_bytes, ..self.shape.clone() }
    }

    /// The file that is missing of those without which it cannot wake. What it was booted with is in its memory.
    fn missing(&self) -> Option<&PathBuf> {
        let Shape { kernel, base, layers, .. } = &self.shape;
        [kernel, base].into_iter().chain(layers).find(|path| !path.exists())
    }

    fn write(&self, place: &Place) -> io::Result<()> {
        place.write_file(NOTE, &serde_json::to_vec(self)?)
    }

    /// One that cannot be read is none.
    pub(super) fn read(place: &Place) -> io::Result<Option<Self>> {
        let Some(text) = place.read_file(NOTE, SUSPENSION_BYTES_MAX)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok())
    }
}

/// Whether a session's machine sleeps, as far as its files say.
pub(super) fn sleeps(files: &Path) -> bool {
    memory(files).exists()
}

/// Whether all of a machine is written, so that it has not run since.
pub(super) fn is_whole(place: &Place, files: &Path) -> io::Result<bool> {
    let is_asleep = Suspension::read(place)?.is_some_and(|suspension| suspension.state == State::Asleep);
    Ok(is_asleep && sleeps(files))
}

fn memory(files: &Path) -> PathBuf {
    files.join(MEMORY)
}

impl Machines {
    pub(super) async fn suspend(self: &Arc<Self>, spec: &RoomSpec, room: Room) -> Result<(), SandboxError> {
        const DOING: &str = "being suspended";
        // Who wants its files from here on would find a machine that nobody holds, and that stands still. The place's lock would do, but is
        // not waited for as long as this may take.
        let _turn = self.turns.of(&spec.session).await;
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let held = self.holds.of(&spec.session).filter(|hold| hold.epoch == spec.epoch);
        let Some(hold) = held.filter(|hold| Some(hold.machine.pid) == room.guard.pid()) else {
            return Err(talk::failed(DOING, "it is not this server's"));
        };
        let Room { channel, outlet, guard, .. } = room;
        // The cell's host goes; what it had said is with the guest.
        drop((channel, outlet));
        let asked = hold.to.send(ToGuest::Sync).await;
        let synced = tokio::time::timeout(Duration::from_millis(MACHINE_ANSWER_MS), hold.synced.notified()).await;
        if asked.is_err() || synced.is_err() {
            return Err(talk::failed(DOING, "its disk is not written"));
        }
        let Some(place) = Place::find(&path).await.map_err(unusable)? else {
            return Err(talk::failed(DOING, "it has no place any more"));
        };
        own(&place, spec.epoch, &path)?;
        // Of the image that it was started of.
        let Form { vmm, shape, .. } = self.form_of(&place, spec).await?;
        // From here on it lives or sleeps; it is not killed by who let go of it.
        guard.leave();
        self.forget_suspension(&place, &files).map_err(unusable)?;
        Suspension::of(&shape, &*vmm).write(&place).map_err(unusable)?;
        fail::fail_point!("sandbox::suspension_noted");
        let control = sockets::control(&place).map_err(unusable)?;
        if let Err(fault) = vmm.suspend(&hold.machine, control, memory(&files), disk::of(&files)).await {
            self.forget_suspension(&place, &files).map_err(unusable)?;
            return Err(refused(fault));
        }
        let mut ended = hold.machine.ended.clone();
        if tokio::time::timeout(END_WAIT, ended.wait_for(Option::is_some)).await.is_err() {
            return Err(talk::failed(DOING, "it is written and does not end"));
        }
        Ok(())
    }

    /// Revives a machine that sleeps. `None`: there is none, or its memory cannot be read any more.
    pub(super) async fn wake(
        self: &Arc<Self>,
        spec: &RoomSpec,
        place: &Place,
        files: &Path,
        path: PathBuf,
    ) -> Result<Option<Room>, SandboxError> {
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let Some(suspension) = Suspension::read(place).map_err(unusable)?.filter(|_| sleeps(files)) else {
            self.forget_suspension(place, files).map_err(unusable)?;
            return Ok(None);
        };
        let vmm = match self.vmm_for(&suspension).await? {
            Ok(vmm) => vmm,
            Err(why) => {
                tracing::warn!(session = %spec.session, %why, "a suspended machine cannot be revived; its files are kept");
                self.forget_suspension(place, files).map_err(unusable)?;
                return Ok(None);
            }
        };
        Suspension { state: State::Reviving, ..suspension.clone() }.write(place).map_err(unusable)?;
        place.sync().map_err(unusable)?;
        let form = self.formed(vmm, suspension.grown(spec.limits.disk_bytes), GuestRoot::Base);
        let has_grown = form.shape.disk_bytes > suspension.shape.disk_bytes;
        match self.revive(spec, &form, has_grown, place, files, path.clone()).await {
            Ok(room) => Ok(Some(room)),
            Err(fault) => {
                tracing::warn!(session = %spec.session, %fault, "a suspended machine does not come up; its files are kept");
                self.forget_suspension(place, files).map_err(unusable)?;
                Ok(None)
            }
        }
    }

    /// The VMM that can revive a machine; or why none can.
    async fn vmm_for(&self, suspension: &Suspension) -> Result<Result<Arc<dyn Vmm>, String>, SandboxError> {
        if suspension.state == State::Reviving {
            return Ok(Err("it has lived since its memory was written".to_owned()));
        }
        if let Some(path) = suspension.missing() {
            return Ok(Err(format!("`{}`, which it is made of, is gone", path.display())));
        }
        let vmm = self.monitor.of(&self.data.path, &suspension.shape.kernel).await?;
        if suspension.vmm != vmm.version() {
            return Ok(Err(format!("it was written by `{}`, and here is `{}`", suspension.vmm, vmm.version())));
        }
        Ok(Ok(vmm))
    }

    async fn revive(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        has_grown: bool,
        place: &Place,
        files: &Path,
        path: PathBuf,
    ) -> Result<Room, SandboxError> {
        let failed = |fault: io::Error| talk::failed("being revived", &fault.to_string());
        let token = sockets::token(place).map_err(failed)?;
        let user = self.session_disk(files, form.shape.disk_bytes).await?;
        let disk = disk::of(files);
        let stand = Stand { place, disk: &disk, user, epoch: spec.epoch };
        let begin = Begin::Suspended(memory(files));
        let mut raised = self.raise(form, stand, &begin, &token, &spec.limits).await?;
        if raised.state != GuestState::Bound {
            return Err(talk::failed("being revived", &format!("it is no session's: {:?}", raised.state)));
        }
        let disk_bytes = if has_grown { form.shape.disk_bytes } else { 0 };
        if has_grown {
            form.vmm.regrow(sockets::control(place).map_err(failed)?, disk_bytes).await.map_err(refused)?;
        }
        talk::wake(&mut raised.control, "being revived", disk_bytes).await?;
        self.forget_suspension(place, files).map_err(failed)?;
        self.open(spec, form, raised, path)
    }

    /// Removes what is left of a suspension. The memory goes last, whole or half written: without its note it is nothing.
    pub(super) fn forget_suspension(&self, place: &Place, files: &Path) -> io::Result<()> {
        place.remove_file(NOTE)?;
        if sleeps(files) {
            place.sync()?;
        }
        let entries = match fs::read_dir(files) {
            Err(fault) if matches!(fault.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().trim_start_matches('.').starts_with(MEMORY) {
                match fs::remove_file(entry.path()) {
                    Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// What a session's machine that sleeps is made of.
    pub(super) fn asleep(&self, place: &Path) -> Option<Suspension> {
        let text = fs::read(place.join(NOTE)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
