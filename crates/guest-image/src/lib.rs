//! What the virtual machines of rooms are made of (ADR 8): built once on a host, cached, and never changed.
//!
//! ```text
//!  package or file ─► kernel (ELF) + modules ─┐
//!  guest, jail, cell ─────────────────────────┴─► initramfs ─┐
//!  packages, directory or layers ─► tree ─► base disk (ext4) ─┴─► manifest: the current image
//!  a directory tree ─► layer disk        a size ─► blank disk of a session
//! ```
//!
//! Everything here blocks; nothing needs root. No file of an image is ever changed: what is made anew gets a new name, so a path
//! stands for its content, and a machine's memory that was kept with it stays true.
//!
//! Not here: how a machine is started of it (`loopd_sandbox`), and what goes on in it (`loopd-guest`).

mod error;
mod order;

pub use error::GuestImageError;
pub use order::{BaseSource, KernelSource, Order, PACKAGES_DEFAULT, PACKAGES_SMALL, Programs, Progress};

use std::path::{Path, PathBuf};

/// What a machine is started of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GuestImage {
    /// An ELF file with a PVH entry.
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The base disk: ext4, without a journal.
    pub base: PathBuf,
    /// Of all of them. Two images with the same have the same content in the same places.
    pub fingerprint: String,
}

/// All images and disks of a host, below `<data>/guest`. Several processes may use it at the same time.
#[derive(Debug, Clone)]
pub struct GuestImages {
    root: PathBuf,
}

impl GuestImages {
    /// `data`: the host's data directory. Nothing is made before something is built.
    pub fn new(data: &Path) -> Self {
        GuestImages { root: data.join("guest") }
    }

    /// Builds an image, which is the current one when this returns. What was made before is not made again.
    pub fn build(
        &self,
        order: &Order,
        programs: &Programs<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GuestImage, GuestImageError> {
        let _ = (order, programs, progress);
        Err(GuestImageError::missing("images cannot be built yet"))
    }

    /// The image that was built last, with these programs: where they have changed since, a new initramfs is made for them.
    /// `None`: none was built yet.
    pub fn current(&self, programs: &Programs<'_>) -> Result<Option<GuestImage>, GuestImageError> {
        let _ = programs;
        Ok(None)
    }

    /// A read-only disk with the content of a directory that nobody changes any more (a layer of a room's root). Made once, also when several
    /// want it at the same time.
    pub fn layer_disk(&self, tree: &Path) -> Result<PathBuf, GuestImageError> {
        Err(GuestImageError::missing(format!("`{}`: disks cannot be made yet", tree.display())))
    }

    /// Makes an empty disk of a session at `into`, where nothing is: ext4 with a journal, sparse.
    pub fn blank_disk(&self, bytes: u64, into: &Path) -> Result<(), GuestImageError> {
        Err(GuestImageError::missing(format!("`{}`: no disk of {bytes} bytes can be made yet", into.display())))
    }

    /// Removes what belongs to no current image and for which `is_used` says no, and answers how many files that were. A
    /// directory's disk is asked about by the disk's path.
    pub fn collect(&self, is_used: &dyn Fn(&Path) -> bool) -> Result<usize, GuestImageError> {
        let _ = is_used;
        Ok(0)
    }
}
