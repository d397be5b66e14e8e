//! Whole images, of a kernel that is none and of packages that are here.

use super::*;
use crate::initramfs::tests::{PROGRAMS, read};
use std::io::Write as _;

/// There is no silent pass: see `tests/src/lib.rs`.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("E2E_SKIPS") {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let file = fs::File::options().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{name}: {reason}")).expect("the list of skipped tests is writable");
    }
}

pub(crate) fn has_e2fsprogs() -> bool {
    let is_there = program::command("mke2fs").arg("-V").output().is_ok();
    if !is_there {
        skip("`mke2fs` is not here: install the package `e2fsprogs`");
    }
    is_there
}

/// What the file system at `disk` answers.
pub(crate) fn debugfs(disk: &Path, request: &str) -> String {
    let done = program::command("debugfs").args(["-R", request]).arg(disk).output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The file system is whole.
pub(crate) fn check(disk: &Path) {
    let done = program::command("e2fsck").args(["-f", "-n"]).arg(disk).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// A data directory, and what an image of it can be made of: a kernel that is none, and a root with a shell that is none.
struct Rig {
    directory: tempfile::TempDir,
    images: GuestImages,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("modules")).unwrap();
        fs::write(path.join("modules/modules.builtin"), "ext4.ko\noverlay.ko\nvirtio_blk.ko\nvirtio_console.ko\n")
            .unwrap();
        fs::write(path.join("modules/virtio_mmio.ko"), elf::tests::module(b"depends=\0")).unwrap();
        fs::write(path.join("vmlinux"), elf::tests::kernel(true)).unwrap();
        fs::create_dir_all(path.join("root/bin")).unwrap();
        fs::write(path.join("root/bin/sh"), "#!").unwrap();
        let images = GuestImages::new(&path.join("data"));
        Rig { directory, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn order(&self) -> Order {
        let kernel = KernelSource::File { kernel: self.path("vmlinux"), modules: Some(self.path("modules")) };
        Order { kernel, base: BaseSource::Directory(self.path("root")) }
    }

    fn build(&self) -> GuestImage {
        self.images.build(&self.order(), &PROGRAMS, &mut |_| {}).unwrap()
    }

    fn count(&self, shelf: &str) -> usize {
        fs::read_dir(self.path("data/guest").join(shelf)).unwrap().count()
    }
}

#[test]
fn what_was_built_is_the_current_image() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    assert_eq!(rig.images.current(&PROGRAMS).unwrap(), None);
    assert!(!rig.path("data").exists(), "to look makes nothing");
    let image = rig.build();
    assert_eq!(rig.images.current(&PROGRAMS).unwrap().as_ref(), Some(&image));
    assert_eq!(fs::read(&image.kernel).unwrap(), elf::tests::kernel(true));
    let entries = read(&fs::read(&image.initramfs).unwrap());
    assert!(entries.iter().any(|(name, _, content)| name == "modules/order" && content == b"virtio_mmio.ko\n"));
    check(&image.base);
    assert!(debugfs(&image.base, "cat bin/sh").contains("#!"));
    assert!(debugfs(&image.base, "stat tmp").contains("Mode:  01777"));
    assert!(!debugfs(&image.base, "features").contains("has_journal"));
}

#[test]
fn what_was_built_before_is_not_built_again() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    let image = rig.build();
    let mut cached = 0;
    let again = rig.images.build(&rig.order(), &PROGRAMS, &mut |step| cached += usize::from(step == Progress::Cached));
    assert_eq!((again.unwrap(), cached), (image.clone(), 2));
    assert_eq!(rig.count("work"), 0, "nothing unfinished is left");

    fs::write(rig.path("root/bin/more"), "x").unwrap();
    let other = rig.build();
    assert_eq!((&other.kernel, &other.initramfs), (&image.kernel, &image.initramfs));
    assert_ne!(other.base, image.base);
    assert_ne!(other.fingerprint, image.fingerprint);
    assert!(image.base.exists(), "a machine may still have it");
}

