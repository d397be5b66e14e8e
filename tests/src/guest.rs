//! A guest image for rooms with a kernel of their own: built once for all tests of a tree, handed to each server.

use crate::{binary, skip};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Names the kernel's Debian package; `cargo xtask test` fetches it.
const KERNEL: &str = "E2E_KERNEL";
/// Small, with what the tests of rooms run.
const PACKAGES: &str = "bash,coreutils,curl,findutils,grep,iproute2,procps,python3,sed,tar,util-linux";

/// A directory that holds an image and nothing else, if machines can be made here; otherwise says why not.
pub fn image() -> Option<PathBuf> {
    let Some(kernel) = std::env::var_os(KERNEL).filter(|kernel| Path::new(kernel).exists()) else {
        skip(&format!("{KERNEL} names no Debian package with a kernel"));
        return None;
    };
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        skip("`qemu-system-x86_64` is not here: install the package `qemu-system-x86`");
        return None;
    }
    let at = binary::loopd().parent().expect("it lies somewhere").join("test-guest");
    // What was made before is not made again, and two who build wait for each other.
    let mut build = Command::new(binary::loopd());
    build.args(["image", "build", "--packages", PACKAGES, "--data"]).arg(&at).arg("--kernel").arg(kernel);
    let built = build.output().expect("loopd starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(at.join("guest"))
}

/// Held by whoever makes machines: several tests that do so at once wait for the processor, and not for what they try.
pub struct Turn(#[allow(dead_code, reason = "the lock is in it")] File);

impl Turn {
    pub fn take(image: &Path) -> Self {
        let lock = image.with_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(lock).expect("a file");
        lock.lock().expect("locked");
        Turn(lock)
    }
}

/// A directory for a server whose data has the image. Templates that it makes are its own.
pub fn root() -> Option<(TempDir, Turn)> {
    let image = image()?;
    let turn = Turn::take(&image);
    let root = TempDir::with_prefix("loopd-test-").expect("a directory");
    lend(&image, &root.path().join("data"));
    Some((root, turn))
}

fn lend(image: &Path, data: &Path) {
    let guest = data.join("guest");
    fs::create_dir_all(&guest).expect("made");
    // Named by their content, and never changed.
    for shelf in ["bases", "initramfs", "kernels"] {
        symlink(image.join(shelf), guest.join(shelf)).expect("linked");
    }
    fs::copy(image.join("current.json"), guest.join("current.json")).expect("copied");
}
