//! A request as Chat Completions wants it, serialised straight from the shared history.
//!
//! One message of ours may be several of theirs: results of tools are messages of their own, right after the assistant's
//! and before anything else of the user's.

use super::parts::{Content, UserPart, content_text, user_part};
use super::{DIALECT, Flavour, reasoning};
use crate::provider::{ErrorClass, ModelError, ModelRequest};
use crate::wire::{check_extra, check_sources, replayed_input, system_text};
use loopd_domain::agent::ToolSpec;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Message, Role};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest routing hint that the API takes.
const CACHE_KEY_CHARS_MAX: usize = 64;

/// The body, or why the request cannot be put into it.
pub(crate) fn body(request: &ModelRequest, flavour: Flavour) -> Result<Vec<u8>, ModelError> {
    check_extra(request.model.extra.as_ref())?;
    check_sources(&request.messages)?;
    let body = Body { request, flavour, messages: messages(request, flavour)? };
    let unserialisable =
        |fault| ModelError::new(ErrorClass::BadRequest, format!("the request cannot be written: {fault}"));
    serde_json::to_vec(&body).map_err(unserialisable)
}

struct Body<'a> {
    request: &'a ModelRequest,
    flavour: Flavour,
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
        if ours("stream_options") {
            map.serialize_entry("stream_options", &json!({"include_usage": true}))?;
        }
        let max_tokens = match self.flavour {
            Flavour::OpenAi => "max_completion_tokens",
            Flavour::Compatible => "max_tokens",
        };
        if ours("max_tokens") && ours("max_completion_tokens") {
            map.serialize_entry(max_tokens, &request.max_tokens)?;
        }
        if let Some(temperature) = request.model.temperature.filter(|_| ours("temperature")) {
            map.serialize_entry("temperature", &temperature)?;
        }
        if let Some(effort) = request.model.effort.filter(|_| ours("reasoning_effort")) {
            map.serialize_entry("reasoning_effort", &effort)?;
        }
        if self.flavour == Flavour::OpenAi && !request.cache_key.is_empty() && ours("prompt_cache_key") {
            let key: String = request.cache_key.chars().take(CACHE_KEY_CHARS_MAX).collect();
            map.serialize_entry("prompt_cache_key", &key)?;
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

struct Tools<'a>(&'a [ToolSpec]);

impl Serialize for Tools<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Tool<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            function: Function<'a>,
        }
        #[derive(serde::Serialize)]
        struct Function<'a> {
            name: &'a str,
            description: &'a str,
            parameters: &'a Value,
        }
        serializer.collect_seq(self.0.iter().map(|tool| Tool {
            kind: "function",
            function: Function { name: &tool.name, description: &tool.description, parameters: &tool.input_schema },
        }))
    }
}

#[derive(serde::Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum WireMessage<'a> {
    System {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        /// Null beside calls where the model said nothing.
        content: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<WireCall<'a>>,
        #[serde(flatten)]
        reasoning: BTreeMap<&'static str, &'a Value>,
    },
    Tool {
        tool_call_id: &'a str,
        content: String,
    },
}

#[derive(serde::Serialize)]
struct WireCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireFunction<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    extra: Option<&'a Map<String, Value>>,
}

#[derive(serde::Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    /// JSON inside a string: that is this wire.
    arguments: String,
}

fn messages(request: &ModelRequest, flavour: Flavour) -> Result<Vec<WireMessage<'_>>, ModelError> {
    let mut out = Vec::with_capacity(request.messages.len() + 1);
    if let Some(content) = request.system.as_deref().filter(|text| !text.trim().is_empty()) {
        out.push(WireMessage::System { content });
    }
    for message in &request.messages {
        match message.role {
            Role::User => user(message, &mut out)?,
            Role::Assistant => out.extend(assistant(message, flavour)),
        }
    }
    Ok(out)
}

fn user<'a>(message: &'a Message, out: &mut Vec<WireMessage<'a>>) -> Result<(), ModelError> {
    let mut parts = Vec::new();
    let mut results = false;
    for block in &message.blocks {
        match block {
            Block::ToolResult { provider_call_id, content, is_error } => {
                results = true;
                let content = result_text(provider_call_id, content, *is_error, &mut parts)?;
                out.push(WireMessage::Tool { tool_call_id: provider_call_id, content });
            }
            Block::Content(content) => parts.push(user_part(content)?),
            Block::System(text) => parts.push(UserPart::text(system_text(text))),
            Block::Thinking(_) | Block::ToolUse { .. } => {} // never a user's
        }
    }
    if !parts.is_empty() || !results {
        out.push(WireMessage::User { content: Content::of(parts) });
    }
    Ok(())
}

/// The text of one result. Messages of tools carry text only, so pictures and files go to `parts`, with a line that says
/// whose they are.
fn result_text<'a>(
    call: &str,
    content: &'a [ContentBlock],
    is_error: bool,
    parts: &mut Vec<UserPart<'a>>,
) -> Result<String, ModelError> {
    let mut texts = Vec::new();
    for block in content {
        match content_text(block)? {
            Some(text) => texts.push(text),
            None => {
                texts.push(Cow::Borrowed("(attached in the next message)"));
                parts.push(UserPart::text(format!("From the result of tool call {call}:")));
                parts.push(user_part(block)?);
            }
        }
    }
    let text = if texts.is_empty() { "(no output)".to_owned() } else { texts.join("\n") };
    Ok(if is_error { format!("[error] {text}") } else { text })
}

/// `None` when nothing is left to send.
fn assistant(message: &Message, flavour: Flavour) -> Option<WireMessage<'_>> {
    let mut texts: Vec<&str> = Vec::new();
    let mut tool_calls = Vec::new();
    for block in &message.blocks {
        match block {
            Block::Content(ContentBlock::Text { text }) => texts.push(text),
            Block::ToolUse { provider_call_id, name, input, raw_arguments, native } => {
                let arguments = replayed_input(input, raw_arguments.as_deref()).to_string();
                let native = native.as_ref().filter(|n| n.dialect == DIALECT && flavour == Flavour::Compatible);
                tool_calls.push(WireCall {
                    id: provider_call_id,
                    kind: "function",
                    function: WireFunction { name, arguments },
                    extra: native.and_then(|n| n.block.as_object()),
                });
            }
            _ => {}
        }
    }
    let content = match texts.as_slice() {
        [] => None,
        [text] => Some(Cow::Borrowed(*text)),
        several => Some(Cow::Owned(several.concat())),
    };
    if content.is_none() && tool_calls.is_empty() {
        return None;
    }
    let reasoning = match flavour {
        Flavour::OpenAi => BTreeMap::new(),
        Flavour::Compatible => reasoning::replay(&message.blocks),
    };
    Some(WireMessage::Assistant { content, tool_calls, reasoning })
}
