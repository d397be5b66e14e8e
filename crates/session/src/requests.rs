//! What the server may ask of sessions, in types.

use crate::connections::ConnectionReports;
pub use crate::driver::RoomProgress;
use loopd_broker::{Bearers, Egress, Placeholders};
use loopd_domain::agent::Metadata;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::{Session, SessionAgent, TurnSettings};
use loopd_domain::{Clock, EnvironmentId, EventId, IdSource, Seq, SessionId, Timestamp, VaultId, WorkspaceId};
use loopd_host_tools::HostTools;
use loopd_images::Images;
use loopd_models::Registry;
use loopd_sandbox::Sandbox;
use loopd_store::{AppendError, OnceRecord, Store, StoreError};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// All that sessions are built on. Made once, by the composition root.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub sandbox: Arc<dyn Sandbox>,
    /// What rooms are made of.
    pub images: Images,
    pub models: Arc<Registry>,
    pub host_tools: Arc<dyn HostTools>,
    /// Serves what comes out of a room's outlet, and tells `connections` of it.
    pub egress: Arc<dyn Egress>,
    pub connections: Arc<ConnectionReports>,
    pub placeholders: Arc<dyn Placeholders>,
    /// What MCP servers are shown.
    pub bearers: Arc<dyn Bearers>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    /// Directories of sessions live under `<data>/sessions/<id>`.
    pub data: PathBuf,
    /// No other process can be alive on this store: claims of earlier processes are over, whatever their lease says.
    pub sole_owner: bool,
    /// Turns that have lost their owner go on here. A process that is about to end leaves them to the next one: each
    /// takeover counts, and what runs in a room is lost with its process.
    pub takes_up: bool,
    /// How long an idle session keeps its room, in milliseconds.
    pub room_idle_ms: u64,
    /// How long what is held waits to be written (ADR 9).
    pub held_ms: u64,
}

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub workspace: WorkspaceId,
    pub agent: SessionAgent,
    pub environment: Option<EnvironmentId>,
    pub room: EnvironmentConfig,
    /// Its own, and not archived: the caller has looked.
    pub vaults: Vec<VaultId>,
    pub title: Option<String>,
    pub metadata: Metadata,
    /// `user.message` only; may be empty. A non-empty list starts the first turn.
    pub inputs: Vec<EventBody>,
    pub settings: TurnSettings,
}

/// Makes a repeated request have one effect (see `loopd_store::OnceRecord`).
#[derive(Debug, Clone)]
pub struct OnceKey {
    /// Scope and key, e.g. `sessions.create:<key>`.
    pub key: String,
    pub request_digest: String,
}

/// What was accepted, durably.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub session: Session,
    /// The inputs in the order of the request.
    pub inputs: Vec<AcceptedInput>,
    /// The last seq before anything that this request appended: follow from here to see the request and what comes of it.
    pub seq: Seq,
    /// The request had been accepted before; nothing was done this time.
    pub repeated: bool,
}

/// One accepted input. Its id is the id of the event that the stream shows when a turn takes it up.
#[derive(Debug, Clone)]
pub struct AcceptedInput {
    pub id: EventId,
    pub body: EventBody,
    /// `None` while it is queued.
    pub processed_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("no session `{0}`")]
    Absent(SessionId),
    /// The request cannot be done in the session's present state; the sentence says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// The key was used with another request.
    #[error("idempotency key `{key}` was used before with another request; accepted: the same request, or a new key")]
    KeyReused { key: String },
    /// Too much waits already; try again.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Model(#[from] loopd_models::ResolveError),
    /// Another process owns the session.
    #[error("the session is owned by another server process for now; try again")]
    Elsewhere,
    /// An archive's session is here already.
    #[error("session `{0}` exists here already; accepted: an archive of another session, or delete this one first")]
    Exists(SessionId),
    /// Files could not be read or written, and not because of what the caller sent.
    #[error("the session's files are not available: {0}")]
    Files(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the server is shutting down")]
    Stopping,
}

/// How a service that stops leaves what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// To the process that comes next: sessions are let go in the middle of their turns, and their rooms may live on.
    HandOver,
    /// To nobody in particular: turns rest where they are, and no room outlives this process.
    End,
}

/// Where a follower starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowFrom {
    /// Everything after this seq, then what comes.
    After(Seq),
    /// What comes; but a turn that is under way, or that ended moments ago unseen, is shown from its start (late attach).
    Live,
}

/// What a follower is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// From the journal, each once, in order, no gap. Only public events (`EventBody::is_public`).
    Event(Arc<Event>),
    /// Previews: never history, may stop at any point; the event with the same id supersedes them.
    MessageStart {
        id: EventId,
    },
    MessageText {
        id: EventId,
        index: usize,
        text: String,
    },
    ThinkingStart {
        id: EventId,
    },
    ToolOutput {
        id: EventId,
        text: String,
    },
    /// How far the room is for which the session waits: the last word, and nothing of those before it.
    RoomProgress(RoomProgress),
    /// The session was deleted; nothing follows.
    Deleted,
}

/// Which events of a session, in journal order or against it.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Empty: all.
    pub kinds: Vec<String>,
    pub range: loopd_store::TimeRange,
    pub ascending: bool,
    /// Continue after this seq (in list order).
    pub after: Option<Seq>,
    pub limit: usize,
}

/// One page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Inputs that are accepted and wait, after all events of an ascending list (before them in a descending one).
    pub queued: Vec<AcceptedInput>,
    /// Pass as `after` to go on.
    pub next: Option<Seq>,
}

/// What became of a redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedEvent {
    pub event_id: EventId,
    /// Entries that held its content: itself, and the one that had held it while it waited.
    pub entries: u32,
    /// The old text is in no file of the store any more.
    pub purged: bool,
}

/// Changes that a caller may make to a session; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct SessionEdit {
    pub title: Option<Option<String>>,
    /// Key-level patch: `Some` sets, `None` removes.
    pub metadata: Vec<(String, Option<String>)>,
    /// Replaces the tools; only while idle.
    pub tools: Option<Vec<loopd_domain::agent::Tool>>,
    /// Replaces the MCP servers; only while idle.
    pub mcp_servers: Option<Vec<loopd_domain::mcp::McpServer>>,
}

/// The record that makes a repetition of this request find its first answer.
pub(crate) fn once_record(
    workspace: &WorkspaceId,
    once: OnceKey,
    session: &SessionId,
    inputs: &[AcceptedInput],
    seq: Seq,
    at: Timestamp,
) -> OnceRecord {
    let ids: Vec<&str> = inputs.iter().map(|i| i.id.as_str()).collect();
    OnceRecord {
        workspace: workspace.clone(),
        key: once.key,
        request_digest: once.request_digest,
        reference: json!({"session": session.as_str(), "seq": seq, "inputs": ids}),
        at,
    }
}
