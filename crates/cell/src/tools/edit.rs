//! `edit`: one piece of text for another.

use super::Ending;
use super::fields::Fields;
use super::path::{at, open_file, resolve};
use super::worker::Fault;
use super::write::replace;
use crate::limits::EDIT_FILE_BYTES_MAX;
use loopd_domain::Invalid;
use memchr::memmem;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

pub fn run(input: &Value, base: &Path) -> Result<Ending, Fault> {
    let fields = Fields::of(input)?;
    let path = resolve("file_path", fields.filled_text("file_path", "the path of a file")?, base)?;
    let old = fields.filled_text("old_string", "the text to replace, exactly as it stands in the file")?;
    let new = fields.text("new_string", "the text to put there, which may be an empty string")?;
    let all = fields.optional_bool("replace_all")?.unwrap_or(false);
    if old == new {
        return Err(Invalid::new("new_string", new, "a text that differs from old_string").into());
    }
    let content = content(&path)?;
    let places: Vec<usize> = memmem::find_iter(&content, old).collect();
    let shown = path.display();
    match places.len() {
        0 => {
            let hint = if old.contains('\n') && memmem::find(&content, b"\r\n").is_some() {
                "; lines of this file end in \\r\\n"
            } else {
                ""
            };
            Err(Fault::Refused(format!("old_string not found in {shown}{hint}")))
        }
        times if times > 1 && !all => Err(Fault::Refused(format!(
            "old_string appears {times} times in {shown} (must be unique); take in more of the text around it, or set replace_all"
        ))),
        times => {
            replace(&path, &with(&content, &places, old.len(), new.as_bytes()))?;
            let s = if times == 1 { "" } else { "s" };
            Ok(Ending::fine(format!("edited {shown} ({times} replacement{s})")))
        }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, Fault> {
    let (file, metadata) = open_file(path)?;
    let mut content = Vec::new();
    let read = file.take(EDIT_FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|e| at(path, e))?;
    if read as u64 > EDIT_FILE_BYTES_MAX {
        return Err(Fault::Refused(format!(
            "`{}` has {} bytes; accepted: at most {EDIT_FILE_BYTES_MAX} (use bash, e.g. `sed -i`)",
            path.display(),
            metadata.len()
        )));
    }
    Ok(content)
}

/// `content` with `new` in place of the `length` bytes at each of `places`, which are in order and do not overlap.
fn with(content: &[u8], places: &[usize], length: usize, new: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(content.len() + places.len() * new.len());
    let mut from = 0;
    for place in places {
        result.extend_from_slice(&content[from..*place]);
        result.extend_from_slice(new);
        from = place + length;
    }
    result.extend_from_slice(&content[from..]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn edit(base: &Path, input: Value) -> Result<Ending, String> {
        run(&input, base).map_err(|fault| fault.to_string())
    }

    #[test]
    fn one_place_or_all() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("f");
        // Bytes that are no UTF-8 must survive.
        fs::write(&path, b"a b\xff a b").expect("written");
        let shown = path.display();
        let fault =
            edit(dir.path(), json!({"file_path": "f", "old_string": "a b", "new_string": "c"})).expect_err("twice");
        assert!(fault.starts_with(&format!("old_string appears 2 times in {shown} (must be unique)")), "{fault}");
        let all = json!({"file_path": "f", "old_string": "a b", "new_string": "c", "replace_all": true});
        assert_eq!(edit(dir.path(), all), Ok(Ending::fine(format!("edited {shown} (2 replacements)"))));
        assert_eq!(fs::read(&path).expect("there"), b"c\xff c");
        let one = json!({"file_path": "f", "old_string": " c", "new_string": ""});
        assert_eq!(edit(dir.path(), one), Ok(Ending::fine(format!("edited {shown} (1 replacement)"))));
        assert_eq!(fs::read(&path).expect("there"), b"c\xff");
    }

    #[test]
    fn says_why_not() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("f"), "one\r\ntwo\r\n").expect("written");
        let fault = |old: &str, new: &str| {
            edit(dir.path(), json!({"file_path": "f", "old_string": old, "new_string": new})).expect_err("refused")
        };
        assert!(fault("three", "x").starts_with("old_string not found in "));
        assert!(fault("one\ntwo", "x").ends_with("lines of this file end in \\r\\n"));
        assert!(fault("", "x").starts_with("`old_string` is missing or empty"));
        assert!(fault("one", "one").contains("a text that differs from old_string"));
        assert_eq!(fs::read_to_string(dir.path().join("f")).expect("there"), "one\r\ntwo\r\n");
        let absent = edit(dir.path(), json!({"file_path": "g", "old_string": "a", "new_string": "b"}));
        assert!(absent.expect_err("refused").contains("No such file"));
    }
}
