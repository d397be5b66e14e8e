//! The tree that the launcher lives in, and that every room is a copy of.
//!
//! ```text
//!  /           a file system in memory
//!  /data       the host's data directory: sessions live below it
//!  /proc       the host's, to write id maps; the kernel also wants to see one before it gives an ordinary user another
//!  /room       a finished room but for what is a session's own; read-only
//!  /roots/n  other directories that rooms' roots may lie in; read-only
//!  /layers     where a room with another root puts one together ([`crate::root`]), and
//!  /built      where that is mounted
//! ```
//!
//! The host's own tree is gone from it: a child that has not yet built its walls cannot reach more than this, and a host
//! with a thousand mounts does not make rooms slow, because a new mount namespace copies only these few.

use crate::entry::Configuration;
use crate::fault::{Fault, While};
use crate::{ids, sys, trust};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where programs and libraries are. Each is as on the host: a directory bound read-only, or a symbolic link like `bin -> usr/bin`.
pub const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Directories of the host's `/etc` that programs in `/usr` lean on; bound read-only where they exist.
const ETC_DIRECTORIES: [&str; 5] =
    ["alternatives", "ssl/certs", "ca-certificates", "pki/tls/certs", "pki/ca-trust/extracted"];
/// Files of the host's `/etc` that are copied where they exist. None may hold a secret.
const ETC_FILES: [&str; 9] = [
    "ld.so.cache",
    "localtime",
    "os-release",
    "debian_version",
    "services",
    "protocols",
    "mime.types",
    "shells",
    "ssl/openssl.cnf",
];
/// Bound from the host where they exist; only `null` is needed to build a room.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Mount points, and the plainest of what programs expect.
pub(crate) const DIRECTORIES: [&str; 17] = [
    "dev/pts",
    "dev/shm",
    "etc",
    "home/agent",
    "mnt/memory",
    "mnt/session/outputs",
    "mnt/session/uploads",
    "opt",
    "proc",
    "root",
    "run",
    "run/loopd",
    "srv",
    "sys",
    "tmp",
    "var/lib",
    "workspace",
];
pub(crate) const LINKS: [(&str, &str); 8] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
    ("/proc/self/mounts", "etc/mtab"),
    ("../run", "var/run"),
    ("../tmp", "var/tmp"),
];
/// What a fresh `/proc` shows that no tool needs. Most of it is already beyond a room's user; a second wall.
const PROC_MASKED: [&str; 6] = ["kcore", "keys", "key-users", "kmsg", "sysrq-trigger", "timer_list"];

/// Name of every room's host.
pub(crate) const HOST_NAME: &str = "room";
/// The finished room.
pub(crate) const ROOM: &str = "/room";
/// Mount points of a room that is put together.
pub(crate) const LAYERS: &str = "/layers";
pub(crate) const BUILT: &str = "/built";

/// The stage, once it is set.
pub(crate) struct Stage {
    /// Of `PROC_MASKED`, those that this kernel has.
    pub masked: Vec<&'static str>,
    /// What is mounted in [`ROOM`], by its name there, in the order in which it was mounted.
    pub mounted: Vec<String>,
}

