//! What an event becomes when its content is taken out of the journal: the same kind, in the same place, saying nothing.
//!
//! Structure stays, so that the journal folds as before and every call keeps its result. Whatever a provider signed goes
//! whole: half of it would be refused.

use crate::content::ContentBlock;
use crate::event::{EventBody, Intent, NativeBlock, QueuedInput};
use serde_json::{Value, json};

/// What stands where a text stood.
pub const REDACTED: &str = "[redacted]";
/// A dialect that no provider speaks: such a block is sent to none.
const NO_DIALECT: &str = "redacted";

/// The tombstone of an event; `None` when it holds nothing that somebody said, and so nothing to take out.
pub fn tombstone(body: &EventBody) -> Option<EventBody> {
    use EventBody::*;
    let said = || vec![ContentBlock::text(REDACTED)];
    Some(match body.clone() {
        UserMessage { .. } => UserMessage { content: said() },
        SystemMessage { .. } => SystemMessage { content: said() },
        AgentMessage { partial, .. } => AgentMessage { content: said(), partial },
        UserToolConfirmation { tool_use_id, result, deny_message: Some(_), arguments_digest } => {
            let deny_message = Some(REDACTED.to_owned());
            UserToolConfirmation { tool_use_id, result, deny_message, arguments_digest }
        }
        UserCustomToolResult { custom_tool_use_id, is_error, arguments_digest, .. } => {
            UserCustomToolResult { custom_tool_use_id, content: said(), is_error, arguments_digest }
        }
        AgentThinking { .. } => {
            AgentThinking { native: NativeBlock { dialect: NO_DIALECT.to_owned(), block: Value::Null } }
        }
        AgentToolUse { name, evaluated_permission, call, .. } => {
            AgentToolUse { name, input: json!({}), evaluated_permission, call: bare(call) }
        }
        AgentMcpToolUse { mcp_server_name, name, evaluated_permission, called_as, call, .. } => {
            let (input, call) = (json!({}), bare(call));
            AgentMcpToolUse { mcp_server_name, name, input, evaluated_permission, called_as, call }
        }
        AgentCustomToolUse { name, call, .. } => AgentCustomToolUse { name, input: json!({}), call: bare(call) },
        AgentToolResult { tool_use_id, is_error, outcome, duration_ms, .. } => {
            AgentToolResult { tool_use_id, content: said(), is_error, outcome, duration_ms }
        }
        AgentMcpToolResult { mcp_tool_use_id, is_error, outcome, duration_ms, .. } => {
            AgentMcpToolResult { mcp_tool_use_id, content: said(), is_error, outcome, duration_ms }
        }
        SessionError { mut error } => {
            error.message = REDACTED.to_owned();
            SessionError { error }
        }
        NetworkConnection { mut connection } => {
            connection.host = REDACTED.to_owned();
            if let Some(reason) = connection.outcome.reason_mut() {
                *reason = REDACTED.to_owned();
            }
            NetworkConnection { connection }
        }
        OutputRejected { .. } => OutputRejected { message: REDACTED.to_owned() },
        InputQueued { input } => {
            let body = Box::new(tombstone(&input.body)?);
            InputQueued { input: QueuedInput { body, ..input } }
        }
        _ => return None,
    })
}

/// Is it a tombstone already?
pub fn is_tombstone(body: &EventBody) -> bool {
    tombstone(body).as_ref() == Some(body)
}

/// A call as it was decided, without what the model wrote.
fn bare(call: Intent) -> Intent {
    Intent { raw_arguments: None, native: None, ..call }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EffectClass, Permission, RunsIn};

    fn call() -> EventBody {
        EventBody::AgentToolUse {
            name: "bash".to_owned(),
            input: json!({"command": "echo secret"}),
            evaluated_permission: Permission::Allow,
            call: Intent {
                provider_call_id: "toolu_1".to_owned(),
                runs_in: RunsIn::Room,
                effect: EffectClass::Room,
                arguments_digest: "d".to_owned(),
                malformed: None,
                raw_arguments: Some("secret".to_owned()),
                native: Some(NativeBlock { dialect: "anthropic".to_owned(), block: json!("secret") }),
            },
        }
    }

    #[test]
    fn nothing_that_was_said_is_left_and_the_kind_stays() {
        let message = EventBody::UserMessage { content: vec![ContentBlock::text("secret")] };
        let queued = QueuedInput {
            id: crate::EventId::parse("id", "sevt_1").expect("an id"),
            body: Box::new(message.clone()),
            settings: Default::default(),
        };
        let native = NativeBlock { dialect: "anthropic".to_owned(), block: json!({"thinking": "secret"}) };
        for body in [message, call(), EventBody::AgentThinking { native }, EventBody::InputQueued { input: queued }] {
            let stone = tombstone(&body).expect("redactable");
            assert_eq!(stone.kind(), body.kind());
            let text = serde_json::to_string(&stone).expect("serialises");
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(tombstone(&stone), Some(stone.clone()), "a tombstone is its own");
        }
    }

    #[test]
    fn a_hosts_name_can_be_taken_out() {
        let connection = crate::network::Connection {
            host: "secret.example.com".to_owned(),
            port: 443,
            outcome: crate::network::ConnectionOutcome::Refused { reason: "`secret.example.com`: no".to_owned() },
            credentials: Vec::new(),
            started_at: crate::Timestamp(1),
            duration_ms: 0,
            bytes_out: 0,
            bytes_in: 0,
        };
        let stone = tombstone(&EventBody::NetworkConnection { connection }).expect("redactable");
        assert!(!serde_json::to_string(&stone).expect("serialises").contains("secret"));
        assert!(is_tombstone(&stone));
    }

    #[test]
    fn what_only_tells_of_the_session_is_not_redacted() {
        assert_eq!(tombstone(&EventBody::SessionUpdated { changed: json!({"title": "t"}) }), None);
        assert_eq!(tombstone(&EventBody::UserInterrupt { session_thread_id: None }), None);
        assert_eq!(
            tombstone(&EventBody::EventRedacted {
                event_id: crate::EventId::parse("id", "sevt_1").expect("an id"),
                reason: None
            }),
            None
        );
    }
}
