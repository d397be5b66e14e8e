//! Agents and their versions. The row in `agents` says which version is the latest; a version is never changed.

use super::SqliteStore;
use super::columns::{int, json, read_count, read_id, read_json, read_time, read_time_opt};
use super::keyset::{Keyset, shelves};
use super::{fault, once};
use crate::port::{Agents, AppendError, ListFilter, OnceRecord, StoreError, UpdateError};
use async_trait::async_trait;
use loopd_domain::agent::Agent;
use loopd_domain::{AgentId, Timestamp, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// All columns of one version of an agent, for [`agent`].
const COLUMNS: &str = "a.id, a.workspace, v.version, v.spec, a.created_at, v.updated_at, a.archived_at";
const LATEST: &str = "JOIN agent_versions v ON v.agent = a.key AND v.version = a.version";

fn agent(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        id: read_id(row, 0, AgentId::parse)?,
        workspace: read_id(row, 1, WorkspaceId::parse)?,
        version: read_count(row, 2)?,
        spec: read_json(row, 3)?,
        created_at: read_time(row, 4)?,
        updated_at: read_time(row, 5)?,
        archived_at: read_time_opt(row, 6)?,
    })
}

fn create(db: &Connection, agent: &Agent, spec: &str, once: Option<&OnceRecord>) -> Result<(), AppendError> {
    if let Some(record) = once {
        once::insert(db, record)?;
    }
    let mut insert = db
        .prepare_cached(
            "INSERT INTO agents (id, workspace, version, archived, created_at, archived_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .map_err(StoreError::from)?;
    let inserted = insert.execute(params![
        agent.id.as_str(),
        agent.workspace.as_str(),
        int(agent.version),
        agent.archived_at.is_some(),
        agent.created_at.micros(),
        agent.archived_at.map(|t| t.micros()),
    ]);
    match inserted {
        Ok(_) => Ok(insert_version(db, db.last_insert_rowid(), agent, spec)?),
        Err(e) if fault::is_duplicate(&e) => Err(AppendError::Conflict { actual: agent.version }),
        Err(e) => Err(AppendError::Store(e.into())),
    }
}

fn insert_version(db: &Connection, key: i64, agent: &Agent, spec: &str) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO agent_versions (agent, version, updated_at, spec) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key, int(agent.version), agent.updated_at.micros(), spec])?;
    Ok(())
}

fn update(db: &Connection, agent: &Agent, spec: &str, expected: u64) -> Result<(), UpdateError> {
    let latest = latest(db, &agent.workspace, &agent.id)?;
    let (key, current) = latest.ok_or(UpdateError::Absent)?;
    if current != expected || agent.version != expected + 1 {
        return Err(UpdateError::VersionMismatch { expected, current });
    }
    insert_version(db, key, agent, spec)?;
    let advance =
        || db.prepare_cached("UPDATE agents SET version = ?2 WHERE key = ?1")?.execute([key, int(agent.version)]);
    advance().map_err(StoreError::from)?;
    Ok(())
}

/// Row and latest version.
fn latest(db: &Connection, workspace: &WorkspaceId, id: &AgentId) -> Result<Option<(i64, u64)>, StoreError> {
    let mut query = db.prepare_cached("SELECT key, version FROM agents WHERE id = ?1 AND workspace = ?2")?;
    let row = query.query_row([id.as_str(), workspace.as_str()], |row| Ok((row.get(0)?, read_count(row, 1)?)));
    Ok(row.optional()?)
}

fn get(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
    version: Option<u64>,
) -> Result<Option<Agent>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents a JOIN agent_versions v ON v.agent = a.key AND v.version = coalesce(?3, a.version)
         WHERE a.id = ?1 AND a.workspace = ?2"
    );
    let mut query = db.prepare_cached(&sql)?;
    Ok(query.query_row(params![id.as_str(), workspace.as_str(), version.map(int)], agent).optional()?)
}

fn archive(db: &Connection, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<Option<Agent>, StoreError> {
    let sql = "UPDATE agents SET archived = 1, archived_at = ?3 WHERE id = ?1 AND workspace = ?2 AND archived = 0";
    db.prepare_cached(sql)?.execute(params![id.as_str(), workspace.as_str(), at.micros()])?;
    get(db, workspace, id, None)
}

fn list(db: &Connection, filter: ListFilter) -> Result<Vec<Agent>, StoreError> {
    let arms: Vec<String> =
        shelves(filter.include_archived).iter().map(|shelf| format!("workspace = ?6 AND archived = {shelf}")).collect();
    let keyset = Keyset { created: filter.created, ascending: false, after: filter.after, limit: filter.limit };
    let mut values = keyset.values();
    values.push(Value::Text(filter.workspace.as_str().to_owned()));
    let page = keyset.sql("agents", &arms);
    let sql = format!(
        "SELECT {COLUMNS} FROM ({page}) p CROSS JOIN agents a ON a.key = p.key {LATEST} ORDER BY p.created_at DESC, p.id DESC"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), agent)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn versions(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Agent>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agents a JOIN agent_versions v ON v.agent = a.key
         WHERE a.id = ?1 AND a.workspace = ?2 AND v.version < ?3 ORDER BY v.version DESC LIMIT ?4"
    );
    let mut query = db.prepare_cached(&sql)?;
    let before = before.map_or(i64::MAX, int);
    let values = params![id.as_str(), workspace.as_str(), before, int(limit as u64)];
    let rows = query.query_map(values, agent)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[async_trait]
impl Agents for SqliteStore {
    async fn create(&self, agent: Agent, record: Option<OnceRecord>) -> Result<(), AppendError> {
        let spec = json(&agent.spec)?;
        let work = move |db: &Connection| match create(db, &agent, &spec, record.as_ref()) {
            Err(AppendError::Store(fault)) => Err(fault),
            outcome => Ok(outcome),
        };
        self.writer.write(work).await?
    }

    async fn get(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        version: Option<u64>,
    ) -> Result<Option<Agent>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.row(move |db| get(db, &workspace, &id, version)).await
    }

    async fn update(&self, agent: Agent, expected: u64) -> Result<(), UpdateError> {
        let spec = json(&agent.spec)?;
        let work = move |db: &Connection| match update(db, &agent, &spec, expected) {
            Err(UpdateError::Store(fault)) => Err(fault),
            outcome => Ok(outcome),
        };
        self.writer.write(work).await?
    }

    async fn archive(&self, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<Option<Agent>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.write_always(move |db| archive(db, &workspace, &id, at)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<Agent>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn versions(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Agent>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.read(move |db| versions(db, &workspace, &id, before, limit)).await
    }
}
