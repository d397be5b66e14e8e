//! Sessions as clients see them.

use crate::wire::agent::{AgentDefinition, write_definition};
use crate::wire::usage::{seconds, write_totals};
use loopd_domain::Timestamp;
use loopd_domain::session::{Session as Stored, SessionAgent as Effective};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub agent: SessionAgent,
    /// Null: the default environment.
    pub environment_id: Option<String>,
    /// `idle`, `running`, `rescheduling` or `terminated`.
    pub status: &'static str,
    /// Why it is idle; null before its first turn and while it runs. An addition of loopd.
    #[schema(value_type = Option<Object>)]
    pub stop_reason: Value,
    pub title: Option<String>,
    #[schema(value_type = Object)]
    pub metadata: Value,
    #[schema(value_type = Vec<Object>)]
    pub resources: Value,
    pub vault_ids: Vec<String>,
    #[schema(value_type = Object)]
    pub usage: Value,
    #[schema(value_type = Object)]
    pub stats: Value,
    #[schema(value_type = Vec<Object>)]
    pub outcome_evaluations: Value,
    #[schema(value_type = Option<Object>)]
    pub budget: Value,
    pub deployment_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

/// The agent as this session has it, overrides included.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionAgent {
    /// Null for a session that `POST /v1/invoke` made without an agent.
    pub id: Option<String>,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub version: u64,
    #[serde(flatten)]
    pub definition: AgentDefinition,
}

pub fn write_agent(agent: &Effective) -> SessionAgent {
    SessionAgent {
        id: agent.id.as_ref().map(|id| id.to_string()),
        kind: "agent",
        version: agent.version,
        definition: write_definition(&agent.spec),
    }
}

/// Time spent running, up to `now`.
pub fn active_ms(session: &Stored, now: Timestamp) -> u64 {
    let running_ms = session.fold.running_since.map_or(0, |since| now.since_ms(since));
    session.fold.active_ms.saturating_add(running_ms)
}

/// `active_seconds`, and the age until now or until the session was archived.
pub fn stats(session: &Stored, now: Timestamp) -> Value {
    let end = session.archived_at.unwrap_or(now);
    json!({
        "active_seconds": seconds(active_ms(session, now)),
        "duration_seconds": seconds(end.since_ms(session.created_at)),
    })
}

pub fn write(session: &Stored, now: Timestamp) -> Session {
    let fold = &session.fold;
    Session {
        id: session.id.to_string(),
        kind: "session",
        agent: write_agent(&session.agent),
        environment_id: session.environment.as_ref().map(|id| id.to_string()),
        status: fold.status.as_str(),
        stop_reason: json!(fold.stop_reason),
        title: session.title.clone(),
        metadata: json!(session.metadata),
        resources: json!([]),
        vault_ids: Vec::new(),
        usage: write_totals(&fold.usage, fold.cost, active_ms(session, now)),
        stats: stats(session, now),
        outcome_evaluations: json!([]),
        budget: Value::Null,
        deployment_id: None,
        created_at: session.created_at,
        updated_at: session.updated_at,
        archived_at: session.archived_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn every_field_that_clients_read_is_there() {
        let mut session = testing::session("sesn_1");
        session.fold.running_since = Some(Timestamp(0));
        session.fold.active_ms = 500;
        let wire = serde_json::to_value(write(&session, Timestamp::from_millis(1_000))).expect("serialises");
        for name in [
            "id",
            "type",
            "agent",
            "environment_id",
            "status",
            "title",
            "metadata",
            "resources",
            "vault_ids",
            "usage",
            "stats",
            "outcome_evaluations",
            "budget",
            "deployment_id",
            "created_at",
            "updated_at",
            "archived_at",
        ] {
            assert!(wire.get(name).is_some(), "{name}");
        }
        for name in [
            "id",
            "version",
            "type",
            "name",
            "description",
            "model",
            "system",
            "tools",
            "mcp_servers",
            "skills",
            "multiagent",
            "execution_identity",
        ] {
            assert!(wire["agent"].get(name).is_some(), "agent.{name}");
        }
        assert_eq!((&wire["resources"], &wire["vault_ids"], &wire["metadata"]), (&json!([]), &json!([]), &json!({})));
        assert_eq!(wire["usage"]["input_tokens"], 0);
        assert_eq!(wire["stats"], json!({"active_seconds": 1.5, "duration_seconds": 1.0}));
    }
}
