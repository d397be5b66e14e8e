//! Client events: what a caller may put into a session.

use crate::fields::{Fields, describe, unavailable};
use crate::wire::content;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Verdict};
use loopd_domain::limits::EVENTS_PER_REQUEST_MAX;
use loopd_domain::{EventId, Invalid, SessionId, ThreadId};
use serde_json::Value;

const KINDS: &str =
    "`user.message`, `user.interrupt`, `user.tool_confirmation`, `user.custom_tool_result` or `system.message`";
const DENY_MESSAGE_CHARS_MAX: usize = 10_000;
const SYSTEM_BLOCKS_MAX: usize = 1_000;

/// `events` of `POST /v1/sessions/{id}/events`: at least one.
pub fn read_events(at: &str, value: Value, session: &SessionId) -> Result<Vec<EventBody>, Invalid> {
    let list = crate::fields::items(at, value, EVENTS_PER_REQUEST_MAX)?;
    if list.is_empty() {
        return Err(Invalid::missing(at, "at least one event"));
    }
    let read = |(i, value)| read_event(&format!("{at}[{i}]"), value, session);
    let events = list.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    check_system(at, events)
}

/// `initial_events` of a new session: messages only.
pub fn read_initial(at: &str, value: Value) -> Result<Vec<EventBody>, Invalid> {
    let list = crate::fields::items(at, value, EVENTS_PER_REQUEST_MAX)?;
    let read = |(i, value): (usize, Value)| {
        let at = format!("{at}[{i}]");
        match value.get("type").and_then(Value::as_str) {
            Some("user.message") => read_message(&at, value),
            Some("user.define_outcome") => Err(unavailable(&format!("{at}.type"), &Value::from("user.define_outcome"))),
            other => Err(Invalid::new(format!("{at}.type"), other.unwrap_or(""), "`user.message`")),
        }
    };
    list.into_iter().enumerate().map(read).collect()
}

fn read_event(at: &str, value: Value, session: &SessionId) -> Result<EventBody, Invalid> {
    let kind = value.get("type").cloned().unwrap_or(Value::Null);
    match kind.as_str() {
        Some("user.message") => read_message(at, value),
        Some("user.interrupt") => read_interrupt(at, value, session),
        Some("user.tool_confirmation") => read_confirmation(at, value),
        Some("user.custom_tool_result") => read_custom_result(at, value),
        Some("system.message") => read_system(at, value),
        Some("user.tool_result") => {
            let accepted = "`user.custom_tool_result`; `user.tool_result` is for self-hosted environments, which are not available in this version of loopd";
            Err(Invalid::new(format!("{at}.type"), "user.tool_result", accepted))
        }
        Some("user.define_outcome") => Err(unavailable(&format!("{at}.type"), &kind)),
        Some(other) => Err(Invalid::new(format!("{at}.type"), other, KINDS)),
        None if value.is_object() => Err(Invalid::missing(format!("{at}.type"), KINDS)),
        None => Err(Invalid::new(at, describe(&value), "an event object")),
    }
}

fn read_message(at: &str, value: Value) -> Result<EventBody, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "content"])?;
    let value = fields.need("content", "a list of content blocks")?;
    Ok(EventBody::UserMessage { content: content::read_some(&fields.path("content"), value)? })
}

fn read_interrupt(at: &str, value: Value, session: &SessionId) -> Result<EventBody, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "session_thread_id"])?;
    let at = fields.path("session_thread_id");
    let session_thread_id = match fields.text("session_thread_id", 1..=64)? {
        None => None,
        Some(text) => {
            let primary = ThreadId::primary(session);
            let thread = ThreadId::parse(&at, &text)?;
            match thread == primary {
                true => Some(thread),
                false => return Err(Invalid::new(at, text, format!("`{primary}`, the session's only thread"))),
            }
        }
    };
    Ok(EventBody::UserInterrupt { session_thread_id })
}

/// Old clients also send `session_thread_id` and `message`; calls are found by their ids, so both are ignored.
fn read_confirmation(at: &str, value: Value) -> Result<EventBody, Invalid> {
    let names = ["type", "tool_use_id", "result", "deny_message", "session_thread_id", "message", "arguments_digest"];
    let mut fields = Fields::open(at, value, &names)?;
    let tool_use_id = read_call_id(&mut fields, "tool_use_id")?;
    let result = match fields.word("result", &["allow", "deny"])? {
        Some("allow") => Verdict::Allow,
        Some(_) => Verdict::Deny,
        None => return Err(Invalid::missing(fields.path("result"), "`allow` or `deny`")),
    };
    let deny_message = fields.text("deny_message", 0..=DENY_MESSAGE_CHARS_MAX)?;
    if result == Verdict::Allow && deny_message.is_some() {
        return Err(Invalid::new(fields.path("deny_message"), "a text", "nothing beside `allow`"));
    }
    let arguments_digest = read_digest(&mut fields)?;
    Ok(EventBody::UserToolConfirmation { tool_use_id, result, deny_message, arguments_digest })
}

