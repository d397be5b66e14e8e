//! Content blocks: what messages and tool results are made of, in the shapes of the wire.

use serde::{Deserialize, Serialize};

/// One piece of a message or a tool result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentBlock {
    Text {
        text: String,
    },
    Image {
        source: Source,
    },
    Document {
        source: Source,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
    },
}

/// Where the bytes of an image or document are. `data` of `base64` is standard base64; of `text` it is the text itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    Base64 { media_type: String, data: String },
    Text { media_type: String, data: String },
    Url { url: String },
    File { file_id: String },
}

impl ContentBlock {
    pub fn text(text: impl Into<String>) -> Self {
        ContentBlock::Text { text: text.into() }
    }
    /// Bytes that this block weighs in the journal, roughly.
    pub fn weight(&self) -> usize {
        let source = |s: &Source| match s {
            Source::Base64 { data, .. } | Source::Text { data, .. } => data.len(),
            Source::Url { url } => url.len(),
            Source::File { file_id } => file_id.len(),
        };
        match self {
            ContentBlock::Text { text } => text.len(),
            ContentBlock::Image { source: s } => source(s),
            ContentBlock::Document { source: s, .. } => source(s),
        }
    }
}
