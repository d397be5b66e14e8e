//! A trace as text for a terminal: an indented tree, the figures in columns at the right, error texts in full below their
//! line. Names and messages come from models and providers: control characters never reach the terminal.

use super::{Span, SpanKind, SpanStatus, Trace};
use crate::semconv;
use loopd_domain::environment::Accelerator;
use loopd_domain::usage::MicroUsd;
use serde_json::Value;

/// Narrower terminals get lines of this width.
const WIDTH_MIN: usize = 60;
/// Waits shorter than this are not worth a word.
const WAIT_SHOWN_MS: u64 = 10;

/// The whole tree, one line a span, each line at most `width` characters, with a final line feed.
pub fn render_tree(trace: &Trace, width: usize, colour: bool) -> String {
    let mut page = Page { width: width.max(WIDTH_MIN), colour, text: String::new() };
    page.line("", "", &figures("time", "in", "out", "cost"), Paint::Dim);
    page.span(&trace.root, "", "", &trace.root.children);
    page.text
}

struct Page {
    width: usize,
    colour: bool,
    text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Paint {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Cyan,
}

impl Page {
    /// One span with all below it. `lead` stands before its own line, `below` before the lines of its children.
    fn span(&mut self, span: &Span, lead: &str, below: &str, children: &[Span]) {
        let figures = span_figures(span);
        let room = self.room(lead, &figures);
        let mut label = clean(&label(span));
        let mut rest = Vec::new();
        for note in notes(span) {
            let note = clean(&note);
            match rest.is_empty() && label.chars().count() + 2 + note.chars().count() <= room {
                true => label = format!("{label}  {note}"),
                false => rest.push(note),
            }
        }
        self.line(lead, &label, &figures, paint(span));
        let bar = if children.is_empty() { "   " } else { "│  " };
        let message = span.message.as_deref().map(clean).unwrap_or_default();
        for text in [rest.join(", "), message].iter().filter(|t| !t.is_empty()) {
            self.paragraph(&format!("{below}{bar}"), text, paint(span));
        }
        for (place, child) in children.iter().enumerate() {
            let (fork, rail) = if place + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.span(child, &format!("{below}{fork}"), &format!("{below}{rail}"), &child.children);
        }
    }

