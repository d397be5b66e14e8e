//! Rooms with a kernel of their own (ADR 8): a virtual machine for each session, with a disk, one link to the host, and nothing else.
//!
//! ```text
//!  start ─► nothing lives: a waiting guest, or a restore of the template of its shape, or a cold boot ─► Bind ─► Room
//!  adopt ─► record ─► still there? ─► connect, reset the link ─► Room
//!                 └─► suspended?   ─► revive, Wake ──────────────► Room
//! ```
//!
//! What a machine is made of is in [`form`]; how one comes up, whoever it is for, in [`raising`]; how it becomes a session's in
//! [`starting`]; who holds it then in [`hold`], and who hears what it says in [`attending`]. How a machine is made and kept is the
//! [`vmm`]'s business; what goes on in it is `loopd-guest`'s.
//!
//! In the data directory, beside what every kind of room has there:
//!
//! ```text
//!  sessions/<session>/disk.ext4          all that the session wrote. No host mounts it
//!                    /machine.suspended  the memory of its machine, while that sleeps
//!  rooms/<session>/link, control         sockets of the VMM; token, made, suspension: see [`sockets`], [`made`], [`suspending`]
//!  machines/<server>/                    ground of machines that no session has yet
//!  guest/                                images, disks of layers, templates
//! ```

mod attending;
mod clearing;
mod disk;
mod files;
mod form;
mod ground;
mod hold;
mod inventory;
pub mod link;
mod made;
mod meter;
mod monitor;
mod probe;
pub mod qemu;
mod raising;
mod secrets;
mod sockets;
mod starting;
mod suspending;
mod talk;
mod templates;
pub mod vmm;
mod waiting;

use crate::files::{FileSink, FileWriter, FilesRead};
use crate::room::cgroup::Cgroups;
use crate::room::data::Data;
use crate::room::ids::Ids;
use crate::room::process;
use crate::{Check, Found, Room, RoomSpec, Sandbox, SandboxError, programs};
use async_trait::async_trait;
use ground::Grounds;
use hold::{Holds, Turns};
use loopd_domain::environment::Isolation;
use loopd_domain::limits::{MACHINES_WAITING_MAX, ROOM_ORPHAN_SECONDS_DEFAULT};
use loopd_guest_image::{GuestImages, Programs};
use monitor::Monitor;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use templates::Templates;
use vmm::Vmm;
use waiting::Waitings;

const KIND: Isolation = Isolation::Microvm;

/// Builds rooms out of virtual machines.
pub struct MicrovmSandbox {
    machines: Arc<Machines>,
}

struct Machines {
    data: Data,
    /// Where roots of rooms may lie as well.
    roots: Vec<PathBuf>,
    /// Of the machine that the server runs on, now.
    boot: String,
    orphan_seconds: AtomicU64,
    /// `None` for an ordinary user, who has but one id to give.
    ids: Option<Ids>,
    /// The certificate that programs of rooms trust, in PEM.
    authority: Option<String>,
    programs: Own,
    images: GuestImages,
    monitor: Monitor,
    templates: Templates,
    holds: Holds,
    turns: Turns,
    cgroups: Cgroups,
    /// Before what they stand on: dropped, they end first.
    waiting: Waitings,
    grounds: Grounds,
    wanted: AtomicUsize,
    next: AtomicU64,
}

/// What an initramfs carries.
struct Own {
    guest: Vec<u8>,
    jail: Vec<u8>,
    cell: Vec<u8>,
}

impl Own {
    fn borrow(&self) -> Programs<'_> {
        Programs { guest: &self.guest, jail: &self.jail, cell: &self.cell }
    }
}

impl MicrovmSandbox {
    /// `data`: the directory below which all sessions' directories lie; made when it is not there.
    pub fn new(data: &Path) -> Result<Self, SandboxError> {
        Self::furnished(data, None, Vec::new())
    }

    /// With an authority that programs of rooms trust, or none: `certificate` is the file with its certificate, in PEM, as it is now.
    /// `roots`: directories of the host, absolute and without symbolic links, below which layers may lie besides `data`.
    pub fn furnished(data: &Path, certificate: Option<&Path>, roots: Vec<PathBuf>) -> Result<Self, SandboxError> {
        let authority = certificate.map(read_authority).transpose()?;
        let usual = Programs { guest: programs::GUEST, jail: programs::JAIL, cell: programs::CELL };
        Self::open(data, authority, roots, usual, Monitor::of_host())
    }

