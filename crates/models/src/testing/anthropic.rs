//! A step as Anthropic's server would send it.

use super::history::History;
use crate::builtin::script::Step;
use loopd_domain::event::AnswerStop;
use loopd_domain::usage::Usage;
use serde_json::{Value, json};

/// The events of a stream, each with its blank line.
pub(super) fn stream(step: &Step, history: &History, usage: Usage) -> Vec<Vec<u8>> {
    let mut out = start(history, usage);
    for (index, block) in blocks(step, history).into_iter().enumerate() {
        let (empty, deltas) = pieces(block);
        out.push(event("content_block_start", json!({"index": index, "content_block": empty})));
        out.extend(
            deltas.into_iter().map(|delta| event("content_block_delta", json!({"index": index, "delta": delta}))),
        );
        out.push(event("content_block_stop", json!({"index": index})));
    }
    let delta = json!({"stop_reason": stop_reason(step), "stop_sequence": null});
    out.push(event("message_delta", json!({"delta": delta, "usage": {"output_tokens": usage.output_tokens}})));
    out.push(event("message_stop", json!({})));
    out
}

/// A stream that begins to say something and no more.
pub(super) fn begun(text: &str, history: &History, usage: Usage) -> Vec<Vec<u8>> {
    let mut out = start(history, usage);
    out.push(event("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})));
    out.push(event("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": text}})));
    out
}

pub(super) fn document(step: &Step, history: &History, usage: Usage) -> Value {
    json!({
        "id": "msg_fake", "type": "message", "role": "assistant", "model": history.model,
        "content": blocks(step, history), "stop_reason": stop_reason(step), "stop_sequence": null, "usage": wire_usage(usage),
    })
}

/// One event.
pub(super) fn event(name: &str, mut data: Value) -> Vec<u8> {
    data["type"] = json!(name);
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

fn start(history: &History, usage: Usage) -> Vec<Vec<u8>> {
    let message = json!({
        "id": "msg_fake", "type": "message", "role": "assistant", "model": history.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": wire_usage(Usage { output_tokens: 1, ..usage }),
    });
    vec![event("message_start", json!({"message": message})), event("ping", json!({}))]
}

fn blocks(step: &Step, history: &History) -> Vec<Value> {
    let thinking =
        step.thinking.as_ref().map(|text| json!({"type": "thinking", "thinking": text, "signature": signature(text)}));
    let text = step.text(&history.last_result).map(|text| json!({"type": "text", "text": text}));
    let tools = step.tools.iter().enumerate().map(|(at, call)| {
        let id = format!("toolu_{}_{at}", history.answers);
        // Arguments that are no JSON can only stand in a stream, where they are text.
        let input = serde_json::from_str(&call.arguments()).unwrap_or_else(|_| json!(call.arguments()));
        json!({"type": "tool_use", "id": id, "name": call.name, "input": input})
    });
    thinking.into_iter().chain(text).chain(tools).collect()
}

/// A block as it starts, and what makes it whole.
fn pieces(mut block: Value) -> (Value, Vec<Value>) {
    match block["type"].as_str() {
        Some("tool_use") => {
            let arguments = match block["input"].take() {
                Value::String(raw) => raw,
                input => input.to_string(),
            };
            block["input"] = json!({});
            let deltas =
                split(&arguments).map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).collect();
            (block, deltas)
        }
        Some("thinking") => {
            let (text, signature) = (block["thinking"].take(), block["signature"].take());
            let start = json!({"type": "thinking", "thinking": "", "signature": ""});
            let text = text.as_str().unwrap_or_default();
            let mut deltas: Vec<Value> =
                split(text).map(|piece| json!({"type": "thinking_delta", "thinking": piece})).collect();
            deltas.push(json!({"type": "signature_delta", "signature": signature}));
            (start, deltas)
        }
        _ => {
            let text = block["text"].as_str().unwrap_or_default().to_owned();
            let deltas = split(&text).map(|piece| json!({"type": "text_delta", "text": piece})).collect();
            (json!({"type": "text", "text": ""}), deltas)
        }
    }
}

/// Pieces of some fifty bytes, at characters.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, more) = rest.split_at(rest.ceil_char_boundary(48.min(rest.len())));
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

fn signature(text: &str) -> String {
    format!("sig_{:x}==", text.len())
}

fn stop_reason(step: &Step) -> &'static str {
    match step.stop() {
        AnswerStop::EndTurn => "end_turn",
        AnswerStop::ToolUse => "tool_use",
        AnswerStop::MaxTokens => "max_tokens",
        AnswerStop::Refusal => "refusal",
        AnswerStop::Pause => "pause_turn",
    }
}

fn wire_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    })
}
