//! What a caller may ask of a living session, and what it is answered.

use super::{Driver, Halt};
use crate::admission;
use crate::ledger::Draft;
use crate::requests::{Accepted, OnceKey, RedactedEvent, ServiceError, SessionEdit, StopMode, once_record};
use loopd_domain::event::EventBody;
use loopd_domain::session::{Session, Status, TurnSettings};
use loopd_domain::{EventId, ThreadId, Timestamp};
use loopd_store::{AppendError, OnceRecord, SessionChange};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

type Reply<T> = oneshot::Sender<Result<T, ServiceError>>;

/// A request to a session's driver. A reply that never comes means: the driver ended, ask the next one.
pub enum Mail {
    Send { inputs: Vec<EventBody>, settings: TurnSettings, once: Option<OnceKey>, reply: Reply<Sent> },
    Edit { edit: SessionEdit, reply: Reply<Session> },
    Archive { reply: Reply<Session> },
    Redact { event_id: EventId, reason: Option<String>, reply: Reply<RedactedEvent> },
    Delete { reply: Reply<()> },
    Stop { mode: StopMode },
}

/// What became of a `Send`.
pub enum Sent {
    Accepted(Box<Accepted>),
    Repeated(OnceRecord),
}

impl Driver {
    pub(super) async fn on_mail(&mut self, mail: Mail) -> Result<(), Halt> {
        if self.drained_by.is_some() {
            // Not for this driver any more: whoever sent it is told that the service stops.
            return match mail {
                Mail::Stop { mode: StopMode::End } => Err(Halt::Stopping(StopMode::End)),
                _ => Ok(()),
            };
        }
        match mail {
            Mail::Send { inputs, settings, once, reply } => self.on_send(inputs, &settings, once, reply).await,
            Mail::Edit { edit, reply } => {
                let outcome = self.edit(edit).await;
                finish(outcome, reply)
            }
            Mail::Archive { reply } => {
                let outcome = self.archive().await;
                finish(outcome, reply)
            }
            Mail::Redact { event_id, reason, reply } => {
                let outcome = self.redact(event_id, reason).await;
                // The tombstone may be there, and the old text still in this driver.
                let is_stale = matches!(outcome, Err(ServiceError::Store(_)));
                finish(outcome, reply)?;
                if is_stale { Err(Halt::Overtaken) } else { Ok(()) }
            }
            Mail::Delete { reply } => self.delete(reply).await,
            Mail::Stop { mode } => self.on_stop(mode),
        }
    }

    async fn on_send(
        &mut self,
        inputs: Vec<EventBody>,
        settings: &TurnSettings,
        once: Option<OnceKey>,
        reply: Reply<Sent>,
    ) -> Result<(), Halt> {
        let before = self.ledger.fold().last_seq;
        let mut draft = self.ledger.draft();
        let session = &self.ledger.session;
        let admitted = match admission::admit(&mut draft, session, &self.ledger.waiting, inputs, settings) {
            Ok(admitted) => admitted,
            Err(refusal) => return finish(Err(refusal), reply),
        };
        let at = draft.at;
        let once = once.map(|key| once_record(&session.workspace, key, &session.id, &admitted.inputs, before, at));
        fail::fail_point!("session::before_admit");
        match self.ledger.commit(&draft, once).await {
            Ok(()) => {}
            Err(AppendError::Repeated(record)) => return finish(Ok(Sent::Repeated(record)), reply),
            Err(fault) => return refuse_write(fault, reply),
        }
        fail::fail_point!("session::after_admit");
        self.channel.work_accepted();
        let session = self.ledger.session.clone();
        let accepted = Accepted { session, inputs: admitted.inputs, seq: before, repeated: false };
        // A caller that has gone away still has its input taken.
        let _ = reply.send(Ok(Sent::Accepted(Box::new(accepted))));
        for input in admitted.tell {
            self.tell(input).await?;
        }
        if self.ledger.fold().status == Status::Idle {
            self.rested();
        }
        self.go_on().await
    }

