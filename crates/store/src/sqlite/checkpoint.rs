//! Keeps the write-ahead log short without making commits wait for it.
//!
//! A second thread copies pages from the log to the database while the writer goes on; that is nearly all of the work. It
//! can never quite catch up with a writer that does not pause, and the log can start anew only when all of it is copied. So
//! the writer itself copies the small rest: when nobody waits for it, or when the log has become [`LOG_PAGES_MAX`] long.

use super::connection::open_checkpointer;
use crate::StoreError;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Pages in the log from which on it is copied: 8 MiB.
const LOG_PAGES_COPIED: i64 = 2_048;
/// Pages in the log from which on the writer finishes the copy, whoever waits: 64 MiB.
const LOG_PAGES_MAX: i64 = 16_384;
/// Writes between two looks at the log's length.
const WRITES_PER_LOOK: usize = 32;

/// States of the second thread.
const RESTING: u8 = 0;
const COPYING: u8 = 1;
const COPIED: u8 = 2;

pub struct Checkpoints {
    /// `None` only while dropping.
    wake: Option<mpsc::SyncSender<()>>,
    state: Arc<AtomicU8>,
    writes_since_look: usize,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub fn start(path: &Path) -> Result<Self, StoreError> {
        let db = open_checkpointer(path)?;
        let (wake, woken) = mpsc::sync_channel(1);
        let state = Arc::new(AtomicU8::new(RESTING));
        let shared = state.clone();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    copy(&db);
                    shared.store(COPIED, Ordering::Release);
                }
            })
            .map_err(|e| StoreError::Unavailable(format!("cannot start the checkpoint thread: {e}")))?;
        Ok(Checkpoints { wake: Some(wake), state, writes_since_look: 0, thread: Some(thread) })
    }

    /// Called by the writer between two commits. `idle`: nobody waits for it.
    pub fn after_commit(&mut self, db: &Connection, writes: usize, idle: bool) {
        self.writes_since_look += writes;
        if self.writes_since_look < WRITES_PER_LOOK {
            return;
        }
        self.writes_since_look = 0;
        let Some(pages) = log_pages(db) else { return };
        match self.state.load(Ordering::Acquire) {
            RESTING if pages >= LOG_PAGES_COPIED => {
                self.state.store(COPYING, Ordering::Release);
                if let Some(wake) = &self.wake {
                    // Full or closed: it is awake already, or ending.
                    let _ = wake.try_send(());
                }
            }
            COPIED if idle || pages >= LOG_PAGES_MAX => {
                copy(db);
                self.state.store(RESTING, Ordering::Release);
            }
            _ => {}
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's checkpoint thread had panicked");
        }
    }
}

/// Pages in the log now, copied or not.
fn log_pages(db: &Connection) -> Option<i64> {
    let pragma = db.prepare_cached("PRAGMA wal_checkpoint(NOOP)");
    pragma.and_then(|mut p| p.query_row([], |row| row.get(1))).ok()
}

/// Copies what no reader still needs from the log. What fails now is tried again with the next commits; until then the log
/// holds it, as durable as before.
fn copy(db: &Connection) {
    if let Err(fault) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%fault, "the write-ahead log could not be copied to the database; it grows until that succeeds");
    }
}
