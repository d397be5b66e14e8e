//! `builtin/shell`: runs the fenced shell commands of the user's message as tool calls, then answers with what they printed.

use super::{Model, result_text, tell, usage};
use crate::draft::Sink;
use crate::provider::{Answer, ModelError, ModelRequest};
use async_trait::async_trait;
use loopd_domain::agent::Builtin;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Message, Role};
use loopd_domain::event::AnswerStop;
use serde_json::{Value, json};
use std::fmt::Write;

/// Bytes of one result that the final answer repeats.
const QUOTE_BYTES_MAX: usize = 8 << 10;

const USAGE: &str = "I am builtin/shell, a scripted model: I understand nothing, but I run every fenced block of shell \
commands in your message, and answer with what they printed. Send, for example:\n\n```sh\nuname -a\n```";

pub(crate) struct Shell;

#[async_trait]
impl Model for Shell {
    async fn answer(&self, request: &ModelRequest, sink: &mut Sink<'_>) -> Result<Answer, ModelError> {
        let (text, commands) = reply(request);
        let mut blocks = vec![Block::Content(ContentBlock::Text { text: text.clone() })];
        let step = request.messages.len();
        blocks.extend(commands.iter().enumerate().map(|(at, command)| Block::ToolUse {
            provider_call_id: format!("call_{step}_{at}"),
            name: Builtin::Bash.name().to_owned(),
            input: json!({ "command": command }),
            raw_arguments: None,
            native: None,
        }));
        for (index, block) in blocks.iter().enumerate() {
            tell(index, block, text.split_inclusive('\n').map(str::to_owned), sink);
        }
        let stop = if commands.is_empty() { AnswerStop::EndTurn } else { AnswerStop::ToolUse };
        let usage = usage(request, &blocks);
        let model = Some("builtin/shell".to_owned());
        Ok(Answer { blocks, stop, stop_details: None, usage, request_id: None, model })
    }
}

/// What to say, and what to run.
fn reply(request: &ModelRequest) -> (String, Vec<String>) {
    let Some(last) = request.messages.iter().rev().find(|message| message.role == Role::User) else {
        return (USAGE.to_owned(), Vec::new());
    };
    let mut text = results(last, &request.messages);
    let commands = fences(&said(last));
    if commands.is_empty() {
        return (if text.is_empty() { USAGE.to_owned() } else { text }, Vec::new());
    }
    if !request.tools.iter().any(|tool| tool.name == Builtin::Bash.name()) {
        text.push_str("I cannot run your commands: this session has no `bash` tool. Give it one and ask again.");
        return (text, Vec::new());
    }
    text.push_str(&announce(&commands));
    (text, commands)
}

fn announce(commands: &[String]) -> String {
    let first = commands[0].lines().next().unwrap_or_default();
    match commands {
        [command] if command.lines().count() <= 1 => format!("I will run `{first}`."),
        [_] => format!("I will run the commands that start with `{first}`."),
        several => format!("I will run {} blocks of commands; the first one starts with `{first}`.", several.len()),
    }
}

/// All text of one message.
fn said(message: &Message) -> String {
    let texts = message.blocks.iter().filter_map(|block| match block {
        Block::Content(ContentBlock::Text { text }) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// What the calls of the last answer printed, each under its command; empty where there are none.
fn results(last: &Message, messages: &[std::sync::Arc<Message>]) -> String {
    let mut out = String::new();
    for block in &last.blocks {
        let Block::ToolResult { provider_call_id, content, is_error } = block else { continue };
        let command = command_of(provider_call_id, messages);
        let shown = command.lines().next().unwrap_or("the command");
        let printed = result_text(content);
        let verb = match (is_error, printed.trim().is_empty()) {
            (true, _) => "failed",
            (false, true) => "printed nothing",
            (false, false) => "printed",
        };
        // Writing into a String cannot fail.
        let _ = match printed.trim().is_empty() {
            true => write!(out, "`{shown}` {verb}.\n\n"),
            false => write!(out, "`{shown}` {verb}:\n\n{}\n\n", quote(&printed)),
        };
    }
    out
}

fn command_of<'a>(call: &str, messages: &'a [std::sync::Arc<Message>]) -> &'a str {
    let blocks = messages.iter().rev().flat_map(|message| &message.blocks);
    let input = blocks.into_iter().find_map(|block| match block {
        Block::ToolUse { provider_call_id, input, .. } if provider_call_id == call => Some(input),
        _ => None,
    });
    input.and_then(|input| input.get("command")).and_then(Value::as_str).unwrap_or_default()
}

/// A fence longer than any in the text, so that the quote ends where it should.
fn quote(text: &str) -> String {
    let mut longest = 2;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let end = text.floor_char_boundary(QUOTE_BYTES_MAX);
    let cut = if end < text.len() { format!("\n… ({} more bytes)", text.len() - end) } else { String::new() };
    format!("{fence}\n{}{cut}\n{fence}", text[..end].trim_end_matches('\n'))
}

/// Contents of the fenced blocks that hold shell commands; a block that is not closed ends with the text.
fn fences(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((fence, info)) = opening(line) else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| !closes(line, fence)).collect();
        let body = body.join("\n");
        if is_shell(info) && !body.trim().is_empty() {
            out.push(body);
        }
    }
    out
}

/// Length of the fence and what stands behind it.
fn opening(line: &str) -> Option<(usize, &str)> {
    let line = line.trim_start_matches(' ');
    let rest = line.trim_start_matches('`');
    let fence = line.len() - rest.len();
    (fence >= 3 && !rest.contains('`')).then(|| (fence, rest.trim()))
}

fn closes(line: &str, fence: usize) -> bool {
    let line = line.trim();
    line.len() >= fence && line.bytes().all(|byte| byte == b'`')
}

fn is_shell(info: &str) -> bool {
    matches!(info.split_whitespace().next().unwrap_or_default(), "" | "bash" | "sh" | "shell")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_of_shell_only_whatever_their_length() {
        let text = "do\n```sh\nls\ncat x\n```\nand\n```python\nprint(1)\n```\n````\necho '```'\n````\n```bash\n\n```\n```\ndate";
        assert_eq!(fences(text), ["ls\ncat x", "echo '```'", "date"]);
        assert!(fences("no `fence` here ```inline```").is_empty());
    }

    #[test]
    fn a_quote_holds_fences_and_is_bounded() {
        assert_eq!(quote("a\n```\nb\n"), "````\na\n```\nb\n````");
        let long = quote(&"é".repeat(10_000));
        assert!(long.len() < QUOTE_BYTES_MAX + 100 && long.contains("more bytes"));
    }
}
