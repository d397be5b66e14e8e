//! A model's answer as journal entries: blocks become events in the provider's order, calls become intents.

use loopd_domain::agent::{HostTarget, ResolvedTool};
use loopd_domain::chain::sha256_hex;
use loopd_domain::conversation::Block;
use loopd_domain::event::{AnswerStop, EffectClass, EventBody, Intent, Permission, RunsIn};
use serde_json::Value;

/// The event of one block; `None` for a block that says nothing.
pub fn event_of(block: &Block, tools: &[ResolvedTool], stop: AnswerStop) -> Option<EventBody> {
    match block {
        Block::Content(content) => match content {
            loopd_domain::content::ContentBlock::Text { text } if text.is_empty() => None,
            content => Some(EventBody::AgentMessage { content: vec![content.clone()], partial: false }),
        },
        Block::Thinking(native) => Some(EventBody::AgentThinking { native: native.clone() }),
        Block::ToolUse { provider_call_id, name, input, raw_arguments, native } => {
            let tool = tools.iter().find(|t| &t.spec.name == name);
            let intent = Intent {
                provider_call_id: provider_call_id.clone(),
                runs_in: tool.map_or(RunsIn::Nowhere, |t| t.runs_in),
                effect: tool.map_or(EffectClass::Pure, |t| t.effect),
                arguments_digest: digest(input, raw_arguments.as_deref()),
                malformed: malformed(input, raw_arguments.as_deref(), stop),
                raw_arguments: raw_arguments.clone(),
                native: native.clone(),
            };
            let permission =
                tool.map_or(Permission::Allow, |tool| loopd_policy::decide(loopd_policy::Action { tool }).permission);
            Some(intent_event(name, input, permission, intent, tool.and_then(|t| t.host.as_ref())))
        }
        Block::System(_) | Block::ToolResult { .. } => None,
    }
}

fn intent_event(
    name: &str,
    input: &Value,
    evaluated_permission: Permission,
    call: Intent,
    host: Option<&HostTarget>,
) -> EventBody {
    let (name, input) = (name.to_owned(), input.clone());
    if let Some(HostTarget::Mcp { server, tool }) = host {
        let (mcp_server_name, called_as) = (server.name.clone(), name);
        let name = tool.clone();
        return EventBody::AgentMcpToolUse { mcp_server_name, name, input, evaluated_permission, called_as, call };
    }
    match call.runs_in {
        RunsIn::Client if call.malformed.is_none() => EventBody::AgentCustomToolUse { name, input, call },
        _ => EventBody::AgentToolUse { name, input, evaluated_permission, call },
    }
}

fn digest(input: &Value, raw: Option<&str>) -> String {
    match raw {
        Some(raw) => sha256_hex(raw.as_bytes()),
        None => sha256_hex(input.to_string().as_bytes()),
    }
}

/// Why the arguments cannot be used, as the model should read it.
fn malformed(input: &Value, raw: Option<&str>, stop: AnswerStop) -> Option<String> {
    let raw = match raw {
        Some(raw) => raw,
        None if input.is_object() => return None,
        None => return Some("its arguments are not a JSON object".to_owned()),
    };
    if stop == AnswerStop::MaxTokens {
        return Some("its arguments were cut off because the answer reached `max_tokens`".to_owned());
    }
    match serde_json::from_str::<Value>(raw) {
        Ok(Value::Object(_)) => None,
        Ok(_) => Some("its arguments are not a JSON object".to_owned()),
        Err(fault) => Some(format!("its arguments are not valid JSON: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::agent::{Builtin, PermissionPolicy};
    use serde_json::json;

    fn tools() -> Vec<ResolvedTool> {
        vec![ResolvedTool {
            spec: Builtin::Bash.spec(),
            runs_in: RunsIn::Room,
            effect: EffectClass::Room,
            policy: PermissionPolicy::AlwaysAsk,
            host: None,
        }]
    }

    fn call(name: &str, input: Value, raw: Option<&str>) -> Block {
        Block::ToolUse {
            provider_call_id: "call_1".to_owned(),
            name: name.to_owned(),
            input,
            raw_arguments: raw.map(str::to_owned),
            native: None,
        }
    }

    #[test]
    fn a_known_tool_gets_its_place_class_and_policy() {
        let body = event_of(&call("bash", json!({"command": "ls"}), None), &tools(), AnswerStop::ToolUse);
        let body = body.expect("an event");
        let (_, _, permission, intent) = body.intent().expect("a call");
        assert_eq!((permission, intent.runs_in, intent.effect), (Permission::Ask, RunsIn::Room, EffectClass::Room));
        assert_eq!(intent.malformed, None);
        assert_eq!(intent.arguments_digest, sha256_hex(br#"{"command":"ls"}"#));
    }

    #[test]
    fn bad_calls_are_told_apart() {
        let reason = |block: Block, stop| {
            let body = event_of(&block, &tools(), stop).expect("an event");
            body.intent().expect("a call").3.malformed.clone()
        };
        let cut = reason(call("bash", json!({}), Some("{\"comm")), AnswerStop::MaxTokens);
        assert!(cut.expect("malformed").contains("max_tokens"));
        let broken = reason(call("bash", json!({}), Some("{\"comm")), AnswerStop::ToolUse);
        assert!(broken.expect("malformed").contains("not valid JSON"));
        let list = reason(call("bash", json!([]), None), AnswerStop::ToolUse);
        assert!(list.expect("malformed").contains("not a JSON object"));
        let unknown = event_of(&call("nope", json!({}), None), &tools(), AnswerStop::ToolUse).expect("an event");
        assert_eq!(unknown.intent().expect("a call").3.runs_in, RunsIn::Nowhere);
    }
}
