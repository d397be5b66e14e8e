//! The primary thread of a session: derived from it, since every session has exactly this one for now.

use crate::wire::session::{SessionAgent, stats, write_agent};
use crate::wire::usage::write_totals;
use loopd_domain::session::Session;
use loopd_domain::{ThreadId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Thread {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub session_id: String,
    pub agent: SessionAgent,
    pub status: &'static str,
    /// Null: the primary thread.
    pub parent_thread_id: Option<String>,
    #[schema(value_type = Object)]
    pub stats: Value,
    #[schema(value_type = Object)]
    pub usage: Value,
    pub workflow_run_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

pub fn write_primary(session: &Session, now: Timestamp) -> Thread {
    Thread {
        id: ThreadId::primary(&session.id).to_string(),
        kind: "session_thread",
        session_id: session.id.to_string(),
        agent: write_agent(&session.agent),
        status: session.fold.status.as_str(),
        parent_thread_id: None,
        stats: stats(session, now),
        usage: write_totals(&session.fold.usage, session.fold.cost, super::session::active_ms(session, now)),
        workflow_run_id: None,
        created_at: session.created_at,
        updated_at: session.updated_at,
        archived_at: session.archived_at,
    }
}
