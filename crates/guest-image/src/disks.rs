//! Disks of sessions, and of layers of rooms' roots.

use crate::GuestImageError;
use crate::cache::{Cache, Lock, Shelf, nonce};
use crate::digest::{Key, is_digest};
use crate::ext4::{self, Extent};
use crate::tree::Tree;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Raised when the same tree, or size, becomes another disk.
const LAYER: &[u8] = b"layer 1";
const MERGED: &[u8] = b"merged 1";
const BLANK: &str = "1";

pub(crate) fn of_layer(cache: &Cache, tree: &Path) -> Result<PathBuf, GuestImageError> {
    let key = key_of_layer(tree)?;
    once(cache, &key, |work| {
        let disk = work.join("layer.ext4");
        ext4::of_tree(tree, Extent::of_tree(tree)?, &key, &disk)?;
        Ok(disk)
    })
}

/// All layers of a root in one disk.
pub(crate) fn of_layers(cache: &Cache, trees: &[PathBuf]) -> Result<PathBuf, GuestImageError> {
    let mut key = Key::default().part(MERGED);
    for tree in trees {
        key.add(key_of_layer(tree)?.as_bytes());
    }
    let key = key.hex();
    once(cache, &key, |work| {
        let (tree, stage, disk) = (Tree::of_layers(trees)?, work.join("tree"), work.join("merged.ext4"));
        fs::create_dir(&stage).map_err(GuestImageError::disk(&stage))?;
        tree.make(&stage)?;
        ext4::of_tree(&stage, tree.extent(), &key, &disk)?;
        Ok(disk)
    })
}

/// What is there under this key, or else is made now, by one of all who want it.
fn once(
    cache: &Cache,
    key: &str,
    make: impl FnOnce(&Path) -> Result<PathBuf, GuestImageError>,
) -> Result<PathBuf, GuestImageError> {
    if let Some(found) = cache.find(Shelf::Layers, key)? {
        return Ok(found);
    }
    let _flight = cache.lock(&Lock::Key(key.to_owned()))?;
    if let Some(found) = cache.find(Shelf::Layers, key)? {
        return Ok(found);
    }
    let work = cache.work()?;
    let made = make(work.path())?;
    cache.settle(&made, Shelf::Layers, &format!("{key}.{}.ext4", nonce()?))
}

/// A layer of an image is named after its content. Of another directory it is asked what is in it.
fn key_of_layer(tree: &Path) -> Result<String, GuestImageError> {
    let tree = fs::canonicalize(tree).map_err(GuestImageError::disk(tree))?;
    let key = Key::default().part(LAYER).part(tree.as_os_str().as_bytes());
    match tree.file_name().and_then(|name| name.to_str()).is_some_and(is_digest) {
        true => Ok(key.hex()),
        false => Ok(key.part(Tree::of_directory(&tree)?.key().as_bytes()).hex()),
    }
}

pub(crate) fn blank(cache: &Cache, bytes: u64, into: &Path) -> Result<(), GuestImageError> {
    if bytes < ext4::DISK_BYTES_MIN || !bytes.is_multiple_of(4_096) {
        return Err(GuestImageError::broken(format!(
            "a disk of {bytes} bytes: accepted are multiples of 4096 from {} on",
            ext4::DISK_BYTES_MIN
        )));
    }
    let name = format!("{bytes}.{BLANK}.ext4");
    let model = cache.shelf(Shelf::Blank).join(&name);
    if !ext4::is_of(&model, bytes) {
        let _flight = cache.lock(&Lock::Key(name.clone()))?;
        if !ext4::is_of(&model, bytes) {
            let work = cache.work()?;
            let (made, kept) = (work.path().join("blank.ext4"), work.path().join("copy.ext4"));
            ext4::blank(bytes, &made)?;
            // What was zeroed has blocks of its own on some file systems; in the copy it has none.
            copy_with_holes(&made, &kept, bytes).map_err(GuestImageError::disk(&kept))?;
            cache.settle(&kept, Shelf::Blank, &name)?;
        }
    }
    copy_with_holes(&model, into, bytes).map_err(GuestImageError::disk(into))
}

/// Copies what is not a hole, into a new file.
fn copy_with_holes(from: &Path, into: &Path, bytes: u64) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).mode(0o600).open(into)?;
    let copied = copy_ranges(&source, &target, bytes);
    if copied.is_err() {
        // What is there in part is taken for nothing: it has no name any more.
        let _ = fs::remove_file(into);
    }
    copied
}

