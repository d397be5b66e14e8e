//! `loopd-jail confine`: starts one program of the host as a stranger: a virtual machine's monitor, which works for a guest.
//!
//! ```text
//!  host ══order, descriptors══► this process: cgroups, user namespace ──clone──► child: root, user, powers, limits, exec ─► the program
//!       ◄══Confined, pidfd══════    └─ ends once the child's link closes by the exec, or says what failed
//! ```
//!
//! What the program has: its descriptors, from [`FIRST`] on; the host's programs and libraries, read-only; three or four devices;
//! a `/proc` with nothing in it but itself. It is the first process of namespaces of its own, with no network, no power, and
//! nobody's child: it lives on without the host.
//!
//! It may make the system calls that programs of rooms may make; a narrower filter is its own to install, as nobody else knows
//! what it can do without.

use crate::entry::become_root_of_own_namespace;
use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::stage::{self, SYSTEM};
use crate::sys::{self, Side};
use crate::wire::{DESCRIPTORS_MAX, Malformed, Reader, Writer};
use crate::{channel, walls};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::Signal;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// Number of the program's first descriptor; the others follow.
pub const FIRST: i32 = 3;
/// Descriptors of one program, with those of its cgroups and its error output.
pub const PROGRAM_DESCRIPTORS_MAX: usize = 64;

/// No descriptor of the program has this number or a higher one.
const ABOVE: i32 = FIRST + PROGRAM_DESCRIPTORS_MAX as i32;
/// Where the program begins: namespaces that no other process is in.
const NAMESPACES: sys::CloneFlags =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
const HOST_NAME: &[u8] = b"machine";
const DEVICES: [&str; 2] = ["null", "urandom"];
const KVM: &str = "kvm";
/// Without it the loader looks for libraries where some of them are not.
const LOADER_CACHE: &str = "etc/ld.so.cache";
/// The root holds mount points and the loader's cache, and is read-only.
const ROOT_OPTIONS: &str = "mode=0755,size=4m,nr_inodes=128";

/// What to confine. The packet with it carries no descriptor; they follow, [`DESCRIPTORS_MAX`] a packet at most: `cgroup.procs` files,
/// the error output, then the program's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confine {
    /// Of the host, below `/usr` or what links there.
    pub program: Vec<u8>,
    /// The first is the program's name.
    pub arguments: Vec<Vec<u8>>,
    /// The host user to become; `None`: the one who is asking, who must not be root.
    pub user: Option<u32>,
    /// Whether it may use `/dev/kvm`.
    pub kvm: bool,
    pub cgroups: u64,
    pub descriptors: u64,
    pub open_files: u64,
    /// Processes and threads of `user`.
    pub processes: u64,
    /// Size of a file that it writes.
    pub file_bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confined {
    /// The program runs. With it: a pidfd.
    Runs {
        pid: u32,
    },
    Failed(Fault),
}

impl Confine {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(&self.program);
        out.list(&self.arguments);
        out.option(self.user.map(u64::from));
        for number in [u64::from(self.kvm), self.cgroups, self.descriptors] {
            out.number(number);
        }
        for number in [self.open_files, self.processes, self.file_bytes] {
            out.number(number);
        }
        out.finish()
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(packet);
        let order = Confine {
            program: from.bytes()?,
            arguments: from.list()?,
            user: from.option()?.map(u32::try_from).transpose().map_err(|_| Malformed)?,
            kvm: from.number()? != 0,
            cgroups: from.number()?,
            descriptors: from.number()?,
            open_files: from.number()?,
            processes: from.number()?,
            file_bytes: from.number()?,
        };
        from.end(order)
    }
}

impl Confined {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Confined::Runs { pid } => {
                out.number(0);
                out.number(u64::from(*pid));
            }
            Confined::Failed(fault) => {
                out.number(1);
                out.fault(fault);
            }
        }
        out.finish()
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(packet);
        let word = match from.number()? {
            0 => Confined::Runs { pid: u32::try_from(from.number()?).map_err(|_| Malformed)? },
            1 => Confined::Failed(from.fault()?),
            _ => return Err(Malformed),
        };
        from.end(word)
    }
}

