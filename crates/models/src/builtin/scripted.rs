//! `builtin/script`: plays the script that stands in the system prompt.
//!
//! It knows the attempts of a step that are to fail: a small bounded table, keyed by the request's `cache_key` and step.
//! What falls out of it (more than [`ATTEMPTS_KEPT`] failing steps at once) fails again from its first attempt.

use super::script::{Fault, NotAScript, Script, Step};
use super::{Model, result_text, tell, usage};
use crate::draft::{Sink, read_arguments};
use crate::provider::{Answer, Delta, ErrorClass, ModelError, ModelRequest};
use async_trait::async_trait;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Role};
use loopd_domain::event::{AnswerStop, NativeBlock};
use loopd_domain::session::StopDetails;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;

const ATTEMPTS_KEPT: usize = 1_024;

#[derive(Default)]
pub(crate) struct Scripted {
    attempts: Attempts,
}

#[async_trait]
impl Model for Scripted {
    async fn answer(&self, request: &ModelRequest, sink: &mut Sink<'_>) -> Result<Answer, ModelError> {
        let bad_request = |fault: NotAScript| ModelError::new(ErrorClass::BadRequest, fault.to_string());
        let script = Script::parse(request.system.as_deref().unwrap_or_default()).map_err(bad_request)?;
        let answers = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
        let step = script.step(answers);
        wait(step.delay_ms).await;
        if let Some(fault) =
            step.fault.as_ref().filter(|fault| self.attempts.fails(&request.cache_key, answers, fault.times))
        {
            return Err(fail(fault, sink));
        }
        let blocks = blocks(&step, request, answers);
        for (index, block) in blocks.iter().enumerate() {
            tell_slowly(index, block, step.chunk_delay_ms, sink).await;
        }
        let stop = step.stop();
        let refusal = || StopDetails::Refusal { category: None, explanation: step.text(&last_result(request)) };
        Ok(Answer {
            usage: step.usage(usage(request, &blocks)),
            blocks,
            stop,
            stop_details: (stop == AnswerStop::Refusal).then(refusal),
            request_id: None,
            model: Some("builtin/script".to_owned()),
        })
    }
}

fn blocks(step: &Step, request: &ModelRequest, answers: usize) -> Vec<Block> {
    let mut blocks = Vec::with_capacity(2 + step.tools.len());
    if let Some(thinking) = &step.thinking {
        let block = json!({"type": "thinking", "thinking": thinking});
        blocks.push(Block::Thinking(NativeBlock { dialect: "builtin".to_owned(), block }));
    }
    if let Some(text) = step.text(&last_result(request)) {
        blocks.push(Block::Content(ContentBlock::Text { text }));
    }
    for (at, call) in step.tools.iter().enumerate() {
        let (input, raw_arguments) = read_arguments(call.arguments(), step.stop() == AnswerStop::MaxTokens);
        let provider_call_id = format!("call_{answers}_{at}");
        blocks.push(Block::ToolUse { provider_call_id, name: call.name.clone(), input, raw_arguments, native: None });
    }
    blocks
}

/// What the last tool result since the last answer says.
fn last_result(request: &ModelRequest) -> String {
    let recent = request.messages.iter().rev().take_while(|message| message.role == Role::User);
    let blocks = recent.flat_map(|message| message.blocks.iter().rev());
    let result = blocks.into_iter().find_map(|block| match block {
        Block::ToolResult { content, .. } => Some(result_text(content)),
        _ => None,
    });
    result.unwrap_or_default()
}

async fn tell_slowly(index: usize, block: &Block, chunk_delay_ms: u64, sink: &mut Sink<'_>) {
    let Block::Content(ContentBlock::Text { text }) = block else {
        return tell(index, block, std::iter::empty(), sink);
    };
    if chunk_delay_ms == 0 {
        return tell(index, block, std::iter::once(text.clone()), sink);
    }
    sink(Delta::TextStart { index });
    for word in text.split_inclusive(' ') {
        wait(chunk_delay_ms).await;
        sink(Delta::Text { index, text: word.to_owned() });
    }
}

fn fail(fault: &Fault, sink: &mut Sink<'_>) -> ModelError {
    if let Some(text) = &fault.after_text {
        sink(Delta::TextStart { index: 0 });
        sink(Delta::Text { index: 0, text: text.clone() });
    }
    ModelError {
        status: fault.status,
        retry_after_ms: fault.retry_after_ms,
        ..ModelError::new(fault.class, fault.message())
    }
}

async fn wait(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Failed attempts so far, oldest first.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<VecDeque<Failed>>);

struct Failed {
    key: String,
    step: usize,
    count: u32,
}

impl Attempts {
    /// Does this attempt fail? Counts it if so.
    pub fn fails(&self, key: &str, step: usize, times: Option<u32>) -> bool {
        let Some(times) = times else { return true };
        let mut table = self.0.lock();
        match table.iter_mut().find(|failed| failed.step == step && failed.key == key) {
            Some(failed) if failed.count >= times => false,
            Some(failed) => {
                failed.count += 1;
                true
            }
            None if times == 0 => false,
            None => {
                if table.len() >= ATTEMPTS_KEPT {
                    table.pop_front();
                }
                table.push_back(Failed { key: key.to_owned(), step, count: 1 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_fail_as_often_as_told_per_key_and_step() {
        let attempts = Attempts::default();
        let fails: Vec<bool> = (0..4).map(|_| attempts.fails("a", 0, Some(2))).collect();
        assert_eq!(fails, [true, true, false, false]);
        assert!(attempts.fails("b", 0, Some(1)) && attempts.fails("a", 1, Some(1)));
        assert!((0..9).all(|_| attempts.fails("c", 0, None)));
        (0..2 * ATTEMPTS_KEPT).for_each(|n| assert!(attempts.fails(&n.to_string(), 0, Some(1))));
        assert_eq!(attempts.0.lock().len(), ATTEMPTS_KEPT);
    }
}
