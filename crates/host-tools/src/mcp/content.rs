//! A server's result as content of the journal, within its limits.

use crate::bounded::cut;
use crate::port::HostResult;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::limits::HOST_MEDIA_BYTES_MAX;
use rmcp::model::{CallToolResult, ContentBlock as McpBlock, ResourceContents};

/// Images that every model takes.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

pub(super) fn result(result: CallToolResult) -> HostResult {
    let is_error = result.is_error.unwrap_or(false);
    let mut text = String::new();
    let mut media = Vec::new();
    let mut media_bytes = 0;
    for block in &result.content {
        match block {
            McpBlock::Image(image) if IMAGES.contains(&image.mime_type.as_str()) => {
                media_bytes += image.data.len();
                match media_bytes <= HOST_MEDIA_BYTES_MAX {
                    true => media.push(ContentBlock::Image {
                        source: Source::Base64 { media_type: image.mime_type.clone(), data: image.data.clone() },
                    }),
                    false => line(&mut text, "[an image is left out: too large]"),
                }
            }
            block => line(&mut text, &said(block)),
        }
    }
    if text.is_empty() && media.is_empty() {
        text = result.structured_content.map(|value| value.to_string()).unwrap_or_default();
    }
    let mut content = Vec::new();
    if !text.is_empty() {
        let bytes = text.len();
        content.push(ContentBlock::text(cut(text, bytes)));
    }
    content.append(&mut media);
    HostResult::completed(content, is_error)
}

/// A block that is not shown as it is, in words.
fn said(block: &McpBlock) -> String {
    match block {
        McpBlock::Text(text) => text.text.clone(),
        McpBlock::Image(image) => format!("[an image of type `{}`, not shown]", image.mime_type),
        McpBlock::Audio(audio) => format!("[audio of type `{}`, not shown]", audio.mime_type),
        McpBlock::ResourceLink(resource) => format!("[resource `{}` at {}]", resource.name, resource.uri),
        McpBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            ResourceContents::BlobResourceContents { uri, .. } => format!("[resource at {uri}, not text]"),
            _ => "[a resource that is not known here]".to_owned(),
        },
        _ => "[content of a kind that is not known here]".to_owned(),
    }
}

fn line(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}
