//! The entries of a layer's archive, one after the other.
//!
//! The tar reader is used raw: what says something of the next entry (long names, pax records) it would take at any length, so
//! that is read here, within bounds.

use super::tree::{Meta, Tree};
use super::{Limits, UnpackError};
use std::io::{self, Read};
use tar::EntryType;

/// Bytes of one set of pax records: besides a path and a link's target they hold extended attributes, which are skipped.
const PAX_BYTES_MAX: u64 = 1 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs keeps for itself.
const AUFS: &[u8] = b".wh..wh.";

/// What the entries before an entry said of it.
#[derive(Default)]
struct Prelude {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    modified_s: Option<i64>,
}

pub(super) fn each(
    archive: impl Read,
    limits: &Limits,
    tree: &mut Tree,
    read: &dyn Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(archive);
    let mut prelude = Prelude::default();
    // Those that only say something of others count too: a layer must not be made of them.
    let mut seen = 0;
    for entry in archive.entries().map_err(read)?.raw(true) {
        let mut entry = entry.map_err(read)?;
        seen += 1;
        if seen > limits.entries.saturating_mul(4) {
            return Err(UnpackError::TooMany { most: limits.entries });
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => prelude.path = Some(long_name(&mut entry, limits, read)?),
            EntryType::GNULongLink => prelude.link = Some(long_name(&mut entry, limits, read)?),
            EntryType::XHeader => prelude.pax(&mut entry, read)?,
            EntryType::XGlobalHeader => {}
            kind => one(&mut entry, kind, std::mem::take(&mut prelude), tree, read)?,
        }
    }
    Ok(())
}

/// Writes one entry.
fn one<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    kind: EntryType,
    prelude: Prelude,
    tree: &mut Tree,
    read: &dyn Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let path = prelude.path.unwrap_or_else(|| entry.path_bytes().into_owned());
    let path = tree.parse(&path)?;
    let Some(name) = path.name() else {
        // The top itself: it is there, and its mode is ours.
        return Ok(());
    };
    if name == OPAQUE {
        return tree.make_opaque(&path);
    }
    if name.starts_with(AUFS) {
        return Ok(());
    }
    if let Some(deleted) = name.strip_prefix(WHITEOUT) {
        return tree.delete(&path, deleted);
    }
    let header = entry.header();
    let modified_s = prelude.modified_s.or_else(|| header.mtime().ok().and_then(|s| i64::try_from(s).ok()));
    let meta = Meta { executable: header.mode().map_err(read)? & 0o100 != 0, modified_s: modified_s.unwrap_or(0) };
    let link = || prelude.link.clone().or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
    match kind {
        EntryType::Regular | EntryType::Continuous => {
            let size = header.entry_size().map_err(read)?;
            tree.file(&path, meta, size, entry, read)
        }
        EntryType::Directory => tree.directory(&path, meta),
        EntryType::Symlink => tree.link(&path, &link().unwrap_or_default()),
        EntryType::Link => {
            let target = tree.parse(&link().unwrap_or_default())?;
            tree.hard_link(&path, &target)
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            tree.leave_out();
            Ok(())
        }
        other => Err(UnpackError::refused(
            path.bytes(),
            format!("is of type {other:?}; accepted: files, directories and links"),
        )),
    }
}

impl Prelude {
    fn pax<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        read: &dyn Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let bytes = bounded(entry, PAX_BYTES_MAX, read)?;
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record.map_err(read)?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"mtime" => self.modified_s = record.value().ok().and_then(seconds),
                // The header beside it can hold up to 8 GiB in octal and any size in base 256, which writers use first.
                b"size" | b"GNU.sparse.major" => {
                    let reason = "is a sparse file or has its size in a pax record; accepted: files up to 8 GiB";
                    return Err(UnpackError::refused(self.path.as_deref().unwrap_or_default(), reason));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The whole seconds of `1700000000.25`.
fn seconds(text: &str) -> Option<i64> {
    text.split('.').next()?.parse().ok()
}

fn long_name<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    limits: &Limits,
    read: &dyn Fn(io::Error) -> UnpackError,
) -> Result<Vec<u8>, UnpackError> {
    let mut name = bounded(entry, limits.path_bytes as u64 + 1, read)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The whole of an entry that must be short.
fn bounded<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    most: u64,
    read: &dyn Fn(io::Error) -> UnpackError,
) -> Result<Vec<u8>, UnpackError> {
    let size = entry.header().entry_size().map_err(read)?;
    if size > most {
        return Err(UnpackError::refused(
            b"",
            format!("has a name or pax records of {size} bytes; accepted: up to {most}"),
        ));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(read)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(UnpackError::Damaged(io::ErrorKind::UnexpectedEof.into())),
    }
}
