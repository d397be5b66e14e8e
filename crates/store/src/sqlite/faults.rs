//! The seam for fault injection: what a test wants to happen right before a commit. Nothing at all outside tests.

use crate::StoreError;
use rusqlite::Connection;

/// Called on the writer's thread when a batch is complete and not yet committed. An error makes the commit fail.
#[cfg(any(test, feature = "testing"))]
pub type BeforeCommit = std::sync::Arc<dyn Fn(&Connection) -> Result<(), StoreError> + Send + Sync>;

#[derive(Clone, Default)]
pub struct Faults {
    #[cfg(any(test, feature = "testing"))]
    pub before_commit: Option<BeforeCommit>,
}

impl Faults {
    #[cfg(any(test, feature = "testing"))]
    pub fn before_commit(&self, db: &Connection) -> Result<(), StoreError> {
        self.before_commit.as_ref().map_or(Ok(()), |hook| hook(db))
    }

    #[cfg(not(any(test, feature = "testing")))]
    #[inline(always)]
    pub fn before_commit(&self, _: &Connection) -> Result<(), StoreError> {
        Ok(())
    }
}
