//! On whose behalf a connection is made.

use loopd_domain::environment::Networking;
use loopd_domain::{Epoch, SessionId, VaultId, WorkspaceId};

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
}
