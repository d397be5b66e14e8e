//! The store in one SQLite file: one writing thread with group commit, a few reading connections, one process at a time.
//!
//! Each noun has its file here, as everywhere; `append`, `create`,
//! `import`, `redact` and `ownership` are the journal's. What is not a noun:
//! `connection` (how a file is opened and tuned), `migrate`, `lock`, `writer`, `readers`, `checkpoint`, `watches`,
//! `keyset` (pages of lists), `columns` and `fault` (types and errors). The reasons for SQLite, and for a writer of our own,
//! are in docs/adr/0002-sqlite-and-postgres.md.

mod agents;
mod append;
mod checkpoint;
mod columns;
mod connection;
mod create;
mod environments;
mod fault;
mod faults;
mod import;
mod journal;
mod keyset;
mod lock;
mod migrate;
mod once;
mod ownership;
mod place;
mod readers;
mod redact;
mod sessions;
mod watches;
mod writer;

#[cfg(feature = "testing")]
pub use faults::{BeforeCommit, Faults};

use crate::port::{Agents, Environments, Journal, Once, Sessions, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A store in the file at a path. Dropping it finishes what is queued and lets the file go.
pub struct SqliteStore {
    // Dropped in this order: the writer finishes before the lock is let go.
    writer: writer::Writer,
    readers: readers::Readers,
    watches: Arc<watches::Watches>,
    path: PathBuf,
    _lock: lock::WriteLock,
}

impl SqliteStore {
    /// Opens the file, or makes it; its directory must exist. Blocks for some milliseconds. Refused while another process
    /// has it open, when its schema is newer than this program, and when it is not a loopd store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_prepared(path, faults::Faults::default())
    }

    /// The same, with faults to come.
    #[cfg(feature = "testing")]
    pub fn open_with(path: &Path, faults: Faults) -> Result<Self, StoreError> {
        Self::open_prepared(path, faults)
    }

    fn open_prepared(path: &Path, faults: faults::Faults) -> Result<Self, StoreError> {
        let lock = lock::WriteLock::take(path)?;
        let db = connection::open_writer(path)?;
        let checkpoints = checkpoint::Checkpoints::start(path)?;
        let readers = readers::Readers::open(path)?;
        let writer = writer::Writer::start(db, checkpoints, faults)?;
        Ok(SqliteStore { writer, readers, watches: Arc::default(), path: path.to_owned(), _lock: lock })
    }
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
}
