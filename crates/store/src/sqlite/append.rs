//! One transaction on one journal: may this writer write here, then entries, fold, change and once-record together.

use super::columns::{int, json, read_count, read_id};
use super::place::{SessionKey, place};
use super::sessions::Change;
use super::{fault, once};
use crate::StoreError;
use crate::port::{Append, AppendError, OnceRecord, SealedEntry};
use loopd_domain::chain::{Entry, GENESIS, Hash, link};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::Status;
use loopd_domain::{Epoch, EventId, Seq, SessionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// Where a journal stands, as the writer must know it.
pub struct Head {
    pub key: SessionKey,
    pub epoch: Epoch,
    pub seq: Seq,
    pub hash: Hash,
    status: Status,
    due_at: Option<i64>,
}

/// An append that has been checked as far as it can be without the store, and serialised. Made on the caller's thread.
pub struct Prepared {
    session: SessionId,
    epoch: Epoch,
    expected_seq: Seq,
    entries: Vec<Entry>,
    status: Status,
    due_at: Option<i64>,
    fold: String,
    change: Option<Change>,
    once: Option<OnceRecord>,
}

impl Prepared {
    pub fn new(append: Append) -> Result<Self, StoreError> {
        let Append { session, epoch, expected_seq, entries, fold, change, once } = append;
        check_dense(&session, expected_seq, &entries, &fold)?;
        let (status, due_at, fold) = (fold.status, due(&fold), json(&fold)?);
        let change = change.map(Change::new).transpose()?;
        Ok(Prepared { session, epoch, expected_seq, entries, status, due_at, fold, change, once })
    }

    /// Seq of the last entry, once this is written.
    pub fn last_seq(&self) -> Seq {
        self.expected_seq + self.entries.len() as Seq
    }

    /// Runs in a transaction; the caller rolls back whatever is refused. Returns the session's row.
    pub fn run(self, db: &Connection) -> Result<SessionKey, AppendError> {
        let head = head(db, &self.session).map_err(StoreError::from)?.ok_or(AppendError::Absent)?;
        if head.epoch != self.epoch {
            return Err(AppendError::Fenced { current: head.epoch });
        }
        if let Some(record) = &self.once {
            once::insert(db, record)?;
        }
        if head.seq != self.expected_seq || !continues(&head.hash, &self.entries) {
            return Err(AppendError::Conflict { actual: head.seq });
        }
        insert_entries(db, head.key, head.seq, self.entries.iter().map(Row::from))?;
        self.move_head(db, &head)?;
        if let Some(change) = &self.change {
            change.run(db, head.key)?;
        }
        Ok(head.key)
    }

    fn move_head(&self, db: &Connection, head: &Head) -> Result<(), StoreError> {
        let hash = self.entries.last().map_or(&head.hash, |entry| &entry.hash);
        // A statement that does not name an indexed column leaves its index alone.
        let sql = match self.due_at == head.due_at {
            true => "UPDATE journals SET last_seq = ?2, last_hash = ?3, fold = ?4 WHERE session = ?1",
            false => "UPDATE journals SET last_seq = ?2, last_hash = ?3, fold = ?4, due_at = ?5 WHERE session = ?1",
        };
        let mut update = db.prepare_cached(sql)?;
        let (key, seq) = (head.key.0, int(self.last_seq()));
        match self.due_at == head.due_at {
            true => update.execute(params![key, seq, hash, self.fold])?,
            false => update.execute(params![key, seq, hash, self.fold, self.due_at])?,
        };
        if self.status != head.status {
            let mut update = db.prepare_cached("UPDATE sessions SET status = ?2 WHERE key = ?1")?;
            update.execute(params![key, self.status.as_str()])?;
        }
        Ok(())
    }
}

/// The column `due_at` of a fold.
pub fn due(fold: &SessionFold) -> Option<i64> {
    fold.due_at().map(|t| t.micros())
}

pub fn head(db: &Connection, session: &SessionId) -> rusqlite::Result<Option<Head>> {
    let mut query = db.prepare_cached(
        "SELECT s.key, j.epoch, j.last_seq, j.last_hash, s.status, j.due_at
         FROM sessions s JOIN journals j ON j.session = s.key WHERE s.id = ?1",
    )?;
    let row = query.query_row([session.as_str()], |row| {
        Ok(Head {
            key: SessionKey(row.get(0)?),
            epoch: Epoch(read_count(row, 1)?),
            seq: read_count(row, 2)?,
            hash: row.get(3)?,
            status: read_id(row, 4, Status::parse)?,
            due_at: row.get(5)?,
        })
    });
    row.optional()
}

/// One entry as it is written.
pub struct Row<'a> {
    seq: Seq,
    id: &'a EventId,
    kind: &'a str,
    at: Timestamp,
    hash: &'a Hash,
    /// Of what the payload was, when it is a tombstone.
    digest: Option<&'a Hash>,
    payload: &'a str,
}

impl<'a> From<&'a Entry> for Row<'a> {
    fn from(e: &'a Entry) -> Self {
        Row { seq: e.seq, id: &e.id, kind: e.kind, at: e.at, hash: &e.hash, digest: None, payload: &e.payload }
    }
}

impl<'a> From<&'a SealedEntry> for Row<'a> {
    fn from(e: &'a SealedEntry) -> Self {
        let digest = e.redacted.as_ref();
        Row { seq: e.seq, id: &e.id, kind: &e.kind, at: e.at, hash: &e.hash, digest, payload: &e.payload }
    }
}

/// Entries of a journal's start or end. `after` is where they continue.
pub fn insert_entries<'a>(
    db: &Connection,
    key: SessionKey,
    after: Seq,
    entries: impl Iterator<Item = Row<'a>>,
) -> Result<(), AppendError> {
    let mut insert = db
        .prepare_cached(
            "INSERT INTO events (place, id, kind, at, hash, digest, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(StoreError::from)?;
    for row in entries {
        let place = place(key, row.seq)?;
        let values = params![place, row.id.as_str(), row.kind, row.at.micros(), row.hash, row.digest, row.payload];
        insert.execute(values).map_err(|e| match fault::is_duplicate(&e) {
            // An id that the journal holds already: the writer does not know what it has written.
            true => AppendError::Conflict { actual: after },
            false => AppendError::Store(e.into()),
        })?;
    }
    Ok(())
}

/// What the port asks of an append whatever the store holds.
pub fn check_dense(session: &SessionId, after: Seq, entries: &[Entry], fold: &SessionFold) -> Result<(), StoreError> {
    let mut seq = after;
    for entry in entries {
        seq += 1;
        if entry.seq != seq {
            let told =
                format!("entry {} of session `{session}` stands where {seq} is next; it was not written", entry.seq);
            return Err(StoreError::Damaged(told));
        }
    }
    if fold.last_seq != seq {
        let told = format!(
            "the fold of session `{session}` is at {}, its entries at {seq}; nothing was written",
            fold.last_seq
        );
        return Err(StoreError::Damaged(told));
    }
    Ok(())
}

/// Does the first entry cover the last one in the store? Its followers were linked to it by whoever sealed them.
pub fn continues(last: &Hash, entries: &[Entry]) -> bool {
    entries.first().is_none_or(|e| link(last, e.seq, &e.id, e.kind, e.at, &e.digest) == e.hash)
}

/// The same for a journal that is to begin.
pub fn begins(entries: &[Entry]) -> bool {
    continues(&GENESIS, entries)
}
