//! The conversation that the model sees: a fold of the journal into provider-neutral messages.
//!
//! Results stand in call order whatever order they arrived in, and before the inputs that were taken up with them.
//!
//! An answer that was cut off is not sent back to be continued: when the same question is asked again it is left out, and
//! when the user says something after it, what had arrived stands before that as what the model said.

use crate::content::ContentBlock;
use crate::event::{Event, EventBody, NativeBlock, RequestOutcome};
use crate::{CallId, EventId};
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Text, image or document, from either side.
    Content(ContentBlock),
    /// From the caller in the middle of a conversation.
    System(String),
    Thinking(NativeBlock),
    ToolUse {
        provider_call_id: String,
        name: String,
        input: Value,
        /// What the model wrote, when it was not an object.
        raw_arguments: Option<String>,
        native: Option<NativeBlock>,
    },
    ToolResult {
        provider_call_id: String,
        content: Vec<ContentBlock>,
        is_error: bool,
    },
}

/// Grows with the journal. Cloning is cheap: messages are shared.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    messages: Vec<Arc<Message>>,
    /// The answer that is being written.
    answer: Vec<Block>,
    /// What had arrived of the last answer when it was cut off.
    cut_off: Vec<Block>,
    /// Calls of the last answer, and their results as they come.
    calls: Vec<PendingCall>,
    /// Inputs since the last answer.
    inputs: Vec<Block>,
}

#[derive(Debug, Clone)]
struct PendingCall {
    id: CallId,
    provider_call_id: String,
    result: Option<(Vec<ContentBlock>, bool)>,
}

impl Conversation {
    pub fn apply(&mut self, event: &Event) {
        match &event.body {
            EventBody::UserMessage { content } => {
                self.inputs.extend(content.iter().cloned().map(Block::Content));
            }
            EventBody::SystemMessage { content } => {
                let text = content.iter().filter_map(|c| match c {
                    ContentBlock::Text { text } => Some(Block::System(text.clone())),
                    _ => None,
                });
                self.inputs.extend(text);
            }
            EventBody::OutputRejected { message } => {
                self.inputs.push(Block::Content(ContentBlock::text(message.clone())));
            }
            EventBody::RoomRestarted { message } => self.inputs.push(Block::System(message.clone())),
            EventBody::ModelRequestStart { .. } => self.flush_inputs(),
            EventBody::AgentMessage { content, .. } => {
                self.answer.extend(content.iter().cloned().map(Block::Content));
            }
            EventBody::AgentThinking { native } => self.answer.push(Block::Thinking(native.clone())),
            EventBody::AgentToolUse { .. }
            | EventBody::AgentMcpToolUse { .. }
            | EventBody::AgentCustomToolUse { .. } => self.call(event),
            EventBody::ModelRequestEnd { outcome: RequestOutcome::Answered { .. }, .. } => self.flush_answer(),
            EventBody::ModelRequestEnd { .. } => self.cut_answer(),
            EventBody::AgentToolResult { tool_use_id, content, is_error, .. }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error, .. } => {
                self.result(tool_use_id, content, *is_error);
            }
            EventBody::UserCustomToolResult { custom_tool_use_id, content, is_error, .. } => {
                self.result(custom_tool_use_id, content, *is_error);
            }
            _ => {}
        }
    }

    /// All that the model is sent: finished messages, then what came since the last answer.
    pub fn messages(&self) -> Vec<Arc<Message>> {
        self.clone().into_messages()
    }

    /// As [`Conversation::messages`], for who needs nothing else of it.
    pub fn into_messages(mut self) -> Vec<Arc<Message>> {
        self.flush_inputs();
        self.messages
    }

    fn call(&mut self, event: &Event) {
        let Some((name, input, _, intent)) = event.body.intent() else { return };
        self.answer.push(Block::ToolUse {
            provider_call_id: intent.provider_call_id.clone(),
            name: name.to_owned(),
            input: input.clone(),
            raw_arguments: intent.raw_arguments.clone(),
            native: intent.native.clone(),
        });
        self.calls.push(PendingCall {
            id: event.id.clone(),
            provider_call_id: intent.provider_call_id.clone(),
            result: None,
        });
    }

    fn result(&mut self, id: &EventId, content: &[ContentBlock], is_error: bool) {
        if let Some(call) = self.calls.iter_mut().find(|c| &c.id == id) {
            call.result = Some((content.to_vec(), is_error));
        }
    }

    fn flush_answer(&mut self) {
        if !self.answer.is_empty() {
            let blocks = std::mem::take(&mut self.answer);
            self.messages.push(Arc::new(Message { role: Role::Assistant, blocks }));
        }
    }

    /// Only what was said is kept: half a thought is nothing that a provider takes back.
    fn cut_answer(&mut self) {
        self.cut_off = std::mem::take(&mut self.answer);
        self.cut_off.retain(|b| matches!(b, Block::Content(_)));
    }

    fn flush_inputs(&mut self) {
        let cut_off = std::mem::take(&mut self.cut_off);
        if !cut_off.is_empty() && !self.inputs.is_empty() {
            self.messages.push(Arc::new(Message { role: Role::Assistant, blocks: cut_off }));
        }
        let mut blocks = Vec::new();
        for call in self.calls.drain(..) {
            let (content, is_error) = call.result.unwrap_or_default();
            blocks.push(Block::ToolResult { provider_call_id: call.provider_call_id, content, is_error });
        }
        blocks.append(&mut self.inputs);
        if !blocks.is_empty() {
            self.messages.push(Arc::new(Message { role: Role::User, blocks }));
        }
    }
}
