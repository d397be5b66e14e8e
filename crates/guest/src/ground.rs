//! From the kernel's hand-over to a tree that a launcher can stand in.
//!
//! ```text
//!  /           a file system in memory
//!  /usr /bin …  the base disk's, read-only; /etc as well
//!  /proc /sys /dev
//!  /loopd/data  the launcher's data directory: sessions/s, rooms/s, layers/<n>
//! ```
//!
//! The initramfs stays beneath, empty but for this program: the launcher makes a tree of its own the root of its processes, which
//! the kernel lets nobody do whose root is the initramfs.

use crate::disk::{self, Disk};
use crate::fault::{Fault, While};
use crate::port::Port;
use crate::{cgroup, modules};
use loopd_jail::program;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

pub const DATA: &str = "/loopd/data";
const BASE: &str = "/base";
const NEW: &str = "/new";
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Below it the kernel has a place for the second.
const KERNEL: [(&str, &str, MountFlags); 4] = [
    ("proc", "/proc", INERT),
    ("sysfs", "/sys", INERT),
    ("devtmpfs", "/dev", MountFlags::NOSUID),
    ("cgroup2", "/sys/fs/cgroup", INERT),
];

/// What the machine has when it is ready to be told what it is for.
pub struct Ground {
    pub port: Port,
    /// The launcher's program and the cell's.
    pub jail: OwnedFd,
    pub cell: OwnedFd,
}

pub fn rise() -> Result<Ground, Fault> {
    for (kind, at, flags) in KERNEL {
        fs::create_dir_all(at).while_doing(&format!("making {at}"))?;
        match rustix::mount::mount(kind, at, kind, flags, c"") {
            // The kernel may have mounted its devices itself.
            Ok(()) | Err(Errno::BUSY) => {}
            other => other.while_doing(&format!("mounting {at}"))?,
        }
    }
    open_standard_three()?;
    // A room's processes go first when memory runs out, this one never does.
    fs::write("/proc/self/oom_score_adj", "-1000").while_doing("protecting itself")?;
    modules::load()?;
    cgroup::make()?;
    let (jail, cell) = (hold("loopd-jail")?, hold("loopd-cell")?);
    if let Err(fault) = Disk::Base.mount(Path::new(BASE)) {
        disk::tell_what_is_there();
        return Err(fault);
    }
    move_to_new_root()?;
    Ok(Ground { port: Port::open()?, jail, cell })
}

/// An initramfs without a console leaves these closed, and then the next file that is opened has their numbers.
fn open_standard_three() -> Result<(), Fault> {
    loop {
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
            .while_doing("opening /dev/null")?;
        if std::os::fd::AsRawFd::as_raw_fd(&null) > 2 {
            return Ok(());
        }
        let _kept = std::os::fd::IntoRawFd::into_raw_fd(null);
    }
}

/// Takes a program of the initramfs, which is then gone from there.
fn hold(name: &str) -> Result<OwnedFd, Fault> {
    let path = Path::new("/").join(name);
    let doing = format!("taking {}", path.display());
    let bytes = fs::read(&path).while_doing(&doing)?;
    let held = program::sealed(name, &bytes).while_doing(&doing)?;
    fs::remove_file(&path).while_doing(&doing)?;
    Ok(held)
}

fn move_to_new_root() -> Result<(), Fault> {
    let (base, new) = (Path::new(BASE), Path::new(NEW));
    fs::create_dir_all(new).while_doing("making the new root")?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("root", new, "tmpfs", plain, c"mode=0755").while_doing("mounting the new root")?;
    for name in loopd_jail::SYSTEM.into_iter().chain(["etc"]) {
        let (from, to) = (base.join(name), new.join(name));
        let doing = format!("taking /{name} of the base disk");
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, &to).while_doing(&doing)?;
        } else if from.is_dir() {
            fs::create_dir(&to).while_doing(&doing)?;
            rustix::mount::mount_bind(&from, &to).while_doing(&doing)?;
        }
    }
    for at in ["/proc", "/sys", "/dev"] {
        let to = new.join(at.trim_start_matches('/'));
        fs::create_dir(&to).while_doing(&format!("making {at}"))?;
        rustix::mount::mount_move(at, &to).while_doing(&format!("moving {at}"))?;
    }
    fs::create_dir_all(new.join(DATA.trim_start_matches('/'))).while_doing("making the data directory")?;
    rustix::process::chdir(new).while_doing("entering the new root")?;
    rustix::mount::mount_move(".", "/").while_doing("moving to the new root")?;
    rustix::process::chroot(".").while_doing("moving to the new root")?;
    rustix::process::chdir("/").while_doing("moving to the new root")
}
