//! A layer of an image, unpacked: nothing comes to be outside, what is inside is harmless, and the limits hold.

use loopd_images::unpack::{Limits, unpack};
use std::fs::{self, File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const LIMITS: Limits = Limits { bytes: 256 << 10, entries: 64, depth: 16, path_bytes: 512 };
const UNTOUCHED: &str = "untouched";

pub fn target(data: &[u8]) {
    let ground = tempfile::tempdir().expect("a directory");
    let (layer, sentinel) = (ground.path().join("layer"), ground.path().join("sentinel"));
    fs::create_dir(&layer).expect("a directory");
    fs::write(&sentinel, UNTOUCHED).expect("a file");
    let before = fs::metadata(&sentinel).expect("metadata");

    let into = File::open(&layer).expect("the directory");
    let unpacked = unpack(data, into.as_fd(), &LIMITS);

    assert_eq!(names(ground.path()), ["layer", "sentinel"], "something is outside: {unpacked:?}");
    let after = fs::metadata(&sentinel).expect("metadata");
    assert_eq!(fs::read_to_string(&sentinel).ok().as_deref(), Some(UNTOUCHED));
    let said = |of: &Metadata| (of.mode(), of.nlink(), of.uid(), of.mtime(), of.mtime_nsec(), of.ino());
    assert_eq!(said(&after), said(&before), "what is outside was changed: {unpacked:?}");

    let mut seen = Seen::default();
    walk(&layer, 0, &mut seen);
    assert!(seen.entries <= LIMITS.entries && seen.bytes <= LIMITS.bytes, "{seen:?} of {unpacked:?}");
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.entries <= LIMITS.entries && unpacked.bytes <= LIMITS.bytes, "{unpacked:?}");
    }
}

#[derive(Debug, Default)]
struct Seen {
    entries: u64,
    bytes: u64,
}

fn walk(directory: &Path, depth: usize, seen: &mut Seen) {
    assert!(depth <= LIMITS.depth, "`{}` is too deep", directory.display());
    for name in names(directory) {
        let path: PathBuf = directory.join(name);
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let (kind, mode) = (metadata.file_type(), metadata.mode());
        seen.entries += 1;
        // What overlayfs reads as "deleted" is a character device of number 0.
        let is_whiteout = kind.is_char_device() && metadata.rdev() == 0;
        assert!(
            kind.is_file() || kind.is_dir() || kind.is_symlink() || is_whiteout,
            "`{}` is of a kind that no layer may have",
            path.display()
        );
        assert!(kind.is_symlink() || mode & 0o6000 == 0, "`{}` changes the user: {mode:o}", path.display());
        if kind.is_file() {
            seen.bytes += metadata.len() / metadata.nlink();
        }
        if kind.is_dir() {
            walk(&path, depth + 1, seen);
        }
    }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).unwrap_or_else(|fault| panic!("`{}`: {fault}", directory.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}
