//! From rules to a classic BPF program: a binary search over call numbers.
//!
//! A search tree of some 300 calls is nine comparisons deep. That matters when the filter is installed rather than when it
//! runs: the kernel then tries every call number once, and a linear list makes that twice as slow.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};
use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// What becomes of a call. Only the low 32 bits of an argument are looked at: the kernel takes no more of these either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Errno(i32),
    /// Allowed when none of these bits is set in this argument.
    WithoutBits {
        argument: u32,
        bits: u32,
        errno: i32,
    },
    /// Allowed when this argument is one of these.
    OneOf {
        argument: u32,
        values: &'static [u32],
        errno: i32,
    },
    /// Allowed when this argument is none of these.
    NoneOf {
        argument: u32,
        values: &'static [u32],
        errno: i32,
    },
    /// Allowed within the machine, for netlink's routing protocol, and for these protocols of the internet.
    Socket {
        protocols: &'static [u32],
        errno: i32,
    },
}

pub(super) fn compile(rules: BTreeMap<u32, Verdict>, otherwise: Verdict) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        give(&Verdict::Errno(libc::ENOSYS)),
        load(NUMBER_AT),
    ];
    program.extend(search(&spans(rules, otherwise)));
    program
}

/// Where each run of equal verdicts begins, covering all numbers.
fn spans(rules: BTreeMap<u32, Verdict>, otherwise: Verdict) -> Vec<(u32, Verdict)> {
    let mut spans = vec![(0, otherwise.clone())];
    let mut next = 0;
    for (number, verdict) in rules {
        if number > next {
            begin(&mut spans, next, otherwise.clone());
        }
        begin(&mut spans, number, verdict);
        next = number + 1;
    }
    begin(&mut spans, next, otherwise);
    spans
}

fn begin(spans: &mut Vec<(u32, Verdict)>, number: u32, verdict: Verdict) {
    match spans.last_mut() {
        Some((_, last)) if *last == verdict => {}
        Some((start, last)) if *start == number => *last = verdict,
        _ => spans.push((number, verdict)),
    }
}

fn search(spans: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = spans {
        return leaf(verdict);
    }
    let (low, high) = spans.split_at(spans.len() / 2);
    let below = search(low);
    let mut code = match u8::try_from(below.len()) {
        Ok(distance) => vec![jump(BPF_JGE, high[0].0, distance, 0)],
        // A conditional jump reaches 255 instructions; an unconditional one reaches all.
        Err(_) => vec![jump(BPF_JGE, high[0].0, 0, 1), jump(BPF_JA, below.len() as u32, 0, 0)],
    };
    code.extend(below);
    code.extend(search(high));
    code
}

fn leaf(verdict: &Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Allow | Verdict::Errno(_) => vec![give(verdict)],
        Verdict::WithoutBits { argument, bits, errno } => vec![
            load(ARGUMENTS_AT + 8 * argument),
            instruction(BPF_ALU | BPF_AND | BPF_K, *bits),
            jump(BPF_JEQ, 0, 0, 1),
            give(&Verdict::Allow),
            give(&Verdict::Errno(*errno)),
        ],
        Verdict::OneOf { argument, values, errno } => {
            choose(*argument, values, &Verdict::Allow, &Verdict::Errno(*errno))
        }
        Verdict::NoneOf { argument, values, errno } => {
            choose(*argument, values, &Verdict::Errno(*errno), &Verdict::Allow)
        }
        Verdict::Socket { protocols, errno } => socket(protocols, *errno),
    }
}

/// Above these bits of a socket's type are options.
const TYPE_MASK: u32 = 0xf;

