//! Layers by hand, good ones and hostile ones.

use super::*;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use tar::{EntryType, Header};

/// A layer that is put together entry by entry, also as no honest writer would.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("layer")).unwrap();
        fs::write(root.path().join("outside"), "untouched").unwrap();
        Place { root }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.root.path().join("layer")
    }

    fn unpack(&self, bytes: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        let done = unpack(bytes, fs::File::open(self.layer()).unwrap().as_fd(), limits);
        assert_eq!(fs::read_to_string(self.root.path().join("outside")).unwrap(), "untouched");
        let beside: Vec<_> = fs::read_dir(self.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "{beside:?}");
        done
    }

    fn fails(bytes: &[u8], told: &str) {
        let fault = Place::new().unpack(bytes, &Limits::default()).unwrap_err().to_string();
        assert!(fault.contains(told), "{fault}");
    }
}

fn opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    rustix::fs::getxattr(path, "user.overlay.opaque", &mut value).is_ok()
}

fn is_deleted(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

#[test]
fn a_layer_becomes_a_directory() {
    let long = format!("deep/{}", "x".repeat(180));
    let layer = Layer::default()
        .directory("./")
        .directory("etc/")
        .file("./etc/passwd", "root:x:0:0\n")
        .entry(EntryType::Regular, "usr/bin/su", "", 0o104_750, b"#!")
        .entry(EntryType::Regular, "etc/shadow", "", 0o000, b"s")
        .link("bin", "usr/bin")
        .link("abs", "/etc/passwd")
        .hard_link("etc/group", "etc/passwd")
        .entry(EntryType::GNULongName, "././@LongLink", "", 0, format!("{long}\0").as_bytes())
        .file("cut", "long");
    let layer = layer.end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let packed = [layer.clone(), gzip.finish().unwrap(), zstd::encode_all(&layer[..], 3).unwrap()];
    for bytes in packed {
        let place = Place::new();
        let done = place.unpack(&bytes, &Limits::default()).unwrap();
        assert_eq!(done.digest, Digest::of(&layer));
        let at = |name: &str| place.layer().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(fs::read_to_string(at("etc/group")).unwrap(), "root:x:0:0\n");
        assert_eq!(fs::read_to_string(at(&long)).unwrap(), "long");
        assert_eq!(fs::read_link(at("abs")).unwrap(), Path::new("/etc/passwd"));
        // Neither set-user-id nor forbidden, whatever it was.
        assert_eq!((mode("usr/bin/su"), mode("etc/shadow"), mode("usr")), (0o755, 0o644, 0o755));
        assert_eq!(fs::metadata(at("etc/passwd")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::metadata(at("etc")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::metadata(at("etc/passwd")).unwrap().nlink(), 2);
    }
}

#[test]
fn what_a_layer_deletes_is_written_as_overlayfs_reads_it() {
    let place = Place::new();
    let layer = Layer::default()
        .file("etc/.wh.motd", "")
        .file("opt/.wh..wh..opq", "")
        .file("opt/new", "")
        .file(".wh.var", "")
        .file("var/lib/fresh", "")
        .directory("srv")
        .file(".wh.srv", "")
        .file("kept", "kept")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "");
    place.unpack(&layer.end(), &Limits::default()).unwrap();
    let at = |name: &str| place.layer().join(name);
    assert!(is_deleted(&at("etc/motd")) && !at("etc/.wh.motd").exists());
    assert!(opaque(&at("opt")) && at("opt/new").exists() && !opaque(&at("etc")));
    // Deleted and made anew in one layer: nothing of the layers below shows, in whichever order.
    assert!(opaque(&at("var")) && opaque(&at("srv")) && at("var/lib/fresh").exists());
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");
    assert!(!at(".wh..wh.plnk").exists());
}

#[test]
fn nothing_is_written_outside() {
    Place::fails(&Layer::default().file("../outside", "hit").end(), "leads outside with `..`");
    Place::fails(&Layer::default().file("a/../../outside", "hit").end(), "leads outside with `..`");
    Place::fails(&Layer::default().file("/etc/passwd", "hit").end(), "is absolute");
    let through = Layer::default().link("up", "..").file("up/outside", "hit");
    Place::fails(&through.end(), "goes through what is no directory");
    let absolute = Layer::default().link("tmp", "/tmp").file("tmp/loopd-outside", "hit");
    Place::fails(&absolute.end(), "goes through what is no directory");
    assert!(!Path::new("/tmp/loopd-outside").exists());
    let replaced = Layer::default().directory("d").link("d", "..").file("d/outside", "hit");
    Place::fails(&replaced.end(), "stands where this layer has a directory");
    for deleted in [".wh...", "d/.wh...", ".wh.", ".wh.."] {
        Place::fails(&Layer::default().file(deleted, "").end(), "deletes what is no name");
    }
}

#[test]
fn links_to_what_is_outside_are_no_way_there() {
    Place::fails(&Layer::default().hard_link("in", "../outside").end(), "leads outside");
    Place::fails(&Layer::default().hard_link("in", "/etc/passwd").end(), "is absolute");
    let through = Layer::default().link("up", "..").hard_link("in", "up/outside");
    Place::fails(&through.end(), "which is no file of this layer");
    Place::fails(&Layer::default().hard_link("in", "nowhere").end(), "which is no file of this layer");
    Place::fails(&Layer::default().directory("d").hard_link("in", "d").end(), "which is no file of this layer");
    // A link is replaced, never written through; nor is a file that has another name.
    let place = Place::new();
    let layer = Layer::default()
        .link("out", "../outside")
        .hard_link("too", "out")
        .file("out", "here")
        .file("one", "old")
        .hard_link("two", "one")
        .file("one", "new");
    place.unpack(&layer.end(), &Limits::default()).unwrap();
    let read = |name: &str| fs::read_to_string(place.layer().join(name)).unwrap();
    assert_eq!((read("out"), read("one"), read("two")), ("here".into(), "new".into(), "old".into()));
    assert_eq!(fs::read_link(place.layer().join("too")).unwrap(), Path::new("../outside"));
}

#[test]
fn devices_and_pipes_are_left_out() {
    let place = Place::new();
    let layer = [EntryType::Char, EntryType::Block, EntryType::Fifo]
        .into_iter()
        .fold(Layer::default(), |layer, kind| layer.entry(kind, "dev/node", "", 0o666, b""));
    let done = place.unpack(&layer.file("after", "").end(), &Limits::default()).unwrap();
    assert_eq!(done.left_out, 3);
    assert!(!place.layer().join("dev/node").exists() && place.layer().join("after").exists());
}

#[test]
fn what_is_too_much_is_cut_off() {
    let small = Limits { bytes: 64 << 10, entries: 8, depth: 4, path_bytes: 64 };
    // A thousandth of what it becomes.
    let zeros = Layer::default().entry(EntryType::Regular, "zeros", "", 0o644, &vec![0; 16 << 20]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let zstd = zstd::encode_all(&zeros[..], 19).unwrap();
    for bomb in [gzip.finish().unwrap(), zstd, zeros] {
        let place = Place::new();
        let fault = place.unpack(&bomb, &small).unwrap_err();
        assert!(matches!(fault, UnpackError::TooLarge { most: 65_536 }), "{fault}");
        let written: u64 = fs::read_dir(place.layer()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(written <= small.bytes, "{written}");
    }
    // One that says it is small and goes on after the archive's end.
    let mut tail = Layer::default().file("a", "").end();
    tail.resize(1 << 20, 0);
    assert!(matches!(Place::new().unpack(&tail, &small), Err(UnpackError::TooLarge { .. })));
    let many = (0..9).fold(Layer::default(), |layer, n| layer.file(&format!("f{n}"), ""));
    assert!(matches!(Place::new().unpack(&many.end(), &small), Err(UnpackError::TooMany { most: 8 })));
    let implied = (0..4).fold(Layer::default(), |layer, n| layer.file(&format!("a{n}/b/c"), ""));
    assert!(matches!(Place::new().unpack(&implied.end(), &small), Err(UnpackError::TooMany { most: 8 })));
    let nothing = (0..40).fold(Layer::default(), |layer, _| layer.entry(EntryType::XGlobalHeader, "g", "", 0, b""));
    assert!(matches!(Place::new().unpack(&nothing.end(), &small), Err(UnpackError::TooMany { .. })));
    let deep = Layer::default().file("a/b/c/d/e", "").end();
    assert!(Place::new().unpack(&deep, &small).unwrap_err().to_string().contains("is too deep"));
    let long = Layer::default().entry(EntryType::GNULongName, "l", "", 0, &[b'x'; 100]).file("cut", "");
    assert!(Place::new().unpack(&long.end(), &small).unwrap_err().to_string().contains("accepted: up to 65"));
    let pax = Layer::default().entry(EntryType::XHeader, "p", "", 0, &vec![b'x'; 2 << 20]).file("a", "").end();
    assert!(Place::new().unpack(&pax, &Limits::default()).unwrap_err().to_string().contains("pax records of"));
}

#[test]
fn a_size_in_a_pax_record_is_not_believed() {
    let record = b"18 size=999999999\n";
    let layer = Layer::default().entry(EntryType::XHeader, "p", "", 0, record).file("a", "content");
    Place::fails(&layer.end(), "size in a pax record");
}

#[test]
fn what_is_damaged_is_told_and_never_panics() {
    let whole = Layer::default().file("one", "1").directory("d").file("d/two", &"2".repeat(2_000)).end();
    let packed = zstd::encode_all(&whole[..], 3).unwrap();
    for length in 1..packed.len() {
        assert!(Place::new().unpack(&packed[..length], &Limits::default()).is_err(), "cut at {length}");
    }
    for length in (1..whole.len() - 1024).step_by(100).filter(|length| length % 512 != 0) {
        assert!(Place::new().unpack(&whole[..length], &Limits::default()).is_err(), "cut at {length}");
    }
    // Each byte turned, in plain and in packed form: any answer will do, but none outside.
    let place = Place::new();
    for at in (0..whole.len()).step_by(7) {
        let mut turned = whole.clone();
        turned[at] ^= 0x55;
        let _ = place.unpack(&turned, &Limits { bytes: 1 << 20, ..Limits::default() });
    }
    for at in 0..packed.len() {
        let mut turned = packed.clone();
        turned[at] ^= 0xff;
        let _ = place.unpack(&turned, &Limits { bytes: 1 << 20, ..Limits::default() });
    }
}

#[test]
fn a_link_that_is_already_there_is_not_followed_either() {
    let place = Place::new();
    symlink("..", place.layer().join("up")).unwrap();
    let fault = place.unpack(&Layer::default().file("up/outside", "hit").end(), &Limits::default()).unwrap_err();
    assert!(fault.to_string().contains("goes through"), "{fault}");
}
