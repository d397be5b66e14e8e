//! One entry's content goes: a tombstone in its place, the fold made anew, and the old text overwritten in the files.
//!
//! An entry's hash covers the digest of its payload, so keeping the digest keeps the chain. SQLite is told to overwrite what it
//! frees (`secure_delete`, see `connection`), and afterwards the log, which still holds older pages, is copied and cut. What the
//! disk keeps of blocks that were written over, and copies that somebody made, are not ours to reach.

use super::append;
use super::columns::json;
use super::connection::open_checkpointer;
use super::place::place;
use crate::StoreError;
use crate::port::{Append, AppendError, Journal, RedactError, Redaction};
use loopd_domain::Seq;
use loopd_domain::chain::Hash;
use loopd_domain::fold::SessionFold;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// Events read at a time while the fold is made anew.
const READ_ROWS: usize = 512;
/// How long a purge waits for readers that still look at older pages.
const PURGE_WAIT: Duration = Duration::from_secs(1);

/// A redaction and the fold that follows from it, serialised. Made before the writer is asked.
pub struct Prepared {
    /// The fold alone, fenced and in its place as every write of a journal is.
    append: append::Prepared,
    seq: Seq,
    tombstone: String,
}

impl Prepared {
    /// Reads the whole journal with the tombstone in its place. Nobody else writes it: the epoch says so when this is run.
    pub async fn new(journal: &dyn Journal, redaction: Redaction) -> Result<Self, RedactError> {
        let Redaction { session, epoch, seq, tombstone } = redaction;
        let text = json(&tombstone).map_err(AppendError::from)?;
        let given = tombstone.kind();
        let mut tombstone = Some(tombstone);
        let mut fold = SessionFold::default();
        loop {
            let events = journal.read(&session, fold.last_seq, READ_ROWS).await.map_err(AppendError::from)?;
            if events.is_empty() {
                break;
            }
            for mut event in events {
                if event.seq == seq
                    && let Some(body) = tombstone.take()
                {
                    if event.body.kind() != given {
                        return Err(RedactError::OtherKind { seq, kind: event.body.kind().to_owned(), given });
                    }
                    event.body = body;
                }
                fold.apply(&event)?;
            }
        }
        if tombstone.is_some() {
            return Err(match journal.head(&session).await.map_err(AppendError::from)? {
                None => AppendError::Absent.into(),
                Some(_) => RedactError::NoEntry { seq, last: fold.last_seq },
            });
        }
        let expected_seq = fold.last_seq;
        let append = Append { session, epoch, expected_seq, entries: vec![], fold, change: None, once: None };
        let append = append::Prepared::new(append).map_err(AppendError::from)?;
        Ok(Prepared { append, seq, tombstone: text })
    }

    /// Runs in a transaction. True when a tombstone stood there already.
    pub fn run(self, db: &Connection) -> Result<bool, AppendError> {
        let key = self.append.run(db)?;
        Ok(bury(db, place(key, self.seq)?, &self.tombstone)?)
    }
}

/// Overwrites the payload of the entry at `place`; the digest of what it was first is kept for good.
fn bury(db: &Connection, place: i64, tombstone: &str) -> Result<bool, StoreError> {
    let sql = "SELECT payload, digest FROM events WHERE place = ?1";
    let (payload, digest): (String, Option<Hash>) =
        db.prepare_cached(sql)?.query_row([place], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let first = digest.unwrap_or_else(|| Sha256::digest(payload.as_bytes()).into());
    db.prepare_cached("UPDATE events SET payload = ?2, digest = ?3 WHERE place = ?1")?
        .execute(params![place, tombstone, first])?;
    Ok(digest.is_some())
}

/// Copies the whole log to the database and cuts it, so that no older page is left. False when a reader still needs it.
/// Writers wait meanwhile, not longer than [`PURGE_WAIT`] and the copy take. The log grows back as it is used.
pub fn purge(path: &Path) -> Result<bool, StoreError> {
    let db = open_checkpointer(path)?;
    db.busy_timeout(PURGE_WAIT)?;
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}
