use super::*;
use serde_json::json;
use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("alone").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shown(events: &[Value]) -> String {
    shown_on(Screen::to, events)
}

fn shown_on(screen: impl FnOnce(Box<dyn Write + Send>) -> Screen, events: &[Value]) -> String {
    let sheet = Sheet::default();
    let mut view = StepsView::new(screen(Box::new(sheet.clone())));
    for event in events {
        view.show(event).expect("written");
    }
    let bytes = sheet.0.lock().expect("alone").clone();
    String::from_utf8(bytes).expect("text")
}

fn delta(id: &str, text: &str) -> Value {
    json!({"type": "event_delta", "event_id": id,
           "delta": {"type": "content_delta", "index": 0, "content": {"type": "text", "text": text}}})
}

fn message(id: &str, text: &str) -> Value {
    json!({"type": "agent.message", "id": id, "content": [{"type": "text", "text": text}]})
}

fn start(id: &str) -> Value {
    json!({"type": "event_start", "event": {"type": "agent.message", "id": id}})
}

#[test]
fn a_preview_is_not_shown_twice() {
    assert_eq!(shown(&[start("a"), delta("a", "Hel"), delta("a", "lo"), message("a", "Hello")]), "Hello\n");
}

#[test]
fn a_preview_that_stopped_early_is_completed() {
    assert_eq!(shown(&[start("a"), delta("a", "Hel"), message("a", "Hello there")]), "Hello there\n");
}

#[test]
fn a_preview_that_came_to_something_else_is_followed_by_the_truth() {
    let seen = shown(&[start("a"), delta("a", "Hel"), start("b"), delta("b", "New"), message("b", "New")]);
    assert_eq!(seen, "Hel\nNew\n");
    assert_eq!(shown(&[start("a"), delta("a", "x"), message("a", "Hello")]), "x\nHello\n");
}

#[test]
fn a_call_shows_its_command_its_output_and_its_time() {
    let seen = shown(&[
        json!({"type": "agent.tool_use", "id": "c1", "name": "bash", "input": {"command": "echo hi\necho ho"}}),
        json!({"type": "agent.tool_result", "tool_use_id": "c1", "is_error": false, "outcome": "completed",
               "duration_ms": 42, "content": [{"type": "text", "text": "hi\nho\n"}]}),
    ]);
    assert_eq!(seen, "  ▸ bash echo hi echo ho\n    │ hi\n    │ ho\n    ✓ 0.04 s\n");
}

#[test]
fn output_is_shown_as_it_comes_and_not_twice() {
    let call = json!({"type": "agent.tool_use", "id": "c", "name": "bash", "input": {"command": "x"}});
    let piece = |text: &str| json!({"type": "loopd.tool_output", "tool_use_id": "c", "text": text});
    let result = |text: &str| {
        json!({"type": "agent.tool_result", "tool_use_id": "c", "is_error": false,
                                     "content": [{"type": "text", "text": text}]})
    };
    let early = shown(&[call.clone(), piece("one\ntw"), piece("o\nthr")]);
    assert_eq!(early, "  ▸ bash x\n    │ one\n    │ two\n");
    let whole = shown(&[call.clone(), piece("one\ntw"), piece("o\nthr"), result("one\ntwo\nthree\n")]);
    assert!(whole.starts_with(&early) && whole.ends_with("two\n    │ three\n    ✓ \n"), "{whole}");
    let other = shown(&[call, piece("one\n"), result("the shell was killed")]);
    assert!(other.contains("│ one\n    │ the shell was killed\n"), "{other}");
}

#[test]
fn overlapping_calls_are_told_apart() {
    let call = |id: &str, name: &str| json!({"type": "agent.tool_use", "id": id, "name": name, "input": {}});
    let result = |id: &str| {
        json!({"type": "agent.tool_result", "tool_use_id": id, "is_error": true, "content": [],
                                   "outcome": "unknown", "duration_ms": 0})
    };
    let seen = shown(&[call("1", "read"), call("2", "grep"), result("1"), result("2")]);
    assert!(seen.contains("✗ read, may or may not have happened, 0.00 s\n"), "{seen}");
    assert!(seen.ends_with("✗ may or may not have happened, 0.00 s\n"), "{seen}");
}

#[test]
fn long_output_keeps_head_and_tail() {
    let lines: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    let kept = shortened(&lines.join("\n"));
    assert_eq!(kept.len(), OUTPUT_HEAD_LINES + OUTPUT_TAIL_LINES + 1);
    assert_eq!((kept[0].as_str(), kept.last().map(String::as_str)), ("1", Some("100")));
    assert_eq!(kept[OUTPUT_HEAD_LINES], "… 80 more lines …");
}

#[test]
fn nothing_from_a_tool_reaches_the_terminal_as_a_command() {
    let seen = shown(&[
        json!({"type": "agent.tool_use", "id": "c", "name": "\u{1b}[2Jbash", "input": {"command": "\u{1b}]0;x\u{7}ls"}}),
        json!({"type": "agent.tool_result", "tool_use_id": "c", "is_error": false,
               "content": [{"type": "text", "text": "\u{1b}[31mred"}]}),
        message("m", "\u{1b}[5mblink"),
    ]);
    assert!(!seen.contains('\u{1b}') && seen.contains("red") && seen.contains("blink"), "{seen:?}");
}

#[test]
fn how_far_a_room_is_takes_one_line_of_a_terminal_and_few_elsewhere() {
    let pull = |done: u64, waited_ms: u64| {
        json!({"type": "loopd.room_progress", "stage": "pull", "what": "image `a`", "done": done, "total": 9,
                                                  "unit": "bytes", "waited_ms": waited_ms})
    };
    let boot = json!({"type": "loopd.room_progress", "stage": "boot", "what": "the machine", "waited_ms": 900});
    let events = [pull(1, 100), pull(2, 400), pull(3, 800), boot, message("a", "Hello")];
    let line = |done: u64, at: &str| format!("fetching image `a`: {done} bytes of 9 bytes, {at}");
    assert_eq!(shown(&events), format!("{}\nbooting the machine, 0.90 s\nHello\n", line(1, "0.10 s")));
    let back = "\r\u{1b}[K";
    let on_terminal = shown_on(|sheet| Screen::to(sheet).renewing(), &events);
    let expected = [
        line(1, "0.10 s"),
        line(2, "0.40 s"),
        line(3, "0.80 s"),
        "booting the machine, 0.90 s".to_owned(),
        "Hello\n".to_owned(),
    ];
    assert_eq!(on_terminal, expected.join(back));
    assert_eq!(shown(&[pull(1, 100), pull(2, 10_200)]).lines().count(), 2, "somebody reads a log, and it goes on");
}
