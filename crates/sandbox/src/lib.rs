//! The port [`Sandbox`]: walls around a cell. Backends know nothing of each other; each passes [`conformance`].
//!
//! To add a kind of room: a directory beside `namespaces/`, its line in `loopd/`'s composition root, the conformance suite
//! called from its tests.

mod channel;
pub mod conformance;
pub mod kinds;
pub mod microvm;
pub mod namespaces;
pub mod port;
pub mod programs;
pub mod progress;
mod room;

pub use channel::Channel;
pub use kinds::Kinds;
/// A session's files on their way: they have a room of their own, as a guest needs it too.
pub use loopd_files as files;
pub use microvm::MicrovmSandbox;
pub use namespaces::NamespaceSandbox;
pub use port::{
    Accelerator, Check, CheckVerdict, Found, Outlet, OutletStream, Reached, Room, RoomExit, RoomGuard, RoomMeter,
    RoomOutlet, RoomRoot, RoomSpec, Sandbox, SandboxError, Unmetered, Walls,
};
