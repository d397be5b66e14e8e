//! Which VMM makes the machines: one that was given, or the host's QEMU, found when the first machine is wanted, as what works here
//! depends on the guests' kernel.

use super::KIND;
use super::qemu::Qemu;
use super::vmm::{Vmm, VmmError};
use crate::SandboxError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

pub(super) struct Monitor {
    given: Option<Arc<dyn Vmm>>,
    /// For which kernel it was found.
    found: Mutex<Option<(PathBuf, Arc<dyn Vmm>)>>,
}

impl Monitor {
    pub(super) fn of_host() -> Self {
        Monitor { given: None, found: Mutex::default() }
    }

    pub(super) fn given(vmm: Arc<dyn Vmm>) -> Self {
        Monitor { given: Some(vmm), found: Mutex::default() }
    }

    /// It is not the host's.
    pub(super) fn is_given(&self) -> bool {
        self.given.is_some()
    }

    pub(super) async fn of(&self, data: &Path, kernel: &Path) -> Result<Arc<dyn Vmm>, SandboxError> {
        if let Some(given) = &self.given {
            return Ok(Arc::clone(given));
        }
        let mut found = self.found.lock().await;
        if let Some((known, vmm)) = &*found
            && known == kernel
        {
            return Ok(Arc::clone(vmm));
        }
        let vmm: Arc<dyn Vmm> = Arc::new(Qemu::find(data, kernel).await.map_err(refused)?);
        *found = Some((kernel.to_owned(), Arc::clone(&vmm)));
        Ok(vmm)
    }
}

pub(super) fn refused(fault: VmmError) -> SandboxError {
    match fault {
        VmmError::Unavailable(reason) => SandboxError::Unavailable { kind: KIND.as_str(), reason },
        failed @ VmmError::Failed { .. } => SandboxError::Machine(failed.to_string()),
    }
}
