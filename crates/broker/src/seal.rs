//! Sealing what must lie on disk.

use crate::secret::Secret;

/// Seals under the master key. What was sealed for one `context` does not open for another.
pub trait Sealer: Send + Sync {
    fn seal(&self, context: &str, plain: &Secret) -> Result<Vec<u8>, SealError>;
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret, SealError>;
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// Another key, another context, or changed bytes: which of them cannot be told.
    #[error("`{context}` does not open under this master key")]
    Refused { context: String },
    #[error("sealing `{context}` failed")]
    Failed { context: String },
}
