//! On whose behalf a connection is made.

use loopd_domain::environment::Networking;
use loopd_domain::{CallId, Epoch, SessionId, VaultId, WorkspaceId};
use parking_lot::Mutex;
use std::sync::Arc;

/// A session, as egress and vault need to know it. Made by its driver from what the journal and the session's row say; nothing
/// in it comes from the room.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    pub session: SessionId,
    pub workspace: WorkspaceId,
    pub epoch: Epoch,
    pub networking: Networking,
    /// Ports that may be connected to.
    pub ports: Vec<u16>,
    /// Hosts of the agent's MCP servers, for environments that allow them.
    pub mcp_hosts: Vec<String>,
    /// Bound to the session, in the order in which they are searched.
    pub vaults: Vec<VaultId>,
    pub running: RunningCalls,
}

/// The calls that a session runs now, kept up to date by its driver for everybody who has a copy.
#[derive(Debug, Clone, Default)]
pub struct RunningCalls(Arc<Mutex<Vec<CallId>>>);

impl RunningCalls {
    pub fn set(&self, calls: Vec<CallId>) {
        *self.0.lock() = calls;
    }

    pub fn now(&self) -> Vec<CallId> {
        self.0.lock().clone()
    }
}

/// Of the same driver, whatever runs.
impl PartialEq for RunningCalls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
