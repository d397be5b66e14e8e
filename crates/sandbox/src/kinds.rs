//! All kinds of rooms of a server as one [`Sandbox`]: each spec goes to the backend of its kind.
//!
//! A session keeps the definition of its room for life, so its kind does not change. Should its files lie here in another kind's form all the
//! same, they are not lost: they are read and removed as what they are, and a room of the wrong kind is refused with both kinds' names, as
//! it would begin without them.

use crate::files::{FileSink, FileWriter, FilesRead};
use crate::port::{Check, CheckVerdict, Found, Room, RoomSpec, Sandbox, SandboxError};
use async_trait::async_trait;
use loopd_domain::SessionId;
use loopd_domain::environment::Isolation;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The backends, and why others are not there.
#[derive(Default)]
pub struct Kinds {
    kinds: BTreeMap<Isolation, Kind>,
}

enum Kind {
    Here(Arc<dyn Sandbox>),
    /// Says what to do about it.
    Absent {
        reason: String,
        remedy: String,
    },
}

impl Kinds {
    #[must_use]
    pub fn with(mut self, isolation: Isolation, backend: Arc<dyn Sandbox>) -> Self {
        self.kinds.insert(isolation, Kind::Here(backend));
        self
    }

    /// A kind that is not set up here: who asks for it is told the reason, and what to do.
    #[must_use]
    pub fn without(mut self, isolation: Isolation, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.kinds.insert(isolation, Kind::Absent { reason: reason.into(), remedy: remedy.into() });
        self
    }

    fn backend(&self, isolation: Isolation) -> Result<&Arc<dyn Sandbox>, SandboxError> {
        let unavailable = |reason| SandboxError::Unavailable { kind: isolation.as_str(), reason };
        match self.kinds.get(&isolation) {
            Some(Kind::Here(backend)) => Ok(backend),
            Some(Kind::Absent { reason, remedy }) => Err(unavailable(format!("{reason}; {remedy}"))),
            None => Err(unavailable("this server was put together without them".to_owned())),
        }
    }

    fn here(&self) -> impl Iterator<Item = (Isolation, &Arc<dyn Sandbox>)> {
        self.kinds.iter().filter_map(|(isolation, kind)| match kind {
            Kind::Here(backend) => Some((*isolation, backend)),
            Kind::Absent { .. } => None,
        })
    }

    /// The kind in whose form the session's files lie, if that is another one than its room is to be of.
    fn other_keeper(&self, spec: &RoomSpec) -> Option<(Isolation, &Arc<dyn Sandbox>)> {
        self.here().find(|(isolation, backend)| *isolation != spec.isolation && backend.keeps_files(spec))
    }

    /// The backend of the room that `spec` asks for, if it would find what the session has written.
    fn of_room(&self, spec: &RoomSpec) -> Result<&Arc<dyn Sandbox>, SandboxError> {
        let backend = self.backend(spec.isolation)?;
        match self.other_keeper(spec) {
            None => Ok(backend),
            Some((keeper, _)) => Err(SandboxError::Environment(format!(
                "the session's files are kept in the form of a room of kind `{}`, and its environment says `{}`; accepted: `isolation` `{}`",
                keeper.as_str(),
                spec.isolation.as_str(),
                keeper.as_str(),
            ))),
        }
    }

    /// The backend that can read what the session has written.
    fn of_files(&self, spec: &RoomSpec) -> Result<&Arc<dyn Sandbox>, SandboxError> {
        match self.other_keeper(spec) {
            Some((_, backend)) => Ok(backend),
            None => self.backend(spec.isolation),
        }
    }
}

#[async_trait]
impl Sandbox for Kinds {
    fn kind(&self) -> &'static str {
        "all"
    }

    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError> {
        self.of_room(spec)?.start(spec).await
    }

    async fn adopt(&self, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        self.backend(spec.isolation)?.adopt(spec).await
    }

    async fn suspend(&self, spec: &RoomSpec, room: Room) -> Result<(), SandboxError> {
        self.backend(spec.isolation)?.suspend(spec, room).await
    }

    /// A session that more than one kind knows of is one.
    async fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        let mut all: BTreeMap<SessionId, Found> = BTreeMap::new();
        for (_, backend) in self.here() {
            for found in backend.inventory().await? {
                match all.get_mut(&found.session) {
                    None => drop(all.insert(found.session.clone(), found)),
                    Some(known) => {
                        known.room |= found.room;
                        known.can_sleep |= found.can_sleep;
                        known.files |= found.files;
                        known.layers.extend(found.layers);
                    }
                }
            }
        }
        Ok(all.into_values().collect())
    }

    fn keeps_files(&self, spec: &RoomSpec) -> bool {
        self.here().any(|(_, backend)| backend.keeps_files(spec))
    }

    fn sleeps(&self, spec: &RoomSpec) -> bool {
        self.backend(spec.isolation).is_ok_and(|backend| backend.sleeps(spec))
    }

    /// Whoever removes an orphan does not know of what kind it was: each kind removes what it has, that of its files first.
    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError> {
        let (keepers, others): (Vec<_>, Vec<_>) =
            self.here().map(|(_, backend)| backend).partition(|backend| backend.keeps_files(spec));
        for backend in keepers.into_iter().chain(others) {
            backend.remove(spec).await?;
        }
        Ok(())
    }

    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        self.of_files(spec)?.read_files(spec, sink)
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        self.of_room(spec)?.write_files(spec)
    }

    /// Each check has its kind in its name.
    async fn probe(&self) -> Vec<Check> {
        let mut all = Vec::new();
        for (isolation, kind) in &self.kinds {
            let checks = match kind {
                Kind::Here(backend) => backend.probe().await,
                Kind::Absent { reason, remedy } => vec![Check {
                    name: "rooms".to_owned(),
                    verdict: CheckVerdict::Broken,
                    detail: reason.clone(),
                    remedy: remedy.clone(),
                }],
            };
            let named = |check: Check| Check { name: format!("{}: {}", isolation.as_str(), check.name), ..check };
            all.extend(checks.into_iter().map(named));
        }
        all
    }
}

#[cfg(test)]
mod tests;
