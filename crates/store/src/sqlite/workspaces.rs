//! Workspaces: an id for programs, a name for people.

use super::SqliteStore;
use super::columns::{int, read_id, read_time};
use crate::port::{MakeError, StoreError, Workspaces};
use async_trait::async_trait;
use loopd_domain::WorkspaceId;
use loopd_domain::identity::Workspace;
use loopd_domain::limits::WORKSPACES_MAX;
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, name, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace { id: read_id(row, 0, WorkspaceId::parse)?, name: row.get(1)?, created_at: read_time(row, 2)? })
}

fn by_name(db: &Connection, name: &str) -> Result<Option<Workspace>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM workspaces WHERE name = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([name], read).optional()?)
}

fn by_id(db: &Connection, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM workspaces WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id.as_str()], read).optional()?)
}

fn create(db: &Connection, workspace: &Workspace) -> Result<Result<(), MakeError>, StoreError> {
    if by_name(db, &workspace.name)?.is_some() || by_id(db, &workspace.id)?.is_some() {
        return Ok(Err(MakeError::Exists));
    }
    let count: i64 = db.prepare_cached("SELECT count(*) FROM workspaces")?.query_row([], |row| row.get(0))?;
    if count >= int(WORKSPACES_MAX) {
        return Ok(Err(MakeError::Full { max: WORKSPACES_MAX }));
    }
    db.prepare_cached("INSERT INTO workspaces (id, name, created_at) VALUES (?1, ?2, ?3)")?.execute(params![
        workspace.id.as_str(),
        workspace.name,
        workspace.created_at.micros()
    ])?;
    Ok(Ok(()))
}

fn list(db: &Connection, after: Option<&str>, limit: usize) -> Result<Vec<Workspace>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM workspaces WHERE name > ?1 ORDER BY name LIMIT ?2");
    let mut query = db.prepare_cached(&sql)?;
    // No name is empty.
    let rows = query.query_map(params![after.unwrap_or(""), int(limit as u64)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[async_trait]
impl Workspaces for SqliteStore {
    async fn create(&self, workspace: Workspace) -> Result<(), MakeError> {
        self.writer.write(move |db| create(db, &workspace)).await?
    }

    async fn get(&self, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        let id = id.clone();
        self.readers.read(move |db| by_id(db, &id)).await
    }

    async fn named(&self, name: &str) -> Result<Option<Workspace>, StoreError> {
        let name = name.to_owned();
        self.readers.read(move |db| by_name(db, &name)).await
    }

    async fn list(&self, after: Option<String>, limit: usize) -> Result<Vec<Workspace>, StoreError> {
        self.readers.read(move |db| list(db, after.as_deref(), limit)).await
    }
}
