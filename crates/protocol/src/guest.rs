//! What a host and the first process of a virtual machine say to each other about the machine, on the link: its first stream,
//! with frames as in [`crate::codec`].
//!
//! ```text
//!  guest ── Ready ────────────► host     it has come up
//!  guest ◄─ Prepare ─────────── host     what shape it is of; nothing of any session
//!  guest ── Prepared ─────────► host     a room waits in it: now it can be copied
//!  guest ◄─ Bind ────────────── host     entropy, time, session
//!  guest ── Bound ────────────► host     the session's cell listens
//! ```
//!
//! After each reset of the link the guest says [`FromGuest::Ready`] again. None of this can carry a secret: entropy is no key,
//! it is stirred into what the guest has.

use loopd_domain::SessionId;
use serde::{Deserialize, Serialize};

/// Raised with every change of a message's shape. It is part of a template's fingerprint.
pub const VERSION: u32 = 1;
/// Bytes of entropy that a guest is given.
pub const ENTROPY_BYTES: usize = 64;

/// From the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToGuest {
    /// Once, before the machine is copied.
    Prepare {
        /// The certificate of an authority that programs of rooms are to trust, in PEM.
        authority: Option<String>,
        root: GuestRoot,
    },
    /// Once in a machine's life.
    Bind(Box<Bind>),
    /// After a suspension.
    Wake {
        /// [`ENTROPY_BYTES`], in hexadecimal.
        entropy: String,
        /// Nanoseconds since 1970.
        now_ns: u64,
        /// What the session's disk has grown to since the machine slept in; 0: it has not.
        #[serde(default)]
        disk_bytes: u64,
    },
    /// Writes all that the session has written to its disk. Answered with [`FromGuest::Synced`].
    Sync,
    /// Answered with [`FromGuest::Pong`].
    Ping { number: u64 },
}

/// What the room's root is made of. The base disk is the machine's first, the session's its second; layers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestRoot {
    /// The base disk's `/usr`, as the host's in a room of namespaces.
    Base,
    /// The disks after the second, the uppermost first; so many.
    Layers { disks: u32 },
    /// The base disk's, with these laid over it.
    BaseWith { disks: u32 },
}

/// What makes a waiting machine a session's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    pub session: SessionId,
    /// [`ENTROPY_BYTES`], in hexadecimal.
    pub entropy: String,
    /// Nanoseconds since 1970.
    pub now_ns: u64,
    pub host_name: String,
    /// What a host says at the next reset, in hexadecimal.
    pub token: String,
    /// `None`: the machine only reads and writes files of the session; no room comes to be.
    pub room: Option<BindRoom>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindRoom {
    pub pids: u64,
    pub open_files: u64,
    pub file_bytes: u64,
    /// What processes of the room may have together; the machine has more.
    pub memory_bytes: u64,
    pub orphan_seconds: u64,
    /// Ports on which programs that know of no proxy are served; `None`: no way out.
    pub outlet_ports: Option<Vec<u16>>,
}

/// From the guest: a stranger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromGuest {
    Ready {
        version: u32,
        state: GuestState,
    },
    Prepared,
    Bound,
    Awake,
    Synced,
    Pong {
        number: u64,
    },
    /// The kernel refused processes of the room what they asked for, or ended one.
    Reached {
        memory: bool,
        processes: bool,
    },
    /// The session's disk is full.
    DiskFull {
        used_bytes: u64,
    },
    /// The cell has ended; the machine goes down.
    Ended {
        end: GuestEnd,
    },
    /// What was asked for cannot be done.
    Failed {
        doing: String,
        reason: String,
    },
    /// For the host's log.
    Log {
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    Booted,
    Prepared,
    Bound,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestEnd {
    Code { code: i32 },
    Signal { signal: i32 },
    Failed { reason: String },
}
