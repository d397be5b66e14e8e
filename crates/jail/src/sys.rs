//! System calls that no safe library offers, each behind a safe function. The launcher has one thread and so has every child
//! until it becomes the cell; the safety of most of these rests on that.

#![allow(unsafe_code)]

use crate::filter::Filter;
use libc::AF_INET;
use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Namespaces and options of a clone, as `CLONE_*` bits.
pub(crate) type CloneFlags = c_int;

/// Which side of a clone this is.
pub(crate) enum Side {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// `struct clone_args`, first version with `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones this process with namespaces of its own; memory is copied on write.
pub(crate) fn clone(flags: CloneFlags) -> Result<Side> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: (flags | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid structure of the given size, its pointer is to a live local, and without CLONE_VM the child
    // gets a copy of everything. The process has one thread, so no lock can be held by another in the copy.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })? {
        0 => Ok(Side::Child),
        // SAFETY: the kernel has just stored a descriptor there that nobody else knows of.
        pid => Ok(Side::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: only CLONE_FILES can pull a descriptor from under another thread; it is not asked for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Sets attributes of a mount, and of all mounts below it.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, set: MountAttrFlags, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty and terminated, `attributes` is valid for its size, and both live until the call returns.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Replaces this process by the program behind a descriptor. Returns only to say why not.
pub(crate) fn execute(program: BorrowedFd<'_>, name: &CStr, environment: &[&CStr]) -> Errno {
    let arguments = [name.as_ptr(), ptr::null()];
    let environment: Vec<*const c_char> = environment.iter().map(|pair| pair.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: both arrays end with a null pointer and hold terminated strings that outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(answer).err().unwrap_or(Errno::NOEXEC)
}

/// Replaces this process by the program of this path. Returns only to say why not.
pub(crate) fn execute_at(program: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> Errno {
    let ended = |texts: &[&CStr]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (ended(arguments), ended(environment));
    // SAFETY: both arrays end with a null pointer and hold terminated strings that outlive the call.
    let answer = unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    check(c_long::from(answer)).err().unwrap_or(Errno::NOEXEC)
}

/// Puts this process and all that come of it under a filter, for good. Needs no_new_privs.
pub(crate) fn install(filter: &Filter) -> Result<()> {
    let program = libc::sock_fprog { len: filter.0.len() as u16, filter: filter.0.as_ptr().cast_mut() };
    // SAFETY: `program` describes a live array of that many instructions; the kernel copies it and writes nothing.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as c_int, &raw const program) })?;
    Ok(())
}

/// `struct landlock_ruleset_attr`, as of version 6; an older kernel takes a longer one whose rest is zero.
#[repr(C)]
struct LandlockRuleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct LandlockPathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// New Landlock rules, which forbid all these rights until some place is allowed them.
pub(crate) fn landlock_create(files: u64, scopes: u64) -> Result<OwnedFd> {
    let set = LandlockRuleset { handled_access_fs: files, handled_access_net: 0, scoped: scopes };
    // SAFETY: `set` is valid for its size and lives until the call returns.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const set, size_of::<LandlockRuleset>(), 0 as c_int)
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows these rights at and below a place.
pub(crate) fn landlock_allow(set: BorrowedFd<'_>, place: BorrowedFd<'_>, rights: u64) -> Result<()> {
    const PATH_BENEATH: c_int = 1;
    let rule = LandlockPathBeneath { allowed_access: rights, parent_fd: place.as_raw_fd() };
    // SAFETY: `rule` has the layout of its kind and lives until the call returns.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, set.as_raw_fd(), PATH_BENEATH, &raw const rule, 0 as c_int)
    })?;
    Ok(())
}

/// Puts this process and all that come of it under rules, for good. Needs no_new_privs.
pub(crate) fn landlock_enforce(set: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes two numbers and touches no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0 as c_int) })?;
    Ok(())
}

/// Which Landlock this kernel has.
pub(crate) fn landlock_version() -> Result<c_long> {
    const VERSION: c_int = 1;
    // SAFETY: with this flag the call takes no structure, only a null pointer of size nothing.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0usize, VERSION) })
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is.
    check(c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }))?;
    Ok(())
}

/// Gives the loopback interface of the current network namespace one more address, of the same network.
pub(crate) fn add_loopback_address(socket: BorrowedFd<'_>, address: Ipv4Addr) -> Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`, and a valid `sockaddr_in`.
    let (mut request, mut internet): (libc::ifreq, libc::sockaddr_in) = unsafe { std::mem::zeroed() };
    // A name with a label is that of an address beside the first.
    for (place, letter) in request.ifr_name.iter_mut().zip(b"lo:1") {
        *place = *letter as c_char;
    }
    internet.sin_family = AF_INET as libc::sa_family_t;
    internet.sin_addr.s_addr = u32::from(address).to_be();
    // SAFETY: both are plain bytes of the same size, made for each other.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet) };
    // SAFETY: SIOCSIFADDR reads one `ifreq`, which `request` is.
    check(c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw const request) }))?;
    Ok(())
}

/// A descriptor that becomes readable when a child ends. The signal itself is blocked from now on.
pub(crate) fn child_signals() -> Result<OwnedFd> {
    let set = signal_set(&[libc::SIGCHLD]);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    check(c_long::from(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) }))?;
    // SAFETY: as above; -1 asks for a new descriptor.
    let fd =
        check(c_long::from(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Undoes [`child_signals`] and what the language's start-up did, for the program that comes after.
pub(crate) fn default_signals() -> Result<()> {
    let set = signal_set(&[]);
    // SAFETY: `set` is initialised and empty; the old mask is not asked for.
    check(c_long::from(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) }))?;
    // SAFETY: the default action runs no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(last_error());
    }
    Ok(())
}

/// Gives a descriptor a fixed number that survives the exec.
pub(crate) fn place(from: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: the only numbers placed are the lowest, of a child that uses none of the descriptors they may have been before.
    check(c_long::from(unsafe { libc::dup2(from.as_raw_fd(), number) }))?;
    Ok(())
}

/// Marks every descriptor from `first` on to be closed by the exec.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<()> {
    // SAFETY: closes nothing now; what is marked is closed by the kernel when this program is no more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every descriptor from `first` on but these. What else was open here must not be used again, nor dropped:
/// for a child that ends by an exec or by [`exit_now`].
pub(crate) fn leave_open(mut first: RawFd, mut kept: Vec<RawFd>) -> Result<()> {
    kept.sort_unstable();
    for number in kept {
        if number > first {
            // SAFETY: a child that runs no destructor of the launcher's owns nothing in this range that it will touch again.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) })?;
        }
        first = first.max(number + 1);
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Closes every descriptor from `first` on. Only before this program has opened any of its own.
pub(crate) fn close_from(first: RawFd) -> Result<()> {
    // SAFETY: called once, first thing, with a number above the standard three: nothing here owns what is closed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Ends this process at once, without running anything that the parent registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: all-zero bytes are a valid set to start from, and `sigemptyset` and `sigaddset` only write into it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

fn check(answer: c_long) -> Result<c_long> {
    if answer < 0 { Err(last_error()) } else { Ok(answer) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
