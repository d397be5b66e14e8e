//! Writes an archive, as fast as somebody reads it.

use super::pipe::{CHUNKS_MAX, ChannelWriter};
use super::{ArchivedSession, Compression, END, End, FORMAT, JOURNAL, JournalEnd, MANIFEST, Manifest, line};
use crate::driver;
use crate::requests::{Parts, ServiceError};
use crate::service::SessionService;
use bytes::Bytes;
use flate2::write::GzEncoder;
use loopd_domain::chain::hex;
use loopd_domain::session::Session;
use loopd_domain::{Seq, SessionId, WorkspaceId};
use loopd_sandbox::files::{Content, FileEntry, FileKind, FileSink};
use loopd_store::{Head, SealedEntry};
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Entries read at a time.
const READ_ROWS: usize = 256;

impl SessionService {
    /// The session as an archive: its journal as it is now, and its files as they are while it is written. An error on the
    /// channel means that the archive is not whole.
    pub async fn export(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        compression: Compression,
    ) -> Result<mpsc::Receiver<io::Result<Bytes>>, ServiceError> {
        let session = self.get(workspace, id).await?;
        let head = self.parts().store.journal().head(id).await?.ok_or_else(|| ServiceError::Absent(id.clone()))?;
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let export = Export { parts: self.parts().clone(), session, head, runtime: Handle::current() };
        tokio::task::spawn_blocking(move || {
            let writer = ChannelWriter::new(sender.clone());
            if let Err(fault) = export.write(writer, compression) {
                tracing::warn!(session = %export.session.id, %fault, "an export was not finished");
                // A reader that has gone away needs no reason.
                let _ = sender.blocking_send(Err(fault));
            }
        });
        Ok(receiver)
    }
}

struct Export {
    parts: Arc<Parts>,
    session: Session,
    head: Head,
    runtime: Handle,
}

impl Export {
    fn write(&self, to: ChannelWriter, compression: Compression) -> io::Result<()> {
        match compression {
            Compression::None => self.pack(to)?.finish(),
            Compression::Gzip => self.pack(GzEncoder::new(to, flate2::Compression::fast()))?.finish()?.finish(),
        }
    }

    fn pack<W: Write + Send>(&self, to: W) -> io::Result<W> {
        let mut tar = tar::Builder::new(to);
        let journal = JournalEnd { entries: self.head.seq, head: hex(&self.head.hash) };
        let manifest = Manifest { format: FORMAT, session: ArchivedSession::from(&self.session), journal };
        self.put_json(&mut tar, MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?;
        self.put_journal(&mut tar)?;
        let mut files = Files { tar: &mut tar };
        let spec = driver::spec(&self.parts, &self.session.id, self.session.epoch, &self.session.room);
        let read = self.parts.sandbox.read_files(&spec, &mut files).map_err(io::Error::other)?;
        // A session's files go after its journal: while that was there, so were they.
        let head = self.runtime.block_on(self.parts.store.journal().head(&self.session.id));
        if head.map_err(io::Error::other)?.is_none() {
            return Err(io::Error::other("the session was deleted while it was exported"));
        }
        let end = End { files: read.files, bytes: read.bytes, skipped: read.skipped };
        self.put_json(&mut tar, END, &serde_json::to_vec(&end)?)?;
        tar.into_inner()
    }

    fn put_json<W: Write>(&self, tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = self.header(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes)
    }

    fn header(&self, bytes: u64) -> tar::Header {
        let modified_s = self.session.updated_at.millis().max(0) as u64 / 1_000;
        header(tar::EntryType::Regular, bytes, 0o644, modified_s)
    }

    /// A tar says how long a file is before it begins, so the journal is read twice. It only grows, and only what was there
    /// first is written; were an entry redacted in between, the lengths would differ and the export fails.
    fn put_journal<W: Write>(&self, tar: &mut tar::Builder<W>) -> io::Result<()> {
        let mut lines = Lines::new(self);
        let bytes = io::copy(&mut lines, &mut io::sink())?;
        let mut header = self.header(bytes);
        let mut lines = Exact { lines: Lines::new(self), left: bytes };
        tar.append_data(&mut header, JOURNAL, &mut lines)?;
        lines.ended()
    }

    fn entries(&self, after: Seq) -> io::Result<Vec<SealedEntry>> {
        let left = usize::try_from(self.head.seq - after).unwrap_or(READ_ROWS).min(READ_ROWS);
        if left == 0 {
            return Ok(Vec::new());
        }
        let read = self.parts.store.journal().sealed(&self.session.id, after, left);
        let entries = self.runtime.block_on(read).map_err(io::Error::other)?;
        match entries.is_empty() {
            true => Err(io::Error::other(format!("the journal ends at {after}, before {}", self.head.seq))),
            false => Ok(entries),
        }
    }
}

/// The journal as bytes.
struct Lines<'a> {
    export: &'a Export,
    after: Seq,
    ready: io::Cursor<Vec<u8>>,
}

impl<'a> Lines<'a> {
    fn new(export: &'a Export) -> Self {
        Lines { export, after: 0, ready: io::Cursor::default() }
    }
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.ready.read(into)?;
        if count > 0 || into.is_empty() {
            return Ok(count);
        }
        let entries = self.export.entries(self.after)?;
        let Some(last) = entries.last() else { return Ok(0) };
        self.after = last.seq;
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.append(&mut line::write(entry)?);
        }
        self.ready = io::Cursor::new(bytes);
        self.ready.read(into)
    }
}

/// As many bytes as were announced, and not one more.
struct Exact<R> {
    lines: R,
    left: u64,
}

impl<R: Read> Exact<R> {
    fn ended(&mut self) -> io::Result<()> {
        match (self.left, self.lines.read(&mut [0])?) {
            (0, 0) => Ok(()),
            _ => Err(io::Error::other("the journal was redacted while it was exported; try again")),
        }
    }
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.lines.read(&mut into[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("the journal was redacted while it was exported; try again"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

struct Files<'a, W: Write> {
    tar: &'a mut tar::Builder<W>,
}

impl<W: Write + Send> FileSink for Files<'_, W> {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        let modified_s = entry.modified_s.max(0) as u64;
        match &entry.kind {
            FileKind::Directory => {
                let mut header = header(tar::EntryType::Directory, 0, entry.mode, modified_s);
                self.tar.append_data(&mut header, &entry.path, io::empty())
            }
            FileKind::Link { target } => {
                let mut header = header(tar::EntryType::Symlink, 0, 0o777, modified_s);
                self.tar.append_link(&mut header, &entry.path, target)
            }
            FileKind::File { bytes } => {
                let mut header = header(tar::EntryType::Regular, *bytes, entry.mode, modified_s);
                let from: Box<dyn Read + '_> = match content {
                    Content::File(file) => Box::new(file),
                    Content::Stream(stream) => Box::new(stream),
                    Content::None => Box::new(io::empty()),
                };
                // What somebody writes to meanwhile is as long as it was, whatever it is now.
                let padded = from.chain(io::repeat(0)).take(*bytes);
                self.tar.append_data(&mut header, &entry.path, padded)
            }
        }
    }
}

fn header(kind: tar::EntryType, bytes: u64, mode: u32, modified_s: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_mtime(modified_s);
    header
}
