//! The static programs that rooms are made of, carried inside this executable: one file to install.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, Result};
use std::os::fd::OwnedFd;

/// The loop and its tools; see `crates/cell`.
pub const CELL: &[u8] = include_bytes!(env!("LOOPD_CELL"));
/// The launcher; see `crates/jail`.
pub const JAIL: &[u8] = include_bytes!(env!("LOOPD_JAIL"));

/// Puts a program into memory where it can be executed but never changed, not even by who runs it: a room that finds a way
/// to `/proc/self/exe` finds nothing that it could write to.
pub(crate) fn sealed(name: &str, program: &[u8]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and every such file can be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let mut rest = program;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_static_programs() {
        for program in [CELL, JAIL] {
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

    #[test]
    fn a_sealed_program_cannot_be_changed() {
        let file = sealed("test", b"#!").unwrap();
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
    }
}
