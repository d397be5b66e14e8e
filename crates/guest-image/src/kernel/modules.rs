//! The modules that a guest needs, with those that they need, in the order in which they can be loaded.
//!
//! What depends on what is read from each module itself (`depends=` in its section `.modinfo`): Debian's packages bring no
//! `modules.dep`.

use crate::unpack::{self, Format};
use crate::{GuestImageError, elf};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Without these there is no machine, or no room in it.
const NEEDED: [&str; 5] = ["virtio_mmio", "virtio_blk", "virtio_console", "ext4", "overlay"];
/// Taken where the kernel has them: what ext4 checks its sums with, where it is a module; a source of entropy.
const WELCOME: [&str; 2] = ["crc32c_generic", "virtio_rng"];
/// Levels of directories that are looked into.
const DEPTH_MAX: usize = 16;

/// One module, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    name: String,
    pub bytes: Vec<u8>,
}

impl Module {
    pub(crate) fn file(&self) -> String {
        format!("{}.ko", self.name)
    }

    fn needs(&self) -> Result<Vec<String>, GuestImageError> {
        let information = elf::section(&self.bytes, ".modinfo").ok_or_else(|| {
            GuestImageError::broken(format!("module `{}`: no 64-bit ELF file with a section `.modinfo`", self.name))
        })?;
        let depends = information.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
        let text = String::from_utf8_lossy(depends.unwrap_or_default());
        Ok(text.split(',').filter(|name| !name.is_empty()).map(plain).collect())
    }
}

/// All modules of a kernel.
pub(crate) struct Modules {
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
    /// Those that are part of the kernel.
    built_in: BTreeSet<String>,
}

impl Modules {
    /// `directory`: `/lib/modules/<release>`.
    pub(crate) fn open(directory: &Path) -> Result<Self, GuestImageError> {
        let mut files = BTreeMap::new();
        walk(directory, 0, &mut files).map_err(GuestImageError::disk(directory))?;
        let list = directory.join("modules.builtin");
        let built_in = match fs::read_to_string(&list) {
            Ok(text) => text.lines().filter_map(|line| name_of(Path::new(line))).collect(),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(fault) => return Err(GuestImageError::disk(list)(fault)),
        };
        Ok(Modules { directory: directory.to_owned(), files, built_in })
    }

    /// Those that a guest needs.
    pub(crate) fn chosen(&self) -> Result<Vec<Module>, GuestImageError> {
        let welcome = WELCOME.into_iter().filter(|name| self.files.contains_key(*name));
        let mut chosen = Vec::new();
        // No module says that it needs what it asks the kernel for by another name.
        for name in welcome.chain(NEEDED) {
            self.choose(name, &mut Vec::new(), &mut chosen)?;
        }
        Ok(chosen)
    }

    /// Adds a module after what it needs.
    fn choose(&self, name: &str, above: &mut Vec<String>, chosen: &mut Vec<Module>) -> Result<(), GuestImageError> {
        if self.built_in.contains(name) || chosen.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let refused = |why: &str| {
            let needed: String = above.iter().rev().map(|by| format!(", which `{by}` needs")).collect();
            GuestImageError::broken(format!("`{}`: module `{name}`{needed}: {why}", self.directory.display()))
        };
        if above.iter().any(|by| by == name) {
            return Err(refused("needs itself"));
        }
        let path =
            self.files.get(name).ok_or_else(|| refused("neither among the modules nor built into the kernel"))?;
        let module = Module { name: name.to_owned(), bytes: read(path)? };
        above.push(name.to_owned());
        for need in module.needs()? {
            self.choose(&need, above, chosen)?;
        }
        above.pop();
        chosen.push(module);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let bytes = super::read_part(path)?;
    match Format::of(&bytes) {
        Some(format) => unpack::whole(format, &bytes, &path.display().to_string()),
        None => Ok(bytes),
    }
}

fn walk(directory: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // Links such as `build` lead out of it.
        if entry.file_type()?.is_dir() && depth < DEPTH_MAX {
            walk(&path, depth + 1, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `virtio_rng` of `…/virtio-rng.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let (name, packing) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(packing, "" | ".gz" | ".xz" | ".zst").then(|| plain(name))
}

/// Dashes and underscores are the same in names of modules.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::module;

    fn directory(modules: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("kernel/drivers")).unwrap();
        fs::write(directory.path().join("modules.builtin"), built_in).unwrap();
        for (file, needs) in modules {
            let bytes = module(format!("license=GPL\0depends={needs}\0name=x\0").as_bytes());
            let bytes = if file.ends_with(".zst") { zstd::encode_all(&bytes[..], 1).unwrap() } else { bytes };
            fs::write(directory.path().join("kernel/drivers").join(file), bytes).unwrap();
        }
        directory
    }

    fn names(directory: &tempfile::TempDir) -> Result<Vec<String>, String> {
        let chosen = Modules::open(directory.path()).and_then(|modules| modules.chosen());
        chosen.map(|modules| modules.iter().map(Module::file).collect()).map_err(|fault| fault.to_string())
    }

    const BUILT_IN: &str = "kernel/fs/ext4/ext4.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/hw/rng-core.ko\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let directory = directory(
            &[
                ("virtio_mmio.ko", "virtio_ring,virtio"),
                ("virtio_blk.ko", "virtio,virtio-ring"),
                ("virtio_console.ko.zst", "virtio_ring,virtio"),
                ("virtio-rng.ko", "virtio,rng-core"),
                ("virtio_ring.ko.zst", "virtio"),
                ("virtio.ko", ""),
                ("unwanted.ko", "nothing"),
            ],
            BUILT_IN,
        );
        let expected =
            ["virtio.ko", "virtio_rng.ko", "virtio_ring.ko", "virtio_mmio.ko", "virtio_blk.ko", "virtio_console.ko"];
        assert_eq!(names(&directory).unwrap(), expected);
        let modules = Modules::open(directory.path()).unwrap().chosen().unwrap();
        assert!(modules.iter().all(|module| elf::is_elf(&module.bytes)), "they are unpacked");
    }

    #[test]
    fn what_is_missing_is_named_with_who_needs_it() {
        let directory = directory(&[("virtio_mmio.ko", "virtio"), ("virtio.ko", "deep")], BUILT_IN);
        let told = names(&directory).unwrap_err();
        assert!(told.contains("module `deep`, which `virtio` needs, which `virtio_mmio` needs: neither"), "{told}");
    }

    #[test]
    fn a_circle_ends() {
        let directory = directory(&[("virtio_mmio.ko", "virtio"), ("virtio.ko", "virtio_mmio")], BUILT_IN);
        assert!(names(&directory).unwrap_err().contains("needs itself"));
    }
}
