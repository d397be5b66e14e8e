//! Records of requests that were done, so that a repetition has no second effect.

use super::SqliteStore;
use super::columns::{json, read_id, read_json, read_time};
use crate::StoreError;
use crate::port::{AppendError, Once, OnceRecord};
use async_trait::async_trait;
use loopd_domain::limits::IDEMPOTENCY_WINDOW_MS;
use loopd_domain::{Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Writes the record, or refuses with the one that is there. One that has outlived its window gives way.
pub fn insert(db: &Connection, record: &OnceRecord) -> Result<(), AppendError> {
    if let Some(earlier) = find(db, &record.workspace, &record.key)?
        && earlier.at.plus_ms(IDEMPOTENCY_WINDOW_MS) >= record.at
    {
        return Err(AppendError::Repeated(earlier));
    }
    Ok(replace(db, record)?)
}

fn replace(db: &Connection, record: &OnceRecord) -> Result<(), StoreError> {
    db.prepare_cached("REPLACE INTO once (workspace, key, digest, reference, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            record.workspace.as_str(),
            record.key,
            record.request_digest,
            json(&record.reference)?,
            record.at.micros()
        ])?;
    Ok(())
}

fn find(db: &Connection, workspace: &WorkspaceId, key: &str) -> Result<Option<OnceRecord>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT workspace, key, digest, reference, at FROM once WHERE workspace = ?1 AND key = ?2")?;
    Ok(query.query_row(params![workspace.as_str(), key], record).optional()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<OnceRecord> {
    Ok(OnceRecord {
        workspace: read_id(row, 0, WorkspaceId::parse)?,
        key: row.get(1)?,
        request_digest: row.get(2)?,
        reference: read_json(row, 3)?,
        at: read_time(row, 4)?,
    })
}

#[async_trait]
impl Once for SqliteStore {
    async fn find(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        not_before: Timestamp,
    ) -> Result<Option<OnceRecord>, StoreError> {
        let (workspace, key) = (workspace.clone(), key.to_owned());
        let found = self.readers.row(move |db| find(db, &workspace, &key)).await?;
        Ok(found.filter(|record| record.at >= not_before))
    }

    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        let delete = move |db: &Connection| {
            let mut delete = db.prepare_cached("DELETE FROM once WHERE at < ?1")?;
            Ok(delete.execute([before.micros()])? as u64)
        };
        self.writer.write_always(delete).await
    }
}
