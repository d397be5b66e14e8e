//! A stored session replayed: its journal, read in pieces, through [`crate::replay`].

use crate::replay::{Digests, History, Replay, Replayer, RequestDigests};
use crate::requests::ServiceError;
use crate::service::SessionService;
use loopd_domain::fold::IllegalEvent;
use loopd_domain::{SessionId, WorkspaceId};
use serde::Serialize;

/// Events read at a time.
const READ_ROWS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    #[serde(flatten)]
    pub replay: Replay,
    pub request_digests: Digests,
}

impl SessionService {
    /// Runs the loop again over the session's journal as it is now.
    pub async fn replay(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<ReplayReport, ServiceError> {
        let session = self.get(workspace, id).await?;
        let journal = self.parts().store.journal();
        let last = session.fold.last_seq;
        let (mut history, mut after) = (History::default(), 0);
        while after < last {
            let events = journal.read(id, after, READ_ROWS).await?;
            let Some(end) = events.last() else { break };
            after = end.seq;
            events.iter().for_each(|event| history.apply(event));
        }
        let mut replayer = Replayer::of(&session.agent);
        let mut digests = RequestDigests::new(self.parts().models.clone(), session, history);
        after = 0;
        while after < last {
            let events = journal.read(id, after, READ_ROWS).await?;
            let Some(end) = events.last() else { break };
            after = end.seq;
            // A long session is work for a processor, not for the thread that others wait for.
            let replayed = tokio::task::spawn_blocking(move || -> Result<_, IllegalEvent> {
                for event in events.iter().filter(|event| event.seq <= last) {
                    replayer.apply(event)?;
                    digests.apply(event);
                }
                Ok((replayer, digests))
            });
            let replayed = replayed.await.map_err(|e| ServiceError::Refused(format!("the replay ended early: {e}")))?;
            (replayer, digests) = replayed.map_err(|fault| {
                ServiceError::Refused(format!("the journal is not a legal history, so it cannot be replayed: {fault}"))
            })?;
        }
        Ok(ReplayReport { replay: replayer.report(), request_digests: digests.report() })
    }
}
