//! Trees through a stream, and streams that strangers wrote.

use super::*;
use crate::{FileWriter, TreeWriter, read_tree};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const PARTS: [&str; 2] = ["home", "workspace"];

fn session() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    PARTS.iter().for_each(|part| fs::create_dir(directory.path().join(part)).unwrap());
    directory
}

/// What a sink was given.
#[derive(Debug, Default, PartialEq)]
struct Kept(Vec<(FileEntry, Vec<u8>)>);

impl FileSink for Kept {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        if let Content::Stream(from) = content {
            from.read_to_end(&mut bytes)?;
        }
        self.0.push((entry.clone(), bytes));
        Ok(())
    }
}

fn kept(bytes: &[u8]) -> io::Result<(Kept, FilesRead)> {
    let mut kept = Kept::default();
    let read = receive(bytes, &mut kept)?;
    Ok((kept, read))
}

fn sent(entries: &[(FileEntry, Vec<u8>)]) -> Vec<u8> {
    let (mut sink, mut read) = (WireSink::new(Vec::new()), FilesRead::default());
    for (entry, bytes) in entries {
        sink.put(entry, Content::Stream(&mut bytes.as_slice())).unwrap();
        read.files += 1;
        read.bytes += bytes.len() as u64;
    }
    sink.finish(read).unwrap()
}

fn entry(path: &str, kind: FileKind) -> FileEntry {
    FileEntry { path: path.into(), kind, mode: 0o640, modified_s: -7 }
}

fn some() -> Vec<(FileEntry, Vec<u8>)> {
    let long = vec![b'x'; PIECE_BYTES + 1];
    vec![
        (entry("workspace/d", FileKind::Directory), Vec::new()),
        (entry("workspace/d/long", FileKind::File { bytes: long.len() as u64 }), long),
        (entry("workspace/l", FileKind::Link { target: "/etc/passwd".into() }), Vec::new()),
        (entry("home/empty", FileKind::File { bytes: 0 }), Vec::new()),
    ]
}

fn fault(bytes: &[u8]) -> io::Error {
    kept(bytes).map(|(_, read)| read).unwrap_err()
}

#[test]
fn a_tree_arrives_as_it_is() {
    let (old, new) = (session(), session());
    let root = old.path().join("workspace");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/text"), "hello").unwrap();
    fs::set_permissions(root.join("a/b/text"), Permissions::from_mode(0o751)).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 8 << 20).unwrap();
    sparse.set_len(16 << 20).unwrap();
    fs::set_permissions(root.join("a"), Permissions::from_mode(0o555)).unwrap();

    let mut sink = WireSink::new(Vec::new());
    let read = read_tree(old.path(), &PARTS, &mut sink).unwrap();
    let bytes = sink.finish(read).unwrap();
    assert!(bytes.len() < 1 << 20, "holes travel as holes: {} bytes", bytes.len());
    let mut writer = TreeWriter::new(new.path(), &PARTS.map(|part| (part, None))).unwrap();
    assert_eq!(receive(bytes.as_slice(), &mut writer).unwrap(), read);
    Box::new(writer).finish().unwrap();

    let root = new.path().join("workspace");
    assert_eq!(fs::read(root.join("a/b/text")).unwrap(), b"hello");
    assert_eq!(fs::metadata(root.join("a/b/text")).unwrap().mode() & 0o777, 0o751);
    assert_eq!(fs::metadata(root.join("a")).unwrap().mode() & 0o777, 0o555);
    assert_eq!(fs::read_link(root.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read(root.join("sparse")).unwrap(), fs::read(old.path().join("workspace/sparse")).unwrap());
    assert!(fs::metadata(root.join("sparse")).unwrap().blocks() * 512 < 1 << 20, "a hole was filled");
}

#[test]
fn a_file_that_changes_is_as_long_as_it_was_said_to_be() {
    let directory = session();
    let path = directory.path().join("workspace/file");
    fs::write(&path, "0123456789").unwrap();
    for (said, arrives) in [(4, &b"0123"[..]), (12, b"0123456789\0\0"), (0, b"")] {
        let mut sink = WireSink::new(Vec::new());
        let file = entry("workspace/file", FileKind::File { bytes: said });
        sink.put(&file, Content::File(&File::open(&path).unwrap())).unwrap();
        let bytes = sink.finish(FilesRead { files: 1, bytes: said, skipped: 3 }).unwrap();
        let (kept, read) = kept(&bytes).unwrap();
        assert_eq!((kept.0[0].1.as_slice(), read.skipped), (arrives, 3));
    }
}

#[test]
fn a_stream_that_was_cut_is_no_short_one() {
    let bytes = sent(&some());
    assert_eq!(kept(&bytes).unwrap().0.0, some());
    for cut in 0..bytes.len() {
        assert_eq!(fault(&bytes[..cut]).kind(), ErrorKind::UnexpectedEof, "cut at {cut}");
    }
}

