//! A turn as it happens: events of the wire in, lines on the screen out.
//!
//! Text of the model is shown as it streams; the event that follows supersedes its preview, so only what the preview had not
//! shown yet is added. So it is with the output of a tool, as long as its call is the only open one: calls of one step may
//! overlap, and then each result names its call.

use super::progress::ProgressLine;
use super::text::{one_line, printable, seconds};
use super::{Ink, Screen};
use serde_json::Value;
use std::io;

/// Lines of a tool's output that are shown: the first and the last ones.
const OUTPUT_HEAD_LINES: usize = 12;
const OUTPUT_TAIL_LINES: usize = 8;
const LINE_CHARS_MAX: usize = 240;
const INPUT_CHARS_MAX: usize = 160;

pub struct StepsView {
    screen: Screen,
    /// The message that is being previewed: its id and the text shown so far.
    preview: Option<(String, String)>,
    /// Calls without a result, oldest first.
    open: Vec<OpenCall>,
    /// The cursor stands in the middle of a line.
    in_line: bool,
    progress: ProgressLine,
}

struct OpenCall {
    id: String,
    name: String,
    /// Output that has come and does not end a line yet.
    rest: String,
    /// Lines of output that are on the screen.
    shown: Vec<String>,
}

impl StepsView {
    pub fn new(screen: Screen) -> Self {
        StepsView { screen, preview: None, open: Vec::new(), in_line: false, progress: ProgressLine::default() }
    }

    /// Shows one event. Kinds that say nothing to a person are passed over.
    pub fn show(&mut self, event: &Value) -> io::Result<()> {
        let kind = event["type"].as_str().unwrap_or("");
        if kind == "loopd.room_progress" {
            self.end_line()?;
            self.progress.show(&mut self.screen, event)?;
            return self.screen.flush();
        }
        self.progress.clear(&mut self.screen)?;
        match kind {
            "user.message" => self.user(event),
            "user.interrupt" => self.note(Ink::Yellow, "interrupted"),
            "event_start" if event["event"]["type"] == "agent.message" => self.preview_start(&event["event"]),
            "event_delta" => self.preview_text(event),
            "agent.message" => self.message(event),
            "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use" => self.call(event),
            "loopd.tool_output" => self.tool_output(event),
            "agent.tool_result" => self.result(event, event["tool_use_id"].as_str()),
            "agent.mcp_tool_result" => self.result(event, event["mcp_tool_use_id"].as_str()),
            "user.custom_tool_result" => self.result(event, event["custom_tool_use_id"].as_str()),
            "session.error" => self.error(&event["error"]),
            "loopd.session_recovered" => self.note(Ink::Yellow, &said("recovered", &event["message"])),
            "loopd.outcome_unknown" => self.note(Ink::Yellow, &said("in doubt", &event["message"])),
            "loopd.room_started" => self.note(Ink::Dim, &room_started(event)),
            "loopd.room_restarted" => self.note(Ink::Dim, &said("room restarted", &event["message"])),
            "loopd.network_connection" => self.connection(event),
            "loopd.output_rejected" => self.note(Ink::Yellow, &said("answer rejected", &event["message"])),
            "session.status_terminated" => self.note(Ink::Red, &said("session ended", &event["reason"])),
            _ => Ok(()),
        }?;
        self.screen.flush()
    }

    /// Lines that are not events: before the turn and after it.
    pub fn note(&mut self, ink: Ink, text: &str) -> io::Result<()> {
        self.progress.clear(&mut self.screen)?;
        self.end_line()?;
        self.screen.line(ink, text)?;
        self.screen.flush()
    }

    fn user(&mut self, event: &Value) -> io::Result<()> {
        self.end_line()?;
        self.screen.put(Ink::Cyan, "> ")?;
        self.screen.line(Ink::Plain, &printable(&text_of(&event["content"])).replace('\n', "\n  "))
    }

