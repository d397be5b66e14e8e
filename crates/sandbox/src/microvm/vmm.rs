//! The port of a virtual machine monitor: what the backend needs of one, whoever makes it.

use crate::Accelerator;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// What a machine is made of. Two machines of the same shape can be copies of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Uncompressed.
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub memory_bytes: u64,
    pub cpus: u32,
    /// The base disk, read-only.
    pub base: PathBuf,
    /// Of the session's disk, which each machine has for itself.
    pub disk_bytes: u64,
    /// More read-only disks, in order.
    pub layers: Vec<PathBuf>,
}

/// One machine of a shape.
#[derive(Debug)]
pub struct Order {
    pub shape: Arc<Shape>,
    /// The session's disk, [`Shape::disk_bytes`] long. A machine to be frozen has one that is thrown away.
    pub disk: PathBuf,
    /// A listening unix stream socket; whoever connects to it has the machine's link. The VMM listens on it from now on.
    pub link: OwnedFd,
    /// A listening unix stream socket on which the VMM takes orders of later servers, to suspend it.
    pub control: OwnedFd,
    /// The host user to be; `None`: the server's own (an ordinary user's server; root's must name one).
    pub user: Option<u32>,
    /// `cgroup.procs` files that the VMM's process writes itself into before it does anything.
    pub cgroups: Vec<OwnedFd>,
}

/// Where a machine begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With its kernel.
    Boot,
    /// As a copy of a machine that was frozen into this directory. It is not changed.
    Template(PathBuf),
    /// As the machine that was suspended into this file.
    Suspended(PathBuf),
}

/// A machine that lives. Dropping it does nothing: a machine outlives its server, and only a kill ends it.
pub struct Machine {
    pub process: Arc<OwnedFd>,
    pub pid: u32,
    /// Becomes `Some` when its process has ended, with what it last said on its console and its error output.
    pub ended: watch::Receiver<Option<String>>,
    /// Its guest's memory, where it began with [`Begin::Boot`] and this server started it: what [`Vmm::freeze`] copies.
    pub memory: Option<Arc<OwnedFd>>,
}

#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// This machine cannot run such machines; says what to do.
    #[error("{0}")]
    Unavailable(String),
    #[error("{doing}: {reason}")]
    Failed { doing: &'static str, reason: String },
}

#[async_trait]
pub trait Vmm: Send + Sync {
    /// `qemu 7.2.22`: what a template or a suspended machine can be read by again.
    fn version(&self) -> &str;
    fn accelerator(&self) -> Accelerator;
    /// Starts a machine. Returns when it runs, or is about to; what its guest says comes over the link.
    async fn start(&self, order: Order, begin: &Begin) -> Result<Machine, VmmError>;
    /// Writes a machine that was started with [`Begin::Boot`], and takes orders at `control`, into a new directory, complete or not at all, for
    /// [`Begin::Template`], and ends it.
    async fn freeze(&self, machine: Machine, control: UnixStream, into: PathBuf) -> Result<(), VmmError>;
    /// Writes the machine that takes orders at the socket `control` into a new file, complete or not at all, for [`Begin::Suspended`], and
    /// ends it. What the machine wrote to `disk` is safe before that file is there. When it fails, the machine goes on.
    async fn suspend(
        &self,
        machine: &Machine,
        control: UnixStream,
        into: PathBuf,
        disk: PathBuf,
    ) -> Result<(), VmmError>;
    /// Cuts off whoever has the link of the machine that takes orders at `control`, and has the VMM listen at `link` from now on. An owner
    /// who is asleep must not keep the next one out: a VMM has one host at a time. A machine that stands still, as it does when its
    /// host went in the midst of [`Vmm::suspend`], goes on.
    async fn relink(&self, control: UnixStream, link: OwnedFd) -> Result<(), VmmError>;
    /// Tells the guest of the machine that takes orders at `control` that its session's disk has so many bytes, which it has already.
    async fn regrow(&self, control: UnixStream, disk_bytes: u64) -> Result<(), VmmError>;
}
