//! Who did what to which resource, and every use of a credential. Append-only; never a secret.

use crate::{ApiKeyId, AuditId, CallId, CredentialId, RequestId, SessionId, Timestamp, VaultId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// An entry as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    pub id: AuditId,
    /// The request that it was, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    #[serde(flatten)]
    pub entry: AuditEntry,
}

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
    /// Whoever runs the server: the command line on its machine, or a key of its environment.
    Operator,
    /// A program in the room of this session, or the host on the session's behalf.
    Session { id: SessionId },
    /// A caller who showed no key, or none that is known.
    Unknown,
}

impl Actor {
    /// One word for it, to search by.
    pub fn name(&self) -> String {
        match self {
            Actor::ApiKey { id } => id.to_string(),
            Actor::Subject { subject, .. } => subject.clone(),
            Actor::Development => "development".to_owned(),
            Actor::Operator => "operator".to_owned(),
            Actor::Session { id } => id.to_string(),
            Actor::Unknown => "unknown".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AuditResult {
    Done,
    Refused {
        reason: String,
    },
    /// The server failed, and it may have happened.
    Failed {
        reason: String,
    },
}

/// A credential was placed, or was kept from being placed, in a request; or was shown to an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialUse {
    pub vault: VaultId,
    pub credential: CredentialId,
    pub host: String,
    pub port: u16,
    /// Calls that the session ran at that moment: several when they ran side by side; none when what used it ran on in the background.
    #[serde(default)]
    pub calls: Vec<CallId>,
}
