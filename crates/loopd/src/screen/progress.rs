//! How far a room is for which a session waits: one line that renews itself on a terminal, and a line now and then elsewhere.

use super::text::{one_line, printable, seconds};
use super::{Ink, Screen};
use loopd_domain::environment::size;
use serde_json::Value;
use std::io;

/// Of a line that renews itself: one that wrapped could not be taken back.
const LINE_CHARS_MAX: usize = 76;
/// Where no line can be renewed, the same stage is told of again after so long.
const AGAIN_MS: u64 = 10_000;

/// What was told last.
#[derive(Default)]
pub struct ProgressLine {
    /// Stage, of what, and which part; and when.
    told: Option<(String, u64)>,
    /// It stands on the terminal, and the cursor behind it.
    stands: bool,
}

impl ProgressLine {
    pub fn show(&mut self, screen: &mut Screen, event: &Value) -> io::Result<()> {
        let waited_ms = event["waited_ms"].as_u64().unwrap_or(0);
        if screen.renews() {
            self.clear(screen)?;
            screen.put(Ink::Dim, &one_line(&words(event), LINE_CHARS_MAX))?;
            self.stands = true;
            return Ok(());
        }
        let key = format!("{} {} {}", event["stage"], event["what"], event["part"]);
        let is_news = self.told.as_ref().is_none_or(|(told, at)| *told != key || waited_ms >= at + AGAIN_MS);
        if is_news {
            self.told = Some((key, waited_ms));
            screen.line(Ink::Dim, &one_line(&words(event), 2 * LINE_CHARS_MAX))?;
        }
        Ok(())
    }

    /// Something else is about to be said.
    pub fn clear(&mut self, screen: &mut Screen) -> io::Result<()> {
        match std::mem::take(&mut self.stands) {
            true => screen.renew(),
            false => Ok(()),
        }
    }
}

fn words(event: &Value) -> String {
    let verb = match event["stage"].as_str().unwrap_or("") {
        "queue" => "waiting for others before",
        "find" => "asking for",
        "pull" => "fetching",
        "unpack" => "unpacking",
        "install" => "installing",
        "disk" => "making",
        "boot" => "booting",
        "start" => "starting the room",
        other => other,
    };
    let mut text = verb.to_owned();
    if let Some(what) = event["what"].as_str() {
        text.push_str(&format!(" {what}"));
    }
    if let (Some(part), Some(parts)) = (event["part"].as_u64(), event["parts"].as_u64()) {
        text.push_str(&format!(", {part} of {parts}"));
    }
    let amount = |bytes: u64| match event["unit"].as_str() {
        Some("bytes") => size(bytes),
        Some("lines") if bytes == 1 => "1 line".to_owned(),
        Some(unit) => format!("{bytes} {unit}"),
        None => bytes.to_string(),
    };
    match (event["done"].as_u64(), event["total"].as_u64()) {
        (Some(done), Some(total)) => text.push_str(&format!(": {} of {}", amount(done), amount(total))),
        (Some(done), None) => text.push_str(&format!(": {}", amount(done))),
        (None, _) => {}
    }
    text.push_str(&format!(", {}", seconds(event["waited_ms"].as_u64().unwrap_or(0))));
    if let Some(line) = event["line"].as_str() {
        text.push_str(&format!(" · {line}"));
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_are_for_people() {
        let pull = json!({"stage": "pull", "what": "image `a`", "part": 2, "parts": 5, "done": 1_048_576, "total": 4_194_304,
                          "unit": "bytes", "waited_ms": 5_300});
        assert_eq!(words(&pull), "fetching image `a`, 2 of 5: 1 MiB of 4 MiB, 5.30 s");
        let install = json!({"stage": "install", "what": "packages by pip", "done": 3, "unit": "lines", "line": "Collecting x\u{1b}[2J",
                             "waited_ms": 2_000});
        assert_eq!(words(&install), "installing packages by pip: 3 lines, 2.00 s · Collecting x");
        assert_eq!(words(&json!({"stage": "start", "waited_ms": 1_000})), "starting the room, 1.00 s");
    }
}
