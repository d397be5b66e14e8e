//! Kernels and their modules, in `kernels/<digest>/`: `vmlinux`, `modules/*.ko` uncompressed, `order` with their names in the order in
//! which they can be loaded.

mod apt;
mod bzimage;
mod deb;
mod modules;

use crate::cache::{Cache, Shelf, Work};
use crate::digest::{self, Key};
use crate::{GuestImageError, KernelSource, Progress, elf};
use loopd_domain::limits::GUEST_PART_BYTES_MAX;
use modules::{Module, Modules};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Raised when the same source becomes something else.
const FORMAT: &[u8] = b"kernel 2";
/// The name of a driver, as it is in a kernel that has it without a module.
const DRIVER: &[u8] = b"virtio-mmio\0";
pub(crate) const VMLINUX: &str = "vmlinux";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    pub(crate) fn open(cache: &Cache, key: &str) -> Option<Self> {
        let directory = cache.shelf(Shelf::Kernels).join(key);
        directory.is_dir().then_some(Kernel { directory })
    }

    pub(crate) fn key(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).expect("it was made of a digest")
    }

    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.directory.join(VMLINUX)
    }

    /// Names and content, in the order in which they are loaded.
    pub(crate) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>, GuestImageError> {
        let order = self.directory.join("order");
        let text = fs::read_to_string(&order).map_err(GuestImageError::disk(&order))?;
        let read = |name: &str| {
            let path = self.directory.join("modules").join(name);
            Ok((name.to_owned(), fs::read(&path).map_err(GuestImageError::disk(&path))?))
        };
        text.lines().map(read).collect()
    }
}