    fn line(&mut self, lead: &str, label: &str, figures: &str, paint: Paint) {
        let room = self.room(lead, figures);
        let label = shorten(label, room);
        let gap = " ".repeat(room + 1 - label.chars().count());
        let line =
            format!("{}{}{gap}{}", self.paint(lead, Paint::Dim), self.paint(&label, paint), figures.trim_start());
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Characters that a label may have. Figures end at the right edge, and the label may reach into columns that are empty
    /// on its line.
    fn room(&self, lead: &str, figures: &str) -> usize {
        let taken = lead.chars().count() + figures.trim_start().chars().count() + 1;
        self.width.saturating_sub(taken).max(8)
    }

    /// A text in full, broken between words.
    fn paragraph(&mut self, lead: &str, text: &str, paint: Paint) {
        let room = self.width.saturating_sub(lead.chars().count()).max(16);
        for row in wrap(text, room) {
            let line = format!("{}{}", self.paint(lead, Paint::Dim), self.paint(&row, paint));
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn paint(&self, text: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Plain => return text.to_owned(),
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Yellow => 33,
            Paint::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn paint(span: &Span) -> Paint {
    match (span.status, span.kind) {
        (SpanStatus::Error, _) => Paint::Red,
        (SpanStatus::Interrupted | SpanStatus::Unknown, _) | (_, SpanKind::Recovery) => Paint::Yellow,
        (_, SpanKind::Session) if is_emulated(span) => Paint::Yellow,
        (_, SpanKind::Session | SpanKind::Turn) => Paint::Bold,
        (SpanStatus::Open, _) => Paint::Cyan,
        (SpanStatus::Ok, _) => Paint::Plain,
    }
}

fn label(span: &Span) -> String {
    match span.kind {
        SpanKind::Session => format!("session {}", text(span, semconv::CONVERSATION_ID).unwrap_or_default()),
        SpanKind::Turn => format!("turn {}", number(span, semconv::LOOPD_TURN).unwrap_or_default()),
        SpanKind::ModelCall => {
            let (provider, model) = (text(span, semconv::PROVIDER_NAME), text(span, semconv::REQUEST_MODEL));
            format!("{}/{}", provider.unwrap_or_default(), model.unwrap_or_default())
        }
        SpanKind::ToolCall => format!("tool {}", text(span, semconv::TOOL_NAME).unwrap_or_default()),
        SpanKind::Connection => {
            let (host, port) = (text(span, semconv::SERVER_ADDRESS), number(span, semconv::SERVER_PORT));
            format!("connect {}:{}", host.unwrap_or_default(), port.unwrap_or_default())
        }
        SpanKind::Step | SpanKind::ClientWait | SpanKind::RetryWait | SpanKind::Recovery => span.name.clone(),
    }
}

fn is_emulated(span: &Span) -> bool {
    text(span, semconv::LOOPD_SANDBOX_ACCELERATOR) == Some(Accelerator::Emulation.as_str())
}

/// What is unusual about a span, most important first.
fn notes(span: &Span) -> Vec<String> {
    let mut notes = Vec::new();
    let kind = text(span, semconv::ERROR_TYPE).unwrap_or_default();
    match span.status {
        SpanStatus::Error => notes.push(format!("error {kind}").trim_end().to_owned()),
        SpanStatus::Interrupted => notes.push("interrupted".to_owned()),
        SpanStatus::Unknown => notes.push("outcome unknown".to_owned()),
        SpanStatus::Open if span.kind != SpanKind::Session => notes.push("open".to_owned()),
        SpanStatus::Open | SpanStatus::Ok => {}
    }
    if let Some(status) = number(span, semconv::HTTP_STATUS) {
        notes.push(format!("http {status}"));
    }
    if let Some(attempt) = number(span, semconv::LOOPD_ATTEMPT).filter(|n| *n > 1) {
        notes.push(format!("attempt {attempt}"));
    }
    if let Some(reason) = text(span, semconv::LOOPD_STOP_REASON) {
        notes.push(reason.to_owned());
    }
    if span.attributes.contains_key(semconv::LOOPD_OUTPUT_REJECTED) {
        notes.push("answer rejected".to_owned());
    }
    if let Some(verdict) = text(span, semconv::LOOPD_CALL_VERDICT) {
        notes.push(format!("client: {verdict}"));
    }
    if let Some(isolation) = text(span, semconv::LOOPD_SANDBOX_ISOLATION).filter(|_| span.kind == SpanKind::Session) {
        notes.push(match text(span, semconv::LOOPD_SANDBOX_ACCELERATOR) {
            _ if is_emulated(span) => format!("{isolation}, emulated: slow"),
            Some(accelerator) => format!("{isolation} ({accelerator})"),
            None => isolation.to_owned(),
        });
    }
    if span.attributes.contains_key(semconv::LOOPD_SANDBOX_WOKEN) {
        notes.push("room woken".to_owned());
    }
    let waits = [
        (semconv::LOOPD_SANDBOX_WAITED_MS, "waited for a room"),
        (semconv::LOOPD_QUEUE_WAITED_MS, "input queued"),
        (semconv::LOOPD_CALL_WAITED_MS, "waited"),
        (semconv::LOOPD_FIRST_TOKEN_MS, "first token"),
    ];
    for (name, word) in waits {
        if let Some(ms) = number(span, name).filter(|ms| *ms >= WAIT_SHOWN_MS) {
            notes.push(format!("{word} {}", duration(ms)));
        }
    }
    if let Some(placed) = span.attributes.get(semconv::LOOPD_NETWORK_CREDENTIALS).and_then(Value::as_array) {
        notes.push(match placed.len() {
            1 => "1 credential".to_owned(),
            n => format!("{n} credentials"),
        });
    }
    if span.kind == SpanKind::Connection && span.status == SpanStatus::Ok {
        let bytes = |name| size(number(span, name).unwrap_or_default());
        let (out, back) = (bytes(semconv::LOOPD_NETWORK_BYTES_OUT), bytes(semconv::LOOPD_NETWORK_BYTES_IN));
        notes.push(format!("{out} out, {back} in"));
    }
    if let Some(count) = number(span, semconv::LOOPD_NETWORK_OMITTED) {
        notes.push(format!("{count} connections more"));
    }
    if let Some(inputs) = number(span, semconv::LOOPD_QUEUE_LENGTH) {
        notes.push(format!("{inputs} queued"));
    }
    notes
}

fn span_figures(span: &Span) -> String {
    let time = match span.kind {
        SpanKind::Recovery => String::new(),
        _ => span.duration_ms.map(duration).unwrap_or_default(),
    };
    let count = |name| number(span, name).map(tokens).unwrap_or_default();
    let cost = match (number(span, semconv::USAGE_INPUT_TOKENS), span.cost) {
        // Nothing was spent yet.
        (None, _) => String::new(),
        (Some(_), None) => "?".to_owned(),
        (Some(_), Some(cost)) => dollars(cost),
    };
    figures(&time, &count(semconv::USAGE_INPUT_TOKENS), &count(semconv::USAGE_OUTPUT_TOKENS), &cost)
}

/// The columns at the right: duration, tokens in, tokens out, cost. All rows have the same width.
fn figures(time: &str, input: &str, output: &str, cost: &str) -> String {
    format!("{time:>8} {input:>7} {output:>7} {cost:>11}")
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(Value::as_str)
}

fn number(span: &Span, name: &str) -> Option<u64> {
    span.attributes.get(name).and_then(Value::as_u64)
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=59 => format!("{seconds}.{:02}s", ms % 1_000 / 10),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn tokens(count: u64) -> String {
    match count {
        0..=9_999 => count.to_string(),
        10_000..=999_999 => format!("{}.{}k", count / 1_000, count % 1_000 / 100),
        1_000_000..=999_999_999 => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
        _ => ">999M".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=999_999 => format!("{} kB", bytes / 1_000),
        1_000_000..=999_999_999 => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

fn dollars(cost: MicroUsd) -> String {
    let (whole, part) = (cost.0 / 1_000_000, cost.0 % 1_000_000);
    match whole {
        0..=999 => format!("${whole}.{part:06}"),
        1_000..=999_999 => format!("${whole}.{:02}", part / 10_000),
        _ => ">$999999".to_owned(),
    }
}

/// One line without control characters: a terminal must not obey what a model or a provider wrote.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction_mark(c) { ' ' } else { c }).collect()
}

/// Marks that make a terminal show text in another order than it stands.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shorten(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let row = rows.last_mut().expect("starts with one row and only grows");
            let used = row.chars().count();
            let space = usize::from(used > 0);
            if used + space + word.len() <= room {
                row.push_str(&" ".repeat(space));
                row.extend(word.drain(..));
            } else if used == 0 {
                row.extend(word.drain(..room));
            } else {
                rows.push(String::new());
            }
        }
    }
    rows
}
