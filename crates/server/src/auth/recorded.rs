//! What of a request goes into the audit log: who asked for what, of which resource, and what came of it.
//!
//! Never a header, a body or a message of ours: a message may repeat what the caller sent, and callers send secrets.

use super::Caller;
use super::access::Access;
use crate::error::ApiError;
use crate::state::ServerState;
use axum::extract::Request;
use axum::response::Response;
use loopd_domain::audit::{Actor, AuditEntry, AuditResult};
use loopd_domain::ids::is_id;
use loopd_domain::{RequestId, WorkspaceId};

pub struct Record {
    action: String,
    /// An id out of the path. What is none there may be a key that somebody put into the wrong place.
    resource: String,
    recorded: bool,
    request: Option<RequestId>,
}

impl Record {
    pub fn of(request: &Request, route: Option<&Access>) -> Self {
        let id = route.map_or("", |route| route.resource(request.uri().path()));
        Record {
            action: route.map_or("none", |route| route.action).to_owned(),
            resource: if is_id(id) { id.to_owned() } else { String::new() },
            recorded: route.is_some_and(|route| route.recorded),
            request: request.extensions().get::<RequestId>().cloned(),
        }
    }

    /// Nobody knows who it was; it stands in the log of whoever runs the server.
    pub fn stranger(self, state: &ServerState, refusal: &ApiError) {
        if refusal.status.is_server_error() {
            return;
        }
        let request = self.request.clone();
        let entry = self.entry(state, WorkspaceId::default_workspace(), Actor::Unknown, refused(refusal));
        state.audit.refused(entry, request);
    }

    pub fn refused(self, state: &ServerState, caller: &Caller, refusal: &ApiError) {
        let request = self.request.clone();
        let entry = self.entry(state, caller.workspace.clone(), caller.actor.clone(), refused(refusal));
        state.audit.refused(entry, request);
    }

    fn entry(self, state: &ServerState, workspace: WorkspaceId, actor: Actor, result: AuditResult) -> AuditEntry {
        let (action, resource) = (self.action, self.resource);
        AuditEntry { at: state.clock.now(), workspace, actor, action, resource, result, credential_use: None }
    }
}

/// The record of a request that was let in, until it is answered. Dropped before that, it says so.
pub struct Pending<'a> {
    record: Option<Record>,
    state: &'a ServerState,
    caller: &'a Caller,
}

impl<'a> Pending<'a> {
    pub fn new(record: Record, state: &'a ServerState, caller: &'a Caller) -> Self {
        Pending { record: Some(record).filter(|record| record.recorded), state, caller }
    }

    pub fn answered(mut self, response: &Response) {
        let status = response.status();
        let reason = match response.extensions().get::<ApiError>() {
            Some(error) => reason(error),
            None => status.as_str().to_owned(),
        };
        self.write(match status {
            _ if status.is_server_error() => AuditResult::Failed { reason },
            _ if status.is_client_error() => AuditResult::Refused { reason },
            _ => AuditResult::Done,
        });
    }

    fn write(&mut self, result: AuditResult) {
        let Some(mut record) = self.record.take() else { return };
        if let Some(made) = self.caller.made.get() {
            record.resource = made.clone();
        }
        let request = record.request.clone();
        let (workspace, actor) = (self.caller.workspace.clone(), self.caller.actor.clone());
        self.state.audit.note(record.entry(self.state, workspace, actor, result), request);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.write(AuditResult::Failed { reason: "the caller did not wait for the answer".to_owned() });
    }
}

fn refused(error: &ApiError) -> AuditResult {
    AuditResult::Refused { reason: reason(error) }
}

fn reason(error: &ApiError) -> String {
    match &error.scope {
        Some(scope) => format!("{} {}: {scope}", error.status.as_u16(), error.kind),
        None => format!("{} {}", error.status.as_u16(), error.kind),
    }
}
