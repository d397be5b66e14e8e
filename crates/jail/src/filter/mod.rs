//! The system calls that a room may make: an allow-list.
//!
//! What nobody listed does not exist (`ENOSYS`), so that programs fall back as they do on an older kernel. What is listed as
//! refused says `EPERM`, as a container does. A few calls depend on an argument ([`program::Verdict`]).
//!
//! Cell and tools have the same filter; it is installed once, before the cell's program starts, and can never be lifted.

pub mod list;
pub mod program;

use libc::sock_filter;
use program::Verdict;

/// The finished filter. Compiled once when the launcher starts.
pub struct Filter(pub(crate) Vec<sock_filter>);

impl Filter {
    pub fn compile() -> Self {
        let allowed = list::ALLOWED.iter().chain(list::LEGACY).map(|number| (*number, Verdict::Allow));
        let refused = list::REFUSED.iter().chain(list::REFUSED_LEGACY);
        let refused = refused.map(|number| (*number, Verdict::Errno(libc::EPERM)));
        let checked = list::CHECKED.iter().chain(list::CHECKED_LEGACY);
        let checked = checked.map(|(number, verdict)| (*number, verdict.clone()));
        let rules = allowed.chain(refused).chain(checked).map(|(number, verdict)| (number as u32, verdict)).collect();
        Filter(program::compile(rules, Verdict::Errno(libc::ENOSYS)))
    }
}

#[cfg(test)]
mod tests {
    use super::program::tests::{Answer, run};
    use super::*;
    use libc::{EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT};

    fn ask(number: i64, args: [u64; 6]) -> Answer {
        run(&Filter::compile().0, number as u32, args)
    }