#[test]
fn what_the_sender_could_not_do_is_told_wherever_it_is() {
    let mut sink = WireSink::new(Vec::new());
    let file = entry("workspace/file", FileKind::File { bytes: 2 * PIECE_BYTES as u64 });
    let mut short = io::repeat(1).take(PIECE_BYTES as u64);
    let missing = sink.put(&file, Content::Stream(&mut short)).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::UnexpectedEof);
    let bytes = sink.fail(io::Error::other("the disk\nis gone")).unwrap();
    let told = fault(&bytes);
    assert_eq!((told.kind(), told.to_string().as_str()), (ErrorKind::Other, "the disk is gone"));

    let bytes = WireSink::new(Vec::new()).fail(invalid("too many".to_owned())).unwrap();
    assert_eq!(fault(&bytes).kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_sink_that_reads_nothing_changes_nothing() {
    struct Blind(u64);
    impl FileSink for Blind {
        fn put(&mut self, _: &FileEntry, _: Content<'_>) -> io::Result<()> {
            self.0 += 1;
            Ok(())
        }
    }
    let mut blind = Blind(0);
    let read = receive(sent(&some()).as_slice(), &mut blind).unwrap();
    assert_eq!((blind.0, read.files), (4, 4));
}

#[test]
fn paths_that_lead_out_and_lengths_that_lie_are_refused() {
    let head = |tag: u8, mode: u32, path: &[u8]| {
        let mut bytes = vec![tag];
        bytes.extend(mode.to_le_bytes());
        bytes.extend(0_i64.to_le_bytes());
        bytes.extend((path.len() as u32).to_le_bytes());
        bytes.extend(path);
        bytes
    };
    let file =
        |bytes: u64, rest: &[u8]| [head(FILE, 0o644, b"home/f"), bytes.to_le_bytes().to_vec(), rest.to_vec()].concat();
    let deep = vec!["d"; 200].join("/");
    for path in ["", "..", "home/../../x", "/home", "home//x", "./home", "home/", "home/\0", deep.as_str()] {
        assert_eq!(fault(&head(DIRECTORY, 0o755, path.as_bytes())).kind(), ErrorKind::InvalidData, "{path}");
    }
    let huge = u32::MAX.to_le_bytes();
    for (bytes, why) in [
        (vec![9], "kind"),
        (vec![DATA], "piece without a file"),
        (head(DIRECTORY, 0o4755, b"home/x"), "set-user-id"),
        ([head(DIRECTORY, 0o755, b"")[..13].to_vec(), huge.to_vec()].concat(), "long path"),
        ([head(LINK, 0o777, b"home/l"), huge.to_vec()].concat(), "long target"),
        ([head(LINK, 0o777, b"home/l"), vec![0; 4]].concat(), "empty target"),
        (file(4, &[&[DATA][..], &5_u32.to_le_bytes(), b"12345"].concat()), "more than the file"),
        (file(u64::MAX >> 30, &[&[DATA][..], &huge].concat()), "long piece"),
        (file(4, &[&[HOLE][..], &5_u64.to_le_bytes()].concat()), "hole beyond the file"),
        (file(4, &[&[HOLE][..], &0_u64.to_le_bytes()].concat()), "empty hole"),
        (file(4, &[DONE]), "end within a file"),
        ([&[FAILED, 0][..], &huge].concat(), "long reason"),
        ([&[FAILED, 2][..], &[0; 4]].concat(), "kind of failure"),
        ([&[DONE][..], &[1; 24]].concat(), "other numbers"),
    ] {
        assert_eq!(fault(&bytes).kind(), ErrorKind::InvalidData, "{why}");
    }
    assert_eq!(fault(&file(FILES_BYTES_MAX + 1, &[])).kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_answer_is_read_as_it_is_said() {
    let read = FilesRead { files: 1, bytes: 2, skipped: 3 };
    let mut bytes = Vec::new();
    acknowledge(&mut bytes, &Ok(read)).unwrap();
    assert_eq!(acknowledged(bytes.as_slice()).unwrap(), read);
    assert_eq!(acknowledged(&bytes[..9]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let mut bytes = Vec::new();
    acknowledge(&mut bytes, &Err(invalid("no".to_owned()))).unwrap();
    assert_eq!(acknowledged(bytes.as_slice()).unwrap_err().to_string(), "no");
    assert_eq!(acknowledged(&[FILE][..]).unwrap_err().kind(), ErrorKind::InvalidData);
}

proptest! {
    #[test]
    fn whatever_is_sent_arrives(files in vec(("[a-z]{1,9}(/[a-z.]{3,9}){0,3}", vec(0..3_u8, 0..300), 0..0o1000_u32, any::<i64>()), 0..6)) {
        let entries: Vec<(FileEntry, Vec<u8>)> = files
            .into_iter()
            .map(|(path, bytes, mode, modified_s)| {
                let kind = FileKind::File { bytes: bytes.len() as u64 };
                (FileEntry { path: path.into(), kind, mode, modified_s }, bytes)
            })
            .collect();
        prop_assert_eq!(kept(&sent(&entries)).unwrap().0.0, entries);
    }

    #[test]
    fn a_spoiled_stream_does_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = sent(&some());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // Read or refused; with a length that is not so, it waits for what does not come.
        let _ = kept(&bytes);
    }
}
