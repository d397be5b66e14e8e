//! Single content blocks of a Messages stream.

use crate::draft::ToolDraft;
use serde_json::{Map, Value, json};

/// A call from the block that starts it. A whole `input` stands here only when the answer did not come in pieces.
pub(super) fn tool(block: &mut Value) -> ToolDraft {
    let Value::Object(fields) = block.take() else { return ToolDraft::default() };
    let mut tool = ToolDraft::default();
    let mut extra = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("id", Value::String(id)) => tool.id = id,
            ("name", Value::String(name)) => tool.name = name,
            ("input", Value::Object(input)) if input.is_empty() => {}
            ("input", input) => tool.arguments = input.to_string(),
            ("type", _) | (_, Value::Null) => {}
            (_, value) if value == json!({"type": "direct"}) => {} // the default of `caller`
            (_, value) => {
                extra.insert(name, value);
            }
        }
    }
    tool.extra = extra;
    tool
}

/// Text grows; anything else is replaced. Holds for `thinking_delta`, `signature_delta` and for what is not known yet.
pub(super) fn merge_delta(block: &mut Value, delta: Value) {
    let (Value::Object(block), Value::Object(delta)) = (block, delta) else { return };
    for (name, value) in delta {
        match (block.get_mut(&name), value) {
            _ if name == "type" => {}
            (Some(Value::String(known)), Value::String(more)) => known.push_str(&more),
            (_, value) => {
                block.insert(name, value);
            }
        }
    }
}