/// Standard input is the host's socket, and all that this process is given.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // A host that is gone does not want to know.
            let _ = channel::send(std::io::stdin(), &Confined::Failed(fault).encode(), &[], true);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    sys::close_from(FIRST).while_doing("closing descriptors")?;
    let (order, descriptors) = receive()?;
    let (cgroups, rest) = descriptors.split_at(order.cgroups as usize);
    for file in cgroups {
        rustix::io::write(file, b"0").while_doing("joining the machine's cgroup")?;
    }
    match (order.user, rustix::process::geteuid().is_root()) {
        (None, true) => return Err(Fault::new("naming a user that is not root", Errno::INVAL)),
        (None, false) => become_root_of_own_namespace()?,
        (Some(_), _) => {}
    }
    let (here, there) = channel::pair().while_doing("making a socket")?;
    // Above the program's own, so that it closes by the exec and not before.
    let there = above(there)?;
    match sys::clone(NAMESPACES).while_doing("making namespaces")? {
        Side::Child => {
            drop(here);
            let Err(fault) = become_program(&order, rest);
            // Nobody is left to tell when this fails.
            let _ = channel::send(&there, &fault.encode(), &[], true);
            sys::exit_now(1)
        }
        Side::Parent { pid, pidfd } => {
            drop(there);
            let word = match channel::receive(&here, true).while_doing("waiting for the program")? {
                None => Confined::Runs { pid: pid as u32 },
                Some((word, _)) => Confined::Failed(
                    Fault::decode(&word).unwrap_or_else(|_| Fault::new("starting the program", Errno::BADMSG)),
                ),
            };
            let hold = matches!(word, Confined::Runs { .. }).then_some(pidfd.as_fd());
            channel::send(std::io::stdin(), &word.encode(), hold.as_slice(), true).while_doing("telling the host")
        }
    }
}

fn receive() -> Result<(Confine, Vec<OwnedFd>), Fault> {
    const DOING: &str = "waiting for an order";
    let next = || {
        let packet = channel::receive(std::io::stdin(), true).while_doing(DOING)?;
        packet.ok_or_else(|| Fault::new(DOING, Errno::PIPE))
    };
    let (packet, _) = next()?;
    let order = Confine::decode(&packet).map_err(|_| Fault::new(DOING, Errno::BADMSG))?;
    let count = usize::try_from(order.descriptors).unwrap_or(usize::MAX);
    // One at least: the error output.
    if count > PROGRAM_DESCRIPTORS_MAX || order.cgroups >= order.descriptors {
        return Err(Fault::new(DOING, Errno::BADMSG));
    }
    let mut descriptors = Vec::with_capacity(count);
    while descriptors.len() < count {
        let (_, some) = next()?;
        if some.is_empty() || some.len() > DESCRIPTORS_MAX {
            return Err(Fault::new(DOING, Errno::BADMSG));
        }
        descriptors.extend(some);
    }
    Ok((order, descriptors))
}

/// The first of `descriptors` is the error output.
fn become_program(order: &Confine, descriptors: &[OwnedFd]) -> Result<Infallible, Fault> {
    bind_to_parent()?;
    rustix::process::setsid().while_doing("leaving the host's terminal")?;
    rustix::system::sethostname(HOST_NAME).while_doing("naming the host")?;
    let group = if order.kvm { kvm_group()? } else { None };
    enter_root(order.kvm)?;
    walls::limit_monitor(order.open_files, order.file_bytes, order.user.map(|_| order.processes))?;
    walls::become_monitor(order.user, group)?;
    // Another user is bound no longer.
    bind_to_parent()?;
    place(descriptors)?;
    sys::default_signals().while_doing("resetting signals")?;
    let program = text(&order.program)?;
    let arguments = order.arguments.iter().map(|one| text(one)).collect::<Result<Vec<_>, _>>()?;
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    rustix::process::set_parent_process_death_signal(None).while_doing("letting go of its parent")?;
    sys::install(&Filter::compile()).while_doing("installing the system call filter")?;
    let errno = sys::execute_at(&program, &arguments, &[c"PATH=/usr/bin", c"LANG=C.UTF-8"]);
    Err(Fault::new(format!("starting {}", program.to_string_lossy()), errno))
}

/// Until it has become the program: one that is half confined ends with whoever waits for it.
fn bind_to_parent() -> Result<(), Fault> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).while_doing("binding itself to its parent")
}

fn text(bytes: &[u8]) -> Result<CString, Fault> {
    CString::new(bytes).map_err(|_| Fault::new("reading the program's arguments", Errno::INVAL))
}