#[test]
fn other_programs_are_another_initramfs_and_nothing_else() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    let image = rig.build();
    let upgraded = Programs { cell: b"a newer cell", ..PROGRAMS };
    let current = rig.images.current(&upgraded).unwrap().unwrap();
    assert_eq!((&current.kernel, &current.base), (&image.kernel, &image.base));
    assert_ne!(current.initramfs, image.initramfs);
    assert_ne!(current.fingerprint, image.fingerprint);
    let entries = read(&fs::read(&current.initramfs).unwrap());
    assert!(entries.iter().any(|(_, _, content)| content == b"a newer cell"));
    assert_eq!(rig.images.current(&upgraded).unwrap().unwrap(), current, "and the same when it is asked for again");
    assert_eq!(rig.images.current(&PROGRAMS).unwrap().unwrap(), image, "a loopd that goes back finds what it had");
    fs::remove_file(&image.initramfs).unwrap();
    assert_eq!(rig.images.current(&PROGRAMS).unwrap().unwrap(), image, "it is made anew where it is gone");
    assert!(image.initramfs.exists());
}

#[test]
fn a_build_that_was_cut_off_is_no_image() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    let fault = rig.images.build(
        &Order { base: BaseSource::Directory(rig.path("gone")), ..rig.order() },
        &PROGRAMS,
        &mut |_| {},
    );
    assert!(fault.unwrap_err().to_string().contains("gone"));
    assert_eq!(rig.images.current(&PROGRAMS).unwrap(), None);
    // As a kill leaves it.
    let left = rig.path("data/guest/work/0123/tree");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), "x").unwrap();
    let image = rig.build();
    assert!(!left.exists());
    fs::remove_file(&image.base).unwrap();
    assert_eq!(rig.images.current(&PROGRAMS).unwrap(), None, "an image in parts is none");
    assert!(rig.build().base.exists());
}

#[test]
fn a_manifest_that_cannot_be_understood_is_an_error_with_a_way_out() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("data/guest")).unwrap();
    fs::write(rig.path("data/guest/current.json"), "{\"version\": 1}").unwrap();
    let fault = rig.images.current(&PROGRAMS).unwrap_err().to_string();
    assert!(fault.contains("loopd image build"), "{fault}");
    fs::write(rig.path("data/guest/current.json"), "{\"version\": 2, \"parts\": []}").unwrap();
    assert_eq!(rig.images.current(&PROGRAMS).unwrap(), None, "one of a newer loopd");
}

#[test]
fn two_builds_at_the_same_time_are_one_image() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(|| rig.build()), scope.spawn(|| rig.build()));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(one, other);
    assert_eq!((rig.count("kernels"), rig.count("bases"), rig.count("initramfs")), (1, 1, 1));
}

#[test]
fn what_nobody_uses_is_removed() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    assert_eq!(rig.images.collect(&|_| false).unwrap(), 0);
    let old = rig.build();
    let layer = rig.images.layer_disk(&rig.path("root")).unwrap();
    fs::write(rig.path("root/bin/more"), "x").unwrap();
    let new = rig.build();
    assert_eq!(rig.images.collect(&|path| path == old.base || path == layer).unwrap(), 0);
    assert_eq!(rig.images.collect(&|path| path == layer).unwrap(), 1);
    assert!(!old.base.exists() && layer.exists());
    assert_eq!(rig.images.collect(&|_| false).unwrap(), 1);
    assert_eq!(rig.images.current(&PROGRAMS).unwrap(), Some(new));
    assert_eq!(rig.count("work"), 0);
}

