//! `grep`: lines that match a regular expression, as `rg -n --no-heading` finds them.

use super::Ending;
use super::fields::Fields;
use super::path::{at, refuse_irregular, resolve, shown};
use super::worker::Fault;
use crate::limits::{GREP_HEAP_BYTES_MAX, GREP_LINE_BYTES_MAX};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, MmapChoice, Searcher, SearcherBuilder, Sink, SinkFinish, SinkMatch};
use ignore::WalkBuilder;
use loopd_domain::Invalid;
use loopd_domain::limits::TOOL_RESULT_BYTES_MAX;
use serde_json::Value;
use std::io;
use std::path::Path;

/// Room for the last line, which says that there is more.
const TEXT_BYTES_MAX: usize = TOOL_RESULT_BYTES_MAX - 256;

pub fn run(input: &Value, base: &Path) -> Result<Ending, Fault> {
    let fields = Fields::of(input)?;
    let matcher = compile(fields.filled_text("pattern", "a regular expression")?)?;
    let start = resolve("path", fields.optional_text("path")?.as_deref().unwrap_or("."), base)?;
    let mut found = Found::default();
    let metadata = start.metadata().map_err(|e| at(&start, e))?;
    if metadata.is_dir() {
        found.search_below(&start, base, &matcher);
    } else {
        refuse_irregular(&start, &metadata)?;
        found.search(&start, base, &matcher, &mut searcher());
    }
    Ok(Ending::fine(found.finish()))
}

fn compile(pattern: &str) -> Result<RegexMatcher, Invalid> {
    RegexMatcherBuilder::new().line_terminator(Some(b'\n')).build(pattern).map_err(|fault| {
        let accepted = match position(pattern) {
            Some((at, why)) => format!("a regular expression; at character {at}: {why}"),
            None => format!("a regular expression that matches within one line ({fault})"),
        };
        Invalid::new("pattern", pattern, accepted)
    })
}

/// Where a pattern is wrong, in characters from 1, and why.
fn position(pattern: &str) -> Option<(usize, String)> {
    let (offset, why) = match regex_syntax::parse(pattern).err()? {
        regex_syntax::Error::Parse(fault) => (fault.span().start.offset, fault.kind().to_string()),
        regex_syntax::Error::Translate(fault) => (fault.span().start.offset, fault.kind().to_string()),
        other => (0, other.to_string()),
    };
    Some((pattern.get(..offset)?.chars().count() + 1, why))
}

fn searcher() -> Searcher {
    let mut builder = SearcherBuilder::new();
    builder.line_number(true).binary_detection(BinaryDetection::quit(0)).memory_map(MmapChoice::never());
    builder.heap_limit(Some(GREP_HEAP_BYTES_MAX)).build()
}

#[derive(Debug, Default)]
struct Found {
    text: String,
    full: bool,
    /// Files that could not be searched, and why the first of them could not.
    unread: usize,
    first_fault: String,
}

impl Found {
    fn search_below(&mut self, start: &Path, base: &Path, matcher: &RegexMatcher) {
        let mut searcher = searcher();
        let walk = WalkBuilder::new(start).sort_by_file_name(|a, b| a.cmp(b)).build();
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    self.search(entry.path(), base, matcher, &mut searcher);
                }
                Ok(_) => {}
                Err(fault) => self.fail(&fault.to_string()),
            }
            if self.full {
                break;
            }
        }
    }

    fn search(&mut self, path: &Path, base: &Path, matcher: &RegexMatcher, searcher: &mut Searcher) {
        let mut file = InFile { path: &shown(path, base), before: self.text.len(), found: self };
        if let Err(fault) = searcher.search_path(matcher, path, &mut file) {
            self.fail(&format!("`{}`: {fault}", path.display()));
        }
    }

    fn fail(&mut self, fault: &str) {
        self.unread += 1;
        if self.unread == 1 {
            self.first_fault = fault.to_owned();
        }
    }

    fn finish(self) -> String {
        let mut text = self.text;
        if text.is_empty() {
            text.push_str("no matches\n");
        }
        if self.full {
            text.push_str("[cut at 100 KiB; narrow the pattern or the path to see the rest]\n");
        }
        if self.unread > 0 {
            let why: String = self.first_fault.chars().take(120).collect();
            text.push_str(&format!("[{} could not be searched, the first: {why}]\n", self.unread));
        }
        text.truncate(text.trim_end_matches('\n').len());
        text
    }
}