    /// With other programs in the guest: a test's.
    pub fn with_programs(data: &Path, programs: Programs<'_>) -> Result<Self, SandboxError> {
        Self::open(data, None, Vec::new(), programs, Monitor::of_host())
    }

    /// With another VMM than the host's QEMU.
    pub fn with_vmm(data: &Path, programs: Programs<'_>, vmm: Arc<dyn Vmm>) -> Result<Self, SandboxError> {
        Self::open(data, None, Vec::new(), programs, Monitor::given(vmm))
    }

    fn open(
        data: &Path,
        authority: Option<String>,
        roots: Vec<PathBuf>,
        programs: Programs<'_>,
        monitor: Monitor,
    ) -> Result<Self, SandboxError> {
        let fault = |source| SandboxError::Directory { path: data.to_owned(), source };
        let data = Data::open(data).map_err(fault)?;
        let server = process::server_name().map_err(fault)?;
        let boot = process::boot().map_err(fault)?;
        let machines = Machines {
            orphan_seconds: AtomicU64::new(ROOM_ORPHAN_SECONDS_DEFAULT),
            ids: rustix::process::geteuid().is_root().then(|| Ids::in_directory(&data.path)),
            authority,
            programs: Own {
                guest: programs.guest.to_vec(),
                jail: programs.jail.to_vec(),
                cell: programs.cell.to_vec(),
            },
            images: GuestImages::new(&data.path),
            monitor,
            templates: Templates::below(&data.path),
            holds: Holds::default(),
            turns: Turns::default(),
            cgroups: Cgroups::open(&server, &data.path),
            waiting: Waitings::default(),
            grounds: Grounds::open(&data.path, &server, &boot).map_err(fault)?,
            wanted: AtomicUsize::new(MACHINES_WAITING_MAX),
            next: AtomicU64::new(1),
            boot,
            roots,
            data,
        };
        Ok(MicrovmSandbox { machines: Arc::new(machines) })
    }

    /// How long a cell of a room started from now on waits for a host before it ends.
    #[must_use]
    pub fn with_orphan_seconds(self, seconds: u64) -> Self {
        self.machines.orphan_seconds.store(seconds, Ordering::Relaxed);
        self
    }

    /// How many machines may live and wait for a session, once such rooms are asked for; 0: each is restored when it is wanted.
    #[must_use]
    pub fn with_waiting_rooms(self, most: usize) -> Self {
        self.machines.wanted.store(most.min(MACHINES_WAITING_MAX), Ordering::Relaxed);
        self
    }
}

fn read_authority(certificate: &Path) -> Result<String, SandboxError> {
    let fault = |source| SandboxError::Authority { path: certificate.to_owned(), source };
    let text = fs::read_to_string(certificate).map_err(fault)?;
    if text.trim_start().starts_with("-----BEGIN CERTIFICATE-----") {
        return Ok(text);
    }
    Err(fault(io::Error::new(io::ErrorKind::InvalidData, "accepted: one certificate in PEM")))
}

#[async_trait]
impl Sandbox for MicrovmSandbox {
    fn kind(&self) -> &'static str {
        KIND.as_str()
    }

    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError> {
        self.machines.start(spec).await
    }

    async fn adopt(&self, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        self.machines.adopt(spec).await
    }

    async fn suspend(&self, spec: &RoomSpec, room: Room) -> Result<(), SandboxError> {
        self.machines.suspend(spec, room).await
    }

    async fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        let machines = Arc::clone(&self.machines);
        let looked = tokio::task::spawn_blocking(move || {
            machines.clear_images();
            machines.inventory()
        })
        .await;
        looked.map_err(|stopped| SandboxError::Machine(format!("looking for rooms: {stopped}")))?
    }

    fn keeps_files(&self, spec: &RoomSpec) -> bool {
        // A disk that cannot be looked at is one that somebody must not build upon.
        self.machines.data.locate(spec).is_ok_and(|path| disk::exists(&path).unwrap_or(true))
    }

    fn sleeps(&self, spec: &RoomSpec) -> bool {
        self.machines.data.locate(spec).is_ok_and(|files| suspending::sleeps(&files))
    }

    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError> {
        self.machines.remove(spec).await
    }

    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        self.machines.read_files(spec, sink)
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        self.machines.write_files(spec)
    }

    async fn probe(&self) -> Vec<Check> {
        probe::run(&self.machines).await
    }
}

impl Machines {
    /// A number that no other machine of this server has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
