//! Scripted models that ship with loopd, so that everything runs without a key and without a network.
//!
//! They go through the same port as every other provider, and say that they are scripted. They cost nothing. Their usage is
//! made up but deterministic: one token for every four bytes, rounded up, of what goes in and of what comes out.

pub mod script;
mod scripted;
mod shell;

use crate::draft::Sink;
use crate::provider::{Answer, Delta, ModelError, ModelRequest, Provider};
use async_trait::async_trait;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Message, Role};
use loopd_domain::usage::Usage;
use std::io::Write;

#[cfg(feature = "testing")]
pub(crate) use scripted::Attempts;
pub(crate) use scripted::Scripted;
pub(crate) use shell::Shell;

/// Names after `builtin/`, with what a list of models calls them.
pub(crate) const NAMES: [(&str, &str); 2] = [
    ("shell", "Scripted: runs the shell commands of the message"),
    ("script", "Scripted: plays the script in the system prompt"),
];

/// Tells the deltas of a finished answer, as a provider would have on the way.
pub(crate) fn tell(index: usize, block: &Block, pieces: impl Iterator<Item = String>, sink: &mut Sink<'_>) {
    match block {
        Block::Content(_) => {
            sink(Delta::TextStart { index });
            pieces.for_each(|text| sink(Delta::Text { index, text }));
        }
        Block::ToolUse { name, .. } => sink(Delta::ToolStart { index, name: name.clone() }),
        _ => sink(Delta::ThinkingStart { index }),
    }
}

/// What stands for a request's body in its digest: the model, the shape of the whole history (role, blocks and bytes of
/// every message) and the last two messages in full. Nothing is sent anywhere, and a hot loop should not write its history
/// out at every step; the journal's own hash chain covers the rest.
pub(crate) fn compact_body(request: &ModelRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 16 * request.messages.len());
    let system = request.system.as_deref().unwrap_or_default();
    let tools: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    // Writing into a Vec cannot fail.
    let _ = writeln!(out, "builtin/{} {} {tools:?}\n{}:{system}", request.name, request.max_tokens, system.len());
    for message in &request.messages {
        let role = if message.role == Role::User { 'u' } else { 'a' };
        let _ = writeln!(out, "{role}{} {}", message.blocks.len(), bytes_of(message));
    }
    for message in request.messages.iter().rev().take(2) {
        let _ = writeln!(out, "{message:?}");
    }
    out
}

/// Made-up usage: a token is four bytes.
pub(crate) fn usage(request: &ModelRequest, answer: &[Block]) -> Usage {
    let system = request.system.as_deref().map_or(0, str::len);
    let input = system + request.messages.iter().map(|message| bytes_of(message)).sum::<usize>();
    let output = answer.iter().map(bytes_of_block).sum::<usize>();
    Usage { input_tokens: tokens(input), output_tokens: tokens(output), ..Usage::default() }
}

fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

fn bytes_of(message: &Message) -> usize {
    message.blocks.iter().map(bytes_of_block).sum()
}

fn bytes_of_block(block: &Block) -> usize {
    match block {
        Block::Content(content) => content.weight(),
        Block::System(text) => text.len(),
        Block::Thinking(native) => crate::draft::weight(&native.block),
        Block::ToolUse { name, input, .. } => name.len() + crate::draft::weight(input),
        Block::ToolResult { content, .. } => content.iter().map(ContentBlock::weight).sum(),
    }
}

/// The text of a tool result, its text blocks joined.
pub(crate) fn result_text(content: &[ContentBlock]) -> String {
    let texts: Vec<&str> = content
        .iter()
        .filter_map(|block| match block {
            ContentBlock::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

/// A provider that answers from the request alone.
pub(crate) struct Builtin<M>(pub M);

/// A scripted model.
#[async_trait]
pub(crate) trait Model: Send + Sync {
    async fn answer(&self, request: &ModelRequest, sink: &mut Sink<'_>) -> Result<Answer, ModelError>;
}

#[async_trait]
impl<M: Model> Provider for Builtin<M> {
    async fn call(
        &self,
        request: &ModelRequest,
        _body: Vec<u8>,
        deltas: &mut (dyn FnMut(Delta) + Send),
    ) -> Result<Answer, ModelError> {
        self.0.answer(request, deltas).await
    }

    fn body(&self, request: &ModelRequest) -> Result<Vec<u8>, ModelError> {
        Ok(compact_body(request))
    }
}
