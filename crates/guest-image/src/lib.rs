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

mod base;
mod cache;
mod digest;
mod disks;
mod elf;
mod error;
mod ext4;
mod initramfs;
mod kernel;
mod manifest;
mod order;
mod program;
mod tree;
mod unpack;

pub use error::GuestImageError;
pub use order::{BaseSource, KernelSource, Order, PACKAGES_DEFAULT, PACKAGES_SMALL, Programs, Progress};

use cache::{Cache, Lock, Shelf, Work};
use digest::Key;
use kernel::Kernel;
use loopd_domain::limits::GUEST_BASE_ENTRIES_MAX;
use manifest::Manifest;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    cache: Cache,
    /// What the last look came to.
    seen: Arc<Mutex<Option<Seen>>>,
}

/// An image is asked for with each room: to look again costs a comparison.
struct Seen {
    manifest: Manifest,
    /// A copy: that they lie at the same place does not make them the same.
    programs: [Vec<u8>; 3],
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seen({:?})", self.manifest)
    }
}

impl Seen {
    fn is(&self, manifest: &Manifest, programs: &Programs<'_>) -> bool {
        self.manifest == *manifest && self.programs.iter().zip(programs.all()).all(|(seen, now)| seen == now)
    }
}

impl GuestImages {
    /// `data`: the host's data directory. Nothing is made before something is built.
    pub fn new(data: &Path) -> Self {
        GuestImages { cache: Cache::new(data.join("guest")), seen: Arc::default() }
    }

