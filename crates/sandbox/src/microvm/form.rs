//! What a room's machine is like, before it is anybody's: two rooms of one form can be copies of one template.

use super::clearing::touch;
use super::vmm::{Shape, Vmm};
use super::{KIND, Machines};
use crate::room::root::{self, Placed};
use crate::{RoomRoot, SandboxError};
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{MACHINE_MEMORY_BYTES, MACHINE_THREADS_MAX, VMM_MEMORY_BYTES};
use loopd_guest_image::{GuestImage, GuestImageError};
use loopd_protocol::guest::{self, GuestRoot};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blocks of a disk. A disk ends with a whole one.
pub(super) const BLOCK_BYTES: u64 = 4096;

#[derive(Clone)]
pub(super) struct Form {
    pub vmm: Arc<dyn Vmm>,
    pub shape: Arc<Shape>,
    pub root: GuestRoot,
    /// Of all that a template holds of it.
    pub fingerprint: String,
}

impl Machines {
    /// The form of a room. Makes disks of layers that have none yet.
    pub(super) async fn form(self: &Arc<Self>, limits: &RoomLimits, root: &RoomRoot) -> Result<Form, SandboxError> {
        let machines = Arc::clone(self);
        let (limits, wanted) = (*limits, root.clone());
        let made = tokio::task::spawn_blocking(move || machines.shape(&limits, &wanted)).await;
        let shape = made.map_err(|stopped| SandboxError::Machine(format!("making its disks: {stopped}")))??;
        let vmm = self.monitor.of(&self.data.path, &shape.kernel).await?;
        let disks = u32::try_from(shape.layers.len()).unwrap_or(u32::MAX);
        let root = match root {
            RoomRoot::Host => GuestRoot::Base,
            RoomRoot::Layers(_) => GuestRoot::Layers { disks },
            RoomRoot::HostWith(_) => GuestRoot::BaseWith { disks },
        };
        Ok(self.formed(vmm, shape, root))
    }

    pub(super) fn formed(&self, vmm: Arc<dyn Vmm>, shape: Shape, root: GuestRoot) -> Form {
        // Paths stand for their content.
        let all = format!(
            "{}\n{:?}\n{shape:?}\n{root:?}\n{:?}\n{} {}",
            vmm.version(),
            vmm.accelerator(),
            self.authority,
            guest::VERSION,
            loopd_protocol::VERSION
        );
        let digest = Sha256::digest(all.as_bytes());
        let fingerprint = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Form { vmm, shape: Arc::new(shape), root, fingerprint }
    }

    /// The image that was built last. Blocks.
    pub(super) fn image(&self) -> Result<GuestImage, SandboxError> {
        let found = self.images.current(&self.programs.borrow()).map_err(|fault| unavailable(&fault))?;
        found.ok_or_else(|| SandboxError::Unavailable {
            kind: KIND.as_str(),
            reason: "there is no image of a guest yet: run `loopd image build`".to_owned(),
        })
    }

    /// Blocks.
    fn shape(&self, limits: &RoomLimits, root: &RoomRoot) -> Result<Shape, SandboxError> {
        let GuestImage { kernel, initramfs, base, .. } = self.image()?;
        let layers = match root {
            RoomRoot::Host => Vec::new(),
            RoomRoot::Layers(layers) | RoomRoot::HostWith(layers) => self.layers(layers)?,
        };
        [&kernel, &initramfs, &base].into_iter().chain(&layers).for_each(|path| touch(path));
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        Ok(Shape {
            kernel,
            initramfs,
            memory_bytes: (limits.memory_bytes + MACHINE_MEMORY_BYTES).next_multiple_of(1 << 20),
            cpus: limits.cpu_millis.div_ceil(1_000).clamp(1, processors) as u32,
            base,
            disk_bytes: limits.disk_bytes.next_multiple_of(BLOCK_BYTES),
            layers,
        })
    }

    /// A disk for each layer.
    fn layers(&self, layers: &[PathBuf]) -> Result<Vec<PathBuf>, SandboxError> {
        let placed = root::place(&self.data.path, &self.roots, layers)?;
        let disk = |placed: &Placed| {
            let tree = self.tree(placed)?;
            self.images.layer_disk(&tree).map_err(|fault| SandboxError::Root(fault.to_string()))
        };
        placed.iter().map(disk).collect()
    }

    /// The tree, if no link leads to it.
    fn tree(&self, placed: &Placed) -> Result<PathBuf, SandboxError> {
        let (top, rest) = match placed {
            Placed::Data(rest) => (self.data.path.as_path(), rest),
            Placed::Root(number, rest) => (self.roots[*number].as_path(), rest),
        };
        let tree = if rest.as_os_str().is_empty() { top.to_owned() } else { top.join(rest) };
        open_without_links(top, rest)
            .map_err(|fault| SandboxError::Root(format!("opening the layer `{}`: {fault}", tree.display())))?;
        Ok(tree)
    }
}

fn open_without_links(top: &Path, rest: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(top, flags, Mode::empty())?;
    if !rest.as_os_str().is_empty() {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        rustix::fs::openat2(&top, rest, flags, Mode::empty(), resolve)?;
    }
    Ok(())
}

fn unavailable(fault: &GuestImageError) -> SandboxError {
    SandboxError::Unavailable { kind: KIND.as_str(), reason: fault.to_string() }
}

/// What a machine's VMM may use on the host, for a room with these limits.
pub(super) fn of_vmm(shape: &Shape, limits: &RoomLimits) -> RoomLimits {
    // Of a template's memory the kernel takes a page where the template has none, and gives the copy one of its own: whoever is the first
    // to use all of a machine's memory is charged for both.
    RoomLimits { memory_bytes: 2 * shape.memory_bytes + VMM_MEMORY_BYTES, pids: MACHINE_THREADS_MAX, ..*limits }
}