#[test]
fn kernels_that_would_not_start_are_refused() {
    if !has_e2fsprogs() {
        return;
    }
    let rig = Rig::new();
    let told = |order: &Order| rig.images.build(order, &PROGRAMS, &mut |_| {}).unwrap_err().to_string();
    fs::write(rig.path("vmlinux"), elf::tests::kernel(false)).unwrap();
    assert!(told(&rig.order()).contains("no PVH entry"));
    fs::write(rig.path("vmlinux"), "#!/bin/sh").unwrap();
    assert!(told(&rig.order()).contains("neither a `vmlinux`"));
    fs::write(rig.path("vmlinux"), b"!<arch>\nrest").unwrap();
    assert!(told(&rig.order()).contains("leave the directory of modules out"));
    let of = |name: &str| Order { kernel: KernelSource::File { kernel: rig.path(name), modules: None }, ..rig.order() };
    assert!(told(&of("none")).contains("none`: No such file"));
    fs::write(rig.path("modular"), elf::tests::kernel(true)).unwrap();
    assert!(told(&of("modular")).contains("--modules"));
    fs::write(rig.path("monolithic"), [&elf::tests::kernel(true)[..], b"virtio-mmio\0"].concat()).unwrap();
    assert!(rig.images.build(&of("monolithic"), &PROGRAMS, &mut |_| {}).is_ok());
}

/// All of it, of this host: the package where it was fetched for tests, and files of installed packages.
#[test]
fn a_whole_image_of_this_host() {
    if !has_e2fsprogs() {
        return;
    }
    let Some(package) = std::env::var_os("E2E_KERNEL").map(PathBuf::from).or_else(fetched) else {
        return skip("no kernel's package is here: `cargo xtask test` fetches it, or E2E_KERNEL names it");
    };
    let directory = tempfile::tempdir().unwrap();
    let images = GuestImages::new(directory.path());
    let base = BaseSource::packages(&PACKAGES_SMALL, true);
    let order = Order { kernel: KernelSource::File { kernel: package, modules: None }, base };
    let image = images.build(&order, &PROGRAMS, &mut |_| {}).unwrap();

    let kernel = fs::read(&image.kernel).unwrap();
    assert!(elf::is_elf(&kernel) && elf::has_pvh_entry(&kernel));
    let entries = read(&fs::read(&image.initramfs).unwrap());
    let order = entries.iter().find(|(name, ..)| name == "modules/order").unwrap();
    let order: Vec<&str> = std::str::from_utf8(&order.2).unwrap().lines().collect();
    for needed in ["virtio_mmio.ko", "virtio_blk.ko", "virtio_console.ko", "overlay.ko"] {
        assert!(order.contains(&needed), "{needed} is not among {order:?}");
    }
    for (at, name) in order.iter().enumerate() {
        let (.., module) = entries.iter().find(|entry| entry.0 == format!("modules/{name}")).unwrap();
        let information = String::from_utf8_lossy(elf::section(module, ".modinfo").unwrap()).into_owned();
        let needs = information.split('\0').find_map(|entry| entry.strip_prefix("depends=")).unwrap();
        for need in needs.split(',').filter(|need| !need.is_empty()) {
            assert!(order[..at].contains(&format!("{need}.ko").as_str()), "{name} needs {need}: {order:?}");
        }
    }

    check(&image.base);
    for path in
        ["usr/bin/bash", "usr/bin/env", "usr/bin/find", "bin/sh", "etc/ld.so.cache", "etc/os-release", "proc", "tmp"]
    {
        assert!(debugfs(&image.base, &format!("stat {path}")).contains("Inode:"), "{path}");
    }
    assert!(debugfs(&image.base, "stat usr/bin/bash").contains("User:     0   Group:     0"));
    for path in ["etc/shadow", "etc/passwd", "root/.bashrc", "etc/hostname", "usr/share/doc"] {
        assert!(!debugfs(&image.base, &format!("stat {path}")).contains("Inode:"), "{path}");
    }
}

/// The only package in the place where `xtask` puts it.
fn fetched() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/guest-kernel");
    let found = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    found.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).max()
}
