//! A session gets a machine: one that waits, a copy, or the one that an earlier server left.
//!
//! INVARIANT: a machine stands in the session's record before `Bind`, so that there is no living room that no record names.

use super::attending::{Attendance, attend};
use super::form::{Form, of_vmm};
use super::hold::{Grip, Hold, MachineGuard};
use super::meter::Meter;
use super::monitor::refused;
use super::raising::{Raised, Stand, with_words};
use super::vmm::Machine;
use super::{KIND, Machines, disk, made, secrets, sockets, suspending, talk};
use crate::room::cgroup::RoomCgroup;
use crate::room::ending;
use crate::room::guard::Guard;
use crate::room::place::{Place, own};
use crate::room::process::{self, Process};
use crate::room::record::Record;
use crate::{Room, RoomOutlet, RoomSpec, SandboxError, Walls};
use loopd_domain::SessionId;
use loopd_domain::limits::{MACHINE_ANSWER_MS, MACHINE_BIND_MS, MACHINE_BINDS_MAX};
use loopd_domain::progress::{Progress, Stage};
use loopd_protocol::guest::{Bind, BindRoom, FromGuest, GuestRoot, GuestState, ToGuest};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

const ANSWER: Duration = Duration::from_millis(MACHINE_ANSWER_MS);
const BIND: Duration = Duration::from_millis(MACHINE_BIND_MS);
/// Characters of a guest's name.
const NAME_CHARS_MAX: usize = 63;
const TAKEN_OVER: &str = "being taken over";

impl Machines {
    pub(super) async fn start(self: &Arc<Self>, spec: &RoomSpec) -> Result<Room, SandboxError> {
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let boots = || spec.teller.say(Progress::of(Stage::Boot, "the machine"));
        match spec.root.layers() {
            // The first time it is tried what kind of machine works here.
            [] => boots(),
            _ => spec.teller.say(Progress::of(Stage::Disk, "the machine's disks")),
        }
        let form = self.form(&spec.limits, &spec.root).await?;
        boots();
        // What takes long comes before the lock. That there is none is dealt with later.
        drop(self.template(&form).await);
        let found = Place::find(&path).await.map_err(unusable)?;
        if found.is_none()
            && let Some(room) = self.claim_waiting(spec, &form, &files, &path).await?
        {
            return Ok(room);
        }
        let place = match found {
            Some(place) => place,
            None => Place::make(&path).await.map_err(unusable)?,
        };
        if let Some(record) = own(&place, spec.epoch, &path)? {
            ending::end(&record, &self.boot).await?;
        }
        self.forget_suspension(&place, &files).map_err(unusable)?;
        let user = self.session_disk(&files, form.shape.disk_bytes).await?;
        place.write_layers(&spec.root).map_err(unusable)?;
        let disk = disk::of(&files);
        let stand = Stand { place: &place, disk: &disk, user, epoch: spec.epoch };
        let raised = self.bound(spec, &form, stand, Some(self.room(spec))).await?;
        self.keep_waiting(&form, spec);
        self.open(spec, &form, raised, path)
    }

    /// The session's disk, made if there is none. Answers the host id that it belongs to.
    pub(super) async fn session_disk(self: &Arc<Self>, files: &Path, bytes: u64) -> Result<Option<u32>, SandboxError> {
        let (machines, directory) = (Arc::clone(self), files.to_owned());
        let made = tokio::task::spawn_blocking(move || machines.disk(&directory, bytes)).await;
        let fault = |source| SandboxError::Directory { path: files.to_owned(), source };
        made.map_err(io::Error::other).flatten().map_err(fault)
    }

    pub(super) fn room(&self, spec: &RoomSpec) -> BindRoom {
        BindRoom {
            pids: spec.limits.pids,
            open_files: spec.limits.open_files,
            file_bytes: spec.limits.file_bytes,
            memory_bytes: spec.limits.memory_bytes,
            orphan_seconds: self.orphan_seconds.load(Ordering::Relaxed),
            outlet_ports: match &spec.outlet {
                RoomOutlet::Closed => None,
                RoomOutlet::Open { ports } => Some(ports.clone()),
            },
        }
    }

