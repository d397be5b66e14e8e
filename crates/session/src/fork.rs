//! A session made of another one's past: its journal up to a point at which it rested, and a copy of its files.

use crate::archive;
use crate::driver;
use crate::ledger::seal;
use crate::requests::{OnceKey, ServiceError, once_record};
use crate::requirement;
use crate::service::SessionService;
use loopd_domain::agent::Metadata;
use loopd_domain::chain::{Entry, GENESIS, Hash, hex};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::IMPORT_ENTRIES_MAX;
use loopd_domain::session::Session;
use loopd_domain::{Epoch, EventId, Seq, SessionId, ThreadId, WorkspaceId};
use loopd_sandbox::files::FilesRead;
use loopd_store::{AppendError, Import, ImportError, SealedEntry};

/// Entries read at a time.
const READ_ROWS: usize = 512;
/// Points named in a refusal.
const POINTS_SHOWN: usize = 3;

#[derive(Debug, Clone)]
pub struct Fork {
    /// The last event to copy; `None`: as far as the session has come to rest.
    pub event_id: Option<EventId>,
    /// `None`: the source's.
    pub title: Option<String>,
    pub metadata: Option<Metadata>,
    /// Copy the files as well.
    pub workspace: bool,
}

#[derive(Debug, Clone)]
pub struct Forked {
    pub session: Session,
    /// The last event that was copied.
    pub at: Option<EventId>,
    /// Events of the source that came later. Its files are copied as they are now, whatever these did to them.
    pub later_events: u64,
    pub files: Option<FilesRead>,
    /// The same request had been done before; nothing was done this time.
    pub repeated: bool,
}

impl SessionService {
    /// Makes a session of the past of another one, which may be running meanwhile.
    pub async fn fork(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        fork: Fork,
        once: Option<OnceKey>,
    ) -> Result<Forked, ServiceError> {
        let source = self.get(workspace, id).await?;
        if let Some(first) = self.first_answer(workspace, once.as_ref()).await? {
            return Ok(Forked {
                session: first.session,
                at: fork.event_id,
                later_events: 0,
                files: None,
                repeated: true,
            });
        }
        requirement::check(self.parts().store.as_ref(), workspace, "environment", &source.room).await?;
        let past = self.past(&source, fork.event_id.as_ref()).await?;
        let session = self.born_of(&source, &fork);
        // Held until the session is stored, or its files are gone again: until then they look like an orphan's.
        let slot = self.slot(&session.id)?;
        let held = slot.lock().await;
        let forked = self.write_all(source, &session, past, fork, once).await;
        drop(held);
        self.0.slots.forget(&session.id, slot);
        forked
    }

    async fn write_all(
        &self,
        source: Session,
        session: &Session,
        past: Past,
        fork: Fork,
        once: Option<OnceKey>,
    ) -> Result<Forked, ServiceError> {
        let files = match fork.workspace {
            true => Some(self.copy_files(&source, session).await?),
            false => None,
        };
        let made = self.write_fork(&source, session.clone(), &past, files.is_some(), once).await;
        let is_ours = made.as_ref().is_ok_and(|made| made.id == session.id);
        if !is_ours && files.is_some() {
            self.discard_files(session).await;
        }
        let later_events = source.fold.last_seq - past.events.len() as Seq;
        let at = past.events.last().map(|e| e.id.clone());
        Ok(Forked { session: made?, at, later_events, files: files.filter(|_| is_ours), repeated: !is_ours })
    }

    fn born_of(&self, source: &Session, fork: &Fork) -> Session {
        let now = self.parts().clock.now();
        Session {
            id: SessionId::generate(self.parts().ids.as_ref()),
            title: fork.title.clone().or_else(|| source.title.clone()),
            metadata: fork.metadata.clone().unwrap_or_else(|| source.metadata.clone()),
            created_at: now,
            updated_at: now,
            archived_at: None,
            fold: SessionFold::default(),
            epoch: Epoch(1),
            ..source.clone()
        }
    }

