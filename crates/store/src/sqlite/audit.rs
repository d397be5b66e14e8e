//! The audit log. A row holds the whole entry as JSON; the columns beside it are what lists need.

use super::SqliteStore;
use super::columns::{int, json, read_json};
use super::keyset::Keyset;
use crate::port::{AuditFilter, AuditLog, StoreError};
use async_trait::async_trait;
use loopd_domain::Timestamp;
use loopd_domain::audit::AuditRecord;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

fn append(db: &Connection, records: &[AuditRecord]) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (id, workspace, created_at, actor, action, resource, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = db.prepare_cached(sql)?;
    for record in records {
        let entry = &record.entry;
        insert.execute(params![
            record.id.as_str(),
            entry.workspace.as_str(),
            entry.at.micros(),
            entry.actor.name(),
            entry.action,
            entry.resource,
            json(record)?,
        ])?;
    }
    Ok(())
}

fn list(db: &Connection, filter: AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
    let mut arm = "workspace = ?6".to_owned();
    let mut wanted = vec![filter.workspace.as_str().to_owned()];
    for (column, value) in [("actor", filter.actor), ("action", filter.action), ("resource", filter.resource)] {
        if let Some(value) = value {
            wanted.push(value);
            arm.push_str(&format!(" AND {column} = ?{}", wanted.len() + 5));
        }
    }
    let keyset = Keyset { created: filter.created, ascending: false, after: filter.after, limit: filter.limit };
    let mut values = keyset.values();
    values.extend(wanted.into_iter().map(Value::Text));
    let page = keyset.sql("audit", &[arm]);
    let sql = format!(
        "SELECT a.body FROM ({page}) p CROSS JOIN audit a ON a.key = p.key ORDER BY p.created_at DESC, p.id DESC"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), |row| read_json(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn expire(db: &Connection, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
    let sql =
        "DELETE FROM audit WHERE key IN (SELECT key FROM audit WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute(params![before.micros(), int(limit as u64)])? as u64)
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn append(&self, records: Vec<AuditRecord>) -> Result<(), StoreError> {
        self.writer.write_always(move |db| append(db, &records)).await
    }

    async fn list(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn expire(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.writer.write_always(move |db| expire(db, before, limit)).await
    }
}