/// Takes the matches of one file.
struct InFile<'a> {
    path: &'a str,
    /// Bytes of text before this file's matches.
    before: usize,
    found: &'a mut Found,
}

impl Sink for InFile<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, line: &SinkMatch<'_>) -> Result<bool, io::Error> {
        let number = line.line_number().unwrap_or(0);
        let bytes = line.bytes().strip_suffix(b"\n").unwrap_or(line.bytes());
        let shown = &bytes[..bytes.len().min(GREP_LINE_BYTES_MAX)];
        let mut text = format!("{}:{number}:{}", self.path, String::from_utf8_lossy(shown));
        if shown.len() < bytes.len() {
            text.push_str(&format!(" [… {} more bytes]", bytes.len() - shown.len()));
        }
        text.push('\n');
        self.found.full = self.found.text.len() + text.len() > TEXT_BYTES_MAX;
        if !self.found.full {
            self.found.text.push_str(&text);
        }
        Ok(!self.found.full)
    }

    /// What looked like text was not: nothing of it counts.
    fn binary_data(&mut self, _: &Searcher, _: u64) -> Result<bool, io::Error> {
        self.found.text.truncate(self.before);
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, end: &SinkFinish) -> Result<(), io::Error> {
        if end.binary_byte_offset().is_some() {
            self.found.text.truncate(self.before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::content::ContentBlock;
    use serde_json::json;
    use std::fs;

    fn grep(base: &Path, input: Value) -> Result<String, String> {
        let ending = run(&input, base).map_err(|fault| fault.to_string())?;
        match ending.content.as_slice() {
            [ContentBlock::Text { text }] => Ok(text.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("directory");
        let files: [(&str, &[u8]); 6] = [
            ("a.txt", b"needle one\nhay\nneedle two"),
            ("sub/b.txt", b"a needle"),
            ("ignored.log", b"needle"),
            (".gitignore", b"*.log\n"),
            ("binary", b"needle\n\0\0"),
            (".git/config", b"needle"),
        ];
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, content).expect("written");
        }
        dir
    }

    #[test]
    fn finds_lines_as_rg_does() {
        let dir = tree();
        let all = "a.txt:1:needle one\na.txt:3:needle two\nsub/b.txt:1:a needle";
        assert_eq!(grep(dir.path(), json!({"pattern": "needle"})), Ok(all.into()));
        assert_eq!(grep(dir.path(), json!({"pattern": "^needle t", "path": "a.txt"})), Ok("a.txt:3:needle two".into()));
        assert_eq!(grep(dir.path(), json!({"pattern": "needle", "path": "sub"})), Ok("sub/b.txt:1:a needle".into()));
        assert_eq!(grep(dir.path(), json!({"pattern": "Needle"})), Ok("no matches".into()));
    }

    #[test]
    fn a_wrong_pattern_is_pointed_at() {
        let dir = tree();
        let fault = grep(dir.path(), json!({"pattern": "é(b"})).expect_err("refused");
        assert_eq!(fault, "`pattern` is `é(b`; accepted: a regular expression; at character 2: unclosed group");
        let fault = grep(dir.path(), json!({"pattern": "a\\nb"})).expect_err("refused");
        assert!(fault.contains("within one line"), "{fault}");
    }

    #[test]
    fn stays_within_a_result() {
        let dir = tree();
        fs::write(dir.path().join("big"), "needle in a line\n".repeat(20_000)).expect("written");
        fs::write(dir.path().join("long"), format!("needle{}", "x".repeat(10_000))).expect("written");
        let text = grep(dir.path(), json!({"pattern": "needle", "path": "big"})).expect("found");
        assert!(text.len() <= TOOL_RESULT_BYTES_MAX && text.len() > 90 << 10);
        assert!(text.ends_with("[cut at 100 KiB; narrow the pattern or the path to see the rest]"));
        let text = grep(dir.path(), json!({"pattern": "needle", "path": "long"})).expect("found");
        assert!(text.ends_with("xx [… 7958 more bytes]"), "{}", &text[text.len() - 40..]);
    }
}
