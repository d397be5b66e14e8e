//! A directory that one process writes at a time: the lock on its file `lock`, who has it, and how it passes on.
//!
//! The kernel lets the lock go when its holder ends, however it ends. A holder that neither ends nor goes on (stopped, stuck)
//! would keep it for ever, so a holder also shows that it lives: it touches the file every third of a lease.
//!
//! ```text
//!  [free] ── lock ─► [held] ── the holder ends, or drops it ──► [free]
//!                      │ no sign of life for a lease, and none while the next one watches
//!                      ▼
//!                    [replaced]: `lock` is another file, locked by the next one; the old lock means nothing
//! ```
//!
//! A holder finds out that it was replaced when it looks ([`Hold::check`]): at its next sign of life, and, in the store's
//! writer, in every commit. It must not write any more, and says so to whoever it was given to (`on_lost`).
//!
//! Ages are differences of times that the same file system gave to two files, so the machine's clock is not read; as it may be
//! set back or forward, an age alone convinces nobody: see [`take`].

mod beat;
mod process;
mod take;

pub use process::Process;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat, futimens, stat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of the file: written over in place, so that it is never half there and needs no space on a full disk.
const RECORD_BYTES: usize = 1_024;

/// Who has a directory, as the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    #[serde(flatten)]
    pub process: Process,
    /// Where it serves, when it serves anybody but itself.
    pub url: Option<String>,
    /// It is about to end and takes nothing new.
    #[serde(default)]
    pub stopping: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// `None`: the file does not say by whom.
    #[error("another loopd uses the directory `{}`; stop it, or choose another directory", directory.display())]
    Held { directory: PathBuf, holder: Option<Holder> },
    #[error("cannot lock `{}`: {source}", path.display())]
    Unusable { path: PathBuf, source: io::Error },
}

/// How a directory is taken and held.
#[derive(Clone)]
pub struct Terms {
    /// A holder without a sign of life for so long may be replaced.
    pub lease: Duration,
    /// Replace such a holder; otherwise it is as good as any.
    pub replaces: bool,
    /// Called once, on whatever thread finds out, when somebody else has the directory now.
    pub on_lost: Arc<dyn Fn(&Path) + Send + Sync>,
}

impl Default for Terms {
    fn default() -> Self {
        let lease = Duration::from_millis(loopd_domain::limits::LEASE_MS);
        Terms { lease, replaces: true, on_lost: Arc::new(|_| {}) }
    }
}

/// The right to write a directory, until this is dropped or somebody replaces it.
pub struct Hold {
    shared: Arc<Shared>,
    replaced: Option<Holder>,
    _beat: beat::Beat,
}

struct Shared {
    path: PathBuf,
    /// Locked.
    file: File,
    lost: AtomicBool,
    on_lost: Arc<dyn Fn(&Path) + Send + Sync>,
}

impl Hold {
    /// Takes the directory if it is free, or if its holder shows no sign of life. Says at once when somebody has it; blocks for
    /// half a lease when that somebody seems to be gone.
    pub fn take(directory: &Path, terms: &Terms) -> Result<Hold, HoldError> {
        let (path, file, replaced) = take::take(directory, terms)?;
        let unusable = |source| HoldError::Unusable { path: path.clone(), source };
        let shared = Shared { path: path.clone(), file, lost: AtomicBool::new(false), on_lost: terms.on_lost.clone() };
        let shared = Arc::new(shared);
        shared.touch().map_err(unusable)?;
        let beat = beat::Beat::start(shared.clone(), terms.lease / 3).map_err(unusable)?;
        let hold = Hold { shared, replaced, _beat: beat };
        hold.say(None, false).map_err(unusable)?;
        Ok(hold)
    }

    /// The holder that showed no sign of life, when this hold was taken from one. Its process may still be there.
    pub fn replaced(&self) -> Option<&Holder> {
        self.replaced.as_ref()
    }

    /// Tells whoever wants the directory next.
    pub fn say(&self, url: Option<String>, stopping: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Holder { process: Process::this()?, url, stopping })?;
        text.resize(RECORD_BYTES.max(text.len()), b' ');
        self.shared.file.write_all_at(&text, 0)
    }

    /// Is the directory still this process's? Costs a few microseconds.
    pub fn check(&self) -> bool {
        self.shared.check()
    }
}

impl Shared {
    fn check(&self) -> bool {
        if self.lost.load(Ordering::Acquire) {
            return false;
        }
        // A file that somebody removed is nobody else's.
        if is_at(&self.file, &self.path) != Some(false) {
            return true;
        }
        if !self.lost.swap(true, Ordering::AcqRel) {
            (self.on_lost)(&self.path);
        }
        false
    }

    fn touch(&self) -> io::Result<()> {
        touch(&self.file)
    }
}

/// Is this the file that the path names? `None` when the path names none, or that cannot be told for now.
fn is_at(file: &File, path: &Path) -> Option<bool> {
    let (ours, there) = (fstat(file).ok()?, stat(path).ok()?);
    Some((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
}

/// Sets a file's time of change to now, by the file system's own clock.
fn touch(file: &File) -> io::Result<()> {
    let at = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
    let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
    Ok(futimens(file, &times)?)
}

/// What a lock's file says of its holder. `None` when it is being written, or was written by another version.
fn read(file: &File) -> Option<Holder> {
    let mut text = vec![0; RECORD_BYTES * 4];
    let length = file.read_at(&mut text, 0).ok()?;
    serde_json::from_slice(&text[..length]).ok()
}
