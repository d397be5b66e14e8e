//! The store in one SQLite file: one writing thread with group commit, a few reading connections, one process at a time.
//!
//! Each noun has its file here, as everywhere; `append`, `create`,
//! `import`, `redact` and `ownership` are the journal's. What is not a noun:
//! `connection` (how a file is opened and tuned), `migrate`, `writer`, `readers`, `checkpoint`, `watches`,
//! `keyset` (pages of lists), `columns` and `fault` (types and errors). The reasons for SQLite, and for a writer of our own,
//! are in docs/adr/0002-sqlite-and-postgres.md.

mod agents;
mod api_keys;
mod append;
mod audit;
mod checkpoint;
mod columns;
mod connection;
mod create;
mod environments;
mod fault;
mod faults;
mod import;
mod inherit;
mod journal;
mod keyset;
mod migrate;
mod once;
mod ownership;
mod place;
mod readers;
mod redact;
mod sessions;
mod vaults;
mod watches;
mod workspaces;
mod writer;

#[cfg(feature = "testing")]
pub use faults::{BeforeCommit, Faults};

use crate::hold::{Hold, Terms};
use crate::port::{Agents, ApiKeys, AuditLog, Environments, Journal, Once, Sessions, Store, StoreError, Workspaces};
use crate::vaults::Vaults;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A store in the file at a path. Dropping it finishes what is queued and lets the file go.
pub struct SqliteStore {
    // Dropped in this order: the writer finishes before the directory is let go.
    writer: writer::Writer,
    readers: readers::Readers,
    watches: Arc<watches::Watches>,
    path: PathBuf,
    hold: Arc<Hold>,
}

impl SqliteStore {
    /// Opens the file, or makes it; its directory must exist. Blocks for some milliseconds. Refused while another process holds
    /// the directory, when the file's schema is newer than this program, and when it is not a loopd store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_prepared(path, Arc::new(hold_directory_of(path)?), faults::Faults::default())
    }

    /// The same in a directory that is held already. Takes no write any more once the hold is lost.
    pub fn open_in(path: &Path, hold: Arc<Hold>) -> Result<Self, StoreError> {
        Self::open_prepared(path, hold, faults::Faults::default())
    }

    /// The same, with faults to come.
    #[cfg(feature = "testing")]
    pub fn open_with(path: &Path, faults: Faults) -> Result<Self, StoreError> {
        Self::open_prepared(path, Arc::new(hold_directory_of(path)?), faults)
    }

    fn open_prepared(path: &Path, hold: Arc<Hold>, faults: faults::Faults) -> Result<Self, StoreError> {
        if let Some(holder) = hold.replaced() {
            inherit::release(path, &holder.process)?;
        }
        let db = connection::open_writer(path)?;
        let checkpoints = checkpoint::Checkpoints::start(path)?;
        let readers = readers::Readers::open(path)?;
        let writer = writer::Writer::start(db, checkpoints, hold.clone(), faults)?;
        Ok(SqliteStore { writer, readers, watches: Arc::default(), path: path.to_owned(), hold })
    }
}

fn hold_directory_of(path: &Path) -> Result<Hold, StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Hold::take(directory, &Terms::default()).map_err(|fault| StoreError::Unavailable(fault.to_string()))
}

impl Store for SqliteStore {
    fn journal(&self) -> &dyn Journal {
        self
    }
    fn sessions(&self) -> &dyn Sessions {
        self
    }
    fn agents(&self) -> &dyn Agents {
        self
    }
    fn environments(&self) -> &dyn Environments {
        self
    }
    fn once(&self) -> &dyn Once {
        self
    }
    fn workspaces(&self) -> &dyn Workspaces {
        self
    }
    fn api_keys(&self) -> &dyn ApiKeys {
        self
    }
    fn audit(&self) -> &dyn AuditLog {
        self
    }
    fn vaults(&self) -> &dyn Vaults {
        self
    }

    fn is_ours(&self) -> bool {
        self.hold.check()
    }
}
