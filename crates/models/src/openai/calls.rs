//! Tool calls out of Chat Completions deltas, as servers really send them.
//!
//! The wire says: a call has an index; its first piece carries id and name, later ones only pieces of the arguments. Seen in
//! the field: no index; no id; the same index for every call; the whole call at once; the name repeated on every piece;
//! arguments as null or as an object. All of these are read here, and each call is kept in order of its first piece.

use crate::draft::{Draft, Sink, ToolDraft, read_arguments};
use crate::provider::ModelError;
use serde_json::{Map, Value};

#[derive(Debug, Default)]
pub(super) struct Calls {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    index: Option<u64>,
    /// As the server gave it; empty when it gave none.
    id: String,
    slot: usize,
}

impl Calls {
    /// Takes one piece of one call. `made_id` is the id of a call whose server gives none.
    pub fn delta(
        &mut self,
        piece: &Value,
        draft: &mut Draft,
        sink: &mut Sink<'_>,
        made_id: impl FnOnce(usize) -> String,
    ) -> Result<(), ModelError> {
        let id = crate::wire::text(piece, "id");
        let index = crate::wire::count(piece, "index");
        let function = &piece["function"];
        let name = crate::wire::text(function, "name");
        let slot = match self.find(index, id, name, draft) {
            Some(slot) => slot,
            None => {
                let made = if id.is_empty() { made_id(self.known.len()) } else { id.to_owned() };
                let tool = ToolDraft { id: made, name: name.to_owned(), extra: extra(piece), ..ToolDraft::default() };
                let slot = draft.tool(tool, sink)?;
                self.known.push(Known { index, id: id.to_owned(), slot });
                slot
            }
        };
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        draft.grow(arguments.len())?;
        if let Some(tool) = draft.tool_mut(slot) {
            if tool.name.is_empty() {
                tool.name = name.to_owned();
            }
            tool.arguments.push_str(&arguments);
            tool.extra.extend(extra(piece));
        }
        Ok(())
    }

    fn find(&self, index: Option<u64>, id: &str, name: &str, draft: &mut Draft) -> Option<usize> {
        if let Some(index) = index {
            let known = self.known.iter().rev().find(|known| known.index == Some(index))?;
            // Another id under the same index is another call: some servers send index 0 for all of them.
            let same = id.is_empty() || known.id.is_empty() || known.id == id;
            return same.then_some(known.slot);
        }
        if !id.is_empty() {
            return self.known.iter().find(|known| known.id == id).map(|known| known.slot);
        }
        // Neither index nor id: it goes on with the last call, unless that one is whole and this one has a name.
        let last = self.known.last()?;
        let tool = draft.tool_mut(last.slot)?;
        let whole = !tool.arguments.is_empty() && read_arguments(tool.arguments.clone(), false).1.is_none();
        let another = !name.is_empty() && (whole || name != tool.name);
        (!another).then_some(last.slot)
    }
}

/// What must go back with the call besides its own fields (Gemini's thought signatures stand in `extra_content`).
fn extra(piece: &Value) -> Map<String, Value> {
    let known = ["index", "id", "type", "function"];
    let fields = piece.as_object().into_iter().flatten();
    let foreign = fields.filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    foreign.map(|(name, value)| (name.clone(), value.clone())).collect()
}
