//! What the shell is fed for one command, and how its end is recognised.
//!
//! A command is one single-quoted word to `eval`, so nothing in it can break out of its line: not an open quote, not a
//! here-document, not a comment. While it runs, its input is /dev/null, its output is the pipe whatever earlier commands
//! did to the shell's own descriptors, and neither the shell's input nor the status pipe is open in anything it starts.

use crate::variables::Variables;

/// Where the shell finds its two pipes. High, so that scripts do not step on them.
pub const STATUS_FD: i32 = 250;
pub const OUTPUT_FD: i32 = 251;

/// Bytes of the status pipe that are kept while looking for a line; nobody honest writes more.
const STATUS_BYTES_MAX: usize = 4 << 10;

/// The line for one command. `nonce` is a word that the status line begins with.
pub fn line(command: &str, nonce: &str) -> String {
    let quoted = command.replace('\'', r"'\''");
    format!(
        "eval '{quoted}' </dev/null >&{OUTPUT_FD} 2>&1 {STATUS_FD}>&- {OUTPUT_FD}>&-; builtin echo {nonce} \"$?\" >&{STATUS_FD}\n"
    )
}

/// What changes the environment of the shell, and thereby of all that it starts from now on; to be put before a line. Names must
/// be names that a shell takes.
pub fn change(before: &Variables, after: &Variables) -> String {
    let mut text = String::new();
    for (name, _) in before.iter().filter(|(name, _)| !after.contains(name)) {
        text.push_str(&format!("builtin unset -v {name}; "));
    }
    for (name, value) in after.iter().filter(|(name, value)| before.get(name) != Some(value)) {
        text.push_str(&format!("builtin export {name}='{}'; ", value.replace('\'', r"'\''")));
    }
    text
}

/// Collects what comes through the status pipe.
#[derive(Debug, Default)]
pub struct Statuses {
    text: Vec<u8>,
}

impl Statuses {
    pub fn push(&mut self, bytes: &[u8]) {
        let room = STATUS_BYTES_MAX.saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The exit status of the command with this nonce, once it has come. Other lines are not ours and are dropped.
    pub fn take(&mut self, nonce: &str) -> Option<i32> {
        let end = self.text.iter().rposition(|b| *b == b'\n')?;
        let lines: Vec<u8> = self.text.drain(..=end).collect();
        let status = |line: &[u8]| std::str::from_utf8(line).ok()?.strip_prefix(nonce)?.strip_prefix(' ')?.parse().ok();
        lines.split(|b| *b == b'\n').find_map(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_break_out() {
        let line = line("echo 'a' \"b\n", "n1");
        assert!(line.starts_with(r#"eval 'echo '\''a'\'' "b"#), "{line}");
        assert_eq!(line.matches('\n').count(), 2);
    }

    #[test]
    fn only_what_changes_is_said() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Variables::accept(pairs.collect()).0
        };
        let (before, after) = (of(&[("A", "1"), ("B", "2"), ("C", "3")]), of(&[("A", "1"), ("B", "it's"), ("D", "4")]));
        let expected = r"builtin unset -v C; builtin export B='it'\''s'; builtin export D='4'; ";
        assert_eq!(change(&before, &after), expected);
        assert_eq!(change(&after, &after), "");
    }

    #[test]
    fn only_the_right_nonce_counts() {
        let mut statuses = Statuses::default();
        statuses.push(b"other 0\nn1");
        assert_eq!(statuses.take("n1"), None);
        statuses.push(b"7 1\nn1 3\n");
        assert_eq!(statuses.take("n1"), Some(3));
        statuses.push(&[b'x'; 10_000]);
        statuses.push(b"\nn1 0\n");
        assert_eq!(statuses.take("n1"), None, "a flooded pipe tells nothing");
    }
}
