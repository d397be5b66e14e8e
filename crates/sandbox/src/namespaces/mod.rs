//! Rooms made of namespaces: one machine, one kernel, a wall of everything Linux has.
//!
//! What the walls are stands in `loopd_jail`, which builds them; what a session keeps in [`directory`]; whose ids it has, what it
//! may use, and whose it is from one server to the next in [`crate::room`]. A room is put together from them in [`starting`]:
//!
//! ```text
//!  start ─► nothing there yet: a room that waits, complete ([`waiting`]) ─────────────────────────────────► Room
//!        ─► lock, end what lives ─► directory and ids ─► one that is parked ─► record ─► its session ─► Room { channel, exit, guard }
//!  adopt ─► lock, record ─► still there? ─► connect ─► record ─────────────────────────────────────► Room
//! ```
//!
//! In the data directory: `sessions/` what sessions wrote, `rooms/` records and sockets, `spares/` what is made in advance.
//!
//! Not here: what the cell says on the channel, and when a session needs a room.

mod copy;
mod directory;
mod disk;
mod inventory;
mod launcher;
mod living;
mod meter;
mod outlet;
mod place;
mod pool;
mod probe;
mod root;
mod running;
mod shelves;
mod socket;
mod spares;
mod starting;
mod waiting;

use crate::files::{FileSink, FileWriter, FilesRead};
use crate::room::cgroup::Cgroups;
use crate::room::data::Data;
use crate::room::ids::Ids;
use crate::room::process;
use crate::{Check, Found, Room, RoomOutlet, RoomSpec, Sandbox, SandboxError, programs};
use async_trait::async_trait;
use launcher::Launcher;
use loopd_domain::environment::Isolation;
use loopd_domain::limits::ROOM_ORPHAN_SECONDS_DEFAULT;
use pool::Starting;
use running::Running;
use spares::Spares;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;
use waiting::{Shape, Waitings};

/// The launcher knows nothing of frames; it must only put the channel where the cell looks for it.
const _: () = assert!(loopd_jail::CHANNEL == loopd_protocol::CHANNEL_FD);

const KIND: Isolation = Isolation::Namespaces;
/// Bytes of an authority's certificate: what is left of a packet to the launcher beside the longest path.
const AUTHORITY_BYTES_MAX: usize = 3 << 10;
const _: () = assert!(AUTHORITY_BYTES_MAX + 4_096 + 64 <= loopd_jail::wire::PACKET_BYTES_MAX);

/// Builds rooms out of namespaces. As root every session has host ids of its own and its cell is out of reach of its tools'
/// user; as an ordinary user all rooms have the server's user, and the cell protects itself.
pub struct NamespaceSandbox {
    rooms: Arc<Rooms>,
}

struct Rooms {
    data: Data,
    /// Where roots of rooms may lie as well.
    roots: Vec<PathBuf>,
    /// Of the machine, now.
    boot: String,
    orphan_seconds: AtomicU64,
    /// `None` for an ordinary user, who has but one id to give.
    ids: Option<Ids>,
    cgroups: Cgroups,
    launcher: Launcher,
    /// Before what they stand on: dropped, they end first.
    waiting: Waitings,
    spares: Spares,
    starting: Starting,
    next: AtomicU64,
}

impl NamespaceSandbox {
    /// `data`: the directory below which all sessions' directories lie; made when it is not there.
    pub fn new(data: &Path) -> Result<Self, SandboxError> {
        Self::with_cell(data, programs::CELL)
    }

    /// With another program in the cell's place: a test's, or another one that speaks `loopd_protocol`.
    pub fn with_cell(data: &Path, cell: &[u8]) -> Result<Self, SandboxError> {
        Self::open(data, cell, Vec::new(), Vec::new())
    }

    /// Programs of rooms trust an authority. `certificate`: the file with its certificate, in PEM, as it is now.
    pub fn with_authority(data: &Path, certificate: &Path) -> Result<Self, SandboxError> {
        Self::furnished(data, Some(certificate), Vec::new())
    }

    /// With an authority, or none. `roots`: directories of the host, absolute and without symbolic links, below which rooms'
    /// roots may lie besides `data`.
    pub fn furnished(data: &Path, certificate: Option<&Path>, roots: Vec<PathBuf>) -> Result<Self, SandboxError> {
        let authority = certificate.map_or(Ok(Vec::new()), read_authority)?;
        Self::open(data, programs::CELL, authority, roots)
    }

