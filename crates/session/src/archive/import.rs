//! Makes a session of an archive: files first, then the journal in one transaction, which is when the session is there.

use super::pipe::{CHUNKS_MAX, ChannelReader};
use super::unpack::{Item, Prelude, bounded, refuse};
use super::{ArchivedSession, End, FORMAT, Manifest, line};
use crate::driver;
use crate::requests::{Parts, ServiceError};
use crate::requirement;
use crate::service::SessionService;
use crate::slots::Slot;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use loopd_domain::chain::hex;
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_MANIFEST_BYTES_MAX, IMPORT_ENTRIES_MAX};
use loopd_domain::session::Session;
use loopd_domain::{Epoch, Invalid, WorkspaceId};
use loopd_sandbox::files::{Content, FileKind, FileWriter};
use loopd_sandbox::{RoomSpec, SandboxError};
use loopd_store::{AppendError, Import, ImportError, SealedEntry};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Is what the archive says of the session something that this server would have taken from a caller?
pub type Check = fn(&ArchivedSession) -> Result<(), Invalid>;

/// Of a session that is made.
const FIRST: Epoch = Epoch(1);
const GZIP: [u8; 2] = [0x1f, 0x8b];
const NOT_WHOLE: &str =
    "the archive is not whole; accepted: one as `GET /v1/sessions/{id}/export` gives it, to its end";

impl SessionService {
    /// The channel for an archive's bytes, and the session that comes of it. A turn that was under way is taken up as after
    /// a crash.
    pub fn import(
        &self,
        workspace: WorkspaceId,
        check: Check,
    ) -> (mpsc::Sender<io::Result<Bytes>>, impl Future<Output = Result<Session, ServiceError>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let service = self.clone();
        let imported = async move {
            let (worker, runtime) = (service.clone(), Handle::current());
            let unpacking = move || Unpacking { service: worker, workspace, check, runtime }.run(receiver);
            let session = tokio::task::spawn_blocking(unpacking).await;
            let session =
                session.map_err(|e| ServiceError::Refused(format!("the archive could not be read: {e}")))??;
            if session.fold.needs_owner()
                && let Err(fault) = service.wake(&session.id).await
            {
                tracing::warn!(session = %session.id, %fault, "an imported session could not be taken up; trying again");
                service.abandon(session.id.clone());
            }
            Ok(session)
        };
        (sender, imported)
    }
}

struct Unpacking {
    service: SessionService,
    workspace: WorkspaceId,
    check: Check,
    runtime: Handle,
}

/// What has been read of the archive.
#[derive(Default)]
struct Unpacked {
    manifest: Option<(Manifest, Slot)>,
    entries: Option<Vec<SealedEntry>>,
    writer: Option<Box<dyn FileWriter>>,
    seen: End,
    end: Option<End>,
}

impl Unpacking {
    fn run(&self, receiver: mpsc::Receiver<io::Result<Bytes>>) -> Result<Session, ServiceError> {
        let mut bytes = BufReader::new(ChannelReader::new(receiver));
        let is_gzip = bytes.fill_buf().map_err(unreadable)?.starts_with(&GZIP);
        match is_gzip {
            true => self.unpack(MultiGzDecoder::new(bytes)),
            false => self.unpack(bytes),
        }
    }

    fn unpack(&self, bytes: impl Read) -> Result<Session, ServiceError> {
        let mut archive = tar::Archive::new(bytes.take(ARCHIVE_BYTES_MAX));
        // INVARIANT: the slot is held from the manifest on, so nobody else makes this session or its directory meanwhile.
        let mut held = None;
        let mut unpacked = Unpacked::default();
        let read = self.read(&mut archive, &mut unpacked, &mut held).and_then(|()| self.write(&mut unpacked));
        if let Some((manifest, slot)) = unpacked.manifest {
            if read.is_err() && held.is_some() {
                self.discard(&manifest.session);
            }
            drop(held);
            self.service.0.slots.forget(&manifest.session.id, slot);
        }
        read
    }

