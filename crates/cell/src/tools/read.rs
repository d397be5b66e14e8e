//! `read`: a file as the model can take it: text, an image, or a document.

use super::Ending;
use super::fields::Fields;
use super::path::{at, open_file, resolve};
use super::worker::Fault;
use crate::limits::{READ_DOCUMENT_BYTES_MAX, READ_IMAGE_BYTES_MAX, READ_TEXT_BYTES_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loopd_domain::Invalid;
use loopd_domain::content::{ContentBlock, Source};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

/// Bytes at the start of a file that decide what it is.
const PROBE_BYTES: u64 = 8 << 10;

enum Kind {
    Text,
    Image(&'static str),
    Pdf,
    Binary,
}

pub fn run(input: &Value, base: &Path) -> Result<Ending, Fault> {
    let fields = Fields::of(input)?;
    let path = resolve("file_path", fields.filled_text("file_path", "the path of a file")?, base)?;
    let range = fields.optional_pair("view_range")?.map(Lines::new).transpose()?;
    let (mut file, metadata) = open_file(&path)?;
    let mut probe = Vec::new();
    file.by_ref().take(PROBE_BYTES).read_to_end(&mut probe).map_err(|e| at(&path, e))?;
    file.rewind().map_err(|e| at(&path, e))?;
    let size = metadata.len();
    match kind(&probe, &path) {
        Kind::Text => text(file, &path, size, range),
        Kind::Image(media_type) => {
            let source = encoded(file, &path, size, media_type, READ_IMAGE_BYTES_MAX)?;
            Ok(block(ContentBlock::Image { source }))
        }
        Kind::Pdf => {
            let source = encoded(file, &path, size, "application/pdf", READ_DOCUMENT_BYTES_MAX)?;
            Ok(block(ContentBlock::Document { source, title: None, context: None }))
        }
        Kind::Binary => Err(Fault::Refused(format!(
            "`{}` is a binary file of {size} bytes; accepted: text, png, jpg, gif, webp or pdf (for others use bash, e.g. `xxd` or `file`)",
            path.display()
        ))),
    }
}

fn block(block: ContentBlock) -> Ending {
    Ending { content: vec![block], ..Ending::fine("") }
}

/// What the first bytes say. The name decides only whether a PDF without a binary byte is one.
fn kind(probe: &[u8], path: &Path) -> Kind {
    let binary = probe.contains(&0);
    let image = match probe {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    };
    let named_pdf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pdf"));
    match image {
        Some(media_type) if binary => Kind::Image(media_type),
        _ if probe.starts_with(b"%PDF-") && (binary || named_pdf) => Kind::Pdf,
        _ if binary => Kind::Binary,
        _ => Kind::Text,
    }
}

fn encoded(file: File, path: &Path, size: u64, media_type: &str, max: u64) -> Result<Source, Fault> {
    let too_large =
        |size| Fault::Refused(format!("`{}` ({media_type}) has {size} bytes; accepted: at most {max}", path.display()));
    if size > max {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| at(path, e))?;
    if bytes.len() as u64 > max {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Source::Base64 { media_type: media_type.to_owned(), data: STANDARD.encode(bytes) })
}

fn text(file: File, path: &Path, size: u64, range: Option<Lines>) -> Result<Ending, Fault> {
    if let Some(range) = range {
        return range.read(BufReader::new(file), path).map(Ending::fine);
    }
    let mut bytes = Vec::new();
    file.take(READ_TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| at(path, e))?;
    if bytes.len() > READ_TEXT_BYTES_MAX {
        return Err(Fault::Refused(format!(
            "`{}` has {size} bytes; at most {READ_TEXT_BYTES_MAX} are read at once: use view_range, e.g. [1, 500], to read a part of it",
            path.display()
        )));
    }
    Ok(Ending::fine(match bytes.is_empty() {
        true => "(the file is empty)".to_owned(),
        false => readable(&bytes),
    }))
}

/// Lines from 1, both inclusive; `last` is `None` for the end of the file.
struct Lines {
    first: u64,
    last: Option<u64>,
}

impl Lines {
    fn new((first, last): (i64, i64)) -> Result<Self, Invalid> {
        let shown = format!("[{first}, {last}]");
        let wrong = || {
            let accepted = "first and last line, from 1, the last not before the first, or 0 for the end of the file";
            Invalid::new("view_range", &shown, accepted)
        };
        let first = u64::try_from(first).ok().filter(|n| *n >= 1).ok_or_else(wrong)?;
        let last = u64::try_from(last).ok().filter(|n| *n >= 1);
        if last.is_some_and(|last| last < first) {
            return Err(wrong());
        }
        Ok(Lines { first, last })
    }

    fn read(&self, mut reader: impl BufRead, path: &Path) -> Result<String, Fault> {
        let at = |e| at(path, e);
        let mut number = 1;
        while number < self.first {
            if reader.skip_until(b'\n').map_err(at)? == 0 {
                let lines = number - 1;
                let shown = format!("[{}, …]", self.first);
                return Err(
                    Invalid::new("view_range", shown, format!("a first line up to {lines}, the file's last")).into()
                );
            }
            number += 1;
        }
        let mut bytes = Vec::new();
        while self.last.is_none_or(|last| number <= last) {
            let room = READ_TEXT_BYTES_MAX - bytes.len();
            let read = reader.by_ref().take(room as u64 + 1).read_until(b'\n', &mut bytes).map_err(at)?;
            if read == 0 {
                break;
            }
            if bytes.len() > READ_TEXT_BYTES_MAX {
                bytes.truncate(READ_TEXT_BYTES_MAX);
                let text = readable(&bytes);
                return Ok(format!(
                    "{text}\n[cut in line {number}: {READ_TEXT_BYTES_MAX} bytes are read at once; go on with another view_range]"
                ));
            }
            number += 1;
        }
        if bytes.is_empty() {
            let accepted = "a first line that the file has";
            return Err(Invalid::new("view_range", format!("[{}, …]", self.first), accepted).into());
        }
        Ok(readable(&bytes))
    }
}

/// NUL, too, is replaced: not everything that a text passes through can hold it.
fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn read(directory: &Path, input: Value) -> Result<Ending, String> {
        run(&input, directory).map_err(|fault| fault.to_string())
    }

    fn text_of(directory: &Path, input: Value) -> String {
        match read(directory, input).expect("readable").content.as_slice() {
            [ContentBlock::Text { text }] => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_whole_and_in_parts() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a.txt"), "one\ntwo\r\nthrée").expect("written");
        let part = |range: Value| text_of(dir.path(), json!({"file_path": "a.txt", "view_range": range}));
        assert_eq!(text_of(dir.path(), json!({"file_path": "a.txt"})), "one\ntwo\r\nthrée");
        assert_eq!(part(json!([2, 2])), "two\r\n");
        assert_eq!(part(json!([2, -1])), "two\r\nthrée");
        assert_eq!(part(json!([3, 99])), "thrée");
        fs::write(dir.path().join("empty"), "").expect("written");
        assert_eq!(text_of(dir.path(), json!({"file_path": "empty"})), "(the file is empty)");
    }

    #[test]
    fn a_bad_range_is_explained() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a"), "1\n2\n3\n").expect("written");
        for bad in
            [json!([0, 2]), json!([3, 2]), json!([-1, 0]), json!([4, 9]), json!([9, 0]), json!([1]), json!("1-2")]
        {
            let fault = read(dir.path(), json!({"file_path": "a", "view_range": bad})).expect_err("refused");
            assert!(fault.starts_with("`view_range` is `") && fault.contains("accepted: "), "{bad}: {fault}");
        }
    }

    #[test]
    fn large_files_are_read_in_parts() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("big"), "0123456\n".repeat(READ_TEXT_BYTES_MAX / 8 + 1)).expect("written");
        let fault = read(dir.path(), json!({"file_path": "big"})).expect_err("too large");
        assert!(
            fault.contains(&format!("{} bytes", READ_TEXT_BYTES_MAX + 8)) && fault.contains("view_range"),
            "{fault}"
        );
        let whole = text_of(dir.path(), json!({"file_path": "big", "view_range": [1, 0]}));
        assert!(whole.contains("[cut in line 32769"), "{}", &whole[whole.len() - 100..]);
        assert_eq!(text_of(dir.path(), json!({"file_path": "big", "view_range": [32_769, 0]})), "0123456\n");
        fs::write(dir.path().join("long"), "x".repeat(3 * READ_TEXT_BYTES_MAX)).expect("written");
        let cut = text_of(dir.path(), json!({"file_path": "long", "view_range": [1, 1]}));
        assert!(cut.len() < READ_TEXT_BYTES_MAX + 200 && cut.contains("[cut in line 1:"));
    }

    #[test]
    fn what_it_is_follows_from_its_bytes() {
        let dir = tempfile::tempdir().expect("directory");
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        fs::write(dir.path().join("picture"), png).expect("written");
        fs::write(dir.path().join("lie.png"), "just words").expect("written");
        fs::write(dir.path().join("GIF89a.txt"), "GIF89a is a format").expect("written");
        fs::write(dir.path().join("d.pdf"), "%PDF-1.7 words").expect("written");
        fs::write(dir.path().join("prog"), b"\x7fELF\0\0\0").expect("written");
        let content = |name: &str| read(dir.path(), json!({ "file_path": name })).map(|e| e.content[0].clone());
        let source =
            |media: &str, bytes: &[u8]| Source::Base64 { media_type: media.into(), data: STANDARD.encode(bytes) };
        assert_eq!(content("picture"), Ok(ContentBlock::Image { source: source("image/png", png) }));
        assert_eq!(content("lie.png"), Ok(ContentBlock::text("just words")));
        assert_eq!(content("GIF89a.txt"), Ok(ContentBlock::text("GIF89a is a format")));
        let source = source("application/pdf", b"%PDF-1.7 words");
        assert_eq!(content("d.pdf"), Ok(ContentBlock::Document { source, title: None, context: None }));
        assert!(content("prog").expect_err("binary").contains("is a binary file of 7 bytes"));
    }

    #[test]
    fn only_regular_files() {
        let dir = tempfile::tempdir().expect("directory");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
        let fault = |path: &str| read(dir.path(), json!({ "file_path": path })).expect_err("refused");
        assert!(fault("fifo").contains("is a named pipe; accepted: a regular file"));
        assert!(fault(".").contains("is a directory"));
        assert!(fault("/dev/zero").contains("is a device"));
        assert!(fault("absent").ends_with("No such file or directory (os error 2)"));
        assert_eq!(fault(""), "`file_path` is missing or empty; accepted: the path of a file");
    }
}
