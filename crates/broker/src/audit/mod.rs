//! Who did what; every use of a credential.

mod trail;

pub use trail::{Trail, TrailParts};

use async_trait::async_trait;
use loopd_domain::audit::AuditEntry;

/// Takes entries for the audit log. An entry that cannot be written is an error of the log, told there, and stops nothing:
/// except for the use of a credential, which is written before the credential is used.
#[async_trait]
pub trait Audit: Send + Sync {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError>;
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub struct AuditError(pub String);
