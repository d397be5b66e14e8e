//! What a kind of room must be able to do.

use crate::channel::Channel;
use crate::files::{FileSink, FileWriter, FilesRead};
use crate::progress::Teller;
use async_trait::async_trait;
pub use loopd_domain::environment::Accelerator;
use loopd_domain::environment::{Isolation, RoomLimits};
use loopd_domain::{Epoch, SessionId};
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// What a room is built from. Holds no secret.
#[derive(Debug, Clone)]
pub struct RoomSpec {
    pub session: SessionId,
    pub isolation: Isolation,
    /// Of the claim for which the room is wanted. A room is its owner's of the highest epoch, and nobody else's.
    pub epoch: Epoch,
    /// The session's own directory on the host. It outlives the room: what the session wrote is found there again.
    pub directory: PathBuf,
    pub limits: RoomLimits,
    pub root: RoomRoot,
    pub outlet: RoomOutlet,
    /// Who is told how far the room is, where it takes long.
    pub teller: Teller,
}

impl RoomSpec {
    /// A room like any other: the host's `/usr`, default limits, no way out.
    pub fn plain(session: SessionId, epoch: Epoch, directory: PathBuf) -> Self {
        let (limits, root, outlet) = (RoomLimits::default(), RoomRoot::Host, RoomOutlet::Closed);
        let (isolation, teller) = (Isolation::default(), Teller::silent());
        RoomSpec { session, isolation, epoch, directory, limits, root, outlet, teller }
    }
}

/// The root file system of a room; read-only for everybody in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RoomRoot {
    /// The host's `/usr`, as far as programs need it.
    #[default]
    Host,
    /// Directory trees of the host, the uppermost first. They are nobody's to change while a room may use them.
    Layers(Vec<PathBuf>),
    /// The host's `/usr`, with such trees laid over it.
    HostWith(Vec<PathBuf>),
}

impl RoomRoot {
    /// The trees that it is made of besides the host's own.
    pub fn layers(&self) -> &[PathBuf] {
        match self {
            RoomRoot::Host => &[],
            RoomRoot::Layers(layers) | RoomRoot::HostWith(layers) => layers,
        }
    }
}

/// Whether programs of the room can ask for connections to the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RoomOutlet {
    #[default]
    Closed,
    /// Through [`Room::outlet`]. Programs that know of no proxy are served on these ports.
    Open { ports: Vec<u16> },
}

/// Where a room's wishes for connections come out. Each is a stream on which the room's side speaks first, as a client of an
/// HTTP proxy does (RFC 9110, 9.3.6). It is a stranger's.
#[async_trait]
pub trait Outlet: Send {
    /// The next wish. An error: no more will come.
    async fn accept(&mut self) -> std::io::Result<Box<dyn OutletStream>>;
}

pub trait OutletStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> OutletStream for S {}

/// What stands around a room, for whoever reads its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    pub isolation: Isolation,
    /// How a virtual machine's processor is made.
    pub accelerator: Option<Accelerator>,
}

impl Walls {
    pub const NAMESPACES: Walls = Walls { isolation: Isolation::Namespaces, accelerator: None };
}

/// A living room with a cell in it. Dropping it kills every process of the room; its directory stays.
pub struct Room {
    pub walls: Walls,
    /// The host's end of a fresh connection to the cell.
    pub channel: Channel,
    /// `None` in a room whose outlet is closed.
    pub outlet: Option<Box<dyn Outlet>>,
    /// Becomes `Some` when the room is gone.
    pub exit: watch::Receiver<Option<RoomExit>>,
    /// What the room uses up, as far as that is only seen from outside.
    pub meter: Box<dyn RoomMeter>,
    /// Kills the room when dropped.
    pub guard: Box<dyn RoomGuard>,
}

/// The hold on a room. Dropping it kills the room.
pub trait RoomGuard: Send + Sync {
    /// Kills every process of the room at once. Does not wait. Does nothing when a later epoch has the room.
    fn kill(&self);
    /// Process id of the room's first process as the host sees it, where there is one.
    fn pid(&self) -> Option<u32>;
    /// Lets the room live on without this process, for [`Sandbox::adopt`].
    fn leave(self: Box<Self>);
}

/// Looks at what a room uses up.
#[async_trait]
pub trait RoomMeter: Send {
    /// The limits of which the kernel says that they were reached since this was asked last. Reads; does not wait.
    fn reached(&mut self) -> Reached;
    /// Waits until what the session keeps on disk is above its limit, and again each time that it has grown beyond what was told;
    /// answers how many bytes it is. Looks at the disk only while somebody waits, more seldom when the room is not `busy`.
    /// Safe to cancel.
    async fn disk_full(&mut self, busy: bool) -> u64;
}

/// Limits that a room has reached. Its processes were refused what they asked for, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The kernel ended a process to get its memory back.
    pub memory: bool,
    /// A process or thread could not be started.
    pub processes: bool,
}

