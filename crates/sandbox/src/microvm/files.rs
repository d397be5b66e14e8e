//! A session's files, read and written by a guest: the room's own while this server holds it, else one that is there for nothing else.
//! The host never reads a file system that a guest has written.
//!
//! A machine that sleeps has its disk open in its memory: then a copy of the disk is read. One that lives and is held by nobody here is
//! asked itself.

use super::form::Form;
use super::ground::Ground;
use super::hold::Turn;
use super::link::LinkHost;
use super::raising::{NOBODYS, Raised, Stand};
use super::suspending::sleeps;
use super::{KIND, Machines, disk, talk};
use crate::files::{Content, FileEntry, FileSink, FileWriter, FilesRead};
use crate::room::ending;
use crate::room::place::{Place, own};
use crate::{RoomSpec, SandboxError};
use loopd_protocol::guest::{FromGuest, ToGuest};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A machine that serves a session's files.
enum Server {
    /// The room's.
    Room(Arc<LinkHost>),
    /// The room's, which nobody holds here.
    Left(Box<Raised>),
    /// One for this, on the session's disk.
    Own(Box<Raised>),
    /// One for this, on a copy of it.
    Copy(Box<Raised>, Option<Ground>),
}

impl Server {
    fn link(&self) -> &LinkHost {
        match self {
            Server::Room(link) => link,
            Server::Left(raised) | Server::Own(raised) | Server::Copy(raised, _) => &raised.link,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Server::Copy(_, ground) = self
            && let Some(Err(fault)) = ground.take().map(Ground::remove)
        {
            tracing::warn!(%fault, "a copy of a disk stays behind");
        }
    }
}

impl Machines {
    pub(super) fn read_files(
        self: &Arc<Self>,
        spec: &RoomSpec,
        sink: &mut dyn FileSink,
    ) -> Result<FilesRead, SandboxError> {
        let files = self.data.locate(spec)?;
        let fault = |source| SandboxError::Directory { path: files.clone(), source };
        if !disk::exists(&files).map_err(fault)? {
            return Ok(FilesRead::default());
        }
        let runtime = runtime()?;
        let _entered = runtime.enter();
        let (server, turn) = runtime.block_on(self.reader(spec, &files))?;
        let read = server.link().read_files(sink).map_err(fault);
        drop(server);
        drop(turn);
        read
    }

    pub(super) fn write_files(self: &Arc<Self>, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        let files = self.data.locate(spec)?;
        let fault = |source| SandboxError::Directory { path: files.clone(), source };
        let runtime = runtime()?;
        let _entered = runtime.enter();
        let raised = runtime.block_on(self.server(spec, &files))?;
        let writer = raised.link.write_files().map_err(fault)?;
        Ok(Box::new(Writer { writer, raised, runtime: runtime.clone() }))
    }

    /// Who reads them, and for as long as that is: nobody takes over the machine meanwhile. The room's own, which is held here, does both.
    async fn reader(self: &Arc<Self>, spec: &RoomSpec, files: &Path) -> Result<(Server, Option<Turn>), SandboxError> {
        let turn = self.turns.of(&spec.session).await;
        if let Some(link) = self.holds.of(&spec.session).and_then(|hold| hold.link()) {
            return Ok((Server::Room(link), None));
        }
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        if let Some(place) = Place::find(&path).await.map_err(unusable)?
            && let Some(record) = own(&place, spec.epoch, &path)?.filter(|record| record.kind == KIND)
            && let Some(pidfd) = self.left(&place, files, &record).await?
        {
            let form = self.form_of(&place, spec).await?;
            let raised = self.take_over(&form, &place, &record, pidfd).await?;
            return Ok((Server::Left(Box::new(raised)), Some(turn)));
        }
        match sleeps(files) {
            true => Ok((self.copied(spec, files).await?, None)),
            false => Ok((Server::Own(Box::new(self.server(spec, files).await?)), Some(turn))),
        }
    }

    /// A machine for files, on the session's disk and in its place.
    async fn server(self: &Arc<Self>, spec: &RoomSpec, files: &Path) -> Result<Raised, SandboxError> {
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let form = self.form(&spec.limits, &spec.root).await?;
        drop(self.template(&form).await);
        let place = Place::make(&path).await.map_err(unusable)?;
        if let Some(record) = own(&place, spec.epoch, &path)? {
            ending::end(&record, &self.boot).await?;
        }
        self.forget_suspension(&place, files).map_err(unusable)?;
        let user = self.session_disk(files, form.shape.disk_bytes).await?;
        let disk = disk::of(files);
        let stand = Stand { place: &place, disk: &disk, user, epoch: spec.epoch };
        self.bound_for_files(spec, &form, stand).await
    }

    async fn copied(self: &Arc<Self>, spec: &RoomSpec, files: &Path) -> Result<Server, SandboxError> {
        let form = self.form(&spec.limits, &spec.root).await?;
        let fault = |source| SandboxError::Directory { path: files.to_owned(), source };
        let (machines, wanted, from) = (Arc::clone(self), form.clone(), disk::of(files));
        let copied = tokio::task::spawn_blocking(move || {
            let ground = machines.ground(&wanted)?;
            disk::copy(&from, &ground.disk)?;
            Ok(ground)
        });
        let ground = copied.await.map_err(io::Error::other).flatten().map_err(fault)?;
        let stand = Stand { place: &ground.place, disk: &ground.disk, user: ground.user, epoch: NOBODYS };
        let raised = self.bound_for_files(spec, &form, stand).await?;
        Ok(Server::Copy(Box::new(raised), Some(ground)))
    }

    async fn bound_for_files(
        self: &Arc<Self>,
        spec: &RoomSpec,
        form: &Form,
        stand: Stand<'_>,
    ) -> Result<Raised, SandboxError> {
        self.bound(spec, form, stand, None).await
    }
}

fn runtime() -> Result<Handle, SandboxError> {
    Handle::try_current().map_err(|fault| talk::failed("serving files", &fault.to_string()))
}

struct Writer {
    writer: Box<dyn FileWriter>,
    raised: Raised,
    runtime: Handle,
}

impl FileSink for Writer {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        self.writer.put(entry, content)
    }
}

impl FileWriter for Writer {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let Writer { writer, mut raised, runtime } = *self;
        let _entered = runtime.enter();
        writer.finish()?;
        let is_synced = |said: &FromGuest| matches!(said, FromGuest::Synced).then_some(());
        let synced = talk::ask(&mut raised.control, ToGuest::Sync, "writing its disk", is_synced);
        runtime.block_on(synced).map_err(io::Error::other)
    }
}
