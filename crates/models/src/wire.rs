//! What the two codecs have in common, seen from the transport, and the checks that hold for both.

use crate::draft::Sink;
use crate::provider::{Answer, ErrorClass, ModelError};
use crate::sse::SseEvent;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::conversation::{Block, Message};
use loopd_domain::usage::Usage;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Reads one provider's stream into an answer. Pure: it is fed, it never fetches.
pub(crate) trait Decoder: Send {
    fn event(&mut self, event: &SseEvent, sink: &mut Sink<'_>) -> Result<(), ModelError>;

    /// The answer came as one JSON document although a stream was asked for.
    fn whole(&mut self, document: Value, sink: &mut Sink<'_>) -> Result<(), ModelError>;

    fn progress(&self) -> Progress;

    /// Tokens reported so far.
    fn usage(&self) -> Usage;

    /// The answer, once `progress` is no longer `Open`.
    fn finish(self) -> Result<Answer, ModelError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More must come: an end here is an answer cut off.
    Open,
    /// All of the answer is there; its usage may still follow.
    Answered,
    /// The wire's own end mark was read.
    Done,
}

/// Fields of a body that decide what loopd itself relies on.
const RESERVED: [&str; 3] = ["stream", "messages", "model"];

pub(crate) fn check_extra(extra: Option<&Map<String, Value>>) -> Result<(), ModelError> {
    let Some(field) = extra.into_iter().flat_map(Map::keys).find(|key| RESERVED.contains(&key.as_str())) else {
        return Ok(());
    };
    let message =
        format!("`model.extra.{field}` cannot be set; accepted: any field but `stream`, `messages` and `model`");
    Err(ModelError::new(ErrorClass::BadRequest, message))
}

/// Refuses what no wire can carry yet: references to uploaded files.
pub(crate) fn check_sources(messages: &[Arc<Message>]) -> Result<(), ModelError> {
    for block in messages.iter().flat_map(|message| &message.blocks) {
        match block {
            Block::Content(content) => check_source(content)?,
            Block::ToolResult { content, .. } => content.iter().try_for_each(check_source)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_source(content: &ContentBlock) -> Result<(), ModelError> {
    let (kind, source) = match content {
        ContentBlock::Text { .. } => return Ok(()),
        ContentBlock::Image { source } => ("image", source),
        ContentBlock::Document { source, .. } => ("document", source),
    };
    let message = match source {
        Source::File { file_id } => {
            format!(
                "the {kind} source names file `{file_id}`, and files are not supported yet; accepted: `base64` and `url`"
            )
        }
        Source::Text { .. } if kind == "image" => {
            "an image source of type `text` cannot be sent; accepted: `base64` and `url`".to_owned()
        }
        _ => return Ok(()),
    };
    Err(ModelError::new(ErrorClass::BadRequest, message))
}

/// How a system block in the middle of a conversation reads: providers differ in where they take a system role, and all
/// of them take a user's text.
pub(crate) fn system_text(text: &str) -> String {
    format!("<system-message>\n{text}\n</system-message>")
}

/// The arguments to send back for a call. What the model wrote and could not be read is shown to it inside an object:
/// providers and chat templates refuse a history whose arguments are anything else.
pub(crate) fn replayed_input<'a>(input: &'a Value, raw_arguments: Option<&str>) -> std::borrow::Cow<'a, Value> {
    match raw_arguments {
        Some(raw) => std::borrow::Cow::Owned(serde_json::json!({ "malformed_arguments": raw })),
        None => std::borrow::Cow::Borrowed(input),
    }
}

/// The fields of `value` that are strings under `name`; empty when it is something else.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A count that a provider may leave out, give as null, or give as a float.
pub(crate) fn count(value: &Value, name: &str) -> Option<u64> {
    let number = value.get(name)?;
    number.as_u64().or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Parser;
    use proptest::prelude::*;

    const ANTHROPIC: &str = include_str!("../tests/fixtures/anthropic_thinking_tools.sse");
    const OPENAI: [&str; 3] = [
        include_str!("../tests/fixtures/openai_tools.sse"),
        include_str!("../tests/fixtures/openai_openrouter.sse"),
        include_str!("../tests/fixtures/openai_gemini.sse"),
    ];

    /// Feeds a stream; an answer is only an answer when the decoder says so.
    fn decode<D: Decoder>(mut decoder: D, stream: &str) -> Option<Answer> {
        let mut events = Vec::new();
        Parser::new(1 << 20).push(stream.as_bytes(), &mut events).ok()?;
        for event in &events {
            decoder.event(event, &mut |_| {}).ok()?;
        }
        (decoder.progress() != Progress::Open).then(|| decoder.finish().expect("a finished answer"))
    }

    /// The events of a stream in another order, some missing, some twice.
    fn shuffle(stream: &str, order: &[prop::sample::Index]) -> String {
        let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
        order.iter().map(|at| *at.get(&events)).collect()
    }

    proptest! {
        #[test]
        fn events_in_any_order_never_panic_and_never_make_nameless_calls(order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
            let anthropic = decode(crate::anthropic::MessageStream::default(), &shuffle(ANTHROPIC, &order));
            let openai = OPENAI.iter().map(|stream| decode(crate::openai::ChatStream::new(1), &shuffle(stream, &order)));
            for answer in openai.chain([anthropic]).flatten() {
                for block in &answer.blocks {
                    if let Block::ToolUse { provider_call_id, input, .. } = block {
                        prop_assert!(!provider_call_id.is_empty() && input.is_object());
                    }
                }
            }
        }

        #[test]
        fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte in 32u8..127) {
            for stream in OPENAI.into_iter().chain([ANTHROPIC]) {
                let mut bytes = stream.as_bytes().to_vec();
                *at.get_mut(&mut bytes) = byte;
                let text = String::from_utf8_lossy(&bytes);
                decode(crate::anthropic::MessageStream::default(), &text);
                decode(crate::openai::ChatStream::new(1), &text);
            }
        }
    }
}
