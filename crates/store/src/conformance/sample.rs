//! Things to put into a store.

use crate::{Append, AppendError, Lease, OnceRecord, OwnerId, Store};
use loopd_domain::agent::{Agent, AgentSpec, Metadata, ModelRef};
use loopd_domain::chain::{Entry, GENESIS, Hash};
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::{Environment, EnvironmentConfig};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::{Session, SessionAgent, StopReason, TurnSettings};
use loopd_domain::{AgentId, EnvironmentId, Epoch, EventId, IdSource, SessionId, Timestamp, WorkspaceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rising numbers, unique in this process.
pub struct Ids;

static NEXT: AtomicU64 = AtomicU64::new(1);

impl IdSource for Ids {
    fn ulid(&self) -> u128 {
        u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 32
    }
}

/// A moment, in seconds after a fixed one.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp(1_790_000_000_000_000 + seconds * 1_000_000)
}

pub fn workspace() -> WorkspaceId {
    WorkspaceId::default_workspace()
}

pub fn other_workspace() -> WorkspaceId {
    WorkspaceId::parse("workspace", "wrkspc_other").expect("an id")
}

pub fn owner(name: &str) -> OwnerId {
    OwnerId(name.to_owned())
}

pub fn spec(name: &str) -> AgentSpec {
    let model = ModelRef {
        id: "builtin/script".to_owned(),
        effort: None,
        base_url: None,
        max_tokens: None,
        temperature: None,
        extra: None,
    };
    let metadata = Metadata::from([("team".to_owned(), "søren ☂".to_owned())]);
    AgentSpec {
        name: name.to_owned(),
        description: None,
        model,
        system: Some("Be brief.".to_owned()),
        tools: vec![],
        on_unknown_outcome: Default::default(),
        mcp_servers: Vec::new(),
        metadata,
    }
}

pub fn agent(created: Timestamp) -> Agent {
    Agent {
        id: AgentId::generate(&Ids),
        workspace: workspace(),
        version: 1,
        spec: spec("one"),
        created_at: created,
        updated_at: created,
        archived_at: None,
    }
}

pub fn environment(created: Timestamp) -> Environment {
    Environment {
        id: EnvironmentId::generate(&Ids),
        workspace: workspace(),
        name: "room".to_owned(),
        description: None,
        config: EnvironmentConfig::default(),
        metadata: Metadata::new(),
        created_at: created,
        updated_at: created,
        archived_at: None,
    }
}

pub fn session(created: Timestamp) -> Session {
    Session {
        id: SessionId::generate(&Ids),
        workspace: workspace(),
        agent: SessionAgent { id: None, version: 1, spec: spec("one") },
        environment: None,
        room: EnvironmentConfig::default(),
        vaults: Vec::new(),
        title: Some("a \"title\" of ☂".to_owned()),
        metadata: Metadata::from([("k".to_owned(), "v".to_owned())]),
        created_at: created,
        updated_at: created,
        archived_at: None,
        fold: SessionFold::default(),
        epoch: Epoch(1),
    }
}

pub fn record(key: &str, at: Timestamp) -> OnceRecord {
    OnceRecord {
        workspace: workspace(),
        key: key.to_owned(),
        request_digest: "digest".to_owned(),
        reference: serde_json::json!({"z": 1, "a": ["b"]}),
        at,
    }
}

pub fn message(text: &str) -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text(text)] }
}

/// Starts a turn: from here on the session needs an owner.
pub fn running(turn: u32) -> EventBody {
    EventBody::StatusRunning { turn, settings: TurnSettings::default() }
}

/// The running turn waits for its next attempt.
pub fn rescheduled(retry_at: Timestamp) -> EventBody {
    EventBody::StatusRescheduled { retry_at }
}

pub fn idle() -> EventBody {
    EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None }
}

/// Who writes one session's journal, and knows where it stands.
#[derive(Clone)]
pub struct Pen {
    pub store: Arc<dyn Store>,
    pub session: Session,
    pub hash: Hash,
}

impl Pen {
    /// Makes the session with these entries, held by `owner` until [`at`] 60.
    pub async fn create(store: &Arc<dyn Store>, session: Session, bodies: Vec<EventBody>) -> Pen {
        Pen::try_create(store, session, bodies, &owner("first"), None).await.expect("created")
    }

    pub async fn try_create(
        store: &Arc<dyn Store>,
        session: Session,
        bodies: Vec<EventBody>,
        owner: &OwnerId,
        once: Option<OnceRecord>,
    ) -> Result<Pen, AppendError> {
        let mut pen = Pen { store: store.clone(), session, hash: GENESIS };
        let draft = pen.draft(bodies);
        pen.session.fold = draft.fold.clone();
        let lease = Some(Lease { owner: owner.clone(), until: at(60) });
        store.journal().create(pen.session.clone(), draft.entries.clone(), lease, once).await?;
        pen.adopt(&draft);
        Ok(pen)
    }

    /// An append that fits where the pen stands.
    pub fn draft(&self, bodies: Vec<EventBody>) -> Append {
        let mut fold = self.session.fold.clone();
        let mut hash = self.hash;
        let mut entries = Vec::new();
        for body in bodies {
            let (seq, id) = (fold.last_seq + 1, EventId::generate(&Ids));
            let event = Event { seq, id, at: self.session.created_at, body };
            fold.apply(&event).expect("a legal event");
            let entry = Entry::seal(&hash, &event).expect("serialises");
            hash = entry.hash;
            entries.push(entry);
        }
        let (session, epoch) = (self.session.id.clone(), self.session.epoch);
        Append { session, epoch, expected_seq: self.session.fold.last_seq, entries, fold, change: None, once: None }
    }

    pub async fn append(&mut self, bodies: Vec<EventBody>) -> Result<(), AppendError> {
        let draft = self.draft(bodies);
        self.write(draft).await
    }

    pub async fn write(&mut self, append: Append) -> Result<(), AppendError> {
        self.store.journal().append(append.clone()).await?;
        self.adopt(&append);
        Ok(())
    }

    fn adopt(&mut self, append: &Append) {
        self.session.fold = append.fold.clone();
        self.hash = append.entries.last().map_or(self.hash, |e| e.hash);
    }

    /// The session as the store has it.
    pub async fn stored(&self) -> Option<Session> {
        self.store.sessions().get(&self.session.workspace, &self.session.id).await.expect("readable")
    }

    /// The whole journal as the store has it.
    pub async fn events(&self) -> Vec<Event> {
        self.store.journal().read(&self.session.id, 0, usize::MAX).await.expect("readable")
    }
}
