//! The lists themselves. Taken from what bash, coreutils, git, Python, Node, gcc and the JVM ask for, in the manner of the
//! default profile of container runtimes; narrower where a tool of an agent has no business.
//!
//! To allow a call: its line here, and a reason in the commit if it reaches beyond the process that makes it.

use super::program::Verdict;
use libc::{AF_UNIX, EAFNOSUPPORT, EPERM, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP};

/// Namespaces that a process could ask for. `CLONE_NEWTIME` is left out: `clone` reads that bit as part of a signal number.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;
const NEW_TIME: u32 = 0x80;
/// Of a file's type: character devices, block devices and symbolic links have it, and the last are not made by these calls.
const DEVICE: u32 = 0o020_000;
/// The first process of a room, which is the cell.
const FIRST: u32 = 1;
/// Of sockets to the internet. Whatever else is asked for would load a module into the kernel for the asking (SCTP, DCCP).
const PROTOCOLS: &[u32] =
    &[IPPROTO_IP as u32, IPPROTO_ICMP as u32, IPPROTO_TCP as u32, IPPROTO_UDP as u32, IPPROTO_ICMPV6 as u32];

/// Depends on an argument.
#[rustfmt::skip]
pub(super) const CHECKED: &[(i64, Verdict)] = &[
    // No new namespaces: a user namespace would hand out capabilities. `clone3`, whose flags lie in memory where no filter
    // can look, is not listed at all, and C libraries fall back to `clone`.
    (libc::SYS_clone, Verdict::WithoutBits { argument: 0, bits: NEW_NAMESPACES, errno: EPERM }),
    (libc::SYS_unshare, Verdict::WithoutBits { argument: 0, bits: NEW_NAMESPACES | NEW_TIME, errno: EPERM }),
    // Not AF_VSOCK (it reaches a hypervisor past every namespace), AF_ALG, AF_PACKET and the many others. Of netlink only routes:
    // C libraries and language runtimes list addresses that way, and the room's own are all there are.
    (libc::SYS_socket, Verdict::Socket { protocols: PROTOCOLS, errno: EAFNOSUPPORT }),
    (libc::SYS_socketpair, Verdict::OneOf { argument: 0, values: &[AF_UNIX as u32], errno: EAFNOSUPPORT }),
    // Pushing characters into a terminal's input, and changing what drives it, which would load a module.
    (libc::SYS_ioctl, Verdict::NoneOf { argument: 1, values: &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32, libc::TIOCSETD as u32], errno: EPERM }),
    // Where cell and tools have the same user, nothing else would keep them from taking the cell's descriptors away.
    (libc::SYS_prlimit64, Verdict::NoneOf { argument: 0, values: &[FIRST], errno: EPERM }),
    // No device nodes. The kernel asks a power of whoever makes one, but for a character device 0/0, with which an overlay says that a
    // file is gone; that, and leaving one behind, is for who mounts overlays. Kernels differ in what Landlock takes it for: some, Debian's
    // 6.1.192 among them, for a regular file.
    (libc::SYS_mknodat, Verdict::WithoutBits { argument: 2, bits: DEVICE, errno: EPERM }),
    (libc::SYS_renameat2, Verdict::WithoutBits { argument: 4, bits: libc::RENAME_WHITEOUT, errno: EPERM }),
    // Linux, Linux with 32-bit layout, and "which am I?".
    (libc::SYS_personality, Verdict::OneOf { argument: 0, values: &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff], errno: EPERM }),
];

/// Refused with `EPERM`: powers over the machine, over other processes' memory, over mounts, and kernel interfaces with a
/// record of holes.
#[rustfmt::skip]
pub(super) const REFUSED: &[i64] = &[
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_pidfd_getfd,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree,
    libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_setns, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_keyctl,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd, libc::SYS_kexec_load,
    libc::SYS_kexec_file_load, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_acct, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_syslog, libc::SYS_vhangup,
    libc::SYS_nfsservctl, libc::SYS_lookup_dcookie, libc::SYS_fanotify_init, libc::SYS_fanotify_mark,
    libc::SYS_process_madvise, libc::SYS_migrate_pages, libc::SYS_move_pages, libc::SYS_mbind,
];

