//! The journal port: entries in, events out.

use super::SqliteStore;
use super::columns::{int, read_id, read_time};
use super::place::{SessionKey, end, place, seq_of};
use super::{append, create, import, ownership, redact};
use crate::port::{
    Append, AppendError, ClaimOutcome, Head, Import, ImportError, Journal, Lease, OnceRecord, OwnerId, RedactError,
    Redacted, Redaction, SealedEntry, StoreError,
};
use async_trait::async_trait;
use loopd_domain::chain::Entry;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::Session;
use loopd_domain::{Epoch, EventId, Seq, SessionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::watch;

#[async_trait]
impl Journal for SqliteStore {
    async fn create(
        &self,
        session: Session,
        entries: Vec<Entry>,
        lease: Option<Lease>,
        once: Option<OnceRecord>,
    ) -> Result<(), AppendError> {
        let id = session.id.clone();
        let prepared = create::Prepared::new(session, entries, lease, once)?;
        let seq = prepared.last_seq();
        self.write_entries(id, seq, move |db| prepared.run(db)).await
    }

    async fn import(&self, import: Import) -> Result<Session, ImportError> {
        let prove = tokio::task::spawn_blocking(move || -> Result<_, ImportError> {
            let import = import::prove(import)?;
            let session = Session { epoch: create::FIRST_EPOCH, ..import.session.clone() };
            Ok((session, create::Prepared::imported(import).map_err(AppendError::from)?))
        });
        let (session, prepared) = prove.await.unwrap_or(Err(AppendError::Store(StoreError::Closed).into()))?;
        self.write_entries(session.id.clone(), prepared.last_seq(), move |db| prepared.run(db)).await?;
        Ok(session)
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        let id = append.session.clone();
        let prepared = append::Prepared::new(append)?;
        let seq = prepared.last_seq();
        self.write_entries(id, seq, move |db| prepared.run(db).map(|_| ())).await
    }

    async fn redact(&self, redaction: Redaction) -> Result<Redacted, RedactError> {
        let prepared = redact::Prepared::new(self, redaction).await?;
        let again = self.write_journal(move |db| prepared.run(db), |_| ()).await?;
        let path = self.path.clone();
        let purge = tokio::task::spawn_blocking(move || redact::purge(&path)).await;
        let purged = purge.unwrap_or(Err(StoreError::Closed)).map_err(AppendError::from)?;
        Ok(Redacted { again, purged })
    }

    async fn read(&self, session: &SessionId, after: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let session = session.clone();
        self.readers.read(move |db| read(db, &session, after, limit, event)).await
    }

    async fn sealed(&self, session: &SessionId, after: Seq, limit: usize) -> Result<Vec<SealedEntry>, StoreError> {
        let session = session.clone();
        self.readers.read(move |db| read(db, &session, after, limit, sealed)).await
    }

    async fn head(&self, session: &SessionId) -> Result<Option<Head>, StoreError> {
        let session = session.clone();
        let found = self.readers.read(move |db| Ok(append::head(db, &session)?)).await?;
        Ok(found.map(|head| Head { seq: head.seq, hash: head.hash }))
    }

    fn watch(&self, session: &SessionId) -> watch::Receiver<Seq> {
        self.watches.watch(session)
    }

    async fn claim(
        &self,
        session: &SessionId,
        owner: &OwnerId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<ClaimOutcome, StoreError> {
        let (session, owner) = (session.clone(), owner.clone());
        self.writer.write_always(move |db| ownership::claim(db, &session, &owner, now, lease_until)).await
    }

    async fn renew(&self, owner: &OwnerId, lease_until: Timestamp) -> Result<u64, StoreError> {
        let owner = owner.clone();
        self.writer.write_always(move |db| ownership::renew(db, &owner, lease_until)).await
    }

    async fn release(&self, session: &SessionId, epoch: Epoch) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer.write_always(move |db| ownership::release(db, &session, epoch)).await
    }

    async fn claimable(&self, now: Timestamp, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.readers.read(move |db| ownership::claimable(db, now, limit)).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.readers.read(move |db| ownership::next_due(db, now)).await
    }
}

impl SqliteStore {
    /// Writes, and wakes who watches the session once that is durable.
    async fn write_entries<F>(&self, session: SessionId, seq: Seq, work: F) -> Result<(), AppendError>
    where
        F: FnOnce(&Connection) -> Result<(), AppendError> + Send + 'static,
    {
        let watches = self.watches.clone();
        self.write_journal(work, move |()| watches.publish(&session, seq)).await
    }

    async fn write_journal<T, F, C>(&self, work: F, committed: C) -> Result<T, AppendError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, AppendError> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let work = move |db: &Connection| match work(db) {
            Err(AppendError::Store(fault)) => Err(fault),
            outcome => Ok(outcome),
        };
        self.writer.write_then(work, committed).await?
    }
}

type Decode<T> = fn(&SessionId, &Row<'_>) -> Result<T, StoreError>;

/// One session's rows after a seq. A session that is deleted between the two statements reads as empty: its key is never
/// given to another.
fn read<T>(
    db: &Connection,
    session: &SessionId,
    after: Seq,
    limit: usize,
    decode: Decode<T>,
) -> Result<Vec<T>, StoreError> {
    let key =
        db.prepare_cached("SELECT key FROM sessions WHERE id = ?1")?.query_row([session.as_str()], |row| row.get(0));
    let Some(key) = key.optional()?.map(SessionKey) else { return Ok(Vec::new()) };
    let mut query = db.prepare_cached(
        "SELECT place, id, at, payload, kind, hash, digest FROM events WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3",
    )?;
    let mut rows = query.query([place(key, after)?, end(key), int(limit as u64)])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(decode(session, row)?);
    }
    Ok(out)
}

fn event(session: &SessionId, row: &Row<'_>) -> Result<Event, StoreError> {
    let seq = seq_of(row.get(0)?);
    let named = |what: &str, e: &dyn std::fmt::Display| {
        StoreError::Damaged(format!("{what} of entry {seq} of session `{session}`: {e}"))
    };
    let id = read_id(row, 1, EventId::parse).map_err(|e| named("id", &e))?;
    let at = read_time(row, 2).map_err(|e| named("time", &e))?;
    let payload = row.get_ref(3)?.as_str().map_err(|e| named("payload", &e))?;
    let body: EventBody = serde_json::from_str(payload).map_err(|e| named("payload", &e))?;
    Ok(Event { seq, id, at, body })
}

fn sealed(session: &SessionId, row: &Row<'_>) -> Result<SealedEntry, StoreError> {
    let seq = seq_of(row.get(0)?);
    let read = || -> rusqlite::Result<SealedEntry> {
        Ok(SealedEntry {
            seq,
            id: read_id(row, 1, EventId::parse)?,
            at: read_time(row, 2)?,
            payload: row.get(3)?,
            kind: row.get(4)?,
            hash: row.get(5)?,
            redacted: row.get(6)?,
        })
    };
    read().map_err(|e| StoreError::Damaged(format!("entry {seq} of session `{session}`: {e}")))
}
