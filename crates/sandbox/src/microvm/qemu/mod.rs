//! QEMU's `microvm` machine as a [`Vmm`]: with KVM where that boots a kernel, in software elsewhere.
//!
//! ```text
//!  Boot       ─► kernel, memory in a file in memory that this server holds too ─► freeze: state, a copy of that file
//!  Template   ─► the same file, sealed, mapped copy-on-write; the state comes in at once
//!  Suspended  ─► memory of its own; memory and state come in
//! ```
//!
//! QEMU is a stranger that works for one guest: `confined` starts it with a root, a user and namespaces of its own, and with
//! descriptors in place of paths. What it is told stands in `command`, what it is asked while it runs in `qmp`.
//!
//! Not here: what the guest says on its link, whose machine it is, and where its files are.

use super::vmm::{Begin, Machine, Order, Vmm, VmmError};
use crate::{Accelerator, Check};
use async_trait::async_trait;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// A QEMU of this host.
pub struct Qemu {
    version: String,
    accelerator: Accelerator,
}

impl Qemu {
    /// The host's QEMU, with what works here. `data`: the server's data directory, where it is remembered whether KVM boots
    /// `kernel`, the guests' one; when that is not known yet a guest is booted to find out, for some seconds at most.
    pub async fn find(data: &Path, kernel: &Path) -> Result<Self, VmmError> {
        let _ = (data, kernel);
        Err(VmmError::Unavailable("it is not known yet how".to_owned()))
    }

    /// For `loopd doctor`. `kernel`: the guests' one, where there is an image already.
    pub async fn check(data: &Path, kernel: Option<&Path>) -> Check {
        let _ = (data, kernel);
        Check {
            name: "virtual machines".to_owned(),
            verdict: crate::CheckVerdict::Broken,
            detail: "it is not known yet how".to_owned(),
            remedy: String::new(),
        }
    }

    /// A machine that an earlier server started, and that has not ended.
    pub fn adopt(process: OwnedFd, pid: u32) -> Machine {
        let (_, ended) = tokio::sync::watch::channel(None);
        Machine { process: process.into(), pid, ended, memory: None }
    }
}

#[async_trait]
impl Vmm for Qemu {
    fn version(&self) -> &str {
        &self.version
    }

    fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    async fn start(&self, _order: Order, _begin: &Begin) -> Result<Machine, VmmError> {
        Err(VmmError::Unavailable("it is not known yet how".to_owned()))
    }

    async fn freeze(&self, _machine: Machine, _control: UnixStream, _into: PathBuf) -> Result<(), VmmError> {
        Err(VmmError::Unavailable("it is not known yet how".to_owned()))
    }

    async fn suspend(&self, _machine: &Machine, _control: UnixStream, _into: PathBuf) -> Result<(), VmmError> {
        Err(VmmError::Unavailable("it is not known yet how".to_owned()))
    }
}
