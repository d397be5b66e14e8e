//! The launcher: a small process, started first, that starts rooms for a large one.
//!
//! Forking a large process with threads is slow and unsafe, so the host never does it. It sends an order over a socket
//! ([`wire`]), and the launcher clones itself; the clone builds the walls of one room around itself and becomes the cell.
//!
//! ```text
//!  host ══Park═══► launcher ──clone3──► child: namespaces, cgroups, a room without a session; it waits
//!       ══Start══►     │  ───order────►   └─► session's directories, user namespace, walls, exec ─► cell (PID 1 of the room)
//!       ◄══news═══     │  ◄─"ids please", or what failed──┘
//! ```
//!
//! Three decisions carry the design:
//!
//! - **The stage is set once.** At start the launcher leaves the host's tree for one of its own ([`stage`]): a finished
//!   read-only room and the directory of sessions. A child inherits a copy and adds only what is its session's.
//! - **A room owns none of its namespaces.** The child builds its mounts, network and process ids while it is still the
//!   launcher's own kin, and enters its user namespace last ([`room`]). So even a process with every capability of that user
//!   namespace has no power over a mount, an interface or a host name.
//!
//! - **A room outlives its launcher.** A child needs the launcher until its walls are complete; one that still waits or builds
//!   ends when its link to the launcher closes. A cell is nobody's child any more, and only an explicit kill ends it.
//!
//! An ordinary user gets the same in one step more: the launcher first enters a user namespace of its own, as its root.
//!
//! Not here: which sessions exist, where cgroups are made, who may use what. The host says so in each order.

pub mod channel;
pub mod confine;
pub mod fault;
pub mod filter;
pub mod launcher;
pub mod probe;
pub mod program;
pub mod wire;

mod entry;
pub mod ids;
mod landlock;
mod mounts;
mod network;
mod room;
mod root;
mod stage;
mod sys;
mod trust;
mod walls;

pub use stage::SYSTEM;

/// The descriptor on which the cell listens for hosts.
pub const CHANNEL: i32 = 3;