fn copy_ranges(source: &File, target: &File, bytes: u64) -> io::Result<()> {
    target.set_len(bytes)?;
    let mut at = 0;
    loop {
        let begin = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(begin))?;
        rustix::fs::seek(source, SeekFrom::Start(begin))?;
        rustix::fs::seek(target, SeekFrom::Start(begin))?;
        let copied = io::copy(&mut io::Read::take(source, end - begin), &mut &*target)?;
        if copied != end - begin {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{debugfs, has_e2fsprogs};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("guest"));
        (directory, cache)
    }

    #[test]
    fn a_session_s_disk_is_sparse_and_whole() {
        if !has_e2fsprogs() {
            return;
        }
        let (directory, cache) = cache();
        let bytes = 10 << 30;
        for name in ["one", "other"] {
            let disk = directory.path().join(name);
            blank(&cache, bytes, &disk).unwrap();
            let about = fs::metadata(&disk).unwrap();
            assert_eq!((about.len(), about.permissions().mode() & 0o777), (bytes, 0o600));
            assert!(about.blocks() * 512 < 4 << 20, "{} bytes are on disk", about.blocks() * 512);
            crate::tests::check(&disk);
            assert!(debugfs(&disk, "stats").contains("has_journal"));
        }
        let fault = blank(&cache, bytes, &directory.path().join("one")).unwrap_err();
        assert!(matches!(fault, GuestImageError::Disk { .. }), "a session's disk is never overwritten: {fault}");
        assert_eq!(cache.list(Shelf::Blank).unwrap().len(), 1);
    }

    #[test]
    fn sizes_that_are_no_disk_are_refused() {
        let (directory, cache) = cache();
        for bytes in [0, 4_096, (16 << 20) + 1] {
            assert!(matches!(blank(&cache, bytes, &directory.path().join("d")), Err(GuestImageError::Broken(_))));
        }
    }

    #[test]
    fn whiteouts_and_opaque_directories_arrive() {
        if !has_e2fsprogs() {
            return;
        }
        let (directory, cache) = cache();
        let layer = directory.path().join("layer");
        fs::create_dir_all(layer.join("etc/gone")).unwrap();
        fs::write(layer.join("etc/file"), "abc").unwrap();
        fs::set_permissions(layer.join("etc/file"), fs::Permissions::from_mode(0o755)).unwrap();
        let whiteout = layer.join("etc/whiteout");
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0);
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, mode, 0).unwrap();
        let opaque =
            rustix::fs::setxattr(layer.join("etc/gone"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty());
        if let Err(errno) = opaque {
            return crate::tests::skip(&format!(
                "the file system of temporary files has no extended attributes: {errno}"
            ));
        }
        let disk = of_layer(&cache, &layer).unwrap();
        crate::tests::check(&disk);
        assert!(debugfs(&disk, "stat etc/whiteout").contains("Type: character special"));
        assert!(debugfs(&disk, "stat etc/whiteout").contains("Device major/minor number: 00:00"));
        assert!(debugfs(&disk, "ea_get etc/gone user.overlay.opaque").contains("\"y\""));
        assert!(debugfs(&disk, "stat etc/file").contains("Mode:  0755"));
        assert!(debugfs(&disk, "stat etc/file").contains("User:     0   Group:     0"));
        assert!(!debugfs(&disk, "ls -l").contains("lost+found"));

        assert_eq!(of_layer(&cache, &layer).unwrap(), disk, "it is made once");
        fs::write(layer.join("etc/file"), "changed").unwrap();
        assert_ne!(of_layer(&cache, &layer).unwrap(), disk, "an operator has changed the directory");
    }

    #[test]
    fn layers_become_one_disk() {
        if !has_e2fsprogs() {
            return;
        }
        let (directory, cache) = cache();
        let layers = ["above", "below"].map(|name| directory.path().join(name));
        for (layer, file) in layers.iter().zip(["new", "old"]) {
            fs::create_dir_all(layer.join("etc")).unwrap();
            fs::write(layer.join("etc").join(file), file).unwrap();
            fs::write(layer.join("etc/both"), file).unwrap();
        }
        let disk = of_layers(&cache, &layers).unwrap();
        crate::tests::check(&disk);
        assert_eq!(debugfs(&disk, "cat etc/both"), "new");
        assert_eq!(debugfs(&disk, "cat etc/old"), "old");
        assert_eq!(of_layers(&cache, &layers).unwrap(), disk);
        assert_ne!(of_layers(&cache, &[layers[1].clone(), layers[0].clone()]).unwrap(), disk);
        assert!(of_layers(&cache, &[]).is_err());
    }

    #[test]
    fn many_who_want_one_layer_get_the_same() {
        if !has_e2fsprogs() {
            return;
        }
        let (directory, cache) = cache();
        let layer = directory.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("file"), "abc").unwrap();
        let want = || of_layer(&cache, &layer).unwrap();
        let disks: Vec<PathBuf> = std::thread::scope(|scope| {
            let wanting: Vec<_> = (0..6).map(|_| scope.spawn(want)).collect();
            wanting.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(disks.iter().all(|disk| *disk == disks[0]));
        assert_eq!(cache.list(Shelf::Layers).unwrap().len(), 1);
    }
}
