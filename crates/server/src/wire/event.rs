//! Events as clients see them: the journal's bodies without what is the journal's alone.

use crate::wire::tool;
use crate::wire::usage::{write_request, write_totals};
use loopd_domain::agent::Tool;
use loopd_domain::event::{Event as Entry, EventBody, Permission, Verdict};
use loopd_domain::{EventId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// One event. What else it carries depends on `type`; see the list of types in the documentation.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Null while a client's input waits to be taken up.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub processed_at: Option<Timestamp>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Map<String, Value>,
}

/// `None` for what only the journal knows.
pub fn write(entry: &Entry) -> Option<Event> {
    entry.body.is_public().then(|| write_body(&entry.id, &entry.body, Some(entry.at)))
}

/// An accepted input, taken up or not.
pub fn write_body(id: &EventId, body: &EventBody, processed_at: Option<Timestamp>) -> Event {
    let rest = match fields(body) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    Event { id: id.to_string(), kind: body.kind(), processed_at, rest }
}

fn fields(body: &EventBody) -> Value {
    use EventBody::*;
    match body {
        UserMessage { content } | SystemMessage { content } | AgentMessage { content, .. } => {
            json!({"content": content})
        }
        UserInterrupt { session_thread_id } => json!({"session_thread_id": session_thread_id}),
        UserToolConfirmation { tool_use_id, result, deny_message, .. } => {
            let mut out = json!({"tool_use_id": tool_use_id, "result": result, "session_thread_id": null});
            if *result == Verdict::Deny {
                out["deny_message"] = json!(deny_message);
            }
            out
        }
        UserCustomToolResult { custom_tool_use_id, content, is_error, .. } => json!({
            "custom_tool_use_id": custom_tool_use_id, "content": content, "is_error": is_error, "session_thread_id": null,
        }),
        AgentThinking { .. } => Value::Null,
        AgentToolUse { name, input, evaluated_permission, call } => json!({
            "name": name, "input": input, "evaluated_permission": evaluated_permission,
            "evaluation": evaluation(*evaluated_permission), "session_thread_id": null,
            "effect": call.effect, "arguments_digest": call.arguments_digest,
        }),
        AgentMcpToolUse { mcp_server_name, name, input, evaluated_permission, call, .. } => json!({
            "mcp_server_name": mcp_server_name, "name": name, "input": input,
            "evaluated_permission": evaluated_permission, "evaluation": evaluation(*evaluated_permission),
            "session_thread_id": null, "effect": call.effect, "arguments_digest": call.arguments_digest,
        }),
        AgentCustomToolUse { name, input, call } => json!({
            "name": name, "input": input, "session_thread_id": null,
            "effect": call.effect, "arguments_digest": call.arguments_digest,
        }),
        AgentToolResult { tool_use_id, content, is_error, outcome, duration_ms } => json!({
            "tool_use_id": tool_use_id, "content": content, "is_error": is_error, "outcome": outcome, "duration_ms": duration_ms,
        }),
        AgentMcpToolResult { mcp_tool_use_id, content, is_error, outcome, duration_ms } => json!({
            "mcp_tool_use_id": mcp_tool_use_id, "content": content, "is_error": is_error, "outcome": outcome,
            "duration_ms": duration_ms,
        }),
        StatusRunning { turn, .. } => json!({"turn": turn}),
        StatusIdle { stop_reason, stop_details } => json!({"stop_reason": stop_reason, "stop_details": stop_details}),
        StatusRescheduled { retry_at } => json!({"retry_at": retry_at}),
        StatusTerminated { reason } => json!({"reason": reason}),
        ThreadStatusIdle { session_thread_id, agent_name, stop_reason, stop_details } => json!({
            "session_thread_id": session_thread_id, "agent_name": agent_name,
            "stop_reason": stop_reason, "stop_details": stop_details,
        }),
        ThreadStatusRunning { session_thread_id, agent_name }
        | ThreadStatusRescheduled { session_thread_id, agent_name }
        | ThreadStatusTerminated { session_thread_id, agent_name } => {
            json!({"session_thread_id": session_thread_id, "agent_name": agent_name})
        }
        SessionUsage { usage, cost, active_ms } => {
            json!({"usage": write_totals(usage, *cost, *active_ms), "budget": null})
        }
        SessionUpdated { changed } => updated(changed.clone()),
        SessionError { error } => json!({"error": error}),
        ModelRequestStart { .. } => Value::Null,
        ModelRequestEnd { model_request_start_id, is_error, model_usage, .. } => json!({
            "model_request_start_id": model_request_start_id, "is_error": is_error, "model_usage": write_request(model_usage),
        }),
        InputQueued { .. } | McpToolsListed { .. } => Value::Null,
        OutputRejected { message } => json!({"message": message}),
        OutcomeUnknown { tool_use_id, message } => json!({"tool_use_id": tool_use_id, "message": message}),
        RoomRestarted { message } => json!({"message": message}),
        RoomStarted { isolation, accelerator, waited_ms, woken } => json!({
            "isolation": isolation, "accelerator": accelerator, "waited_ms": waited_ms, "woken": woken,
        }),
        NetworkConnection { connection } => json!(connection),
        NetworkConnectionsOmitted { count } => json!({"count": count}),
        SessionForked { from_session_id, at_event_id, source_hash, workspace } => json!({
            "from_session_id": from_session_id, "at_event_id": at_event_id, "source_hash": source_hash, "workspace": workspace,
        }),
        EventRedacted { event_id, reason } => json!({"event_id": event_id, "reason": reason}),
        SessionRecovered { message, recoveries } => json!({"message": message, "recoveries": recoveries}),
    }
}