fn socket(protocols: &[u32], errno: i32) -> Vec<sock_filter> {
    let (refuse, unknown) = (Verdict::Errno(errno), Verdict::Errno(libc::EPROTONOSUPPORT));
    let mut code = vec![load(ARGUMENTS_AT), jump(BPF_JEQ, libc::AF_NETLINK as u32, 0, 4)];
    code.extend(choose(2, &[libc::NETLINK_ROUTE as u32], &Verdict::Allow, &refuse));
    code.extend([
        jump(BPF_JEQ, libc::AF_UNIX as u32, 0, 1),
        give(&Verdict::Allow),
        jump(BPF_JEQ, libc::AF_INET as u32, 2, 0),
        jump(BPF_JEQ, libc::AF_INET6 as u32, 1, 0),
        give(&refuse),
        load(ARGUMENTS_AT + 8),
        instruction(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK),
        jump(BPF_JEQ, libc::SOCK_STREAM as u32, 3, 0),
        jump(BPF_JEQ, libc::SOCK_DGRAM as u32, 2, 0),
        // The kernel wants a capability for it, and says so in words that programs know.
        jump(BPF_JEQ, libc::SOCK_RAW as u32, 1, 0),
        give(&unknown),
    ]);
    code.extend(choose(2, protocols, &Verdict::Allow, &unknown));
    code
}

/// One verdict when the argument is one of the values, the other when it is not.
fn choose(argument: u32, values: &[u32], when: &Verdict, unless: &Verdict) -> Vec<sock_filter> {
    let mut code = vec![load(ARGUMENTS_AT + 8 * argument)];
    for (at, value) in values.iter().enumerate() {
        code.push(jump(BPF_JEQ, *value, (values.len() - at) as u8, 0));
    }
    code.extend([give(unless), give(when)]);
    code
}

fn give(verdict: &Verdict) -> sock_filter {
    let value = match verdict {
        Verdict::Errno(errno) => SECCOMP_RET_ERRNO | *errno as u32,
        _ => SECCOMP_RET_ALLOW,
    };
    instruction(BPF_RET | BPF_K, value)
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | kind | BPF_K) as u16, jt, jf, k }
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    pub(in crate::filter) enum Answer {
        Allow,
        Errno(i32),
    }

    /// Runs a program as the kernel would, for the instructions that we emit.
    pub(in crate::filter) fn run(program: &[sock_filter], number: u32, args: [u64; 6]) -> Answer {
        run_on(ARCHITECTURE, program, number, args)
    }

    fn run_on(architecture: u32, program: &[sock_filter], number: u32, args: [u64; 6]) -> Answer {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let op = &program[at];
            at += 1;
            match u32::from(op.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = match op.k {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        offset => args[(offset - ARGUMENTS_AT) as usize / 8] as u32,
                    }
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= op.k,
                code if code == BPF_JMP | BPF_JA | BPF_K => at += op.k as usize,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if accumulator == op.k { op.jt } else { op.jf })
                }
                code if code == BPF_JMP | BPF_JGE | BPF_K => {
                    at += usize::from(if accumulator >= op.k { op.jt } else { op.jf })
                }
                _ if op.k == SECCOMP_RET_ALLOW => return Answer::Allow,
                _ => return Answer::Errno((op.k & 0xffff) as i32),
            }
        }
    }

    #[test]
    fn another_architecture_has_no_calls() {
        let program = compile(BTreeMap::from([(3, Verdict::Allow)]), Verdict::Errno(1));
        assert_eq!(run(&program, 3, [0; 6]), Answer::Allow);
        assert_eq!(run_on(0x4000_0003, &program, 3, [0; 6]), Answer::Errno(libc::ENOSYS));
    }

    #[test]
    fn far_jumps_reach_their_place() {
        // Every other number: as many spans as can be, so that halves are longer than 255 instructions.
        let rules = (0..600).map(|n| (n * 2 + 1, Verdict::Allow)).collect();
        let program = compile(rules, Verdict::Errno(7));
        for number in 0..1_300 {
            let expected = if number % 2 == 1 && number < 1_200 { Answer::Allow } else { Answer::Errno(7) };
            assert_eq!(run(&program, number, [0; 6]), expected, "{number}");
        }
    }
}
