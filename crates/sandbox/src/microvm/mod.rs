//! Rooms with a kernel of their own (ADR 8): a virtual machine for each session, with a disk, one link to the host, and nothing else.
//!
//! ```text
//!  start ─► nothing lives: a waiting guest, or a restore of the template of its shape, or a cold boot ─► Bind ─► Room
//!  adopt ─► record ─► still there? ─► connect, reset the link ─► Room
//!                 └─► suspended?   ─► revive, Wake ──────────────► Room
//! ```
//!
//! How a machine is made and kept is the [`vmm`]'s business; what goes on in it is `loopd-guest`'s.

pub mod link;
pub mod vmm;
