//! An archive as `tests/fuzz` feeds it: read as an import reads it, its files written, and no session made.

use super::import::{journal, parse};
use super::unpack::{Item, Prelude, bounded};
use super::{End, Manifest, line};
use crate::requests::ServiceError;
use loopd_domain::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_MANIFEST_BYTES_MAX};
use loopd_sandbox::files::{Content, FileWriter};
use std::io::{self, Read as _};

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    pub manifests: usize,
    pub entries: usize,
    pub files: usize,
    pub ended: bool,
}

/// Reads all of it, in whatever order it comes. Panics when an entry of the journal is not written as it was read.
pub fn read(bytes: &[u8], mut files: Box<dyn FileWriter>) -> Result<Read, String> {
    let mut archive = tar::Archive::new(bytes.take(ARCHIVE_BYTES_MAX));
    let (mut prelude, mut seen) = (Prelude::default(), Read::default());
    let io = |fault: io::Error| fault.to_string();
    for entry in archive.entries().map_err(io)?.raw(true) {
        let mut entry = entry.map_err(io)?;
        match prelude.item(&mut entry).map_err(io)? {
            None => {}
            Some(Item::Manifest) => {
                let bytes = bounded(&mut entry, ARCHIVE_MANIFEST_BYTES_MAX, "manifest").map_err(io)?;
                parse::<Manifest>("manifest.json", &bytes).map_err(told)?;
                seen.manifests += 1;
            }
            Some(Item::Journal) => seen.entries += lines(entry)?,
            Some(Item::File(file)) => {
                files.put(&file, Content::Stream(&mut entry)).map_err(io)?;
                seen.files += 1;
            }
            Some(Item::End) => {
                let bytes = bounded(&mut entry, ARCHIVE_MANIFEST_BYTES_MAX, "`end.json`").map_err(io)?;
                parse::<End>("end.json", &bytes).map_err(told)?;
                seen.ended = true;
            }
        }
    }
    files.finish().map_err(io)?;
    Ok(seen)
}

/// The lines of a journal. Panics when one of them is not written as it was read.
pub fn lines(from: impl io::Read) -> Result<usize, String> {
    let entries = journal(from).map_err(told)?;
    for entry in &entries {
        let again = line::write(entry.clone()).map_err(|fault| fault.to_string()).and_then(|line| line::read(&line));
        assert_eq!(again.as_ref(), Ok(entry), "an entry is not read as it is written");
    }
    Ok(entries.len())
}

fn told(fault: ServiceError) -> String {
    fault.to_string()
}
