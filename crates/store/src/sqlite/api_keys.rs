//! API keys, found by digest.

use super::SqliteStore;
use super::columns::{int, json, read_id, read_json, read_time, read_time_opt};
use super::keyset::{Keyset, shelves};
use crate::port::{ApiKeys, ListFilter, MakeError, StoreError};
use async_trait::async_trait;
use loopd_domain::identity::{ApiKey, KeyDigest};
use loopd_domain::limits::KEYS_PER_WORKSPACE_MAX;
use loopd_domain::{ApiKeyId, Timestamp, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

const COLUMNS: &str = "k.id, k.workspace, k.name, k.hint, k.digest, k.scopes, k.created_at, k.created_by, k.expires_at, k.revoked_at, \
                       k.last_used_at";

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: read_id(row, 0, ApiKeyId::parse)?,
        workspace: read_id(row, 1, WorkspaceId::parse)?,
        name: row.get(2)?,
        hint: row.get(3)?,
        digest: KeyDigest(row.get(4)?),
        scopes: read_json(row, 5)?,
        created_at: read_time(row, 6)?,
        created_by: read_json(row, 7)?,
        expires_at: read_time_opt(row, 8)?,
        revoked_at: read_time_opt(row, 9)?,
        last_used_at: read_time_opt(row, 10)?,
    })
}

fn exists(db: &Connection, sql: &str, value: &str) -> Result<bool, StoreError> {
    Ok(db.prepare_cached(sql)?.exists([value])?)
}

fn create(db: &Connection, key: &ApiKey) -> Result<Result<(), MakeError>, StoreError> {
    if !exists(db, "SELECT 1 FROM workspaces WHERE id = ?1", key.workspace.as_str())? {
        return Ok(Err(MakeError::NoWorkspace));
    }
    if exists(db, "SELECT 1 FROM api_keys WHERE id = ?1", key.id.as_str())? || find(db, &key.digest)?.is_some() {
        return Ok(Err(MakeError::Exists));
    }
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM api_keys WHERE workspace = ?1")?
        .query_row([key.workspace.as_str()], |row| row.get(0))?;
    if count >= int(KEYS_PER_WORKSPACE_MAX) {
        return Ok(Err(MakeError::Full { max: KEYS_PER_WORKSPACE_MAX }));
    }
    let sql = "INSERT INTO api_keys (id, workspace, archived, created_at, digest, name, hint, scopes, created_by, expires_at, revoked_at, \
               last_used_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    db.prepare_cached(sql)?.execute(params![
        key.id.as_str(),
        key.workspace.as_str(),
        key.revoked_at.is_some(),
        key.created_at.micros(),
        key.digest.0,
        key.name,
        key.hint,
        json(&key.scopes)?,
        json(&key.created_by)?,
        key.expires_at.map(Timestamp::micros),
        key.revoked_at.map(Timestamp::micros),
        key.last_used_at.map(Timestamp::micros),
    ])?;
    Ok(Ok(()))
}

fn find(db: &Connection, digest: &KeyDigest) -> Result<Option<ApiKey>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.digest = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([digest.0], read).optional()?)
}

fn get(db: &Connection, workspace: &WorkspaceId, id: &ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.id = ?1 AND k.workspace = ?2");
    Ok(db.prepare_cached(&sql)?.query_row([id.as_str(), workspace.as_str()], read).optional()?)
}

fn revoke(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &ApiKeyId,
    at: Timestamp,
) -> Result<Option<ApiKey>, StoreError> {
    let sql =
        "UPDATE api_keys SET archived = 1, revoked_at = coalesce(revoked_at, ?3) WHERE id = ?1 AND workspace = ?2";
    db.prepare_cached(sql)?.execute(params![id.as_str(), workspace.as_str(), at.micros()])?;
    get(db, workspace, id)
}

fn list(db: &Connection, filter: ListFilter) -> Result<Vec<ApiKey>, StoreError> {
    let arms: Vec<String> =
        shelves(filter.include_archived).iter().map(|shelf| format!("workspace = ?6 AND archived = {shelf}")).collect();
    let keyset = Keyset { created: filter.created, ascending: false, after: filter.after, limit: filter.limit };
    let mut values = keyset.values();
    values.push(Value::Text(filter.workspace.as_str().to_owned()));
    let page = keyset.sql("api_keys", &arms);
    let sql = format!(
        "SELECT {COLUMNS} FROM ({page}) p CROSS JOIN api_keys k ON k.key = p.key ORDER BY p.created_at DESC, p.id DESC"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[async_trait]
impl ApiKeys for SqliteStore {
    async fn create(&self, key: ApiKey) -> Result<(), MakeError> {
        self.writer.write(move |db| create(db, &key)).await?
    }

    async fn find(&self, digest: &KeyDigest) -> Result<Option<ApiKey>, StoreError> {
        let digest = *digest;
        self.readers.row(move |db| find(db, &digest)).await
    }

    async fn get(&self, workspace: &WorkspaceId, id: &ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.row(move |db| get(db, &workspace, &id)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<ApiKey>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn revoke(
        &self,
        workspace: &WorkspaceId,
        id: &ApiKeyId,
        at: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.write_always(move |db| revoke(db, &workspace, &id, at)).await
    }

    async fn used(&self, id: &ApiKeyId, at: Timestamp) -> Result<(), StoreError> {
        let id = id.clone();
        let update = move |db: &Connection| {
            let sql = "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, ?2), ?2) WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![id.as_str(), at.micros()])?;
            Ok(())
        };
        self.writer.write_always(update).await
    }

    async fn any(&self) -> Result<bool, StoreError> {
        self.readers.read(|db| Ok(db.prepare_cached("SELECT 1 FROM api_keys LIMIT 1")?.exists([])?)).await
    }
}
