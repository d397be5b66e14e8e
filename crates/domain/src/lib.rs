//! The words of loopd: nouns, ids, events, legal transitions and limits.
//!
//! Everything here is plain data and pure functions. No I/O, no async, no clock, no randomness: time comes as a
//! [`Timestamp`], ids come from an [`IdSource`], and both are arguments. Every other room speaks in these types, and none
//! of them is told here who stores, sends or runs anything.
//!
//! Start with [`event`] (what the journal holds) and [`fold`] (what a session *is*: a fold of its journal).

pub mod agent;
pub mod audit;
pub mod chain;
pub mod clock;
pub mod content;
pub mod conversation;
pub mod environment;
pub mod event;
pub mod fold;
pub mod identity;
pub mod ids;
pub mod invalid;
pub mod limits;
pub mod mcp;
pub mod network;
pub mod packages;
pub mod progress;
pub mod rate;
pub mod redaction;
pub mod session;
pub mod usage;
pub mod variable;
pub mod vault;

pub use clock::{Clock, IdSource, Timestamp};
pub use ids::{
    AgentId, ApiKeyId, AuditId, CallId, CredentialId, EnvironmentId, EventId, RequestId, SessionId, ThreadId, VaultId,
    WorkspaceId,
};
pub use invalid::Invalid;

/// Position of an event in its session's journal. Dense per session; the first event has 1, and 0 means "before the first".
pub type Seq = u64;

/// Ownership generation of a session. Only a new claim raises it; everything that leaves the journal carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);
