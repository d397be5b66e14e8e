//! Reads an archive that a stranger wrote, entry by entry.
//!
//! Names longer than a tar header come before their entry as one of their own; those are read here, because the tar reader
//! itself would take them at any length.

use super::{END, JOURNAL, MANIFEST};
use loopd_domain::limits::{ARCHIVE_MANIFEST_BYTES_MAX, FILE_PATH_BYTES_MAX, IMPORT_BYTES_MAX};
use loopd_sandbox::files::{FileEntry, FileKind};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Bytes of one set of pax records: a path and a link's target, with their names.
const PAX_BYTES_MAX: u64 = 4 * FILE_PATH_BYTES_MAX as u64;
/// A journal's bytes on their lines: the payloads, and as much again for what stands around them.
const JOURNAL_BYTES_MAX: u64 = 2 * IMPORT_BYTES_MAX as u64;

/// What an entry of the archive is.
pub(super) enum Item {
    Manifest,
    Journal,
    File(FileEntry),
    End,
}

/// What the entries before an entry said of it.
#[derive(Default)]
pub(super) struct Prelude {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Prelude {
    /// `None`: the entry only says something of the next one.
    pub(super) fn item<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<Option<Item>> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => self.path = Some(long_name(entry)?),
            EntryType::GNULongLink => self.link = Some(long_name(entry)?),
            EntryType::XHeader => self.pax(entry)?,
            EntryType::XGlobalHeader => {}
            kind => {
                let named = std::mem::take(self);
                let path = named.path.unwrap_or_else(|| entry.path_bytes().into_owned());
                return item(entry, kind, Path::new(std::ffi::OsStr::from_bytes(&path)), named.link).map(Some);
            }
        }
        Ok(None)
    }

    fn pax<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let bytes = bounded(entry, PAX_BYTES_MAX, "pax header")?;
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"size" => return Err(refuse("a pax header gives a `size`; accepted: archives as loopd writes them")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn item<R: Read>(entry: &tar::Entry<'_, R>, kind: EntryType, path: &Path, link: Option<Vec<u8>>) -> io::Result<Item> {
    let header = entry.header();
    let bytes = header.entry_size()?;
    if kind == EntryType::Regular {
        let own =
            [(MANIFEST, ARCHIVE_MANIFEST_BYTES_MAX, Item::Manifest), (END, ARCHIVE_MANIFEST_BYTES_MAX, Item::End)];
        for (name, max, item) in own.into_iter().chain([(JOURNAL, JOURNAL_BYTES_MAX, Item::Journal)]) {
            if path == Path::new(name) {
                let told = format!("`{name}` has {bytes} bytes; accepted: up to {max}");
                return if bytes <= max { Ok(item) } else { Err(refuse(told)) };
            }
        }
    }
    let kind = match kind {
        EntryType::Regular => FileKind::File { bytes },
        EntryType::Directory => FileKind::Directory,
        EntryType::Symlink => {
            let target = link.or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
            let target = target.ok_or_else(|| refuse(format!("the link `{}` has no target", path.display())))?;
            if target.is_empty() || target.len() > FILE_PATH_BYTES_MAX || target.contains(&0) {
                return Err(refuse(format!("the target of the link `{}` is not a path", path.display())));
            }
            FileKind::Link { target: OsString::from_vec(target) }
        }
        other => {
            let told =
                format!("`{}` is of type {other:?}; accepted: files, directories and symbolic links", shown(path));
            return Err(refuse(told));
        }
    };
    let modified_s = i64::try_from(header.mtime()?).unwrap_or(0);
    Ok(Item::File(FileEntry { path: PathBuf::from(path), kind, mode: header.mode()?, modified_s }))
}

fn long_name<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let mut name = bounded(entry, FILE_PATH_BYTES_MAX as u64 + 1, "name")?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The whole of an entry that must be short.
pub(super) fn bounded<R: Read>(entry: &mut tar::Entry<'_, R>, max: u64, what: &str) -> io::Result<Vec<u8>> {
    let size = entry.header().entry_size()?;
    if size > max {
        return Err(refuse(format!("a {what} has {size} bytes; accepted: up to {max}")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

pub(super) fn refuse(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

fn shown(path: &Path) -> String {
    path.display().to_string().chars().take(80).collect()
}
