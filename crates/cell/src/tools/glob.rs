//! `glob`: files by the pattern of their path, newest first.

use super::Ending;
use super::fields::Fields;
use super::path::{at, resolve, shown};
use super::worker::Fault;
use crate::limits::GLOB_PATHS_MAX;
use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use loopd_domain::Invalid;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that matches. Sorts by age, then by name so that the order is always the same.
type Found = (SystemTime, Reverse<PathBuf>);

pub fn run(input: &Value, base: &Path) -> Result<Ending, Fault> {
    let fields = Fields::of(input)?;
    let pattern = fields.filled_text("pattern", "a pattern, e.g. `src/**/*.rs`")?;
    let start = resolve("path", fields.optional_text("path")?.as_deref().unwrap_or("."), base)?;
    if !start.metadata().map_err(|e| at(&start, e))?.is_dir() {
        return Err(Fault::Refused(format!(
            "`{}` is not a directory; accepted: a directory to start at",
            start.display()
        )));
    }
    let (start, pattern) = split(&start, pattern);
    let matcher = compile(&pattern)?;
    let depth = if pattern.contains("**") { None } else { Some(pattern.split('/').count()) };
    let (found, total) = newest(&start, &matcher, depth);
    if total == 0 {
        return Ok(Ending::fine("no matches"));
    }
    let mut lines: Vec<_> = found.iter().map(|(_, Reverse(path))| shown(path, base).into_owned()).collect();
    if total > lines.len() {
        lines.push(format!("[the newest {} of {total} matches; narrow the pattern to see others]", lines.len()));
    }
    Ok(Ending::fine(lines.join("\n")))
}

/// Moves the leading parts of a pattern that are plain names to the directory, so that nothing else is walked.
fn split(start: &Path, pattern: &str) -> (PathBuf, String) {
    let mut start = start.to_owned();
    let mut rest = pattern;
    if rest.starts_with('/') {
        start = PathBuf::from("/");
        rest = rest.trim_start_matches('/');
    }
    while let Some((name, after)) = rest.split_once('/') {
        if name.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            break;
        }
        if name != "." {
            start.push(name);
        }
        rest = after.trim_start_matches('/');
    }
    (start, rest.to_owned())
}

fn compile(pattern: &str) -> Result<GlobMatcher, Invalid> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    let fault = |fault: globset::Error| {
        Invalid::new(
            "pattern",
            pattern,
            format!("a glob pattern with `*`, `?`, `**`, `[…]`, `{{a,b}}` ({})", fault.kind()),
        )
    };
    Ok(glob.map_err(fault)?.compile_matcher())
}

/// The newest files that match, and how many match in all.
fn newest(start: &Path, matcher: &GlobMatcher, depth: Option<usize>) -> (Vec<Found>, usize) {
    let mut kept: BinaryHeap<Reverse<Found>> = BinaryHeap::new();
    let mut total = 0;
    // What cannot be looked into has no files for this user.
    for entry in WalkBuilder::new(start).standard_filters(false).max_depth(depth).build().flatten() {
        let is_file = entry.file_type().is_some_and(|kind| !kind.is_dir());
        let relative = entry.path().strip_prefix(start).unwrap_or(entry.path());
        if !is_file || !matcher.is_match(relative) {
            continue;
        }
        total += 1;
        let modified = entry.metadata().ok().and_then(|m| m.modified().ok()).unwrap_or(SystemTime::UNIX_EPOCH);
        kept.push(Reverse((modified, Reverse(entry.into_path()))));
        if kept.len() > GLOB_PATHS_MAX {
            kept.pop();
        }
    }
    (kept.into_sorted_vec().into_iter().map(|Reverse(found)| found).collect(), total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::content::ContentBlock;
    use serde_json::json;
    use std::fs::{self, File};
    use std::time::Duration;

    fn glob(base: &Path, input: Value) -> Result<Vec<String>, String> {
        let ending = run(&input, base).map_err(|fault| fault.to_string())?;
        match ending.content.as_slice() {
            [ContentBlock::Text { text }] => Ok(text.lines().map(str::to_owned).collect()),
            other => panic!("{other:?}"),
        }
    }

    fn touch(base: &Path, name: &str, age: u64) {
        let path = base.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        let file = File::create(path).expect("created");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age)).expect("time");
    }

    #[test]
    fn newest_first_and_stars_do_not_cross_directories() {
        let dir = tempfile::tempdir().expect("directory");
        for (name, age) in [("a.rs", 3), ("src/b.rs", 1), ("src/deep/c.rs", 2), ("src/.hidden.rs", 4), ("d.txt", 0)] {
            touch(dir.path(), name, age);
        }
        let found = |pattern: &str| glob(dir.path(), json!({ "pattern": pattern })).expect("valid");
        assert_eq!(found("**/*.rs"), ["src/b.rs", "src/deep/c.rs", "a.rs", "src/.hidden.rs"]);
        assert_eq!(found("*.rs"), ["a.rs"]);
        assert_eq!(found("src/*.rs"), ["src/b.rs", "src/.hidden.rs"]);
        assert_eq!(found("./src/**/c.{rs,txt}"), ["src/deep/c.rs"]);
        assert_eq!(found("*.py"), ["no matches"]);
        assert_eq!(found(&format!("{}/src/b*", dir.path().display())), ["src/b.rs"]);
        assert_eq!(glob(dir.path(), json!({"pattern": "*", "path": "src/deep"})), Ok(vec!["src/deep/c.rs".into()]));
    }

    #[test]
    fn says_when_there_are_more() {
        let dir = tempfile::tempdir().expect("directory");
        for n in 0..GLOB_PATHS_MAX as u64 + 5 {
            touch(dir.path(), &format!("f{n:03}"), n);
        }
        let found = glob(dir.path(), json!({"pattern": "f*"})).expect("valid");
        assert_eq!(found.len(), GLOB_PATHS_MAX + 1);
        assert_eq!((found[0].as_str(), found[199].as_str()), ("f000", "f199"));
        assert_eq!(found[200], "[the newest 200 of 205 matches; narrow the pattern to see others]");
    }

    #[test]
    fn bad_patterns_and_places() {
        let dir = tempfile::tempdir().expect("directory");
        let fault = |input| glob(dir.path(), input).expect_err("refused");
        assert!(fault(json!({"pattern": "a[b"})).starts_with("`pattern` is `a[b`; accepted: a glob pattern"));
        assert!(fault(json!({"pattern": "*", "path": "absent"})).contains("No such file"));
        touch(dir.path(), "f", 0);
        assert!(fault(json!({"pattern": "*", "path": "f"})).contains("is not a directory"));
        assert!(fault(json!({})).starts_with("`pattern` is missing"));
    }
}
