//! Who did what; every use of a credential.

mod bearers;
mod trail;

pub use bearers::AuditedBearers;
pub use trail::{Trail, TrailParts};

use crate::client::Client;
use async_trait::async_trait;
use loopd_domain::audit::{Actor, AuditEntry, AuditResult, CredentialUse};
use loopd_domain::{CredentialId, Timestamp, VaultId};

/// Takes entries for the audit log. An entry that cannot be written is an error of the log, told there, and stops nothing:
/// except for the use of a credential, which is written before the credential is used.
#[async_trait]
pub trait Audit: Send + Sync {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError>;
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub struct AuditError(pub String);

/// A credential, and where it is used.
pub(crate) struct Use<'a> {
    pub vault: &'a VaultId,
    pub credential: &'a CredentialId,
    pub host: &'a str,
    pub port: u16,
}

impl Use<'_> {
    /// The entry of its use on behalf of a session.
    pub(crate) fn entry(&self, client: &Client, at: Timestamp, result: AuditResult) -> AuditEntry {
        AuditEntry {
            at,
            workspace: client.workspace.clone(),
            actor: Actor::Session { id: client.session.clone() },
            action: "credentials.use".to_owned(),
            resource: self.credential.to_string(),
            result,
            credential_use: Some(CredentialUse {
                vault: self.vault.clone(),
                credential: self.credential.clone(),
                host: self.host.to_owned(),
                port: self.port,
                calls: client.running.now(),
            }),
        }
    }
}
