//! A machine that was frozen, as a directory: `memory`, `state`, and `manifest`, which is written last. And memories of templates
//! that are in use, held so that their copies share them.

use super::manifest::Manifest;
use super::memory;
use loopd_domain::limits::TEMPLATES_HELD_MAX;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const MEMORY: &str = "memory";
const STATE: &str = "state";
const MANIFEST: &str = "manifest";

/// A template that a machine can begin with.
pub(super) struct Template {
    pub manifest: Manifest,
    pub memory: Arc<OwnedFd>,
    /// Read from its beginning, by one machine.
    pub state: OwnedFd,
}

/// One that is being written. Dropped before it is complete, nothing of it stays.
pub(super) struct Draft {
    directory: PathBuf,
    into: PathBuf,
}

impl Draft {
    /// Blocks, as all here.
    pub(super) fn new(into: &Path) -> io::Result<Self> {
        let directory = beside(into)?;
        fs::create_dir(&directory)?;
        Ok(Draft { directory, into: into.to_owned() })
    }

    pub(super) fn state(&self) -> io::Result<File> {
        File::create_new(self.directory.join(STATE))
    }

    pub(super) fn complete(self, from: &File, manifest: &Manifest) -> io::Result<()> {
        let kept = File::create_new(self.directory.join(MEMORY))?;
        memory::copy(from, &kept)?;
        kept.sync_all()?;
        File::open(self.directory.join(STATE))?.sync_all()?;
        fs::write(self.directory.join(MANIFEST), serde_json::to_vec(manifest)?)?;
        File::open(self.directory.join(MANIFEST))?.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        fs::rename(&self.directory, &self.into)?;
        sync_parent(&self.into)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.directory) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.directory.display(), %fault, "half a template stays");
            }
            _ => {}
        }
    }
}

/// A name next to another that nobody has, on the same file system.
pub(super) fn beside(path: &Path) -> io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{name}.{}-{number}", std::process::id())))
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The memories of the templates that were wanted last.
#[derive(Default)]
pub(super) struct Held(Mutex<VecDeque<(Name, Arc<OwnedFd>)>>);

/// A file, whatever its path is by now.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Name {
    device: u64,
    inode: u64,
    changed_ns: i128,
}

impl Held {
    pub(super) fn open(&self, directory: &Path) -> io::Result<Template> {
        let manifest = serde_json::from_slice(&fs::read(directory.join(MANIFEST))?)?;
        let state = File::open(directory.join(STATE))?.into();
        Ok(Template { manifest, memory: self.memory(&File::open(directory.join(MEMORY))?)?, state })
    }

    fn memory(&self, file: &File) -> io::Result<Arc<OwnedFd>> {
        let facts = file.metadata()?;
        let changed_ns = i128::from(facts.ctime()) * 1_000_000_000 + i128::from(facts.ctime_nsec());
        let name = Name { device: facts.dev(), inode: facts.ino(), changed_ns };
        // Locked while one is loaded: whoever wants it as well waits and shares it.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|(other, _)| *other == name)
            && let Some(found) = held.remove(at)
        {
            held.push_front(found.clone());
            return Ok(found.1);
        }
        let memory = Arc::new(memory::load(file)?);
        held.push_front((name, Arc::clone(&memory)));
        held.truncate(TEMPLATES_HELD_MAX);
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest { version: "1".to_owned(), kvm: false, memory_mb: 1, cpus: 1, disks: 2, tsc_khz: None }
    }

    #[test]
    fn a_template_is_there_wholly_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let into = place.path().join("template");
        let from = File::from(memory::empty(1 << 20).unwrap());
        let draft = Draft::new(&into).unwrap();
        draft.state().unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        let draft = Draft::new(&into).unwrap();
        draft.state().unwrap();
        draft.complete(&from, &manifest()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        let held = Held::default();
        let (one, two) = (held.open(&into).unwrap(), held.open(&into).unwrap());
        assert!(Arc::ptr_eq(&one.memory, &two.memory), "copies share one memory");
        assert_eq!(one.manifest, manifest());
    }
}
