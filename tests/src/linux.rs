//! A plain Linux host of its own: Debian's kernel with cgroup version 2, this host's programs, and a loopd that is tried in it.
//!
//! ```text
//!  initramfs of `loopd image build` + linux/first.sh ─► base disk: programs, read-only ─► /data: a script, loopd, the test program
//! ```
//!
//! For what depends on the kernel's settings and not on loopd: no machine that runs tests has them all. The kernel is the one of
//! rooms that have one of their own, see [`guest`]; nothing else of such a room is in it. It is emulated in software, ten to twenty
//! times slower than its host: nothing that is tried in there may be about time.
//!
//! What is tried says so itself: the test program is copied into the machine and run there for one ignored test after the other,
//! each as root, in the top cgroup ([`Report`] has what came of each).

use crate::guest::{self, Turn};
use crate::{binary, clock, skip};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Memory of the machine: what is tried, what it limits, and a kernel.
const MEMORY_MB: u32 = 1_536;
/// Of the disk with what is tried and all that it writes; sparse.
const DISK: &str = "4G";
/// No machine that works needs so long, on a host that is busy as well.
const DEADLINE: Duration = Duration::from_secs(480);
/// As `sandbox/src/microvm/qemu/command.rs`, which says why.
const BOARD: &str = "microvm,acpi=on,ioapic2=on,pcie=off,usb=off,pic=off,pit=off,rtc=on,isa-serial=on";
const KERNEL: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t no_timer_check tsc=reliable pci=off random.trust_cpu=on \
     cryptomgr.notests";
/// What the script says of each thing that was tried, with its name and its exit code, and at its own end.
const CAME_TO: &str = "tried: ";
const OVER: &str = "all was tried";

/// What came of it.
pub struct Report {
    pub console: String,
    took: Duration,
}

/// Boots a machine, has it run the ignored tests of a module of the test program, and waits for its end. The script mounts what the module
/// is named for. `None`, with a reason told, where there cannot be a machine.
pub fn boot(scenes: &str) -> Option<Report> {
    for (program, package) in [("cpio", "cpio"), ("busybox", "busybox-static"), ("mke2fs", "e2fsprogs")] {
        if find(program).is_none() {
            skip(&format!("`{program}` is not here: install the package `{package}`"));
            return None;
        }
    }
    let image = guest::image()?;
    let _turn = Turn::take(&image);
    let place = TempDir::with_prefix("loopd-linux-").expect("a directory");
    let current = fs::read_to_string(image.join("current.json")).expect("an image has one");
    let current: Value = serde_json::from_str(&current).expect("JSON");
    let name = |part: &str| current[part].as_str().expect("a name");
    let kernel = image.join("kernels").join(name("kernel")).join("vmlinux");
    let base = image.join("bases").join(name("base"));
    let beneath = image.join("initramfs").join(format!("{}.cpio", name("initramfs")));
    let (disk, initramfs) = (disk(place.path()), initramfs(place.path(), &beneath));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", BOARD, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.args(["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off", "-smp", "2"]);
    qemu.args(["-m", &format!("{MEMORY_MB}M"), "-kernel"]).arg(kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", &format!("{KERNEL} tsc_early_khz={} scenes={} end", clock::counter_khz(), scenes)]);
    // The guest finds the last transport first.
    for (bus, name, file, mode) in [(23, "base", base, "read-only=on"), (22, "data", disk, "cache.no-flush=on")] {
        let file = file.display();
        qemu.args(["-blockdev", &format!("driver=raw,node-name={name},file.driver=file,file.filename={file},{mode}")]);
        qemu.args(["-device", &format!("virtio-blk-device,drive={name},bus=virtio-mmio-bus.{bus}")]);
    }
    Some(run(qemu))
}

/// A machine's console up to its end.
fn run(mut qemu: Command) -> Report {
    let begun = Instant::now();
    let mut machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU starts");
    let mut console = machine.stdout.take().expect("piped");
    let (pieces, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4_096];
        while let Ok(length @ 1..) = console.read(&mut bytes) {
            if pieces.send(bytes[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut text = Vec::new();
    while let Ok(piece) = said.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
        text.extend(piece);
    }
    // It has closed its console or has had its time.
    let ended = begun.elapsed() < DEADLINE;
    if !ended {
        machine.kill().expect("it runs");
    }
    machine.wait().expect("it ran");
    let console = String::from_utf8_lossy(&text).replace('\r', "");
    assert!(ended, "the machine did not end within {DEADLINE:?}; it said:\n{console}");
    Report { console, took: begun.elapsed() }
}

impl Report {
    /// All of these were tried, nothing else was, and each came to its end.
    #[track_caller]
    pub fn all_passed(&self, expected: &[&str]) {
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        let tried: Vec<_> =
            self.console.lines().filter_map(|line| line.strip_prefix(CAME_TO)?.split_once(' ')).collect();
        let names: BTreeSet<_> = tried.iter().map(|(name, _)| *name).collect();
        let failed: Vec<_> = tried.iter().filter(|(_, code)| *code != "0").collect();
        let is_whole = self.console.lines().any(|line| line == OVER);
        assert!(
            failed.is_empty() && is_whole && names == expected,
            "failed: {failed:?}; tried: {names:?} of {expected:?}; to its end: {is_whole}, after {:?}:\n{}",
            self.took,
            self.console
        );
    }
}

/// A disk with all that the machine is to try.
fn disk(place: &Path) -> PathBuf {
    let (content, disk) = (place.join("content"), place.join("data.ext4"));
    fs::create_dir(&content).expect("made");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(sources.join("linux")).expect("it is there") {
        let entry = entry.expect("it can be listed");
        copy(&entry.path(), &content.join(entry.file_name()));
    }
    copied_without_symbols(binary::loopd(), &content.join("loopd"));
    copied_without_symbols(&std::env::current_exe().expect("a test program knows its path"), &content.join("tests"));
    done(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
            .arg(&content)
            .arg(&disk)
            .arg(DISK),
    );
    disk
}

/// The machine's kernel unpacks one archive after the other: what is in the second takes the place of what is in the first.
fn initramfs(place: &Path, beneath: &Path) -> PathBuf {
    let (content, file) = (place.join("first"), place.join("initramfs"));
    fs::create_dir(&content).expect("made");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("linux/first.sh"), &content.join("init"));
    copy(&find("busybox").expect("looked for before"), &content.join("busybox"));
    let mut bytes = fs::read(beneath).expect("an image has one");
    let list = "init\nbusybox\n";
    let mut cpio = Command::new("cpio")
        .args(["-o", "--quiet", "-H", "newc", "-R", "0:0"])
        .current_dir(&content)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("looked for before");
    cpio.stdin.take().expect("piped").write_all(list.as_bytes()).expect("it reads");
    let packed = cpio.wait_with_output().expect("it ends");
    assert!(packed.status.success());
    bytes.extend(packed.stdout);
    fs::write(&file, bytes).expect("written");
    file
}

/// What debuggers need is most of a program, and the machine has to read it from an emulated disk.
fn copied_without_symbols(from: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).stderr(Stdio::null()).status();
    if !stripped.is_ok_and(|status| status.success()) {
        copy(from, to);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|fault| panic!("`{}`: {fault}", from.display()));
}

fn done(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(|path| path.is_file())
}
