//! Workspaces: an id for programs, a name for people.

use super::SqliteStore;
use super::columns::{int, read_id, read_time};
use crate::port::{MakeError, StoreError, Workspaces};
use async_trait::async_trait;
use loopd_domain::WorkspaceId;
use loopd_domain::environment::Isolation;
use loopd_domain::identity::Workspace;
use loopd_domain::limits::WORKSPACES_MAX;
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, name, created_at, require_isolation";

fn read(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace {
        id: read_id(row, 0, WorkspaceId::parse)?,
        name: row.get(1)?,
        created_at: read_time(row, 2)?,
        require_isolation: read_isolation(row, 3)?,
    })
}

/// A kind that this program does not know is not taken for a weaker one.
fn read_isolation(row: &Row<'_>, at: usize) -> rusqlite::Result<Isolation> {
    let word: String = row.get(at)?;
    let unknown = || {
        let told = format!("`{word}` is no kind of room");
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, told.into())
    };
    Isolation::parse(&word).ok_or_else(unknown)
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
    db.prepare_cached("INSERT INTO workspaces (id, name, created_at, require_isolation) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            workspace.id.as_str(),
            workspace.name,
            workspace.created_at.micros(),
            workspace.require_isolation.as_str()
        ])?;
    Ok(Ok(()))
}

fn require(db: &Connection, id: &WorkspaceId, isolation: Isolation) -> Result<Option<Workspace>, StoreError> {
    let mut change = db.prepare_cached("UPDATE workspaces SET require_isolation = ?2 WHERE id = ?1")?;
    change.execute(params![id.as_str(), isolation.as_str()])?;
    by_id(db, id)
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

    async fn require(&self, id: &WorkspaceId, isolation: Isolation) -> Result<Option<Workspace>, StoreError> {
        let id = id.clone();
        self.writer.write_always(move |db| require(db, &id, isolation)).await
    }

    async fn get(&self, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        let id = id.clone();
        self.readers.row(move |db| by_id(db, &id)).await
    }

    async fn named(&self, name: &str) -> Result<Option<Workspace>, StoreError> {
        let name = name.to_owned();
        self.readers.read(move |db| by_name(db, &name)).await
    }

    async fn list(&self, after: Option<String>, limit: usize) -> Result<Vec<Workspace>, StoreError> {
        self.readers.read(move |db| list(db, after.as_deref(), limit)).await
    }
}
