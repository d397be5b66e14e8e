//! The pen of one session: plans entries against the fold, then writes them in one transaction.
//!
//! A [`Draft`] is a set of events that are legal one after the other. Nothing of it is visible to anybody else until
//! [`Ledger::commit`] has it on disk. There is one ledger per living session, and only its driver holds it.
//!
//! What nobody outside could have noticed yet may be *held* ([`Ledger::hold`]): the ledger goes on from it, and the next
//! commit writes it together with what follows from it (ADR 9). And a draft may *depart* ([`Ledger::depart`]): the ledger goes on from
//! it while it is being written, and tells of it when it has landed (ADR 10).

use crate::census::{Census, Presence};
use crate::connections::Inbox;
use crate::hub::{Announcer, Channel};
use futures_util::FutureExt;
use loopd_broker::RunningCalls;
use loopd_domain::agent::{ResolvedTool, Tool, ToolSpec};
use loopd_domain::chain::{Entry, Hash};
use loopd_domain::conversation::{Block, Conversation};
use loopd_domain::event::{Event, EventBody, QueuedInput};
use loopd_domain::fold::{IllegalEvent, SessionFold};
use loopd_domain::mcp::{McpListings, McpServer, McpTool};
use loopd_domain::session::Session;
use loopd_domain::{CallId, Clock, EventId, IdSource, Seq, SessionId, Timestamp};
use loopd_store::{Append, AppendError, Claim, Lease, OnceRecord, SessionChange, Store, StoreError};
use serde_json::Value;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Events read at a time when a session is taken up.
const READ_ROWS: usize = 512;

pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// Its fold is that of the journal as written, and of what is held.
    pub session: Session,
    last_hash: Hash,
    /// Not written yet, ready to be: the last events that the fold has.
    held: Vec<(Event, Entry)>,
    /// The session itself is not written yet: the first commit makes it.
    birth: Option<Birth>,
    pub conversation: Conversation,
    /// Bodies of the inputs that wait, oldest first.
    pub waiting: Vec<QueuedInput>,
    /// Arguments of the open step's calls.
    arguments: HashMap<CallId, Value>,
    /// What its MCP servers listed last.
    listed: McpListings,
    /// The agent's tools, resolved once for each listing.
    pub tools: Vec<ResolvedTool>,
    /// What the model is told of them; shared, because every request needs it.
    pub specs: Arc<Vec<ToolSpec>>,
    /// Its place among the living.
    presence: Option<Presence>,
    /// Where what it writes is told of.
    announcer: Option<Announcer>,
    /// What the next draft tells of as well.
    pub connections: Arc<Inbox>,
    /// What the fold says that runs, for who uses credentials on the session's behalf.
    pub running: RunningCalls,
}

impl Ledger {
    /// The ledger of a session whose journal is still empty, or whose events are applied by the caller.
    pub fn fresh(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        session: Session,
        last_hash: Hash,
    ) -> Self {
        let mut ledger = Ledger {
            store,
            clock,
            ids,
            session,
            last_hash,
            held: Vec::new(),
            birth: None,
            conversation: Conversation::default(),
            waiting: Vec::new(),
            arguments: HashMap::new(),
            listed: McpListings::new(),
            tools: Vec::new(),
            specs: Arc::default(),
            presence: None,
            announcer: None,
            connections: Arc::default(),
            running: RunningCalls::default(),
        };
        ledger.running.set(ledger.session.fold.running());
        ledger.resolve_tools();
        ledger
    }

    /// Takes up a claimed session: reads its whole journal.
    pub async fn load(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        claim: Claim,
    ) -> Result<Self, StoreError> {
        let mut ledger = Ledger::fresh(store.clone(), clock, ids, claim.session, claim.last_hash);
        let mut after = 0;
        loop {
            let events = store.journal().read(&ledger.session.id, after, READ_ROWS).await?;
            let Some(last) = events.last() else { return Ok(ledger) };
            after = last.seq;
            events.iter().for_each(|e| ledger.remember(e));
        }
    }

