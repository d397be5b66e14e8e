//! Who did what to which resource, and every use of a credential. Append-only; never a secret.

use crate::{ApiKeyId, CredentialId, SessionId, Timestamp, VaultId, WorkspaceId};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub workspace: WorkspaceId,
    pub actor: Actor,
    /// `vaults.create`, `sessions.delete`, `credentials.use`: noun and verb.
    pub action: String,
    /// Id of what it was done to.
    pub resource: String,
    pub result: AuditResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_use: Option<CredentialUse>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// A caller who showed this key.
    ApiKey { id: ApiKeyId },
    /// A caller whom an OIDC issuer vouches for.
    Subject { issuer: String, subject: String },
    /// Whoever called a server that has no keys.
    Development,
    /// The command line, on the machine itself.
    Operator,
    /// A program in the room of this session.
    Session { id: SessionId },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AuditResult {
    Done,
    Refused { reason: String },
}

/// A credential was placed, or was kept from being placed, in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialUse {
    pub vault: VaultId,
    pub credential: CredentialId,
    pub host: String,
    pub port: u16,
}
