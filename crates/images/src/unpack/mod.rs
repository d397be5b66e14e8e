//! One layer becomes one directory: what a stranger packed, written beneath a directory and nowhere else.
//!
//! ```text
//!  bytes ─► gzip | zstd | plain ─► counted, hashed ─► tar entries ([`entries`]) ─► files ([`tree`])
//! ```
//!
//! What a layer is made into:
//!
//! - Files, directories, symbolic links, and hard links between files of the same layer. Devices, pipes and sockets are left out.
//! - Everything belongs to whoever unpacks. In a room that is `nobody` (rooms as root) or the agent (rooms of an ordinary user);
//!   nobody can write there in any case. So that all can be read and run as the image's own user could, what the owner of
//!   a file may read or execute, everybody may. Set-user-id and set-group-id bits, other owners and extended attributes are gone.
//! - What a layer deletes of those below (`.wh.name`, `.wh..wh..opq`) is written as overlayfs reads it.
//!
//! Not here: where layers come from, and where their directories lie.

mod entries;
mod tree;

use crate::digest::{Digest, Hashing, TooLong};
use loopd_domain::limits::{FILE_DEPTH_MAX, FILE_PATH_BYTES_MAX, IMAGE_ENTRIES_MAX, IMAGE_UNPACKED_BYTES_MAX};
use rustix::fs::OFlags;
use std::io::{self, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use tree::Tree;

/// What one layer may come to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the layer's archive when it is no longer compressed.
    pub bytes: u64,
    /// Entries, and directories that entries imply.
    pub entries: u64,
    pub depth: usize,
    pub path_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: IMAGE_UNPACKED_BYTES_MAX,
            entries: IMAGE_ENTRIES_MAX,
            depth: FILE_DEPTH_MAX,
            path_bytes: FILE_PATH_BYTES_MAX,
        }
    }
}

/// What came of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Of the archive, no longer compressed: what an image's configuration calls the layer's `diff_id`.
    pub digest: Digest,
    /// Bytes of files.
    pub bytes: u64,
    pub entries: u64,
    /// Devices, pipes and the like that were left out.
    pub left_out: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("it is larger than {most} bytes when it is unpacked")]
    TooLarge { most: u64 },
    #[error("it has more than {most} entries")]
    TooMany { most: u64 },
    /// It points outside, or is no path at all.
    #[error("its entry `{path}` {reason}")]
    Refused { path: String, reason: String },
    #[error("it is damaged: {0}")]
    Damaged(io::Error),
    #[error("writing `{path}`: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Characters of a stranger's path that a message shows.
const SHOWN_CHARS: usize = 120;

impl UnpackError {
    pub(crate) fn refused(path: &[u8], reason: impl Into<String>) -> Self {
        let text = String::from_utf8_lossy(path);
        let path = text.escape_debug().to_string().chars().take(SHOWN_CHARS).collect();
        UnpackError::Refused { path, reason: reason.into() }
    }
}

/// Writes a layer into an empty directory. Blocks. What was written when it fails is the caller's to remove.
pub fn unpack(layer: impl Read, into: BorrowedFd<'_>, limits: &Limits) -> Result<Unpacked, UnpackError> {
    let top = reopen(into).map_err(|source| UnpackError::Write { path: PathBuf::from("."), source })?;
    let read = |fault: io::Error| match fault.get_ref().is_some_and(|inner| inner.is::<TooLong>()) {
        true => UnpackError::TooLarge { most: limits.bytes },
        false => UnpackError::Damaged(fault),
    };
    let mut archive = Hashing::new(decompress(layer).map_err(read)?, limits.bytes);
    let mut tree = Tree::new(top, *limits);
    entries::each(&mut archive, limits, &mut tree, &read)?;
    // What stands after the archive's end is part of its digest.
    let digest = archive.drain().map_err(read)?;
    let (bytes, entries, left_out) = tree.finish()?;
    Ok(Unpacked { digest, bytes, entries, left_out })
}

fn reopen(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, c".", flags, rustix::fs::Mode::empty())?)
}

/// The window of a zstd frame, as a power of two of bytes, that is accepted: what the standard's strongest ordinary level needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Tells by the first bytes how a layer is compressed, whatever its media type says.
fn decompress<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::new(layer);
    let mut head = Vec::new();
    (&mut layer).take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(layer);
    if head.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if head.starts_with(ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

#[cfg(test)]
mod tests;
