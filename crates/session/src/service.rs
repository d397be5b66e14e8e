//! What the server may ask of sessions.

use loopd_domain::agent::Metadata;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::{Session, SessionAgent, TurnSettings};
use loopd_domain::{Clock, EnvironmentId, EventId, IdSource, Seq, SessionId, WorkspaceId};
use loopd_models::Registry;
use loopd_sandbox::Sandbox;
use loopd_store::{AppendError, SessionFilter, Store, StoreError};

use std::path::PathBuf;
use std::sync::Arc;

/// All that sessions are built on. Made once, by the composition root.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub sandbox: Arc<dyn Sandbox>,
    pub models: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    /// Directories of sessions live under `<data>/sessions/<id>`.
    pub data: PathBuf,
    /// How long an idle session keeps its room, in milliseconds.
    pub room_idle_ms: u64,
}

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub workspace: WorkspaceId,
    pub agent: SessionAgent,
    pub environment: Option<EnvironmentId>,
    pub room: EnvironmentConfig,
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
    pub processed_at: Option<loopd_domain::Timestamp>,
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
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the server is shutting down")]
    Stopping,
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
    Event(Event),
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
    /// The session was deleted; nothing follows.
    Deleted,
}

/// A place in a session's journal that moves on as the journal grows.
pub struct Follower {}

impl Follower {
    /// The next item; waits for it. `None` when the service stops.
    pub async fn next(&mut self) -> Option<Result<Followed, StoreError>> {
        None
    }
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

/// Changes that a caller may make to a session; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct SessionEdit {
    pub title: Option<Option<String>>,
    /// Key-level patch: `Some` sets, `None` removes.
    pub metadata: Vec<(String, Option<String>)>,
    /// Replaces the tools; only while idle.
    pub tools: Option<Vec<loopd_domain::agent::Tool>>,
}

/// The door to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct SessionService {
    _parts: Arc<Parts>,
}

impl SessionService {
    /// Starts the service: recovers what has lost its owner, then keeps leases.
    pub async fn start(parts: Parts) -> Result<Self, ServiceError> {
        Ok(SessionService { _parts: Arc::new(parts) })
    }

    pub async fn create(&self, new: NewSession, once: Option<OnceKey>) -> Result<Accepted, ServiceError> {
        let _ = (new, once);
        Err(ServiceError::Stopping)
    }

    /// Accepts inputs (client kinds of `EventBody`), all or none.
    pub async fn send(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        inputs: Vec<EventBody>,
        settings: TurnSettings,
        once: Option<OnceKey>,
    ) -> Result<Accepted, ServiceError> {
        let _ = (workspace, inputs, settings, once);
        Err(ServiceError::Absent(id.clone()))
    }

    pub async fn get(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, ServiceError> {
        let _ = workspace;
        Err(ServiceError::Absent(id.clone()))
    }

    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<Session>, ServiceError> {
        let _ = filter;
        Ok(Vec::new())
    }

    /// Appends `session.updated` when something changed.
    pub async fn edit(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        edit: SessionEdit,
    ) -> Result<Session, ServiceError> {
        let _ = (workspace, edit);
        Err(ServiceError::Absent(id.clone()))
    }

    /// Ends the session for good; its history stays readable. Refused while a turn runs.
    pub async fn archive(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, ServiceError> {
        let _ = workspace;
        Err(ServiceError::Absent(id.clone()))
    }

    /// Removes history and files. Refused while a turn runs.
    pub async fn delete(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<(), ServiceError> {
        let _ = workspace;
        Err(ServiceError::Absent(id.clone()))
    }

    pub async fn events(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        query: EventQuery,
    ) -> Result<EventPage, ServiceError> {
        let _ = (workspace, query);
        Err(ServiceError::Absent(id.clone()))
    }

    /// Registered before it returns: nothing that is appended afterwards is missed.
    pub async fn follow(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        from: FollowFrom,
    ) -> Result<Follower, ServiceError> {
        let _ = (workspace, from);
        Err(ServiceError::Absent(id.clone()))
    }

    /// Lets running sessions go (their turns are taken up at the next start) and ends every room.
    pub async fn stop(&self) {}
}
