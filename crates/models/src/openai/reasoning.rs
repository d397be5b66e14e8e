//! Reasoning on the Chat Completions wire, which has three unofficial shapes: `reasoning_content` (DeepSeek, vLLM, Qwen),
//! `reasoning` (Ollama, newer vLLM) and `reasoning_details` (OpenRouter).
//!
//! What came is kept under the name it came with and goes back under that name on the assistant's message.

use super::DIALECT;
use crate::draft::{Draft, Sink, weight};
use crate::provider::ModelError;
use loopd_domain::conversation::Block;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DETAILS: &str = "reasoning_details";
const TEXTS: [&str; 2] = ["reasoning_content", "reasoning"];

/// Collects the reasoning of one answer.
#[derive(Debug, Default)]
pub(super) struct Reasoning {
    slot: Option<usize>,
    /// The text field that this server uses. Some send the same text under both names: the first one counts.
    field: Option<&'static str>,
}

impl Reasoning {
    pub fn delta(&mut self, delta: &Value, draft: &mut Draft, sink: &mut Sink<'_>) -> Result<(), ModelError> {
        if let Some(Value::Array(details)) = delta.get(DETAILS) {
            for detail in details {
                draft.grow(weight(detail))?;
                let Some(Value::Object(block)) = self.block(draft, sink)? else { continue };
                match block.entry(DETAILS).or_insert_with(|| json!([])) {
                    Value::Array(known) => merge_detail(known, detail),
                    _ => unreachable!("only this function sets the field"),
                }
            }
        }
        let field =
            TEXTS.into_iter().find(|name| delta.get(*name).and_then(Value::as_str).is_some_and(|t| !t.is_empty()));
        let Some(field) = field else { return Ok(()) };
        if *self.field.get_or_insert(field) != field {
            return Ok(());
        }
        let piece = delta[field].as_str().unwrap_or_default();
        draft.grow(piece.len())?;
        if let Some(Value::Object(block)) = self.block(draft, sink)? {
            match block.get_mut(field) {
                Some(Value::String(text)) => text.push_str(piece),
                _ => {
                    block.insert(field.to_owned(), Value::String(piece.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn block<'d>(&mut self, draft: &'d mut Draft, sink: &mut Sink<'_>) -> Result<Option<&'d mut Value>, ModelError> {
        let slot = match self.slot {
            Some(slot) => slot,
            None => *self.slot.insert(draft.native(DIALECT, json!({}), sink)?),
        };
        Ok(draft.native_mut(slot))
    }
}

/// The fields that go back on an assistant's message. Details say all that the plain text says, so the text stays out
/// where there are details.
pub(super) fn replay(blocks: &[Block]) -> BTreeMap<&'static str, &Value> {
    let mut out = BTreeMap::new();
    for block in blocks {
        let Block::Thinking(native) = block else { continue };
        let Some(fields) = native.block.as_object().filter(|_| native.dialect == DIALECT) else { continue };
        let names: &[&str] = if fields.contains_key(DETAILS) { &[DETAILS] } else { &TEXTS };
        out.extend(names.iter().filter_map(|name| fields.get(*name).map(|value| (*name, value))));
    }
    out
}

/// Pieces of one detail carry the same type and index; their texts join, everything else is said once.
fn merge_detail(known: &mut Vec<Value>, detail: &Value) {
    let same = |other: &Value| {
        let field = |name: &str| (&other[name], &detail[name]);
        let (type_a, type_b) = field("type");
        let (index_a, index_b) = field("index");
        type_a == type_b && index_a == index_b
    };
    let joins = detail.is_object() && detail["type"] != "reasoning.encrypted" && known.last().is_some_and(same);
    let Some(Value::Object(last)) = known.last_mut().filter(|_| joins) else {
        known.push(detail.clone());
        return;
    };
    for (name, value) in detail.as_object().into_iter().flatten() {
        match (name.as_str(), last.get_mut(name), value) {
            ("text" | "summary", Some(Value::String(text)), Value::String(piece)) => text.push_str(piece),
            (_, Some(_), Value::Null) => {}
            (_, _, value) => {
                last.insert(name.clone(), value.clone());
            }
        }
    }
}
