//! Which image is the current one: `current.json`, written last and replaced whole.

use crate::GuestImageError;
use crate::cache::Cache;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

const NAME: &str = "current.json";
/// Raised with every change of its shape. One of another version is no image.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// The name in `kernels/`.
    pub kernel: String,
    /// The name in `bases/`.
    pub base: String,
    /// The digest of the initramfs.
    pub initramfs: String,
}

/// As much as every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Manifest {
    pub(crate) fn new(kernel: &str, base: &str, initramfs: &str) -> Self {
        Manifest { version: VERSION, kernel: kernel.to_owned(), base: base.to_owned(), initramfs: initramfs.to_owned() }
    }

    pub(crate) fn read(cache: &Cache) -> Result<Option<Self>, GuestImageError> {
        let path = cache.root().join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(GuestImageError::disk(path)(fault)),
        };
        let refused = |fault: serde_json::Error| {
            GuestImageError::broken(format!("`{}`: {fault}; `loopd image build` writes another", path.display()))
        };
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(refused)?;
        match version == VERSION {
            true => serde_json::from_slice(&bytes).map(Some).map_err(refused),
            false => Ok(None),
        }
    }

    pub(crate) fn write(&self, cache: &Cache) -> Result<(), GuestImageError> {
        let work = cache.work()?;
        let (made, path) = (work.path().join(NAME), cache.root().join(NAME));
        let text = serde_json::to_vec_pretty(self).expect("names are text");
        let write = || -> io::Result<()> {
            fs::write(&made, text)?;
            fs::File::open(&made)?.sync_all()?;
            fs::rename(&made, &path)?;
            fs::File::open(cache.root())?.sync_all()
        };
        write().map_err(GuestImageError::disk(&path))
    }
}
