//! An answer while it is being written: slots in order of appearance, bounded, with a delta for each piece.
//!
//! Both codecs write into this. It decides what is common to all wires: when a tool call's arguments are usable, that
//! empty text is no block, and how large an answer may grow. It knows no wire.

use crate::provider::{Delta, ErrorClass, ModelError};
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::Block;
use loopd_domain::event::NativeBlock;
use loopd_domain::limits::{ANSWER_BYTES_MAX, CALLS_PER_STEP_MAX, JSON_DEPTH_MAX};
use serde_json::{Map, Value};

/// Where deltas go.
pub(crate) type Sink<'a> = dyn FnMut(Delta) + Send + 'a;

/// Blocks of one answer: what may be asked for as calls, and as much again for text and thinking between them.
const SLOTS_MAX: usize = 16 * CALLS_PER_STEP_MAX;

#[derive(Debug, Default)]
pub(crate) struct Draft {
    slots: Vec<Slot>,
    bytes: usize,
}

#[derive(Debug)]
enum Slot {
    Text(String),
    Native(NativeBlock),
    Tool(ToolDraft),
}

/// A tool call whose arguments are still coming.
#[derive(Debug, Default)]
pub(crate) struct ToolDraft {
    pub id: String,
    pub name: String,
    /// Pieces of JSON, as the model wrote them.
    pub arguments: String,
    /// Fields of the provider's item that `id`, `name` and arguments do not reproduce.
    pub extra: Map<String, Value>,
}

impl Draft {
    /// Counts bytes that are about to be kept.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= ANSWER_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "the answer is longer than {ANSWER_BYTES_MAX} bytes; it was cut off; check the provider, which does not keep \
             to `max_tokens`"
        );
        Err(ModelError::new(ErrorClass::Garbage, message))
    }

    /// Appends to the text in `slot`, or starts a new one. Empty pieces start nothing.
    pub fn text(&mut self, slot: &mut Option<usize>, piece: &str, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.grow(piece.len())?;
        let index = match *slot {
            Some(index) => index,
            None => {
                let index = self.push(Slot::Text(String::new()))?;
                sink(Delta::TextStart { index });
                *slot.insert(index)
            }
        };
        if let Some(Slot::Text(text)) = self.slots.get_mut(index) {
            text.push_str(piece);
            sink(Delta::Text { index, text: piece.to_owned() });
        }
        Ok(())
    }

    /// Starts a block that is kept in the provider's own shape.
    pub fn native(&mut self, dialect: &str, block: Value, sink: &mut Sink<'_>) -> Result<usize, ModelError> {
        self.grow(weight(&block))?;
        let index = self.push(Slot::Native(NativeBlock { dialect: dialect.to_owned(), block }))?;
        sink(Delta::ThinkingStart { index });
        Ok(index)
    }

    /// The block in `slot`, if it is one in the provider's own shape.
    pub fn native_mut(&mut self, slot: usize) -> Option<&mut Value> {
        match self.slots.get_mut(slot) {
            Some(Slot::Native(native)) => Some(&mut native.block),
            _ => None,
        }
    }

    pub fn tool(&mut self, tool: ToolDraft, sink: &mut Sink<'_>) -> Result<usize, ModelError> {
        self.grow(tool.id.len() + tool.name.len() + tool.arguments.len())?;
        let name = tool.name.clone();
        let index = self.push(Slot::Tool(tool))?;
        sink(Delta::ToolStart { index, name });
        Ok(index)
    }

    pub fn tool_mut(&mut self, slot: usize) -> Option<&mut ToolDraft> {
        match self.slots.get_mut(slot) {
            Some(Slot::Tool(tool)) => Some(tool),
            _ => None,
        }
    }

    pub fn has_tools(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Tool(_)))
    }

    /// The finished blocks. `cut`: the provider stopped for lack of room, so the last call may be half a call.
    pub fn finish(self, dialect: &str, cut: bool) -> Result<Vec<Block>, ModelError> {
        let last = self.slots.len().saturating_sub(1);
        let blocks = self.slots.into_iter().enumerate();
        blocks.map(|(at, slot)| slot.finish(dialect, cut && at == last)).collect()
    }

    fn push(&mut self, slot: Slot) -> Result<usize, ModelError> {
        if self.slots.len() >= SLOTS_MAX {
            let message = format!("the answer has more than {SLOTS_MAX} blocks; it was cut off");
            return Err(ModelError::new(ErrorClass::Garbage, message));
        }
        self.slots.push(slot);
        Ok(self.slots.len() - 1)
    }
}

