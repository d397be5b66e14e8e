//! The static programs that rooms are made of, carried inside this executable: one file to install.

pub(crate) use loopd_jail::program::sealed;

/// The loop and its tools; see `crates/cell`.
pub const CELL: &[u8] = include_bytes!(env!("LOOPD_CELL"));
/// The launcher; see `crates/jail`.
pub const JAIL: &[u8] = include_bytes!(env!("LOOPD_JAIL"));
/// The first process of a virtual machine; see `crates/guest`.
pub const GUEST: &[u8] = include_bytes!(env!("LOOPD_GUEST"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_static_programs() {
        for program in [CELL, JAIL, GUEST] {
            assert!(program.starts_with(b"\x7fELF\x02\x01"));
            assert!(!segments(program).contains(&PT_INTERP), "a static program names no loader");
        }
    }

    const PT_INTERP: u32 = 3;

    /// Types of a 64-bit little-endian program's segments.
    fn segments(program: &[u8]) -> Vec<u32> {
        let half = |at: usize| usize::from(u16::from_le_bytes([program[at], program[at + 1]]));
        let table = u64::from_le_bytes(program[32..40].try_into().unwrap()) as usize;
        let (size, count) = (half(54), half(56));
        let kind = |at: usize| u32::from_le_bytes(program[at..at + 4].try_into().unwrap());
        (0..count).map(|index| kind(table + index * size)).collect()
    }
}
