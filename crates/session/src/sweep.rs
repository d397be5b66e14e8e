//! Orphans: rooms and directories whose session is gone. Found at the start and on a timer, removed, and reported.
//!
//! A session that is just being made has a room, or files, before it is stored; its slot is locked then, and it is left alone. A living room
//! of a session that exists is nobody's orphan: its next driver adopts it, and without one it ends by itself. One that could sleep instead gets
//! a driver here.

use crate::driver;
use crate::requests::ServiceError;
use crate::service::SessionService;
use loopd_domain::SessionId;
use loopd_domain::environment::EnvironmentConfig;
use loopd_images::Collected;
use loopd_sandbox::Found;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two sweeps.
const EVERY: Duration = Duration::from_secs(600);

/// What a sweep found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Sessions with a living room or with files, orphans included.
    pub seen: usize,
    pub rooms_ended: usize,
    pub directories_removed: usize,
    /// Orphans that could not be removed; the next sweep tries again.
    pub left: usize,
}

/// Sweeps until the service stops.
pub async fn keep(service: SessionService) {
    loop {
        match service.sweep().await {
            Ok(SweepReport { seen, rooms_ended: 0, directories_removed: 0, left: 0 }) => {
                tracing::debug!(seen, "no orphans");
            }
            Ok(report) => tracing::info!(?report, "orphans were removed"),
            Err(fault) => tracing::warn!(%fault, "orphans could not be looked for; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = service.stopping() => return,
        }
    }
}

impl SessionService {
    /// Ends rooms and removes files of sessions that are not there any more.
    pub async fn sweep(&self) -> Result<SweepReport, ServiceError> {
        let found = self.parts().sandbox.inventory().await.map_err(|fault| ServiceError::Refused(fault.to_string()))?;
        self.clear_images(&found).await;
        let mut report = SweepReport { seen: found.len(), ..SweepReport::default() };
        for found in found {
            // One in which packages are installed is no session's, and is removed when that is done.
            if self.parts().images.is_building(&found.session) {
                continue;
            }
            if self.exists(&found.session).await? {
                if found.can_sleep {
                    self.hold(&found.session).await;
                }
                continue;
            }
            let slot = self.slot(&found.session)?;
            // Held while it is looked at again and removed: whoever makes a session holds its slot until it is stored.
            let swept = match slot.try_lock() {
                Ok(_held) => self.sweep_one(&found, &mut report).await,
                Err(_) => Ok(()),
            };
            self.0.slots.forget(&found.session, slot);
            swept?;
        }
        Ok(report)
    }

    /// Sees to it that somebody has the session of a room that lives and can sleep: it is put to sleep when its idle time is over, and without a
    /// host its memory would be lost.
    async fn hold(&self, session: &SessionId) {
        if !self.parts().takes_up {
            return;
        }
        match self.wake(session).await {
            Ok(()) | Err(ServiceError::Absent(_) | ServiceError::Elsewhere | ServiceError::Stopping) => {}
            Err(fault) => tracing::warn!(%session, %fault, "a room that lives has no host; the next sweep tries again"),
        }
    }

    /// Removes layers of images that nothing needs. What cannot be removed is there the next time.
    async fn clear_images(&self, found: &[Found]) {
        let in_use: Vec<PathBuf> = found.iter().flat_map(|found| found.layers.iter().cloned()).collect();
        let images = self.parts().images.clone();
        let cleared = tokio::task::spawn_blocking(move || images.collect(&in_use)).await;
        match cleared {
            Ok(Ok(Collected { removed: 0, .. })) => {}
            Ok(Ok(collected)) => tracing::info!(?collected, "layers of images that nobody needs were removed"),
            Ok(Err(fault)) => tracing::warn!(%fault, "images could not be cleared up"),
            Err(stopped) => tracing::warn!(%stopped, "images could not be cleared up"),
        }
    }

    async fn sweep_one(&self, found: &Found, report: &mut SweepReport) -> Result<(), ServiceError> {
        let Found { session, room, files, can_sleep: _, layers: _ } = found;
        if self.exists(session).await? {
            return Ok(());
        }
        let spec = driver::spec(self.parts(), session, driver::NOBODYS, &EnvironmentConfig::default());
        match self.parts().sandbox.remove(&spec).await {
            Ok(()) => {
                report.rooms_ended += usize::from(*room);
                report.directories_removed += usize::from(*files);
            }
            Err(fault) => {
                tracing::warn!(%session, %fault, "an orphan could not be removed");
                report.left += 1;
            }
        }
        Ok(())
    }

    async fn exists(&self, session: &SessionId) -> Result<bool, ServiceError> {
        Ok(self.parts().store.journal().head(session).await?.is_some())
    }
}