#[rustfmt::skip]
pub(super) const ALLOWED: &[i64] = &[
    libc::SYS_read, libc::SYS_write, libc::SYS_close, libc::SYS_fstat, libc::SYS_lseek, libc::SYS_mmap,
    libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_brk, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_readv, libc::SYS_writev,
    libc::SYS_sched_yield, libc::SYS_mremap, libc::SYS_msync, libc::SYS_mincore, libc::SYS_madvise, libc::SYS_shmget,
    libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_dup, libc::SYS_nanosleep, libc::SYS_getitimer, libc::SYS_setitimer,
    libc::SYS_getpid, libc::SYS_sendfile, libc::SYS_connect, libc::SYS_accept, libc::SYS_sendto, libc::SYS_recvfrom,
    libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_shutdown, libc::SYS_bind, libc::SYS_listen, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_execve,
    libc::SYS_exit, libc::SYS_wait4, libc::SYS_kill, libc::SYS_uname, libc::SYS_semget, libc::SYS_semop,
    libc::SYS_semctl, libc::SYS_shmdt, libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl,
    libc::SYS_fcntl, libc::SYS_flock, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_truncate, libc::SYS_ftruncate,
    libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_umask,
    libc::SYS_gettimeofday, libc::SYS_getrlimit, libc::SYS_getrusage, libc::SYS_sysinfo, libc::SYS_times,
    libc::SYS_getuid, libc::SYS_getgid, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_geteuid, libc::SYS_getegid,
    libc::SYS_setpgid, libc::SYS_getppid, libc::SYS_setsid, libc::SYS_setreuid, libc::SYS_setregid,
    libc::SYS_getgroups, libc::SYS_setgroups, libc::SYS_setresuid, libc::SYS_getresuid, libc::SYS_setresgid,
    libc::SYS_getresgid, libc::SYS_getpgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_getsid,
    libc::SYS_capget, libc::SYS_capset, libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_getpriority,
    libc::SYS_setpriority, libc::SYS_sched_setparam, libc::SYS_sched_getparam, libc::SYS_sched_setscheduler,
    libc::SYS_sched_getscheduler, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_mlock, libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall,
    libc::SYS_prctl, libc::SYS_setrlimit, libc::SYS_sync, libc::SYS_gettid, libc::SYS_readahead, libc::SYS_setxattr,
    libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_removexattr, libc::SYS_lremovexattr,
    libc::SYS_fremovexattr, libc::SYS_tkill, libc::SYS_futex, libc::SYS_sched_setaffinity,
    libc::SYS_sched_getaffinity, libc::SYS_io_setup, libc::SYS_io_destroy, libc::SYS_io_getevents,
    libc::SYS_io_submit, libc::SYS_io_cancel, libc::SYS_getdents64, libc::SYS_set_tid_address,
    libc::SYS_restart_syscall, libc::SYS_semtimedop, libc::SYS_fadvise64, libc::SYS_timer_create,
    libc::SYS_timer_settime, libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_exit_group,
    libc::SYS_epoll_ctl, libc::SYS_tgkill, libc::SYS_mq_open, libc::SYS_mq_unlink, libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive, libc::SYS_mq_notify, libc::SYS_mq_getsetattr, libc::SYS_waitid, libc::SYS_ioprio_set,
    libc::SYS_ioprio_get, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_openat,
    libc::SYS_mkdirat, libc::SYS_fchownat, libc::SYS_unlinkat, libc::SYS_linkat,
    libc::SYS_symlinkat, libc::SYS_readlinkat, libc::SYS_fchmodat, libc::SYS_faccessat, libc::SYS_pselect6,
    libc::SYS_ppoll, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_sync_file_range, libc::SYS_vmsplice, libc::SYS_utimensat, libc::SYS_epoll_pwait,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_fallocate,
    libc::SYS_accept4, libc::SYS_signalfd4, libc::SYS_eventfd2, libc::SYS_epoll_create1, libc::SYS_dup3,
    libc::SYS_pipe2, libc::SYS_inotify_init1, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_recvmmsg, libc::SYS_syncfs, libc::SYS_sendmmsg, libc::SYS_getcpu,
    libc::SYS_sched_setattr, libc::SYS_sched_getattr, libc::SYS_seccomp, libc::SYS_getrandom,
    libc::SYS_memfd_create, libc::SYS_execveat, libc::SYS_membarrier, libc::SYS_mlock2, libc::SYS_copy_file_range,
    libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_pkey_mprotect, libc::SYS_pkey_alloc, libc::SYS_pkey_free,
    libc::SYS_statx, libc::SYS_rseq, libc::SYS_pidfd_send_signal, libc::SYS_pidfd_open, libc::SYS_close_range,
    libc::SYS_openat2, libc::SYS_faccessat2, libc::SYS_epoll_pwait2, libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self, libc::SYS_process_mrelease, libc::SYS_futex_waitv,
    // Newer than the libc crate's names; the numbers are the same on every architecture.
    451 /* cachestat */, 452 /* fchmodat2 */, 454 /* futex_wake */, 455 /* futex_wait */, 456 /* futex_requeue */, 462 /* mseal */,
    libc::SYS_newfstatat, libc::SYS_renameat,
];

/// Older than aarch64: only x86-64 has them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(super) const LEGACY: &[i64] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_access, libc::SYS_pipe,
    libc::SYS_select, libc::SYS_dup2, libc::SYS_pause, libc::SYS_alarm, libc::SYS_fork, libc::SYS_vfork,
    libc::SYS_getdents, libc::SYS_rename, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_creat, libc::SYS_link,
    libc::SYS_unlink, libc::SYS_symlink, libc::SYS_readlink, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown,
    libc::SYS_utime, libc::SYS_getpgrp, libc::SYS_arch_prctl, libc::SYS_time, libc::SYS_epoll_create,
    libc::SYS_epoll_wait, libc::SYS_utimes, libc::SYS_inotify_init, libc::SYS_futimesat, libc::SYS_signalfd,
    libc::SYS_eventfd,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const LEGACY: &[i64] = &[];

/// As [`CHECKED`].
#[cfg(target_arch = "x86_64")]
pub(super) const CHECKED_LEGACY: &[(i64, Verdict)] =
    &[(libc::SYS_mknod, Verdict::WithoutBits { argument: 1, bits: DEVICE, errno: EPERM })];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const CHECKED_LEGACY: &[(i64, Verdict)] = &[];

/// As above: powers over the machine.
#[cfg(target_arch = "x86_64")]
pub(super) const REFUSED_LEGACY: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REFUSED_LEGACY: &[i64] = &[];
