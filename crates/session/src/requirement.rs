//! What a workspace requires of the walls around its sessions. A weaker environment is refused wherever it would come to use: when it is
//! made or changed, when a session is made of it, and when a session wants a room, as a requirement may be younger than both.

use crate::requests::ServiceError;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::{Invalid, WorkspaceId};
use loopd_sandbox::SandboxError;
use loopd_store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Weaker(#[from] Invalid),
    #[error("whether the workspace allows the room is not known: {0}")]
    Store(#[from] StoreError),
}

/// Refuses a room that is weaker than its workspace requires. `at`: what the caller calls the environment.
pub async fn check(
    store: &dyn Store,
    workspace: &WorkspaceId,
    at: &str,
    room: &EnvironmentConfig,
) -> Result<(), Refusal> {
    match store.workspaces().get(workspace).await? {
        Some(workspace) => Ok(workspace.allows(&format!("{at}.isolation"), room.isolation)?),
        // Nobody has required anything of it.
        None => Ok(()),
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Weaker(fault) => ServiceError::Refused(fault.to_string()),
            Refusal::Store(fault) => ServiceError::Store(fault),
        }
    }
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Weaker(fault) => SandboxError::Environment(fault.to_string()),
            Refusal::Store(fault) => SandboxError::Launcher(fault.to_string()),
        }
    }
}