/// The journal has an agent's new tools as they were declared; clients see them resolved.
fn updated(mut changed: Value) -> Value {
    if let Some(tools) = changed.pointer_mut("/agent/tools")
        && let Ok(declared) = Vec::<Tool>::deserialize(&*tools)
    {
        *tools = tool::write_list(&declared);
    }
    changed
}

fn evaluation(permission: Permission) -> Value {
    match permission {
        Permission::Allow => json!({"type": "always_allow"}),
        Permission::Ask => json!({"type": "always_ask"}),
        Permission::Deny => Value::Null,
    }
}

/// The types that `types[]` takes: those of the wire format, whether or not this version writes them, and our own.
pub const KINDS: [&str; 50] = [
    "user.message",
    "user.interrupt",
    "user.tool_confirmation",
    "user.custom_tool_result",
    "user.tool_result",
    "user.define_outcome",
    "system.message",
    "agent.message",
    "agent.thinking",
    "agent.tool_use",
    "agent.tool_result",
    "agent.mcp_tool_use",
    "agent.mcp_tool_result",
    "agent.custom_tool_use",
    "agent.thread_context_compacted",
    "agent.thread_message_sent",
    "agent.thread_message_received",
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.updated",
    "session.error",
    "session.usage",
    "session.thread_created",
    "session.thread_status_running",
    "session.thread_status_idle",
    "session.thread_status_rescheduled",
    "session.thread_status_terminated",
    "span.model_request_start",
    "span.model_request_end",
    "span.outcome_evaluation_start",
    "span.outcome_evaluation_ongoing",
    "span.outcome_evaluation_end",
    "workflow_run.created",
    "workflow_run.status_running",
    "workflow_run.status_idle",
    "workflow_run.status_ended",
    "workflow_run.error",
    "workflow_run.phase_started",
    "workflow_run.phase_ended",
    "loopd.output_rejected",
    "loopd.session_recovered",
    "loopd.outcome_unknown",
    "loopd.room_restarted",
    "loopd.room_started",
    "loopd.network_connection",
    "loopd.network_connections_omitted",
    "loopd.session_forked",
    "loopd.event_redacted",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{event, event_id, intent};
    use loopd_domain::content::ContentBlock;
    use loopd_domain::event::{AnswerStop, NativeBlock, Outcome, QueuedInput, RequestOutcome};
    use loopd_domain::network::{Connection, ConnectionOutcome};
    use loopd_domain::session::{StopReason, TurnSettings};
    use loopd_domain::usage::{MicroUsd, Usage};

    fn wire(body: EventBody) -> Value {
        serde_json::to_value(write(&event(3, body)).expect("public")).expect("serialises")
    }

    #[test]
    fn what_is_the_journals_alone_is_not_shown() {
        let native = NativeBlock { dialect: "anthropic".into(), block: json!({"signature": "s"}) };
        let thinking = wire(EventBody::AgentThinking { native });
        assert_eq!(
            thinking,
            json!({"id": "sevt_3", "type": "agent.thinking", "processed_at": "1970-01-01T00:00:00.003000Z"})
        );
        let running = wire(EventBody::StatusRunning { turn: 2, settings: TurnSettings::default() });
        assert_eq!((running.get("settings"), &running["turn"]), (None, &json!(2)));
        let end = wire(EventBody::ModelRequestEnd {
            model_request_start_id: event_id(1),
            is_error: false,
            model_usage: Usage { input_tokens: 5, ..Usage::default() },
            outcome: RequestOutcome::Answered { stop: AnswerStop::EndTurn, stop_details: None },
            cost: Some(MicroUsd(7)),
            first_token_ms: Some(1),
            provider_request_id: Some("secret".into()),
            response_model: None,
        });
        let usage = json!({"input_tokens": 5, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "speed": "standard"});
        let expected = json!({"id": "sevt_3", "type": "span.model_request_end", "processed_at": "1970-01-01T00:00:00.003000Z",
            "model_request_start_id": "sevt_1", "is_error": false, "model_usage": usage});
        assert_eq!(end, expected);
    }

    #[test]
    fn a_tool_call_and_its_result() {
        let call = wire(EventBody::AgentToolUse {
            name: "bash".into(),
            input: json!({"command": "ls"}),
            evaluated_permission: Permission::Ask,
            call: intent("toolu_1"),
        });
        assert_eq!(
            (&call["evaluated_permission"], &call["evaluation"]),
            (&json!("ask"), &json!({"type": "always_ask"}))
        );
        assert!(call.get("session_thread_id").is_some_and(Value::is_null));
        assert!(call.get("call").is_none() && !call.to_string().contains("toolu_1"));
        let result = wire(EventBody::AgentToolResult {
            tool_use_id: event_id(2),
            content: vec![ContentBlock::text("x")],
            is_error: false,
            outcome: Outcome::Completed,
            duration_ms: 4,
        });
        assert_eq!((&result["tool_use_id"], &result["content"][0]["text"]), (&json!("sevt_2"), &json!("x")));
    }

    #[test]
    fn idle_says_why() {
        let waiting = StopReason::RequiresAction { event_ids: vec![event_id(2)] };
        let idle = wire(EventBody::StatusIdle { stop_reason: waiting, stop_details: None });
        assert_eq!(idle["stop_reason"], json!({"type": "requires_action", "event_ids": ["sevt_2"]}));
        assert!(idle.get("stop_details").is_some_and(Value::is_null));
    }

    #[test]
    fn new_tools_are_echoed_resolved() {
        let declared = json!({"tools": crate::wire::tool::all_builtins()});
        let updated = wire(EventBody::SessionUpdated { changed: json!({"title": "t", "agent": declared}) });
        assert_eq!(updated["title"], "t");
        assert_eq!(updated["agent"]["tools"][0]["configs"].as_array().map(Vec::len), Some(8));
    }

    #[test]
    fn a_connection_is_shown_flat() {
        let connection = Connection {
            host: "example.com".into(),
            port: 443,
            outcome: ConnectionOutcome::Refused { reason: "no".into() },
            credentials: Vec::new(),
            started_at: loopd_domain::Timestamp::from_millis(1),
            duration_ms: 2,
            bytes_out: 3,
            bytes_in: 4,
        };
        let shown = wire(EventBody::NetworkConnection { connection });
        let expected = json!({
            "id": "sevt_3", "type": "loopd.network_connection", "processed_at": "1970-01-01T00:00:00.003000Z",
            "host": "example.com", "port": 443, "outcome": {"type": "refused", "reason": "no"},
            "started_at": "1970-01-01T00:00:00.001000Z", "duration_ms": 2, "bytes_out": 3, "bytes_in": 4,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_queued_input_is_not_an_event_but_has_its_id_already() {
        let body = EventBody::UserMessage { content: vec![ContentBlock::text("hi")] };
        let input = QueuedInput { id: event_id(9), body: Box::new(body.clone()), settings: TurnSettings::default() };
        assert_eq!(write(&event(3, EventBody::InputQueued { input })), None);
        let queued = serde_json::to_value(write_body(&event_id(9), &body, None)).expect("serialises");
        assert_eq!(
            queued,
            json!({"id": "sevt_9", "type": "user.message", "processed_at": null, "content": [{"type": "text", "text": "hi"}]})
        );
    }

    #[test]
    fn every_type_that_is_written_can_be_asked_for() {
        let bodies = [
            EventBody::OutputRejected { message: "m".into() },
            EventBody::StatusTerminated { reason: "r".into() },
            EventBody::SessionUsage { usage: Usage::default(), cost: None, active_ms: 0 },
            EventBody::NetworkConnectionsOmitted { count: 1 },
        ];
        for body in bodies {
            assert!(KINDS.contains(&body.kind()), "{}", body.kind());
        }
        assert!(!KINDS.contains(&"session.deleted"));
    }
}