/// Leaves the host's tree for one in memory.
fn enter_root(kvm: bool) -> Result<(), Fault> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .while_doing("making mounts private")?;
    let mut parts = Vec::new();
    let mut links = Vec::new();
    let fixed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RDONLY;
    for name in SYSTEM {
        let path = Path::new("/").join(name);
        match fs::read_link(&path) {
            Ok(target) => links.push((target, name)),
            Err(_) if path.is_dir() => {
                parts.push((name.to_owned(), true, take(&path, fixed | MountAttrFlags::MOUNT_ATTR_NODEV)?));
            }
            Err(_) => {}
        }
    }
    for name in DEVICES.into_iter().chain(kvm.then_some(KVM)) {
        let device = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        parts.push((format!("dev/{name}"), false, take(&Path::new("/dev").join(name), device)?));
    }
    let cache = match fs::read(Path::new("/").join(LOADER_CACHE)) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.while_doing("reading the loader's cache")?),
    };
    // Anywhere will do: the mount becomes the root in a moment. This directory surely exists.
    stage::in_memory(Path::new("/usr"), ROOT_OPTIONS).while_doing("mounting the root")?;
    rustix::process::chdir("/usr").while_doing("entering the root")?;
    for directory in ["dev", "etc", "proc"] {
        fs::create_dir(directory).while_doing(&format!("making /{directory}"))?;
    }
    if let Some(cache) = &cache {
        fs::write(LOADER_CACHE, cache).while_doing("writing the loader's cache")?;
    }
    for (target, name) in links {
        std::os::unix::fs::symlink(target, name).while_doing(&format!("making /{name}"))?;
    }
    for (name, is_directory, tree) in &parts {
        if *is_directory { fs::create_dir(name) } else { fs::write(name, b"") }
            .while_doing(&format!("making /{name}"))?;
        rustix::mount::move_mount(tree, "", CWD, name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .while_doing(&format!("mounting /{name}"))?;
    }
    mount_proc().while_doing("mounting /proc")?;
    rustix::process::pivot_root(".", ".").while_doing("making it the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).while_doing("leaving the host's tree")?;
    rustix::process::chdir("/").while_doing("entering the root")?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).while_doing("opening the root")?;
    let sealed = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::set_mount_attributes(root.as_fd(), sealed, false).while_doing("sealing the root")
}

/// The group whose members the host lets use KVM. It is a key to nothing else that the program can see.
fn kvm_group() -> Result<Option<u32>, Fault> {
    const READ_WRITE: u32 = 0o060;
    let facts = rustix::fs::stat(Path::new("/dev").join(KVM)).while_doing("looking at /dev/kvm")?;
    Ok((facts.st_mode & READ_WRITE == READ_WRITE && facts.st_gid != 0).then_some(facts.st_gid))
}

fn take(from: &Path, set: MountAttrFlags) -> Result<OwnedFd, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let doing = format!("taking {}", from.display());
    let tree = rustix::mount::open_tree(CWD, from, flags).while_doing(&doing)?;
    sys::set_mount_attributes(tree.as_fd(), set, true).while_doing(&doing)?;
    Ok(tree)
}

/// The program opens some of its descriptors by their names there; it shows no other process, and no more of the kernel than it must.
fn mount_proc() -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let mount = |options: &CStr| rustix::mount::mount("proc", "proc", "proc", flags, options);
    match mount(c"hidepid=2,subset=pid") {
        // Before Linux 5.8.
        Err(Errno::INVAL) => mount(c"hidepid=2"),
        other => other,
    }
}

/// Gives each descriptor its number, and the exec all others.
fn place(descriptors: &[OwnedFd]) -> Result<(), Fault> {
    let Some((errors, own)) = descriptors.split_first() else {
        return Err(Fault::new("placing descriptors", Errno::BADMSG));
    };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = above(null.while_doing("opening /dev/null")?)?;
    // Out of the way first: any of them may lie where another is to be.
    let copy = |one: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(one, ABOVE).while_doing("moving a descriptor");
    let own = own.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
    let errors = copy(errors)?;
    for (descriptor, number) in [(&null, 0), (&null, 1), (&errors, 2)].into_iter().chain(own.iter().zip(FIRST..)) {
        sys::place(descriptor.as_fd(), number).while_doing("placing a descriptor")?;
    }
    sys::close_on_exec_from(FIRST + own.len() as i32).while_doing("closing descriptors")
}

/// Moves a descriptor above all numbers that the program's may have.
fn above(descriptor: OwnedFd) -> Result<OwnedFd, Fault> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, ABOVE).while_doing("moving a descriptor")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Confine {
        Confine {
            program: b"/usr/bin/qemu-system-x86_64".to_vec(),
            arguments: vec![b"qemu".to_vec(), b"-M".to_vec(), b"microvm".to_vec()],
            user: Some(7),
            kvm: true,
            cgroups: 2,
            descriptors: 9,
            open_files: 64,
            processes: 32,
            file_bytes: 1 << 40,
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter_or_longer() {
        let fault = Fault { doing: "mounting /proc".into(), errno: 1 };
        for word in [Confined::Runs { pid: 42 }, Confined::Failed(fault)] {
            assert_eq!(Confined::decode(&word.encode()), Ok(word));
        }
        let packet = order().encode();
        assert_eq!(Confine::decode(&packet), Ok(order()));
        assert_eq!(Confine::decode(&Confine { user: None, ..order() }.encode()).unwrap().user, None);
        for length in 0..packet.len() {
            assert_eq!(Confine::decode(&packet[..length]), Err(Malformed), "cut at {length}");
        }
        assert_eq!(Confine::decode(&[&packet[..], b"x"].concat()), Err(Malformed));
    }
}
