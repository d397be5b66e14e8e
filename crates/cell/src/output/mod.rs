//! What a command printed: its head and tail in bounded memory, the whole in a spill file, the newest as a preview.
//!
//! ```text
//!  bytes ─► clean (UTF-8, no escape sequences) ─┬► head ─► tail (the end wins)
//!                                               ├► spill, once head and tail are full
//!                                               └► preview, handed out every now and then
//! ```

mod clean;
mod spill;

use crate::limits::{OUTPUT_END_BYTES_MAX, PREVIEW_BYTES_MAX};
use crate::tool_user::ToolUser;
use clean::Cleaner;
use spill::Spill;

/// The output of one command.
#[derive(Debug, Default)]
pub struct Output {
    cleaner: Cleaner,
    /// Text of the current piece, kept to save an allocation per piece.
    piece: String,
    head: String,
    tail: String,
    /// Bytes that were in `tail` and had to go.
    left_out: u64,
    spill: Spill,
    preview: String,
    /// Bytes that came in since the call began, or since the one before it ended.
    printed: u64,
}

impl Output {
    /// From here on, output that does not fit is written to a file that is named after `call`.
    pub fn spill_as(&mut self, call: &str, user: &ToolUser) {
        if self.left_out == 0 {
            self.spill = Spill::planned(call, user);
        }
    }

    pub fn printed(&self) -> u64 {
        self.printed
    }

    /// A call begins; what jobs in the background printed before is not its doing.
    pub fn count_anew(&mut self) {
        self.printed = 0;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.printed += bytes.len() as u64;
        let mut piece = std::mem::take(&mut self.piece);
        self.cleaner.push(bytes, &mut piece);
        self.take(&piece);
        piece.clear();
        self.piece = piece;
    }

    /// What came in since the last time, or the end of it. Empty when nothing did.
    pub fn take_preview(&mut self) -> String {
        std::mem::take(&mut self.preview)
    }

    pub fn has_preview(&self) -> bool {
        !self.preview.is_empty()
    }

    /// Everything as one text that fits in a tool result; a line in the middle says what is missing and where it is.
    pub fn finish(mut self) -> String {
        let mut rest = String::new();
        self.cleaner.finish(&mut rest);
        self.take(&rest);
        keep_end(&mut self.tail, OUTPUT_END_BYTES_MAX, &mut self.left_out);
        let mut text = self.head;
        if self.left_out > 0 {
            let left_out = self.left_out;
            let whole = self.spill.describe();
            text.push_str(&format!("\n[… {left_out} bytes of output left out here; {whole} …]\n"));
        }
        text.push_str(&self.tail);
        text
    }

    fn take(&mut self, text: &str) {
        self.preview.push_str(text);
        keep_end(&mut self.preview, PREVIEW_BYTES_MAX, &mut 0);
        self.spill.append(text);
        let (head, rest) = text.split_at(fitting(text, OUTPUT_END_BYTES_MAX - self.head.len()));
        // Once something went to the tail, what follows does too, even if a smaller character would still fit the head.
        let (head, rest) = if self.tail.is_empty() { (head, rest) } else { ("", text) };
        self.head.push_str(head);
        if self.tail.len() + rest.len() > OUTPUT_END_BYTES_MAX {
            self.spill.open(&[&self.head, &self.tail, rest]);
        }
        self.tail.push_str(rest);
        if self.tail.len() > 2 * OUTPUT_END_BYTES_MAX {
            keep_end(&mut self.tail, OUTPUT_END_BYTES_MAX, &mut self.left_out);
        }
    }
}

/// Bytes at the start of `text` that are whole characters and not more than `max`.
fn fitting(text: &str, max: usize) -> usize {
    text.floor_char_boundary(max)
}

/// Cuts `text` down to its last `max` bytes, and counts what went.
fn keep_end(text: &mut String, max: usize, gone: &mut u64) {
    if text.len() > max {
        let cut = text.ceil_char_boundary(text.len() - max);
        text.drain(..cut);
        *gone += cut as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SPILL_BYTES_MAX;
    use loopd_domain::limits::TOOL_RESULT_BYTES_MAX;

    fn printed(pieces: &[&[u8]]) -> String {
        let mut output = Output::default();
        pieces.iter().for_each(|p| output.push(p));
        output.finish()
    }

    #[test]
    fn small_output_is_whole() {
        assert_eq!(printed(&[b"one\n", b"two\n"]), "one\ntwo\n");
        assert_eq!(printed(&[]), "");
    }

    #[test]
    fn large_output_keeps_both_ends_within_the_limit() {
        let whole: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let text = printed(&whole.as_bytes().chunks(7_919).collect::<Vec<_>>());
        assert!(text.len() <= TOOL_RESULT_BYTES_MAX, "{} bytes", text.len());
        assert!(text.starts_with("line 0\nline 1\n"));
        assert!(text.ends_with("line 99998\nline 99999\n"));
        let kept = 2 * OUTPUT_END_BYTES_MAX;
        assert!(text.contains(&format!("[… {} bytes of output left out here", whole.len() - kept)));
    }

    #[test]
    fn nothing_is_lost_at_the_seam() {
        let whole = "ü".repeat(OUTPUT_END_BYTES_MAX - 10);
        assert_eq!(printed(&whole.as_bytes().chunks(333).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn the_whole_is_in_the_spill_file() {
        let directory = tempfile::tempdir().expect("directory");
        let user = ToolUser::for_test(directory.path());
        let whole: String = (0..60_000).map(|n| format!("{n}\n")).collect();
        let mut output = Output::default();
        output.spill_as("sevt_1", &user);
        whole.as_bytes().chunks(4_096).for_each(|p| output.push(p));
        let text = output.finish();
        let file = user.spill_directory().join("sevt_1.out");
        assert!(text.contains(&format!("the whole output is in `{}`", file.display())), "{}", &text[50_000..50_500]);
        assert_eq!(std::fs::read_to_string(file).expect("spill file"), whole);
        assert!(SPILL_BYTES_MAX > whole.len() as u64);
    }

    #[test]
    fn a_spill_that_cannot_be_written_is_said() {
        let directory = tempfile::tempdir().expect("directory");
        let user = ToolUser::for_test(&directory.path().join("absent/\0"));
        let mut output = Output::default();
        output.spill_as("sevt_1", &user);
        output.push(&vec![b'x'; 3 * OUTPUT_END_BYTES_MAX]);
        assert!(output.finish().contains("could not be saved"));
    }

    #[test]
    fn a_preview_is_what_is_new() {
        let mut output = Output::default();
        output.push(b"one");
        assert_eq!(output.take_preview(), "one");
        assert!(!output.has_preview());
        output.push(&vec![b'y'; 5 * PREVIEW_BYTES_MAX]);
        assert_eq!(output.take_preview().len(), PREVIEW_BYTES_MAX);
    }
}