/// Makes it, or finds that it was made before.
pub(crate) fn obtain(
    cache: &Cache,
    source: &KernelSource,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, GuestImageError> {
    match source {
        KernelSource::Package(name) => {
            progress(Progress::Step(format!("looking for the package {name}")));
            let work = cache.work()?;
            let package = apt::resolve(name, work.path())?;
            progress(Progress::Done { bytes: 0 });
            let made = package.sha256.as_ref().and_then(|digest| Kernel::open(cache, &key_of_package(digest)));
            progress(Progress::Step(format!("fetching {}", package.file)));
            if let Some(kernel) = made {
                progress(Progress::Cached);
                return Ok(kernel);
            }
            let file = package.fetch(work.path())?;
            progress(Progress::Done { bytes: size(&file)? });
            of_package(cache, &file, progress)
        }
        KernelSource::File { kernel, modules } => {
            let begins = begin(kernel)?;
            match (deb::is_package(&begins), modules) {
                (true, None) => of_package(cache, kernel, progress),
                (true, Some(_)) => Err(GuestImageError::broken(format!(
                    "`{}` is a package, which has its modules: leave the directory of modules out",
                    kernel.display()
                ))),
                (false, _) => of_files(cache, kernel, modules.as_deref(), progress),
            }
        }
    }
}

fn key_of_package(sha256: &str) -> String {
    Key::default().part(FORMAT).part(sha256.as_bytes()).hex()
}

fn of_package(cache: &Cache, file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Kernel, GuestImageError> {
    progress(Progress::Step(format!("unpacking {}", file.file_name().unwrap_or_default().display())));
    let key = key_of_package(&digest::of_file(file).map_err(GuestImageError::disk(file))?);
    if let Some(kernel) = Kernel::open(cache, &key) {
        progress(Progress::Cached);
        return Ok(kernel);
    }
    let work = cache.work()?;
    let unpacked = deb::unpack(file, &work.path().join("package"))?;
    let modules = Modules::open(&unpacked.modules)?.chosen()?;
    settle(cache, &work, &unpacked.kernel, &modules, &key, progress)
}

fn of_files(
    cache: &Cache,
    kernel: &Path,
    modules: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, GuestImageError> {
    progress(Progress::Step(format!("taking {}", kernel.display())));
    let directory = match modules {
        Some(given) => Some(given.to_owned()),
        None => modules_beside(kernel),
    };
    let modules = match &directory {
        Some(directory) => Modules::open(directory)?.chosen()?,
        // Whoever built a kernel without modules has all of them in it.
        None => {
            let vmlinux = uncompressed(kernel)?;
            if !vmlinux.windows(DRIVER.len()).any(|bytes| bytes == DRIVER) {
                return Err(GuestImageError::broken(format!(
                    "`{}`: the kernel has no driver of its own for a machine's devices (`virtio_mmio`): give the directory of its modules \
                     (`--modules /lib/modules/<release>`)",
                    kernel.display()
                )));
            }
            Vec::new()
        }
    };
    let mut key = Key::default().part(FORMAT);
    key.add(digest::of_file(kernel).map_err(GuestImageError::disk(kernel))?.as_bytes());
    for module in &modules {
        key.add(module.file().as_bytes());
        key.add(&module.bytes);
    }
    let key = key.hex();
    if let Some(kernel) = Kernel::open(cache, &key) {
        progress(Progress::Cached);
        return Ok(kernel);
    }
    settle(cache, &cache.work()?, kernel, &modules, &key, progress)
}

/// `/lib/modules/6.1.0-56-amd64` of `vmlinuz-6.1.0-56-amd64`.
fn modules_beside(kernel: &Path) -> Option<PathBuf> {
    let (_, release) = kernel.file_name()?.to_str()?.split_once('-')?;
    let directory = Path::new("/lib/modules").join(release);
    directory.is_dir().then_some(directory)
}

fn settle(
    cache: &Cache,
    work: &Work,
    kernel: &Path,
    modules: &[Module],
    key: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, GuestImageError> {
    let made = work.path().join("kernel");
    let into = made.join("modules");
    fs::create_dir_all(&into).map_err(GuestImageError::disk(&into))?;
    let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).map_err(GuestImageError::disk(path));
    let vmlinux = uncompressed(kernel)?;
    write(made.join(VMLINUX), &vmlinux)?;
    let mut order = String::new();
    for module in modules {
        write(into.join(module.file()), &module.bytes)?;
        order.push_str(&module.file());
        order.push('\n');
    }
    write(made.join("order"), order.as_bytes())?;
    progress(Progress::Done { bytes: vmlinux.len() as u64 });
    Ok(Kernel { directory: cache.settle(&made, Shelf::Kernels, key)? })
}

/// A kernel as a machine without firmware is started with it.
fn uncompressed(path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let bytes = read_part(path)?;
    if cfg!(target_arch = "aarch64") {
        return arm64_image(&bytes, path);
    }
    let vmlinux = if elf::is_elf(&bytes) { bytes } else { bzimage::vmlinux(&bytes, path)? };
    if !elf::is_elf(&vmlinux) {
        return Err(GuestImageError::broken(format!("`{}`: what is in it is no 64-bit ELF file", path.display())));
    }
    if !elf::has_pvh_entry(&vmlinux) {
        return Err(GuestImageError::broken(format!(
            "`{}`: the kernel has no PVH entry, which a machine without firmware needs (`CONFIG_PVH`)",
            path.display()
        )));
    }
    Ok(vmlinux)
}

/// The same on aarch64, where kernels are no ELF files. Untested on such a machine.
/// <https://docs.kernel.org/arch/arm64/booting.html>
fn arm64_image(bytes: &[u8], path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let what = path.display().to_string();
    let image = match crate::unpack::Format::of(bytes) {
        Some(format) => crate::unpack::whole(format, bytes, &what)?,
        None => bytes.to_vec(),
    };
    match image.get(56..60) {
        Some(b"ARM\x64") => Ok(image),
        _ => Err(GuestImageError::broken(format!("`{what}` is no kernel for aarch64 (`Image` or `Image.gz`)"))),
    }
}

/// A file that has to fit into memory.
fn read_part(path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(GUEST_PART_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(GuestImageError::disk(path))?;
    match bytes.len() as u64 > GUEST_PART_BYTES_MAX {
        true => Err(GuestImageError::broken(format!(
            "`{}` has more than {GUEST_PART_BYTES_MAX} bytes, which are accepted",
            path.display()
        ))),
        false => Ok(bytes),
    }
}

fn begin(path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(GuestImageError::disk(path))
}

fn size(path: &Path) -> Result<u64, GuestImageError> {
    Ok(fs::metadata(path).map_err(GuestImageError::disk(path))?.len())
}