fn read_custom_result(at: &str, value: Value) -> Result<EventBody, Invalid> {
    let names = ["type", "custom_tool_use_id", "content", "is_error", "session_thread_id", "arguments_digest"];
    let mut fields = Fields::open(at, value, &names)?;
    let custom_tool_use_id = read_call_id(&mut fields, "custom_tool_use_id")?;
    let content = match fields.given("content") {
        None => Vec::new(),
        Some(value) => content::read_list(&fields.path("content"), value)?,
    };
    Ok(EventBody::UserCustomToolResult {
        custom_tool_use_id,
        content,
        is_error: fields.boolean("is_error")?.unwrap_or(false),
        arguments_digest: read_digest(&mut fields)?,
    })
}

fn read_system(at: &str, value: Value) -> Result<EventBody, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "content"])?;
    let value = fields.need("content", "a list of text blocks")?;
    let at = fields.path("content");
    let blocks = content::read_some(&at, value)?;
    let foreign = blocks.iter().position(|b| !matches!(b, ContentBlock::Text { .. }));
    match foreign {
        Some(i) => Err(Invalid::new(format!("{at}[{i}].type"), "not text", "`text`")),
        None if blocks.len() > SYSTEM_BLOCKS_MAX => Err(Invalid::new(at, blocks.len(), "up to 1000 blocks")),
        None => Ok(EventBody::SystemMessage { content: blocks }),
    }
}

/// At most one system message, as the last event, after a message or a tool result of the same request.
fn check_system(at: &str, events: Vec<EventBody>) -> Result<Vec<EventBody>, Invalid> {
    let first = events.iter().position(|e| matches!(e, EventBody::SystemMessage { .. }));
    let Some(i) = first else { return Ok(events) };
    let follows = i.checked_sub(1).is_some_and(|before| {
        matches!(events[before], EventBody::UserMessage { .. } | EventBody::UserCustomToolResult { .. })
    });
    match follows && i + 1 == events.len() {
        true => Ok(events),
        false => {
            let accepted = "one system message, the last event, after a message or a tool result of the same request";
            Err(Invalid::new(format!("{at}[{i}]"), "system.message", accepted))
        }
    }
}

/// Of the arguments that are answered, as the call showed it.
pub fn read_digest(fields: &mut Fields) -> Result<Option<String>, Invalid> {
    fields.text("arguments_digest", 64..=64)
}

pub fn read_call_id(fields: &mut Fields, name: &str) -> Result<EventId, Invalid> {
    let text = fields.need_text(name, 1..=64)?;
    EventId::parse(&fields.path(name), &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(events: Value) -> Result<Vec<EventBody>, Invalid> {
        read_events("events", events, &SessionId::parse("id", "sesn_1").expect("an id"))
    }

    fn message() -> Value {
        json!({"type": "user.message", "content": [{"type": "text", "text": "hi"}]})
    }

    #[test]
    fn every_client_event_is_read() {
        let events = read(json!([
            message(),
            {"type": "user.interrupt", "session_thread_id": "sthr_1"},
            {"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": "deny", "deny_message": "no", "session_thread_id": "x"},
            {"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_2", "content": "done", "is_error": true},
            {"type": "system.message", "content": [{"type": "text", "text": "note"}]},
        ]));
        let kinds: Vec<&str> = events.expect("valid").iter().map(|e| e.kind()).collect();
        assert_eq!(
            kinds,
            ["user.message", "user.interrupt", "user.tool_confirmation", "user.custom_tool_result", "system.message"]
        );
    }

    #[test]
    fn refusals_name_the_place() {
        let cases = [
            (json!([]), "events"),
            (json!(vec![message(); EVENTS_PER_REQUEST_MAX + 1]), "events"),
            (json!([{"type": "user.mesage"}]), "events[0].type"),
            (json!([{"type": "agent.message", "content": []}]), "events[0].type"),
            (json!([message(), {"type": "user.message"}]), "events[1].content"),
            (json!([{"type": "user.tool_result", "tool_use_id": "sevt_1"}]), "events[0].type"),
            (
                json!([{"type": "user.tool_confirmation", "tool_use_id": "toolu_1", "result": "allow"}]),
                "events[0].tool_use_id",
            ),
            (json!([{"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": "yes"}]), "events[0].result"),
            (
                json!([{"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": "allow", "deny_message": "x"}]),
                "events[0].deny_message",
            ),
            (json!([{"type": "user.interrupt", "session_thread_id": "sthr_2"}]), "events[0].session_thread_id"),
            (json!([{"type": "system.message", "content": "x"}]), "events[0]"),
            (json!([message(), {"type": "system.message", "content": "x"}, message()]), "events[1]"),
            (json!([1]), "events[0]"),
        ];
        for (value, field) in cases {
            assert_eq!(read(value.clone()).expect_err("refused").field, field, "{value}");
        }
    }

    #[test]
    fn a_session_starts_with_messages_only() {
        assert_eq!(read_initial("initial_events", json!([message()])).expect("valid").len(), 1);
        assert!(read_initial("initial_events", json!([])).expect("valid").is_empty());
        let fault = read_initial("initial_events", json!([{"type": "user.interrupt"}])).expect_err("refused");
        assert_eq!(fault.field, "initial_events[0].type");
    }
}
