//! Trees that strangers wrote and paths that they made up.

use super::*;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

const PARTS: [&str; 2] = ["home", "workspace"];

fn session() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    PARTS.iter().for_each(|part| fs::create_dir(directory.path().join(part)).unwrap());
    directory
}

fn writer(directory: &Path) -> TreeWriter {
    TreeWriter::new(directory, &PARTS.map(|part| (part, None))).unwrap()
}

fn file(path: &str) -> FileEntry {
    FileEntry { path: path.into(), kind: FileKind::File { bytes: 2 }, mode: 0o644, modified_s: 7 }
}

fn refusal(writer: &mut TreeWriter, entry: &FileEntry) -> String {
    let fault = writer.put(entry, Content::Stream(&mut b"hi".as_slice())).unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::InvalidInput, "{fault}");
    fault.to_string()
}

#[test]
fn a_tree_is_copied_as_it_is() {
    let (old, new) = (session(), session());
    let root = old.path().join("workspace");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/text"), "hello").unwrap();
    fs::set_permissions(root.join("a/b/text"), Permissions::from_mode(0o751)).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    symlink("a/b", root.join("in")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (50 << 20) - 3).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not\xffutf8")), "x").unwrap();
    fs::set_permissions(root.join("a"), Permissions::from_mode(0o555)).unwrap();

    let mut sink = Box::new(writer(new.path()));
    let read = read_tree(old.path(), &PARTS, sink.as_mut()).unwrap();
    FileWriter::finish(sink).unwrap();
    assert_eq!((read.files, read.skipped), (7, 1), "all but the pipe");

    let copy = new.path().join("workspace");
    assert_eq!(fs::read_to_string(copy.join("a/b/text")).unwrap(), "hello");
    assert_eq!(fs::metadata(copy.join("a/b/text")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::metadata(copy.join("a")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(copy.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert!(copy.join(std::ffi::OsStr::from_bytes(b"not\xffutf8")).exists() && !copy.join("pipe").exists());
    let (was, is) = (fs::metadata(root.join("sparse")).unwrap(), fs::metadata(copy.join("sparse")).unwrap());
    assert_eq!((is.len(), is.mtime()), (was.len(), was.mtime()));
    assert!(is.blocks() <= was.blocks() + 256, "holes stay holes: {} and {} blocks", was.blocks(), is.blocks());
    assert!(fs::read(copy.join("sparse")).unwrap().ends_with(b"end"));
}

#[test]
fn a_stream_of_zeros_takes_no_room() {
    let new = session();
    let entry = FileEntry { kind: FileKind::File { bytes: 20 << 20 }, ..file("workspace/zeros") };
    let mut zeros = io::repeat(0).take(20 << 20);
    writer(new.path()).put(&entry, Content::Stream(&mut zeros)).unwrap();
    let found = fs::metadata(new.path().join("workspace/zeros")).unwrap();
    assert_eq!(found.len(), 20 << 20);
    assert!(found.blocks() < 256, "{} blocks", found.blocks());
    let short = FileEntry { kind: FileKind::File { bytes: 9 }, ..file("workspace/short") };
    let fault = writer(new.path()).put(&short, Content::Stream(&mut b"hi".as_slice())).unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn no_path_leads_out() {
    let new = session();
    let mut sink = writer(new.path());
    for path in ["../x", "workspace/../../x", "/etc/x", "elsewhere/x", "", "."] {
        refusal(&mut sink, &file(path));
    }
    assert!(refusal(&mut sink, &file("workspace")).contains("not a directory"));
    assert!(refusal(&mut sink, &file(&format!("workspace/{}", "x/".repeat(3_000)))).contains("too long"));
    assert!(refusal(&mut sink, &file(&format!("workspace/{}f", "x/".repeat(200)))).contains("too deep"));
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().as_os_str().to_owned();
    sink.put(&FileEntry { kind: FileKind::Link { target }, ..file("workspace/link") }, Content::None).unwrap();
    assert!(refusal(&mut sink, &file("workspace/link/x")).contains("leads through"));
    assert!(refusal(&mut sink, &file("workspace/link")).contains("twice"));
    let directory = FileEntry { kind: FileKind::Directory, ..file("workspace/link") };
    assert!(refusal(&mut sink, &directory).contains("no directory"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn links_are_not_followed_and_depth_is_bounded() {
    let (old, other) = (session(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("secret"), "s").unwrap();
    symlink(other.path(), old.path().join("workspace/out")).unwrap();
    fs::remove_dir(old.path().join("home")).unwrap();
    symlink(other.path(), old.path().join("home")).unwrap();
    let mut sink = Seen::default();
    assert!(read_tree(old.path(), &PARTS, &mut sink).is_err(), "a part that is a link is not read");
    fs::remove_file(old.path().join("home")).unwrap();
    let deep = (0..200).fold(old.path().join("workspace"), |path, _| path.join("d"));
    fs::create_dir_all(deep).unwrap();
    let read = read_tree(old.path(), &PARTS, &mut sink).unwrap();
    assert!(sink.0.iter().all(|path| !path.ends_with("secret")));
    assert_eq!(read.skipped, 1, "what is below the deepest level");
}

#[derive(Default)]
struct Seen(Vec<PathBuf>);

impl FileSink for Seen {
    fn put(&mut self, entry: &FileEntry, _: Content<'_>) -> io::Result<()> {
        self.0.push(entry.path.clone());
        Ok(())
    }
}
