//! Opens connections to the database file, and says how each kind is tuned.
//!
//! Write-ahead log with a full barrier per commit: what was acknowledged survives the loss of power. Checkpoints are
//! taken off SQLite's hands (see [`super::checkpoint`]), because its own would stall the commit that happens to cross the
//! threshold.

use super::migrate::migrate;
use crate::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const PAGE_BYTES: u32 = 4096;
/// The log is made this long when a store is opened: writing within a file's length spares each barrier the file
/// system's own journal.
const LOG_BYTES_AT_START: u64 = 8 << 20;
/// A log that a long read made longer than this is cut back once it is free.
const LOG_BYTES_KEPT: u64 = 64 << 20;
/// Memory for pages: the writer's, and each reader's.
const WRITER_CACHE_KIB: i64 = 16 << 10;
const READER_CACHE_KIB: i64 = 2 << 10;
/// Readers map this much of the database file instead of copying pages.
const READER_MAP_BYTES: i64 = 1 << 30;
/// Distinct SQL texts of the store, with room.
const STATEMENTS_CACHED: usize = 128;
/// The only waits between connections of one process are moments in which the log starts anew.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Makes or opens the file, brings it to today's schema, and returns the one connection that writes.
pub fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    make_private_file(path)?;
    let db = open(path)?;
    migrate(&db, path)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unavailable(format!(
            "`{}`: the file system allows no write-ahead log",
            path.display()
        )));
    }
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT as i64)?;
    // What is deleted or redacted is overwritten. Appends free next to nothing, so they pay next to nothing.
    db.pragma_update(None, "secure_delete", true)?;
    lengthen_log(&db, path)?;
    Ok(db)
}

/// A connection that can only read.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let db = open(path)?;
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    db.pragma_update(None, "mmap_size", READER_MAP_BYTES)?;
    Ok(db)
}

/// A connection that moves pages from the log to the database.
pub fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let db = open(path)?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    // Without `NO_MUTEX` SQLite would lock for every call; each connection is used by one thread at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_WAIT)?;
    // Plans do not depend on bound values; otherwise SQLite would plan some cached statements anew for every call.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    db.pragma_update(None, "temp_store", "memory")?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

/// Journals hold conversations: nobody but the owner reads the file. The log inherits its mode.
fn make_private_file(path: &Path) -> Result<(), StoreError> {
    let unusable = |e: std::io::Error| StoreError::Unavailable(format!("cannot open `{}`: {e}", path.display()));
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(unusable)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|d| d.sync_all()).map_err(unusable)
}

/// Appends zeros to the log, which SQLite takes for "no frame here".
fn lengthen_log(db: &Connection, path: &Path) -> Result<(), StoreError> {
    // The first read opens the log, or recovers what a crash left of it.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let log = log_path(path);
    let lengthened =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&log).and_then(|mut file| {
            let length = file.seek(SeekFrom::End(0))?;
            let missing = LOG_BYTES_AT_START.saturating_sub(length);
            file.write_all(&vec![0; missing as usize])?;
            file.sync_all()
        });
    // On a full disk the store still opens, for reading; the log then grows as it must.
    if let Err(fault) = lengthened {
        tracing::warn!(path = %log.display(), %fault, "the write-ahead log could not be made long; commits are slower");
    }
    Ok(())
}

pub fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
