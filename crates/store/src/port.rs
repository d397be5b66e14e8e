//! What a store must be able to do. Errors name facts; "absent" is `Ok(None)`.

use async_trait::async_trait;
use loopd_domain::agent::Agent;
use loopd_domain::audit::AuditRecord;
use loopd_domain::chain::{Entry, Hash};
use loopd_domain::environment::{Environment, Isolation};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::{IllegalEvent, SessionFold};
use loopd_domain::identity::{ApiKey, KeyDigest, Workspace};
use loopd_domain::session::{Session, Status};
use loopd_domain::{AgentId, ApiKeyId, EnvironmentId, Epoch, EventId, Seq, SessionId, Timestamp, WorkspaceId};
use serde_json::Value;
use tokio::sync::watch;

/// The store cannot do its work now. What was acknowledged is safe; the call had no effect unless it says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Disk full, read-only, locked by another process: may pass.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Stored data that cannot be read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("the store is closed")]
    Closed,
}

/// A random id per process start. Never a host name: two processes must not take each other for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerId(pub String);

/// A hold on a session, until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub owner: OwnerId,
    pub until: Timestamp,
}

/// The right to write one session's journal, until somebody else claims it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub session: Session,
    /// Hash of the last entry.
    pub last_hash: Hash,
    /// Nobody held it: it was made for nobody, or its last owner released it in order. Otherwise it was taken from a holder
    /// whose lease is over, who may have left something in flight.
    pub handed_over: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClaimOutcome {
    Claimed(Box<Claim>),
    /// Another owner's lease runs until then.
    Held {
        until: Timestamp,
    },
    Absent,
}

/// The end of a journal, as its session's row records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub seq: Seq,
    pub hash: Hash,
}

/// An entry as it lies in the store. Unlike an [`Entry`] it may be wrong: see [`crate::chain::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEntry {
    pub seq: Seq,
    pub id: EventId,
    pub kind: String,
    pub payload: String,
    pub at: Timestamp,
    /// SHA-256 of the payload as it was written, when what is here is a tombstone in its place.
    pub redacted: Option<Hash>,
    pub hash: Hash,
}

