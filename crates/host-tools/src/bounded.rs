//! Text of a stranger's answer within its limit, and the word for what was left out.

use loopd_domain::limits::{HOST_ANSWER_BYTES_MAX, TOOL_RESULT_BYTES_MAX};

/// An answer's bytes as they come: the head is kept, the rest is counted.
#[derive(Debug, Default)]
pub(crate) struct Bounded {
    head: Vec<u8>,
    bytes: usize,
}

impl Bounded {
    /// Takes a piece. False when no more should be read.
    pub(crate) fn push(&mut self, piece: &[u8]) -> bool {
        self.bytes += piece.len();
        // A character more than is shown, so that one that is cut in half can be told from one that is none.
        let room = (TOOL_RESULT_BYTES_MAX + 4).saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.bytes < HOST_ANSWER_BYTES_MAX
    }

    /// As the model reads it. `kind` is the content type, for what is no text.
    pub(crate) fn into_text(self, kind: &str) -> String {
        let whole = self.head.len() == self.bytes;
        let text = match String::from_utf8(self.head) {
            Ok(text) => text,
            Err(fault) if !whole && fault.utf8_error().error_len().is_none() => {
                String::from_utf8_lossy(fault.as_bytes()).into_owned()
            }
            Err(_) => return format!("[{} bytes of `{kind}`, which is not text in UTF-8; not shown]", self.bytes),
        };
        cut(text, self.bytes)
    }
}

/// Room for the note on what was left out, and for a sentence before the text.
const SLACK: usize = 256;

/// At most as much of `text` as a result may have; `bytes` is how long it was before anything was left out.
pub(crate) fn cut(text: String, bytes: usize) -> String {
    let most = TOOL_RESULT_BYTES_MAX - SLACK;
    if bytes <= most {
        return text;
    }
    let end = text.floor_char_boundary(most);
    let left_out = bytes - end;
    let more = if bytes >= HOST_ANSWER_BYTES_MAX { "more than " } else { "" };
    format!("{}\n[{more}{left_out} bytes were cut off here]", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> String {
        let mut bounded = Bounded::default();
        pieces.iter().for_each(|piece| _ = bounded.push(piece));
        bounded.into_text("application/json")
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(read(&[b"{\"a\"", b":1}"]), "{\"a\":1}");
        let most = "x".repeat(TOOL_RESULT_BYTES_MAX - SLACK);
        assert_eq!(read(&[most.as_bytes()]), most);
    }

    #[test]
    fn what_is_longer_is_cut_between_characters_and_says_how_much() {
        let long = "é".repeat(TOOL_RESULT_BYTES_MAX);
        let text = read(&[long.as_bytes()]);
        assert!(text.len() <= TOOL_RESULT_BYTES_MAX, "{}", text.len());
        let (kept, note) = text.rsplit_once('\n').expect("a note");
        assert_eq!(note, format!("[{} bytes were cut off here]", long.len() - kept.len()));
    }

    #[test]
    fn reading_stops_where_counting_does() {
        let mut bounded = Bounded::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (1..).find(|_| !bounded.push(&piece)).expect("an end");
        assert_eq!(taken, HOST_ANSWER_BYTES_MAX >> 20);
        assert!(bounded.into_text("text/plain").contains("more than "));
    }

    #[test]
    fn what_is_no_text_is_named() {
        assert_eq!(read(&[b"\xff\xd8"]), "[2 bytes of `application/json`, which is not text in UTF-8; not shown]");
    }
}
