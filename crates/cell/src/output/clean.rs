//! Bytes of a terminal program to plain text, piece by piece: valid UTF-8, no escape sequences, no NUL.
//!
//! A piece may end in the middle of a character or of a sequence; the next piece goes on there.

use memchr::memchr2;

const ESCAPE: u8 = 0x1b;
const REPLACEMENT: &str = "\u{fffd}";

#[derive(Debug, Default)]
pub struct Cleaner {
    /// The start of a character whose end has not come yet; at most three bytes.
    pending: Vec<u8>,
    state: State,
}

/// Where in an escape sequence we are (ECMA-48).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte: one final byte follows.
    Charset,
    /// After ESC [: parameters until a final byte.
    Control,
    /// After ESC ] and its like: text until BEL, ESC \ or, so that a stray one swallows no more than its line, a line end.
    String,
    StringEscape,
}

impl Cleaner {
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty() {
            return self.decode(bytes, out);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        self.decode(&joined, out);
    }

    /// Nothing more will come: half a character becomes a replacement character.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.strip(REPLACEMENT, out);
        }
    }

    fn decode(&mut self, mut bytes: &[u8], out: &mut String) {
        while !bytes.is_empty() {
            let fault = match std::str::from_utf8(bytes) {
                Ok(text) => return self.strip(text, out),
                Err(fault) => fault,
            };
            let (valid, rest) = bytes.split_at(fault.valid_up_to());
            self.strip(std::str::from_utf8(valid).expect("from_utf8 said so"), out);
            let Some(bad) = fault.error_len() else {
                self.pending = rest.to_vec();
                return;
            };
            self.strip(REPLACEMENT, out);
            bytes = &rest[bad..];
        }
    }

    fn strip(&mut self, mut text: &str, out: &mut String) {
        while !text.is_empty() {
            if self.state == State::Text {
                let end = memchr2(ESCAPE, 0, text.as_bytes()).unwrap_or(text.len());
                out.push_str(&text[..end]);
                match text.as_bytes().get(end) {
                    Some(&ESCAPE) => self.state = State::Escape,
                    Some(_) => out.push_str(REPLACEMENT),
                    None => return,
                }
                text = &text[end + 1..];
            } else {
                text = self.in_sequence(text);
            }
        }
    }

    /// Takes sequence bytes off the front of `text`, until the state is `Text` again or `text` is used up.
    fn in_sequence<'a>(&mut self, text: &'a str) -> &'a str {
        for (at, byte) in text.bytes().enumerate() {
            let next = match (self.state, byte) {
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
                (State::Escape | State::Charset, 0x20..=0x2f) => State::Charset,
                (State::Control, 0x20..=0x3f) => State::Control,
                (State::Escape | State::Charset, 0x30..=0x7e) | (State::Control, 0x40..=0x7e) => State::Text,
                (State::String, 0x07) | (State::StringEscape, b'\\') => State::Text,
                (State::String | State::StringEscape, ESCAPE) => State::StringEscape,
                (State::Escape | State::Charset | State::Control, ESCAPE) => State::Escape,
                (State::String | State::StringEscape, byte) if byte != b'\n' => State::String,
                // Not a sequence after all: what broke it is text. It starts a character, for all before it were ASCII, or
                // it is a line end.
                _ => {
                    self.state = State::Text;
                    return &text[at..];
                }
            };
            self.state = next;
            if next == State::Text {
                return &text[at + 1..];
            }
        }
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(pieces: &[&[u8]]) -> String {
        let (mut cleaner, mut out) = (Cleaner::default(), String::new());
        pieces.iter().for_each(|p| cleaner.push(p, &mut out));
        cleaner.finish(&mut out);
        out
    }

    /// A whole, and what it must become wherever it is cut in two.
    fn check(whole: &[u8], expected: &str) {
        for cut in 0..=whole.len() {
            let (a, b) = whole.split_at(cut);
            assert_eq!(clean(&[a, b]), expected, "{:?} cut at {cut}", String::from_utf8_lossy(whole));
        }
        assert_eq!(clean(&whole.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn plain_text_is_untouched() {
        check("héllo 世界 🦀\r\n\ttab".as_bytes(), "héllo 世界 🦀\r\n\ttab");
    }

    #[test]
    fn invalid_bytes_are_replaced() {
        check(b"a\xff\xfeb\xe4\xb8c\xf0\x9f", "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}");
        check(b"nul\0!", "nul\u{fffd}!");
    }

    #[test]
    fn escape_sequences_go() {
        check(b"\x1b[1;31mred\x1b[0m \x1b[?25lx\x1b(By\x1b7z", "red xyz");
        check(b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb");
        check(b"\x1b\x1b[2Jx", "x");
    }

    #[test]
    fn a_broken_sequence_swallows_no_more_than_its_line() {
        check(b"\x1b]never closed\nnext", "\nnext");
        check("\x1b[31é".as_bytes(), "é");
        check("\x1b]é\x07ok".as_bytes(), "ok");
        check(b"end\x1b", "end");
    }
}
