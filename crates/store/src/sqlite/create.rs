//! A session's first transaction: its rows, its first entries, its owner.

use super::append::{Row, begins, check_dense, due, insert_entries};
use super::columns::{int, json};
use super::place::SessionKey;
use super::{fault, once};
use crate::StoreError;
use crate::port::{AppendError, Import, Lease, OnceRecord, SealedEntry};
use loopd_domain::chain::{Entry, GENESIS, Hash};
use loopd_domain::session::Session;
use loopd_domain::{Epoch, Seq};
use rusqlite::{Connection, params};

/// The epoch of a session that was never claimed.
pub const FIRST_EPOCH: Epoch = Epoch(1);

/// A session to be made, serialised. Made on the caller's thread.
pub struct Prepared {
    session: Session,
    entries: Entries,
    lease: Option<Lease>,
    once: Option<OnceRecord>,
    metadata: String,
    agent: String,
    room: String,
    vaults: String,
    fold: String,
}

/// What a journal starts with: new entries, or a whole journal that was proved before it came here.
enum Entries {
    New(Vec<Entry>),
    Sealed(Vec<SealedEntry>),
}

impl Prepared {
    pub fn new(
        session: Session,
        entries: Vec<Entry>,
        lease: Option<Lease>,
        once: Option<OnceRecord>,
    ) -> Result<Self, StoreError> {
        check_dense(&session.id, 0, &entries, &session.fold)?;
        Self::with(session, Entries::New(entries), lease, once)
    }

    /// Of an import whose entries are proved and whose fold is made (see [`super::import`]).
    pub fn imported(import: Import) -> Result<Self, StoreError> {
        let Import { session, entries, lease, once } = import;
        Self::with(session, Entries::Sealed(entries), lease, once)
    }

    fn with(
        session: Session,
        entries: Entries,
        lease: Option<Lease>,
        once: Option<OnceRecord>,
    ) -> Result<Self, StoreError> {
        Ok(Prepared {
            metadata: json(&session.metadata)?,
            agent: json(&session.agent.spec)?,
            room: json(&session.room)?,
            vaults: json(&session.vaults)?,
            fold: json(&session.fold)?,
            session,
            entries,
            lease,
            once,
        })
    }

    pub fn last_seq(&self) -> Seq {
        self.session.fold.last_seq
    }

    fn last_hash(&self) -> Hash {
        let last = match &self.entries {
            Entries::New(entries) => entries.last().map(|e| e.hash),
            Entries::Sealed(entries) => entries.last().map(|e| e.hash),
        };
        last.unwrap_or(GENESIS)
    }

    /// Runs in a transaction; the caller rolls back whatever is refused.
    pub fn run(self, db: &Connection) -> Result<(), AppendError> {
        if let Some(record) = &self.once {
            once::insert(db, record)?;
        }
        let key = self.insert_session(db)?;
        self.insert_parts(db, key)?;
        match &self.entries {
            Entries::New(entries) if !begins(entries) => Err(AppendError::Conflict { actual: 0 }),
            Entries::New(entries) => insert_entries(db, key, 0, entries.iter().map(Row::from)),
            Entries::Sealed(entries) => insert_entries(db, key, 0, entries.iter().map(Row::from)),
        }
    }

    fn insert_session(&self, db: &Connection) -> Result<SessionKey, AppendError> {
        let session = &self.session;
        let mut insert = db
            .prepare_cached(
                "INSERT INTO sessions (id, workspace, agent, agent_version, environment, status, archived, created_at,
                 updated_at, archived_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )
            .map_err(StoreError::from)?;
        let inserted = insert.execute(params![
            session.id.as_str(),
            session.workspace.as_str(),
            session.agent.id.as_ref().map(|id| id.as_str()),
            int(session.agent.version),
            session.environment.as_ref().map(|id| id.as_str()),
            session.fold.status.as_str(),
            session.archived_at.is_some(),
            session.created_at.micros(),
            session.updated_at.micros(),
            session.archived_at.map(|t| t.micros()),
        ]);
        match inserted {
            Ok(_) => Ok(SessionKey(db.last_insert_rowid())),
            Err(e) if fault::is_duplicate(&e) => Err(self.taken(db)?),
            Err(e) => Err(AppendError::Store(e.into())),
        }
    }

    /// The id belongs to another session.
    fn taken(&self, db: &Connection) -> Result<AppendError, StoreError> {
        let head = super::append::head(db, &self.session.id)?;
        Ok(AppendError::Conflict { actual: head.map_or(0, |h| h.seq) })
    }

    fn insert_parts(&self, db: &Connection, key: SessionKey) -> Result<(), StoreError> {
        db.prepare_cached(
            "INSERT INTO definitions (session, title, metadata, agent, room, vaults) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![key.0, self.session.title, self.metadata, self.agent, self.room, self.vaults])?;
        db.prepare_cached(
            "INSERT INTO journals (session, epoch, last_seq, last_hash, due_at, fold) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            key.0,
            int(FIRST_EPOCH.0),
            int(self.last_seq()),
            self.last_hash(),
            due(&self.session.fold),
            self.fold
        ])?;
        if let Some(Lease { owner, until }) = &self.lease {
            let mut insert = db.prepare_cached("INSERT INTO leases (session, owner, until) VALUES (?1, ?2, ?3)")?;
            insert.execute(params![key.0, owner.0, until.micros()])?;
        }
        Ok(())
    }
}