    async fn edit(&mut self, edit: SessionEdit) -> Result<Session, ServiceError> {
        let mut next = self.ledger.session.clone();
        let mut changed = Map::new();
        if let Some(title) = edit.title.filter(|title| *title != next.title) {
            changed.insert("title".to_owned(), json!(title));
            next.title = title;
        }
        let metadata = next.metadata.clone();
        for (key, value) in edit.metadata {
            match value {
                Some(value) => next.metadata.insert(key, value),
                None => next.metadata.remove(&key),
            };
        }
        if metadata != next.metadata {
            changed.insert("metadata".to_owned(), json!(next.metadata));
        }
        let spec = &mut next.agent.spec;
        let tools = edit.tools.filter(|tools| *tools != spec.tools);
        let mcp_servers = edit.mcp_servers.filter(|servers| *servers != spec.mcp_servers);
        if tools.is_some() || mcp_servers.is_some() {
            if next.fold.turn.is_some() {
                let text = "the agent's tools can be changed only while the session is idle; interrupt it first";
                return Err(ServiceError::Refused(text.to_owned()));
            }
            let mut agent = Map::new();
            if let Some(tools) = tools {
                spec.tools = tools;
                agent.insert("tools".to_owned(), json!(spec.tools));
            }
            if let Some(servers) = mcp_servers {
                spec.mcp_servers = servers;
                agent.insert("mcp_servers".to_owned(), json!(spec.mcp_servers));
            }
            changed.insert("agent".to_owned(), Value::Object(agent));
        }
        if changed.is_empty() {
            return Ok(next);
        }
        let mut draft = self.ledger.draft();
        draft.push(EventBody::SessionUpdated { changed: Value::Object(changed) }).map_err(admission::broken)?;
        self.write_change(next, draft, None).await
    }

    async fn archive(&mut self) -> Result<Session, ServiceError> {
        let session = self.ledger.session.clone();
        if session.fold.status == Status::Terminated {
            return match session.archived_at {
                Some(_) => Ok(session),
                // It ended for another reason; now nobody wants to see it any more.
                None => {
                    let (draft, at) = (self.ledger.draft(), session.fold.last_at);
                    self.write_change(session, draft, Some(at)).await
                }
            };
        }
        if session.fold.needs_owner() {
            let text = format!("session `{}` is running; interrupt it and wait until it is idle", session.id);
            return Err(ServiceError::Refused(text));
        }
        let mut draft = self.ledger.draft();
        let agent_name = session.agent.spec.name.clone();
        let session_thread_id = ThreadId::primary(&session.id);
        draft.push(EventBody::ThreadStatusTerminated { session_thread_id, agent_name }).map_err(admission::broken)?;
        draft.push(EventBody::StatusTerminated { reason: "archived".to_owned() }).map_err(admission::broken)?;
        let at = draft.at;
        self.write_change(session, draft, Some(at)).await
    }

    /// One change of the resource and the events that tell of it.
    async fn write_change(
        &mut self,
        next: Session,
        draft: Draft,
        archived_at: Option<Timestamp>,
    ) -> Result<Session, ServiceError> {
        let change = SessionChange {
            title: next.title,
            metadata: next.metadata,
            agent: next.agent,
            archived_at: archived_at.or(next.archived_at),
            updated_at: draft.at,
        };
        self.ledger.commit_change(&draft, change).await?;
        self.renew_client();
        Ok(self.ledger.session.clone())
    }

    /// Checks that nothing runs, then ends the driver: the service removes what is stored.
    async fn delete(&mut self, reply: Reply<()>) -> Result<(), Halt> {
        if self.ledger.fold().needs_owner() {
            let text = format!("session `{}` is running; interrupt it and wait until it is idle", self.id());
            return finish(Err(ServiceError::Refused(text)), reply);
        }
        let _ = reply.send(Ok(()));
        Err(Halt::Deleted)
    }
}

/// Answers; a fault that means that this driver is no longer the owner also ends it.
fn finish<T>(outcome: Result<T, ServiceError>, reply: Reply<T>) -> Result<(), Halt> {
    match outcome {
        Err(ServiceError::Append(fault)) => refuse_write(fault, reply),
        outcome => {
            let _ = reply.send(outcome);
            Ok(())
        }
    }
}

/// A write that was not taken: the caller is told, and nothing was acknowledged.
fn refuse_write<T>(fault: AppendError, reply: Reply<T>) -> Result<(), Halt> {
    match fault {
        AppendError::Fenced { .. } => Err(Halt::Fenced),
        AppendError::Conflict { .. } => Err(Halt::Overtaken),
        AppendError::Absent => Err(Halt::Deleted),
        fault => {
            let _ = reply.send(Err(fault.into()));
            Ok(())
        }
    }
}
