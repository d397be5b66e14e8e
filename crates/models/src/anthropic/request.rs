//! A request as the Messages wire wants it, serialised straight from the shared history.
//!
//! Prompt caching: a mark on the system prompt, on the last tool, and on the last block of the last two messages of the
//! user. The last mark writes the prefix; the one before it is where the previous request wrote its own, so that this
//! request reads it however many blocks lie between. Four marks are all that the API takes.

use super::{DIALECT, effort};
use crate::provider::{ErrorClass, ModelError, ModelRequest};
use crate::wire::{check_extra, check_sources, replayed_input, system_text};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use loopd_domain::agent::ToolSpec;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::conversation::{Block, Message, Role};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The body, or why the request cannot be put into it.
pub(crate) fn body(request: &ModelRequest) -> Result<Vec<u8>, ModelError> {
    check_extra(request.model.extra.as_ref())?;
    check_sources(&request.messages)?;
    let body = Body { request, messages: messages(request)? };
    let unserialisable =
        |fault| ModelError::new(ErrorClass::BadRequest, format!("the request cannot be written: {fault}"));
    serde_json::to_vec(&body).map_err(unserialisable)
}

struct Body<'a> {
    request: &'a ModelRequest,
    messages: Vec<WireMessage<'a>>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = self.request;
        let extra = request.model.extra.as_ref();
        let ours = |field: &str| !extra.is_some_and(|extra| extra.contains_key(field));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &request.name)?;
        map.serialize_entry("stream", &true)?;
        if ours("max_tokens") {
            map.serialize_entry("max_tokens", &request.max_tokens)?;
        }
        if let Some(temperature) = request.model.temperature.filter(|_| ours("temperature")) {
            map.serialize_entry("temperature", &temperature)?;
        }
        for (field, value) in request.model.effort.map(|effort| effort::fields(request, effort)).unwrap_or_default() {
            if ours(field) {
                map.serialize_entry(field, &value)?;
            }
        }
        if let Some(system) = request.system.as_deref().filter(|text| !text.trim().is_empty() && ours("system")) {
            map.serialize_entry("system", &[Part::Text { text: Cow::Borrowed(system), cache_control: Some(MARK) }])?;
        }
        if !request.tools.is_empty() && ours("tools") {
            map.serialize_entry("tools", &Tools(&request.tools))?;
        }
        map.serialize_entry("messages", &self.messages)?;
        for (field, value) in extra.into_iter().flatten() {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize, Clone, Copy)]
struct Mark {
    #[serde(rename = "type")]
    kind: &'static str,
}

const MARK: Mark = Mark { kind: "ephemeral" };

#[derive(serde::Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Vec<Part<'a>>,
}

#[derive(serde::Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
    Image {
        source: WireSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
    Document {
        source: WireSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Cow<'a, Value>,
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        extra: Option<&'a Map<String, Value>>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Part<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
    #[serde(untagged)]
    Native(&'a Value),
}

#[derive(serde::Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireSource<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Text { media_type: &'static str, data: Cow<'a, str> },
    Url { url: &'a str },
}

struct Tools<'a>(&'a [ToolSpec]);

impl Serialize for Tools<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Tool<'a> {
            name: &'a str,
            description: &'a str,
            input_schema: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            cache_control: Option<Mark>,
        }
        let last = self.0.len() - 1; // INVARIANT: only made for tools that are there
        serializer.collect_seq(self.0.iter().enumerate().map(|(at, tool)| Tool {
            name: &tool.name,
            description: &tool.description,
            input_schema: &tool.input_schema,
            cache_control: (at == last).then_some(MARK),
        }))
    }
}

fn messages(request: &ModelRequest) -> Result<Vec<WireMessage<'_>>, ModelError> {
    let mut out = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let content = parts(message)?;
        if !content.is_empty() {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            out.push(WireMessage { role, content });
        }
    }
    let users = out.iter_mut().rev().filter(|message| message.role == "user");
    users.take(2).filter_map(|message| message.content.last_mut()).for_each(Part::mark);
    Ok(out)
}

fn parts(message: &Message) -> Result<Vec<Part<'_>>, ModelError> {
    let mut out = Vec::with_capacity(message.blocks.len());
    for block in &message.blocks {
        out.extend(part(block)?);
    }
    // The API refuses empty and blank text, and a turn of the user cannot be left out.
    if out.is_empty() && message.role == Role::User {
        out.push(Part::text("(empty message)"));
    }
    Ok(out)
}

fn part(block: &Block) -> Result<Option<Part<'_>>, ModelError> {
    Ok(Some(match block {
        Block::Content(content) => return content_part(content),
        Block::System(text) => Part::Text { text: Cow::Owned(system_text(text)), cache_control: None },
        Block::Thinking(native) if native.dialect == DIALECT => Part::Native(&native.block),
        Block::Thinking(_) => return Ok(None),
        Block::ToolUse { provider_call_id, name, input, raw_arguments, native } => Part::ToolUse {
            id: provider_call_id,
            name,
            input: replayed_input(input, raw_arguments.as_deref()),
            extra: native.as_ref().filter(|n| n.dialect == DIALECT).and_then(|n| n.block.as_object()),
        },
        Block::ToolResult { provider_call_id, content, is_error } => {
            let content: Result<Vec<_>, _> = content.iter().map(content_part).collect();
            let content = content?.into_iter().flatten().collect();
            Part::ToolResult { tool_use_id: provider_call_id, content, is_error: *is_error, cache_control: None }
        }
    }))
}

fn content_part(content: &ContentBlock) -> Result<Option<Part<'_>>, ModelError> {
    Ok(match content {
        ContentBlock::Text { text } if text.trim().is_empty() => None,
        ContentBlock::Text { text } => Some(Part::text(text)),
        ContentBlock::Image { source } => {
            wire_source(source)?.map(|source| Part::Image { source, cache_control: None })
        }
        ContentBlock::Document { source, title, context } => wire_source(source)?.map(|source| Part::Document {
            source,
            title: title.as_deref(),
            context: context.as_deref(),
            cache_control: None,
        }),
    })
}

/// `None` for a file, which `check_sources` has refused already. The wire takes base64 of pdf and images only, so text
/// that came as base64 is sent as text.
fn wire_source(source: &Source) -> Result<Option<WireSource<'_>>, ModelError> {
    Ok(match source {
        Source::Base64 { media_type, data } if media_type.starts_with("text/") => {
            let unreadable = || {
                ModelError::new(
                    ErrorClass::BadRequest,
                    format!("a document of type `{media_type}` is not base64 of UTF-8 text"),
                )
            };
            let bytes = BASE64_STANDARD.decode(data).map_err(|_| unreadable())?;
            let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
            Some(WireSource::Text { media_type: "text/plain", data: Cow::Owned(text) })
        }
        Source::Base64 { media_type, data } => Some(WireSource::Base64 { media_type, data }),
        Source::Text { data, .. } => Some(WireSource::Text { media_type: "text/plain", data: Cow::Borrowed(data) }),
        Source::Url { url } => Some(WireSource::Url { url }),
        Source::File { .. } => None,
    })
}

impl<'a> Part<'a> {
    fn text(text: &'a str) -> Self {
        Part::Text { text: Cow::Borrowed(text), cache_control: None }
    }

    fn mark(&mut self) {
        match self {
            Part::Text { cache_control, .. }
            | Part::Image { cache_control, .. }
            | Part::Document { cache_control, .. }
            | Part::ToolResult { cache_control, .. } => *cache_control = Some(MARK),
            Part::ToolUse { .. } | Part::Native(_) => {}
        }
    }
}