    /// Reads the whole journal anew: an entry of it is not what it was.
    pub async fn reload(&mut self) -> Result<(), StoreError> {
        let mut fold = SessionFold::default();
        let mut events = Vec::new();
        loop {
            let read = self.store.journal().read(&self.session.id, fold.last_seq, READ_ROWS).await?;
            if read.is_empty() {
                break;
            }
            for event in read {
                let damaged = |e| StoreError::Damaged(format!("the journal of session `{}`: {e}", self.session.id));
                fold.apply(&event).map_err(damaged)?;
                events.push(event);
            }
        }
        (self.waiting, self.arguments) = Default::default();
        self.conversation = Conversation::default();
        self.running.set(fold.running());
        self.session.fold = fold;
        events.iter().for_each(|e| self.remember(e));
        Ok(())
    }

    /// From now on the session counts as alive, and its followers hear of what is written, for as long as this ledger is there.
    pub fn enter(&mut self, census: &Arc<Census>, channel: &Arc<Channel>) {
        self.presence = Some(census.enter(&self.session.workspace, &self.session.fold));
        self.announcer = Some(channel.announce());
    }

    pub fn fold(&self) -> &SessionFold {
        &self.session.fold
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn new_event_id(&self) -> EventId {
        EventId::generate(self.ids.as_ref())
    }

    pub fn ids(&self) -> Arc<dyn IdSource> {
        self.ids.clone()
    }

    /// The arguments of a call of the open step.
    pub fn arguments(&self, id: &CallId) -> Option<&Value> {
        self.arguments.get(id)
    }

    /// Text of the last answer, all of it.
    pub fn last_answer_text(&self) -> String {
        let messages = self.conversation.messages();
        let blocks = messages.last().map(|m| m.blocks.as_slice()).unwrap_or_default();
        let texts = blocks.iter().filter_map(|b| match b {
            Block::Content(loopd_domain::content::ContentBlock::Text { text }) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Other tools from now on.
    pub fn set_tools(&mut self, tools: Vec<Tool>, mcp_servers: Vec<McpServer>) {
        self.session.agent.spec.tools = tools;
        self.session.agent.spec.mcp_servers = mcp_servers;
        self.resolve_tools();
    }

    /// What a server listed last.
    pub fn listed(&self, server: &str) -> Option<&[McpTool]> {
        self.listed.get(server).map(Vec::as_slice)
    }

    fn resolve_tools(&mut self) {
        self.tools = self.session.agent.spec.resolve_tools(&self.listed);
        self.specs = Arc::new(self.tools.iter().map(|t| t.spec.clone()).collect());
    }

    /// With the connections that have ended and that the journal does not know yet.
    pub fn draft(&self) -> Draft {
        let mut draft = Draft {
            at: self.clock.now().max(self.session.fold.last_at),
            ids: self.ids.clone(),
            fold: self.session.fold.clone(),
            events: Vec::new(),
        };
        self.connections.fill(&mut draft);
        draft
    }

    /// Writes a draft. On an error nothing was written and the ledger is as before.
    pub async fn commit(&mut self, draft: &Draft, once: Option<OnceRecord>) -> Result<(), AppendError> {
        self.write(draft, None, once).await
    }

    /// Writes a draft together with the change of the resource that it tells of.
    pub async fn commit_change(&mut self, draft: &Draft, change: SessionChange) -> Result<(), AppendError> {
        self.write(draft, Some(change.clone()), None).await?;
        let SessionChange { title, metadata, agent, archived_at, updated_at } = change;
        let session = &mut self.session;
        (session.title, session.metadata) = (title, metadata);
        (session.archived_at, session.updated_at) = (archived_at, updated_at);
        self.set_tools(agent.spec.tools, agent.spec.mcp_servers);
        Ok(())
    }

    /// Goes on from a draft that is not on disk yet. It must not be shown to anybody, nor acted on outside the room, and it tells of
    /// no connections: those are taken off their list when they are on disk.
    pub fn hold(&mut self, draft: &Draft) -> Result<(), AppendError> {
        let entries = seal(&self.last_hash, &draft.events)?;
        let last_hash = entries.last().map_or(self.last_hash, |e| e.hash);
        self.held.extend(draft.events.iter().cloned().zip(entries));
        self.adopt(draft.fold.clone(), last_hash, &draft.events);
        Ok(())
    }

    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The session is made by the first commit, with what is held then.
    pub fn be_born(&mut self, birth: Birth) {
        self.birth = Some(birth);
    }

    /// It is made for a request that may have made it already.
    pub fn is_born_once(&self) -> bool {
        self.birth.as_ref().is_some_and(|birth| birth.once.is_some())
    }

    pub fn is_unborn(&self) -> bool {
        self.birth.is_some()
    }

    async fn write(
        &mut self,
        draft: &Draft,
        change: Option<SessionChange>,
        once: Option<OnceRecord>,
    ) -> Result<(), AppendError> {
        let Planned { write, sizes, last_hash } = self.plan(draft, change, once)?;
        write.once(self.store.as_ref()).await?;
        let held = std::mem::take(&mut self.held);
        let events = held.iter().map(|(event, _)| event).chain(&draft.events);
        if let Some(announcer) = &self.announcer {
            events.zip(sizes).for_each(|(event, bytes)| announcer.written(event, bytes));
        }
        self.adopt(draft.fold.clone(), last_hash, &draft.events);
        self.connections.written(&draft.events);
        Ok(())
    }

    /// What is held and the draft, as one write.
    fn plan(
        &mut self,
        draft: &Draft,
        change: Option<SessionChange>,
        once: Option<OnceRecord>,
    ) -> Result<Planned, AppendError> {
        let expected_seq = self.session.fold.last_seq - self.held.len() as Seq;
        let drafted = seal(&self.last_hash, &draft.events)?;
        let last_hash = drafted.last().map_or(self.last_hash, |e| e.hash);
        let entries: Vec<Entry> = self.held.iter().map(|(_, entry)| entry.clone()).chain(drafted).collect();
        let sizes: Vec<usize> = entries.iter().map(|e| e.payload.len()).collect();
        let write = match self.birth.take() {
            Some(birth) => {
                let session = Session { fold: draft.fold.clone(), ..self.session.clone() };
                Write::Create(Box::new((session, entries, birth)))
            }
            None => Write::Append(Box::new(Append {
                session: self.session.id.clone(),
                epoch: self.session.epoch,
                expected_seq,
                entries,
                fold: draft.fold.clone(),
                change,
                once,
            })),
        };
        Ok(Planned { write, sizes, last_hash })
    }

    /// Goes on from a draft while it is being written, and from what was held; for [`landed`](Self::landed) when it is. It must not tell of
    /// connections, as with [`hold`](Self::hold).
    pub fn depart(&mut self, draft: Draft, tries: u32, pause: Duration) -> Result<Flight, AppendError> {
        let Planned { write, sizes, last_hash } = self.plan(&draft, None, None)?;
        let Draft { fold, events, .. } = draft;
        self.adopt(fold, last_hash, &events);
        let held = std::mem::take(&mut self.held).into_iter().map(|(event, _)| event);
        let told = held.chain(events).zip(sizes).collect();
        let (store, session) = (self.store.clone(), self.session.id.clone());
        Ok(Flight {
            future: Box::pin(async move { write.patiently(store.as_ref(), &session, tries, pause).await }),
            told,
        })
    }

    /// Tells of what was on its way.
    pub fn landed(&mut self, flight: Flight) {
        if let Some(announcer) = &self.announcer {
            flight.told.iter().for_each(|(event, bytes)| announcer.written(event, *bytes));
        }
    }

    /// Takes over what is written, or is about to be, as `create` does.
    pub fn adopt(&mut self, fold: SessionFold, last_hash: Hash, events: &[Event]) {
        self.running.set(fold.running());
        self.session.fold = fold;
        self.last_hash = last_hash;
        events.iter().for_each(|e| self.remember(e));
        if let Some(presence) = &mut self.presence {
            presence.follow(&self.session.fold);
        }
    }

    fn remember(&mut self, event: &Event) {
        self.conversation.apply(event);
        match &event.body {
            EventBody::InputQueued { input } => self.waiting.push(input.clone()),
            EventBody::ModelRequestStart { .. } => self.arguments.clear(),
            EventBody::McpToolsListed { mcp_server_name, tools: Some(tools) } => {
                self.listed.insert(mcp_server_name.clone(), tools.clone());
                self.resolve_tools();
            }
            EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } => {
                self.waiting.retain(|w| w.id != event.id);
            }
            body => {
                if let Some((_, input, _, _)) = body.intent() {
                    self.arguments.insert(event.id.clone(), input.clone());
                }
            }
        }
    }
}

/// One transaction on its way to disk.
pub struct Flight {
    future: Pin<Box<dyn Future<Output = Result<(), AppendError>> + Send>>,
    /// Its events, each with the bytes of its entry.
    told: Vec<(Event, usize)>,
}

impl Flight {
    /// Hands it to the store. `Some` when it is there already.
    pub fn poll_once(&mut self) -> Option<Result<(), AppendError>> {
        self.landing().now_or_never()
    }

    /// Until it is there. Safe to cancel; not to be asked again afterwards.
    pub async fn landing(&mut self) -> Result<(), AppendError> {
        self.future.as_mut().await
    }
}

struct Planned {
    write: Write,
    /// Bytes of each entry.
    sizes: Vec<usize>,
    last_hash: Hash,
}

enum Write {
    Create(Box<(Session, Vec<Entry>, Birth)>),
    Append(Box<Append>),
}

impl Write {
    async fn once(self, store: &dyn Store) -> Result<(), AppendError> {
        match self {
            Write::Create(new) => {
                let (session, entries, Birth { lease, once }) = *new;
                fail::fail_point!("session::before_create");
                let created = store.journal().create(session, entries, Some(lease), once).await;
                fail::fail_point!("session::after_create");
                created
            }
            Write::Append(append) => store.journal().append(*append).await,
        }
    }

    /// Tries an append again while the store does not take writes for a moment. A creation is tried once: nothing was acknowledged, and
    /// whoever asked for it waits.
    async fn patiently(
        self,
        store: &dyn Store,
        session: &SessionId,
        tries: u32,
        mut pause: Duration,
    ) -> Result<(), AppendError> {
        let Write::Append(append) = self else { return self.once(store).await };
        for _ in 1..tries {
            match store.journal().append(Append::clone(&append)).await {
                Err(AppendError::Store(StoreError::Unavailable(reason))) => {
                    tracing::warn!(%session, %reason, "the journal does not take a write; trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        store.journal().append(*append).await
    }
}

/// What a session is written with for the first time, beside its events.
pub struct Birth {
    pub lease: Lease,
    pub once: Option<OnceRecord>,
}

/// Serialises events and links them.
pub fn seal(last_hash: &Hash, events: &[Event]) -> Result<Vec<Entry>, StoreError> {
    let mut hash = *last_hash;
    let mut entries = Vec::with_capacity(events.len());
    for event in events {
        let entry = Entry::seal(&hash, event)
            .map_err(|e| StoreError::Damaged(format!("event {} does not serialise: {e}", event.id)))?;
        hash = entry.hash;
        entries.push(entry);
    }
    Ok(entries)
}

/// Events that are legal one after the other, not yet written.
pub struct Draft {
    pub at: Timestamp,
    pub ids: Arc<dyn IdSource>,
    /// The fold after the events.
    pub fold: SessionFold,
    pub events: Vec<Event>,
}

impl Draft {
    pub fn push(&mut self, body: EventBody) -> Result<EventId, IllegalEvent> {
        let id = EventId::generate(self.ids.as_ref());
        self.push_as(id, body)
    }

    /// With an id that was given away earlier: a queued input, a previewed message.
    pub fn push_as(&mut self, id: EventId, body: EventBody) -> Result<EventId, IllegalEvent> {
        let event = Event { seq: self.next_seq(), id: id.clone(), at: self.at, body };
        self.fold.apply(&event)?;
        self.events.push(event);
        Ok(id)
    }

    /// They are taken off their list when they are on disk, so such a draft is waited for.
    pub fn tells_of_connections(&self) -> bool {
        let tells = |e: &EventBody| {
            matches!(e, EventBody::NetworkConnection { .. } | EventBody::NetworkConnectionsOmitted { .. })
        };
        self.events.iter().any(|e| tells(&e.body))
    }

    fn next_seq(&self) -> Seq {
        self.fold.last_seq + 1
    }
}
