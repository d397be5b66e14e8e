//! A session's journal as it lies on disk, read by a stranger: the table, and nothing of the program that writes it.

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub seq: u64,
    pub id: String,
    pub kind: String,
    /// Microseconds since 1970.
    pub at: i64,
    pub hash: Vec<u8>,
    pub payload: String,
    pub body: Value,
}

impl Entry {
    /// A text of the body; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or("")
    }

    /// One line of evidence.
    pub fn line(&self) -> String {
        let payload: String = self.payload.chars().take(260).collect();
        format!("{:>4} {} {payload}", self.seq, self.id)
    }
}

/// Where the row of a journal says that it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: Vec<u8>,
}

/// `None` when there is no such session.
pub fn read(data: &Path, session: &str) -> Result<Option<(Head, Vec<Entry>)>> {
    let path = data.join("loopd.sqlite");
    // INVARIANT: read-only, so that closing it does nothing to the log of a server that has just been killed.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&path, flags).with_context(|| format!("`{}`", path.display()))?;
    db.busy_timeout(Duration::from_secs(5))?;
    let mut find = db.prepare(
        "SELECT s.key, j.last_seq, j.last_hash FROM sessions s JOIN journals j ON j.session = s.key WHERE s.id = ?1",
    )?;
    let mut rows = find.query([session])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (key, head): (i64, Head) = (row.get(0)?, Head { seq: row.get::<_, i64>(1)? as u64, hash: row.get(2)? });
    let mut select =
        db.prepare("SELECT place, id, kind, at, hash, payload FROM events WHERE place >> 32 = ?1 ORDER BY place")?;
    let entries = select.query_map([key], |row| {
        let payload: String = row.get(5)?;
        Ok(Entry {
            seq: row.get::<_, i64>(0)? as u64 & 0xffff_ffff,
            id: row.get(1)?,
            kind: row.get(2)?,
            at: row.get(3)?,
            hash: row.get(4)?,
            body: serde_json::from_str(&payload).unwrap_or(Value::Null),
            payload,
        })
    })?;
    Ok(Some((head, entries.collect::<Result<_, _>>()?)))
}