    async fn past(&self, source: &Session, wanted: Option<&EventId>) -> Result<Past, ServiceError> {
        let mut past = Past::default();
        while past.fold.last_seq < source.fold.last_seq && !past.is_there(wanted) {
            let entries = self.parts().store.journal().sealed(&source.id, past.fold.last_seq, READ_ROWS).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                past.apply(entry)?;
                if past.is_there(wanted) {
                    break;
                }
            }
        }
        past.cut(wanted)
    }

    async fn copy_files(&self, from: &Session, to: &Session) -> Result<FilesRead, ServiceError> {
        let parts = self.parts();
        let sandbox = parts.sandbox.clone();
        let files = driver::spec(parts, &from.id, from.epoch, &from.room);
        let target = driver::spec(parts, &to.id, to.epoch, &to.room);
        let copied = tokio::task::spawn_blocking(move || {
            let mut writer = sandbox.write_files(&target).map_err(archive::no_files)?;
            let read = sandbox.read_files(&files, writer.as_mut()).map_err(archive::no_files)?;
            writer.finish().map_err(|fault| ServiceError::Files(fault.to_string()))?;
            Ok(read)
        });
        let copied = copied.await.unwrap_or_else(|e| Err(ServiceError::Files(format!("copying ended early: {e}"))));
        // A session's files go after its journal: while that was there, so were they.
        let copied = match self.get(&from.workspace, &from.id).await {
            Ok(_) => copied,
            Err(gone) => Err(gone),
        };
        if copied.is_err() {
            self.discard_files(to).await;
        }
        copied
    }

    async fn discard_files(&self, session: &Session) {
        let spec = driver::spec(self.parts(), &session.id, session.epoch, &session.room);
        if let Err(fault) = self.parts().sandbox.remove(&spec).await {
            tracing::warn!(session = %session.id, %fault, "the files of a fork that failed could not be removed");
        }
    }

    async fn write_fork(
        &self,
        source: &Session,
        session: Session,
        past: &Past,
        workspace: bool,
        once: Option<OnceKey>,
    ) -> Result<Session, ServiceError> {
        let parts = self.parts();
        let mut events: Vec<Event> = past.events.iter().map(|event| moved(event.clone(), &session.id)).collect();
        let at = session.created_at.max(past.fold.last_at);
        let body = EventBody::SessionForked {
            from_session_id: source.id.clone(),
            at_event_id: past.events.last().map(|e| e.id.clone()),
            source_hash: hex(&past.hash),
            workspace,
        };
        let id = EventId::generate(parts.ids.as_ref());
        events.push(Event { seq: past.events.len() as Seq + 1, id, at, body });
        let entries = seal(&GENESIS, &events)?.into_iter().map(sealed).collect();
        let digest = once.as_ref().map(|o| o.request_digest.clone());
        let once = once.map(|key| once_record(&session.workspace, key, &session.id, &[], 0, session.created_at));
        match parts.store.journal().import(Import { session, entries, lease: None, once }).await {
            Ok(session) => Ok(session),
            // An equal request was quicker, and its session is the answer.
            Err(ImportError::Append(AppendError::Repeated(record))) => {
                Ok(self.repeated(record, digest.as_ref()).await?.session)
            }
            Err(fault) => Err(archive::refused(fault)),
        }
    }
}

/// What has been read of the source, and where it rested.
#[derive(Default)]
struct Past {
    events: Vec<Event>,
    hash: Hash,
    fold: SessionFold,
    /// Seq, id, hash and fold of the last events after which it rested, oldest first; at most [`POINTS_SHOWN`].
    points: Vec<(Seq, EventId, Hash, SessionFold)>,
}

impl Past {
    fn is_there(&self, wanted: Option<&EventId>) -> bool {
        wanted.is_some() && self.events.last().map(|e| &e.id) == wanted
    }

    fn apply(&mut self, entry: SealedEntry) -> Result<(), ServiceError> {
        if self.events.len() >= IMPORT_ENTRIES_MAX {
            let told =
                format!("the session has more than {IMPORT_ENTRIES_MAX} events; accepted: an earlier `event_id`");
            return Err(ServiceError::Refused(told));
        }
        let event = crate::verify::event_of(&entry)
            .map_err(|e| ServiceError::Refused(format!("entry {} cannot be read: {e}", entry.seq)))?;
        self.fold
            .apply(&event)
            .map_err(|e| ServiceError::Refused(format!("the journal is not a legal history: {e}")))?;
        self.hash = entry.hash;
        // A session that is about to end for good is not at rest.
        if self.fold.is_at_rest() && !matches!(event.body, EventBody::ThreadStatusTerminated { .. }) {
            if self.points.len() == POINTS_SHOWN {
                self.points.remove(0);
            }
            self.points.push((event.seq, event.id.clone(), entry.hash, self.fold.clone()));
        }
        self.events.push(event);
        Ok(())
    }

    /// Up to the wanted event, or up to the last one after which it rested.
    fn cut(mut self, wanted: Option<&EventId>) -> Result<Past, ServiceError> {
        if let Some(id) = wanted {
            if !self.is_there(wanted) {
                return Err(ServiceError::Refused(format!("`event_id` is `{id}`; accepted: an event of this session")));
            }
            if self.points.last().map(|(_, id, ..)| id) != wanted {
                let near: Vec<String> = self.points.iter().rev().map(|(_, id, ..)| format!("`{id}`")).collect();
                let near = if near.is_empty() { "none before it".to_owned() } else { near.join(", ") };
                let told = format!(
                    "`event_id` is `{id}`, which is in the middle of a turn; accepted: an event after which the session \
                     rests or waits for you, the nearest before it: {near}"
                );
                return Err(ServiceError::Refused(told));
            }
        }
        let (seq, _, hash, fold) = match self.points.pop() {
            Some((seq, id, hash, fold)) => (seq, Some(id), hash, fold),
            None => (0, None, GENESIS, SessionFold::default()),
        };
        self.events.truncate(usize::try_from(seq).unwrap_or(usize::MAX));
        (self.hash, self.fold) = (hash, fold);
        Ok(self)
    }
}

/// An event of the source as one of the new session: its thread is another one.
fn moved(mut event: Event, to: &SessionId) -> Event {
    match &mut event.body {
        EventBody::ThreadStatusRunning { session_thread_id, .. }
        | EventBody::ThreadStatusIdle { session_thread_id, .. }
        | EventBody::ThreadStatusRescheduled { session_thread_id, .. }
        | EventBody::ThreadStatusTerminated { session_thread_id, .. } => *session_thread_id = ThreadId::primary(to),
        EventBody::UserInterrupt { session_thread_id: Some(thread) } => *thread = ThreadId::primary(to),
        _ => {}
    }
    event
}

fn sealed(entry: Entry) -> SealedEntry {
    let Entry { seq, id, kind, payload, at, hash, .. } = entry;
    SealedEntry { seq, id, kind: kind.to_owned(), payload, at, redacted: None, hash }
}
