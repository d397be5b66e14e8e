//! The system calls that need `unsafe`, each behind a safe function. What rustix offers safely is called where it is used.
//!
//! INVARIANT: the cell has one thread. That makes fork, and changing ids for a moment, sound.
#![allow(unsafe_code)]

use rustix::process::Pid;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes over a file descriptor that this process was started with. Fails when nothing is open there.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks for the flags of a number; any number is allowed.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller does this once, before anything else could own the number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks SIGCHLD and gives a descriptor that becomes readable when a child ends. SIGXFSZ is ignored, so that a full spill
/// file is an error and not the end of the cell.
pub fn watch_children() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid argument to sigemptyset, and the set outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Gives a forked child the signal state that programs expect.
pub fn default_signals() {
    // SAFETY: as in `watch_children`; SIG_DFL is valid for every signal, and refused where it cannot be set.
    unsafe {
        for signal in 1..libc::SIGSYS + 1 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// `None` in the child.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: one thread, so the child's memory, allocator included, is in no half-done state.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts `from` at `to` for the program that is going to be executed. Only for a child that executes or exits next.
pub fn place_fd(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes any numbers; the child owns its whole table and no Rust value uses `to` afterwards.
    match unsafe { libc::dup2(from, to) } {
        fd if fd >= 0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes `first..=last`. Only for a child that owns nothing of Rust's there any more.
pub fn close_fds(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    let (first, last) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: close_range takes any numbers; the child uses none of these descriptors again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes another program. Comes back only when that failed.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in null, and they and the strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends a forked child without running anything that belongs to its parent.
pub fn exit_child(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Runs `f` with the file permissions of `uid`; what it creates belongs to `uid`.
pub fn with_files_of<T>(uid: u32, f: impl FnOnce() -> T) -> T {
    // SAFETY: one thread. The ids of files are changed for the time of `f` only, and nothing else is.
    let (old_gid, old_uid) = unsafe { (libc::setfsgid(uid), libc::setfsuid(uid)) };
    let result = f();
    // SAFETY: as above.
    unsafe {
        libc::setfsuid(old_uid.unsigned_abs());
        libc::setfsgid(old_gid.unsigned_abs());
    }
    result
}

/// Kills every process that this one may kill, itself not included. As PID 1 of a room that is the whole room, at once: a
/// process that forks all the time cannot outrun it.
pub fn kill_everything() {
    // SAFETY: touches no memory.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}