impl Slot {
    fn finish(self, dialect: &str, cut: bool) -> Result<Block, ModelError> {
        Ok(match self {
            Slot::Text(text) => Block::Content(ContentBlock::Text { text }),
            Slot::Native(native) => {
                shallow(&native.block)?;
                Block::Thinking(native)
            }
            Slot::Tool(tool) => {
                tool.extra.values().try_for_each(shallow)?;
                tool.finish(dialect, cut)
            }
        })
    }
}

impl ToolDraft {
    fn finish(self, dialect: &str, cut: bool) -> Block {
        let (input, raw_arguments) = read_arguments(self.arguments, cut);
        let native = match self.extra.is_empty() {
            true => None,
            false => Some(NativeBlock { dialect: dialect.to_owned(), block: Value::Object(self.extra) }),
        };
        Block::ToolUse { provider_call_id: self.id, name: self.name, input, raw_arguments, native }
    }
}

/// Arguments as an object; or an empty one and what stood there instead. Nothing at all is a call without arguments,
/// except where the answer was `cut`: then nobody can say what would have come.
pub(crate) fn read_arguments(text: String, cut: bool) -> (Value, Option<String>) {
    let empty = || Value::Object(Map::new());
    if text.trim().is_empty() {
        return (empty(), cut.then_some(text));
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(input @ Value::Object(_)) if depth(&input) <= JSON_DEPTH_MAX => (input, None),
        Ok(Value::Null) => (empty(), None),
        _ => (empty(), Some(text)),
    }
}

/// What a provider wrote in its own shape is kept as it is, so it must be readable where it is kept: an event of the journal and a
/// frame put levels of their own around it.
fn shallow(value: &Value) -> Result<(), ModelError> {
    if depth(value) < JSON_DEPTH_MAX {
        return Ok(());
    }
    let message = format!("a block of the answer is nested too deep; accepted: up to {JSON_DEPTH_MAX} levels");
    Err(ModelError::new(ErrorClass::Garbage, message))
}

/// Levels of objects and lists. Bounded by what the JSON reader takes.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Bytes that a value holds, roughly.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 8 + weight(item)).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| 8 + name.len() + weight(value)).sum(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_or_kept_as_written() {
        let read = |text: &str, cut| read_arguments(text.to_owned(), cut);
        assert_eq!(read(r#"{"a":1}"#, true), (serde_json::json!({"a": 1}), None));
        assert_eq!(read("", false), (serde_json::json!({}), None));
        assert_eq!(read("null", false), (serde_json::json!({}), None));
        assert_eq!(read("", true), (serde_json::json!({}), Some(String::new())));
        for malformed in [r#"{"a":"#, "[1]", "7", r#""{}""#, "{} trailing"] {
            assert_eq!(read(malformed, false), (serde_json::json!({}), Some(malformed.to_owned())));
        }
        let deep = "[".repeat(5_000);
        assert_eq!(read(&deep, false).1, Some(deep));
        // Readable here is not yet readable within an event: what is deeper than a caller's own JSON may be is kept as text.
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert_eq!(read(&nested(JSON_DEPTH_MAX), false).1, None);
        assert_eq!(read(&nested(JSON_DEPTH_MAX + 1), false), (serde_json::json!({}), Some(nested(JSON_DEPTH_MAX + 1))));
    }

    #[test]
    fn a_block_that_could_not_be_read_from_the_journal_is_refused() {
        let finish = |levels: usize| {
            let block = (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
            let mut draft = Draft::default();
            draft.native("d", block, &mut |_| {}).expect("small");
            draft.finish("d", false)
        };
        assert!(finish(JSON_DEPTH_MAX - 1).is_ok());
        assert_eq!(finish(JSON_DEPTH_MAX).expect_err("deep").class, ErrorClass::Garbage);
    }

    #[test]
    fn an_answer_is_bounded_in_bytes_and_blocks() {
        let mut draft = Draft::default();
        let mut slot = None;
        let piece = "x".repeat(1 << 20);
        let fault = (0..17).find_map(|_| draft.text(&mut slot, &piece, &mut |_| {}).err()).expect("too long");
        assert_eq!(fault.class, ErrorClass::Garbage);
        let mut draft = Draft::default();
        let fault = (0..=SLOTS_MAX).find_map(|_| draft.tool(ToolDraft::default(), &mut |_| {}).err());
        assert_eq!(fault.expect("too many").class, ErrorClass::Garbage);
    }
}