    #[test]
    fn no_call_is_listed_twice() {
        let checked = list::CHECKED.iter().chain(list::CHECKED_LEGACY).map(|(number, _)| *number);
        let mut all: Vec<i64> = [list::ALLOWED, list::LEGACY, list::REFUSED, list::REFUSED_LEGACY].concat();
        all.extend(checked);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn every_listed_call_gets_its_verdict() {
        for number in list::ALLOWED.iter().chain(list::LEGACY) {
            assert_eq!(ask(*number, [0; 6]), Answer::Allow, "{number}");
        }
        for number in list::REFUSED.iter().chain(list::REFUSED_LEGACY) {
            assert_eq!(ask(*number, [0; 6]), Answer::Errno(EPERM), "{number}");
        }
    }

    #[test]
    fn what_is_not_listed_does_not_exist() {
        for number in [libc::SYS_clone3, 999, 0x4000_0000 | libc::SYS_read, u32::MAX.into()] {
            assert_eq!(ask(number, [0; 6]), Answer::Errno(ENOSYS), "{number:#x}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let threads = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
        assert_eq!(ask(libc::SYS_clone, [threads, 0, 0, 0, 0, 0]), Answer::Allow);
        assert_eq!(ask(libc::SYS_clone, [libc::CLONE_NEWUSER as u64 | threads, 0, 0, 0, 0, 0]), Answer::Errno(EPERM));
        assert_eq!(ask(libc::SYS_unshare, [libc::CLONE_FILES as u64, 0, 0, 0, 0, 0]), Answer::Allow);
        assert_eq!(ask(libc::SYS_unshare, [libc::CLONE_NEWNET as u64, 0, 0, 0, 0, 0]), Answer::Errno(EPERM));
        for (domain, protocol, answer) in [
            (libc::AF_UNIX, 0, Answer::Allow),
            (libc::AF_INET, 6, Answer::Allow),
            (libc::AF_INET6, 17, Answer::Allow),
            (libc::AF_NETLINK, libc::NETLINK_ROUTE, Answer::Allow),
            (libc::AF_NETLINK, libc::NETLINK_AUDIT, Answer::Errno(EAFNOSUPPORT)),
            (libc::AF_PACKET, 0, Answer::Errno(EAFNOSUPPORT)),
            (libc::AF_VSOCK, 0, Answer::Errno(EAFNOSUPPORT)),
            (libc::AF_ALG, 0, Answer::Errno(EAFNOSUPPORT)),
        ] {
            let args = [domain as u64, libc::SOCK_STREAM as u64, protocol as u64, 0, 0, 0];
            assert_eq!(ask(libc::SYS_socket, args), answer, "{domain}, {protocol}");
        }
        for (kind, protocol, answer) in [
            (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0, Answer::Allow),
            (libc::SOCK_RAW, libc::IPPROTO_ICMP, Answer::Allow),
            (libc::SOCK_STREAM, libc::IPPROTO_SCTP, Answer::Errno(EPROTONOSUPPORT)),
            (libc::SOCK_STREAM, libc::IPPROTO_MPTCP, Answer::Errno(EPROTONOSUPPORT)),
            (libc::SOCK_DCCP, 0, Answer::Errno(EPROTONOSUPPORT)),
            (libc::SOCK_SEQPACKET, 0, Answer::Errno(EPROTONOSUPPORT)),
        ] {
            for family in [libc::AF_INET, libc::AF_INET6] {
                let args = [family as u64, kind as u64, protocol as u64, 0, 0, 0];
                assert_eq!(ask(libc::SYS_socket, args), answer, "{kind}, {protocol}");
            }
        }
        assert_eq!(
            ask(libc::SYS_socket, [libc::AF_UNIX as u64, libc::SOCK_SEQPACKET as u64, 0, 0, 0, 0]),
            Answer::Allow
        );
        assert_eq!(ask(libc::SYS_socketpair, [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]), Answer::Allow);
        assert_eq!(ask(libc::SYS_socketpair, [libc::AF_TIPC as u64, 1, 0, 0, 0, 0]), Answer::Errno(EAFNOSUPPORT));
        assert_eq!(ask(libc::SYS_prlimit64, [0; 6]), Answer::Allow);
        assert_eq!(ask(libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0]), Answer::Errno(EPERM));
        assert_eq!(ask(libc::SYS_ioctl, [0, libc::TIOCSETD, 0, 0, 0, 0]), Answer::Errno(EPERM));
        assert_eq!(ask(libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), Answer::Errno(EPERM));
        // The kernel looks at the low half of the request only; so must the filter.
        assert_eq!(ask(libc::SYS_ioctl, [0, (1 << 32) | libc::TIOCSTI, 0, 0, 0, 0]), Answer::Errno(EPERM));
        assert_eq!(ask(libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0, 0, 0, 0]), Answer::Allow);
        for (kind, answer) in [
            (0, Answer::Allow),
            (libc::S_IFREG, Answer::Allow),
            (libc::S_IFIFO, Answer::Allow),
            (libc::S_IFSOCK, Answer::Allow),
            (libc::S_IFCHR, Answer::Errno(EPERM)),
            (libc::S_IFBLK, Answer::Errno(EPERM)),
        ] {
            let mode = u64::from(kind | 0o600);
            assert_eq!(ask(libc::SYS_mknodat, [0, 0, mode, 0, 0, 0]), answer, "{kind:o}");
            #[cfg(target_arch = "x86_64")]
            assert_eq!(ask(libc::SYS_mknod, [0, mode, 0, 0, 0, 0]), answer, "{kind:o}");
        }
        let flags = [libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE].map(u64::from);
        for flags in flags {
            assert_eq!(ask(libc::SYS_renameat2, [0, 0, 0, 0, flags, 0]), Answer::Allow);
        }
        assert_eq!(ask(libc::SYS_renameat2, [0, 0, 0, 0, libc::RENAME_WHITEOUT.into(), 0]), Answer::Errno(EPERM));
        assert_eq!(ask(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), Answer::Allow);
        assert_eq!(ask(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0]), Answer::Errno(EPERM));
    }
}