    /// Builds an image, which is the current one when this returns. What was made before is not made again. Another build that is
    /// under way is waited for.
    pub fn build(
        &self,
        order: &Order,
        programs: &Programs<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GuestImage, GuestImageError> {
        let cache = &self.cache;
        ext4::check()?;
        let _building = cache.lock(&Lock::Build)?;
        cache.sweep()?;
        let kernel = kernel::obtain(cache, &order.kernel, progress)?;
        let base = base::obtain(cache, &order.base, progress)?;
        progress(Progress::Step("making the initramfs".to_owned()));
        let (initramfs, bytes) = self.initramfs(&kernel, programs)?;
        progress(Progress::Done { bytes });
        let base = base.file_name().and_then(|name| name.to_str()).expect("it was made of digits");
        let manifest = Manifest::new(kernel.key(), base, &initramfs);
        let _changing = cache.lock(&Lock::Manifest)?;
        manifest.write(cache)?;
        self.image(&manifest)
            .ok_or_else(|| GuestImageError::broken("somebody removes parts of the image that was built"))
    }

    /// A place for what is needed until an image is built; removed when dropped.
    pub fn scratch(&self) -> Result<Scratch, GuestImageError> {
        self.cache.work().map(Scratch)
    }

    /// The image that was built last, with these programs: where they have changed since, a new initramfs is made for them.
    /// `None`: none was built yet, or parts of it are gone.
    pub fn current(&self, programs: &Programs<'_>) -> Result<Option<GuestImage>, GuestImageError> {
        let Some(found) = Manifest::read(&self.cache)? else { return Ok(None) };
        let seen = self.seen().as_ref().is_some_and(|seen| seen.is(&found, programs));
        if let Some(image) = self.image(&found).filter(|_| seen) {
            return Ok(Some(image));
        }
        let _changing = self.cache.lock(&Lock::Manifest)?;
        // Another build may have come first.
        let Some(mut manifest) = Manifest::read(&self.cache)? else { return Ok(None) };
        let Some(kernel) = Kernel::open(&self.cache, &manifest.kernel) else { return Ok(None) };
        let (initramfs, _) = self.initramfs(&kernel, programs)?;
        if manifest.initramfs != initramfs {
            manifest.initramfs = initramfs;
            manifest.write(&self.cache)?;
        }
        let image = self.image(&manifest);
        *self.seen() = Some(Seen { manifest, programs: programs.all().map(<[u8]>::to_vec) });
        Ok(image)
    }

    /// A read-only disk with the content of a directory that nobody changes any more (a layer of a room's root). Made once, also when several
    /// want it at the same time.
    pub fn layer_disk(&self, tree: &Path) -> Result<PathBuf, GuestImageError> {
        disks::of_layer(&self.cache, tree)
    }

    /// The same for all layers of a room's root, the uppermost first, in one disk: where a machine cannot have so many.
    pub fn merged_disk(&self, layers: &[PathBuf]) -> Result<PathBuf, GuestImageError> {
        disks::of_layers(&self.cache, layers)
    }

    /// Makes an empty disk of a session at `into`, where nothing is: ext4 with a journal, sparse.
    pub fn blank_disk(&self, bytes: u64, into: &Path) -> Result<(), GuestImageError> {
        disks::blank(&self.cache, bytes, into)
    }

    /// Removes what belongs to no current image and for which `is_used` says no, and answers how many things that were. Asked about is
    /// each path that this handed out: whoever was given one says yes to it for as long as it matters. While an image is built, nothing
    /// is removed.
    pub fn collect(&self, is_used: &dyn Fn(&Path) -> bool) -> Result<usize, GuestImageError> {
        if !self.cache.root().exists() {
            return Ok(0);
        }
        let Some(_clearing) = self.cache.try_lock(&Lock::Build)? else { return Ok(0) };
        let _changing = self.cache.lock(&Lock::Manifest)?;
        let current = Manifest::read(&self.cache)?.and_then(|manifest| self.image(&manifest));
        let is_current = |path: &Path| {
            current
                .as_ref()
                .is_some_and(|image| [&image.kernel, &image.initramfs, &image.base].iter().any(|own| *own == path))
        };
        let mut removed = 0;
        for shelf in [Shelf::Kernels, Shelf::Initramfs, Shelf::Bases, Shelf::Layers] {
            for path in self.cache.list(shelf)? {
                let handed_out = if shelf == Shelf::Kernels { path.join(kernel::VMLINUX) } else { path.clone() };
                if !is_current(&handed_out) && !is_used(&handed_out) {
                    self.cache.remove(&path)?;
                    removed += 1;
                }
            }
        }
        self.cache.sweep()?;
        Ok(removed)
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digest and bytes of what these programs and the kernel's modules become, which is there when this returns.
    fn initramfs(&self, kernel: &Kernel, programs: &Programs<'_>) -> Result<(String, u64), GuestImageError> {
        let bytes = initramfs::archive(programs, &kernel.modules()?);
        let digest = digest::of_bytes(&bytes);
        if !self.initramfs_path(&digest).exists() {
            let work = self.cache.work()?;
            let made = work.path().join("initramfs");
            fs::write(&made, &bytes).map_err(GuestImageError::disk(&made))?;
            self.cache.settle(&made, Shelf::Initramfs, &format!("{digest}.cpio"))?;
        }
        Ok((digest, bytes.len() as u64))
    }

    fn initramfs_path(&self, digest: &str) -> PathBuf {
        self.cache.shelf(Shelf::Initramfs).join(format!("{digest}.cpio"))
    }

    /// What a manifest names, if it is there.
    fn image(&self, manifest: &Manifest) -> Option<GuestImage> {
        let kernel = Kernel::open(&self.cache, &manifest.kernel)?.vmlinux();
        let base = self.cache.shelf(Shelf::Bases).join(&manifest.base);
        let initramfs = self.initramfs_path(&manifest.initramfs);
        let parts = [&manifest.kernel, &manifest.base, &manifest.initramfs];
        let fingerprint = parts.iter().fold(Key::default(), |key, part| key.part(part.as_bytes())).hex();
        let is_whole = [&kernel, &base, &initramfs].iter().all(|path| path.exists());
        is_whole.then_some(GuestImage { kernel, initramfs, base, fingerprint })
    }
}

/// A directory of one's own.
pub struct Scratch(Work);

impl Scratch {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Bytes that a sparse file has on disk.
pub fn disk_bytes(path: &Path) -> Result<u64, GuestImageError> {
    Ok(fs::metadata(path).map_err(GuestImageError::disk(path))?.blocks() * 512)
}

fn within_entries(entries: usize, at: &Path) -> Result<(), GuestImageError> {
    match entries > GUEST_BASE_ENTRIES_MAX {
        true => Err(GuestImageError::broken(format!(
            "`{}`: more than {GUEST_BASE_ENTRIES_MAX} entries, which a disk may have",
            at.display()
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
