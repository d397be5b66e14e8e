//! The Chat Completions stream: chunks to an answer.
//!
//! ```text
//!  chunk(delta)* ─► chunk(finish_reason) ─► chunk(usage)? ─► [DONE]?
//! ```
//!
//! The wire has no blocks: text, reasoning and calls are kept in order of their first piece.

use super::DIALECT;
use super::calls::Calls;
use super::reasoning::Reasoning;
use crate::draft::{Draft, Sink};
use crate::provider::{Answer, ErrorClass, ModelError};
use crate::sse::SseEvent;
use crate::transport::classify;
use crate::wire::{Decoder, Progress, count};
use loopd_domain::event::AnswerStop;
use loopd_domain::session::StopDetails;
use loopd_domain::usage::Usage;
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct ChatStream {
    draft: Draft,
    text: Option<usize>,
    reasoning: Reasoning,
    calls: Calls,
    refusal: String,
    finish: Option<String>,
    usage: Usage,
    model: Option<String>,
    /// Makes ids of calls unique within a conversation, for servers that give none: how many messages were sent.
    seed: usize,
    done: bool,
}

impl Decoder for ChatStream {
    fn event(&mut self, event: &SseEvent, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).map_err(|_| {
            let head: String = data.chars().take(80).collect();
            ModelError::new(ErrorClass::Garbage, format!("an event of the stream is not JSON: `{head}`"))
        })?;
        self.chunk(&chunk, sink)
    }

    fn whole(&mut self, document: Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        let is_answer = document["choices"].is_array();
        if !is_answer && document.get("error").is_none_or(Value::is_null) && document.get("message").is_none() {
            return Err(ModelError::new(ErrorClass::Garbage, "the answer is JSON, but not a chat completion"));
        }
        if !is_answer {
            return Err(classify::in_answer(&document));
        }
        self.chunk(&document, sink)?;
        self.done = true;
        Ok(())
    }

    fn progress(&self) -> Progress {
        match (self.done, &self.finish) {
            (true, _) => Progress::Done,
            (false, Some(_)) => Progress::Answered,
            (false, None) => Progress::Open,
        }
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(self) -> Result<Answer, ModelError> {
        let stop = self.stop();
        let stop_details = (stop == AnswerStop::Refusal).then(|| StopDetails::Refusal {
            category: self.finish.as_ref().filter(|reason| *reason == "content_filter").cloned(),
            explanation: Some(self.refusal.clone()).filter(|text| !text.is_empty()),
        });
        Ok(Answer {
            blocks: self.draft.finish(DIALECT, stop == AnswerStop::MaxTokens)?,
            stop,
            stop_details,
            usage: self.usage,
            request_id: None,
            model: self.model,
        })
    }
}

impl ChatStream {
    /// `messages`: how many the request had.
    pub fn new(messages: usize) -> Self {
        ChatStream {
            draft: Draft::default(),
            text: None,
            reasoning: Reasoning::default(),
            calls: Calls::default(),
            refusal: String::new(),
            finish: None,
            usage: Usage::default(),
            model: None,
            seed: messages,
            done: false,
        }
    }

    fn chunk(&mut self, chunk: &Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        if chunk.get("error").is_some_and(|error| !error.is_null()) || chunk["object"] == "error" {
            return Err(classify::in_answer(chunk));
        }
        if let Some(model) = chunk["model"].as_str().filter(|name| !name.is_empty()) {
            self.model = Some(model.to_owned());
        }
        for usage in [&chunk["usage"], &chunk["x_groq"]["usage"]] {
            self.read_usage(usage);
        }
        let Some(choice) = chunk["choices"].get(0) else { return Ok(()) };
        let delta = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        self.delta(delta, sink)?;
        if choice["finish_reason"] == "error" {
            return Err(classify::in_answer(choice));
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        self.reasoning.delta(delta, &mut self.draft, sink)?;
        match &delta["content"] {
            Value::String(piece) => self.draft.text(&mut self.text, piece, sink)?,
            Value::Array(parts) => {
                for part in parts {
                    self.draft.text(&mut self.text, crate::wire::text(part, "text"), sink)?;
                }
            }
            _ => {}
        }
        if let Some(piece) = delta["refusal"].as_str() {
            self.refusal.push_str(piece);
            self.draft.text(&mut self.text, piece, sink)?;
        }
        let seed = self.seed;
        let made_id = |at: usize| format!("call_{seed}_{at}");
        if let Value::Array(calls) = &delta["tool_calls"] {
            for piece in calls {
                self.calls.delta(piece, &mut self.draft, sink, made_id)?;
            }
        }
        if delta["function_call"].is_object() {
            let piece = json!({"index": 0, "function": delta["function_call"]});
            self.calls.delta(&piece, &mut self.draft, sink, made_id)?;
        }
        Ok(())
    }

    /// Servers disagree on the reason beside calls (`stop`, `tool_calls`, even none), so calls speak for themselves; but
    /// an answer that was cut or filtered is that first.
    fn stop(&self) -> AnswerStop {
        match self.finish.as_deref() {
            Some("length" | "max_tokens") => AnswerStop::MaxTokens,
            Some("content_filter") => AnswerStop::Refusal,
            _ if self.draft.has_tools() => AnswerStop::ToolUse,
            _ if !self.refusal.is_empty() => AnswerStop::Refusal,
            _ => AnswerStop::EndTurn,
        }
    }

    /// The wire counts cached tokens among the prompt's; ours are apart. DeepSeek names them its own way.
    fn read_usage(&mut self, usage: &Value) {
        let Some(prompt) = count(usage, "prompt_tokens") else { return };
        let details = &usage["prompt_tokens_details"];
        let cached = count(details, "cached_tokens").or_else(|| count(usage, "prompt_cache_hit_tokens"));
        let read = cached.unwrap_or_default().min(prompt);
        let written = count(details, "cache_write_tokens").unwrap_or_default().min(prompt - read);
        self.usage = Usage {
            input_tokens: prompt - read - written,
            output_tokens: count(usage, "completion_tokens").unwrap_or_default(),
            cache_read_input_tokens: read,
            cache_creation_input_tokens: written,
            cache_creation_1h_input_tokens: 0,
            reasoning_tokens: count(&usage["completion_tokens_details"], "reasoning_tokens").unwrap_or_default(),
        };
    }
}
