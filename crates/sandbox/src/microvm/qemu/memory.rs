//! A guest's memory in a file in memory: of a machine that is to be copied, and of its copies.
//!
//! Copies map the file so that what they write is their own. QEMU before 8.2 opens it for writing all the same, so it is sealed:
//! nobody can change it, whatever hold on it they have. On disk, a template's memory is a file with holes.

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4 << 10;
const CHUNK: usize = 1 << 20;

/// Memory that holds nothing yet, and stays as large as it is.
pub(super) fn empty(bytes: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(file)
}

/// Copies to or from a file in memory what is not zero; the target reads as zero so far. Blocks.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let (start, end) = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => (start, rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size)),
            // No data from here on.
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        at = start;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            from.read_exact_at(&mut chunk[..count], at)?;
            write_pages(to, &chunk[..count], at)?;
            at += count as u64;
        }
    }
    Ok(())
}

/// Writes runs of pages that hold something, as long as possible.
fn write_pages(to: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let is_empty = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let mut from = 0;
    while from < bytes.len() {
        let mut end = from;
        while end < bytes.len() && !is_empty(&bytes[end..bytes.len().min(end + PAGE)]) {
            end = bytes.len().min(end + PAGE);
        }
        to.write_all_at(&bytes[from..end], at + from as u64)?;
        from = end + PAGE;
    }
    Ok(())
}

/// Loads a template's memory, never to be changed again. Blocks.
pub(super) fn load(file: &File) -> io::Result<OwnedFd> {
    let memory = File::from(empty(file.metadata()?.len())?);
    copy(file, &memory)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(memory.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn memory_comes_back_as_it_was_and_takes_no_room_where_it_is_zero() {
        let size = 3 * CHUNK + 2 * PAGE;
        let mut content = vec![0u8; size];
        content[PAGE..2 * PAGE].fill(1);
        content[CHUNK - 1..CHUNK + 1].fill(2);
        content[size - 1] = 3;
        let memory = File::from(empty(size as u64).unwrap());
        memory.write_all_at(&content, 0).unwrap();
        let kept = tempfile::tempfile().unwrap();
        copy(&memory, &kept).unwrap();
        assert!(kept.metadata().unwrap().blocks() * 512 <= 8 * PAGE as u64);
        let loaded = File::from(load(&kept).unwrap());
        let mut read = vec![0; size];
        loaded.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content);
        assert_eq!(rustix::io::pwrite(&loaded, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&loaded, 0), Err(Errno::PERM));
    }
}