    fn read<R: Read>(
        &self,
        archive: &mut tar::Archive<R>,
        unpacked: &mut Unpacked,
        held: &mut Option<Held>,
    ) -> Result<(), ServiceError> {
        let mut prelude = Prelude::default();
        for entry in archive.entries().map_err(unreadable)?.raw(true) {
            let mut entry = entry.map_err(unreadable)?;
            let Some(item) = prelude.item(&mut entry).map_err(unreadable)? else { continue };
            match item {
                _ if unpacked.end.is_some() => return Err(unreadable(refuse("something follows `end.json`"))),
                Item::Manifest if unpacked.manifest.is_none() => {
                    let bytes = bounded(&mut entry, ARCHIVE_MANIFEST_BYTES_MAX, "manifest").map_err(unreadable)?;
                    let (manifest, slot, guard) = self.manifest(&bytes)?;
                    (unpacked.manifest, *held) = (Some((manifest, slot)), Some(guard));
                }
                Item::Journal if unpacked.manifest.is_some() && unpacked.entries.is_none() => {
                    unpacked.entries = Some(journal(entry)?);
                }
                Item::File(file) => {
                    let Some((manifest, _)) = unpacked.manifest.as_ref().filter(|_| unpacked.entries.is_some()) else {
                        return Err(unreadable(refuse("a file stands before `journal.jsonl`")));
                    };
                    let writer = match &mut unpacked.writer {
                        Some(writer) => writer,
                        none => none.insert(self.files(&manifest.session)?),
                    };
                    unpacked.seen.files += 1;
                    if let FileKind::File { bytes } = file.kind {
                        unpacked.seen.bytes = unpacked.seen.bytes.saturating_add(bytes);
                    }
                    writer.put(&file, Content::Stream(&mut entry)).map_err(unreadable)?;
                }
                Item::End => {
                    let bytes = bounded(&mut entry, ARCHIVE_MANIFEST_BYTES_MAX, "`end.json`").map_err(unreadable)?;
                    unpacked.end = Some(parse("end.json", &bytes)?);
                }
                Item::Manifest | Item::Journal => {
                    return Err(unreadable(refuse("accepted: first `manifest.json`, then `journal.jsonl`, each once")));
                }
            }
        }
        Ok(())
    }

    /// All is there and is what it says: the session is made.
    fn write(&self, unpacked: &mut Unpacked) -> Result<Session, ServiceError> {
        let whole = (&unpacked.manifest, unpacked.entries.take(), unpacked.end);
        let (Some((manifest, _)), Some(entries), Some(end)) = whole else {
            return Err(ServiceError::Refused(NOT_WHOLE.to_owned()));
        };
        if (end.files, end.bytes) != (unpacked.seen.files, unpacked.seen.bytes) {
            let told = format!("`end.json` tells of {} files, and {} are there", end.files, unpacked.seen.files);
            return Err(ServiceError::Refused(told));
        }
        let (told, head) = (&manifest.journal, entries.last().map_or(loopd_domain::chain::GENESIS, |e| e.hash));
        if told.entries != entries.len() as u64 || told.head != hex(&head) {
            let text = format!(
                "`manifest.json` tells of a journal of {} entries that ends in `{}`, and this one has {} and ends in `{}`",
                told.entries,
                told.head.chars().take(64).collect::<String>(),
                entries.len(),
                hex(&head)
            );
            return Err(ServiceError::Refused(text));
        }
        if let Some(writer) = unpacked.writer.take() {
            writer.finish().map_err(unreadable)?;
        }
        let session = self.session(manifest.session.clone());
        let import = Import { session, entries, lease: None, once: None };
        self.runtime.block_on(self.parts().store.journal().import(import)).map_err(refused)
    }

    fn manifest(&self, bytes: &[u8]) -> Result<(Manifest, Slot, Held), ServiceError> {
        let manifest: Manifest = parse("manifest.json", bytes)?;
        if manifest.format != FORMAT {
            let told = format!("`manifest.json`: `format` is `{}`; accepted: `{FORMAT}`", manifest.format);
            return Err(ServiceError::Refused(told));
        }
        (self.check)(&manifest.session).map_err(|fault| ServiceError::Refused(format!("`manifest.json`: {fault}")))?;
        let store = self.parts().store.as_ref();
        let allowed = requirement::check(store, &self.workspace, "session.room", &manifest.session.room);
        self.runtime.block_on(allowed).map_err(|refusal| match refusal {
            requirement::Refusal::Weaker(fault) => ServiceError::Refused(format!("`manifest.json`: {fault}")),
            requirement::Refusal::Store(fault) => fault.into(),
        })?;
        let id = &manifest.session.id;
        let slot = self.service.slot(id)?;
        let held = self.runtime.block_on(slot.clone().lock_owned());
        if self.runtime.block_on(self.parts().store.journal().head(id))?.is_some() {
            drop(held);
            self.service.0.slots.forget(id, slot);
            return Err(ServiceError::Exists(id.clone()));
        }
        Ok((manifest, slot, held))
    }

