//! Every model request built again from the journal, and its digest held against the one that was written down when it was
//! sent.

use crate::request::{self, Ground};
use loopd_domain::agent::{Tool, ToolSpec};
use loopd_domain::conversation::Conversation;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::mcp::McpListings;
use loopd_domain::session::Session;
use loopd_domain::{Seq, SessionId, redaction};
use loopd_models::Registry;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many of a session's model requests are what the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Digests {
    pub requests: u64,
    pub equal: u64,
    /// What they were made of is not known any more: tools that were replaced, an event that was redacted, a model that is
    /// not configured here.
    pub not_comparable: u64,
    /// Seq of the first request that differs.
    pub first_different: Option<Seq>,
}

pub struct RequestDigests {
    models: Arc<Registry>,
    session: Session,
    fold: SessionFold,
    conversation: Conversation,
    /// As declared, while that is known, and what their MCP servers listed last.
    tools: Option<Vec<Tool>>,
    listed: McpListings,
    is_redacted: bool,
    report: Digests,
    /// The sessions that the journal was copied from, and up to where, in order.
    origins: Vec<(Seq, SessionId)>,
}

impl RequestDigests {
    /// `history`: what of the journal must be known beforehand; see [`History`].
    pub fn new(models: Arc<Registry>, session: Session, history: History) -> Self {
        // Tools that were replaced are not in the journal.
        let tools = (!history.tools_replaced).then(|| session.agent.spec.tools.clone());
        let (listed, fold, conversation, report) = Default::default();
        let origins = history.origins;
        RequestDigests { models, session, fold, conversation, tools, listed, is_redacted: false, report, origins }
    }

    /// The next event; it is legal, or the replay has said so.
    pub fn apply(&mut self, event: &Event) {
        if let EventBody::ModelRequestStart { model, request_digest, .. } = &event.body {
            self.report.requests += 1;
            match self.digest(event.seq, model) {
                Some(digest) if digest == *request_digest => self.report.equal += 1,
                Some(_) if !self.is_redacted => _ = self.report.first_different.get_or_insert(event.seq),
                _ => self.report.not_comparable += 1,
            }
        }
        if let EventBody::SessionUpdated { changed } = &event.body
            && let Some(Ok(tools)) = changed.pointer("/agent/tools").map(Vec::<Tool>::deserialize)
        {
            self.tools = Some(tools);
        }
        if let EventBody::McpToolsListed { mcp_server_name, tools: Some(tools) } = &event.body {
            self.listed.insert(mcp_server_name.clone(), tools.clone());
        }
        self.is_redacted |= redaction::is_tombstone(&event.body);
        self.conversation.apply(event);
        if self.fold.apply(event).is_err() {
            // The replay ends here as well, with the reason.
            self.tools = None;
        }
    }

    pub fn report(self) -> Digests {
        self.report
    }

    fn digest(&self, seq: Seq, model: &str) -> Option<String> {
        let resolved = self.models.resolve(&self.session.agent.spec.model).ok()?;
        if resolved.full_id != model {
            return None;
        }
        let origin = self.origins.iter().find(|(until, _)| seq < *until).map(|(_, id)| id);
        let ground = Ground {
            session: origin.unwrap_or(&self.session.id),
            spec: &self.session.agent.spec,
            tools: self.specs()?,
            schema: self.fold.turn.as_ref().and_then(|t| t.settings.output_schema.as_ref()),
        };
        let request = request::build(ground, &resolved.name, self.conversation.messages());
        Some(request::digest(&resolved.provider.body(&request)))
    }

    fn specs(&self) -> Option<Arc<Vec<ToolSpec>>> {
        let mut spec = self.session.agent.spec.clone();
        spec.tools = self.tools.clone()?;
        Some(Arc::new(spec.resolve_tools(&self.listed).into_iter().map(|tool| tool.spec).collect()))
    }
}

/// What only the later part of a journal tells of its earlier part.
#[derive(Debug, Clone, Default)]
pub struct History {
    tools_replaced: bool,
    origins: Vec<(Seq, SessionId)>,
}

impl History {
    pub fn apply(&mut self, event: &Event) {
        match &event.body {
            EventBody::SessionForked { from_session_id, .. } => self.origins.push((event.seq, from_session_id.clone())),
            EventBody::SessionUpdated { changed } => self.tools_replaced |= changed.pointer("/agent/tools").is_some(),
            _ => {}
        }
    }
}
