//! What a fake must know of a request: the wire, the system prompt, how many answers there were, the last result.
//!
//! Reads both wires into the same facts without building the whole document: benchmarks send long histories.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Anthropic,
    OpenAi,
}

#[derive(Debug)]
pub(super) struct History {
    pub model: String,
    pub stream: bool,
    pub system: String,
    pub answers: usize,
    pub last_result: String,
    pub last_text: String,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(default)]
    stream: bool,
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

impl History {
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let body: Body<'_> = serde_json::from_slice(body)?;
        let mut history = History {
            model: body.model.into_owned(),
            stream: body.stream,
            system: body.system.map(plain).unwrap_or_default(),
            answers: body.messages.iter().filter(|message| message.role == "assistant").count(),
            last_result: String::new(),
            last_text: String::new(),
        };
        if let Some(first) = body.messages.first().filter(|first| matches!(&*first.role, "system" | "developer")) {
            history.system = first.content.map(plain).unwrap_or_default();
        }
        history.read_last(&body.messages);
        Ok(history)
    }

    /// Results and text after the last answer.
    fn read_last(&mut self, messages: &[Message<'_>]) {
        let recent = messages.iter().rev().take_while(|message| message.role != "assistant");
        let recent: Vec<&Message<'_>> = recent.collect();
        for message in recent.into_iter().rev() {
            let Some(content) = message.content else { continue };
            if message.role == "tool" {
                self.last_result = plain(content);
                continue;
            }
            if let Some(result) = parts(content).into_iter().rfind(|part| part.kind == "tool_result") {
                self.last_result = result.content.map(Content::plain).unwrap_or_default();
            }
            self.last_text = plain(content);
        }
    }
}

impl Content {
    fn plain(self) -> String {
        match self {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                let texts: Vec<String> = parts.into_iter().filter_map(|part| part.text).collect();
                texts.join("\n")
            }
        }
    }
}

/// A string, or the texts of a list of parts; anything else is empty.
fn plain(content: &RawValue) -> String {
    serde_json::from_str::<Content>(content.get()).map(Content::plain).unwrap_or_default()
}

fn parts(content: &RawValue) -> Vec<Part> {
    match serde_json::from_str::<Content>(content.get()) {
        Ok(Content::Parts(parts)) => parts,
        _ => Vec::new(),
    }
}