    /// A machine that is the session's. One that does not go on when it is given the session is replaced.
    pub(super) async fn bound(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        stand: Stand<'_>,
        room: Option<BindRoom>,
    ) -> Result<Raised, SandboxError> {
        let mut attempt = 1;
        loop {
            let mut raised = self.fresh(form, stand, &spec.limits).await?;
            match self.bind(spec, form, &mut raised, stand.place, room.clone()).await {
                Ok(()) => return Ok(raised),
                Err(fault) if talk::is_silence(&fault) && attempt < MACHINE_BINDS_MAX => {
                    tracing::warn!(session = %spec.session, %fault, attempt, "a machine is replaced");
                    // Two must never have one disk.
                    raised.finish().await?;
                    attempt += 1;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Makes a waiting machine the session's. `place`: where it is on record.
    pub(super) async fn bind(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        raised: &mut Raised,
        place: &Place,
        room: Option<BindRoom>,
    ) -> Result<(), SandboxError> {
        const DOING: &str = "being given its session";
        let failed = |fault: io::Error| talk::failed(DOING, &fault.to_string());
        let token = secrets::token()?;
        let record = Record {
            kind: KIND,
            epoch: spec.epoch,
            boot: self.boot.clone(),
            process: raised.process,
            cgroups: raised.doom.cgroups().to_vec(),
        };
        place.write(&record).map_err(failed)?;
        fail::fail_point!("sandbox::machine_bound");
        let bind = Bind {
            session: spec.session.clone(),
            entropy: secrets::entropy()?,
            now_ns: secrets::now_ns(),
            host_name: host_name(&spec.session),
            token: token.to_hex(),
            room,
        };
        let is_bound = |said: &FromGuest| matches!(said, FromGuest::Bound).then_some(());
        let order = ToGuest::Bind(Box::new(bind));
        if let Err(fault) = talk::ask_within(&mut raised.control, BIND, order, DOING, is_bound).await {
            return Err(with_words(fault, &raised.machine).await);
        }
        // Not before: a machine without one was nobody's when its host died, and would not answer whoever knew its token.
        sockets::write_token(place, &token).map_err(failed)?;
        // It came up with more of the processor than it is to have.
        let (machines, number, limits) = (Arc::clone(self), raised.number, of_vmm(&form.shape, &spec.limits));
        let set = tokio::task::spawn_blocking(move || machines.cgroups.limit(number, &limits)).await;
        set.map_err(io::Error::other).flatten().map_err(failed)
    }

    /// The room of a machine that is the session's. `path`: of its place.
    pub(super) fn open(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        raised: Raised,
        path: PathBuf,
    ) -> Result<Room, SandboxError> {
        let Raised { machine, process, link, control, doom, .. } = raised;
        let lost = |fault: io::Error| talk::failed("reaching its cell", &fault.to_string());
        let channel = link.open_cell().map_err(lost)?;
        let outlet = match &spec.outlet {
            RoomOutlet::Open { .. } => Some(link.outlet()),
            RoomOutlet::Closed => {
                link.close_outlet();
                None
            }
        };
        let guard = Guard::new(path, spec.epoch, process, Arc::clone(&machine.process));
        let cgroup = doom.lift();
        let dead = link.dead();
        let grip = Grip {
            session: spec.session.clone(),
            epoch: spec.epoch,
            machine,
            link,
            to: control.to,
            disk_bytes: form.shape.disk_bytes,
        };
        let hold = Hold::new(grip, &guard);
        self.holds.put(&hold);
        let meter = Box::new(Meter::new(Arc::clone(&hold.signals)));
        let (sender, exit) = watch::channel(None);
        let attendance = Attendance {
            hold: Arc::clone(&hold),
            holds: self.holds.clone(),
            from: control.from,
            dead,
            exit: sender,
            cgroup,
        };
        tokio::spawn(attend(attendance));
        let walls = Walls { isolation: KIND, accelerator: Some(form.vmm.accelerator()) };
        Ok(Room { walls, channel, outlet, exit, meter, guard: Box::new(MachineGuard::new(hold, guard)) })
    }

    pub(super) async fn adopt(self: &Arc<Self>, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        let _turn = self.turns.of(&spec.session).await;
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let Some(place) = Place::find(&path).await.map_err(unusable)? else { return Ok(None) };
        let Some(record) = own(&place, spec.epoch, &path)?.filter(|record| record.kind == KIND) else {
            return Ok(None);
        };
        let Some(pidfd) = self.left(&place, &files, &record).await? else {
            return self.wake(spec, &place, &files, path).await;
        };
        let form = self.form_of(&place, spec).await?;
        match self.take_over(&form, &place, &record, pidfd).await {
            Ok(raised) => {
                place.write(&Record { epoch: spec.epoch, ..record }).map_err(unusable)?;
                drop(place);
                self.open(spec, &form, raised, path).map(Some)
            }
            Err(fault) => {
                tracing::warn!(session = %spec.session, %fault, "a machine that cannot be reached is ended");
                ending::end(&record, &self.boot).await?;
                Ok(None)
            }
        }
    }

    /// The machine that somebody left, if it lives and does not sleep: it may be taken over.
    pub(super) async fn left(
        &self,
        place: &Place,
        files: &Path,
        record: &Record,
    ) -> Result<Option<OwnedFd>, SandboxError> {
        let unusable = |source| SandboxError::Directory { path: files.to_owned(), source };
        let Some(pidfd) = ending::living(record, &self.boot).map_err(unusable)? else { return Ok(None) };
        if suspending::is_whole(place, files).map_err(unusable)? {
            // Its host went when it was about to end it, or had just done so.
            ending::end(record, &self.boot).await?;
            return Ok(None);
        }
        // What is left of a suspension that was cut short.
        self.forget_suspension(place, files).map_err(unusable)?;
        Ok(Some(pidfd))
    }

    /// The form of the machine that is in a place: of the image that it was started of, whichever is the current one.
    pub(super) async fn form_of(self: &Arc<Self>, place: &Place, spec: &RoomSpec) -> Result<Form, SandboxError> {
        let noted = made::of(place).map_err(|fault| talk::failed(TAKEN_OVER, &fault.to_string()))?;
        let Some(shape) = noted else { return self.form(&spec.limits, &spec.root).await };
        let vmm = self.monitor.of(&self.data.path, &shape.kernel).await?;
        Ok(self.formed(vmm, shape, GuestRoot::Base))
    }

    /// Begins afresh with a machine that somebody left, or holds and should not.
    pub(super) async fn take_over(
        &self,
        form: &Form,
        place: &Place,
        record: &Record,
        pidfd: OwnedFd,
    ) -> Result<Raised, SandboxError> {
        let failed = |fault: io::Error| talk::failed(TAKEN_OVER, &fault.to_string());
        let token = sockets::token(place).map_err(failed)?;
        let control = sockets::control(place).map_err(failed)?;
        let listener = sockets::listen_link(place).map_err(failed)?;
        form.vmm.relink(control, listener).await.map_err(refused)?;
        let (link, mut control, state) = self.connect(place, &token, ANSWER).await?;
        if state != GuestState::Bound {
            return Err(talk::failed(TAKEN_OVER, &format!("it is no session's: {state:?}")));
        }
        // It may have stood still for a while, and whoever had it go on was perhaps killed before it said so.
        talk::wake(&mut control, TAKEN_OVER, 0).await?;
        let machine = watched(pidfd, record.process);
        let doom = super::raising::Doom::spared(RoomCgroup::recorded(record.cgroups.clone()), &machine);
        Ok(Raised { machine, process: record.process, number: 0, state, link, control, doom })
    }
}

/// A machine of another process: that it ends is seen, and nothing that it says.
fn watched(pidfd: OwnedFd, process: Process) -> Machine {
    let pidfd = Arc::new(pidfd);
    let (sender, ended) = watch::channel(None);
    let seen = Arc::clone(&pidfd);
    tokio::spawn(async move {
        if let Err(fault) = process::ended(&seen).await {
            tracing::warn!(%fault, "a machine is out of sight");
        }
        sender.send_replace(Some(String::new()));
    });
    Machine { process: pidfd, pid: process.pid, ended, memory: None }
}

fn host_name(session: &SessionId) -> String {
    let name = session.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    name.take(NAME_CHARS_MAX).collect()
}
