//! Host ids of sessions: every session has some that no other session has, so that two rooms are strangers to the kernel.
//!
//! They come from a part of the 32-bit space that no distribution hands out: above the range of systemd's containers, below
//! 2³¹. A session gets sixteen (it uses two, see `loopd_jail`), which is enough for sixteen million sessions; the usual 65,536
//! would run out after four thousand, and sessions live for ever. The session's directory belongs to them, and that ownership
//! is the record: nothing else needs to be stored per session.
//!
//! The file `room-ids` in the data directory holds where this data directory's ids begin (random, so that two servers on one
//! machine do not meet) and how many are used. They are reserved in blocks, on disk before the first of a block is used, so
//! that a crash can lose ids but never give them twice.

use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const FIRST: u32 = 0x7000_0000;
const END: u32 = 0x7ffe_0000;
/// Ids of one session.
pub(crate) const STRIDE: u32 = 16;
const SESSIONS_MAX: u32 = (END - FIRST) / STRIDE;
/// Sessions whose ids are reserved with one write to disk.
const BLOCK: u32 = 256;

pub(crate) struct Ids {
    path: PathBuf,
    block: Mutex<Block>,
}

/// Reserved and not yet given out.
#[derive(Debug, Default)]
struct Block {
    origin: u32,
    next: u32,
    end: u32,
}

impl Ids {
    pub(crate) fn in_directory(data: &Path) -> Self {
        Ids { path: data.join("room-ids"), block: Mutex::default() }
    }

    /// First of the ids of a new session.
    pub(crate) fn allocate(&self) -> io::Result<u32> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if block.next == block.end {
            *block = reserve(&self.path)?;
        }
        let slot = (block.origin + block.next) % SESSIONS_MAX;
        block.next += 1;
        Ok(FIRST + slot * STRIDE)
    }
}

/// First of the ids that a file's owner belongs to, if it is one of ours.
pub(crate) fn first_of(owner: u32) -> Option<u32> {
    (FIRST..END).contains(&owner).then(|| owner - (owner - FIRST) % STRIDE)
}

fn reserve(path: &Path) -> io::Result<Block> {
    let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let (origin, used) = match text.is_empty() {
        true => (random()? % SESSIONS_MAX, 0),
        false => parse(&text).ok_or_else(|| {
            let shown = text.trim_end();
            io::Error::other(format!("`{shown}` is not a record of ids; accepted: two numbers below {SESSIONS_MAX}"))
        })?,
    };
    if used + BLOCK > SESSIONS_MAX {
        return Err(io::Error::other(format!("all ids are given out: {SESSIONS_MAX} sessions had their own")));
    }
    let end = used + BLOCK;
    file.rewind()?;
    // Of fixed length, so that a newer record covers an older one whole.
    file.write_all(format!("{origin:010} {end:010}\n").as_bytes())?;
    file.sync_all()?;
    Ok(Block { origin, next: used, end })
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (origin, used) = text.trim_end().split_once(' ')?;
    let (origin, used) = (origin.parse().ok()?, used.parse().ok()?);
    (origin < SESSIONS_MAX && used <= SESSIONS_MAX).then_some((origin, used))
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_ids_are_given_twice_not_even_after_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let ids = Ids::in_directory(data.path());
            for _ in 0..BLOCK + 3 {
                let first = ids.allocate().unwrap();
                assert!((FIRST..END).contains(&first) && (first - FIRST).is_multiple_of(STRIDE));
                assert_eq!(first_of(first + 1), Some(first));
                assert!(seen.insert(first));
            }
        }
    }

    #[test]
    fn strangers_and_damaged_records_are_told_apart() {
        assert_eq!(first_of(0), None);
        assert_eq!(first_of(100_000), None);
        assert_eq!(first_of(END), None);
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("room-ids"), "12 many\n").unwrap();
        let fault = Ids::in_directory(data.path()).allocate().unwrap_err().to_string();
        assert!(fault.contains("`12 many`"), "{fault}");
        fs::write(data.path().join("room-ids"), format!("0 {}\n", SESSIONS_MAX - 1)).unwrap();
        assert!(Ids::in_directory(data.path()).allocate().unwrap_err().to_string().contains("all ids"));
    }
}
