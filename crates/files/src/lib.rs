//! A session's files on their way: out of one directory, into another, into and out of an archive, or as one stream of bytes ([`wire`]).
//!
//! They were written by a stranger. Whoever reads them ([`read_tree`]) follows no link, opens nothing that is no file or
//! directory, and is done after a bounded number of files, bytes and levels. Whoever writes them ([`TreeWriter`]) makes new
//! entries below the parts of one directory and nowhere else, whatever a path or a link says.
//!
//! Ownership, hard links, extended attributes and the special mode bits do not travel. All of this blocks.

mod plant;
mod walk;
pub mod wire;

pub use plant::TreeWriter;
pub use walk::read_tree;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// One thing of a session's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the session's directory; its first name is a part of it: `workspace/src/main.rs`.
    pub path: PathBuf,
    pub kind: FileKind,
    /// Permission bits only.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified_s: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    File {
        bytes: u64,
    },
    /// A symbolic link, kept as it was written and never followed here: what it means, it means in the room.
    Link {
        target: OsString,
    },
}

/// What a file holds. May turn out shorter or longer than its entry says: somebody may be writing it.
pub enum Content<'a> {
    /// Of a directory or a link.
    None,
    File(&'a File),
    Stream(&'a mut dyn Read),
}

/// Takes one entry after the other; a directory comes before what is in it.
pub trait FileSink: Send {
    /// [`io::ErrorKind::InvalidInput`]: this entry can never be taken; the message says why.
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()>;
}

/// A directory that is being filled.
pub trait FileWriter: FileSink {
    /// What can only be done when all is there: modes and times of directories.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// What was read of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilesRead {
    pub files: u64,
    pub bytes: u64,
    /// Neither file, directory nor link; or not to be opened; or too deep.
    pub skipped: u64,
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests;
