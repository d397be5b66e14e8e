//! A session's directory as files that come and go: which parts it has, and whose each of them is.

use super::directory::prepare;
use crate::SandboxError;
use crate::files::{FileSink, FileWriter, FilesRead, TreeWriter, read_tree};
use crate::room::ids::Ids;
use loopd_jail::ids::PARTS;
use std::io;
use std::path::Path;

pub(super) fn read(directory: &Path, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
    read_tree(directory, &PARTS.map(|(name, _)| name), sink).map_err(|fault| refuse(directory, fault))
}

/// Makes the directory, with ids of its own where there are any to give.
pub(super) fn write(directory: &Path, ids: Option<&Ids>) -> Result<Box<dyn FileWriter>, SandboxError> {
    let made = prepare(directory, ids).and_then(|first| {
        let owner = |whose| first.map(|first| first + whose);
        TreeWriter::new(directory, &PARTS.map(|(name, whose)| (name, owner(whose))))
    });
    Ok(Box::new(made.map_err(|fault| refuse(directory, fault))?))
}

fn refuse(directory: &Path, source: io::Error) -> SandboxError {
    SandboxError::Directory { path: directory.to_owned(), source }
}
