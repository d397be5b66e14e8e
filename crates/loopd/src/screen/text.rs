//! Text made fit for a terminal. Pure.

use serde_json::Value;

/// Text that somebody else wrote, with nothing in it that a terminal would obey: line feeds and tabs stay, a carriage return
/// drops what it would overwrite, escape sequences and other controls go.
pub fn printable(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let last = line.rsplit('\r').next().unwrap_or(line);
        without_controls(last)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn without_controls(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            skip_sequence(&mut chars);
        } else if c == '\t' || !(c.is_control() || is_direction(c)) {
            out.push(c);
        }
    }
    out
}

/// Characters that make a terminal show text in another order than it stands.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// After an escape: a control sequence runs to its final letter, an operating system command to its end mark.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']' | 'P' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// The first `chars` characters on one line.
pub fn one_line(text: &str, chars: usize) -> String {
    let flat = printable(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(chars) {
        Some((cut, _)) => format!("{}…", &flat[..cut]),
        None => flat,
    }
}

/// `0.04 s`, `12.3 s`, `2 min 5 s`.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        10_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// A cost of the wire: US dollars, or null where it is not known.
pub fn money(cost: &Value) -> Option<String> {
    Some(match cost.as_f64()? {
        0.0 => "$0".to_owned(),
        small if small < 0.01 => format!("${small:.6}"),
        other => format!("${other:.4}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        assert_eq!(printable("a\x1b[31mred\x1b[0m\tb\n"), "ared\tb\n");
        assert_eq!(printable("\x1b]0;title\x07x\x1b]52;c;ZXZpbA==\x1b\\y"), "xy");
        assert_eq!(printable("10%\r50%\r100%\r\nnext"), "100%\nnext");
        assert_eq!(printable("\u{9b}31m\u{202e}abc\x07\x08"), "31mabc");
        assert_eq!(printable("cut\x1b["), "cut");
        assert_eq!(printable("héllo 漢字"), "héllo 漢字");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(one_line("a\n  b\tc", 10), "a b c");
        assert_eq!(one_line("ééééé", 3), "ééé…");
        assert_eq!(one_line("ééé", 3), "ééé");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(["0.04 s", "9.99 s"], [seconds(42), seconds(9_999)].map(|s| s).each_ref().map(|s| s.as_str()));
        assert_eq!(seconds(12_345), "12.3 s");
        assert_eq!(seconds(125_000), "2 min 5 s");
    }

    #[test]
    fn an_unknown_cost_is_not_zero() {
        assert_eq!(money(&json!(null)), None);
        assert_eq!(money(&json!(0)), Some("$0".to_owned()));
        assert_eq!(money(&json!(0.0031)), Some("$0.003100".to_owned()));
        assert_eq!(money(&json!(1.5)), Some("$1.5000".to_owned()));
    }
}
