//! A session's trace: a tree of spans.
//!
//! ```text
//! session ─► turn ─► step ─► model call (each attempt), retry wait, tool call, client wait, recovery, connection
//! ```
//!
//! [`TraceFold`] makes it from the journal, [`render_tree`] prints it. Ids are derived from the journal's own, so that the
//! same event is the same span for ever.

mod fold;
mod ids;
mod render;
mod spans;
mod step;

pub use fold::TraceFold;
pub use ids::{trace_id, turn_trace_id};
pub use render::render_tree;

use loopd_domain::event::Event;
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What `GET /v1/sessions/{id}/trace` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub session_id: SessionId,
    /// Of the session's own trace. A turn that joined its caller's trace has that one's id.
    pub trace_id: String,
    /// Version of the OpenTelemetry semantic conventions that attributes follow.
    pub semconv: String,
    pub root: Span,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// The span above it, or the caller's when the turn joined a trace.
    pub parent_span_id: Option<String>,
    pub name: String,
    pub kind: SpanKind,
    pub start: Timestamp,
    /// `None` while it is open.
    pub end: Option<Timestamp>,
    pub duration_ms: Option<u64>,
    pub status: SpanStatus,
    /// What went wrong, or why it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Tokens of this span and all below it; `None` for what spends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// With `usage`: `None` when a price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<MicroUsd>,
    pub attributes: BTreeMap<String, Value>,
    /// In the order of their start.
    pub children: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    Session,
    Turn,
    Step,
    ModelCall,
    ToolCall,
    /// Nothing but the client could move the turn.
    ClientWait,
    /// From a failed attempt to the next one.
    RetryWait,
    /// Another owner took the session over. Has no length.
    Recovery,
    /// A program of the room connected to somewhere, or was kept from it.
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanStatus {
    Ok,
    Error,
    /// Cut off: by the client, by a limit, or by the loss of its owner.
    Interrupted,
    /// It may or may not have happened.
    Unknown,
    Open,
}

impl Trace {
    /// The trace of a journal from its first event on.
    pub fn of(events: &[Event], session: &SessionId) -> Self {
        let mut fold = TraceFold::new(session);
        events.iter().for_each(|event| fold.apply(event));
        fold.trace()
    }
}

impl Span {
    /// This span and all below it, parents first.
    pub fn walk(&self) -> Vec<&Span> {
        let below = self.children.iter().flat_map(Span::walk);
        std::iter::once(self).chain(below).collect()
    }
}
