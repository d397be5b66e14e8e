//! A database whose last writer was replaced while it showed no sign of life: is anything of it still locked?
//!
//! A process that was stopped in the middle of a transaction, a checkpoint or a read keeps SQLite's locks for as long as it
//! exists, whoever has the directory. It has no right to go on, so it is ended when it is in the way, and only then.

use super::connection::open_checkpointer;
use crate::StoreError;
use crate::hold::Process;
use std::path::Path;
use std::time::Duration;

/// How long locks may take to come free by themselves, and a process that was ended to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn release(path: &Path, holder: &Process) -> Result<(), StoreError> {
    if !path.exists() || is_free(path)? {
        return Ok(());
    }
    let pid = holder.pid;
    tracing::error!(pid, "the process that had the directory keeps the database locked in its sleep; it is ended now");
    match holder.kill(PATIENCE) {
        Ok(true) => tracing::error!(pid, "it was ended; what it had not committed is rolled back"),
        Ok(false) => tracing::warn!(pid, "it had ended by itself"),
        Err(fault) => {
            let text = format!("process {pid} keeps the database locked and cannot be ended: {fault}; end it by hand");
            return Err(StoreError::Unavailable(text));
        }
    }
    match is_free(path)? {
        true => Ok(()),
        false => Err(StoreError::Unavailable("the database is locked by another program; close it".to_owned())),
    }
}

/// Starting the log anew needs every lock there is.
fn is_free(path: &Path) -> Result<bool, StoreError> {
    let db = open_checkpointer(path)?;
    db.busy_timeout(PATIENCE)?;
    let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Ok(true);
    }
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))?;
    Ok(busy == 0)
}
