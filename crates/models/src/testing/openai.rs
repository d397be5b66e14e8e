//! A step as a Chat Completions server would send it.

use super::anthropic::split;
use super::history::History;
use crate::builtin::script::Step;
use loopd_domain::event::AnswerStop;
use loopd_domain::usage::Usage;
use serde_json::{Value, json};

/// The events of a stream, each with its blank line.
pub(super) fn stream(step: &Step, history: &History, usage: Usage) -> Vec<Vec<u8>> {
    let mut out = vec![delta(history, json!({"role": "assistant", "content": ""}))];
    if let Some(thinking) = &step.thinking {
        out.extend(split(thinking).map(|piece| delta(history, json!({"reasoning_content": piece}))));
    }
    if let Some(text) = step.text(&history.last_result) {
        out.extend(split(&text).map(|piece| delta(history, json!({"content": piece}))));
    }
    for (index, call) in calls(step, history).into_iter().enumerate() {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default().to_owned();
        let start = json!({"index": index, "id": call["id"], "type": "function", "function": {"name": call["function"]["name"], "arguments": ""}});
        out.push(delta(history, json!({"tool_calls": [start]})));
        let pieces =
            split(&arguments).map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}));
        out.extend(pieces.map(|piece| delta(history, piece)));
    }
    out.push(chunk(history, json!([{"index": 0, "delta": {}, "finish_reason": finish_reason(step)}]), Value::Null));
    out.push(chunk(history, json!([]), wire_usage(usage)));
    out.push(b"data: [DONE]\n\n".to_vec());
    out
}

/// A stream that begins to say something and no more.
pub(super) fn begun(text: &str, history: &History) -> Vec<Vec<u8>> {
    vec![delta(history, json!({"role": "assistant", "content": ""})), delta(history, json!({"content": text}))]
}

pub(super) fn document(step: &Step, history: &History, usage: Usage) -> Value {
    let mut message = json!({"role": "assistant", "content": step.text(&history.last_result)});
    if let Some(thinking) = &step.thinking {
        message["reasoning_content"] = json!(thinking);
    }
    if !step.tools.is_empty() {
        message["tool_calls"] = json!(calls(step, history));
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": finish_reason(step)});
    json!({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 0, "model": history.model,
        "choices": [choice], "usage": wire_usage(usage),
    })
}

/// One event.
pub(super) fn event(data: &Value) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

fn delta(history: &History, delta: Value) -> Vec<u8> {
    chunk(history, json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null)
}

fn chunk(history: &History, choices: Value, usage: Value) -> Vec<u8> {
    event(&json!({
        "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0, "model": history.model,
        "choices": choices, "usage": usage,
    }))
}

fn calls(step: &Step, history: &History) -> Vec<Value> {
    let calls = step.tools.iter().enumerate().map(|(at, call)| {
        let id = format!("call_{}_{at}", history.answers);
        json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments()}})
    });
    calls.collect()
}

fn finish_reason(step: &Step) -> &'static str {
    match step.stop() {
        AnswerStop::EndTurn | AnswerStop::Pause => "stop",
        AnswerStop::ToolUse => "tool_calls",
        AnswerStop::MaxTokens => "length",
        AnswerStop::Refusal => "content_filter",
    }
}

fn wire_usage(usage: Usage) -> Value {
    let prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;
    json!({
        "prompt_tokens": prompt, "completion_tokens": usage.output_tokens, "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens, "cache_write_tokens": usage.cache_creation_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}
