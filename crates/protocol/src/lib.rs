//! Frames between a cell and its host. Versioned; bounded; cannot carry a plaintext secret, because no frame has a place
//! for one: the host never tells a cell anything but the journal's facts about its own session.
//!
//! A frame is a little-endian `u32` of payload length, then that many bytes of JSON. The cell inherits a listening stream
//! socket as file descriptor [`CHANNEL_FD`]; hosts connect to it, one after the other (ADR 4).
//!
//! ```text
//!  cell ◄─ Attach ── host            version and epoch first; the highest epoch is the cell's host, every other is closed
//!  cell ── Hello ──► host            what the cell runs, or has the results of
//!  cell ◄─ Begin ─── host            config, and where the turn stands
//!  cell ── Batch ──► host            results of calls, then what the loop wants next; one batch is one commit
//!  cell ◄─ Input ─── host            facts, each after it is durable
//! ```

pub mod codec;
pub mod guest;
pub mod link;

use loopd_agent_loop::{Command, Input, LoopConfig, Resume};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use loopd_domain::limits::{ROOM_CALL_SECONDS_DEFAULT, ROOM_OUTPUT_BYTES_DEFAULT};
use loopd_domain::{CallId, Epoch, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

/// Raised with every change of a frame's shape.
pub const VERSION: u32 = 2;

/// Where the cell finds the socket on which hosts connect.
pub const CHANNEL_FD: i32 = 3;

/// The variable that says for how many seconds a cell waits for a host before it ends.
pub const ORPHAN_SECONDS: &str = "LOOPD_ORPHAN_SECONDS";

/// In a room with a way out: the variable with the path of the host's socket for connections, and the one with the ports on which
/// programs that know of no proxy are served, `80,443`.
pub const OUTLET: &str = "LOOPD_OUTLET";
pub const OUTLET_PORTS: &str = "LOOPD_OUTLET_PORTS";

/// From the host to the cell.
#[allow(clippy::large_enum_variant, reason = "made one at a time, to be written at once")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ToCell {
    /// First frame of a connection, and only there.
    Attach {
        version: u32,
        session: SessionId,
        epoch: Epoch,
    },
    /// A turn to work on. Of the calls that the cell runs, those that are open in `resume` go on; the others are stopped.
    Begin {
        config: LoopConfig,
        resume: Resume,
        now: Timestamp,
        /// Variables that programs of the room find in their environment, from the next shell on: names, and placeholders that
        /// are worth nothing outside this session.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        variables: Vec<(String, String)>,
        /// Of each call that the cell runs.
        #[serde(default)]
        limits: CallLimits,
    },
    /// Ends the calls that run in the room: they have reached a limit that only the host sees. Each gets `message` for its
    /// result, an error.
    Stop {
        message: String,
    },
    Input {
        now: Timestamp,
        input: Input,
    },
    /// End every process of the room and exit.
    Shutdown,
}

/// What one call that the cell runs may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallLimits {
    /// Bytes that it may print.
    pub output_bytes: u64,
    /// How long it may run, whatever it asks for.
    pub seconds: u64,
}

impl Default for CallLimits {
    fn default() -> Self {
        CallLimits { output_bytes: ROOM_OUTPUT_BYTES_DEFAULT, seconds: ROOM_CALL_SECONDS_DEFAULT }
    }
}

/// From the cell to the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum FromCell {
    /// The answer to `Attach`. `calls` run, or have ended with a result that the journal may not have: a call that is not among
    /// them was never started in this room.
    Hello {
        version: u32,
        calls: Vec<CallId>,
    },
    Batch {
        epoch: Epoch,
        results: Vec<CallResult>,
        commands: Vec<Command>,
    },
    /// A piece of a running call's output, as a preview for those who watch. Never history.
    Output {
        id: CallId,
        text: String,
    },
    /// Something that the operator should read.
    Log {
        message: String,
    },
}

/// What a call in the room came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallResult {
    pub id: CallId,
    pub content: Vec<ContentBlock>,
    pub is_error: bool,
    pub outcome: Outcome,
    /// As the cell saw it. The host records its own measure.
    pub duration_ms: u64,
}
