//! The Messages stream: events to an answer.
//!
//! ```text
//!  message_start ─► (content_block_start ─► delta* ─► content_block_stop)* ─► message_delta* ─► message_stop
//! ```
//!
//! `ping` and event types that we do not know may stand anywhere; `error` ends it. Blocks that are not text or a tool call
//! are kept as the provider wrote them, whatever their type, and sent back so. Citations on text are not kept.

use super::DIALECT;
use super::blocks::{merge_delta, tool};
use crate::draft::{Draft, Sink, weight};
use crate::provider::{Answer, ErrorClass, ModelError};
use crate::sse::SseEvent;
use crate::transport::classify;
use crate::wire::{Decoder, Progress, count, text};
use loopd_domain::event::AnswerStop;
use loopd_domain::session::StopDetails;
use loopd_domain::usage::Usage;
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct MessageStream {
    draft: Draft,
    open: Option<OpenBlock>,
    usage: Usage,
    model: Option<String>,
    stop: Option<AnswerStop>,
    stop_details: Option<StopDetails>,
    done: bool,
}

/// The block that deltas belong to; the wire has one at a time.
#[derive(Debug)]
struct OpenBlock {
    index: u64,
    kind: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    /// Has a slot once it has text.
    Text(Option<usize>),
    Tool(usize),
    /// `input` collects the JSON pieces of a server-side tool call.
    Native {
        slot: usize,
        input: String,
    },
}

impl Decoder for MessageStream {
    fn event(&mut self, event: &SseEvent, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        let payload: Value = serde_json::from_str(&event.data).map_err(|_| not_json(&event.data))?;
        self.payload(payload, sink)
    }

    fn whole(&mut self, mut document: Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        if text(&document, "type") == "error" || document.get("error").is_some() {
            return Err(classify::in_answer(&document));
        }
        let Some(Value::Array(blocks)) = document.get_mut("content").map(Value::take) else {
            return Err(ModelError::new(ErrorClass::Garbage, "the answer is JSON, but not a message"));
        };
        let (stop_reason, details) = (document["stop_reason"].clone(), document["stop_details"].clone());
        self.payload(json!({"type": "message_start", "message": document}), sink)?;
        for (index, block) in blocks.into_iter().enumerate() {
            self.payload(json!({"type": "content_block_start", "index": index, "content_block": block}), sink)?;
            self.payload(json!({"type": "content_block_stop", "index": index}), sink)?;
        }
        self.payload(
            json!({"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_details": details}}),
            sink,
        )?;
        self.payload(json!({"type": "message_stop"}), sink)
    }

    fn progress(&self) -> Progress {
        match (self.done, self.stop, &self.open) {
            (true, Some(_), _) => Progress::Done,
            (false, Some(_), None) => Progress::Answered,
            _ => Progress::Open,
        }
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(self) -> Result<Answer, ModelError> {
        let stop =
            self.stop.ok_or_else(|| ModelError::new(ErrorClass::Connection, "the stream ended before its end"))?;
        Ok(Answer {
            blocks: self.draft.finish(DIALECT, stop == AnswerStop::MaxTokens)?,
            stop,
            stop_details: self.stop_details,
            usage: self.usage,
            request_id: None,
            model: self.model,
        })
    }
}

impl MessageStream {
    fn payload(&mut self, mut payload: Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        let kind = text(&payload, "type").to_owned();
        match kind.as_str() {
            "message_start" => self.message_start(&payload["message"]),
            "content_block_start" => {
                let index = count(&payload, "index").unwrap_or_default();
                let block = payload.get_mut("content_block").map(Value::take).unwrap_or_default();
                return self.block_start(index, block, sink);
            }
            "content_block_delta" => return self.block_delta(payload, sink),
            "content_block_stop" => return self.block_stop(),
            "message_delta" => self.message_delta(&payload),
            "message_stop" if self.stop.is_none() => return Err(out_of_order("message_stop without a stop reason")),
            "message_stop" => self.done = true,
            "error" => return Err(classify::in_answer(&payload)),
            _ => {} // `ping`, and what later versions add
        }
        Ok(())
    }

    fn message_start(&mut self, message: &Value) {
        self.model = message.get("model").and_then(Value::as_str).map(str::to_owned);
        self.merge_usage(&message["usage"]);
    }

