//! Streams of model providers, both wires: pieces say what the whole says, and what is shown is what is answered.

use crate::pieces;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::Block;
use loopd_models::fuzzing::{Heard, document, stream};
use loopd_models::{Delta, WireKind};
use serde_json::Value;

pub fn target(data: &[u8]) {
    for wire in [WireKind::Anthropic, WireKind::Openai] {
        let whole = stream(wire, &[data]);
        assert_eq!(stream(wire, &pieces::cut(data)), whole, "in pieces it says something else");
        check(&whole);
        document(wire, data).iter().for_each(check);
    }
}

fn check((answer, deltas): &Heard) {
    let mut shown: Vec<Option<String>> = Vec::new();
    for delta in deltas {
        match delta {
            Delta::TextStart { index } | Delta::ThinkingStart { index } | Delta::ToolStart { index, .. } => {
                assert_eq!(*index, shown.len(), "blocks begin in order");
                shown.push(matches!(delta, Delta::TextStart { .. }).then(String::new));
            }
            Delta::Text { index, text } => {
                shown.get_mut(*index).and_then(Option::as_mut).expect("text belongs to a text block").push_str(text);
            }
        }
    }
    let Ok(answer) = answer else { return };
    let texts = |block: &Block| match block {
        Block::Content(ContentBlock::Text { text }) => Some(text.clone()),
        _ => None,
    };
    let answered: Vec<Option<String>> = answer.blocks.iter().map(texts).collect();
    assert_eq!(answered, shown, "what was shown is not what was answered");
    for block in &answer.blocks {
        if let Block::ToolUse { input, native, .. } = block {
            assert!(input.is_object(), "arguments that are no object: {input}");
            kept(input);
            native.iter().for_each(|native| kept(&native.block));
        }
        if let Block::Thinking(native) = block {
            kept(&native.block);
        }
    }
}

/// Levels that an event of the journal, and a frame to a cell, put around a value.
const LEVELS_AROUND: usize = 16;

/// What goes into the journal is read from there as it was.
fn kept(value: &Value) {
    let text = format!("{}{value}{}", "[".repeat(LEVELS_AROUND), "]".repeat(LEVELS_AROUND));
    let mut read =
        serde_json::from_str::<Value>(&text).unwrap_or_else(|fault| panic!("{value} is not read again: {fault}"));
    for _ in 0..LEVELS_AROUND {
        read = read[0].take();
    }
    assert_eq!(&read, value, "it is read as another value");
}
