//! No secret of a session's credentials enters its journal, its previews or a log: what the room, a tool of the host's or the
//! model says passes here first.
//!
//! Where the mask cannot be had, results are withheld: better a tool that seems to have failed than a secret in the journal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loopd_broker::{Client, Mask, Placeholders};
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::event::EventBody;
use loopd_domain::mcp::McpTool;
use loopd_domain::redaction;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// In the place of bytes that hold a secret, where a text cannot be put in its place.
const WITHHELD: &str = "[withheld: it contains a secret of this session's credentials]";

impl std::fmt::Debug for Masking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Masking::Nothing => "Nothing",
            Masking::With(_) => "With(…)",
            Masking::Unknown(_) => "Unknown(…)",
        })
    }
}

/// What is known of a session's secrets now.
#[derive(Clone, Default)]
pub enum Masking {
    /// It has none.
    #[default]
    Nothing,
    With(Arc<dyn Mask>),
    /// It may have some, and nobody can say which.
    Unknown(String),
}

impl Masking {
    pub async fn of(placeholders: &dyn Placeholders, client: &Client) -> Self {
        match placeholders.mask(client).await {
            Ok(mask) if mask.longest() == 0 => Masking::Nothing,
            Ok(mask) => Masking::With(mask),
            Err(fault) => {
                tracing::warn!(session = %client.session, %fault, "what a session's secrets are cannot be read");
                Masking::Unknown(fault.to_string())
            }
        }
    }

    /// A result of a call. False when it is withheld, and an error stands in its place.
    pub fn result(&self, content: &mut Vec<ContentBlock>) -> bool {
        match self {
            Masking::Nothing => true,
            Masking::With(mask) => {
                content.iter_mut().for_each(|block| mask_block(mask.as_ref(), block));
                true
            }
            Masking::Unknown(reason) => {
                let text = format!(
                    "The result is withheld: it could not be searched for secrets of this session's credentials \
                     ({reason}). The call was carried out; check before you repeat it."
                );
                *content = vec![ContentBlock::text(text)];
                false
            }
        }
    }

    /// Words of somebody else's for a log or an error.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Masking::Nothing => Cow::Borrowed(text),
            Masking::With(mask) => mask.text(text),
            Masking::Unknown(_) => Cow::Borrowed("[withheld]"),
        }
    }

    /// What a server of the agent's says of its tools.
    pub fn tools(&self, tools: &mut [McpTool]) {
        let Masking::With(mask) = self else { return };
        for tool in tools {
            if let Some(text) = &mut tool.description {
                mask_text(mask.as_ref(), text);
            }
            for value in std::iter::once(&mut tool.input_schema).chain(&mut tool.annotations) {
                mask_value(mask.as_ref(), value);
            }
        }
    }

    /// A piece of a model's answer. What a room said reaches a model masked, so it knows no secret but one that its user told it.
    pub fn answer(&self, mut body: EventBody) -> EventBody {
        let Masking::With(mask) = self else { return body };
        let mask = mask.as_ref();
        let is_whole = match &mut body {
            EventBody::AgentMessage { content, .. } => {
                content.iter_mut().for_each(|block| mask_block(mask, block));
                true
            }
            // It is signed as it is.
            EventBody::AgentThinking { native } => !mask_value(mask, &mut native.block),
            EventBody::AgentToolUse { input, call, .. }
            | EventBody::AgentCustomToolUse { input, call, .. }
            | EventBody::AgentMcpToolUse { input, call, .. } => {
                mask_value(mask, input);
                if let Some(native) = &mut call.native {
                    mask_value(mask, &mut native.block);
                }
                for text in [&mut call.raw_arguments, &mut call.malformed].into_iter().flatten() {
                    mask_text(mask, text);
                }
                true
            }
            _ => true,
        };
        match is_whole {
            true => body,
            false => redaction::tombstone(&body).unwrap_or(body),
        }
    }
}

/// A text that is shown piece by piece: the end of what has come is held back while it may be the beginning of a secret.
#[derive(Debug, Default)]
pub struct Preview {
    /// Masked already; as long as a secret at most.
    held: String,
}

impl Preview {
    /// What can be shown now that this piece has come.
    pub fn push(&mut self, masking: &Masking, piece: String) -> String {
        match masking {
            Masking::Nothing => self.finish() + &piece,
            Masking::With(mask) => {
                self.held.push_str(&piece);
                let mut text = mask.text(&self.held).into_owned();
                let open = text.len().saturating_sub(mask.open_end(&text));
                self.held = text.split_off(text.floor_char_boundary(open));
                text
            }
            Masking::Unknown(_) => {
                self.held.clear();
                String::new()
            }
        }
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

fn mask_block(mask: &dyn Mask, block: &mut ContentBlock) {
    let is_clean = match block {
        ContentBlock::Text { text } => {
            mask_text(mask, text);
            true
        }
        ContentBlock::Image { source } => mask_source(mask, source),
        ContentBlock::Document { source, title, context } => {
            for text in [title, context].into_iter().flatten() {
                mask_text(mask, text);
            }
            mask_source(mask, source)
        }
    };
    if !is_clean {
        *block = ContentBlock::text(WITHHELD);
    }
}

/// False when it holds a secret that cannot be taken out of it.
fn mask_source(mask: &dyn Mask, source: &mut Source) -> bool {
    match source {
        Source::Text { data: text, .. } | Source::Url { url: text } | Source::File { file_id: text } => {
            mask_text(mask, text);
            true
        }
        Source::Base64 { data, .. } => {
            let holds = |text: &str| matches!(mask.text(text), Cow::Owned(_));
            let bytes = STANDARD.decode(data.as_bytes()).unwrap_or_default();
            !holds(data) && !holds(&String::from_utf8_lossy(&bytes))
        }
    }
}

/// True when it was changed.
fn mask_text(mask: &dyn Mask, text: &mut String) -> bool {
    match mask.text(text) {
        Cow::Borrowed(_) => false,
        Cow::Owned(masked) => {
            *text = masked;
            true
        }
    }
}

/// True when anything in it was changed.
fn mask_value(mask: &dyn Mask, value: &mut Value) -> bool {
    match value {
        Value::String(text) => mask_text(mask, text),
        Value::Array(items) => items.iter_mut().fold(false, |changed, item| mask_value(mask, item) | changed),
        Value::Object(map) => {
            let mut changed = map.values_mut().fold(false, |changed, item| mask_value(mask, item) | changed);
            if map.keys().any(|key| matches!(mask.text(key), Cow::Owned(_))) {
                let entries = std::mem::take(map).into_iter();
                *map = entries.map(|(key, item)| (mask.text(&key).into_owned(), item)).collect();
                changed = true;
            }
            changed
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