    fn open(data: &Path, cell: &[u8], authority: Vec<u8>, roots: Vec<PathBuf>) -> Result<Self, SandboxError> {
        root::check_directories(&roots)?;
        let fault = |source| SandboxError::Directory { path: data.to_owned(), source };
        let data = Data::open(data).map_err(fault)?;
        let server = process::server_name().map_err(|source| SandboxError::Launcher(source.to_string()))?;
        let boot = process::boot().map_err(|source| SandboxError::Launcher(format!("reading boot_id: {source}")))?;
        let spares = Spares::open(&data.path, &server, &boot).map_err(fault)?;
        let rooms = Rooms {
            boot,
            orphan_seconds: AtomicU64::new(ROOM_ORPHAN_SECONDS_DEFAULT),
            ids: rustix::process::geteuid().is_root().then(|| Ids::in_directory(&data.path)),
            cgroups: Cgroups::open(&server, &data.path),
            launcher: Launcher::new(cell, data.path.clone(), authority, roots.clone())?,
            waiting: Waitings::new(),
            spares,
            starting: Starting::default(),
            next: AtomicU64::new(1),
            data,
            roots,
        };
        let rooms = Arc::new(rooms);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The first session finds the launcher there, and a room. If it cannot be started, that session is told so.
            let early = Arc::clone(&rooms);
            runtime.spawn(async move { early.running().await.map(drop) });
        }
        Ok(NamespaceSandbox { rooms })
    }

    /// How long a cell of a room started from now on waits for a host before it ends.
    #[must_use]
    pub fn with_orphan_seconds(self, seconds: u64) -> Self {
        self.rooms.orphan_seconds.store(seconds, Ordering::Relaxed);
        self
    }

    /// What most sessions' rooms are like: with default limits, and this way out.
    #[must_use]
    pub fn with_usual_outlet(self, outlet: RoomOutlet) -> Self {
        let usual = Shape { outlet, ..Shape::default() };
        self.rooms.waiting.shelves().expect(usual, Instant::now());
        self
    }

    /// How many rooms may live and wait for a session; 0: each is built when it is wanted.
    #[must_use]
    pub fn with_waiting_rooms(self, most: usize) -> Self {
        self.rooms.waiting.shelves().limit(most);
        self
    }
}

/// One certificate, which fits into the launcher's configuration beside a path.
fn read_authority(certificate: &Path) -> Result<Vec<u8>, SandboxError> {
    let fault = |source| SandboxError::Authority { path: certificate.to_owned(), source };
    let bytes = fs::read(certificate).map_err(fault)?;
    let begins = bytes.trim_ascii_start().starts_with(b"-----BEGIN CERTIFICATE-----");
    if begins && bytes.len() <= AUTHORITY_BYTES_MAX {
        return Ok(bytes);
    }
    let accepted = format!("accepted: one certificate in PEM, up to {AUTHORITY_BYTES_MAX} bytes");
    Err(fault(io::Error::new(io::ErrorKind::InvalidData, accepted)))
}

#[async_trait]
impl Sandbox for NamespaceSandbox {
    fn kind(&self) -> &'static str {
        KIND.as_str()
    }

    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError> {
        self.rooms.start(spec).await
    }

    async fn adopt(&self, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        self.rooms.adopt(spec).await
    }

    async fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        let rooms = Arc::clone(&self.rooms);
        let looked = tokio::task::spawn_blocking(move || rooms.inventory()).await;
        looked.map_err(|stopped| SandboxError::Launcher(format!("looking for rooms: {stopped}")))?
    }

    fn keeps_files(&self, spec: &RoomSpec) -> bool {
        self.rooms.data.locate(spec).is_ok_and(|path| directory::is_complete(&path))
    }

    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError> {
        self.rooms.remove(spec).await
    }

    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        copy::read(&self.rooms.data.locate(spec)?, sink)
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        copy::write(&self.rooms.data.locate(spec)?, self.rooms.ids.as_ref())
    }

    async fn probe(&self) -> Vec<Check> {
        probe::run(self).await
    }
}

impl Rooms {
    /// A number that no other room of this server has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The launcher, started if there is none.
    async fn running(self: &Arc<Self>) -> Result<Arc<Running>, SandboxError> {
        let awake = self.launcher.wake().await?;
        if awake.is_new {
            tokio::spawn(pool::keep_filled(Arc::downgrade(self), Arc::clone(&awake.running)));
        }
        Ok(awake.running)
    }
}