/// One transaction on one journal.
#[derive(Debug, Clone)]
pub struct Append {
    pub session: SessionId,
    pub epoch: Epoch,
    /// Seq of the last entry that the writer knows.
    pub expected_seq: Seq,
    /// Dense from `expected_seq + 1`. May be empty: then only the fold is written.
    pub entries: Vec<Entry>,
    /// The fold after the entries.
    pub fold: SessionFold,
    /// What the entries say was changed of the session as a resource: written with them, or not at all.
    pub change: Option<SessionChange>,
    /// Written with the entries, or not at all. A key that exists already makes the whole append a [`AppendError::Repeated`].
    pub once: Option<OnceRecord>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Another owner has claimed the session: stop at once.
    #[error("session is owned by epoch {current:?}")]
    Fenced { current: Epoch },
    /// The journal is not where the writer believed it to be: re-read.
    #[error("journal is at {actual}, not where expected")]
    Conflict { actual: Seq },
    /// The same request was done before; this is the record that it left.
    #[error("the request was done before")]
    Repeated(OnceRecord),
    #[error("no such session")]
    Absent,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session with a journal that was sealed before: a copy, or an archive that is read back.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its fold is not looked at: it is made from the entries.
    pub session: Session,
    /// The whole journal, dense from 1, verbatim; redacted entries with the digest of what they were.
    pub entries: Vec<SealedEntry>,
    /// `None`: nobody's. Where the journal ends within a turn, somebody will claim it.
    pub lease: Option<Lease>,
    pub once: Option<OnceRecord>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ImportError {
    #[error("the journal has {found} {unit}; accepted: up to {max}")]
    TooLarge { unit: &'static str, found: usize, max: usize },
    #[error(transparent)]
    Broken(#[from] crate::chain::Broken),
    /// Of a kind that this version does not know, or not what its kind says.
    #[error("entry {seq} cannot be read: {reason}")]
    Unreadable { seq: Seq, reason: String },
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// Also an id that exists: [`AppendError::Conflict`].
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// One entry's content is to go. Whoever asks for it owns the session, and knows its conversation anew afterwards.
#[derive(Debug, Clone)]
pub struct Redaction {
    pub session: SessionId,
    pub epoch: Epoch,
    pub seq: Seq,
    /// What stands there from now on: an event of the same kind that fits into the history where the old one stood.
    pub tombstone: EventBody,
}

/// What a redaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// A tombstone stood there already; it was replaced by this one.
    pub again: bool,
    /// The old text is in no file of the store any more. `false`: a reader was in the way; the same redaction again tries to
    /// purge it again.
    pub purged: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RedactError {
    #[error("there is no entry {seq}; accepted: 1 to {last}")]
    NoEntry { seq: Seq, last: Seq },
    #[error("entry {seq} is `{kind}`, and its tombstone is `{given}`; accepted: one of the same kind")]
    OtherKind { seq: Seq, kind: String, given: &'static str },
    /// With the tombstone in its place the history would not be one.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Makes a repeated request have one effect. Lives for `limits::IDEMPOTENCY_WINDOW_MS`.
#[derive(Debug, Clone, PartialEq)]
pub struct OnceRecord {
    pub workspace: WorkspaceId,
    /// Scope and key, e.g. `sessions.create:<key>`.
    pub key: String,
    /// Digest of the request: the same key with another request is the caller's mistake.
    pub request_digest: String,
    /// What the first request made, for its answer to be found again.
    pub reference: Value,
    pub at: Timestamp,
}

/// The one truth. All methods are safe to call concurrently; appends of many sessions share commits.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Makes a session at epoch 1 and its first entries, in one transaction. Without a lease it is nobody's. An id that exists
    /// is an [`AppendError::Conflict`].
    async fn create(
        &self,
        session: Session,
        entries: Vec<Entry>,
        lease: Option<Lease>,
        once: Option<OnceRecord>,
    ) -> Result<(), AppendError>;
    /// The same with a whole journal, after proving its chain and its legality; returns the session as it is stored. Up to
    /// `limits::IMPORT_ENTRIES_MAX` entries and `limits::IMPORT_BYTES_MAX` bytes: other writers wait for this one transaction.
    async fn import(&self, import: Import) -> Result<Session, ImportError>;
    /// Returns after the commit is on disk. Checked in this order: absent, fenced, repeated, conflict. Entries that do not
    /// continue the hash chain, or whose event id the journal holds already, are an [`AppendError::Conflict`] too.
    async fn append(&self, append: Append) -> Result<(), AppendError>;
    /// Replaces the content of one entry by a tombstone: chain and history stay whole, the fold is made anew, and the old text
    /// is overwritten in the store's own files, as far as those go. Doing it again is harmless.
    async fn redact(&self, redaction: Redaction) -> Result<Redacted, RedactError>;
    /// Events after `after`, ascending, at most `limit`.
    async fn read(&self, session: &SessionId, after: Seq, limit: usize) -> Result<Vec<Event>, StoreError>;
    /// Entries after `after` as they are stored, ascending, at most `limit`: for proofs, exports and copies.
    async fn sealed(&self, session: &SessionId, after: Seq, limit: usize) -> Result<Vec<SealedEntry>, StoreError>;
    /// Where the journal ends, without claiming it. `None` when there is no such session.
    async fn head(&self, session: &SessionId) -> Result<Option<Head>, StoreError>;
    /// Follows the seq of the last durable entry that this process appended; a hint, never a promise.
    fn watch(&self, session: &SessionId) -> watch::Receiver<Seq>;

    /// Takes ownership if nobody holds it, its lease is over, or `owner` holds it already. Raises the epoch.
    async fn claim(
        &self,
        session: &SessionId,
        owner: &OwnerId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<ClaimOutcome, StoreError>;
    /// Extends every lease of this owner, and shortens none. Returns how many it has.
    async fn renew(&self, owner: &OwnerId, lease_until: Timestamp) -> Result<u64, StoreError>;
    /// Gives ownership up, if `epoch` still holds it.
    async fn release(&self, session: &SessionId, epoch: Epoch) -> Result<(), StoreError>;
    /// Sessions whose fold is due ([`SessionFold::due_at`]) at `now` and that nobody holds then: those that are due at any time
    /// first, oldest first, then by the time at which they are due.
    async fn claimable(&self, now: Timestamp, limit: usize) -> Result<Vec<SessionId>, StoreError>;
    /// The first moment after `now` at which a session becomes due, for a keeper that sleeps until then. A hint: by then somebody
    /// may hold it.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;
}

/// Which sessions, and in which order.
#[derive(Debug, Clone)]
pub struct SessionFilter {
    pub workspace: WorkspaceId,
    pub agent: Option<AgentId>,
    pub agent_version: Option<u64>,
    /// Empty: all.
    pub statuses: Vec<Status>,
    pub include_archived: bool,
    pub created: TimeRange,
    pub ascending: bool,
    /// Continue after (in list order) this row, not including it. Rows are ordered by `(created_at, id)`.
    pub after: Option<(Timestamp, SessionId)>,
    pub limit: usize,
}

/// Each bound is absent or in force. `gt`/`lt` exclude the moment itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    pub gt: Option<Timestamp>,
    pub gte: Option<Timestamp>,
    pub lt: Option<Timestamp>,
    pub lte: Option<Timestamp>,
}

/// What a caller may change of a session, written by an [`Append`] together with the event that tells of it.
#[derive(Debug, Clone)]
pub struct SessionChange {
    pub title: Option<String>,
    pub metadata: loopd_domain::agent::Metadata,
    pub agent: loopd_domain::session::SessionAgent,
    pub archived_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

#[async_trait]
pub trait Sessions: Send + Sync {
    async fn get(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>, StoreError>;
    async fn list(&self, filter: SessionFilter) -> Result<Vec<Session>, StoreError>;
    /// Removes the session and its journal. False when it is not there.
    async fn delete(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<bool, StoreError>;
}

/// Which agents or environments; newest first.
#[derive(Debug, Clone)]
pub struct ListFilter {
    pub workspace: WorkspaceId,
    pub include_archived: bool,
    pub created: TimeRange,
    /// Continue after this row, not including it. Rows are ordered by `(created_at, id)` descending.
    pub after: Option<(Timestamp, String)>,
    pub limit: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("version is {current}, not {expected}")]
    VersionMismatch { expected: u64, current: u64 },
    #[error("no such row")]
    Absent,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[async_trait]
pub trait Agents: Send + Sync {
    /// Writes version 1. `once` as in [`Append`].
    async fn create(&self, agent: Agent, once: Option<OnceRecord>) -> Result<(), AppendError>;
    /// The latest version, or the one asked for.
    async fn get(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        version: Option<u64>,
    ) -> Result<Option<Agent>, StoreError>;
    /// Adds a version (`agent.version` must be `expected + 1`) if the latest is still `expected`.
    async fn update(&self, agent: Agent, expected: u64) -> Result<(), UpdateError>;
    /// Sets `archived_at` on the agent. Archiving twice keeps the first time.
    async fn archive(&self, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<Option<Agent>, StoreError>;
    async fn list(&self, filter: ListFilter) -> Result<Vec<Agent>, StoreError>;
    /// Versions of one agent, newest first, older than `before`.
    async fn versions(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Agent>, StoreError>;
}

#[async_trait]
pub trait Environments: Send + Sync {
    async fn create(&self, environment: Environment, once: Option<OnceRecord>) -> Result<(), AppendError>;
    async fn get(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>, StoreError>;
    /// Replaces the row. False when it is not there.
    async fn update(&self, environment: Environment) -> Result<bool, StoreError>;
    async fn list(&self, filter: ListFilter) -> Result<Vec<Environment>, StoreError>;
    async fn delete(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool, StoreError>;
}

#[async_trait]
pub trait Once: Send + Sync {
    /// The record of an earlier request, if it is younger than `not_before`.
    async fn find(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        not_before: Timestamp,
    ) -> Result<Option<OnceRecord>, StoreError>;
    /// Forgets records older than that. Returns how many.
    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Why a row was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MakeError {
    /// One of this id, name or digest is there.
    #[error("it exists already")]
    Exists,
    #[error("there is no such workspace")]
    NoWorkspace,
    #[error("there are {max} already; that is the maximum")]
    Full { max: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Workspaces. One named `default` is there from the start.
#[async_trait]
pub trait Workspaces: Send + Sync {
    /// Up to `limits::WORKSPACES_MAX`; names are unique.
    async fn create(&self, workspace: Workspace) -> Result<(), MakeError>;
    /// From now on no weaker walls than these. `None`: there is no such workspace.
    async fn require(&self, id: &WorkspaceId, isolation: Isolation) -> Result<Option<Workspace>, StoreError>;
    async fn get(&self, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError>;
    async fn named(&self, name: &str) -> Result<Option<Workspace>, StoreError>;
    /// By name, those after the given one.
    async fn list(&self, after: Option<String>, limit: usize) -> Result<Vec<Workspace>, StoreError>;
}

/// API keys: their records, never themselves.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Up to `limits::KEYS_PER_WORKSPACE_MAX` of one workspace.
    async fn create(&self, key: ApiKey) -> Result<(), MakeError>;
    /// The key of any workspace, revoked and expired ones too.
    async fn find(&self, digest: &KeyDigest) -> Result<Option<ApiKey>, StoreError>;
    async fn get(&self, workspace: &WorkspaceId, id: &ApiKeyId) -> Result<Option<ApiKey>, StoreError>;
    /// A key that was revoked counts as archived.
    async fn list(&self, filter: ListFilter) -> Result<Vec<ApiKey>, StoreError>;
    /// Once it returns no `find` shows the key as valid. Revoking twice keeps the first time.
    async fn revoke(&self, workspace: &WorkspaceId, id: &ApiKeyId, at: Timestamp)
    -> Result<Option<ApiKey>, StoreError>;
    /// Notes that the key was used. The time never goes back.
    async fn used(&self, id: &ApiKeyId, at: Timestamp) -> Result<(), StoreError>;
    /// Was any key ever made here?
    async fn any(&self) -> Result<bool, StoreError>;
}

/// Which entries of the audit log; newest first.
#[derive(Debug, Clone)]
pub struct AuditFilter {
    pub workspace: WorkspaceId,
    /// An actor's `name`.
    pub actor: Option<String>,
    pub action: Option<String>,
    pub resource: Option<String>,
    pub created: TimeRange,
    /// Continue after this row, not including it. Rows are ordered by `(at, id)` descending.
    pub after: Option<(Timestamp, String)>,
    pub limit: usize,
}

/// Who did what. Entries are never changed, and leave by age alone.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// All or none; returns after the commit is on disk.
    async fn append(&self, records: Vec<AuditRecord>) -> Result<(), StoreError>;
    async fn list(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, StoreError>;
    /// Forgets up to `limit` entries older than that, oldest first. Returns how many.
    async fn expire(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError>;
}

/// A whole store.
pub trait Store: Send + Sync {
    fn journal(&self) -> &dyn Journal;
    fn sessions(&self) -> &dyn Sessions;
    fn agents(&self) -> &dyn Agents;
    fn environments(&self) -> &dyn Environments;
    fn once(&self) -> &dyn Once;
    fn workspaces(&self) -> &dyn Workspaces;
    fn api_keys(&self) -> &dyn ApiKeys;
    fn audit(&self) -> &dyn AuditLog;
    fn vaults(&self) -> &dyn crate::vaults::Vaults;
    /// Whether this process may still act for what it has claimed, as far as it can know without a write: it may have been stopped, and
    /// another one have taken its place. Costs microseconds.
    fn is_ours(&self) -> bool;
}
