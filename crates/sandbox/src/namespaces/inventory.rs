//! Which sessions have something here, and taking it away.

use super::place::Place;
use super::{KIND, Rooms};
use crate::room::place::{self, own};
use crate::room::{ending, removal};
use crate::{Found, RoomSpec, SandboxError};
use loopd_domain::SessionId;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

impl Rooms {
    /// Every session that has a room's record or a directory. Blocks.
    pub(super) fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for session in self.data.with_files()? {
            found.insert(
                session.as_str().to_owned(),
                Found { session, room: false, can_sleep: false, files: true, layers: Vec::new() },
            );
        }
        for session in self.data.with_places()? {
            let room = self.has_room(&session)?;
            let path = self.data.place(&session);
            let layers = if room { place::Place::peek_layers(&path) } else { Ok(Vec::new()) };
            let layers = layers.map_err(|source| SandboxError::Directory { path, source })?;
            let entry = found.entry(session.as_str().to_owned());
            let entry =
                entry.or_insert(Found { session, room: false, can_sleep: false, files: false, layers: Vec::new() });
            (entry.room, entry.layers) = (room, layers);
        }
        self.cgroups.sweep();
        Ok(found.into_values().collect())
    }

    fn has_room(&self, session: &SessionId) -> Result<bool, SandboxError> {
        let path = self.data.place(session);
        // Read without the lock: a record is written by one call, and this is but a look.
        let living = place::Place::peek(&path).and_then(|record| match record.filter(|record| record.kind == KIND) {
            Some(record) => Ok(ending::living(&record, &self.boot)?.is_some()),
            None => Ok(false),
        });
        living.map_err(|source| SandboxError::Directory { path, source })
    }

    /// Ends the session's room and removes all that it wrote and all that is recorded of it.
    pub(super) async fn remove(self: &Arc<Self>, spec: &RoomSpec) -> Result<(), SandboxError> {
        // Refuses what could never have been a room's.
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let place = Place::find(&path).await.map_err(unusable)?;
        if let Some(place) = &place
            && let Some(record) = own(place, spec.epoch, &path)?
        {
            ending::end(&record, &self.boot).await?;
        }
        let removing = files.clone();
        let fault = |source: io::Error| SandboxError::Directory { path: files.clone(), source };
        let removed = tokio::task::spawn_blocking(move || removal::remove(&removing)).await;
        removed.map_err(|stopped| fault(io::Error::other(stopped)))?.map_err(|errno| fault(errno.into()))?;
        // Last, so that a removal that is cut short is seen by the next inventory.
        place.map_or(Ok(()), Place::remove).map_err(unusable)
    }
}