/// The meter of a room whose backend cannot look at it from outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmetered;

#[async_trait]
impl RoomMeter for Unmetered {
    fn reached(&mut self) -> Reached {
        Reached::default()
    }

    async fn disk_full(&mut self, _busy: bool) -> u64 {
        std::future::pending().await
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomExit {
    /// The cell ended by itself.
    Code(i32),
    Signal(i32),
    /// It has ended; how is not known, as it is no child of this process.
    Gone,
    /// The walls could not be built, or the backend lost sight of the room.
    Failed(String),
    /// It lived, and what was around it went: a machine that crashed, was switched off, or stopped answering. Says what is known.
    Lost(String),
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine cannot build such rooms; `loopd doctor` says what to do.
    #[error("rooms of kind `{kind}` do not work here: {reason}")]
    Unavailable { kind: &'static str, reason: String },
    #[error("the room's directory `{path}`: {source}")]
    Directory { path: PathBuf, source: std::io::Error },
    /// What the room is to be made of cannot be had now.
    #[error("the room's root: {0}")]
    Root(String),
    #[error("the certificate of the authority that rooms trust, `{path}`: {source}")]
    Authority { path: PathBuf, source: std::io::Error },
    /// The launcher is gone and could not be started again.
    #[error("the launcher: {0}")]
    Launcher(String),
    /// The virtual machine did not come up, or does not do what it is told.
    #[error("the machine: {0}")]
    Machine(String),
    /// What the environment wants of a room cannot be had: an image that is not there, a package that does not install.
    #[error("the environment cannot give a room: {0}")]
    Environment(String),
    /// A later owner has the session: whoever meets this stops.
    #[error("a later owner has the session's room: epoch {}", .epoch.0)]
    Fenced { epoch: Epoch },
}

impl SandboxError {
    /// Trying again does not help: something has to be changed first.
    pub fn is_permanent(&self) -> bool {
        match self {
            SandboxError::Unavailable { .. } | SandboxError::Environment(_) | SandboxError::Authority { .. } => true,
            SandboxError::Directory { .. }
            | SandboxError::Root(_)
            | SandboxError::Launcher(_)
            | SandboxError::Machine(_)
            | SandboxError::Fenced { .. } => false,
        }
    }
}

/// What a backend has of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub session: SessionId,
    /// A living room.
    pub room: bool,
    /// One that can be suspended.
    pub can_sleep: bool,
    /// A directory.
    pub files: bool,
    /// What its living room is made of, if that is not the host's `/usr`.
    pub layers: Vec<PathBuf>,
}

/// One fact that `loopd doctor` found out by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was tried: `user namespaces`.
    pub name: String,
    pub verdict: CheckVerdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it; empty when nothing is to be done.
    pub remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    Works,
    /// Rooms can be built, with a weaker wall or without a limit; the detail says which.
    Degraded,
    Broken,
}

#[async_trait]
pub trait Sandbox: Send + Sync {
    /// `namespaces`, `microvm`.
    fn kind(&self) -> &'static str;
    /// Builds a room and starts its cell. Returns as soon as the channel can be written to; a failure to build the walls
    /// after that shows as `Room::exit`. Ends a living room of the session first: two rooms never share a directory.
    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError>;
    /// Takes over the living room that an earlier process left, as it is; one that was suspended is woken. `None`: there is none.
    async fn adopt(&self, spec: &RoomSpec) -> Result<Option<Room>, SandboxError>;
    /// Puts a living room to sleep, its memory on disk: [`Sandbox::adopt`] wakes it. Where this fails the room goes on or is gone;
    /// its directory stays. Not every kind can.
    async fn suspend(&self, spec: &RoomSpec, room: Room) -> Result<(), SandboxError> {
        let _ = (spec, room);
        let reason = "rooms of this kind cannot be suspended".to_owned();
        Err(SandboxError::Unavailable { kind: self.kind(), reason })
    }
    /// Every session that has a room's record or a directory here.
    async fn inventory(&self) -> Result<Vec<Found>, SandboxError>;
    /// Whether what the session wrote lies here in the form of this kind of room. A quick look; `false` where there is nothing.
    fn keeps_files(&self, spec: &RoomSpec) -> bool;
    /// Whether the session's room was suspended, so that [`Sandbox::adopt`] would wake it. A quick look.
    fn sleeps(&self, spec: &RoomSpec) -> bool {
        let _ = spec;
        false
    }
    /// Removes what a session wrote and what is recorded of its room; a living room is ended first. Absent is fine.
    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError>;
    /// Hands all that a session wrote to `sink`, as it is now. A session that never had a room has nothing. Blocks.
    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError>;
    /// A session's files, to be written before it has a room. Blocks, and so does what it returns.
    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError>;
    /// Tries everything that rooms of this kind need.
    async fn probe(&self) -> Vec<Check>;
}
