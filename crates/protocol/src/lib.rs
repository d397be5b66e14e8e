//! Frames between a cell and its host. Versioned; bounded; cannot carry a plaintext secret, because no frame has a place
//! for one: the host never tells a cell anything but the journal's facts about its own session.
//!
//! A frame is a little-endian `u32` of payload length, then that many bytes of JSON. The channel is a stream socket that
//! the cell inherits as file descriptor [`CHANNEL_FD`].
//!
//! ```text
//!  cell ── Hello ──► host            version first; a mismatch ends the channel
//!  cell ◄─ Begin ─── host            config, and where the turn stands
//!  cell ── Batch ──► host            results of calls, then what the loop wants next; one batch is one commit
//!  cell ◄─ Input ─── host            facts, each after it is durable
//! ```

pub mod codec;

use loopd_agent_loop::{Command, Input, LoopConfig, Resume};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use loopd_domain::{CallId, Epoch, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

/// Raised with every change of a frame's shape.
pub const VERSION: u32 = 1;

/// Where the cell finds its end of the channel.
pub const CHANNEL_FD: i32 = 3;

/// From the host to the cell.
#[allow(clippy::large_enum_variant, reason = "made one at a time, to be written at once")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ToCell {
    /// First frame, and again for each later turn of the same room.
    Begin {
        version: u32,
        session: SessionId,
        epoch: Epoch,
        config: LoopConfig,
        resume: Resume,
        now: Timestamp,
    },
    Input {
        now: Timestamp,
        input: Input,
    },
    /// End every process of the room and exit.
    Shutdown,
}

/// From the cell to the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum FromCell {
    Hello {
        version: u32,
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
