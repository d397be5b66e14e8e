//! How many sessions of each workspace are alive here, and how many of them run a turn; and the share of both that one
//! workspace may have, so that none leaves the others without.
//!
//! Only new work is refused: what was accepted goes on, whoever takes it up.

use crate::requests::ServiceError;
use loopd_domain::WorkspaceId;
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::{WORKSPACE_SESSIONS_DEFAULT, WORKSPACE_TURNS_DEFAULT};
use loopd_domain::session::Status;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// What each workspace may have at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Turns that run.
    pub turns: usize,
    /// Sessions that are alive: running, or idle with a room.
    pub sessions: usize,
}

impl Default for Share {
    fn default() -> Self {
        Share { turns: WORKSPACE_TURNS_DEFAULT, sessions: WORKSPACE_SESSIONS_DEFAULT }
    }
}

#[derive(Default, Clone, Copy)]
struct Count {
    living: usize,
    running: usize,
}

/// The counts. Workspaces without a living session have none.
pub struct Census {
    share: Share,
    counts: Mutex<HashMap<WorkspaceId, Count>>,
}

impl Census {
    pub fn new(share: Share) -> Arc<Self> {
        Arc::new(Census { share, counts: Mutex::default() })
    }

    /// Counts a session that lives already.
    pub fn enter(self: &Arc<Self>, workspace: &WorkspaceId, fold: &SessionFold) -> Presence {
        let presence = Presence { census: self.clone(), workspace: workspace.clone(), lives: true, runs: runs(fold) };
        self.change(&presence, |count| {
            count.living += 1;
            count.running += usize::from(presence.runs);
        });
        presence
    }

    /// Counts work that is about to begin, until it is counted by itself; refused when the share is used up.
    pub fn admit(self: &Arc<Self>, workspace: &WorkspaceId, lives: bool, runs: bool) -> Result<Presence, ServiceError> {
        let mut counts = self.counts.lock();
        let count = counts.get(workspace).copied().unwrap_or_default();
        let Share { turns, sessions } = self.share;
        if runs && count.running >= turns {
            let text =
                format!("as many turns of this workspace run as it may have: {turns}; try again when one has ended");
            return Err(ServiceError::Busy(text));
        }
        if lives && count.living >= sessions {
            let text = format!(
                "as many sessions of this workspace are alive as it may have: {sessions}; try again when some are idle"
            );
            return Err(ServiceError::Busy(text));
        }
        let count = counts.entry(workspace.clone()).or_default();
        count.living += usize::from(lives);
        count.running += usize::from(runs);
        Ok(Presence { census: self.clone(), workspace: workspace.clone(), lives, runs })
    }

    fn change(&self, presence: &Presence, change: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock();
        let count = counts.entry(presence.workspace.clone()).or_default();
        change(count);
        if count.living == 0 && count.running == 0 {
            counts.remove(&presence.workspace);
        }
    }
}

fn runs(fold: &SessionFold) -> bool {
    matches!(fold.status, Status::Running | Status::Rescheduling)
}

/// One that is counted, until it is dropped.
pub struct Presence {
    census: Arc<Census>,
    workspace: WorkspaceId,
    lives: bool,
    runs: bool,
}

impl Presence {
    /// The session's status may be another one now.
    pub fn follow(&mut self, fold: &SessionFold) {
        let now = runs(fold);
        if now != self.runs {
            self.runs = now;
            self.census.change(self, |count| match now {
                true => count.running += 1,
                false => count.running = count.running.saturating_sub(1),
            });
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.census.change(self, |count| {
            count.living = count.living.saturating_sub(usize::from(self.lives));
            count.running = count.running.saturating_sub(usize::from(self.runs));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(name: &str) -> WorkspaceId {
        WorkspaceId::parse("w", name).expect("an id")
    }

    fn fold(status: Status) -> SessionFold {
        SessionFold { status, ..SessionFold::default() }
    }

    #[test]
    fn a_share_is_of_one_workspace_and_comes_back() {
        let census = Census::new(Share { turns: 1, sessions: 2 });
        let (a, b) = (workspace("wrkspc_a"), workspace("wrkspc_b"));
        let first = census.admit(&a, true, true).expect("the first turn");
        assert!(
            matches!(census.admit(&a, true, true), Err(ServiceError::Busy(told)) if told.contains("as many turns of this workspace run as it may have: 1;"))
        );
        let second = census.admit(&a, true, false).expect("a session that only rests");
        let told = census.admit(&a, true, false).err().expect("no third session").to_string();
        assert!(told.contains("sessions of this workspace are alive as it may have: 2;"), "{told}");
        let other = census.admit(&b, true, true).expect("another workspace");
        drop((first, second, other));
        assert!(census.counts.lock().is_empty());
    }

    #[test]
    fn a_session_is_counted_by_what_it_does() {
        let census = Census::new(Share { turns: 1, sessions: 9 });
        let a = workspace("wrkspc_a");
        let mut session = census.enter(&a, &fold(Status::Running));
        for (status, free) in [(Status::Rescheduling, false), (Status::Idle, true), (Status::Running, false)] {
            session.follow(&fold(status));
            session.follow(&fold(status));
            assert_eq!(census.admit(&a, false, true).is_ok(), free, "{status:?}");
        }
        drop(session);
        assert!(census.counts.lock().is_empty());
    }

    #[test]
    fn what_was_accepted_is_never_refused() {
        let census = Census::new(Share { turns: 1, sessions: 1 });
        let a = workspace("wrkspc_a");
        let _all: Vec<Presence> = (0..5).map(|_| census.enter(&a, &fold(Status::Running))).collect();
        assert!(census.admit(&a, true, false).is_err() && census.admit(&a, false, true).is_err());
        assert!(census.admit(&a, false, false).is_ok());
    }
}
