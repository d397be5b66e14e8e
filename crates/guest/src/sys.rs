//! System calls that no safe library offers, and the machine's end.

#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::system::RebootCommand;
use rustix::thread::UnshareFlags;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)` of `linux/random.h`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
const RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// Bytes of entropy that [`add_entropy`] takes at once.
pub const ENTROPY_BYTES: usize = loopd_protocol::guest::ENTROPY_BYTES;

/// `struct rand_pool_info`.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; ENTROPY_BYTES],
}

/// Stirs bytes into the kernel's entropy, credited in full, and has it make its keys anew from there.
pub fn add_entropy(random: BorrowedFd<'_>, bytes: &[u8; ENTROPY_BYTES]) -> Result<()> {
    let entropy =
        Entropy { bits: ENTROPY_BYTES as libc::c_int * 8, bytes: ENTROPY_BYTES as libc::c_int, buffer: *bytes };
    // SAFETY: the kernel reads two numbers and as many bytes as the second says, all of which `entropy` has.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const entropy) })?;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) })?;
    Ok(())
}

/// Has a mounted ext4 file system, of which `place` is any part, take up so many blocks of its disk.
pub fn resize(place: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one number, which lives.
    check(unsafe { libc::ioctl(place.as_raw_fd(), RESIZE_FS as _, &raw const blocks) })?;
    Ok(())
}

/// A descriptor that becomes readable when a child ends. The signal itself is blocked from now on, in threads to come as well.
pub fn child_signals() -> Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid set to start from, and `sigemptyset` and `sigaddset` only write into it.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    };
    // SAFETY: `set` is initialised; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) })?;
    // SAFETY: as above; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Gives the calling thread a root and a working directory of its own, so that it can enter another mount namespace.
pub fn leave_shared_root() -> Result<()> {
    // SAFETY: only CLONE_FILES can pull a descriptor from under another thread; it is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Puts a line into the kernel's log, which the machine's console shows.
pub fn say(text: &str) {
    // Where there is no log there is nobody to tell.
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<3>loopd-guest: {text}\n").as_bytes());
    }
}

/// Ends the machine.
pub fn power_off() -> ! {
    rustix::fs::sync();
    // Without ACPI there is no power to switch off, and a machine that restarts is one that its VMM ends, too.
    for command in [RebootCommand::PowerOff, RebootCommand::Restart] {
        if let Err(errno) = rustix::system::reboot(command) {
            say(&format!("ending the machine: {errno}"));
        }
    }
    std::process::abort()
}

fn check(answer: libc::c_int) -> Result<libc::c_int> {
    match answer {
        0.. => Ok(answer),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