    /// The session's directory, new: what is there without a session is left from an import that was cut off.
    fn files(&self, session: &ArchivedSession) -> Result<Box<dyn FileWriter>, ServiceError> {
        let spec = driver::spec(self.parts(), &session.id, driver::NOBODYS, &session.room);
        self.runtime.block_on(self.parts().sandbox.remove(&spec)).map_err(no_files)?;
        // In the name of the session's first owner: a kind of room that puts this on record must obey the next one.
        let spec = RoomSpec { epoch: FIRST, ..spec };
        self.parts().sandbox.write_files(&spec).map_err(no_files)
    }

    fn discard(&self, session: &ArchivedSession) {
        let spec = driver::spec(self.parts(), &session.id, driver::NOBODYS, &session.room);
        if let Err(fault) = self.runtime.block_on(self.parts().sandbox.remove(&spec)) {
            tracing::warn!(session = %session.id, %fault, "the files of an import that failed could not be removed");
        }
    }

    fn session(&self, from: ArchivedSession) -> Session {
        Session {
            id: from.id,
            workspace: self.workspace.clone(),
            agent: from.agent,
            environment: from.environment,
            room: from.room,
            // Vaults are of the server that the archive left, and whoever reads one back need not be whom they were given to.
            vaults: Vec::new(),
            title: from.title,
            metadata: from.metadata,
            created_at: from.created_at,
            updated_at: from.updated_at,
            archived_at: from.archived_at,
            fold: SessionFold::default(),
            epoch: FIRST,
        }
    }

    fn parts(&self) -> &Arc<Parts> {
        self.service.parts()
    }
}

type Held = tokio::sync::OwnedMutexGuard<Option<mpsc::Sender<driver::Mail>>>;

pub(super) fn journal(entry: impl Read) -> Result<Vec<SealedEntry>, ServiceError> {
    let mut lines = BufReader::new(entry);
    let (mut entries, mut text) = (Vec::new(), Vec::new());
    loop {
        text.clear();
        if lines.read_until(b'\n', &mut text).map_err(unreadable)? == 0 {
            return Ok(entries);
        }
        if text.last() != Some(&b'\n') {
            return Err(ServiceError::Refused(NOT_WHOLE.to_owned()));
        }
        if entries.len() >= IMPORT_ENTRIES_MAX {
            let told = format!("the journal is too long; accepted: up to {IMPORT_ENTRIES_MAX} entries");
            return Err(ServiceError::Refused(told));
        }
        let place = entries.len() + 1;
        let read = line::read(&text);
        entries.push(read.map_err(|e| ServiceError::Refused(format!("`journal.jsonl`, line {place}: {e}")))?);
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ServiceError> {
    serde_json::from_slice(bytes).map_err(|fault| ServiceError::Refused(format!("`{name}`: {fault}")))
}

/// A file system's own fault is the server's; everything else is the archive's.
fn unreadable(fault: io::Error) -> ServiceError {
    match fault.raw_os_error() {
        Some(_) => ServiceError::Files(fault.to_string()),
        None if fault.kind() == io::ErrorKind::UnexpectedEof => ServiceError::Refused(NOT_WHOLE.to_owned()),
        None => ServiceError::Refused(format!("the archive cannot be taken: {fault}")),
    }
}

pub(crate) fn no_files(fault: SandboxError) -> ServiceError {
    match &fault {
        SandboxError::Directory { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
            ServiceError::Refused(source.to_string())
        }
        _ => ServiceError::Files(fault.to_string()),
    }
}

pub(crate) fn refused(fault: ImportError) -> ServiceError {
    match fault {
        ImportError::Append(AppendError::Conflict { .. }) => {
            ServiceError::Refused("the archive holds an event twice".to_owned())
        }
        ImportError::Append(fault) => fault.into(),
        fault => ServiceError::Refused(format!("the journal cannot be taken: {fault}")),
    }
}