/// Leaves the host's tree for the stage. The data directory is bound to `/data`, and each of the roots to its number.
pub(crate) fn set(configuration: &Configuration) -> Result<Stage, Fault> {
    let data = Path::new(OsStr::from_bytes(&configuration.data));
    sys::unshare(UnshareFlags::NEWNS).while_doing("making a mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .while_doing("making mounts private")?;
    let masked = PROC_MASKED.into_iter().filter(|name| Path::new("/proc").join(name).exists()).collect();
    let parts = Parts::take(data, configuration)?;
    let mounted = parts.mounts.iter().filter_map(|(to, ..)| to.strip_prefix("room/")).map(str::to_owned).collect();
    // Anywhere will do: the mount becomes the root in a moment. The data directory is the one that surely exists.
    in_memory(data, "mode=0755").while_doing("mounting the stage")?;
    rustix::process::chdir(data).while_doing("entering the stage")?;
    parts.place()?;
    rustix::process::pivot_root(".", ".").while_doing("making the stage the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).while_doing("leaving the host's tree")?;
    rustix::process::chdir("/").while_doing("entering the stage")?;
    Ok(Stage { masked, mounted })
}

/// What the stage takes from the host's tree, held while the launcher moves over.
struct Parts {
    /// Mounts, and where they go.
    mounts: Vec<(String, OwnedFd, Point)>,
    links: Vec<(PathBuf, String)>,
    files: Vec<(String, Vec<u8>)>,
}

/// What a mount is put on.
enum Point {
    Directory,
    File,
}

impl Parts {
    fn take(data: &Path, configuration: &Configuration) -> Result<Self, Fault> {
        let authority = &configuration.authority[..];
        let mut parts = Parts { mounts: Vec::new(), links: Vec::new(), files: own_files() };
        let fixed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let read_only = fixed | MountAttrFlags::MOUNT_ATTR_RDONLY;
        parts.bind(data, "data", fixed, Point::Directory)?;
        parts.bind(Path::new("/proc"), "proc", fixed | MountAttrFlags::MOUNT_ATTR_NOEXEC, Point::Directory)?;
        let roots = configuration.roots.iter().map(|path| Path::new(OsStr::from_bytes(path)));
        for (number, path) in roots.enumerate().filter(|(_, path)| path.is_dir()) {
            parts.bind(path, &format!("roots/{number}"), read_only, Point::Directory)?;
        }
        for name in SYSTEM {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => parts.links.push((target, format!("room/{name}"))),
                Err(_) if path.is_dir() => parts.bind(&path, &format!("room/{name}"), read_only, Point::Directory)?,
                Err(_) => {}
            }
        }
        if !authority.is_empty() {
            let trusted = trust::with_authority(authority)?;
            parts.links.extend(trusted.links);
            parts.files.extend(trusted.files);
        }
        let fixed_names = ETC_DIRECTORIES.into_iter().map(str::to_owned);
        for name in fixed_names.chain(java_configurations()) {
            let path = Path::new("/etc").join(&name);
            let is_copied = !authority.is_empty() && name == trust::DIRECTORY;
            if path.is_dir() && !is_copied {
                parts.bind(&path, &format!("room/etc/{name}"), read_only, Point::Directory)?;
            }
        }
        for name in DEVICES {
            let device = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let path = Path::new("/dev").join(name);
            if path.exists() {
                parts.bind(&path, &format!("room/dev/{name}"), device, Point::File)?;
            }
        }
        for name in ETC_FILES {
            match fs::read(Path::new("/etc").join(name)) {
                Ok(bytes) => parts.files.push((format!("room/etc/{name}"), bytes)),
                Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {}
                Err(fault) => return Err(fault).while_doing(&format!("reading /etc/{name}")),
            }
        }
        Ok(parts)
    }

    fn bind(&mut self, from: &Path, to: &str, set: MountAttrFlags, point: Point) -> Result<(), Fault> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(CWD, from, flags).while_doing(&format!("taking {}", from.display()))?;
        sys::set_mount_attributes(tree.as_fd(), set, true).while_doing(&format!("restricting {}", from.display()))?;
        self.mounts.push((to.to_owned(), tree, point));
        Ok(())
    }

    /// Puts everything in place, in the working directory.
    fn place(self) -> Result<(), Fault> {
        for name in [ROOM, LAYERS, BUILT] {
            fs::create_dir(name.trim_start_matches('/')).while_doing(&format!("making {name}"))?;
        }
        in_memory(Path::new("room"), "mode=0755").while_doing("mounting /room")?;
        for name in DIRECTORIES {
            fs::create_dir_all(Path::new("room").join(name)).while_doing(&format!("making {name}"))?;
        }
        for (target, link) in LINKS {
            symlink(target, Path::new("room").join(link)).while_doing(&format!("making {link}"))?;
        }
        for (target, link) in &self.links {
            make_parent(link).while_doing(&format!("making {link}"))?;
            symlink(target, link).while_doing(&format!("making {link}"))?;
        }
        for (path, bytes) in &self.files {
            write(path, bytes).while_doing(&format!("writing {path}"))?;
        }
        for (path, tree, point) in &self.mounts {
            match point {
                Point::Directory => fs::create_dir_all(path),
                Point::File => write(path, b""),
            }
            .while_doing(&format!("making {path}"))?;
            rustix::mount::move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .while_doing(&format!("mounting {path}"))?;
        }
        seal(Path::new("room"))
    }
}

/// Directories in `/etc` without which Debian's Java does not start; each version has its own.
fn java_configurations() -> Vec<String> {
    let names =
        fs::read_dir("/etc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("java-") && name.ends_with("-openjdk")).collect()
}

fn write(path: &str, bytes: &[u8]) -> std::io::Result<()> {
    make_parent(path)?;
    fs::write(path, bytes)
}

fn make_parent(path: &str) -> std::io::Result<()> {
    Path::new(path).parent().map_or(Ok(()), fs::create_dir_all)
}

pub(crate) fn in_memory(at: &Path, options: &str) -> rustix::io::Result<()> {
    let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount("room", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)
}

/// Makes the finished room read-only.
pub(crate) fn seal(room: &Path) -> Result<(), Fault> {
    let handle = rustix::fs::open(room, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).while_doing("opening /room")?;
    sys::set_mount_attributes(handle.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false).while_doing("sealing /room")?;
    // A tool that finds `/` writable would find it writable for ever; so this is tried rather than believed.
    match rustix::fs::accessat(CWD, room, rustix::fs::Access::WRITE_OK, AtFlags::empty()) {
        Err(rustix::io::Errno::ROFS) => Ok(()),
        _ => Err(Fault::new("sealing /room: it is still writable", rustix::io::Errno::PERM)),
    }
}

/// The part of `/etc` that is our own.
fn own_files() -> Vec<(String, Vec<u8>)> {
    let files = etc("/bin/bash").into_iter();
    files.map(|(name, text)| (format!("room/etc/{name}"), text.into_bytes())).collect()
}

/// Name and content of the files of `/etc` that every room has, whatever its root is.
pub(crate) fn etc(shell: &str) -> [(&'static str, String); 6] {
    let agent = ids::AGENT;
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                 agent:x:{agent}:{agent}:agent:/home/agent:{shell}\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\ntty:x:5:\nagent:x:{agent}:\nnogroup:x:65534:\n")),
        ("hostname", format!("{HOST_NAME}\n")),
        ("hosts", format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n")),
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
    ]
}
