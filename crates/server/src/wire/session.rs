//! Sessions as clients see them.

use crate::wire::agent::{AgentDefinition, write_definition};
use crate::wire::usage::{seconds, write_totals};
use loopd_domain::Timestamp;
use loopd_domain::event::Permission;
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
    /// How it stands; an addition of loopd.
    pub loopd: Standing,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

/// How a session stands: what it has done, and what it waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standing {
    pub turns: u32,
    pub steps: u64,
    /// Exact, in millionths of a US dollar; null when a price is not known.
    pub cost_micro_usd: Option<u64>,
    /// Inputs that are accepted and wait for the next step.
    pub queued: usize,
    /// Calls that only the client can move, in the model's order.
    pub waiting: Vec<WaitingCall>,
    /// When the model will be asked again, while `status` is `rescheduling`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    /// Takeovers since the last finished step.
    pub recoveries: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingCall {
    /// Id of the call's event, to be sent back with the answer.
    pub tool_use_id: String,
    pub name: String,
    /// The client event that answers it: `user.tool_confirmation` or `user.custom_tool_result`.
    pub answer: &'static str,
    pub arguments_digest: String,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    pub waiting_seconds: f64,
}

fn standing(session: &Stored, now: Timestamp) -> Standing {
    let fold = &session.fold;
    let calls = fold.turn.iter().flat_map(|t| &t.calls).filter(|c| c.waits_for_client());
    let waiting = calls.map(|call| WaitingCall {
        tool_use_id: call.id.to_string(),
        name: call.name.clone(),
        answer: match (call.permission, call.verdict) {
            (Permission::Ask, None) => "user.tool_confirmation",
            _ => "user.custom_tool_result",
        },
        arguments_digest: call.arguments_digest.clone(),
        since: call.asked_at,
        waiting_seconds: seconds(now.since_ms(call.asked_at)),
    });
    Standing {
        turns: fold.turns,
        steps: fold.steps,
        cost_micro_usd: fold.cost.map(|c| c.0),
        queued: fold.queued.len(),
        waiting: waiting.collect(),
        retry_at: fold.retry_at,
        recoveries: fold.recoveries,
    }
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
        vault_ids: session.vaults.iter().map(|id| id.to_string()).collect(),
        usage: write_totals(&fold.usage, fold.cost, active_ms(session, now)),
        stats: stats(session, now),
        outcome_evaluations: json!([]),
        budget: Value::Null,
        deployment_id: None,
        loopd: standing(session, now),
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
            "loopd",
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