    /// One that came to its end is the trace's to show.
    fn connection(&mut self, event: &Value) -> io::Result<()> {
        let outcome = &event["outcome"];
        let verb = match outcome["type"].as_str() {
            Some("refused") => "connection refused",
            Some("violation") => "connection stopped",
            _ => return Ok(()),
        };
        self.note(Ink::Yellow, &said(verb, &outcome["reason"]))
    }

    fn preview_start(&mut self, started: &Value) -> io::Result<()> {
        self.end_line()?;
        self.preview = started["id"].as_str().map(|id| (id.to_owned(), String::new()));
        Ok(())
    }

    fn preview_text(&mut self, event: &Value) -> io::Result<()> {
        let Some((id, shown)) = &mut self.preview else { return Ok(()) };
        if event["event_id"].as_str() != Some(id) {
            return Ok(());
        }
        let text = event["delta"]["content"]["text"].as_str().unwrap_or("");
        shown.push_str(text);
        self.flow(text)
    }

    fn message(&mut self, event: &Value) -> io::Result<()> {
        let whole = text_of(&event["content"]);
        let shown = match self.preview.take() {
            Some((id, shown)) if event["id"].as_str() == Some(&id) => shown,
            _ => String::new(),
        };
        match whole.strip_prefix(&shown) {
            Some(rest) => self.flow(rest)?,
            None => {
                self.end_line()?;
                self.flow(&whole)?;
            }
        }
        self.end_line()
    }

    fn call(&mut self, event: &Value) -> io::Result<()> {
        self.end_line()?;
        let name = event["name"].as_str().unwrap_or("tool");
        let id = event["id"].as_str().unwrap_or("").to_owned();
        self.open.push(OpenCall { id, name: name.to_owned(), rest: String::new(), shown: Vec::new() });
        self.screen.put(Ink::Cyan, "  ▸ ")?;
        self.screen.put(Ink::Bold, &one_line(name, 64))?;
        self.screen.line(Ink::Plain, &format!(" {}", input_summary(&event["input"])))?;
        match event["evaluated_permission"].as_str() {
            Some("ask") => self.screen.line(Ink::Yellow, "    waits for your approval"),
            Some("deny") => self.screen.line(Ink::Red, "    denied by policy"),
            _ => Ok(()),
        }
    }

    fn tool_output(&mut self, event: &Value) -> io::Result<()> {
        let [call] = self.open.as_mut_slice() else { return Ok(()) };
        if event["tool_use_id"].as_str() != Some(&call.id) {
            return Ok(());
        }
        call.rest.push_str(event["text"].as_str().unwrap_or(""));
        while let Some((line, rest)) = call.rest.split_once('\n') {
            // More than this would not be shown of the whole either.
            if call.shown.len() < OUTPUT_HEAD_LINES {
                let line = fit(&printable(line));
                put_output(&mut self.screen, &line)?;
                call.shown.push(line);
            }
            call.rest = rest.to_owned();
        }
        Ok(())
    }

    fn result(&mut self, event: &Value, call: Option<&str>) -> io::Result<()> {
        self.end_line()?;
        let found = self.open.iter().position(|open| Some(open.id.as_str()) == call);
        let call = found.map(|at| self.open.remove(at));
        let overlaps = !self.open.is_empty();
        let whole = shortened(&text_of(&event["content"]));
        let shown = call.as_ref().map_or(0, |call| if whole.starts_with(&call.shown) { call.shown.len() } else { 0 });
        for line in &whole[shown..] {
            put_output(&mut self.screen, line)?;
        }
        let failed = event["is_error"] == true;
        let (ink, mark) = if failed { (Ink::Red, "    ✗ ") } else { (Ink::Green, "    ✓ ") };
        self.screen.put(ink, mark)?;
        let mut facts: Vec<String> = Vec::new();
        facts.extend(call.filter(|_| overlaps).map(|call| one_line(&call.name, 64)));
        facts.extend(event["outcome"].as_str().and_then(outcome_words).map(str::to_owned));
        facts.extend(event["duration_ms"].as_u64().map(seconds));
        self.screen.line(Ink::Dim, &facts.join(", "))
    }

