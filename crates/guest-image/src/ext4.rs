//! File systems by the programs of e2fsprogs. Nothing is mounted.

use crate::GuestImageError;
use crate::program::{command, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

const BLOCK_BYTES: u64 = 4_096;
const INODE_BYTES: u64 = 256;
/// A file system never has fewer than this, so that small ones have room for what describes them.
const SPARE_BYTES: u64 = 8 << 20;
/// The least that a session's disk can be, and the bytes of its journal: a 64th, within these.
pub(crate) const DISK_BYTES_MIN: u64 = 16 << 20;
const JOURNAL_MIB: (u64, u64) = (4, 32);
/// Of all kernels that have what rooms need. What a host's own configuration says does not matter.
const FEATURES: &str = "none,extent,filetype,sparse_super,large_file,huge_file,dir_index,ext_attr,dir_nlink,extra_isize,metadata_csum,64bit,flex_bg";
const CONFIGURATION: &str =
    "[defaults]\n\tbase_features = filetype\n[fs_types]\n\text4 = {\n\t\tinode_size = 256\n\t}\n";
const MISSING: &str = "install the package `e2fsprogs`";

/// What a file system with a tree in it takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub entries: u64,
    pub bytes: u64,
}

impl Extent {
    /// One entry with so many bytes of content; a directory's are those of its names.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes.next_multiple_of(BLOCK_BYTES);
    }

    pub(crate) fn of_tree(root: &Path) -> Result<Self, GuestImageError> {
        let mut extent = Extent::default();
        let mut left = vec![root.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).map_err(GuestImageError::disk(&directory))? {
                let entry = entry.map_err(GuestImageError::disk(&directory))?;
                let about = entry.metadata().map_err(GuestImageError::disk(entry.path()))?;
                extent.add(about.len());
                if about.is_dir() {
                    left.push(entry.path());
                }
            }
            crate::within_entries(extent.entries as usize, root)?;
        }
        Ok(extent)
    }

    /// With what the file system needs for itself; what is too much is a hole.
    fn disk_bytes(self) -> u64 {
        let all = self.bytes + self.inodes() * INODE_BYTES;
        (all + all / 8 + SPARE_BYTES).next_multiple_of(1 << 20)
    }

    fn inodes(self) -> u64 {
        self.entries + 64
    }
}

/// Whether the programs are here, before something long is begun.
pub(crate) fn check() -> Result<(), GuestImageError> {
    run(command("mke2fs").arg("-V"), MISSING)?;
    run(command("debugfs").arg("-V"), MISSING).map(drop)
}

/// A read-only file system: a tree, with its extended attributes and devices, all of it the guest's root's.
pub(crate) fn of_tree(tree: &Path, extent: Extent, key: &str, into: &Path) -> Result<(), GuestImageError> {
    let mut make = mke2fs(into)?;
    let blocks = (extent.disk_bytes() / BLOCK_BYTES).to_string();
    let uuid = uuid(key);
    // Tables of inodes that are left out are holes; a kernel that never writes has no need of them.
    let options = format!("root_owner=0:0,lazy_itable_init=1,hash_seed={uuid}");
    make.args(["-O", FEATURES, "-N", &extent.inodes().to_string(), "-U", &uuid, "-E", &options, "-d"]);
    make.arg(tree).arg(into).arg(blocks);
    run(&mut make, MISSING)?;
    // A room with a root of layers would find it.
    let mut debugfs = program("debugfs");
    run(debugfs.args(["-w", "-R", "rmdir lost+found"]).arg(into), MISSING).map(drop)
}

/// An empty file system to write to.
pub(crate) fn blank(bytes: u64, into: &Path) -> Result<(), GuestImageError> {
    let mut make = mke2fs(into)?;
    let journal = (bytes >> 26).clamp(JOURNAL_MIB.0, JOURNAL_MIB.1);
    // Tables are zeroed now, as holes: else the guest's kernel would do so in the background, on the host's disk.
    make.args(["-O", &format!("{FEATURES},has_journal"), "-J", &format!("size={journal}"), "-i", "16384"]);
    make.args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"]);
    run(make.arg(into).arg((bytes / BLOCK_BYTES).to_string()), MISSING).map(drop)
}

fn mke2fs(into: &Path) -> Result<Command, GuestImageError> {
    let configuration = into.with_extension("conf");
    fs::write(&configuration, CONFIGURATION).map_err(GuestImageError::disk(&configuration))?;
    let mut make = program("mke2fs");
    make.env("MKE2FS_CONFIG", configuration);
    make.args(["-q", "-F", "-t", "ext4", "-b", &BLOCK_BYTES.to_string(), "-I", &INODE_BYTES.to_string(), "-m", "0"]);
    Ok(make)
}

/// An ordinary user's files are to be root's in the guest: it is run as root of a user namespace that has but that user.
fn program(name: &str) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        true => command(name),
        false => {
            let mut unshare = command("unshare");
            unshare.args(["--map-root-user", "--", name]);
            unshare
        }
    };
    command.env("E2FSPROGS_FAKE_TIME", "1");
    command
}

/// A name that is the same for the same content.
fn uuid(key: &str) -> String {
    let mut digits = key.chars().chain(std::iter::repeat('0'));
    let mut part = |length: usize| digits.by_ref().take(length).collect::<String>();
    [8, 4, 4, 4, 12].map(&mut part).join("-")
}

/// Whether this is a file as large as a session's disk is to be.
pub(crate) fn is_of(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|about| about.size() == bytes)
}
