//! `input` of an invocation: a text, content blocks, and answers to calls that wait for the caller.
//!
//! Answers go first, then one message of all content blocks, whatever order they stand in.

use crate::fields::{Fields, items};
use crate::wire::content;
use crate::wire::input::{read_call_id, read_digest};
use loopd_domain::Invalid;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Verdict};
use loopd_domain::limits::BLOCKS_PER_MESSAGE_MAX;
use serde_json::Value;

const DENY_MESSAGE_CHARS_MAX: usize = 10_000;

pub fn read(at: &str, value: Value) -> Result<Vec<EventBody>, Invalid> {
    if let Value::String(_) = value {
        return Ok(vec![EventBody::UserMessage { content: content::read_some(at, value)? }]);
    }
    let mut answers = Vec::new();
    let mut blocks = Vec::new();
    for (i, item) in items(at, value, BLOCKS_PER_MESSAGE_MAX)?.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        match item.get("type").and_then(Value::as_str) {
            Some("tool_result" | "custom_tool_result") => answers.push(read_result(&at, item)?),
            Some("tool_confirmation") => answers.push(read_confirmation(&at, item)?),
            _ => blocks.push(read_block(&at, item)?),
        }
    }
    if !blocks.is_empty() {
        answers.push(EventBody::UserMessage { content: blocks });
    }
    match answers.is_empty() {
        false => Ok(answers),
        true => Err(Invalid::missing(at, "a text, or a list with at least one content block or tool answer")),
    }
}

fn read_block(at: &str, item: Value) -> Result<ContentBlock, Invalid> {
    match content::read(at, item)? {
        ContentBlock::Text { text } if text.is_empty() => {
            Err(Invalid::missing(format!("{at}.text"), "a text of at least one character"))
        }
        block => Ok(block),
    }
}

/// What a custom tool answered. The call is named by `custom_tool_use_id`, or by `tool_use_id`.
fn read_result(at: &str, item: Value) -> Result<EventBody, Invalid> {
    let names = ["type", "custom_tool_use_id", "tool_use_id", "content", "is_error", "arguments_digest"];
    let mut fields = Fields::open(at, item, &names)?;
    let own = fields.text("custom_tool_use_id", 1..=64)?;
    let custom_tool_use_id = match own {
        Some(text) => loopd_domain::EventId::parse(&fields.path("custom_tool_use_id"), &text)?,
        None => read_call_id(&mut fields, "tool_use_id")?,
    };
    let content = match fields.given("content") {
        None => Vec::new(),
        Some(value) => content::read_list(&fields.path("content"), value)?,
    };
    let is_error = fields.boolean("is_error")?.unwrap_or(false);
    let arguments_digest = read_digest(&mut fields)?;
    Ok(EventBody::UserCustomToolResult { custom_tool_use_id, content, is_error, arguments_digest })
}

fn read_confirmation(at: &str, item: Value) -> Result<EventBody, Invalid> {
    let mut fields = Fields::open(at, item, &["type", "tool_use_id", "result", "deny_message", "arguments_digest"])?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_a_message_and_answers_go_first() {
        assert_eq!(read("input", json!("hi")).expect("valid").len(), 1);
        let bodies = read(
            "input",
            json!([
                {"type": "text", "text": "and go on"},
                {"type": "tool_result", "tool_use_id": "sevt_1", "content": "42"},
                {"type": "tool_confirmation", "tool_use_id": "sevt_2", "result": "deny", "deny_message": "no"},
                {"type": "custom_tool_result", "custom_tool_use_id": "sevt_3", "is_error": true},
            ]),
        );
        let kinds: Vec<&str> = bodies.expect("valid").iter().map(|b| b.kind()).collect();
        let answers = ["user.custom_tool_result", "user.tool_confirmation", "user.custom_tool_result"];
        assert_eq!(kinds, [&answers[..], &["user.message"]].concat());
    }

    #[test]
    fn refusals_name_the_place() {
        let cases = [
            (json!(""), "input[0].text"),
            (json!([]), "input"),
            (json!(7), "input"),
            (json!([{"type": "tool_result", "content": "x"}]), "input[0].tool_use_id"),
            (json!([{"type": "tool_confirmation", "tool_use_id": "sevt_1"}]), "input[0].result"),
            (json!([{"type": "video"}]), "input[0].type"),
        ];
        for (value, field) in cases {
            assert_eq!(read("input", value.clone()).expect_err("refused").field, field, "{value}");
        }
    }
}