    fn error(&mut self, error: &Value) -> io::Result<()> {
        let message = printable(error["message"].as_str().unwrap_or("the session met an error"));
        let (ink, after) = match error["retry_status"]["type"].as_str() {
            Some("retrying") => (Ink::Yellow, " (trying again)"),
            _ => (Ink::Red, ""),
        };
        self.note(ink, &format!("  ! {message}{after}"))
    }

    fn flow(&mut self, text: &str) -> io::Result<()> {
        let text = printable(text);
        if !text.is_empty() {
            self.screen.put(Ink::Plain, &text)?;
            self.in_line = !text.ends_with('\n');
        }
        Ok(())
    }

    fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.in_line) {
            self.screen.line(Ink::Plain, "")?;
        }
        Ok(())
    }
}

fn outcome_words(outcome: &str) -> Option<&'static str> {
    match outcome {
        "timed_out" => Some("timed out"),
        "interrupted" => Some("interrupted"),
        "not_run" => Some("not run"),
        "unknown" => Some("may or may not have happened"),
        _ => None,
    }
}

fn said(what: &str, message: &Value) -> String {
    match message.as_str().filter(|text| !text.is_empty()) {
        Some(text) => format!("  {what}: {}", printable(text)),
        None => format!("  {what}"),
    }
}

/// The texts of content blocks, and a word for what is not text.
pub fn text_of(content: &Value) -> String {
    let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = blocks.iter().map(|block| match block["type"].as_str() {
        Some("text") => block["text"].as_str().unwrap_or("").to_owned(),
        other => format!("[{}]", other.unwrap_or("block")),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The one argument that says most, or all of them.
fn input_summary(input: &Value) -> String {
    let telling = ["command", "file_path", "pattern", "path", "query", "url"];
    let first = telling.iter().find_map(|key| input[*key].as_str());
    let rest = || match input.as_object().is_some_and(|o| o.is_empty()) {
        true => String::new(),
        false => input.to_string(),
    };
    one_line(&first.map_or_else(rest, str::to_owned), INPUT_CHARS_MAX)
}

fn shortened(output: &str) -> Vec<String> {
    let text = printable(output);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.len() <= OUTPUT_HEAD_LINES + OUTPUT_TAIL_LINES + 1 {
        return lines.iter().map(|line| fit(line)).collect();
    }
    let left_out = lines.len() - OUTPUT_HEAD_LINES - OUTPUT_TAIL_LINES;
    let mut shown: Vec<String> = lines[..OUTPUT_HEAD_LINES].iter().map(|line| fit(line)).collect();
    shown.push(format!("… {left_out} more lines …"));
    shown.extend(lines[lines.len() - OUTPUT_TAIL_LINES..].iter().map(|line| fit(line)));
    shown
}

fn fit(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}

fn put_output(screen: &mut Screen, line: &str) -> io::Result<()> {
    screen.put(Ink::Dim, "    │ ")?;
    screen.line(Ink::Plain, line)
}

/// What stands around the room, how its processor is made, and how long it took.
fn room_started(event: &Value) -> String {
    let kind = event["isolation"].as_str().unwrap_or("room");
    let processor = match event["accelerator"].as_str() {
        Some("emulation") => ", its processor emulated in software: slow".to_owned(),
        Some(accelerator) => format!(", {accelerator}"),
        None => String::new(),
    };
    let came = if event["woken"] == true { "woken" } else { "ready" };
    let waited_ms = event["waited_ms"].as_u64().unwrap_or(0);
    printable(&format!("{kind}{processor}; {came} after {}.{} s", waited_ms / 1_000, waited_ms % 1_000 / 100))
}

#[cfg(test)]
mod tests;