    fn block_start(&mut self, index: u64, mut block: Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        if self.open.is_some() {
            return Err(out_of_order("a block starts before the last one stopped"));
        }
        let kind = match text(&block, "type") {
            "text" => {
                let mut slot = None;
                self.draft.text(&mut slot, text(&block, "text"), sink)?;
                OpenKind::Text(slot)
            }
            "tool_use" => OpenKind::Tool(self.draft.tool(tool(&mut block), sink)?),
            "" => return Err(out_of_order("a content block without a type")),
            _ => OpenKind::Native { slot: self.draft.native(DIALECT, block, sink)?, input: String::new() },
        };
        self.open = Some(OpenBlock { index, kind });
        Ok(())
    }

    fn block_delta(&mut self, mut payload: Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        let delta = payload.get_mut("delta").map(Value::take).unwrap_or_default();
        let index = count(&payload, "index").unwrap_or_default();
        let Some(open) = self.open.as_mut().filter(|open| open.index == index) else {
            return Err(out_of_order("a delta of a block that is not open"));
        };
        let kind = text(&delta, "type");
        match &mut open.kind {
            OpenKind::Text(slot) if kind == "text_delta" => self.draft.text(slot, text(&delta, "text"), sink),
            OpenKind::Text(_) => Ok(()), // citations
            OpenKind::Tool(slot) => {
                let piece = text(&delta, "partial_json");
                self.draft.grow(piece.len())?;
                if let Some(tool) = self.draft.tool_mut(*slot) {
                    tool.arguments.push_str(piece);
                }
                Ok(())
            }
            OpenKind::Native { input, .. } if kind == "input_json_delta" => {
                input.push_str(text(&delta, "partial_json"));
                self.draft.grow(text(&delta, "partial_json").len())
            }
            OpenKind::Native { slot, .. } => {
                self.draft.grow(weight(&delta))?;
                if let Some(block) = self.draft.native_mut(*slot) {
                    merge_delta(block, delta);
                }
                Ok(())
            }
        }
    }

    fn block_stop(&mut self) -> Result<(), ModelError> {
        let Some(open) = self.open.take() else { return Err(out_of_order("a block stops that is not open")) };
        if let OpenKind::Native { slot, input } = open.kind
            && !input.is_empty()
            && let Some(Value::Object(block)) = self.draft.native_mut(slot)
        {
            let input = serde_json::from_str(&input).unwrap_or(Value::String(input));
            block.insert("input".to_owned(), input);
        }
        Ok(())
    }

    fn message_delta(&mut self, payload: &Value) {
        self.merge_usage(&payload["usage"]);
        let delta = &payload["delta"];
        let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) else { return };
        self.stop = Some(self.read_stop(reason));
        let details = &delta["stop_details"];
        if self.stop == Some(AnswerStop::Refusal) {
            let field = |name: &str| details.get(name).and_then(Value::as_str).map(str::to_owned);
            self.stop_details =
                Some(StopDetails::Refusal { category: field("category"), explanation: field("explanation") });
        }
    }

    fn read_stop(&self, reason: &str) -> AnswerStop {
        match reason {
            "tool_use" => AnswerStop::ToolUse,
            // The context window's end cuts an answer just as `max_tokens` does.
            "max_tokens" | "model_context_window_exceeded" => AnswerStop::MaxTokens,
            "refusal" => AnswerStop::Refusal,
            "pause_turn" => AnswerStop::Pause,
            "end_turn" | "stop_sequence" => AnswerStop::EndTurn,
            _ if self.draft.has_tools() => AnswerStop::ToolUse,
            _ => AnswerStop::EndTurn,
        }
    }

    /// Counts are cumulative: what an event names replaces what was known.
    fn merge_usage(&mut self, usage: &Value) {
        let known = &mut self.usage;
        let details = [
            (&mut known.input_tokens, count(usage, "input_tokens")),
            (&mut known.output_tokens, count(usage, "output_tokens")),
            (&mut known.cache_read_input_tokens, count(usage, "cache_read_input_tokens")),
            (&mut known.cache_creation_input_tokens, count(usage, "cache_creation_input_tokens")),
            (&mut known.cache_creation_1h_input_tokens, count(&usage["cache_creation"], "ephemeral_1h_input_tokens")),
            (&mut known.reasoning_tokens, count(&usage["output_tokens_details"], "thinking_tokens")),
        ];
        for (field, reported) in details {
            *field = reported.unwrap_or(*field);
        }
    }
}

fn not_json(data: &str) -> ModelError {
    let head: String = data.chars().take(80).collect();
    ModelError::new(ErrorClass::Garbage, format!("an event of the stream is not JSON: `{head}`"))
}

fn out_of_order(what: &str) -> ModelError {
    ModelError::new(ErrorClass::Garbage, format!("the stream is not of the wire format: {what}"))
}
