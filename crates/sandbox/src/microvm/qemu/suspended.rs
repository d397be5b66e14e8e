//! A machine that was suspended, as one file: a head of fixed length with its manifest, then what QEMU wrote.

use super::manifest::Manifest;
use super::template::{beside, sync_parent};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEAD: usize = 4 << 10;

/// One that is being written. Dropped before it is complete, nothing of it stays.
pub(super) struct Draft {
    path: PathBuf,
    into: PathBuf,
}

impl Draft {
    /// Answers the file as well, to be written from where it is. Blocks, as all here.
    pub(super) fn new(into: &Path, manifest: &Manifest) -> io::Result<(Self, File)> {
        let draft = Draft { path: beside(into)?, into: into.to_owned() };
        let mut head = serde_json::to_vec(manifest)?;
        if head.len() > HEAD {
            return Err(io::Error::other("a manifest longer than its place"));
        }
        head.resize(HEAD, b' ');
        let mut file = File::create_new(&draft.path)?;
        file.write_all(&head)?;
        Ok((draft, file))
    }

    pub(super) fn complete(self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(&self.path, &self.into)?;
        sync_parent(&self.into).inspect_err(|_| {
            // Its machine goes on.
            if let Err(fault) = fs::remove_file(&self.into) {
                tracing::error!(path = %self.into.display(), %fault, "a suspended machine that goes on stays");
            }
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %fault, "half a suspended machine stays");
            }
            _ => {}
        }
    }
}

/// Answers the file where what QEMU wrote begins.
pub(super) fn open(path: &Path) -> io::Result<(Manifest, File)> {
    let mut file = File::open(path)?;
    let mut head = [0; HEAD];
    file.read_exact(&mut head)?;
    let manifest = serde_json::from_slice(&head)?;
    file.seek(SeekFrom::Start(HEAD as u64))?;
    Ok((manifest, file))
}
