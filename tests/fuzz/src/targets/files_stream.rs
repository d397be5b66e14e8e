//! A session's files as a stream, written into a directory: nothing comes to be outside, and what was written goes the same way again.

use loopd_sandbox::files::wire::{WireSink, receive};
use loopd_sandbox::files::{Content, FileEntry, FileKind, FileSink, TreeWriter};
use std::fs;
use std::io;
use std::path::Path;

const PARTS: [&str; 2] = ["workspace", "home"];
/// A stranger may say that a file is a great hole: the limit of a session's bytes is not what is tried here.
const BYTES_MAX: u64 = 1 << 20;

pub fn target(data: &[u8]) {
    let mut kept = Kept(Vec::new());
    let read = receive(data, &mut kept);
    if let Ok(read) = &read {
        let mut sink = WireSink::new(Vec::new());
        for (entry, bytes) in &kept.0 {
            sink.put(entry, Content::Stream(&mut bytes.as_slice())).expect("what was read can be written");
        }
        let bytes = sink.finish(*read).expect("memory takes all");
        let mut again = Kept(Vec::new());
        assert_eq!(receive(bytes.as_slice(), &mut again).expect("what was written can be read"), *read);
        assert_eq!(again.0, kept.0);
    }

    let ground = tempfile::tempdir().expect("a directory");
    let session = ground.path().join("session");
    for part in PARTS {
        fs::create_dir_all(session.join(part)).expect("a directory");
    }
    fs::write(ground.path().join("sentinel"), "untouched").expect("a file");
    let parts: Vec<(&str, Option<u32>)> = PARTS.into_iter().map(|part| (part, None)).collect();
    let mut writer = Short(TreeWriter::new(&session, &parts).expect("the parts are there"));
    let read = receive(data, &mut writer);
    assert_eq!(names(ground.path()), ["sentinel", "session"], "something is outside: {read:?}");
    assert_eq!(names(&session), ["home", "workspace"], "something is beside the parts: {read:?}");
    assert_eq!(fs::read_to_string(ground.path().join("sentinel")).ok().as_deref(), Some("untouched"));
}

fn bounded(entry: &FileEntry) -> io::Result<()> {
    match entry.kind {
        FileKind::File { bytes } if bytes > BYTES_MAX => Err(io::Error::other("too large to be tried")),
        _ => Ok(()),
    }
}

struct Kept(Vec<(FileEntry, Vec<u8>)>);

impl FileSink for Kept {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        bounded(entry)?;
        let mut bytes = Vec::new();
        if let Content::Stream(from) = content {
            from.read_to_end(&mut bytes)?;
        }
        self.0.push((entry.clone(), bytes));
        Ok(())
    }
}

struct Short(TreeWriter);

impl FileSink for Short {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        bounded(entry)?;
        self.0.put(entry, content)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
