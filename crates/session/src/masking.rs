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

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::event::NativeBlock;
    use serde_json::json;

    const SECRET: &str = "geheim-Ü-1234567";
    const PLACE: &str = "PLACEHOLDER123456";

    struct Plain;

    impl Mask for Plain {
        fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
            match text.contains(SECRET) {
                true => Cow::Owned(text.replace(SECRET, PLACE)),
                false => Cow::Borrowed(text),
            }
        }

        fn longest(&self) -> usize {
            SECRET.len()
        }
    }

    fn masking() -> Masking {
        Masking::With(Arc::new(Plain))
    }

    fn base64(text: &str) -> Source {
        Source::Base64 { media_type: "application/pdf".to_owned(), data: STANDARD.encode(text) }
    }

    #[test]
    fn every_place_of_a_result_is_looked_at() {
        let title = Some(format!("t {SECRET}"));
        let text = Source::Text { media_type: "text/plain".to_owned(), data: SECRET.to_owned() };
        let url = Source::Url { url: format!("https://x/?k={SECRET}") };
        let mut content = vec![
            ContentBlock::text(format!("{SECRET}{SECRET}")),
            ContentBlock::Document { source: text, title, context: Some(SECRET.to_owned()) },
            ContentBlock::Image { source: url },
            ContentBlock::Image { source: base64(&format!("a {SECRET} b")) },
            ContentBlock::Image { source: base64("nothing in it") },
        ];
        assert!(masking().result(&mut content));
        let shown = serde_json::to_string(&content).expect("serialises");
        assert!(!shown.contains(SECRET) && !shown.contains(&STANDARD.encode(format!("a {SECRET} b"))), "{shown}");
        assert_eq!(content[0], ContentBlock::text(format!("{PLACE}{PLACE}")));
        assert_eq!(content[3], ContentBlock::text(WITHHELD));
        assert_eq!(content[4], ContentBlock::Image { source: base64("nothing in it") });
    }

    #[test]
    fn what_is_signed_goes_whole() {
        let native = |text: &str| NativeBlock { dialect: "anthropic".to_owned(), block: json!({"thinking": [text]}) };
        let clean = EventBody::AgentThinking { native: native("hm") };
        assert_eq!(masking().answer(clean.clone()), clean);
        let masked = masking().answer(EventBody::AgentThinking { native: native(SECRET) });
        assert!(redaction::is_tombstone(&masked));
    }

    #[test]
    fn keys_of_objects_are_masked_like_values() {
        let mut value = json!({"a": [1, {"k": SECRET}], SECRET: null});
        assert!(mask_value(&Plain, &mut value));
        assert_eq!(value, json!({"a": [1, {"k": PLACE}], PLACE: null}));
        assert!(!mask_value(&Plain, &mut value));
    }

    /// However a text is cut, what is shown is the masked text, and no piece holds a part of a secret that was not whole yet.
    #[test]
    fn a_secret_in_pieces_is_never_shown() {
        let whole = format!("über {SECRET} und {SECRET}{SECRET} und geheim-Ü aus");
        let masked = whole.replace(SECRET, PLACE);
        let letters: Vec<char> = whole.chars().collect();
        for size in 1..=letters.len() {
            let mut preview = Preview::default();
            let mut shown = String::new();
            for piece in letters.chunks(size) {
                shown += &preview.push(&masking(), piece.iter().collect());
                assert!(masked.starts_with(&shown), "{size}: {shown}");
            }
            shown += &preview.finish();
            assert_eq!(shown, masked, "{size}");
        }
    }

    #[test]
    fn nothing_is_held_back_where_there_is_no_secret() {
        let mut preview = Preview::default();
        assert_eq!(preview.push(&Masking::Nothing, "abc".to_owned()), "abc");
        // A credential was bound, and was taken away again.
        assert_eq!(preview.push(&masking(), "short".to_owned()), "");
        assert_eq!(preview.push(&Masking::Nothing, "!".to_owned()), "short!");
        assert_eq!(preview.push(&Masking::Unknown(String::new()), "x".to_owned()), "");
    }
}
